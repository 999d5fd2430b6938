import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../../../../../tests/database.ts";
import { createEraser } from "./erase.ts";

let database: TestDatabase;
let client: pg.Client;
const { signal } = new AbortController();

beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client.end();
  await database.drop();
});

const eraser = (batchRows = 7) => createEraser({ databaseOf: async (cell) => (cell === "none" ? null : { url: database.url, tenantColumn: "tenant_id" }), batchRows });
const count = async (table: string): Promise<Record<string, number>> => {
  const { rows } = await client.query<{ tenant_id: string; n: number }>(`select tenant_id, count(*)::int as n from ${table} group by 1`);
  return Object.fromEntries(rows.map(({ tenant_id, n }) => [tenant_id, n]));
};

test("E1: all rows of the tenant go, children first, in batches, and nobody else's", async () => {
  await client.query(`
    create schema "Other";
    create table account (tenant_id text, id int, primary key (tenant_id, id));
    create table orders (tenant_id text, id int, account int, primary key (tenant_id, id), foreign key (tenant_id, account) references account);
    create table line (tenant_id text, orders int, n int, foreign key (tenant_id, orders) references orders);
    create table "Other"."Odd name" (tenant_id text, id int);
    create table part (tenant_id text, id int) partition by hash (id);
    create table part_0 partition of part for values with (modulus 2, remainder 0);
    create table part_1 partition of part for values with (modulus 2, remainder 1);
    create table person (tenant_id text, id int, chief int, primary key (tenant_id, id), foreign key (tenant_id, chief) references person);
    create table head (tenant_id text, id int, latest int, primary key (tenant_id, id));
    create table version (tenant_id text, id int, head int, primary key (tenant_id, id), foreign key (tenant_id, head) references head);
    alter table head add foreign key (tenant_id, latest) references version;
    create table shared_setting (name text);
    insert into shared_setting values ('kept');
  `);
  for (const tenant of ["acme", "acme-2"]) {
    await client.query(`
      insert into account select '${tenant}', i from generate_series(1, 20) i;
      insert into orders select '${tenant}', i, i from generate_series(1, 20) i;
      insert into line select '${tenant}', i % 20 + 1, i from generate_series(1, 50) i;
      insert into "Other"."Odd name" values ('${tenant}', 1);
      insert into part select '${tenant}', i from generate_series(1, 30) i;
      insert into person select '${tenant}', i, greatest(i - 1, 1) from generate_series(1, 20) i;
      insert into head select '${tenant}', i from generate_series(1, 9) i;
      insert into version select '${tenant}', i, i from generate_series(1, 9) i;
      update head set latest = id where tenant_id = '${tenant}';
    `);
  }
  const tables = ["account", "orders", "line", '"Other"."Odd name"', "part", "person", "head", "version"];
  const erased = await eraser().erase("eu-1", "acme", signal);
  expect(erased).toEqual({
    "public.account": 20, "public.orders": 20, "public.line": 50, '"Other"."Odd name"': 1, "public.part": 30, "public.person": 20, "public.head": 9, "public.version": 9,
  });
  for (const table of tables) expect({ table, tenants: Object.keys(await count(table)) }).toEqual({ table, tenants: ["acme-2"] });
  expect((await client.query("select * from shared_setting")).rowCount).toBe(1);
  expect(await eraser().erase("eu-1", "acme", signal)).toEqual({});
  // Killed in between, as by a lost connection, the rest goes the next time.
  const abort = new AbortController();
  const erasing = eraser(1).erase("eu-1", "acme-2", abort.signal);
  setTimeout(() => abort.abort(new Error("too late")), 30);
  expect(await erasing.then(() => "done before", (error: Error) => error.message)).toMatch(/^(too late|done before)$/);
  await eraser().erase("eu-1", "acme-2", signal);
  for (const table of tables) expect({ table, ...(await count(table)) }).toEqual({ table });
});

test("E2: rows without the column that still refer to the tenant's stop it with the table's name", async () => {
  await client.query(`
    create table thing (tenant_id text, id int primary key);
    create table pinned (thing int references thing);
    insert into thing values ('zeta', 1);
    insert into pinned values (1);
  `);
  await expect(eraser().erase("eu-1", "zeta", signal)).rejects.toMatchObject({ code: "erase_failed", data: { table: "public.thing", why: expect.stringContaining("pinned") } });
  await client.query("drop table pinned, thing");
});

test("E3: a cell without a database has nothing to erase; an unreachable one fails as such", async () => {
  expect(await eraser().erase("none", "acme", signal)).toEqual({});
  const absent = createEraser({ databaseOf: async () => ({ url: "postgres://x:y@127.0.0.1:1/z", tenantColumn: "tenant_id" }) });
  await expect(absent.erase("eu-1", "acme", signal)).rejects.toMatchObject({ code: "driver_failed" });
});
