import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testDatabase } from "../../../../tests/database.ts";
import { applySchema } from "./schema.ts";
import { openStore } from "./store.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let folder: string;
beforeAll(async () => {
  db = await testDatabase();
  folder = await mkdtemp(join(tmpdir(), "cellplane-schema-"));
});
afterAll(async () => {
  await db.drop();
  await rm(folder, { recursive: true });
});

const describeSchema = `
  select 'table ' || c.relname || E'\\n' || string_agg('  ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || case when a.attnotnull then ' not null' else '' end || case a.attidentity when 'a' then ' identity' else '' end
           || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''), E'\\n' order by a.attnum) as text
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
   where c.relnamespace = 'cellplane'::regnamespace and c.relkind in ('r', 'p') group by c.relname
  union all select 'constraint ' || conrelid::regclass || ': ' || pg_get_constraintdef(oid) from pg_constraint
   where connamespace = 'cellplane'::regnamespace and contype in ('c', 'f', 'p', 'u', 'x')
  union all select 'index ' || indexdef from pg_indexes where schemaname = 'cellplane'
  union all select 'trigger ' || pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = tgrelid
   where c.relnamespace = 'cellplane'::regnamespace and not tgisinternal
  union all select 'function ' || oid::regprocedure || ' ' || md5(prosrc) from pg_proc where pronamespace = 'cellplane'::regnamespace
  order by 1`;

describe("schema steps", () => {
  test("five instances may start at once on an empty database: each step is applied once", async () => {
    const stores = Array.from({ length: 5 }, () => openStore(db.url, { connectionsMax: 2 }));
    const applied = await Promise.all(stores.map((store) => applySchema(store)));
    const names = applied.flat();
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
    expect(await applySchema(stores[0] ?? expect.unreachable())).toEqual([]);
    await Promise.all(stores.map((store) => store.close()));
  });

  test("the schema is the golden one", async () => {
    const store = openStore(db.url);
    await applySchema(store);
    const rows = await store.query<{ text: string }>(describeSchema);
    await store.close();
    await expect(rows.map((row) => row.text).join("\n") + "\n").toMatchFileSnapshot("schema/golden.txt");
  });

  test("a step that changed after it was applied, or that this build does not know, stops the start and changes nothing", async () => {
    const other = await testDatabase();
    const store = openStore(other.url, { connectionsMax: 1 });
    const dir = pathToFileURL(`${folder}/`);
    const step = join(folder, "0001-first.sql");
    await writeFile(step, "create table one (id int)");
    expect(await applySchema(store, dir)).toEqual(["0001-first.sql"]);

    await writeFile(step, "create table one (id bigint)");
    await expect(applySchema(store, dir)).rejects.toMatchObject({ code: "schema_checksum", data: { step: "0001-first.sql" } });

    await rm(step);
    await expect(applySchema(store, dir)).rejects.toMatchObject({ code: "schema_newer" });

    // A step that fails takes back the whole start: no half of it stays.
    await writeFile(step, "create table one (id int)");
    await writeFile(join(folder, "0002-second.sql"), "create table two (id int); select 1/0");
    await expect(applySchema(store, dir)).rejects.toThrow("division by zero");
    expect(await store.query("select to_regclass('cellplane.two') as two")).toEqual([{ two: null }]);
    await store.close();
    await other.drop();
  });
});
