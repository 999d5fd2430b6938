import { createHash } from "node:crypto";
import { readFile, readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import pg from "pg";
import { fail } from "../../base/errors.ts";
import { withSession } from "./session.ts";

/** An SQL file that brings a cell's database one step further; run once, in a transaction, never changed after. */
export interface SchemaStep {
  name: string;
  sql: string;
  checksum: string;
}

/** How long a step may wait for a lock that the app holds: waiting, it makes everyone else wait behind it. */
const lockTimeoutMs = 3000;
const lockTriesMax = 5;

/**
 * The steps in the files and folders given, in the order of their names.
 *
 * @throws CellplaneError invalid_input when one is absent or two have one name
 */
export async function readSchemaSteps(paths: string[], baseDirectory: string): Promise<SchemaStep[]> {
  const files: string[] = [];
  for (const [i, path] of paths.entries()) {
    const at = resolve(baseDirectory, path);
    const found = await stat(at).catch(() => null);
    if (!found) throw fail("invalid_input", { issues: [{ path: `database.schema.${i}`, message: `there is no ${at}` }] });
    files.push(...(found.isDirectory() ? (await readdir(at)).filter((name) => name.endsWith(".sql")).map((name) => join(at, name)) : [at]));
  }
  files.sort((a, b) => (basename(a) < basename(b) ? -1 : 1));
  const double = files.find((file, i) => i > 0 && basename(file) === basename(files[i - 1] ?? ""));
  if (double) throw fail("invalid_input", { issues: [{ path: "database.schema", message: `two files have the name ${basename(double)}` }] });
  return Promise.all(
    files.map(async (file) => {
      const sql = await readFile(file, "utf8");
      return { name: basename(file), sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}

export interface AppDatabase {
  /** Superuser's URL on this database. */
  url: string;
  /** Owns the database and what the steps make. */
  role: string;
}

/** Makes role and database if they are absent. Idempotent. */
export async function ensureDatabase(superuserUrl: string, app: { role: string; password: string; database: string }, signal: AbortSignal): Promise<void> {
  await withSession(superuserUrl, signal, async (session) => {
    const [role, database] = [pg.escapeIdentifier(app.role), pg.escapeIdentifier(app.database)];
    const { rows } = await session.query("select (select count(*)::int from pg_roles where rolname = $1) as roles, (select count(*)::int from pg_database where datname = $2) as databases", [app.role, app.database]);
    if (rows[0].roles === 0) await session.query(`create role ${role} login`);
    await session.query(`alter role ${role} password ${pg.escapeLiteral(app.password)}`);
    if (rows[0].databases === 0) await session.query(`create database ${database} owner ${role}`);
  });
}

/**
 * Applies the steps the database has not had yet, each in a transaction of its own as the app's role. Safe to call twice
 * at once and to be killed in.
 *
 * @returns the names of those applied now
 * @throws CellplaneError schema_checksum, schema_step_failed
 */
export async function applySchemaSteps({ url, role }: AppDatabase, steps: SchemaStep[], signal: AbortSignal): Promise<string[]> {
  return withSession(url, signal, async (session) => {
    await session.query("create schema if not exists cellplane");
    await session.query("create table if not exists cellplane.schema_step (name text primary key, checksum text not null, applied_at timestamptz not null default now())");
    const added: string[] = [];
    for (const step of steps) if (await applyOnce(session, role, step, signal)) added.push(step.name);
    return added;
  });
}

async function applyOnce(session: pg.Client, role: string, step: SchemaStep, signal: AbortSignal): Promise<boolean> {
  for (let attempt = 1; ; attempt++) {
    try {
      await session.query("begin");
      await session.query("select pg_advisory_xact_lock(hashtext('cellplane.schema_step'))");
      const { rows } = await session.query<{ checksum: string }>("select checksum from cellplane.schema_step where name = $1", [step.name]);
      if (rows[0] && rows[0].checksum !== step.checksum) throw fail("schema_checksum", { step: step.name });
      if (rows[0]) return false;
      await session.query(`set local lock_timeout = ${lockTimeoutMs}`);
      await session.query(`set local role ${pg.escapeIdentifier(role)}`);
      await runStep(session, step);
      await session.query("reset role");
      await session.query("insert into cellplane.schema_step (name, checksum) values ($1, $2)", [step.name, step.checksum]);
      await session.query("commit");
      return true;
    } catch (error) {
      signal.throwIfAborted();
      const locked = (error as { cause?: { code?: string } }).cause?.code === "55P03";
      if (!locked || attempt >= lockTriesMax) throw error;
    } finally {
      await session.query("rollback").catch(() => undefined);
    }
  }
}

async function runStep(session: pg.Client, step: SchemaStep): Promise<void> {
  try {
    await session.query(step.sql);
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    // PostgreSQL counts characters from 1.
    const line = error.position === undefined ? null : step.sql.slice(0, Number(error.position) - 1).split("\n").length;
    throw fail("schema_step_failed", { file: step.name, line, why: error.message }, { cause: error });
  }
}
