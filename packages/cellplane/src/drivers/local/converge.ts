import { assert } from "../../base/assert.ts";
import { fail } from "../../base/errors.ts";
import type { DriverContext } from "../driver.ts";
import { failpoint } from "../failpoint.ts";
import { readTail, writeWhole } from "../files.ts";
import { whyNotReady } from "../keeper/ready.ts";
import type { Keeper, Service, ServiceStatus } from "../keeper/model.ts";
import type { PostgresBinaries } from "../postgres/binaries.ts";
import { forgetAlteredSettings, onDatabase, prepareCluster } from "../postgres/cluster.ts";
import { applySchemaSteps, ensureDatabase, type SchemaStep } from "../postgres/schema.ts";
import { serviceNames } from "./drift.ts";
import { appDatabase, databaseDirectory } from "./paths.ts";
import type { Made } from "./record.ts";
import { configFile, databaseName, readyTimeoutMs, serviceName } from "./resources.ts";

export interface ConvergeDeps {
  stateDirectory: string;
  keeper: Keeper;
  binaries: () => Promise<PostgresBinaries>;
  /** Password of the app's role. */
  password: (directory: string) => Promise<string>;
  /** @throws CellplaneError fenced, once someone with a higher epoch is at work */
  guard: () => Promise<void>;
}

/** Where `apply` may be killed by a test, in the order they are passed. */
export const applyPoints = ["claimed", "intended", "prepared", "serving", "migrated", "configured", "put", "ready", "recorded"].map((point) => `local.apply.${point}`);

/**
 * Makes the cell what the target says, from whatever state it is in: each part is left alone when it is so already.
 *
 * @throws CellplaneError cell_not_healthy when a service does not become ready, and what makes a database impossible
 */
export async function converge(target: Made, steps: SchemaStep[], foreign: "keep" | "remove", directory: string, deps: ConvergeDeps, context: DriverContext): Promise<void> {
  const { stateDirectory, keeper, guard } = deps;
  const { signal } = context;
  const { cell } = target.spec;
  const enter = async (point: string): Promise<void> => {
    failpoint(`local.apply.${point}`);
    signal.throwIfAborted();
    await guard();
  };

  if (target.resources.database) await convergeDatabase(target, steps, foreign, directory, deps, context, enter);

  await writeWhole(configFile(directory), target.resources.config, { durable: true });
  await enter("configured");
  const apps = target.resources.services.filter((service) => service.name !== databaseName(cell));
  const wanted = new Set(target.resources.services.map((service) => service.name));
  for (const name of await serviceNames(stateDirectory, cell)) if (!wanted.has(name)) await keeper.remove(name);
  await Promise.all(apps.map((service) => keeper.put(service)));
  await enter("put");
  const checks = await Promise.all(apps.map((service) => waitReady(keeper, service, readyTimeoutMs(target.spec, service.name.slice(serviceName(cell, "").length)), signal)));
  const unwell = checks.filter((check) => check !== null);
  if (unwell.length > 0) throw fail("cell_not_healthy", { cell, afterMs: Math.max(...unwell.map((check) => check.afterMs)), checks: unwell.map((check) => check.why) });
  await enter("ready");
}

async function convergeDatabase(
  target: Made, steps: SchemaStep[], foreign: "keep" | "remove", directory: string,
  { binaries, keeper, password }: ConvergeDeps, { signal, log }: DriverContext, enter: (point: string) => Promise<void>,
): Promise<void> {
  const { cell } = target.spec;
  const { database, services } = target.resources;
  const service = services.find(({ name }) => name === databaseName(cell));
  assert(database && service, "a cell with a database has a service for it");
  log("preparing PostgreSQL");
  const cluster = await prepareCluster(await binaries(), { directory: databaseDirectory(directory), port: database.port, settings: database.settings });
  if (foreign === "remove") await forgetAlteredSettings(cluster);
  await enter("prepared");
  await keeper.put(service);
  const unwell = await waitReady(keeper, service, 60_000, signal);
  if (unwell) throw fail("cell_not_healthy", { cell, afterMs: unwell.afterMs, checks: [unwell.why] });
  await enter("serving");
  await ensureDatabase(cluster.url, { ...appDatabase, password: await password(directory) }, signal);
  const added = await applySchemaSteps({ url: onDatabase(cluster.url, appDatabase.database), role: appDatabase.role }, steps, signal);
  for (const name of added) log(`applied schema step ${name}`);
  await enter("migrated");
}

/** Null when it is ready; else why not, with the last lines of its log. */
async function waitReady(keeper: Keeper, service: Service, timeoutMs: number, signal: AbortSignal): Promise<{ why: string; afterMs: number } | null> {
  const startMs = performance.now();
  const status = await keeper.waitReady(service.name, timeoutMs, signal);
  // One that was left running became ready once; a new configuration may have changed that.
  const problem = status.state === "ready" ? (service.ready ? await whyNotReady(service.ready) : "") : status.problem;
  if (problem === "") return null;
  return { why: `${labelOf(service)}: ${problem}${await lastWords(service, status)}`, afterMs: Math.round(performance.now() - startMs) };
}

const labelOf = ({ name }: Service): string => (name.startsWith("database-") ? "database" : `service/${name.slice(name.indexOf(".") + 1)}`);

async function lastWords(service: Service, { logFrom }: ServiceStatus): Promise<string> {
  const lines = (await readTail(service.logFile, { bytesMax: 2000, from: logFrom })).trim().split("\n").slice(-5);
  return lines.join("") === "" ? ` (log: ${service.logFile})` : `; it said: ${lines.join(" | ")} (log: ${service.logFile})`;
}
