import type { Order } from "./model.ts";

export interface PageFacts {
  tenant: string;
  cell: string;
  region: string;
  epoch: number;
  version: string;
  banner: string;
  orders: readonly Order[];
  accounts: readonly { name: string; kind: string; balanceCents: number }[];
}

const escaped = (text: string | number): string => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const euros = (cents: number): string => (cents / 100).toFixed(2);
const row = (cells: readonly (string | number)[]): string => `<tr>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`;

/** What a visitor of the tenant's shop sees: above all, where it is served from. */
export const page = ({ tenant, cell, region, epoch, version, banner, orders, accounts }: PageFacts): string => `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(tenant)}</title>
<style>body{font:16px/1.5 system-ui;margin:2rem auto;max-width:42rem;padding:0 1rem}table{border-collapse:collapse;width:100%}td{padding:.2rem .5rem;border-top:1px solid #8884}dt{float:left;width:6rem;color:#777}</style>
<h1>${escaped(tenant)}</h1>${banner && `<p><strong>${escaped(banner)}</strong></p>`}
<dl><dt>cell</dt><dd>${escaped(cell)}</dd><dt>region</dt><dd>${escaped(region)}</dd><dt>epoch</dt><dd>${epoch}</dd><dt>version</dt><dd>${escaped(version)}</dd></dl>
<h2>Orders</h2><table>${orders.map((order) => row([order.id, order.account, order.state, euros(order.totalCents)])).join("")}</table>
<h2>Ledger</h2><table>${accounts.map((account) => row([account.name, account.kind, euros(account.balanceCents)])).join("")}</table>
</html>
`;
