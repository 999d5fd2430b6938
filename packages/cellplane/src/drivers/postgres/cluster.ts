import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, chown, link, mkdir, open, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { CellplaneError, fail } from "../../base/errors.ts";
import { type Account, asAccount } from "./account.ts";
import type { PostgresBinaries } from "./binaries.ts";

const execute = promisify(execFile);

export type Settings = Record<string, string | number | boolean>;

export interface ClusterOptions {
  /** Holds everything of the cluster: `data/`, `password`, `postgres.log`. Made when absent. */
  directory: string;
  /** Loopback TCP port. */
  port: number;
  /** Over the ones of `fleetSettings`. */
  settings?: Settings;
  /** Skips fsync of the fresh files: for data that may be lost. */
  throwaway?: boolean;
}

/** A data directory that is ready to be served. */
export interface Cluster {
  directory: string;
  dataDirectory: string;
  logFile: string;
  port: number;
  /** Starts the server in the foreground. */
  command: string[];
  account: Account | null;
  /** Of the superuser, on the database `postgres`. */
  url: string;
}

/** Name of the superuser. */
const superuser = "cellplane";

/** Small enough that a machine holds dozens, and ready for logical replication, which moves tenants. */
const fleetSettings = (majorVersion: number): Settings => ({
  listen_addresses: "127.0.0.1",
  // Sockets would need short paths that both users can reach; one way in is enough.
  unix_socket_directories: "",
  max_connections: 60,
  shared_buffers: "16MB",
  work_mem: "4MB",
  maintenance_work_mem: "32MB",
  wal_level: "logical",
  max_wal_size: "256MB",
  min_wal_size: "32MB",
  max_wal_senders: 20,
  max_replication_slots: 20,
  // A forgotten slot must not fill the disk: it is lost instead, and what reads it starts anew.
  max_slot_wal_keep_size: "1GB",
  max_worker_processes: 4,
  max_parallel_workers: 2,
  jit: "off",
  password_encryption: "scram-sha-256",
  timezone: "UTC",
  log_timezone: "UTC",
  log_line_prefix: "%m [%p] %q%u@%d ",
  // Background processes for reading ahead cost memory in every cell and bring nothing to small ones.
  ...(majorVersion >= 18 ? { io_method: "sync" } : {}),
});

/** All settings a cluster is served with. */
export const settingsOf = (options: ClusterOptions, majorVersion: number): Settings => ({ ...fleetSettings(majorVersion), port: options.port, ...options.settings });

export const dataDirectoryOf = (directory: string): string => join(directory, "data");
const logFileOf = (directory: string): string => join(directory, "postgres.log");

/**
 * Makes the cluster if it is absent and writes its settings; a running server takes most of them when it is restarted.
 * Complete or not at all: killed in between, the next call starts over.
 *
 * @throws CellplaneError postgres_failed, disk_full, unreachable_directory
 */
export async function prepareCluster(binaries: PostgresBinaries, options: ClusterOptions): Promise<Cluster> {
  const { directory, port } = options;
  const dataDirectory = dataDirectoryOf(directory);
  try {
    // Open to the account, which has to pass; what is secret inside is closed.
    await mkdir(directory, { recursive: true, mode: 0o711 });
    const password = await keepPassword(join(directory, "password"));
    const owner = await ownerOf(dataDirectory, binaries.account);
    const account = owner === undefined ? binaries.account : owner;
    await assertReachable(directory, account);
    if (owner === undefined) await initialise(binaries, options, password);
    await writeOwned(join(dataDirectory, "postgresql.conf"), settingsText(settingsOf(options, binaries.majorVersion)), account);
    await writeOwned(join(dataDirectory, "pg_hba.conf"), accessText, account);
    return {
      directory, dataDirectory, port, account,
      logFile: logFileOf(directory),
      command: [binaries.postgres, "-D", dataDirectory],
      url: urlOf({ user: superuser, password, port, database: "postgres" }),
    };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw fail("disk_full", { path: directory }, { cause: error });
    throw error;
  }
}

export const urlOf = (to: { user: string; password: string; port: number; database: string }): string =>
  `postgres://${to.user}:${to.password}@127.0.0.1:${to.port}/${to.database}`;

/** The URL's database replaced. */
export const onDatabase = (url: string, database: string): string => Object.assign(new URL(url), { pathname: `/${database}` }).href;

/** Read from the file, or made and kept there, readable by us alone. Letters, digits, - and _ only. */
export async function keepPassword(file: string): Promise<string> {
  const found = await readFile(file, "utf8").catch(() => "");
  if (found !== "") return found.trim();
  const password = randomBytes(24).toString("base64url");
  const draft = `${file}.${randomBytes(4).toString("hex")}.draft`;
  await writeFile(draft, `${password}\n`, { mode: 0o600, flush: true });
  // Whoever links first has decided, also for those who come at the same moment.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await rm(draft);
  return keepPassword(file);
}

/** Whoever owns the files must run the server; undefined when there are none yet. */
async function ownerOf(dataDirectory: string, account: Account | null): Promise<Account | null | undefined> {
  const found = await stat(dataDirectory).catch(() => null);
  if (!found) return undefined;
  if (account === null || found.uid === account.uid) return account;
  return { name: String(found.uid), uid: found.uid, gid: found.gid };
}

async function assertReachable(directory: string, account: Account | null): Promise<void> {
  if (!account) return;
  await execute("test", ["-x", directory], { cwd: "/", ...asAccount(account) }).catch((cause: unknown) => {
    throw fail("unreachable_directory", { path: directory, account: account.name }, { cause });
  });
}

async function initialise(binaries: PostgresBinaries, options: ClusterOptions, password: string): Promise<void> {
  const { account } = binaries;
  const dataDirectory = dataDirectoryOf(options.directory);
  // A name of its own: an initdb whose caller was killed may still be at work in an older draft.
  const draft = join(options.directory, `draft-${randomBytes(4).toString("hex")}`);
  await mkdir(draft, { mode: 0o700 });
  // initdb writes as the account, which may write nowhere else.
  if (account) await chown(draft, account.uid, account.gid);
  const passwordFile = join(draft, "password");
  await writeOwned(passwordFile, password, account);
  // The same order and case everywhere, so that a tenant's rows sort alike in every cell they ever move to.
  const locale = binaries.majorVersion >= 17 ? ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"] : ["--locale=C"];
  const args = ["-D", join(draft, "data"), "-U", superuser, "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", ...locale, "--no-instructions"];
  try {
    await execute(binaries.initdb, [...args, ...(options.throwaway ? ["--no-sync"] : [])], { cwd: draft, env: { PATH: process.env["PATH"], LC_ALL: "C" }, ...asAccount(account) });
    await rename(join(draft, "data"), dataDirectory);
    await syncDirectory(options.directory);
  } catch (error) {
    // Another caller was faster: theirs has the same password.
    if ((await ownerOf(dataDirectory, account)) !== undefined) return;
    const { stderr = "", message } = error as { stderr?: string; message: string };
    const log = logFileOf(options.directory);
    await writeFile(log, stderr, { flag: "a" }).catch(() => undefined);
    throw explainFailure(stderr || message, { directory: options.directory, port: options.port, log });
  } finally {
    for (const name of await readdir(options.directory)) if (name.startsWith("draft-")) await rm(join(options.directory, name), { recursive: true, force: true });
  }
}

/** A rename is on disk only when its folder is. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path);
  await handle.sync().finally(() => handle.close());
}

/** The cause a user can do something about, told from what initdb or the server printed. */
export function explainFailure(output: string, at: { directory: string; port: number; log: string }): CellplaneError {
  if (/No space left on device/i.test(output)) return fail("disk_full", { path: at.directory });
  if (/Address already in use/i.test(output)) return fail("port_in_use", { port: at.port, purpose: `PostgreSQL of ${dirname(at.directory)}`, flag: "--postgres-port" });
  const lines = output.trim().split("\n").filter((line) => /FATAL|error:|PANIC|could not/.test(line));
  const why = (lines.at(-1) ?? output.trim().split("\n").at(-1) ?? "").replace(/^.*?(FATAL|PANIC|error): */, "");
  return fail("postgres_failed", { why: why || "it ended without a word", log: at.log });
}

/** Written by the account's leave: complete or not at all, and readable by it alone. */
async function writeOwned(file: string, text: string, account: Account | null): Promise<void> {
  const draft = `${file}.draft`;
  await writeFile(draft, text, { mode: 0o600, flush: true });
  await chmod(draft, 0o600);
  if (account) await chown(draft, account.uid, account.gid);
  await rename(draft, file);
}

const header = "# Written by Cellplane from the cell's blueprint. A change made here is kept and shown as drift.\n";

export const settingsText = (settings: Settings): string =>
  header + Object.entries(settings).map(([name, value]) => `${name} = '${settingText(value).replaceAll("'", "''")}'\n`).join("");

export const settingText = (value: string | number | boolean): string => (typeof value === "boolean" ? (value ? "on" : "off") : String(value));

/** A password for everyone, everywhere. */
const accessText = `${header}local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
local replication all scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
`;
