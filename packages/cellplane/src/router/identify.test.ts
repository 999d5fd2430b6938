import { expect, test } from "vitest";
import { type RouteDecision, routeOf } from "../routing/model.ts";
import { applied } from "../routing/testing/model.ts";
import type { RouteTable } from "../routing/table.ts";
import { stamper } from "./identify.ts";
import { cellChange, stampSecret, tenantChange } from "./testing/fleet.ts";

const cells = [cellChange({ name: "eu-1", index: 1, port: 80 }), cellChange({ name: "eu-2", index: 2, port: 80 })];
const name = (text: string): [Buffer, number, number] => [Buffer.from(text), 0, text.length];
const route = (table: RouteTable, tenant: string): RouteDecision => {
  const decision = routeOf(table, table.find("name", ...name(tenant)));
  if (decision.kind !== "route") throw new Error(`${tenant}: ${decision.reason}`);
  return decision;
};

test("D4: a stamp says what the table says now, whoever had the tenant's number before", () => {
  const stamp = stamper(stampSecret);
  const table = applied([...cells, tenantChange("acme", 1)]);
  const first = stamp(table, route(table, "acme"));
  expect(first.text).toContain("x-cellplane-tenant: acme\r\nx-cellplane-cell: eu-1\r\nx-cellplane-epoch: 1\r\nx-cellplane-signature: ");
  expect(stamp(table, route(table, "acme"))).toBe(first);

  const entry = table.entryOf(table.find("name", ...name("acme")));
  table.setTenant(...name("acme"), 0);
  table.setTenant(...name("bolt"), entry);
  expect(stamp(table, route(table, "bolt")).text).toContain("x-cellplane-tenant: bolt\r\n");

  const other = applied([...cells, tenantChange("cyan", 1)]);
  expect(stamp(other, route(other, "cyan")).text).toContain("x-cellplane-tenant: cyan\r\n");
});
