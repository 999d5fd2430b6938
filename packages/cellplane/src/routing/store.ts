import { fail } from "../base/errors.ts";
import type { RoutePublisher } from "../drivers/driver.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { keySpaces } from "../tenant/model.ts";
import type { LogRow } from "./batch.ts";
import { lineOf } from "./lines.ts";
import type { CellRoute, IdentifyRule, KeySpace, LookupSpace, RouteChange, RouteState } from "./model.ts";
import type { SnapshotPosition } from "./snapshot.ts";

/** NOTIFY channel; the payload is the newest version. */
export const routesChannel = "routes";

export const routePublisher: RoutePublisher = {
  publish(tx, changes) {
    if (changes.length > 0) tx.atCommit("routes", changes, flush);
  },
};

type Of<K extends RouteChange["kind"]> = Extract<RouteChange, { kind: K }>;

const placeOf = (change: RouteChange): string => {
  switch (change.kind) {
    case "rules": return "rules";
    case "cell": case "cellGone": return `cell ${change.index}`;
    case "tenant": case "tenantGone": return `tenant ${change.tenant}`;
    case "key": case "keyGone": return `key ${keySpaces[change.key.kind]} ${change.key.value}`;
  }
};

/** Brings the rows to what the changes say, then gives all of them one version. @throws CellplaneError generation_stale when a tenant's epoch would go back */
async function flush(tx: Tx, batches: readonly RouteChange[][]): Promise<void> {
  const latest = new Map<string, RouteChange>();
  for (const change of batches.flat()) {
    const place = placeOf(change);
    latest.delete(place);
    latest.set(place, change);
  }
  const changes = [...latest.values()];
  const of = <K extends RouteChange["kind"]>(kind: K): Of<K>[] => changes.filter((change): change is Of<K> => change.kind === kind);

  await writeCells(tx, of("cell"), of("cellGone"));
  const orphans = await writeTenants(tx, of("tenant"), of("tenantGone"));
  await writeKeys(tx, of("key"), of("keyGone"));

  const lines = [...changes, ...orphans.filter((change) => !latest.has(placeOf(change)))].map(lineOf).join("");
  const rules = of("rules").at(-1)?.rules;
  await tx.query(
    `with head as (
       update route_head set version = version + 1, digest = sha256(digest || convert_to($1, 'UTF8')), rules = coalesce($2::jsonb, rules) returning version, digest
     ), logged as (
       insert into route_log (version, changes, digest) select version, $1, digest from head returning version
     )
     select pg_notify($3, version::text) from logged`,
    [lines, rules ? JSON.stringify(rules) : null, routesChannel],
  );
}

async function writeCells(tx: Tx, set: Of<"cell">[], gone: Of<"cellGone">[]): Promise<void> {
  if (gone.length > 0) await tx.query("delete from route_cell where index = any($1)", [gone.map((change) => change.index)]);
  if (set.length === 0) return;
  await tx.query(
    `insert into route_cell (index, cell, endpoint, state)
     select * from unnest($1::int[], $2::text[], $3::text[], $4::text[])
     on conflict (index) do update set cell = excluded.cell, endpoint = excluded.endpoint, state = excluded.state`,
    [set.map((c) => c.index), set.map((c) => c.cell), set.map((c) => c.endpoint), set.map((c) => c.state)],
  );
}

/** @returns the keys that go with the tenants that are gone */
async function writeTenants(tx: Tx, set: Of<"tenant">[], gone: Of<"tenantGone">[]): Promise<RouteChange[]> {
  if (set.length > 0) {
    // In one order for everybody: two transactions that set the same tenants wait for each other and do not deadlock.
    set.sort((a, b) => (a.tenant < b.tenant ? -1 : 1));
    const written = await tx.query(
      `insert into route_tenant as now (tenant, cell_index, state, epoch)
       select * from unnest($1::text[], $2::int[], $3::text[], $4::bigint[])
       on conflict (tenant) do update set cell_index = excluded.cell_index, state = excluded.state, epoch = excluded.epoch where now.epoch <= excluded.epoch
       returning 1`,
      [set.map((t) => t.tenant), set.map((t) => t.cellIndex), set.map((t) => t.state), set.map((t) => t.epoch)],
    );
    if (written.length < set.length) await sayStale(tx, set);
  }
  if (gone.length === 0) return [];
  const names = gone.map((change) => change.tenant);
  await tx.query("delete from route_tenant where tenant = any($1)", [names]);
  const keys = await tx.query<{ space: KeySpace; value: string }>("delete from route_key where tenant = any($1) returning space, value", [names]);
  return keys.map(({ space, value }) => ({ kind: "keyGone", key: { kind: space, value } }));
}

async function sayStale(tx: Tx, set: Of<"tenant">[]): Promise<never> {
  const rows = await tx.query<{ tenant: string; epoch: number }>("select tenant, epoch from route_tenant where tenant = any($1)", [set.map((t) => t.tenant)]);
  const now = new Map(rows.map((row) => [row.tenant, row.epoch]));
  const stale = set.find((change) => change.epoch < (now.get(change.tenant) ?? 0));
  throw fail("generation_stale", { what: "the route of tenant", name: stale?.tenant ?? "?", expected: stale?.epoch ?? 0, actual: now.get(stale?.tenant ?? "") ?? 0 });
}

async function writeKeys(tx: Tx, set: Of<"key">[], gone: Of<"keyGone">[]): Promise<void> {
  if (gone.length > 0) {
    await tx.query("delete from route_key where (space, value) in (select * from unnest($1::text[], $2::text[]))", [gone.map((c) => keySpaces[c.key.kind]), gone.map((c) => c.key.value)]);
  }
  if (set.length === 0) return;
  await tx.query(
    `insert into route_key (space, value, tenant)
     select * from unnest($1::text[], $2::text[], $3::text[]) order by 1, 2
     on conflict (space, value) do update set tenant = excluded.tenant`,
    [set.map((c) => keySpaces[c.key.kind]), set.map((c) => c.key.value), set.map((c) => c.tenant)],
  );
}

// ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** The newest version, with the digest of all history up to it. */
export async function routeHead(store: Queryable): Promise<SnapshotPosition> {
  const [head] = await store.query<SnapshotPosition>("select version, encode(digest, 'hex') as digest from route_head");
  if (!head) throw fail("not_found", { what: "route head", name: "route_head" });
  return head;
}

/** Versions after `version`, oldest first, at most `limit`; empty when there are none. Where the log begins later, the first is not `version + 1`. */
export const changesSince = (store: Queryable, version: number, limit: number): Promise<LogRow[]> =>
  store.query("select version, changes, encode(digest, 'hex') as digest from route_log where version > $1 order by version limit $2", [version, limit]);

/** Whether the log goes on from exactly this history. */
export async function isOnLog(store: Queryable, { version, digest }: SnapshotPosition): Promise<boolean> {
  const [row] = await store.query<{ known: boolean }>(
    `select exists (select from route_head where version = $1 and digest = decode($2, 'hex')
          union all select from route_log  where version = $1 and digest = decode($2, 'hex')) as known`,
    [version, digest],
  );
  return row?.known ?? false;
}

/** Cuts the log; routers further behind than `keep` versions take a snapshot. @returns rows removed */
export async function trimRouteLog(store: Queryable, keep: number): Promise<number> {
  return (await store.query("delete from route_log where version <= (select version from route_head) - $1 returning 1", [keep])).length;
}

/**
 * All rows at one version, as lines in chunks of some thousands.
 * @param begin is told the version and about how many lines follow
 */
export function readRoutes(store: Store, begin: (position: SnapshotPosition, lines: number) => void, chunk: (lines: string) => void): Promise<void> {
  return store.transaction(async (tx) => {
    // One moment for all four reads: versions are given out one commit after the other, so this moment has a version.
    await tx.query("set transaction isolation level repeatable read, read only");
    const position = await routeHead(tx);
    const [counted] = await tx.query<{ lines: number }>("select (select count(*) from route_tenant) + (select count(*) from route_key) as lines");
    begin(position, counted?.lines ?? 0);
    const [head] = await tx.query<{ rules: IdentifyRule[] }>("select rules from route_head");
    chunk(lineOf({ kind: "rules", rules: head?.rules ?? [] }));
    for (const cell of await tx.query<CellRoute>("select index, cell, endpoint, state from route_cell order by index")) chunk(lineOf({ kind: "cell", ...cell }));
    await tx.query(
      `declare route_lines no scroll cursor for
         select 't ' || tenant || ' ' || cell_index || ' ' || state || ' ' || epoch as line from route_tenant
         union all
         select 'k ' || space || ' ' || value || ' ' || tenant from route_key`,
    );
    for (;;) {
      const rows = await tx.query<{ line: string }>("fetch 5000 from route_lines");
      if (rows.length === 0) return;
      chunk(`${rows.map((row) => row.line).join("\n")}\n`);
    }
  });
}

// ── for route explain ─────────────────────────────────────────────────────────────────────────────────────────────

export interface KeyRow {
  space: LookupSpace;
  value: string;
  tenant: string;
  cellIndex: number;
  state: RouteState;
  epoch: number;
}

/** What the given names and keys stand for; those that name nobody are left out. */
export const routesOfKeys = (store: Queryable, keys: readonly { space: LookupSpace; value: string }[]): Promise<KeyRow[]> =>
  store.query(
    `select asked.space, asked.value, tenant.tenant, tenant.cell_index as "cellIndex", tenant.state, tenant.epoch
       from unnest($1::text[], $2::text[]) as asked (space, value)
       left join route_key key on key.space = asked.space and key.value = asked.value
       join route_tenant tenant on tenant.tenant = case asked.space when 'name' then asked.value else key.tenant end`,
    [keys.map((key) => key.space), keys.map((key) => key.value)],
  );

export async function routeRules(store: Queryable): Promise<IdentifyRule[]> {
  const [head] = await store.query<{ rules: IdentifyRule[] }>("select rules from route_head");
  return head?.rules ?? [];
}

export const routeCells = (store: Queryable, indexes: readonly number[]): Promise<CellRoute[]> =>
  store.query("select index, cell, endpoint, state from route_cell where index = any($1)", [indexes]);

// ── routers ───────────────────────────────────────────────────────────────────────────────────────────────────────

export interface RouterAck {
  router: string;
  version: number;
  inFlight: Record<string, number>;
  /** Milliseconds since the Unix epoch. */
  atMs: number;
}

/** The latest word of each router; an older one, which reached another instance later, changes nothing. */
export async function saveAcks(store: Queryable, acks: readonly RouterAck[]): Promise<void> {
  await store.query(
    `insert into route_router as now (router, version, in_flight, acked_at)
     select router, version, in_flight::jsonb, to_timestamp(at_ms / 1000.0) from unnest($1::text[], $2::bigint[], $3::text[], $4::float8[]) as ack (router, version, in_flight, at_ms) order by router
     on conflict (router) do update set version = excluded.version, in_flight = excluded.in_flight, acked_at = excluded.acked_at where now.acked_at <= excluded.acked_at`,
    [acks.map((a) => a.router), acks.map((a) => a.version), acks.map((a) => JSON.stringify(a.inFlight)), acks.map((a) => a.atMs)],
  );
}

/** Routers heard of within `sinceMs`. */
export const listAcks = (store: Queryable, sinceMs: number): Promise<RouterAck[]> =>
  store.query(
    `select router, version, in_flight as "inFlight", (extract(epoch from acked_at) * 1000)::float8 as "atMs"
       from route_router where acked_at > clock_timestamp() - make_interval(secs => $1) order by router collate "C"`,
    [sinceMs / 1000],
  );
