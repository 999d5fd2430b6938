import { describe, expect, test } from "vitest";
import { actionsOf } from "./actions.ts";
import { loadOf, usesOf } from "./load.ts";
import { cell } from "../testing/cell.ts";
import type { CellDetail } from "../../../cellplane/src/cell/model.ts";

describe("the load of a cell", () => {
  test("is its fullest dimension", () => expect(loadOf({ capacity: { tenants: 100, connections: 10 }, used: { tenants: 50, connections: 8 } })).toMatchObject({ dimension: "connections", ratio: 0.8 }));
  test("is unknown without limits", () => expect(loadOf({ capacity: {}, used: { tenants: 5 } })).toBeNull());
  test("of a cell that may hold nothing is full as soon as it holds something", () => {
    expect(loadOf({ capacity: { tenants: 0 }, used: {} })?.ratio).toBe(0);
    expect(loadOf({ capacity: { tenants: 0 }, used: { tenants: 1 } })?.ratio).toBe(Infinity);
  });
  test("shows what is used even where it is not limited", () => expect(usesOf({ capacity: {}, used: { diskBytes: 5 } })).toEqual([{ dimension: "diskBytes", used: 5, capacity: null, ratio: null }]));
});

describe("C8: actions", () => {
  const one = cell({ name: "eu-1" });
  const refused = { cordon: null, uncordon: null, drain: null, update: null, retire: "cell eu-1 still has 84 tenants", destroy: "cell eu-1 still has 84 tenants" };
  const detail = { ...one, refused } as unknown as CellDetail;
  const operator = { name: "o", role: "operator" } as const;

  test("have a command each", () => expect(actionsOf(one, { detail, caller: operator, isLive: true }).map(({ command }) => command)).toContain("cellplane cell cordon eu-1"));
  test("say why they are refused", () => {
    expect(actionsOf(one, { detail, caller: operator, isLive: true }).find(({ verb }) => verb === "retire")?.refusal).toContain("84 tenants");
    expect(actionsOf(one, { detail, caller: { name: "v", role: "viewer" }, isLive: true })[0]?.refusal).toContain("operator");
  });
  test("C1: are refused while the connection is lost", () => {
    for (const { refusal } of actionsOf(one, { detail, caller: operator, isLive: false })) expect(refusal).toContain("lost");
  });
});
