import fc from "fast-check";
import { expect, test } from "vitest";
import type { Cell, CellSpec } from "../cell/model.ts";
import { planText } from "./cli.ts";
import { Fleet, type FleetPlan, type StoredFleet } from "./model.ts";
import { changesNothing, type EngineView, identityOf, planFleet, type PlannedCell, type PlanOptions, specOf } from "./plan.ts";

const blueprint = { services: { app: { command: ["node", "app.mjs"], ports: { http: "auto" } } }, capacity: { tenants: 100 } };
const fleetOf = (more: Record<string, unknown> = {}): Fleet =>
  Fleet.parse({ fleet: "demo", regions: { eu: null, us: null }, blueprints: { shop: blueprint }, cells: { "eu-1": { region: "eu", blueprint: "shop" }, "us-1": { region: "us", blueprint: "shop" } }, ...more });
const baseDirectory = "/srv/shop";
const stored = (fleet: Fleet): StoredFleet => ({ fleet, generation: 3, file: "cellplane.yaml", baseDirectory, appliedAt: "2026-01-01T00:00:00.000Z" });
const none: PlanOptions = { prune: false, overwriteDrift: false };

/** A cell as an apply of the fleet would have left it. */
function cellOf(fleet: Fleet, name: string, more: Partial<PlannedCell> = {}): PlannedCell {
  const cell = fleet.cells[name] ?? { region: "eu", blueprint: "shop", overrides: more.overrides ?? {}, labels: {} };
  const spec = specOf({ fleet, baseDirectory }, { name, ...cell }) as CellSpec;
  return { name, ...cell, spec, state: "active", generation: 4, origin: "fleet", used: { tenants: 0 }, drift: [], ...more };
}
const plan = (fleet: Fleet, was: Fleet | null, cells: PlannedCell[], options: Partial<PlanOptions> = {}, engines?: Map<string, EngineView>) =>
  planFleet({ fleet, baseDirectory }, was && stored(was), cells, { ...none, ...options }, engines);
const text = ({ plan }: { plan: FleetPlan }, detailed = false): string => planText(plan, { colour: false, detailed });

test("the first apply makes everything", () => {
  expect(text(plan(fleetOf(), null, []))).toBe(
    [
      "Fleet demo, generation 0",
      "",
      "  + fleet",
      "  + regions.eu",
      "  + regions.us",
      "  + blueprints.shop",
      "  + placement",
      "  + routing",
      "  + cell eu-1  create, in eu",
      "  + cell us-1  create, in us",
      "",
      "Cells: 2 to create, 0 to update, 0 to destroy, 0 unchanged.",
    ].join("\n"),
  );
});

test("F5: a fleet that is as the file says has nothing to do", () => {
  const fleet = fleetOf();
  const done = plan(fleet, fleet, [cellOf(fleet, "eu-1", { used: { tenants: 7 } }), cellOf(fleet, "us-1")]);
  expect(changesNothing(done.plan)).toBe(true);
  expect(text(done)).toBe("Fleet demo, generation 3\n\nNothing to do: 2 cells are as the file says.");
});

test("a plan names every field that changes, in the blueprint and in the cells, and what restarts", () => {
  const was = fleetOf();
  const fleet = fleetOf({
    blueprints: { shop: { ...blueprint, version: "2" } },
    cells: { "eu-1": { region: "eu", blueprint: "shop", overrides: { capacity: { tenants: 200 } }, labels: { team: "a" } }, "eu-2": { region: "eu", blueprint: "shop" }, "us-1": { region: "us", blueprint: "shop", overrides: { version: "1", capacity: { diskBytes: 5 } } } },
    placement: { strategy: "one-cell" },
  });
  expect(text(plan(fleet, was, [cellOf(was, "eu-1", { used: { tenants: 9 } }), cellOf(was, "us-1", { used: { tenants: 50 } })]))).toBe(
    [
      "Fleet demo, generation 3",
      "",
      '  ~ blueprints.shop.version  "1" → "2"',
      '  ~ placement.strategy  "shared" → "one-cell"',
      "  + cell eu-2  create, in eu",
      "  ~ cell eu-1  update, in eu, restarts",
      "      capacity.tenants  100 → 200",
      '      version  "1" → "2"',
      '      labels.team  "a"',
      "  ~ cell us-1  update, in us",
      "      capacity.diskBytes  5",
      "",
      "Cells: 1 to create, 2 to update, 0 to destroy, 0 unchanged.",
    ].join("\n"),
  );
});

test("F6: a cell that is absent is kept; with prune it is destroyed, unless it has tenants", () => {
  const was = fleetOf({ cells: { ...fleetOf().cells, "eu-8": { region: "eu", blueprint: "shop" }, "eu-9": { region: "eu", blueprint: "shop" } } });
  const fleet = fleetOf();
  const cells = [cellOf(was, "eu-1"), cellOf(was, "us-1"), cellOf(was, "eu-8"), cellOf(was, "eu-9", { used: { tenants: 3 } })];
  expect(text(plan(fleet, was, cells))).toContain("cell eu-8  in eu, not in the file: kept (--prune destroys it)");
  expect(plan(fleet, was, cells).plan.cells.map((action) => action.action)).not.toContain("destroy");
  const pruned = plan(fleet, was, cells, { prune: true });
  expect(text(pruned)).toContain("  - cell eu-8  destroy, in eu, not in the file\n");
  expect(text(pruned)).toContain("    cell eu-9  in eu, not in the file: kept, since it has 3 tenants (drain it first)\n");
});

test("F6, F7: whatever the fleet, only empty cells of a former file are ever destroyed, and only with prune", () => {
  const fleet = fleetOf();
  const anyCell = fc.record({
    name: fc.constantFrom("eu-1", "us-1", "x-1", "x-2", "x-3"), origin: fc.constantFrom<Cell["origin"][]>("fleet", "person", "placement"), tenants: fc.nat(2),
    state: fc.constantFrom<Cell["state"][]>("requested", "provisioning", "active", "cordoned", "draining", "empty", "retired", "destroyed", "failed"),
  });
  fc.assert(
    fc.property(fc.uniqueArray(anyCell, { selector: (cell) => cell.name }), fc.boolean(), fc.boolean(), (given, prune, overwriteDrift) => {
      const cells = given.map(({ name, tenants, ...more }) => cellOf(fleet, name, { ...more, used: { tenants } }));
      for (const action of plan(fleet, fleet, cells, { prune, overwriteDrift }).plan.cells.filter((one) => one.action === "destroy")) {
        const cell = given.find(({ name }) => name === action.cell);
        expect({ prune, origin: cell?.origin, tenants: cell?.tenants, listed: Object.hasOwn(fleet.cells, action.cell) }).toEqual({ prune: true, origin: "fleet", tenants: 0, listed: false });
      }
    }),
  );
});

test("F3: the same file against the same fleet gives the same plan, in whatever order the cells come", () => {
  const fleet = fleetOf({ blueprints: { shop: { ...blueprint, version: "2" } } });
  const cells = [cellOf(fleetOf(), "eu-1"), cellOf(fleetOf(), "us-1"), cellOf(fleetOf(), "x-1", { origin: "person" })];
  expect(plan(fleet, fleetOf(), cells).plan).toEqual(plan(fleet, fleetOf(), cells.toReversed()).plan);
});

test("F4: a plan is another when what it was decided from has changed, but not when tenants come and go", () => {
  const fleet = fleetOf({ blueprints: { shop: { ...blueprint, version: "2" } } });
  const cells = [cellOf(fleetOf(), "eu-1"), cellOf(fleetOf(), "us-1")];
  const identity = (given: PlannedCell[], was = fleetOf()) => identityOf(plan(fleet, was, given).plan);
  expect(identity([cellOf(fleetOf(), "eu-1", { used: { tenants: 5 } }), cellOf(fleetOf(), "us-1")])).toEqual(identity(cells));
  expect(identity([cellOf(fleetOf(), "eu-1", { generation: 5 }), cellOf(fleetOf(), "us-1")])).not.toEqual(identity(cells));
  expect(identity(cells.slice(1))).not.toEqual(identity(cells));
  expect(identityOf(planFleet({ fleet, baseDirectory }, { ...stored(fleetOf()), generation: 4 }, cells, none).plan)).not.toEqual(identity(cells));
});

test("F7: a cell made by hand follows its blueprint, and one whose blueprint is gone is left alone", () => {
  const fleet = fleetOf({ blueprints: { shop: { ...blueprint, version: "2" } } });
  const cells = [cellOf(fleet, "eu-1"), cellOf(fleet, "us-1"), cellOf(fleetOf(), "x-1", { origin: "person" }), cellOf(fleetOf(), "x-2", { origin: "placement", blueprint: "gone" })];
  const shown = text(plan(fleet, fleet, cells, { prune: true }));
  expect(shown).toContain('  ~ cell x-1  update, in eu, restarts, made by hand\n      version  "1" → "2"');
  expect(shown).toContain("    cell x-2  in eu, made for a tenant; the fleet file has no blueprint gone");
});

test("F9: of the cells that change, a sandbox comes first, then the one with the fewest tenants", () => {
  const was = fleetOf({ cells: { a: { region: "eu", blueprint: "shop" }, b: { region: "us", blueprint: "shop" }, c: { region: "eu", blueprint: "shop", overrides: { class: "sandbox" } } } });
  const fleet = Fleet.parse({ ...was, blueprints: { shop: { ...blueprint, version: "2" } } });
  const cells = [cellOf(was, "a", { used: { tenants: 9 } }), cellOf(was, "b", { used: { tenants: 2 } }), cellOf(was, "c", { used: { tenants: 50 } })];
  expect(plan(fleet, was, cells).plan.cells.map((action) => action.cell)).toEqual(["c", "b", "a"]);
});

test("F10: a cell that someone else changed is left out and shown, unless that is to be overwritten", () => {
  const fleet = fleetOf({ blueprints: { shop: { ...blueprint, version: "2" } } });
  const cells = [cellOf(fleetOf(), "eu-1", { drift: [{ path: "config.theme", expected: "light", actual: "dark" }] }), cellOf(fleet, "us-1", { drift: [{ path: "config.theme", actual: "dark" }] })];
  expect(text(plan(fleet, fleet, cells))).toBe(
    [
      "Fleet demo, generation 3",
      "",
      "    cell eu-1  in eu, left out, since someone else changed it (--overwrite-drift undoes that)",
      '      version  "1" → "2"',
      "      ! config.theme was changed by someone else",
      "    cell us-1  in us, someone else changed it",
      "      ! config.theme was changed by someone else",
      "",
      "Nothing to do now: 2 of 2 cells are not as the file says.",
    ].join("\n"),
  );
  expect(plan(fleet, fleet, cells, { overwriteDrift: true }).plan.cells.map(({ cell, action, note }) => `${cell} ${action} ${note}`)).toEqual(["eu-1 update undoes what someone else changed", "us-1 update undoes what someone else changed"]);
});

test("what can not be done in place is found, at the line that says it", () => {
  const was = fleetOf();
  const fleet = fleetOf({
    blueprints: { shop: { ...blueprint, capacity: { tenants: 5 } } },
    cells: { "eu-1": { region: "us", blueprint: "shop" }, "us-1": { region: "us", blueprint: "shop", overrides: { capacity: { tenants: 3 } } }, "eu-7": { region: "eu", blueprint: "shop" }, "eu-8": { region: "eu", blueprint: "shop" } },
  });
  const cells = [cellOf(was, "eu-1", { used: { tenants: 8 } }), cellOf(was, "us-1", { used: { tenants: 8 } }), cellOf(was, "eu-7", { state: "retired" }), cellOf(was, "eu-8", { state: "destroyed" })];
  expect(plan(fleet, was, cells).findings.map(({ keys, message }) => `${keys.join(".")}: ${message}`)).toEqual([
    "cells.eu-1.region: a cell keeps its region (eu): create another cell and move the tenants",
    "blueprints.shop.capacity.tenants: 5 is below the 8 in use: raise it, or move tenants away first",
    "cells.us-1.overrides.capacity.tenants: 3 is below the 8 in use: raise it, or move tenants away first",
    "cells.eu-7: cell eu-7 is retired and does not come back: take it out of the file, or destroy and purge it first",
    "cells.eu-8: cell eu-8 is destroyed and does not come back: its data are kept under the name: purge it, or choose another name",
  ]);
});

test("what engines say is part of the plan: more changes, refusals, silence", () => {
  const fleet = fleetOf();
  const engines = new Map<string, EngineView>([
    ["eu-1", { kind: "plan", changes: [{ path: "database.schema.0002.sql", to: "abc" }], restarts: false }],
    ["us-1", { kind: "silent", why: "no answer" }],
  ]);
  const planned = plan(fleet, fleet, [cellOf(fleet, "eu-1"), cellOf(fleet, "us-1")], {}, engines);
  expect(text(planned)).toContain('  ~ cell eu-1  update, in eu\n      database.schema.0002.sql  "abc"\n');
  expect(text(planned)).toContain("    cell us-1  in us, left out, since its engine does not say: no answer\n");
  const refused = plan(fleet, null, [], {}, new Map([["eu-1", { kind: "refuses", issues: [{ path: "services.app.command", message: "no such program" }] }]]));
  expect(refused.findings).toEqual([{ keys: ["blueprints", "shop", "services", "app", "command"], message: "no such program" }]);
});

test("a cell that could not be made is made again, and one that is being made is left to that", () => {
  const fleet = fleetOf();
  const planned = plan(fleet, fleet, [cellOf(fleet, "eu-1", { state: "failed" }), cellOf(fleet, "us-1", { state: "provisioning" })]).plan;
  expect(planned.cells.map(({ cell, action, note }) => `${cell} ${action}: ${note}`)).toEqual(["eu-1 create: making it failed before", "us-1 none: is being made: apply again when that is over"]);
});

test("a file that only forgets a cell is still another file", () => {
  const was = fleetOf({ cells: { ...fleetOf().cells, "eu-9": { region: "eu", blueprint: "shop" } } });
  const planned = plan(fleetOf(), was, [cellOf(was, "eu-1"), cellOf(was, "us-1"), cellOf(was, "eu-9")]);
  expect(changesNothing(planned.plan)).toBe(false);
  expect(planned.plan.settings).toEqual([]);
  expect(text(planned)).toMatch(/\nOnly the file itself is another\.$/);
});
