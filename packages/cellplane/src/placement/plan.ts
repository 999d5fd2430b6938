import { assert, unreachable } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { stableHash } from "../base/prng.ts";
import { takesTenants } from "../cell/machine.ts";
import { type Capacity, type Cell, dimensions } from "../cell/model.ts";
import type { PlacementExplanation, NewTenant } from "../tenant/model.ts";
import type { PlacementPolicy } from "./model.ts";

/** What placement knows of a cell. */
export interface CellFacts extends Pick<Cell, "name" | "index" | "region" | "class" | "state" | "capacity" | "used"> {
  /** Null: not looked at yet. */
  ok: boolean | null;
  /** The pending tenant it is being made for; null: whoever comes. */
  keptFor: string | null;
}

/** The fleet as placement sees it. */
export interface FleetFacts {
  cells: CellFacts[];
  /** All regions there are, those without a cell among them. */
  regions: string[];
}

/** What decides of a tenant. */
export type Arrival = Pick<NewTenant, "name" | "tier" | "region" | "dedicated" | "cell" | "load">;

export type Decision =
  | { kind: "placed"; cell: string; because: string[] }
  /** Its cell must be made first. */
  | { kind: "make"; cell: string; region: string; blueprint: string; because: string[] };

const width = dimensions.length;
const units: Record<(typeof dimensions)[number], string> = { tenants: "tenants", connections: "connections", requestsPerSecond: "requests per second", diskBytes: "bytes of disk" };

/**
 * Cells laid out for the loop over them: one row of `width` numbers per cell in each array. 1,000 cells are judged in some
 * 10 µs and without garbage. What one plan after the other takes is counted in `added`, so a batch is planned as one.
 */
export interface Board {
  cells: CellFacts[];
  regions: string[];
  policy: PlacementPolicy;
  /** The cell of strategy "one-cell"; null with the others or when there is none. */
  one: string | null;
  /** What may be used of each dimension, headroom taken off; Infinity: not limited. */
  limit: Float64Array;
  /** 1 ÷ limit, since a division is the dearest part of the loop. */
  perUnit: Float64Array;
  used: Float64Array;
  added: Float64Array;
  hash: Uint32Array;
}

export function layOut({ cells, regions }: FleetFacts, policy: PlacementPolicy): Board {
  const sorted = [...cells].sort((a, b) => a.index - b.index);
  const board: Board = {
    cells: sorted,
    regions,
    policy,
    one: policy.strategy === "one-cell" ? (policy.cell ?? sorted.find((cell) => cell.state !== "retired" && cell.state !== "destroyed" && cell.state !== "failed")?.name ?? null) : null,
    limit: new Float64Array(sorted.length * width),
    perUnit: new Float64Array(sorted.length * width),
    used: new Float64Array(sorted.length * width),
    added: new Float64Array(sorted.length * width),
    hash: new Uint32Array(sorted.length),
  };
  sorted.forEach((cell, row) => {
    board.hash[row] = stableHash(cell.name);
    dimensions.forEach((dimension, d) => {
      board.used[row * width + d] = cell.used[dimension] ?? 0;
      const limit = limitOf(cell, dimension, policy.headroomRatio);
      board.limit[row * width + d] = limit;
      board.perUnit[row * width + d] = 1 / limit;
    });
  });
  return board;
}

/** A dedicated cell takes one tenant whatever its capacity says, and that one needs no room left for it. */
function limitOf(cell: CellFacts, dimension: (typeof dimensions)[number], headroomRatio: number): number {
  const capacity = cell.capacity[dimension] ?? Infinity;
  if (cell.class !== "dedicated") return capacity * (1 - headroomRatio);
  return dimension === "tenants" ? Math.min(capacity, 1) : capacity;
}

// ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** What the tenant asks for, once for all cells. */
interface Wish {
  tenant: string;
  region: string | null;
  cell: string | null;
  /** Null: any. */
  class: Cell["class"] | null;
  load: Float64Array;
}

const isExclusive = (tenant: Arrival, policy: PlacementPolicy): boolean => tenant.dedicated || policy.strategy === "cell-per-tenant";

function wishOf(tenant: Arrival, board: Board): Wish {
  const load = new Float64Array(width);
  dimensions.forEach((dimension, d) => (load[d] = dimension === "tenants" ? 1 : (tenant.load[dimension] ?? 0)));
  const byTier = board.policy.classes[tenant.tier] ?? (board.one === null ? "shared" : null);
  return { tenant: tenant.name, region: tenant.region, cell: tenant.cell, class: isExclusive(tenant, board.policy) ? "dedicated" : byTier, load };
}

/** Why a cell may not take a tenant, in the order in which it is asked: what can never change first. Room is asked last. */
const against = { nothing: 0, residency: 1, cell: 2, one: 3, class: 4, kept: 5, state: 6, health: 7 } as const;
type Objection = (typeof against)[keyof typeof against];

function objection(board: Board, row: number, wish: Wish): Objection {
  const cell = board.cells[row];
  assert(cell, "the row is one of the board");
  if (wish.region !== null && cell.region !== wish.region) return against.residency;
  if (wish.cell !== null && cell.name !== wish.cell) return against.cell;
  if (board.one !== null && cell.name !== board.one) return against.one;
  if (wish.class !== null && cell.class !== wish.class) return against.class;
  if (cell.keptFor !== null && cell.keptFor !== wish.tenant) return against.kept;
  if (!takesTenants(cell.state)) return against.state;
  if (cell.ok === false) return against.health;
  return against.nothing;
}

const noRoom = -1;

/**
 * How full the fullest dimension would be after the arrival, 0…1, or `noRoom`. Adds up in the same order as the statement
 * that admits, so that both come to the same answer. What takes nothing of a dimension fits even where there is too much.
 */
function fullness(board: Board, row: number, load: Float64Array): number {
  let worst = 0;
  for (let d = 0, at = row * width; d < width; d++, at++) {
    const more = load[d] ?? 0;
    const used = (board.used[at] ?? 0) + ((board.added[at] ?? 0) + more);
    if (more !== 0 && !(used <= (board.limit[at] ?? 0))) return noRoom;
    const share = used * (board.perUnit[at] ?? 0);
    if (share > worst) worst = share;
  }
  return worst;
}

/** Spreads tenants over equally full cells; the same tenant and cell give the same number in every control plane. */
const lot = (tenantHash: number, cellHash: number): number => Math.imul(tenantHash ^ cellHash, 0x9e3779b1) >>> 0;

/**
 * The cell that is least full after the arrival, counted in its fullest dimension; of equally full ones the one with
 * fewer tenants, then by lot.
 *
 * @returns its row, -1 when none fits, and how many fit
 */
function best(board: Board, tenant: Arrival, wish: Wish): { row: number; fitting: number } {
  const tenantHash = stableHash(tenant.name);
  let [row, fitting, least, fewest, lowest] = [-1, 0, Infinity, Infinity, Infinity];
  for (let at = 0; at < board.cells.length; at++) {
    if (objection(board, at, wish) !== against.nothing) continue;
    const full = fullness(board, at, wish.load);
    if (full === noRoom) continue;
    fitting++;
    if (full > least) continue;
    const tenants = (board.used[at * width] ?? 0) + (board.added[at * width] ?? 0);
    if (full === least && tenants > fewest) continue;
    const drawn = lot(tenantHash, board.hash[at] ?? 0);
    if (full === least && tenants === fewest && drawn >= lowest) continue;
    [row, least, fewest, lowest] = [at, full, tenants, drawn];
  }
  return { row, fitting };
}

// ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Picks the tenant's cell and counts what it takes there as added.
 *
 * @throws CellplaneError not_found for a wished cell that is not there, residency_unsatisfiable, no_capacity, no_cell
 */
export function place(tenant: Arrival, board: Board): Decision {
  if (tenant.cell !== null && !board.cells.some((cell) => cell.name === tenant.cell)) throw fail("not_found", { what: "cell", name: tenant.cell });
  if (tenant.region !== null && !board.regions.includes(tenant.region)) throw fail("residency_unsatisfiable", { tenant: tenant.name, region: tenant.region, why: `there is no such region (${board.regions.join(", ") || "none at all"})` });
  const wish = wishOf(tenant, board);
  const { row, fitting } = best(board, tenant, wish);
  if (row < 0) return made(tenant, board) ?? refuse(tenant, board, wish);
  const cell = board.cells[row];
  assert(cell, "the best row is one of the board");
  const because = [...wishes(tenant, board), ...(fitting === 1 ? ["it is the only cell that fits"] : [`of ${fitting} cells that fit it stays the least full: ${fullest(board, row, wish.load)}`])];
  for (let d = 0; d < width; d++) board.added[row * width + d] = (board.added[row * width + d] ?? 0) + (wish.load[d] ?? 0);
  return { kind: "placed", cell: cell.name, because };
}

/** The decision, or why there is none, with what speaks against every other cell. Takes nothing. */
export function explain(tenant: Arrival, board: Board): PlacementExplanation {
  const wish = wishOf(tenant, board);
  const rejected = (chosen: string | null) => board.cells.flatMap((cell, row) => (cell.name === chosen ? [] : [{ cell: cell.name, reason: words(board, row, wish) }]));
  try {
    const { kind, cell, because } = place(tenant, { ...board, added: board.added.slice() });
    return { outcome: kind === "placed" ? "placed" : "waits", cell, because, rejected: rejected(cell) };
  } catch (error) {
    if (!(error instanceof CellplaneError)) throw error;
    return { outcome: "refused", cell: null, because: [error.message], rejected: rejected(null) };
  }
}

function wishes(tenant: Arrival, board: Board): string[] {
  const said: string[] = [];
  if (tenant.cell !== null) said.push(`cell ${tenant.cell} was asked for`);
  if (tenant.region !== null) said.push(`its data stay in region ${tenant.region}`);
  if (isExclusive(tenant, board.policy)) said.push(tenant.dedicated ? "it has a cell of its own" : "each tenant has a cell of its own (strategy cell-per-tenant)");
  else if (board.one !== null) said.push(`all tenants live in ${board.one} (strategy one-cell)`);
  else if (Object.hasOwn(board.policy.classes, tenant.tier)) said.push(`tier ${tenant.tier} lives in ${board.policy.classes[tenant.tier]} cells`);
  return said;
}

/** Names the cell made for one tenant; the hash keeps apart names that the cut would make equal. */
const ownCellName = (tenant: string): string => (tenant.length <= 58 ? `only-${tenant}` : `only-${tenant.slice(0, 49)}-${stableHash(tenant).toString(16).padStart(8, "0")}`);

function made(tenant: Arrival, board: Board): Decision | null {
  const { blueprint } = board.policy;
  if (!isExclusive(tenant, board.policy) || blueprint === null || tenant.cell !== null) return null;
  const regions = [...board.regions].sort();
  const region = tenant.region ?? regions[stableHash(tenant.name) % regions.length];
  if (region === undefined) return null;
  return { kind: "make", cell: ownCellName(tenant.name), region, blueprint, because: [...wishes(tenant, board), `no dedicated cell is free: one is made in ${region} from blueprint ${blueprint}`] };
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`;

/** "41.2 % of the connections it may use" */
function fullest(board: Board, row: number, load: Float64Array): string {
  const shares = dimensions.map((_, d) => usedAfter(board, row * width + d, load[d] ?? 0) * (board.perUnit[row * width + d] ?? 0));
  const share = Math.max(0, ...shares);
  const dimension = dimensions[shares.indexOf(share)];
  return share === 0 || dimension === undefined ? "nothing it uses is limited" : `${percent(share)} of the ${units[dimension]} it may use`;
}

const usedAfter = (board: Board, at: number, more: number): number => (board.used[at] ?? 0) + ((board.added[at] ?? 0) + more);

type Missing = { dimension: keyof Capacity; amount: number }[];

function missing(board: Board, row: number, load: Float64Array): Missing {
  return dimensions.flatMap((dimension, d) => {
    const over = usedAfter(board, row * width + d, load[d] ?? 0) - (board.limit[row * width + d] ?? 0);
    return load[d] === 0 || over <= 0 ? [] : [{ dimension, amount: Number(over.toPrecision(12)) }];
  });
}

function words(board: Board, row: number, wish: Wish): string {
  const cell = board.cells[row];
  assert(cell, "the row is one of the board");
  const why = objection(board, row, wish);
  switch (why) {
    case against.residency: return `is in region ${cell.region}`;
    case against.cell: return "is not the cell asked for";
    case against.one: return `strategy one-cell places all in ${board.one}`;
    case against.class: return `is of class ${cell.class}, not ${wish.class}`;
    case against.kept: return `is being made for ${cell.keptFor}`;
    case against.state: return `is ${cell.state}`;
    case against.health: return "is down";
    case against.nothing: break;
    default: return unreachable(why);
  }
  const lacks = missing(board, row, wish.load).map(({ dimension, amount }) => `${amount} ${units[dimension]}`);
  return lacks.length > 0 ? `lacks ${lacks.join(" and ")}` : `fits, but would be fuller: ${fullest(board, row, wish.load)}`;
}

/** When room is all that is missing somewhere, says how much in each region's nearest cell; else it is residency, or whatever stands in the way. */
function refuse(tenant: Arrival, board: Board, wish: Wish): never {
  const rows = board.cells.map((cell, row) => ({ cell, row, why: objection(board, row, wish) })).filter(({ cell }) => wish.cell === null || cell.name === wish.cell);
  const nearest = new Map<string, { region: string; cell: string; missing: Missing }>();
  for (const { cell, row } of rows.filter(({ why }) => why === against.nothing)) {
    const lack = { region: cell.region, cell: cell.name, missing: missing(board, row, wish.load) };
    const known = nearest.get(cell.region);
    if (!known || lack.missing.length < known.missing.length || (lack.missing.length === known.missing.length && (lack.missing[0]?.amount ?? 0) < (known.missing[0]?.amount ?? 0))) nearest.set(cell.region, lack);
  }
  if (nearest.size > 0) throw fail("no_capacity", { tenant: tenant.name, regions: [...nearest.values()] });
  if (wish.region !== null && rows.every(({ why }) => why === against.residency)) {
    throw fail("residency_unsatisfiable", { tenant: tenant.name, region: wish.region, why: wish.cell === null ? "no cell is there" : `cell ${wish.cell} is not there` });
  }
  const alike = new Map<string, string[]>();
  for (const { cell, row } of rows) alike.set(words(board, row, wish), [...(alike.get(words(board, row, wish)) ?? []), cell.name]);
  throw fail("no_cell", { tenant: tenant.name, reasons: [...alike].map(([said, [first, ...others]]) => `${first} ${said}${others.length > 0 ? ` (and ${others.length} more)` : ""}`) });
}
