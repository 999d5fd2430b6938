import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CellplaneError } from "../base/errors.ts";
import { type Capacity, cellClasses, cellStates, dimensions } from "../cell/model.ts";
import { PlacementPolicy, strategies } from "./model.ts";
import { type Arrival, type CellFacts, type Decision, explain, type FleetFacts, layOut, place } from "./plan.ts";

const regions = ["ap", "eu", "us"];
const oneOf = fc.constantFrom;
const amount = (max: number) => fc.integer({ min: 0, max: max * 4 }).map((quarters) => quarters / 4);
const anyCapacity = (max: number) => fc.record({ tenants: fc.nat(max), connections: amount(max), requestsPerSecond: amount(max), diskBytes: fc.nat(max * 1000) }, { requiredKeys: [] }) as fc.Arbitrary<Capacity>;

const anyCell = fc.record({
  region: oneOf(...regions), class: oneOf("shared", "shared", ...cellClasses), state: oneOf("active", "active", "active", "active", ...cellStates), ok: oneOf(true, true, true, null, false),
  keptFor: oneOf(null, null, null, null, "t-1"), capacity: anyCapacity(20), used: anyCapacity(20),
});
const anyFleet: fc.Arbitrary<FleetFacts> = fc.array(anyCell, { maxLength: 12 }).map((cells) => ({ regions, cells: cells.map((cell, i) => ({ ...cell, name: `cell-${i}`, index: i + 1 })) }));
const anyTenant: fc.Arbitrary<Arrival> = fc.record({
  name: fc.nat(30).map((n) => `t-${n}`), tier: oneOf("standard", "trial"), region: oneOf(null, null, ...regions), dedicated: oneOf(false, false, false, true),
  cell: oneOf(null, null, null, null, "cell-0", "cell-1"), load: fc.record({ connections: amount(5), diskBytes: fc.nat(5000) }, { requiredKeys: [] }) as fc.Arbitrary<Arrival["load"]>,
});
const anyPolicy = fc
  .record({ strategy: oneOf(...strategies), headroomRatio: oneOf(0, 0.1, 0.25), cell: oneOf(null, "cell-2"), blueprint: oneOf(null, "app"), classes: oneOf({}, { trial: "sandbox" as const }) })
  .map((policy) => PlacementPolicy.parse(policy));

/** What `place` answers, or the error it says no with; anything else is a defect. */
function tryPlace(tenant: Arrival, board: ReturnType<typeof layOut>): Decision | CellplaneError {
  try {
    return place(tenant, board);
  } catch (error) {
    if (error instanceof CellplaneError) return error;
    throw error;
  }
}
const cellOf = (fleet: FleetFacts, name: string): CellFacts => {
  const cell = fleet.cells.find((cell) => cell.name === name);
  if (!cell) throw new Error(`placed in ${name}, which is not there`);
  return cell;
};

/** Whether a cell may take a tenant, said again without arrays and order: the oracle. */
function mayTake(cell: CellFacts, tenant: Arrival, policy: PlacementPolicy, fleet: FleetFacts, taken: Capacity): boolean {
  const own = tenant.dedicated || policy.strategy === "cell-per-tenant";
  const lowest = fleet.cells.filter((c) => !["retired", "destroyed", "failed"].includes(c.state)).sort((a, b) => a.index - b.index)[0]?.name;
  if (policy.strategy === "one-cell" && cell.name !== (policy.cell ?? lowest)) return false;
  const wanted = own ? "dedicated" : (policy.classes[tenant.tier] ?? (policy.strategy === "one-cell" ? cell.class : "shared"));
  const room = dimensions.every((d) => {
    const more = d === "tenants" ? 1 : (tenant.load[d] ?? 0);
    const limit = cell.class === "dedicated" ? (d === "tenants" ? Math.min(1, cell.capacity[d] ?? 1) : (cell.capacity[d] ?? Infinity)) : (cell.capacity[d] ?? Infinity) * (1 - policy.headroomRatio);
    return more === 0 || (cell.used[d] ?? 0) + (taken[d] ?? 0) + more <= limit;
  });
  return (
    (tenant.region === null || tenant.region === cell.region) && (tenant.cell === null || tenant.cell === cell.name) && cell.class === wanted && cell.state === "active" && cell.ok !== false &&
    (cell.keptFor === null || cell.keptFor === tenant.name) && room
  );
}

/** What is wrong with a decision when these are the cells that fit; null when nothing is. */
function faultOf(decision: Decision | CellplaneError, tenant: Arrival, fitting: CellFacts[], policy: PlacementPolicy): string | null {
  if (decision instanceof CellplaneError) return fitting.length > 0 ? `refused, though ${fitting[0]?.name} fits: ${decision.message}` : null;
  if (decision.kind === "placed") return fitting.some((cell) => cell.name === decision.cell) ? null : `placed in ${decision.cell}, which does not fit`;
  if (fitting.length > 0) return `a cell is made, though ${fitting[0]?.name} fits`;
  if (!tenant.dedicated && policy.strategy !== "cell-per-tenant") return "a cell is made for a tenant that needs none of its own";
  return regions.includes(decision.region) && decision.region === (tenant.region ?? decision.region) ? null : `a cell is made in ${decision.region}`;
}

describe("place", () => {
  test("P1 P2 P3: a batch keeps residency, class, state and every capacity, and refuses only what fits nowhere", () => {
    fc.assert(
      fc.property(anyFleet, fc.array(anyTenant, { maxLength: 30 }), anyPolicy, (fleet, tenants, policy) => {
        const board = layOut(fleet, policy);
        const taken = new Map<string, Capacity>(fleet.cells.map((cell) => [cell.name, {}]));
        for (const tenant of tenants) {
          const fitting = fleet.cells.filter((cell) => mayTake(cell, tenant, policy, fleet, taken.get(cell.name) ?? {}));
          const decision = tryPlace(tenant, board);
          expect(faultOf(decision, tenant, fitting, policy)).toBeNull();
          if (decision instanceof CellplaneError || decision.kind === "make") continue;
          const sum = taken.get(decision.cell) ?? {};
          for (const d of dimensions) sum[d] = (sum[d] ?? 0) + (d === "tenants" ? 1 : (tenant.load[d] ?? 0));
          taken.set(decision.cell, sum);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("P4: the same facts give the same decisions, in whatever order the cells are told", () => {
    fc.assert(
      fc.property(anyFleet, fc.array(anyTenant, { maxLength: 20 }), anyPolicy, fc.infiniteStream(fc.nat()), (fleet, tenants, policy, draws) => {
        const shuffled = fleet.cells.map((cell) => ({ cell, at: draws.next().value })).sort((a, b) => a.at - b.at).map(({ cell }) => cell);
        const decide = (cells: CellFacts[]) => {
          const board = layOut({ ...fleet, cells }, policy);
          return tenants.map((tenant) => tryPlace(tenant, board)).map((decision) => (decision instanceof CellplaneError ? decision.message : decision));
        };
        expect(decide(shuffled)).toEqual(decide(fleet.cells));
      }),
    );
  });

  test("P5: each decision is explained: why this cell, and for every other cell why not; explaining takes nothing", () => {
    fc.assert(
      fc.property(anyFleet, anyTenant, anyPolicy, (fleet, tenant, policy) => {
        const board = layOut(fleet, policy);
        const told = explain(tenant, board);
        const decision = tryPlace(tenant, layOut(fleet, policy));
        expect(told.outcome).toBe(decision instanceof CellplaneError ? "refused" : decision.kind === "make" ? "waits" : "placed");
        expect(told.cell).toBe(decision instanceof CellplaneError ? null : decision.cell);
        expect(told.because.length).toBeGreaterThan(0);
        expect(told.rejected.every(({ reason }) => reason.length > 3)).toBe(true);
        const others = fleet.cells.map((cell) => cell.name).filter((name) => name !== told.cell);
        expect(told.rejected.map(({ cell }) => cell).sort()).toEqual(others.sort());
        expect(board.added.every((n) => n === 0)).toBe(true);
        // "fits" is said of exactly the cells that do.
        for (const { cell, reason } of told.rejected) expect(reason.startsWith("fits")).toBe(mayTake(cellOf(fleet, cell), tenant, policy, fleet, {}) );
      }),
      { numRuns: 300 },
    );
  });
});

const cell = (name: string, more: Partial<CellFacts> = {}): CellFacts => ({ name, index: Number(name.split("-")[1] ?? 1), region: "eu", class: "shared", state: "active", ok: true, keptFor: null, capacity: {}, used: {}, ...more });
const tenant = (name: string, more: Partial<Arrival> = {}): Arrival => ({ name, tier: "standard", region: null, dedicated: false, cell: null, load: {}, ...more });
const policy = (more: Partial<PlacementPolicy> = {}): PlacementPolicy => PlacementPolicy.parse(more);
const decide = (who: Arrival, cells: CellFacts[], more: Partial<PlacementPolicy> = {}): Decision => place(who, layOut({ cells, regions: ["eu", "us"] }, policy(more)));
const codeOf = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof CellplaneError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "nothing";
};

describe("the policy", () => {
  test("P6: the cell that stays the least full in its fullest dimension takes it", () => {
    const cells = [cell("a-1", { capacity: { tenants: 100, connections: 10 }, used: { tenants: 1, connections: 8 } }), cell("a-2", { capacity: { tenants: 100, connections: 10 }, used: { tenants: 60 } })];
    expect(decide(tenant("t"), cells)).toMatchObject({ kind: "placed", cell: "a-2", because: ["of 2 cells that fit it stays the least full: 67.8 % of the tenants it may use"] });
  });

  test("P6: equally full cells share their tenants", () => {
    const board = layOut({ cells: Array.from({ length: 8 }, (_, i) => cell(`a-${i + 1}`)), regions: ["eu"] }, policy());
    const counts = new Map<string, number>();
    for (let i = 0; i < 800; i++) {
      const { cell } = place(tenant(`t-${i}`), board);
      counts.set(cell, (counts.get(cell) ?? 0) + 1);
    }
    expect([...counts.values()]).toEqual(Array.from({ length: 8 }, () => 100));
    // Where all is equal, it is by lot: control planes that see the same empty fleet do not all pick the same cell.
    const alone = Array.from({ length: 800 }, (_, i) => decide(tenant(`t-${i}`), board.cells).cell);
    for (const { name } of board.cells) expect(alone.filter((cell) => cell === name).length).toBeGreaterThan(60);
  });

  test("P7: a dedicated tenant gets an empty dedicated cell, else one that is made for it, else a no", () => {
    const cells = [cell("a-1"), cell("a-2", { class: "dedicated", used: { tenants: 1 } }), cell("a-3", { class: "dedicated", keptFor: "other" })];
    expect(decide(tenant("t", { dedicated: true }), [...cells, cell("a-4", { class: "dedicated" })])).toMatchObject({ kind: "placed", cell: "a-4" });
    expect(decide(tenant("t", { dedicated: true, region: "us" }), cells, { blueprint: "app" })).toMatchObject({ kind: "make", cell: "only-t", region: "us", blueprint: "app" });
    expect(decide(tenant("t"), cells, { strategy: "cell-per-tenant", blueprint: "app" })).toMatchObject({ kind: "make" });
    expect(codeOf(() => decide(tenant("t", { dedicated: true }), cells))).toBe("no_capacity: no cell has room for t: eu lacks 1 tenants (in a-2)");
    const long = "x".repeat(63);
    const names = [long, `${long.slice(0, 62)}y`].map((name) => decide(tenant(name, { dedicated: true }), cells, { blueprint: "app" }).cell);
    expect(new Set(names).size).toBe(2);
    expect(names.every((name) => name.length <= 63)).toBe(true);
  });

  test("P3: one cell for all is the one named, or the first", () => {
    const cells = [cell("a-1", { state: "retired" }), cell("a-2"), cell("a-3")];
    for (let i = 0; i < 20; i++) expect(decide(tenant(`t-${i}`), cells, { strategy: "one-cell" })).toMatchObject({ cell: "a-2" });
    expect(decide(tenant("t"), cells, { strategy: "one-cell", cell: "a-3" })).toMatchObject({ cell: "a-3", because: ["all tenants live in a-3 (strategy one-cell)", "it is the only cell that fits"] });
  });

  test("P5: a refusal says what is missing, where", () => {
    const full = [cell("a-1", { capacity: { connections: 10 }, used: { connections: 8 } }), cell("a-2", { capacity: { tenants: 10 }, used: { tenants: 9 } }), cell("a-3", { region: "us", capacity: { connections: 1 } })];
    expect(codeOf(() => decide(tenant("t", { load: { connections: 2 } }), full))).toBe("no_capacity: no cell has room for t: eu lacks 1 connections (in a-1); us lacks 1.1 connections (in a-3)");
    expect(codeOf(() => decide(tenant("t", { region: "mars" }), full))).toBe("residency_unsatisfiable: t must stay in region mars: there is no such region (eu, us)");
    expect(codeOf(() => decide(tenant("t", { region: "us" }), [cell("a-1")]))).toBe("residency_unsatisfiable: t must stay in region us: no cell is there");
    expect(codeOf(() => decide(tenant("t", { region: "us", cell: "a-1" }), [cell("a-1")]))).toBe("residency_unsatisfiable: t must stay in region us: cell a-1 is not there");
    expect(codeOf(() => decide(tenant("t", { cell: "a-9" }), full))).toBe("not_found: there is no cell a-9");
    expect(codeOf(() => decide(tenant("t"), [cell("a-1", { state: "cordoned" }), cell("a-2", { ok: false }), cell("a-3", { state: "cordoned" })]))).toBe("no_cell: no cell may take t: a-1 is cordoned (and 1 more); a-2 is down");
    expect(codeOf(() => decide(tenant("t"), []))).toBe("no_cell: no cell may take t: the fleet has no cells");
  });
});
