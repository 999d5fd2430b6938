import { assert } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
import { release } from "../cell/store.ts";
import { claimsOf } from "../claim/store.ts";
import type { EventSink, RoutePublisher } from "../drivers/driver.ts";
import type { Queryable, Row, Tx } from "../store/model.ts";
import { next, type TenantEvent } from "./machine.ts";
import { type CreatedTenant, type PlacementExplanation, type KeyKind, keyPlace, keysMax, keySpaces, type LabelRequirement, type Load, type NewTenant, type Placement, type Tenant, type TenantDetail, type TenantKey, type TenantPatch } from "./model.ts";

/** A tenant with what only the control plane asks for. */
export interface TenantRecord extends Tenant {
  /** The number routers know its cell by; null while pending. */
  cellIndex: number | null;
  /** The cell that is being made for it; null when none is. */
  awaits: string | null;
}

/** A tenant as it is to be written, with its home decided. */
export interface TenantRow {
  tenant: NewTenant;
  cell: string | null;
  awaits: string | null;
  epoch: number;
  because: string[];
}

/** How tenants get their home. `placement` does it; tenants only ask. */
export interface Admission {
  /** Creates it together with what other callers create at this moment; `record` is called in their common transaction. @throws CellplaneError */
  create(tenant: NewTenant, record: (tx: Tx, created: CreatedTenant) => void): Promise<CreatedTenant>;
  /** Creates all that can be, in the caller's transaction; each has its own outcome. */
  createAll(tx: Tx, tenants: NewTenant[], options?: { explained?: boolean }): Promise<(CreatedTenant | Error)[]>;
  /** Gives a pending tenant its home in the cell that was made for it; one that has a home, or is gone, is left alone. @throws CellplaneError */
  settle(tx: Tx, tenant: string): Promise<void>;
  /** Decides and writes nothing. */
  explain(tenant: NewTenant): Promise<PlacementExplanation>;
}

export interface TenantFilter {
  cell?: string | undefined;
  region?: string | undefined;
  tier?: string | undefined;
  state?: string | undefined;
  labels?: LabelRequirement[] | undefined;
  /** Names after this one. */
  after?: string | undefined;
  limit: number;
}

// One at a time over the whole fleet: whoever gives out names, words and room. A batch is short, so this costs little, and
// leaves nothing to deadlock with. A process that is stopped in the middle of it must not stop the others for long.
const admissionLockKey = 0x61646d69;
const admissionSql = "select pg_advisory_xact_lock($1), set_config('idle_in_transaction_session_timeout', '10s', true)";

/** From here to the end of the transaction nobody else gives out names, keys that could be names, or room for arrivals. */
export const holdAdmission = async (tx: Tx): Promise<void> => void (await tx.query(admissionSql, [admissionLockKey]));

const select = `
  select t.name, t.tier, t.region, t.dedicated, t.labels, t.state, t.cell, t.awaits, t.epoch, t.generation, t.operation, t.created_at,
         t.connections, t.requests_per_second, t.disk_bytes, c.index as cell_index,
         (select coalesce(jsonb_agg(jsonb_build_object('kind', k.kind, 'value', k.value) order by k.space, k.value), '[]') from tenant_key k where k.tenant = t.name) as keys
    from tenant t left join cell c on c.name = t.cell`;

const tenantOf = (row: Row): TenantRecord => ({
  ...(row as unknown as Pick<TenantRecord, "name" | "tier" | "region" | "dedicated" | "labels" | "state" | "cell" | "awaits" | "epoch" | "generation" | "operation" | "keys">),
  cellIndex: row["cell_index"] as number | null,
  load: loadOf(row),
  createdAt: (row["created_at"] as Date).toISOString(),
});

/** What is not counted is left out, as it was in the request. */
function loadOf(row: Row): Load {
  const amounts = loadDimensions.map((dimension, i) => [dimension, row[columns[i] ?? ""]] as const);
  return Object.fromEntries(amounts.filter(([, amount]) => amount !== 0)) as Load;
}

export type TenantStore = ReturnType<typeof createTenantStore>;

export function createTenantStore({ routes, events }: { routes: RoutePublisher; events: EventSink }) {
  const tell = (tx: Tx, kind: string, tenant: Pick<Tenant, "name" | "cell" | "state" | "tier" | "generation">, data: Record<string, unknown> = {}): void =>
    events.emit(tx, kind, `tenant/${tenant.name}`, { cell: tenant.cell, state: tenant.state, tier: tenant.tier, generation: tenant.generation, ...data });

  /** Routers know active and suspended tenants only. */
  function publish(tx: Tx, tenant: TenantRecord): void {
    if (tenant.cellIndex === null || tenant.state === "pending") return;
    if (tenant.state === "deleting") routes.publish(tx, [...tenant.keys.map((key) => ({ kind: "keyGone" as const, key })), { kind: "tenantGone", tenant: tenant.name }]);
    else routes.publish(tx, [{ kind: "tenant", tenant: tenant.name, cellIndex: tenant.cellIndex, state: tenant.state, epoch: tenant.epoch }]);
  }

  const getAll = async (at: Queryable, names: string[]): Promise<TenantRecord[]> => (await at.query(`${select} where t.name = any ($1)`, [names])).map(tenantOf);

  /** @throws CellplaneError not_found */
  async function get(at: Queryable, name: string): Promise<TenantRecord> {
    const [tenant] = await getAll(at, [name]);
    if (!tenant) throw fail("not_found", { what: "tenant", name });
    return tenant;
  }

  /** Reads it and holds its row until the transaction ends. @throws CellplaneError not_found, generation_stale */
  async function hold(tx: Tx, name: string, expected: number | null = null): Promise<TenantRecord> {
    // Locked first and read then: after a wait, a statement that does both would see the new row beside old cells and keys.
    await tx.query("select from tenant where name = $1 for no key update", [name]);
    const tenant = await get(tx, name);
    if (expected !== null && tenant.generation !== expected) throw fail("generation_stale", { what: "tenant", name, expected, actual: tenant.generation });
    return tenant;
  }

  /** Writes what `set` says, with the parameters from $3 on. @throws CellplaneError generation_stale when someone was faster */
  async function stamp(tx: Tx, tenant: TenantRecord, set = "", values: unknown[] = []): Promise<number> {
    const [row] = await tx.query<{ generation: number }>(
      `update tenant set ${set && `${set}, `}generation = generation + 1, updated_at = clock_timestamp() where name = $1 and generation = $2 returning generation`,
      [tenant.name, tenant.generation, ...values],
    );
    if (row) return row.generation;
    throw fail("generation_stale", { what: "tenant", name: tenant.name, expected: tenant.generation, actual: (await get(tx, tenant.name)).generation });
  }

  /** @throws CellplaneError wrong_state, generation_stale */
  async function move(tx: Tx, tenant: TenantRecord, event: TenantEvent, operation = tenant.operation): Promise<TenantRecord> {
    const state = next(tenant, event);
    if (state === tenant.state) return tenant;
    const generation = await stamp(tx, tenant, "state = $3, operation = $4", [state, operation]);
    const moved = { ...tenant, state, operation, generation };
    publish(tx, moved);
    tell(tx, "tenant.state", moved, { from: tenant.state });
    return moved;
  }

  return {
    get,
    getAll,
    hold,
    move,

    async describe(at: Queryable, name: string): Promise<TenantDetail> {
      const tenant = await get(at, name);
      const placements = await at.query<Omit<Placement, "since" | "until"> & { since: Date; until: Date | null }>(
        "select cell, role, epoch, since, until, because from placement where tenant = $1 order by epoch desc, role", [name],
      );
      return {
        ...tenant,
        placements: placements.map((stay) => ({ ...stay, since: stay.since.toISOString(), until: stay.until?.toISOString() ?? null })),
        claims: await claimsOf(at, name),
      };
    },

    /** In the order of their names. */
    async list(at: Queryable, filter: TenantFilter): Promise<Tenant[]> {
      const params: unknown[] = [];
      const p = (value: unknown): string => `$${params.push(value)}`;
      const where = [`t.name > ${p(filter.after ?? "")}`];
      if (filter.cell !== undefined) where.push(`t.cell = ${p(filter.cell)}`);
      if (filter.tier !== undefined) where.push(`t.tier = ${p(filter.tier)}`);
      if (filter.state !== undefined) where.push(`t.state = ${p(filter.state)}`);
      if (filter.region !== undefined) where.push(`(t.cell = any (array(select name from cell where region = ${p(filter.region)})) or (t.cell is null and t.region = ${p(filter.region)}))`);
      for (const label of filter.labels ?? []) {
        if (label.op === "=") where.push(`t.labels @> ${p({ [label.key]: label.value })}`);
        else if (label.op === "!=") where.push(`not t.labels @> ${p({ [label.key]: label.value })}`);
        else where.push(`${label.op === "absent" ? "not " : ""}t.labels ? ${p(label.key)}`);
      }
      return (await at.query(`${select} where ${where.join(" and ")} order by t.name limit ${p(filter.limit)}`, params)).map(tenantOf);
    },

    /** What stands in the way of new tenants: names and keys that are there, and the epochs of names that were used before. */
    async known(tx: Tx, tenants: NewTenant[]): Promise<{ tenants: Map<string, TenantRecord>; keys: Map<string, string>; epochs: Map<string, number> }> {
      const names = tenants.map((tenant) => tenant.name);
      const keys = tenants.flatMap((tenant) => tenant.keys);
      // A header or path may also be a tenant's name, so such a key and another tenant's name clash both ways.
      const words = keys.filter(isWord).map((key) => key.value);
      const there = await getAll(tx, [...names, ...words]);
      const taken = await tx.query<{ space: string; value: string; tenant: string }>(
        `select space, value, tenant from tenant_key where (space, value) in (select * from unnest($1::text[], $2::text[]))
          union all select space, value, tenant from tenant_key where space in ('header', 'path') and value = any ($3)`,
        [keys.map((key) => keySpaces[key.kind]), keys.map((key) => key.value), names],
      );
      const gone = await tx.query<{ name: string; epoch: number }>("select name, epoch from tenant_gone where name = any ($1)", [names]);
      return {
        tenants: new Map(there.map((tenant) => [tenant.name, tenant])),
        keys: new Map(taken.map((key) => [`${key.space}:${key.value}`, key.tenant])),
        epochs: new Map(gone.map((name) => [name.name, name.epoch])),
      };
    },

    /** Writes new tenants whose names and keys are free (`known`, while admission is held), tells routers and streams. */
    async insertAll(tx: Tx, rows: TenantRow[], cellIndexes: Map<string, number>): Promise<void> {
      await tx.query(
        `insert into tenant (name, tier, region, dedicated, labels, state, cell, awaits, epoch, connections, requests_per_second, disk_bytes)
         select name, tier, region, dedicated, labels, case when cell is null then 'pending' else 'active' end, cell, awaits, epoch, connections, rps, disk
           from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::jsonb[], $6::text[], $7::text[], $8::bigint[], $9::numeric[], $10::numeric[], $11::numeric[])
             as r (name, tier, region, dedicated, labels, cell, awaits, epoch, connections, rps, disk)`,
        [
          rows.map((r) => r.tenant.name), rows.map((r) => r.tenant.tier), rows.map((r) => r.tenant.region), rows.map((r) => r.tenant.dedicated), rows.map((r) => JSON.stringify(r.tenant.labels)),
          rows.map((r) => r.cell), rows.map((r) => r.awaits), rows.map((r) => r.epoch),
          rows.map((r) => r.tenant.load.connections ?? 0), rows.map((r) => r.tenant.load.requestsPerSecond ?? 0), rows.map((r) => r.tenant.load.diskBytes ?? 0),
        ],
      );
      const keys = rows.flatMap(({ tenant }) => tenant.keys.map((key) => ({ ...key, tenant: tenant.name })));
      if (keys.length > 0) {
        await tx.query("insert into tenant_key (kind, value, tenant) select * from unnest($1::text[], $2::text[], $3::text[])", [keys.map((k) => k.kind), keys.map((k) => k.value), keys.map((k) => k.tenant)]);
      }
      await insertStays(tx, rows);
      for (const { tenant, cell, epoch } of rows) {
        const cellIndex = cell === null ? undefined : cellIndexes.get(cell);
        if (cellIndex !== undefined) routes.publish(tx, [{ kind: "tenant", tenant: tenant.name, cellIndex, state: "active", epoch }, ...tenant.keys.map((key) => ({ kind: "key" as const, key, tenant: tenant.name }))]);
        tell(tx, "tenant.created", { name: tenant.name, tier: tenant.tier, cell, state: cell === null ? "pending" : "active", generation: 1 });
      }
    },

    /** A pending tenant has its home. */
    async settle(tx: Tx, tenant: TenantRecord, home: { cell: string; cellIndex: number; epoch: number; because: string[] }): Promise<TenantRecord> {
      const state = next(tenant, "placed");
      const generation = await stamp(tx, tenant, "state = $3, cell = $4, epoch = $5, awaits = null, operation = null", [state, home.cell, home.epoch]);
      const settled = { ...tenant, state, cell: home.cell, cellIndex: home.cellIndex, epoch: home.epoch, awaits: null, operation: null, generation };
      await insertStays(tx, [{ tenant: { name: tenant.name }, ...home }]);
      publish(tx, settled);
      routes.publish(tx, settled.keys.map((key) => ({ kind: "key", key, tenant: tenant.name })));
      tell(tx, "tenant.state", settled, { from: tenant.state });
      return settled;
    },

    isHomeReady: async (at: Queryable, cell: string): Promise<boolean> => (await at.query("select from cell where name = $1 and state = 'active'", [cell])).length > 0,

    /** The operation that works on it, for people. */
    async engage(tx: Tx, name: string, operation: string): Promise<void> {
      await tx.query("update tenant set operation = $2 where name = $1", [name, operation]);
    },

    /** @throws CellplaneError generation_stale · residency_unsatisfiable for a pin elsewhere than home · no_capacity when the cell cannot take the greater load */
    async update(tx: Tx, tenant: TenantRecord, patch: TenantPatch): Promise<TenantRecord> {
      const wanted = { ...tenant, tier: patch.tier ?? tenant.tier, region: patch.region === undefined ? tenant.region : patch.region, labels: merged(tenant.labels, patch.labels ?? {}), load: patch.load ?? tenant.load };
      if (tenant.state === "deleting") throw fail("wrong_state", { what: "tenant", name: tenant.name, state: tenant.state, wanted: "pending, active or suspended" });
      if (wanted.region !== null && wanted.region !== tenant.region && tenant.cell !== null) {
        const [home] = await tx.query<{ region: string }>("select region from cell where name = $1", [tenant.cell]);
        if (home?.region !== wanted.region) throw fail("residency_unsatisfiable", { tenant: tenant.name, region: wanted.region, why: `it lives in ${tenant.cell}, in region ${home?.region}; move it first` });
      }
      const generation = await stamp(tx, tenant, "tier = $3, region = $4, labels = $5, connections = $6, requests_per_second = $7, disk_bytes = $8", [
        wanted.tier, wanted.region, wanted.labels, ...loadValues(wanted.load),
      ]);
      if (patch.load && tenant.cell !== null) await recount(tx, tenant.name, tenant.cell, tenant.load, patch.load);
      const updated = { ...wanted, generation };
      tell(tx, "tenant.updated", updated);
      return updated;
    },

    /** Adding a key it has is harmless. @throws CellplaneError not_found, key_taken, wrong_state, generation_stale, invalid_input for one key too many */
    async addKey(tx: Tx, name: string, key: TenantKey, expected: number | null = null): Promise<TenantRecord> {
      await holdAdmission(tx);
      const tenant = await hold(tx, name, expected);
      if (tenant.state === "deleting") throw fail("wrong_state", { what: "tenant", name, state: tenant.state, wanted: "pending, active or suspended" });
      if (tenant.keys.some((had) => had.kind === key.kind && had.value === key.value)) return tenant;
      if (tenant.keys.length >= keysMax) throw fail("invalid_input", { issues: [{ path: "keys", message: `a tenant has at most ${keysMax} keys` }] });
      const [taken] = await tx.query<{ tenant: string }>(
        "select tenant from tenant_key where space = $1 and value = $2 union all select name from tenant where $3 and name = $2 and name <> $4",
        [keySpaces[key.kind], key.value, isWord(key), name],
      );
      if (taken) throw fail("key_taken", { key: keyPlace(key), tenant: taken.tenant });
      await tx.query("insert into tenant_key (kind, value, tenant) values ($1, $2, $3)", [key.kind, key.value, name]);
      const generation = await stamp(tx, tenant);
      if (tenant.cellIndex !== null) routes.publish(tx, [{ kind: "key", key, tenant: name }]);
      const keyed = { ...tenant, keys: [...tenant.keys, key], generation };
      tell(tx, "tenant.key_added", keyed, { key: shownKey(key) });
      return keyed;
    },

    /** @throws CellplaneError not_found, generation_stale */
    async removeKey(tx: Tx, tenant: TenantRecord, key: { kind: KeyKind; value: string }): Promise<TenantRecord> {
      const [removed] = await tx.query("delete from tenant_key where space = $1 and value = $2 and kind = $3 and tenant = $4 returning tenant", [keySpaces[key.kind], key.value, key.kind, tenant.name]);
      if (!removed) throw fail("not_found", { what: "key", name: `${key.kind}:${key.value}` });
      const generation = await stamp(tx, tenant);
      if (tenant.cellIndex !== null && tenant.state !== "deleting") routes.publish(tx, [{ kind: "keyGone", key }]);
      const keyed = { ...tenant, keys: tenant.keys.filter((had) => had.kind !== key.kind || had.value !== key.value), generation };
      tell(tx, "tenant.key_removed", keyed, { key: shownKey(key) });
      return keyed;
    },

    /** Frees its name, its keys and its room; only after its rows in the cell are gone. Doing it twice is harmless. */
    async forget(tx: Tx, name: string): Promise<void> {
      const [tenant] = await getAll(tx, [name]);
      if (!tenant) return;
      const [gone] = await tx.query("delete from tenant where name = $1 and generation = $2 and state = 'deleting' returning name", [name, tenant.generation]);
      assert(gone, "nothing changes a tenant that is being deleted but its deletion, which runs once at a time");
      await tx.query(
        `insert into tenant_gone (name, epoch) values ($1, $2)
         on conflict (name) do update set epoch = greatest(tenant_gone.epoch, excluded.epoch), gone_at = clock_timestamp()`,
        [name, tenant.epoch],
      );
      if (tenant.cell !== null) await release(tx, tenant.cell, { tenants: 1, ...tenant.load });
      tell(tx, "tenant.deleted", tenant, { epoch: tenant.epoch });
    },
  };
}

/** Looked up as a key and as a tenant's name. */
export const isWord = (key: Pick<TenantKey, "kind">): boolean => key.kind === "header" || key.kind === "path";

/** Enough of a digest to tell which, for events. */
const shownKey = (key: { kind: KeyKind; value: string }): string => `${key.kind}:${key.kind === "apikey" ? key.value.slice(0, 12) : key.value}`;

const loadDimensions = ["connections", "requestsPerSecond", "diskBytes"] as const satisfies readonly (keyof Load)[];
const columns = ["connections", "requests_per_second", "disk_bytes"];
export const loadValues = (load: Load): number[] => loadDimensions.map((dimension) => load[dimension] ?? 0);

function merged(labels: Record<string, string>, patch: Record<string, string | null>): Record<string, string> {
  const all: Record<string, string | null> = { ...labels, ...patch };
  return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== null));
}

async function insertStays(tx: Tx, rows: { tenant: { name: string }; cell: string | null; epoch: number; because: string[] }[]): Promise<void> {
  const homes = rows.filter((row) => row.cell !== null);
  if (homes.length === 0) return;
  await tx.query("insert into placement (tenant, cell, epoch, because) select tenant, cell, epoch, array(select jsonb_array_elements_text(because)) from unnest($1::text[], $2::text[], $3::bigint[], $4::jsonb[]) as s (tenant, cell, epoch, because)", [
    homes.map((r) => r.tenant.name), homes.map((r) => r.cell), homes.map((r) => r.epoch), homes.map((r) => JSON.stringify(r.because)),
  ]);
}

/** Growth may use the headroom: that is what it is kept for. */
async function recount(tx: Tx, tenant: string, cell: string, from: Load, to: Load): Promise<void> {
  const fits = columns.map((column, i) => `(($${i + 5}::numeric <= $${i + 2}::numeric) or ${column}_capacity is null or ${column}_used - $${i + 2} + $${i + 5} <= ${column}_capacity)`);
  const set = columns.map((column, i) => `${column}_used = ${column}_used - $${i + 2} + $${i + 5}`);
  const values = [cell, ...loadValues(from), ...loadValues(to)];
  const [counted] = await tx.query(`update cell set ${set.join(", ")} where name = $1 and ${fits.join(" and ")} returning name`, values);
  if (counted) return;
  const over = columns.map((column, i) => `${column}_used - $${i + 2} + $${i + 5} - ${column}_capacity as ${column}`);
  const [lack] = await tx.query<Row & { region: string }>(`select region, ${over.join(", ")} from cell where name = $1`, values);
  const missing = columns.map((column, i) => ({ dimension: loadDimensions[i] ?? column, amount: Number(lack?.[column] ?? 0) })).filter(({ amount }) => amount > 0);
  throw fail("no_capacity", { tenant, regions: [{ region: lack?.region ?? "", cell, missing }] });
}
