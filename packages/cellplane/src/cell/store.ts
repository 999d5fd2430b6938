import type { Queryable, Row, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import type { EventSink } from "../drivers/driver.ts";
import { fail } from "../base/errors.ts";
import { type CellEvent, next } from "./machine.ts";
import { type Capacity, type Cell, type CellSpec, dimensions, type HealthCheck, type NewCell, type Observed, type Overrides } from "./model.ts";
import { canonicalJson } from "../base/canonical.ts";

/** A cell with what the control plane alone needs to know of it. */
export interface CellRecord extends Cell {
  spec: CellSpec;
}

/** What a cell is made from; `request` and the input of `cell.create`. */
export type CellRequest = Pick<NewCell, "overrides" | "labels"> & { spec: CellSpec; origin: Cell["origin"] };

/** What one look at a cell showed. */
export interface Look {
  cell: string;
  ok: boolean;
  checks: HealthCheck[];
  /** Null: not looked for, so what is known stays. */
  drift: Observed["drift"] | null;
  observedAtMs: number;
}

export type Watched = Pick<Cell, "name" | "driver">;

export interface Watch {
  /** False while another control plane has it. */
  tryTake: () => Promise<boolean>;
  /** Aborts when the session is gone, and the lock with it. */
  lost: AbortSignal;
  end: () => Promise<void>;
}

const indexMax = 65535;
/** Any constants will do that every instance has and no other use of advisory locks: "numb" and "watc". */
const numbersLockKey = 0x6e756d62;
const watchLockKey = 0x77617463;

/** Name of a dimension in the columns `<name>_capacity` and `<name>_used`. */
export const columnOf = { tenants: "tenants", connections: "connections", requestsPerSecond: "requests_per_second", diskBytes: "disk_bytes" } as const satisfies Record<keyof Capacity, string>;
const capacityColumns = dimensions.map((dimension) => `${columnOf[dimension]}_capacity`);
const capacityValues = (capacity: Capacity): (number | null)[] => dimensions.map((dimension) => capacity[dimension] ?? null);
/** `$first…` in the order of `dimensions`. */
const parameters = (first: number): string[] => dimensions.map((_, i) => `$${first + i}`);

function capacityOf(row: Row, kind: "capacity" | "used"): Capacity {
  return Object.fromEntries(dimensions.map((dimension) => [dimension, row[`${columnOf[dimension]}_${kind}`]]).filter(([, value]) => value !== null)) as Capacity;
}

function cellOf(row: Row): CellRecord {
  const spec = row["spec"] as CellSpec;
  return {
    ...(row as unknown as Pick<Cell, "name" | "region" | "blueprint" | "class" | "driver" | "origin" | "index" | "state" | "generation" | "overrides" | "labels" | "endpoint" | "operation">),
    version: spec.version,
    capacity: capacityOf(row, "capacity"),
    used: capacityOf(row, "used"),
    health: { ok: row["ok"] as boolean | null, checks: row["checks"] as HealthCheck[], observedAt: (row["observed_at"] as Date | null)?.toISOString() ?? null },
    drift: row["drift"] as Observed["drift"],
    createdAt: (row["created_at"] as Date).toISOString(),
    spec,
  };
}

const select = `
  select c.name, c.index, c.region, c.blueprint, c.class, c.driver, c.origin, c.state, c.generation, c.spec, c.overrides, c.labels, c.endpoint, c.operation, c.created_at,
         ${dimensions.map((d) => `c.${columnOf[d]}_capacity, c.${columnOf[d]}_used`).join(", ")},
         o.ok, coalesce(o.checks, '[]') as checks, coalesce(o.drift, '[]') as drift, o.observed_at
    from cell c left join cell_observed o on o.cell = c.name`;

/** A load that is to live in a cell; `tenants` is how many it is, usually 1. */
interface Arrival {
  cell: string;
  load: Capacity;
}

/**
 * Takes arrivals onto their cells, in one statement; each cell takes all that were meant for it, or none. What is checked
 * is the row as it is at this moment, whatever it was decided from: the cell is active, is not already another tenant's own, and
 * nothing goes over its capacity.
 *
 * @param headroomRatio what part of a shared cell's capacity stays free, 0…1
 * @returns the cells that took them
 */
export async function reserve(tx: Tx, arrivals: readonly Arrival[], { headroomRatio = 0 } = {}): Promise<Set<string>> {
  if (arrivals.length === 0) return new Set();
  const columns = dimensions.map((dimension) => columnOf[dimension]);
  const share = "case when c.class = 'dedicated' then 1 else $6::numeric end";
  const fits = columns.map((column) => {
    const limit = column === "tenants" ? `case when c.class = 'dedicated' then least(c.tenants_capacity, 1) else c.tenants_capacity * ${share} end` : `c.${column}_capacity * ${share}`;
    return `(w.${column} = 0 or (${limit}) is null or c.${column}_used + w.${column} <= ${limit})`;
  });
  // Summed by PostgreSQL, whose numerics are exact: what a deletion gives back later leaves nothing over.
  const rows = await tx.query<{ name: string }>(
    `with w as (select cell, ${columns.map((column) => `sum(${column}) as ${column}`).join(", ")}
                  from unnest($1::text[], $2::numeric[], $3::numeric[], $4::numeric[], $5::numeric[]) as a (cell, ${columns.join(", ")}) group by cell)
     update cell c set ${columns.map((column) => `${column}_used = c.${column}_used + w.${column}`).join(", ")}
       from w where c.name = w.cell and c.state = 'active' and ${fits.join(" and ")} returning c.name`,
    [arrivals.map(({ cell }) => cell), ...dimensions.map((dimension) => arrivals.map(({ load }) => load[dimension] ?? 0)), 1 - headroomRatio],
  );
  return new Set(rows.map((row) => row.name));
}

/** Gives back what `reserve` took. Below zero would be a defect of ours, and the table refuses it. */
export async function release(tx: Tx, cell: string, load: Capacity): Promise<void> {
  const taken = dimensions.map((dimension, i) => `${columnOf[dimension]}_used = ${columnOf[dimension]}_used - $${i + 2}`);
  await tx.query(`update cell set ${taken.join(", ")} where name = $1`, [cell, ...dimensions.map((dimension) => load[dimension] ?? 0)]);
}

export type CellStore = ReturnType<typeof createCellStore>;

export function createCellStore(store: Store, events: EventSink) {
  const tell = (tx: Tx, kind: string, cell: Pick<CellRecord, "name" | "region" | "state" | "generation" | "version">, data: Record<string, unknown> = {}): void =>
    events.emit(tx, kind, `cell/${cell.name}`, { region: cell.region, state: cell.state, generation: cell.generation, version: cell.version, ...data });

  const get = async (name: string, at: Queryable = store): Promise<CellRecord | null> => (await at.query(`${select} where c.name = $1`, [name])).map(cellOf)[0] ?? null;

  /** The cell, held until the transaction ends, so that what is decided from it can be written. @throws CellplaneError not_found */
  async function hold(tx: Tx, name: string): Promise<CellRecord> {
    const [cell] = (await tx.query(`${select} where c.name = $1 for update of c`, [name])).map(cellOf);
    if (!cell) throw fail("not_found", { what: "cell", name });
    return cell;
  }

  /** @throws CellplaneError wrong_state · cell_has_tenants · generation_stale when the cell is no longer what it was decided from */
  async function move(tx: Tx, cell: CellRecord, event: CellEvent): Promise<CellRecord> {
    const state = next(cell, event);
    if (state === cell.state) return cell;
    const mustBeEmpty = event === "retire" || event === "emptied" ? "and tenants_used = 0" : "";
    const [row] = await tx.query<{ generation: number }>(
      `update cell set state = $3, generation = generation + 1, updated_at = clock_timestamp() where name = $1 and generation = $2 ${mustBeEmpty} returning generation`,
      [cell.name, cell.generation, state],
    );
    if (!row) throw await stale(tx, cell, event);
    const moved = { ...cell, state, generation: row.generation };
    tell(tx, "cell.state", moved, { from: cell.state });
    return moved;
  }

  async function stale(tx: Tx, cell: CellRecord, event: CellEvent) {
    const now = await get(cell.name, tx);
    if (!now) return fail("not_found", { what: "cell", name: cell.name });
    if (now.generation !== cell.generation) return fail("generation_stale", { what: "cell", name: cell.name, expected: cell.generation, actual: now.generation });
    return fail("cell_has_tenants", { cell: cell.name, tenants: now.used.tenants ?? 0, verb: event });
  }

  return {
    get,
    hold,
    move,

    /** By name, in pages; destroyed ones only when asked for by state. `state`, `region`, `blueprint`: only those. */
    async list(query: { state?: string | undefined; region?: string | undefined; blueprint?: string | undefined; after?: string | undefined; limit: number }): Promise<CellRecord[]> {
      const rows = await store.query(
        `${select}
          where c.name > $1 and ($2::text is null or c.state = $2) and ($3::text is null or c.region = $3) and ($4::text is null or c.blueprint = $4)
            and (c.state <> 'destroyed' or $2 = 'destroyed')
          order by c.name limit $5`,
        [query.after ?? "", query.state ?? null, query.region ?? null, query.blueprint ?? null, query.limit],
      );
      return rows.map(cellOf);
    },

    /** Every cell there is a row of, in the order of their names. */
    all: async (at: Queryable = store): Promise<CellRecord[]> => (await at.query(`${select} order by c.name`)).map(cellOf),

    /**
     * Writes down that a cell is wanted. Repeating the same request is harmless; a failed cell may be asked for again,
     * otherwise than before.
     * @throws CellplaneError already_exists, cell_name_kept, cell_numbers_exhausted
     */
    async request(tx: Tx, { spec, overrides, labels, origin }: CellRequest): Promise<CellRecord> {
      const values = [spec.cell, spec.region, spec.blueprint, spec.class, spec.driver, origin, spec, overrides, labels, ...capacityValues(spec.capacity)];
      const [known] = (await tx.query(`${select} where c.name = $1 for update of c`, [spec.cell])).map(cellOf);
      if (known?.state === "destroyed") throw fail("cell_name_kept", { cell: known.name });
      if (known?.state === "requested" && canonicalJson(known.spec) === canonicalJson(spec)) return known;
      if (known && known.state !== "failed") throw fail("already_exists", { what: "cell", name: known.name });
      if (known) {
        const again = await move(tx, known, "request");
        await tx.query(
          `update cell set (region, blueprint, class, driver, origin, spec, overrides, labels, ${capacityColumns.join(", ")}) = ($2, $3, $4, $5, $6, $7, $8, $9, ${parameters(10).join(", ")})
            where name = $1 and generation = $${values.length + 1}`,
          [...values, again.generation],
        );
      } else {
        // One at a time, so that the greatest number ever given is known; held until this short transaction ends.
        await tx.query("select pg_advisory_xact_lock($1)", [numbersLockKey]);
        const [row] = await tx.query<{ index: number }>("select 1 + greatest((select max(index) from cell), (select max(index) from cell_gone), 0) as index");
        const index = row?.index ?? 1;
        if (index > indexMax) throw fail("cell_numbers_exhausted", { max: indexMax });
        const [added] = await tx.query(
          `insert into cell (name, region, blueprint, class, driver, origin, spec, overrides, labels, ${capacityColumns.join(", ")}, index, state)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, ${parameters(10).join(", ")}, $${values.length + 1}, 'requested') on conflict (name) do nothing returning name`,
          [...values, index],
        );
        if (!added) throw fail("already_exists", { what: "cell", name: spec.cell });
      }
      const cell = await hold(tx, spec.cell);
      tell(tx, "cell.requested", cell, { index: cell.index, blueprint: cell.blueprint });
      return cell;
    },

    /** The operation that works on the cell, for people: shown until it says that it is over. */
    async engage(tx: Tx, name: string, operation: string): Promise<void> {
      await tx.query("update cell set operation = $2 where name = $1", [name, operation]);
    },
    async disengage(at: Queryable, name: string, operation: string): Promise<void> {
      await at.query("update cell set operation = null where name = $1 and operation = $2", [name, operation]);
    },

    /** What may be used from now on; the spec keeps its own. @throws CellplaneError generation_stale */
    async limit(tx: Tx, cell: CellRecord, capacity: Capacity): Promise<CellRecord> {
      const [row] = await tx.query<{ generation: number }>(
        `update cell set (${capacityColumns.join(", ")}) = (${parameters(3).join(", ")}), generation = generation + 1, updated_at = clock_timestamp()
          where name = $1 and generation = $2 returning generation`,
        [cell.name, cell.generation, ...capacityValues(capacity)],
      );
      if (!row) throw await stale(tx, cell, "request");
      return { ...cell, capacity, generation: row.generation };
    },

    /** The cell has become `now.spec`. @throws CellplaneError generation_stale */
    async become(tx: Tx, cell: CellRecord, now: { spec: CellSpec; overrides: Overrides; labels: Cell["labels"]; endpoint: string | null }): Promise<CellRecord> {
      const { spec } = now;
      const [row] = await tx.query<{ generation: number }>(
        `update cell set (blueprint, class, spec, overrides, labels, endpoint, ${capacityColumns.join(", ")}) = ($3, $4, $5, $6, $7, $8, ${parameters(9).join(", ")}),
                generation = generation + 1, updated_at = clock_timestamp()
          where name = $1 and generation = $2 returning generation`,
        [cell.name, cell.generation, spec.blueprint, spec.class, spec, now.overrides, now.labels, now.endpoint, ...capacityValues(spec.capacity)],
      );
      if (!row) throw await stale(tx, cell, "request");
      const became = { ...cell, ...now, blueprint: spec.blueprint, class: spec.class, version: spec.version, capacity: spec.capacity, generation: row.generation };
      if (canonicalJson(cell.spec) !== canonicalJson(spec)) tell(tx, "cell.updated", became, { from: cell.version });
      return became;
    },

    /** Takes its row away and keeps its number. Only after its data are gone. */
    async forget(tx: Tx, cell: CellRecord): Promise<void> {
      await tx.query("with gone as (delete from cell where name = $1 and generation = $2 and state = 'destroyed' returning index, name) insert into cell_gone (index, name) select index, name from gone", [
        cell.name, cell.generation,
      ]);
    },

    /** Writes down what was seen, and tells of what changed. */
    async saveLooks(looks: Look[]): Promise<void> {
      await store.transaction(async (tx) => {
        const rows = looks.map((look) => ({ ...look, observedAt: new Date(look.observedAtMs).toISOString() }));
        const changed = await tx.query<{ name: string; region: string; state: Cell["state"]; generation: number; version: string; ok: boolean; checks: HealthCheck[]; drift: Observed["drift"]; healthChanged: boolean; driftChanged: boolean }>(
          `with look as (select * from jsonb_to_recordset($1::jsonb) as l (cell text, ok boolean, checks jsonb, drift jsonb, "observedAt" timestamptz)),
                was as (select o.* from cell_observed o join look l using (cell)),
                saved as (
                  insert into cell_observed (cell, ok, checks, drift, observed_at) select l.cell, l.ok, l.checks, coalesce(l.drift, w.drift, '[]'), l."observedAt"
                    from look l join cell c on c.name = l.cell left join was w on w.cell = l.cell
                  on conflict (cell) do update set ok = excluded.ok, checks = excluded.checks, drift = excluded.drift, observed_at = excluded.observed_at
                  returning *)
           select c.name, c.region, c.state, c.generation, c.spec->>'version' as version, s.ok, s.checks, s.drift,
                  s.ok is distinct from w.ok as "healthChanged", s.drift is distinct from coalesce(w.drift, '[]') as "driftChanged"
             from saved s join cell c on c.name = s.cell left join was w on w.cell = s.cell
            where s.ok is distinct from w.ok or s.drift is distinct from coalesce(w.drift, '[]')`,
          [JSON.stringify(rows)],
        );
        for (const cell of changed) {
          if (cell.healthChanged) tell(tx, "cell.health", cell, { ok: cell.ok, checks: cell.checks });
          if (cell.driftChanged) tell(tx, "cell.drift", cell, { drift: cell.drift });
        }
      });
    },

    /** What there is to look at, without what looking does not need. */
    watched: (): Promise<Watched[]> => store.query<Watched>("select name, driver from cell where state in ('active', 'cordoned', 'draining', 'empty') order by name"),

    /** Of all control planes one looks at the cells: the one that holds this lock, for as long as its session lives. */
    async openWatch(): Promise<Watch> {
      const client = await store.connect();
      const lost = new AbortController();
      client.on("end", () => lost.abort());
      return {
        lost: lost.signal,
        tryTake: async () => (await client.query<{ taken: boolean }>("select pg_try_advisory_lock($1) as taken", [watchLockKey])).rows[0]?.taken === true,
        end: () => client.end(),
      };
    },
  };
}
