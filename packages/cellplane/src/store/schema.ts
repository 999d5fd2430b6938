import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { fail } from "../base/errors.ts";
import type { Store } from "./store.ts";

/** One forward-only step of the control plane's own schema: a file `NNNN-name.sql`, run once, in one transaction, never changed after. */
interface SchemaStep {
  name: string;
  sql: string;
  checksum: string;
}

const schemaDir = new URL("./schema/", import.meta.url);
/** Any constant will do; it only has to be the same in every instance that starts at once. */
const schemaLockKey = 0x63656c6c;

async function readSteps(dir: URL = schemaDir): Promise<SchemaStep[]> {
  const names = (await readdir(dir)).filter((name) => /^\d{4}-[a-z-]+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, dir), "utf8");
      return { name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}

/**
 * Brings the database to this build's schema. Any number of instances may call it at once on an empty database: one
 * works, the others wait for its lock and find nothing left to do.
 *
 * @returns the names of the steps applied now
 * @throws CellplaneError schema_checksum when an applied step's file has changed, schema_newer when the database is ahead of this build
 */
export async function applySchema(store: Store, dir?: URL): Promise<string[]> {
  const steps = await readSteps(dir);
  return store.transaction(async (tx) => {
    await tx.query("select pg_advisory_xact_lock($1)", [schemaLockKey]);
    await tx.query("create schema if not exists cellplane");
    await tx.query("create table if not exists cellplane.schema_step (name text primary key, checksum text not null, applied_at timestamptz not null default now())");
    const applied = new Map((await tx.query<{ name: string; checksum: string }>("select name, checksum from cellplane.schema_step")).map((row) => [row.name, row.checksum]));
    for (const name of applied.keys()) if (!steps.some((step) => step.name === name)) throw fail("schema_newer", { step: name });
    const added: string[] = [];
    for (const step of steps) {
      const checksum = applied.get(step.name);
      if (checksum !== undefined && checksum !== step.checksum) throw fail("schema_checksum", { step: step.name });
      if (checksum !== undefined) continue;
      await tx.query(step.sql);
      await tx.query("insert into cellplane.schema_step (name, checksum) values ($1, $2)", [step.name, step.checksum]);
      added.push(step.name);
    }
    return added;
  });
}
