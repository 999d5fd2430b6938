import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { CellplaneError, type ErrorCode, type ErrorData, fail } from "../../base/errors.ts";
import type { CellSpec, HealthCheck, Observed } from "../../cell/model.ts";
import { changesBetween } from "../../cell/plan.ts";
import type { CellChange, CellDriver, CellPlan, DriverContext } from "../driver.ts";
import { digestOf, type Drift, driftBetween, redact } from "../facts.ts";
import { failpoint } from "../failpoint.ts";
import { readText } from "../files.ts";
import { launchDigest } from "../keeper/launch.ts";
import type { Keeper } from "../keeper/model.ts";
import { whyNotReady } from "../keeper/ready.ts";
import type { PostgresBinaries } from "../postgres/binaries.ts";
import { clusterIn, keepPassword, onDatabase, superuserUrl, urlOf } from "../postgres/cluster.ts";
import { readSchemaSteps } from "../postgres/schema.ts";
import { withSession } from "../postgres/session.ts";
import { isRunning } from "../process.ts";
import { createTurns } from "../turns.ts";
import { converge } from "./converge.ts";
import { factsOf, foreignProcesses, observeFacts, readStatus, serviceNames } from "./drift.ts";
import { appDatabase, appPasswordFile, databaseDirectory } from "./paths.ts";
import { portBook } from "./ports.ts";
import { cellDirectory, type CellRecord, type Made, readRecord, writeRecord } from "./record.ts";
import { configFile, databaseName, resourcesFor } from "./resources.ts";

export interface LocalDriverOptions {
  stateDirectory: string;
  /** Who keeps the processes: `connectKeeper(stateDirectory)`. */
  keeper: Keeper;
  /** `() => findPostgres(directory)`; asked once, when the first cell with a database comes. */
  findPostgres: () => Promise<PostgresBinaries>;
  /** Told to every service, as in CELLPLANE_STAMP_SECRET. */
  environment?: Record<string, string>;
  /** Where `${env.X}` looks. Default: ours */
  env?: NodeJS.ProcessEnv;
}

export interface LocalDriver extends CellDriver {
  /** The cell's database for its operators; null when it has none, or was never ready. */
  databaseOf(cell: string): Promise<{ url: string; tenantColumn: string } | null>;
}

/** Where `apply` may be killed by a test while it brings the former cell back. */
export const revertPoints = ["reverting", "reverted", "answered"].map((point) => `local.apply.${point}`);
/** Shorter than what whoever asks for a cell's health waits for it, so that the check that hangs is the one that is named. */
const checkTimeoutMs = 1500;

/** Where `destroy` may be killed by a test. */
export const destroyPoints = ["intended", "stopped", "removed"].map((point) => `local.destroy.${point}`);

/** Cells as processes of this machine, each with a PostgreSQL of its own. SPEC.md says what it promises. */
export function createLocalDriver({ stateDirectory, keeper, findPostgres, environment = {}, env = process.env }: LocalDriverOptions): LocalDriver {
  const turns = createTurns();
  const ports = portBook(stateDirectory);
  const directoryOf = (cell: string): string => cellDirectory(stateDirectory, cell);
  let found: Promise<PostgresBinaries> | null = null;
  const binaries = (): Promise<PostgresBinaries> => {
    found ??= findPostgres();
    // What was missing may be there next time.
    found.catch(() => (found = null));
    return found;
  };

  /** What the spec comes to on this machine. `reserve`: picks what is still missing; else 0 and "" stand for it. */
  async function targetOf(spec: CellSpec, { reserve }: { reserve: boolean }): Promise<Made> {
    const directory = directoryOf(spec.cell);
    const owners = Object.entries(spec.services).flatMap(([service, { ports: named }]) => Object.entries(named).map(([name, port]) => ({ owner: `${spec.cell}/${service}/${name}`, port })));
    if (spec.database) owners.push({ owner: `${spec.cell}//postgres`, port: "auto" });
    const taken = await ports.all();
    const portOf = new Map<string, number>();
    for (const { owner, port } of owners) portOf.set(owner, port === "auto" ? (taken[owner] ?? (reserve ? await ports.reserve(owner) : 0)) : port);
    const database = spec.database && (await databaseFor(spec, portOf.get(`${spec.cell}//postgres`) ?? 0, reserve));
    const resources = resourcesFor(spec, { directory, database: database ?? null, port: (service, name) => portOf.get(`${spec.cell}/${service}/${name}`) ?? 0, environment, env });
    const steps = await readSchemaSteps(spec.database?.schema ?? [], spec.baseDirectory);
    return { spec, resources, schema: steps.map(({ name, checksum }) => ({ name, checksum })) };
  }

  async function databaseFor(spec: CellSpec, port: number, reserve: boolean): Promise<{ cluster: Awaited<ReturnType<typeof clusterIn>>; url: string }> {
    const directory = directoryOf(spec.cell);
    if (reserve) await mkdir(databaseDirectory(directory), { recursive: true, mode: 0o711 });
    const password = reserve ? await keepPassword(appPasswordFile(directory)) : ((await readText(appPasswordFile(directory))) ?? "").trim();
    const cluster = await clusterIn(await binaries(), { directory: databaseDirectory(directory), port, settings: { cluster_name: spec.cell, ...spec.database?.settings } });
    return { cluster, url: urlOf({ user: appDatabase.role, password, port, database: appDatabase.database }) };
  }

  /** Values nobody may read in a plan or a drift. */
  async function secretsOf(cell: string): Promise<string[]> {
    const directory = directoryOf(cell);
    const passwords = await Promise.all([appPasswordFile(directory), join(databaseDirectory(directory), "password")].map(readText));
    return [...passwords, ...Object.values(environment)].map((secret) => secret?.trim() ?? "").filter((secret) => secret.length >= 8);
  }

  /** What is there, and where it is neither what was made last, nor what is being made, nor `next`. */
  async function look(cell: string, record: CellRecord | null, next?: Made): Promise<{ hash: string | null; drift: Drift }> {
    if (!record || record.destroyed || (!record.made && !record.intent)) return { hash: null, drift: [] };
    const facts = await observeFacts(stateDirectory, directoryOf(cell), cell);
    const expected = [record.made, record.intent?.target ?? null, next ?? null].filter((made) => made !== null);
    const drift = driftBetween(facts, expected.map((made) => factsOf(made.resources)));
    // While something is being made the processes lag behind the files.
    const processes = record.made && !record.intent && !next ? await foreignProcesses(stateDirectory, record.made.resources) : [];
    return { hash: digestOf(facts), drift: [...drift, ...processes] };
  }

  async function observe(cell: string): Promise<Observed> {
    const record = await readRecord(stateDirectory, cell);
    const { hash, drift } = await look(cell, record);
    if (!record || hash === null) return { exists: false, observedHash: null, specHash: null, drift: [], version: null };
    const { made } = record;
    return { exists: true, observedHash: hash, specHash: made && digestOf(made.spec), drift: redact(drift, await secretsOf(cell)), version: made?.spec.version ?? null };
  }

  function changesTo(target: Made, record: CellRecord | null, undone: Drift): CellChange[] {
    const made = record?.made ?? null;
    const changes: CellChange[] = changesBetween(made?.spec ?? {}, target.spec).map(({ path, from, to }) => ({ path, from, to }));
    for (const { name, checksum } of target.schema) {
      const former = made?.schema.find((step) => step.name === name)?.checksum;
      if (former !== checksum) changes.push({ path: `database.schema.${name}`, from: former, to: checksum });
    }
    changes.push(...undone.map(({ path, expected, actual }) => ({ path, from: actual, to: expected })));
    // The same spec may come to something else: PostgreSQL was updated, a secret has changed.
    if (changes.length === 0 && made && restartsBetween(made, target)) changes.push({ path: "surroundings", from: digestOf(made.resources), to: digestOf(target.resources) });
    return changes;
  }

  async function plan(spec: CellSpec, signal: AbortSignal, { overwriteDrift = false } = {}): Promise<CellPlan> {
    signal.throwIfAborted();
    const record = await readRecord(stateDirectory, spec.cell);
    if (record?.destroyed === "kept") throw fail("cell_name_kept", { cell: spec.cell });
    const target = await targetOf(spec, { reserve: false });
    const { hash: baseObserved, drift } = await look(spec.cell, record, target);
    const changes = redact(changesTo(target, record, overwriteDrift ? drift : []), await secretsOf(spec.cell));
    const restarts = record?.made ? restartsBetween(record.made, target) || (overwriteDrift && drift.length > 0) : false;
    const content = { spec, changes, restarts, baseObserved, overwritesDrift: overwriteDrift };
    return { hash: digestOf(content), ...content };
  }

  /** Takes the cell for this epoch. @throws CellplaneError fenced */
  async function claim(cell: string, { epoch }: DriverContext): Promise<CellRecord> {
    const record = (await readRecord(stateDirectory, cell)) ?? { cell, epoch, made: null, intent: null, last: null, destroyed: null };
    if (epoch < record.epoch) throw fail("fenced", { cell, epoch, seen: record.epoch });
    const claimed = { ...record, epoch };
    await writeRecord(stateDirectory, claimed);
    return claimed;
  }

  async function guard(cell: string, { epoch }: DriverContext): Promise<void> {
    const seen = (await readRecord(stateDirectory, cell))?.epoch ?? epoch;
    if (seen > epoch) throw fail("fenced", { cell, epoch, seen });
  }

  /** What the key's effect answered when it was done before. */
  function answerAgain({ last }: CellRecord, { opKey }: DriverContext): boolean {
    if (last?.opKey !== opKey) return false;
    if (last.error) throw fail(last.error.code as ErrorCode, last.error.data as ErrorData<ErrorCode>);
    return true;
  }

  async function apply(wanted: CellPlan, context: DriverContext): Promise<Observed> {
    const { cell } = wanted.spec;
    const { opKey, signal, log } = context;
    signal.throwIfAborted();
    let record = await claim(cell, context);
    if (answerAgain(record, context)) return observe(cell);
    failpoint("local.apply.claimed");
    if (record.intent?.opKey !== opKey) {
      if (record.destroyed === "kept") throw fail("cell_name_kept", { cell });
      const target = await targetOf(wanted.spec, { reserve: true });
      const { hash, drift } = await look(cell, record, target);
      if (hash !== wanted.baseObserved) throw fail("plan_stale", { what: `cell ${cell}` });
      if (drift.length > 0 && !wanted.overwritesDrift) throw fail("cell_drifted", { cell, paths: drift.map(({ path }) => path) });
      record = { ...record, intent: { opKey, target, reverting: null }, destroyed: null };
      await writeRecord(stateDirectory, record);
      failpoint("local.apply.intended");
    }
    const intent = record.intent;
    if (!intent) return observe(cell);

    // Schema steps only go forward; a former app lives with them, since they only ever add.
    const make = async (target: Made, { migrate }: { migrate: boolean }): Promise<void> => {
      const steps = migrate ? await readSchemaSteps(target.spec.database?.schema ?? [], target.spec.baseDirectory) : [];
      const deps = { stateDirectory, keeper, binaries, password: (directory: string) => keepPassword(appPasswordFile(directory)), guard: () => guard(cell, context) };
      await converge(target, steps, wanted.overwritesDrift ? "remove" : "keep", directoryOf(cell), deps, context);
    };
    let why = intent.reverting;
    if (why === null) {
      try {
        await make(intent.target, { migrate: true });
      } catch (error) {
        if (!record.made || !isRefusal(error)) throw error;
        why = whyOf(error);
        log(`it did not become ready: ${why}; bringing back what was there`);
        record = { ...record, intent: { ...intent, reverting: why } };
        await writeRecord(stateDirectory, record);
        failpoint("local.apply.reverting");
      }
    }
    if (why === null) {
      await finish({ ...record, made: intent.target }, context, null);
      failpoint("local.apply.recorded");
      return observe(cell);
    }
    return revert(record, why, (target) => make(target, { migrate: false }), context);
  }

  async function revert(record: CellRecord, why: string, make: (target: Made) => Promise<void>, context: DriverContext): Promise<never> {
    const { cell, made } = record;
    if (!made) throw fail("driver_failed", { cell, why });
    try {
      await make(made);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      throw fail("revert_failed", { cell, why, reverting: whyOf(error) }, { cause: error });
    }
    failpoint("local.apply.reverted");
    const reverted = fail("update_reverted", { cell, why });
    await finish(record, context, { code: reverted.code, data: { ...reverted.data } });
    failpoint("local.apply.answered");
    throw reverted;
  }

  const finish = (record: CellRecord, { opKey }: DriverContext, error: NonNullable<CellRecord["last"]>["error"]): Promise<void> =>
    writeRecord(stateDirectory, { ...record, intent: null, last: { opKey, error } });

  async function destroy(cell: string, context: DriverContext, { purge }: { purge: boolean }): Promise<void> {
    context.signal.throwIfAborted();
    if (!(await readRecord(stateDirectory, cell))) return;
    const record = await claim(cell, context);
    failpoint("local.destroy.intended");
    const names = await serviceNames(stateDirectory, cell);
    context.log("stopping services");
    // The database last: its clients write down what they have.
    await Promise.all(names.filter((name) => name !== databaseName(cell)).map((name) => keeper.remove(name)));
    await keeper.remove(databaseName(cell));
    failpoint("local.destroy.stopped");
    await guard(cell, context);
    const directory = directoryOf(cell);
    if (purge) for (const path of [databaseDirectory(directory), join(directory, "logs"), configFile(directory)]) await rm(path, { recursive: true, force: true });
    failpoint("local.destroy.removed");
    await ports.release(`${cell}/`);
    await writeRecord(stateDirectory, { ...record, made: null, intent: null, last: null, destroyed: purge || record.destroyed === "purged" ? "purged" : "kept" });
  }

  async function health(cell: string, signal: AbortSignal): Promise<HealthCheck[]> {
    const record = await readRecord(stateDirectory, cell);
    const made = record?.made ?? record?.intent?.target;
    if (!made) return [{ name: "cell", ok: false, detail: record?.destroyed ? "it is destroyed" : "it was never made" }];
    const checks = made.resources.services.map(async (service): Promise<HealthCheck> => {
      const isDatabase = service.name === databaseName(cell);
      const status = await readStatus(stateDirectory, service.name);
      const alive = status?.process ? await isRunning(status.process) : false;
      const detail = !alive ? status?.problem || "it does not run" : isDatabase ? await whyNoAnswer(cell, signal) : service.ready ? await whyNotReady(service.ready, checkTimeoutMs) : "";
      return { name: isDatabase ? "database" : `service/${service.name.slice(service.name.indexOf(".") + 1)}`, ok: detail === "", detail };
    });
    const found = await Promise.all(checks);
    signal.throwIfAborted();
    return found;
  }

  async function whyNoAnswer(cell: string, signal: AbortSignal): Promise<string> {
    const url = await operatorUrl(cell);
    if (url === null) return "it was never made";
    return withSession(url, AbortSignal.any([signal, AbortSignal.timeout(checkTimeoutMs)]), (session) => session.query("select 1")).then(() => "", (error: Error) =>
      error.name === "TimeoutError" ? `it says nothing within ${checkTimeoutMs} ms` : `it does not answer: ${error.message}`,
    );
  }

  /** Of the superuser, on the app's database. */
  async function operatorUrl(cell: string): Promise<string | null> {
    const record = await readRecord(stateDirectory, cell);
    const port = (record?.made ?? record?.intent?.target)?.resources.database?.port;
    return port === undefined ? null : onDatabase(await superuserUrl({ directory: databaseDirectory(directoryOf(cell)), port }), appDatabase.database);
  }

  return {
    name: "local",
    plan,
    apply: (wanted, context) => turns(wanted.spec.cell, () => apply(wanted, context)),
    observe: async (cell, signal) => {
      signal.throwIfAborted();
      return observe(cell);
    },
    health,
    async endpoints(cell) {
      const http = (await readRecord(stateDirectory, cell))?.made?.resources.http;
      return http ? { http, databaseUrl: await operatorUrl(cell) } : null;
    },
    destroy: (cell, context, options) => turns(cell, () => destroy(cell, context, options)),
    async databaseOf(cell) {
      const made = (await readRecord(stateDirectory, cell))?.made;
      const url = made?.spec.database ? await operatorUrl(cell) : null;
      return url === null || !made?.spec.database ? null : { url, tenantColumn: made.spec.database.tenantColumn };
    },
  };
}

/** The change itself is at fault, not the moment: trying it again would not help. */
const refusals: ErrorCode[] = ["cell_not_healthy", "schema_step_failed", "schema_checksum", "postgres_failed", "port_in_use", "invalid_input"];
const isRefusal = (error: unknown): error is CellplaneError => error instanceof CellplaneError && refusals.includes(error.code);
const whyOf = (error: CellplaneError): string => (error.code === "cell_not_healthy" ? (error as CellplaneError<"cell_not_healthy">).data.checks.join("; ") : error.message);

/** Services that run in the former and would be launched otherwise, or not at all, in the next. */
function restartsBetween(former: Made, next: Made): boolean {
  return former.resources.services.some((service) => {
    const other = next.resources.services.find(({ name }) => name === service.name);
    return !other || launchDigest(other) !== launchDigest(service);
  });
}
