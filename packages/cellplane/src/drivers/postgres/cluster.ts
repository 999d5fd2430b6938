import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, link, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { CellplaneError, fail } from "../../base/errors.ts";
import { readText, syncDirectory, writeWhole } from "../files.ts";
import { type Account, asAccount } from "./account.ts";
import type { PostgresBinaries } from "./binaries.ts";
import { type Settings, settingsFor, settingsText } from "./settings.ts";

const execute = promisify(execFile);

export interface ClusterOptions {
  /** Holds everything of the cluster: `data/`, `password`, `postgres.log`. Made when absent. */
  directory: string;
  /** Loopback TCP port. */
  port: number;
  /** Over the ones of `settingsFor`. */
  settings?: Settings;
  /** Skips fsync of the fresh files: for data that may be lost. */
  throwaway?: boolean;
}

/** A data directory, there already or to be made, and how it is served. */
export interface Cluster {
  directory: string;
  dataDirectory: string;
  logFile: string;
  port: number;
  /** What `postgresql.conf` says. */
  settings: Settings;
  /** Starts the server in the foreground. */
  command: string[];
  /** Who runs it; null for the caller. */
  account: Account | null;
}

/** Name of the superuser. */
const superuser = "cellplane";

export const dataDirectoryOf = (directory: string): string => join(directory, "data");

/** Reads only. Whoever owns the files must run the server, also when another account would be chosen today. */
export async function clusterIn(binaries: PostgresBinaries, { directory, port, settings }: ClusterOptions): Promise<Cluster> {
  const dataDirectory = dataDirectoryOf(directory);
  const { account } = binaries;
  const owner = await stat(dataDirectory).catch(() => null);
  return {
    directory, dataDirectory, port,
    settings: settingsFor(binaries.majorVersion, port, settings),
    logFile: join(directory, "postgres.log"),
    command: [binaries.postgres, "-D", dataDirectory],
    account: account && owner && owner.uid !== account.uid ? { name: String(owner.uid), uid: owner.uid, gid: owner.gid } : account,
  };
}

/**
 * Makes the cluster if it is absent and writes its settings; a server that runs takes them when it is restarted.
 * Complete or not at all: killed in between, the next call starts over.
 *
 * @returns also the superuser's URL on the database `postgres`
 * @throws CellplaneError postgres_failed, disk_full, unreachable_directory
 */
export async function prepareCluster(binaries: PostgresBinaries, options: ClusterOptions): Promise<Cluster & { url: string }> {
  const cluster = await clusterIn(binaries, options);
  try {
    // Open to the account, which has to pass; what is secret inside is closed.
    await mkdir(cluster.directory, { recursive: true, mode: 0o711 });
    const password = await keepPassword(join(cluster.directory, "password"));
    await assertReachable(cluster);
    if (!(await exists(cluster.dataDirectory))) await initialise(binaries.initdb, binaries.majorVersion, cluster, password, options.throwaway ?? false);
    await writeConfiguration(cluster, cluster.dataDirectory);
    return { ...cluster, url: await superuserUrl(cluster) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw fail("disk_full", { path: cluster.directory }, { cause: error });
    throw error;
  }
}

/** Of the superuser, on the database `postgres`. */
export async function superuserUrl({ directory, port }: Pick<Cluster, "directory" | "port">): Promise<string> {
  return urlOf({ user: superuser, password: await keepPassword(join(directory, "password")), port, database: "postgres" });
}

export const urlOf = (to: { user: string; password: string; port: number; database: string }): string =>
  `postgres://${to.user}:${to.password}@127.0.0.1:${to.port}/${to.database}`;

/** The URL with another database. */
export const onDatabase = (url: string, database: string): string => Object.assign(new URL(url), { pathname: `/${database}` }).href;

/** Read from the file, or made and kept there, readable by us alone. Letters, digits, - and _ only. */
export async function keepPassword(file: string): Promise<string> {
  const found = await readText(file);
  if (found !== null) return found.trim();
  const draft = `${file}.${randomBytes(4).toString("hex")}.draft`;
  await writeFile(draft, `${randomBytes(24).toString("base64url")}\n`, { mode: 0o600, flush: true });
  // Whoever links first has decided, also for those who come at the same moment.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await rm(draft);
  return keepPassword(file);
}

const exists = (path: string): Promise<boolean> => stat(path).then(() => true, () => false);

async function assertReachable({ directory, account }: Cluster): Promise<void> {
  if (!account) return;
  await execute("test", ["-x", directory], { cwd: "/", ...asAccount(account) }).catch((cause: unknown) => {
    throw fail("unreachable_directory", { path: directory, account: account.name }, { cause });
  });
}

async function initialise(initdb: string, majorVersion: number, cluster: Cluster, password: string, throwaway: boolean): Promise<void> {
  const { directory, dataDirectory, account } = cluster;
  // A name of its own: an initdb whose caller was killed may still be at work in an older draft.
  const draft = join(directory, `draft-${randomBytes(4).toString("hex")}`);
  await mkdir(draft, { mode: 0o700 });
  // initdb writes as the account, which may write nowhere else.
  if (account) await chown(draft, account.uid, account.gid);
  const passwordFile = join(draft, "password");
  await writeWhole(passwordFile, password, { account });
  // The same order and case everywhere, so that a tenant's rows sort alike in every cell they ever move to.
  const locale = majorVersion >= 17 ? ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"] : ["--locale=C"];
  const args = ["-D", join(draft, "data"), "-U", superuser, "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", ...locale, "--no-instructions"];
  try {
    await execute(initdb, [...args, ...(throwaway ? ["--no-sync"] : [])], { cwd: draft, env: { PATH: process.env["PATH"], LC_ALL: "C" }, ...asAccount(account) });
    // Never seen with initdb's own configuration, which would look like someone's change.
    await writeConfiguration(cluster, join(draft, "data"));
    await rename(join(draft, "data"), dataDirectory);
    await syncDirectory(directory);
  } catch (error) {
    // Another caller was faster: theirs has the same password.
    if (await exists(dataDirectory)) return;
    const { stderr = "", message } = error as { stderr?: string; message: string };
    await writeFile(cluster.logFile, stderr, { flag: "a" }).catch(() => undefined);
    throw explainFailure(stderr || message, cluster);
  } finally {
    for (const name of await readdir(directory)) if (name.startsWith("draft-")) await rm(join(directory, name), { recursive: true, force: true });
  }
}

async function writeConfiguration({ settings, account }: Cluster, dataDirectory: string): Promise<void> {
  await writeWhole(join(dataDirectory, "postgresql.conf"), settingsText(settings), { account, durable: true });
  await writeWhole(join(dataDirectory, "pg_hba.conf"), accessText, { account, durable: true });
}

/** Undoes what ALTER SYSTEM has set. */
export const forgetAlteredSettings = ({ account, dataDirectory }: Cluster): Promise<void> =>
  writeWhole(join(dataDirectory, "postgresql.auto.conf"), "# Emptied by Cellplane.\n", { account, durable: true });

/** The cause a user can do something about, told from what initdb or the server printed. */
export function explainFailure(output: string, cluster: Pick<Cluster, "directory" | "port" | "logFile">): CellplaneError {
  if (/No space left on device/i.test(output)) return fail("disk_full", { path: cluster.directory });
  if (/Address already in use/i.test(output)) return fail("port_in_use", { port: cluster.port, purpose: `PostgreSQL of ${dirname(cluster.directory)}`, flag: "--postgres-port" });
  const lines = output.trim().split("\n");
  const line = lines.findLast((text) => /FATAL|PANIC|error:/.test(text)) ?? lines.at(-1) ?? "";
  return fail("postgres_failed", { why: line.replace(/^.*?(FATAL|PANIC|error): */, "") || "it ended without a word", log: cluster.logFile });
}

/** A password for everyone, everywhere. */
export const accessText = `# Written by Cellplane. A change made here is kept and shown as drift.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
local replication all scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
`;
