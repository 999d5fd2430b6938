import { canonicalJson } from "../base/canonical.ts";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Blueprint, type Capacity, type CellSpec, dimensions } from "./model.ts";
import { allow, changesBetween, mergeOverrides, refusedChanges, refusedVerbs, smallerCapacity, touchesProcesses, withOverrides } from "./plan.ts";

const blueprint = Blueprint.parse({ services: { app: { command: ["node", "app.mjs"], ports: { http: "auto" } } }, database: { engine: "postgres" }, capacity: { tenants: 10 } });
const spec = (over: Partial<CellSpec> = {}): CellSpec => ({ ...blueprint, cell: "eu-1", region: "eu", blueprint: "shop", baseDirectory: "/srv", ...over });

test("equal values have no changes between them, whatever the order of their keys", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => changesBetween(value, JSON.parse(canonicalJson(value))).length === 0));
});

test("changes name the path, with what was and what is to be", () => {
  expect(changesBetween({ a: { b: 1, c: [1, 2] }, d: 1 }, { a: { b: 2, c: [1, 2], e: null }, f: 0 })).toEqual([
    { path: "a.b", from: 1, to: 2 },
    { path: "a.e", to: null },
    { path: "f", to: 0 },
    { path: "d", from: 1 },
  ]);
  expect(changesBetween({ list: [1] }, { list: [1, 2] })).toEqual([{ path: "list", from: [1], to: [1, 2] }]);
});

test("overrides merge objects, replace the rest, and are held to the blueprint's schema", () => {
  const merged = withOverrides(blueprint, { capacity: { diskBytes: 5 }, services: { app: { command: ["bun"] } }, version: "2" });
  expect(merged.data).toMatchObject({ capacity: { tenants: 10, diskBytes: 5 }, version: "2", services: { app: { command: ["bun"], ports: { http: "auto" } } } });
  expect(withOverrides(blueprint, { verison: "2" }).error?.issues[0]).toMatchObject({ code: "unrecognized_keys", keys: ["verison"] });
  expect(mergeOverrides({ config: { a: 1 } }, { config: { b: 2 } })).toEqual({ config: { a: 1, b: 2 } });
});

test("an override named __proto__ changes no prototype", () => {
  withOverrides(blueprint, JSON.parse('{"config":{"__proto__":{"polluted":true}},"__proto__":{"polluted":true}}') as Record<string, never>);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("what only the control plane knows of does not touch the cell's processes", () => {
  expect(touchesProcesses(changesBetween(spec(), spec({ capacity: { tenants: 20 }, class: "dedicated" })))).toBe(false);
  expect(touchesProcesses(changesBetween(spec(), spec({ version: "2" })))).toBe(true);
});

test("what can not be changed in place is refused, and says what to do", () => {
  const { database: _, ...without } = spec();
  const issues = refusedChanges({ used: { tenants: 3, connections: 40 } }, spec(), { ...without, region: "us", driver: "other", class: "dedicated", capacity: { tenants: 2, connections: 40 } });
  expect(issues.map((issue) => `${issue.path}: ${issue.message}`)).toEqual([
    "region: a cell keeps its region (eu): create another cell and move the tenants",
    "driver: a cell keeps its driver (local): create another cell and move the tenants",
    "database: removing the database would lose the tenants' data: create another cell and move the tenants",
    "class: a dedicated cell holds one tenant, this one has 3: move the others first",
    "capacity.tenants: 2 is below the 3 in use: raise it, or move tenants away first",
  ]);
  expect(refusedChanges({ used: { tenants: 3 } }, spec(), spec({ version: "2" }))).toEqual([]);
});

test("C12: the smaller of two capacities holds in both", () => {
  const capacity = fc.dictionary(fc.constantFrom(...dimensions), fc.nat(9)) as fc.Arbitrary<Capacity>;
  fc.assert(
    fc.property(capacity, capacity, capacity, (a, b, used) => {
      const fits = (limit: Capacity): boolean => dimensions.every((d) => (used[d] ?? 0) <= (limit[d] ?? Infinity));
      return fits(smallerCapacity(a, b)) === (fits(a) && fits(b));
    }),
  );
});

test("C4: a cell with tenants is not retired or destroyed, and says how many it has", () => {
  expect(() => allow("destroy", { name: "eu-1", state: "active", used: { tenants: 2 } })).toThrow("cell eu-1 has 2 tenants: destroy would cut them off");
  expect(refusedVerbs({ name: "eu-1", state: "cordoned", used: { tenants: 1 } })).toEqual({
    update: null, cordon: null, uncordon: null, drain: null,
    retire: "cell eu-1 has 1 tenant: retire would cut them off", destroy: "cell eu-1 has 1 tenant: destroy would cut them off",
  });
});

test("a destroyed cell may be destroyed again, to purge it, and nothing else", () => {
  const refused = refusedVerbs({ name: "eu-1", state: "destroyed", used: { tenants: 0 } });
  expect(Object.entries(refused).filter(([, why]) => why === null).map(([verb]) => verb)).toEqual(["destroy"]);
});
