import { assert } from "../base/assert.ts";
import { CellplaneError, type ErrorCode, fail } from "../base/errors.ts";
import { type Capacity, type CellSpec, dimensions, type NewCell } from "../cell/model.ts";
import { canonicalJson } from "../base/canonical.ts";
import { columnOf, release, reserve } from "../cell/store.ts";
import { type ClaimStore, claimsOf } from "../claim/store.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { type CreatedTenant, keyPlace, type NewTenant } from "../tenant/model.ts";
import { type Admission, holdAdmission, isWord, loadValues, type TenantRecord, type TenantRow, type TenantStore } from "../tenant/store.ts";
import type { CreateTenantInput } from "../tenant/steps.ts";
import type { Json } from "../workflow/model.ts";
import type { PlacementPolicy } from "./model.ts";
import { type CellFacts, type Decision, explain, type FleetFacts, layOut, place } from "./plan.ts";

export interface PlacementDeps {
  store: Store;
  tenants: TenantStore;
  claims: ClaimStore;
  /** The policy and the regions of the fleet file. */
  settings: (at: Queryable) => Promise<{ policy: PlacementPolicy; regions: string[] }>;
  /** What a cell of the fleet would be made from. @throws CellplaneError not_found, invalid_input */
  specOf: (at: Queryable, cell: Pick<NewCell, "name" | "region" | "blueprint" | "overrides">) => Promise<CellSpec>;
  /** Starts a run with the transaction. @returns its id */
  start: (tx: Tx, workflow: string, input: Json) => Promise<string>;
}

/** How many creations are committed together at the most; who comes later waits for the next transaction. */
const batchMax = 200;
/** More than this wait only when the database hardly moves: better to be told than to time out. */
const waitingMax = 10_000;
/** A cell that refuses again what should fit by its counters is full in the last digit of a sum: it counts as full. */
const refusalsMax = 2;
const asFull = (cell: CellFacts): CellFacts => ({ ...cell, capacity: { ...cell.capacity, tenants: cell.used.tenants ?? 0 } });

/** A tenant whose home is decided and counted. */
interface Placed extends TenantRow {
  /** What its own cell is made from; null when it has a home. */
  own: CreateTenantInput | null;
  rejected: CreatedTenant["rejected"];
}

const isError = (outcome: unknown, code: ErrorCode): boolean => outcome instanceof CellplaneError && outcome.code === code;

type Outcomes = Map<NewTenant, CreatedTenant | CellplaneError>;

export function createPlacementStore({ store, tenants, claims, settings, specOf, start }: PlacementDeps): Admission {
  async function readFleet(at: Queryable): Promise<{ facts: FleetFacts; policy: PlacementPolicy }> {
    const { policy, regions } = await settings(at);
    const cells = await readCells(at);
    return { facts: { cells, regions: [...new Set([...regions, ...cells.map((cell) => cell.region)])].sort() }, policy };
  }

  async function createAll(tx: Tx, arrivals: NewTenant[], { explained = false } = {}): Promise<(CreatedTenant | CellplaneError)[]> {
    const [now, later] = withoutRivals(arrivals);
    await holdAdmission(tx);
    const outcomes: Outcomes = new Map();
    const { fresh, epochs } = await sift(tx, now, outcomes);
    const { facts, policy } = await readFleet(tx);
    const placed = await placeAll(tx, { fresh, facts, policy, epochs, explained }, outcomes);
    const rows = await withClaims(tx, placed, outcomes);
    await tenants.insertAll(tx, rows, new Map(facts.cells.map((cell) => [cell.name, cell.index])));
    for (const { own } of rows) if (own) await tenants.engage(tx, own.tenant, await start(tx, "tenant.create", own as unknown as Json));
    const written = new Map((await tenants.getAll(tx, rows.map((row) => row.tenant.name))).map((tenant) => [tenant.name, tenant]));
    for (const { tenant, because, rejected } of rows) outcomes.set(tenant, createdTenant(written.get(tenant.name), { created: true, because, rejected }));
    // What could not stand beside others of its batch comes after them and sees what they have become; so does whoever
    // found no room before another gave its own back.
    const rest = rows.length < placed.length ? [...later, ...now.filter((tenant) => isError(outcomes.get(tenant), "no_capacity"))] : later;
    const decided = rest.length > 0 ? await createAll(tx, rest, { explained }) : [];
    rest.forEach((tenant, i) => outcomes.set(tenant, decided[i] as CreatedTenant | CellplaneError));
    return arrivals.map((tenant) => outcomes.get(tenant) as CreatedTenant | CellplaneError);
  }

  /** Sorts out whose name or keys are taken; who is there already and the same is answered with what is there. */
  async function sift(tx: Tx, arrivals: NewTenant[], outcomes: Outcomes): Promise<{ fresh: NewTenant[]; epochs: Map<string, number> }> {
    const known = await tenants.known(tx, arrivals);
    const fresh: NewTenant[] = [];
    for (const tenant of arrivals) {
      const there = known.tenants.get(tenant.name);
      if (there) {
        const same = isSame(there, tenant) && (await holdsClaims(tx, tenant));
        outcomes.set(tenant, same ? createdTenant(there, { created: false, because: [], rejected: [] }) : fail("already_exists", { what: "tenant", name: tenant.name }));
        continue;
      }
      const taken = rivalOf(tenant, known);
      if (taken) outcomes.set(tenant, fail("key_taken", taken));
      else fresh.push(tenant);
    }
    return { fresh, epochs: known.epochs };
  }

  async function holdsClaims(tx: Tx, tenant: NewTenant): Promise<boolean> {
    if (tenant.claims.length === 0) return true;
    const held = await claimsOf(tx, tenant.name);
    return (await claims.identify(tx, tenant.claims)).every((id) => held.some((claim) => claim.kind === id.kind && claim.value === id.value));
  }

  /** Decides on all of them as one, and counts them in. What a cell refuses, since it changed meanwhile, is decided again. */
  async function placeAll(
    tx: Tx,
    at: { fresh: NewTenant[]; facts: FleetFacts; policy: PlacementPolicy; epochs: Map<string, number>; explained: boolean },
    outcomes: Outcomes,
  ): Promise<Placed[]> {
    const done: Placed[] = [];
    const refusals = new Map<string, number>();
    let cells = at.facts.cells;
    for (let waiting = at.fresh; waiting.length > 0; ) {
      const board = layOut({ ...at.facts, cells: cells.map((cell) => ((refusals.get(cell.name) ?? 0) < refusalsMax ? cell : asFull(cell))) }, at.policy);
      const planned: Placed[] = [];
      for (const tenant of waiting) {
        try {
          const rejected = at.explained ? explain(tenant, board).rejected : [];
          const decision = place(tenant, board);
          const epoch = (at.epochs.get(tenant.name) ?? 0) + 1;
          const { because } = decision;
          if (decision.kind === "placed") planned.push({ tenant, cell: decision.cell, awaits: null, epoch, because, own: null, rejected });
          else planned.push({ tenant, cell: null, awaits: decision.cell, epoch: 0, because, own: await ownCell(tx, tenant.name, decision), rejected });
        } catch (error) {
          if (!(error instanceof CellplaneError)) throw error;
          outcomes.set(tenant, error);
        }
      }
      const taken = await reserve(tx, planned.flatMap(({ cell, tenant }) => (cell === null ? [] : [{ cell, load: { tenants: 1, ...tenant.load } }])), at.policy);
      const refused = planned.filter(({ cell }) => cell !== null && !taken.has(cell));
      for (const cell of new Set(refused.map(({ cell }) => cell ?? ""))) refusals.set(cell, (refusals.get(cell) ?? 0) + 1);
      done.push(...planned.filter((row) => !refused.includes(row)));
      waiting = refused.map(({ tenant }) => tenant);
      if (waiting.length > 0) cells = await readCells(tx);
    }
    return done;
  }

  async function ownCell(tx: Tx, tenant: string, { cell, region, blueprint }: Decision & { kind: "make" }): Promise<CreateTenantInput> {
    const overrides = { class: "dedicated" };
    return { tenant, cell: { spec: await specOf(tx, { name: cell, region, blueprint, overrides }), overrides, labels: {}, origin: "placement" } };
  }

  /** Whoever cannot have what it claims gives its room back. */
  async function withClaims(tx: Tx, placed: Placed[], outcomes: Outcomes): Promise<Placed[]> {
    const lost = await claims.confirmAll(tx, placed.map(({ tenant }) => tenant));
    for (const { tenant, cell } of placed) {
      const claim = lost.get(tenant.name);
      if (!claim) continue;
      outcomes.set(tenant, fail("claim_taken", claim));
      if (cell !== null) await release(tx, cell, { tenants: 1, ...tenant.load });
    }
    return placed.filter(({ tenant }) => !lost.has(tenant.name));
  }

  async function createBatch(batch: Arrival[]): Promise<(CreatedTenant | CellplaneError)[]> {
    try {
      return await store.transaction(async (tx) => {
        const outcomes = await createAll(tx, batch.map(({ tenant }) => tenant));
        batch.forEach(({ record }, i) => {
          const outcome = outcomes[i];
          if (outcome && !(outcome instanceof CellplaneError)) record(tx, outcome);
        });
        return outcomes;
      });
    } catch (error) {
      // Nothing was written. If it is not the database that is gone, one of them is the cause: the others go on without it.
      if (batch.length === 1 || isError(error, "database_unavailable")) throw error;
      const outcomes: (CreatedTenant | CellplaneError)[] = [];
      for (const one of batch) outcomes.push(...(await createBatch([one]).catch((failure: CellplaneError) => [failure])));
      return outcomes;
    }
  }

  const create = gather<Arrival, CreatedTenant>(createBatch);

  return {
    create: (tenant, record) => create({ tenant, record }),
    createAll,

    async settle(tx, name) {
      await holdAdmission(tx);
      const [tenant] = await tenants.getAll(tx, [name]);
      if (tenant?.state !== "pending" || tenant.awaits === null) return;
      const { policy } = await settings(tx);
      const taken = await reserve(tx, [{ cell: tenant.awaits, load: { tenants: 1, ...tenant.load } }], policy);
      if (!taken.has(tenant.awaits)) throw fail("no_cell", { tenant: name, reasons: [`${tenant.awaits}, which was made for it, does not take it`] });
      const [cell] = await tx.query<{ index: number }>("select index from cell where name = $1", [tenant.awaits]);
      assert(cell, "a cell that was counted in is there");
      const { epochs } = await tenants.known(tx, [{ ...tenant, claims: [] }]);
      await tenants.settle(tx, tenant, { cell: tenant.awaits, cellIndex: cell.index, epoch: (epochs.get(name) ?? 0) + 1, because: [`${tenant.awaits} was made for it`] });
    },

    async explain(tenant) {
      const { facts, policy } = await readFleet(store);
      return explain(tenant, layOut(facts, policy));
    },
  };
}

// ── arrivals ────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Arrival {
  tenant: NewTenant;
  record: (tx: Tx, created: CreatedTenant) => void;
}

/**
 * Group commit: what comes while one transaction runs goes together into the next. Each caller gets its own outcome.
 * @throws CellplaneError busy when too many wait
 */
function gather<I, O>(run: (items: I[]) => Promise<(O | Error)[]>): (item: I) => Promise<O> {
  const waiting: { item: I; done: (outcome: O | Error) => void }[] = [];
  let running = false;

  async function drain(): Promise<void> {
    for (let batch = waiting.splice(0, batchMax); batch.length > 0; batch = waiting.splice(0, batchMax)) {
      const outcomes = await run(batch.map(({ item }) => item)).catch((error: Error) => batch.map(() => error));
      batch.forEach(({ done }, i) => done(outcomes[i] as O | Error));
    }
    running = false;
  }

  return (item) =>
    new Promise((resolve, reject) => {
      if (waiting.length >= waitingMax) return reject(fail("busy", { what: "creations of tenants", waiting: waiting.length }));
      waiting.push({ item, done: (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome)) });
      if (running) return undefined;
      running = true;
      // Requests that were read from the sockets in this same turn come along.
      setImmediate(() => void drain());
      return undefined;
    });
}

/** Those that can be written together, and those that share a name, key or word with one of them. */
function withoutRivals(arrivals: NewTenant[]): [NewTenant[], NewTenant[]] {
  const seen = new Set<string>();
  const [now, later]: [NewTenant[], NewTenant[]] = [[], []];
  for (const tenant of arrivals) {
    const own = new Set([`name:${tenant.name}`, ...tenant.keys.map(keyPlace), ...tenant.keys.filter(isWord).map((key) => `name:${key.value}`)]);
    const rival = [...own].some((place) => seen.has(place));
    for (const place of own) seen.add(place);
    (rival ? later : now).push(tenant);
  }
  return [now, later];
}

/** The first key that another tenant has, or that is another tenant's name, or that has this one's name. */
function rivalOf(tenant: NewTenant, known: { tenants: Map<string, TenantRecord>; keys: Map<string, string> }): { key: string; tenant: string } | null {
  for (const place of [...tenant.keys.map(keyPlace), `header:${tenant.name}`, `path:${tenant.name}`]) {
    const owner = known.keys.get(place);
    if (owner !== undefined) return { key: place, tenant: owner };
  }
  for (const key of tenant.keys.filter(isWord)) if (key.value !== tenant.name && known.tenants.has(key.value)) return { key: keyPlace(key), tenant: key.value };
  return null;
}

/** The same row again: nothing to do. A cell asked for is where it lives or will live. */
function isSame(there: TenantRecord, wanted: NewTenant): boolean {
  if (there.state === "deleting" || (wanted.cell !== null && wanted.cell !== (there.cell ?? there.awaits))) return false;
  return canonicalJson(comparable(there)) === canonicalJson(comparable(wanted));
}

const comparable = ({ tier, region, dedicated, labels, load, keys }: Pick<NewTenant, "tier" | "region" | "dedicated" | "labels" | "load" | "keys">) => ({
  tier, region, dedicated, labels, load: loadValues(load), keys: keys.map((key) => `${key.kind} ${key.value}`).sort(),
});

function createdTenant(record: TenantRecord | undefined, more: Pick<CreatedTenant, "created" | "because" | "rejected">): CreatedTenant {
  assert(record, "a tenant that was written can be read in the same transaction");
  return { ...record, ...more };
}

// ── cells ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Read with each batch, so it is done without garbage worth mentioning. */
async function readCells(at: Queryable): Promise<CellFacts[]> {
  const rows = await at.query<CellRow>(
    `select c.name, c.index, c.region, c.class, c.state, o.ok, t.name as "keptFor", ${dimensions.map((d) => `c.${columnOf[d]}_capacity as "${d}Capacity", c.${columnOf[d]}_used as "${d}Used"`).join(", ")}
       from cell c left join cell_observed o on o.cell = c.name left join tenant t on t.awaits = c.name where c.state <> 'destroyed'`,
  );
  return rows.map((row) => {
    const { name, index, region, class: kind, state, ok, keptFor } = row;
    const [capacity, used]: [Capacity, Capacity] = [{}, {}];
    for (const dimension of dimensions) {
      const limit = row[capacityField[dimension]];
      if (limit !== null) capacity[dimension] = limit;
      used[dimension] = row[usedField[dimension]];
    }
    return { name, index, region, class: kind, state, ok, keptFor, capacity, used };
  });
}

type Dimension = keyof Capacity;
type CellRow = Omit<CellFacts, "capacity" | "used"> & Record<`${Dimension}Capacity`, number | null> & Record<`${Dimension}Used`, number>;
const fieldsOf = <K extends string>(suffix: K) => Object.fromEntries(dimensions.map((dimension) => [dimension, `${dimension}${suffix}`])) as { [D in Dimension]: `${D}${K}` };
const [capacityField, usedField] = [fieldsOf("Capacity"), fieldsOf("Used")];
