import pg from "pg";
import { fail } from "../../base/errors.ts";
import type { TenantEraser } from "../driver.ts";
import { withSession } from "./session.ts";

export interface EraserOptions {
  /** The database of a cell and the column that names the tenant in its tables; null when the cell has none. */
  databaseOf: (cell: string) => Promise<{ url: string; tenantColumn: string } | null>;
  /** Rows of one transaction: neighbours must not wait for locks or for the log. Default: 5000 */
  batchRows?: number;
}

/** How long a batch may wait for a lock somebody else holds. */
const lockTimeoutMs = 5000;

interface Table {
  oid: number;
  /** With its schema, quoted where needed. */
  name: string;
}

/** Erases tenants from the PostgreSQL databases of cells: every row of every table that has the tenant column. */
export function createEraser({ databaseOf, batchRows = 5000 }: EraserOptions): TenantEraser {
  return {
    async erase(cell, tenant, signal) {
      const database = await databaseOf(cell);
      if (!database) return {};
      const { url, tenantColumn } = database;
      try {
        return await withSession(url, signal, (session) => eraseAll(session, { cell, tenant, column: tenantColumn, batchRows }));
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof pg.DatabaseError || /ECONN|terminat/i.test((error as Error).message)) throw fail("driver_failed", { cell, why: (error as Error).message }, { cause: error });
        throw error;
      }
    },
  };
}

async function eraseAll(session: pg.Client, { cell, tenant, column, batchRows }: { cell: string; tenant: string; column: string; batchRows: number }): Promise<Record<string, number>> {
  await session.query(`set lock_timeout = ${lockTimeoutMs}`);
  const erased: Record<string, number> = {};
  for (const group of await childrenFirst(session, column)) {
    const tables = group.map(({ name }) => name).join(", ");
    const sql = group.length === 1 && group[0] && !group[0].refersToItself ? batchSql(group[0], column, batchRows) : groupSql(group, column);
    for (;;) {
      const { rows } = await session.query<{ name: string; rows: number }>(sql, [tenant]).catch((error: unknown) => {
        if (!(error instanceof pg.DatabaseError)) throw error;
        throw fail("erase_failed", { cell, tenant, table: tables, why: [error.message, error.detail].filter(Boolean).join(": ") }, { cause: error });
      });
      for (const { name, rows: count } of rows) if (count > 0) erased[name] = (erased[name] ?? 0) + count;
      // Only batches have more to come.
      if (!rows.some(({ rows: count }) => count > 0)) break;
    }
  }
  return erased;
}

/** A partition's rows are found through its root, and two partitions may have the same ctid. */
const batchSql = ({ name }: Table, column: string, batchRows: number): string => `
  with doomed as (select tableoid, ctid from ${name} where ${pg.escapeIdentifier(column)} = $1 limit ${batchRows}),
       gone as (delete from ${name} t using doomed where t.tableoid = doomed.tableoid and t.ctid = doomed.ctid returning 1)
  select ${pg.escapeLiteral(name)} as name, (select count(*)::int from gone) as rows`;

/** Tables that refer to each other in a circle are emptied by one statement, at whose end their foreign keys are checked. */
function groupSql(group: Table[], column: string): string {
  const deletes = group.map(({ name }, i) => `gone${i} as (delete from ${name} where ${pg.escapeIdentifier(column)} = $1 returning 1)`);
  const counts = group.map(({ name }, i) => `select ${pg.escapeLiteral(name)} as name, (select count(*)::int from gone${i}) as rows`);
  return `with ${deletes.join(", ")} ${counts.join(" union all ")}`;
}

/** The tables that have the column, in groups to be emptied in this order: what refers comes before what it refers to. */
async function childrenFirst(session: pg.Client, column: string): Promise<(Table & { refersToItself: boolean })[][]> {
  const { rows: tables } = await session.query<Table>(
    `select c.oid::int8 as oid, format('%I.%I', n.nspname, c.relname) as name
     from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
     where a.attname = $1 and not a.attisdropped and c.relkind in ('r', 'p') and not c.relispartition
       and n.nspname not in ('pg_catalog', 'information_schema', 'cellplane') and n.nspname not like 'pg\\_%'
     order by 2`,
    [column],
  );
  const { rows: references } = await session.query<{ child: number; parent: number }>("select conrelid::int8 as child, confrelid::int8 as parent from pg_constraint where contype = 'f' and conparentid = 0");
  const parentsOf = (oid: number): number[] => references.filter(({ child }) => Number(child) === Number(oid)).map(({ parent }) => Number(parent));
  const byOid = new Map(tables.map((table) => [Number(table.oid), { ...table, oid: Number(table.oid), refersToItself: parentsOf(table.oid).includes(Number(table.oid)) }]));
  // Components come parents first, since each is complete only after what it refers to.
  return components([...byOid.keys()], (oid) => parentsOf(oid).filter((parent) => byOid.has(parent)))
    .toReversed()
    .map((component) => component.map((oid) => byOid.get(oid)).filter((table) => table !== undefined));
}

/** Strongly connected components in reverse topological order: Tarjan, "Depth-first search and linear graph algorithms", 1972. */
function components(nodes: number[], next: (node: number) => number[]): number[][] {
  const index = new Map<number, number>();
  const low = new Map<number, number>();
  const stack: number[] = [];
  const found: number[][] = [];
  const lowOf = (node: number): number => low.get(node) ?? Infinity;
  const visit = (node: number): void => {
    index.set(node, index.size);
    low.set(node, index.size - 1);
    stack.push(node);
    for (const other of next(node)) {
      if (!index.has(other)) visit(other);
      if (stack.includes(other)) low.set(node, Math.min(lowOf(node), lowOf(other)));
    }
    if (lowOf(node) === index.get(node)) found.push(stack.splice(stack.indexOf(node)));
  };
  for (const node of nodes) if (!index.has(node)) visit(node);
  return found;
}
