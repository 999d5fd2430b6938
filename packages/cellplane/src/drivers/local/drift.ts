import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { addFacts, type Drift, type Facts } from "../facts.ts";
import { readText } from "../files.ts";
import { launchDigest } from "../keeper/launch.ts";
import { Service, ServiceStatus } from "../keeper/model.ts";
import { dataDirectoryOf } from "../postgres/cluster.ts";
import { parseSettings, settingText } from "../postgres/settings.ts";
import { isRunning } from "../process.ts";
import { type CellResources, configFile, databaseName, servicePrefix } from "./resources.ts";

/** What resources look like when nobody has touched them. */
export function factsOf(resources: CellResources): Facts {
  const facts: Facts = {};
  addFacts(facts, "config", parsed(resources.config));
  if (resources.database) {
    for (const [name, value] of Object.entries(resources.database.settings)) facts[`database.settings.${name}`] = settingText(value);
    facts["database.access"] = resources.database.access;
  }
  for (const service of resources.services) addFacts(facts, pathOf(service.name), service);
  return facts;
}

/** What is there now. Reads files only, so it needs neither the keeper nor the servers. */
export async function observeFacts(stateDirectory: string, directory: string, cell: string): Promise<Facts> {
  const facts: Facts = {};
  const config = await readText(configFile(directory));
  if (config !== null) addFacts(facts, "config", parsed(config));
  const data = dataDirectoryOf(join(directory, "postgres"));
  const [settings, altered, access] = await Promise.all(["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"].map((name) => readText(join(data, name))));
  // ALTER SYSTEM writes the second file, and it wins.
  for (const [name, value] of Object.entries({ ...parseSettings(settings ?? ""), ...parseSettings(altered ?? "") })) facts[`database.settings.${name}`] = value;
  if (access !== null && access !== undefined) facts["database.access"] = access;
  for (const name of await serviceNames(stateDirectory, cell)) {
    const text = await readText(join(stateDirectory, "services", `${name}.json`));
    if (text === null) continue;
    const service = Service.safeParse(parsed(text));
    addFacts(facts, pathOf(name), service.success ? service.data : text);
  }
  return facts;
}

/** Names of the cell's services of which there are files, whoever wrote them. */
export async function serviceNames(stateDirectory: string, cell: string): Promise<string[]> {
  const names = (await readdir(join(stateDirectory, "services")).catch(() => [])).filter((file) => file.endsWith(".json") && !file.endsWith(".status.json"));
  return names.map((file) => file.slice(0, -5)).filter((name) => name === databaseName(cell) || name.startsWith(servicePrefix(cell)));
}

/** Services that run, but were started with something else than the resources say. */
export async function foreignProcesses(stateDirectory: string, resources: CellResources): Promise<Drift> {
  const drift: Drift = [];
  for (const service of resources.services) {
    const status = await readStatus(stateDirectory, service.name);
    const expected = launchDigest(service);
    if (!status?.process || status.launched === null || status.launched === expected || !(await isRunning(status.process))) continue;
    drift.push({ path: `${pathOf(service.name)}.process`, expected: `launched as ${expected}`, actual: `launched as ${status.launched}` });
  }
  return drift;
}

/** What the keeper said last; null when it never said anything. */
export async function readStatus(stateDirectory: string, service: string): Promise<ServiceStatus | null> {
  return ServiceStatus.safeParse(parsed((await readText(join(stateDirectory, "services", `${service}.status.json`))) ?? "")).data ?? null;
}

/** As in `services.app`; a database's service is `database.service`. */
const pathOf = (name: string): string => (name.startsWith("database-") ? "database.service" : `services.${name.slice(name.indexOf(".") + 1)}`);

/** The text itself when it is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
