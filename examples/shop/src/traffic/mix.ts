import type { Outcome, ReadKind, WriteKind } from "./model.ts";

/**
 * What a tenant's clients do next. Nothing is asked for that the shop would refuse: an order is paid or cancelled once,
 * and not touched while another request for it is under way, so every refusal is the fleet's doing. Pure.
 */
export interface Shopper {
  /** Accounts known to be open. */
  accounts: string[];
  /** Orders known to be placed, with nothing under way. */
  orders: number[];
  /** True while an account is being opened. */
  opening: boolean;
}

export const newShopper = (): Shopper => ({ accounts: [], orders: [], opening: false });

export type Move =
  | { read: ReadKind }
  | { write: "account" }
  | { write: "order"; account: string; items: { sku: string; quantity: number; priceCents: number }[] }
  | { write: "amend"; order: number; items: { sku: string; quantity: number; priceCents: number }[] }
  | { write: "pay" | "cancel"; order: number };

const accountsMax = 3;
const ordersMax = 20;
/** Shares of the writes of a tenant that has orders to work on. */
const shares: Record<Exclude<WriteKind, "account">, number> = { order: 0.55, amend: 0.15, pay: 0.2, cancel: 0.1 };

/** Takes what it needs from the shopper; `settle` gives back what may be used again. @param random uniform in [0, 1) */
export function nextMove(shopper: Shopper, readShare: number, random: () => number): Move {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const items = () =>
    Array.from({ length: 1 + Math.floor(random() * 4) }, () => ({ sku: `sku-${Math.floor(random() * 1000)}`, quantity: 1 + Math.floor(random() * 5), priceCents: 100 + Math.floor(random() * 10_000) }));
  const read: Move = { read: pick<ReadKind>(["orders", "balance", "events"]) };

  if (random() < readShare) return read;
  if (shopper.accounts.length < accountsMax && !shopper.opening && (shopper.accounts.length === 0 || random() < 0.1)) {
    shopper.opening = true;
    return { write: "account" };
  }
  if (shopper.accounts.length === 0) return read;

  let dice = random();
  for (const kind of ["amend", "pay", "cancel"] as const) {
    dice -= shares[kind];
    if (dice >= 0) continue;
    const order = shopper.orders.splice(Math.floor(random() * shopper.orders.length), 1)[0];
    if (order === undefined) break;
    return kind === "amend" ? { write: kind, order, items: items() } : { write: kind, order };
  }
  return { write: "order", account: pick(shopper.accounts), items: items() };
}

/** @param answer what the shop said, when the outcome is ok @param account the name the account was opened under */
export function settle(shopper: Shopper, move: Move, outcome: Outcome, answer: { order?: { id?: number } | null } | null, account: string): void {
  if ("read" in move) return;
  if (move.write === "account") {
    shopper.opening = false;
    if (outcome === "ok") shopper.accounts.push(account);
    return;
  }
  // An order that may or may not have been paid is left alone: what comes next could not be judged.
  const placed = move.write === "order" ? (outcome === "ok" ? answer?.order?.id : undefined) : outcome === "rejected" || (outcome === "ok" && move.write === "amend") ? move.order : undefined;
  if (placed !== undefined && shopper.orders.length < ordersMax) shopper.orders.push(placed);
}
