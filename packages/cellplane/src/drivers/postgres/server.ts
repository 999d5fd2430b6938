import { spawn } from "node:child_process";
import { open, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../../base/assert.ts";
import { CellplaneError } from "../../base/errors.ts";
import { argumentsOf, isRunning, type ProcessId, processOf, signalProcess, waitForEnd } from "../process.ts";
import { readTail, readText } from "../files.ts";
import { asAccount } from "./account.ts";
import type { PostgresBinaries } from "./binaries.ts";
import { type Cluster, type ClusterOptions, dataDirectoryOf, explainFailure, prepareCluster } from "./cluster.ts";

export interface ServerOptions extends ClusterOptions {
  /** Recovery after a crash is part of it. Default: 60,000 */
  readyTimeoutMs?: number;
}

export interface PostgresServer {
  /** Of the superuser, on the database `postgres`. */
  url: string;
  process: ProcessId;
  /** True when a former process of ours had left it running. */
  adopted: boolean;
  /** Disconnects everybody, writes everything down and ends. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Serves the cluster, which is made when absent; a server that already runs on it is adopted. The server outlives the
 * caller, also a killed one.
 *
 * @param options.port 0 for any free one; an adopted server keeps its own
 * @throws CellplaneError postgres_failed, port_in_use, disk_full, unreachable_directory
 */
export async function startPostgres(binaries: PostgresBinaries, options: ServerOptions): Promise<PostgresServer> {
  const { directory, readyTimeoutMs = 60_000 } = options;
  const running = await runningServer(dataDirectoryOf(directory));
  const port = running?.port ?? (options.port === 0 ? await freePort() : options.port);
  const cluster = await prepareCluster(binaries, { ...options, port });
  const process = running?.process ?? (await spawnServer(cluster));
  try {
    await waitUntilReady(cluster, process, readyTimeoutMs);
  } catch (error) {
    if (!running) await stopServer(process);
    // Between finding a free port and taking it someone else may have.
    if (options.port === 0 && error instanceof CellplaneError && error.code === "port_in_use") return startPostgres(binaries, options);
    throw error;
  }
  return { url: cluster.url, process, adopted: running !== null, stop: () => stopServer(process) };
}

/** What the server says of itself in `postmaster.pid`; the lines stand in PostgreSQL's miscadmin.h and pidfile.h. */
interface PostmasterFile {
  pid: number;
  port: number;
  ready: boolean;
}

async function readPostmasterFile(dataDirectory: string): Promise<PostmasterFile | null> {
  const lines = ((await readText(join(dataDirectory, "postmaster.pid"))) ?? "").split("\n");
  const pid = Number(lines[0]);
  return pid > 0 ? { pid, port: Number(lines[3]), ready: lines[7]?.trim() === "ready" } : null;
}

/** The server that runs on this data directory, whoever started it. The file may be stale and its pid someone else's by now. */
export async function runningServer(dataDirectory: string): Promise<{ process: ProcessId; port: number; ready: boolean } | null> {
  const file = await readPostmasterFile(dataDirectory);
  if (!file) return null;
  const process = await processOf(file.pid);
  if (!process || !(await argumentsOf(file.pid))?.includes(dataDirectory)) return null;
  return { process, port: file.port, ready: file.ready };
}

/** A number no process has: Linux gives at most 2^22, macOS 99,998. */
const nobodysPid = 2 ** 31 - 2;

/**
 * To be called before a start when no server runs: PostgreSQL takes any living process of its user for the server that
 * left the file, and refuses. The file itself stays, because it also tells the next server which shared memory to look
 * for: a killed server's backends may still be using it.
 */
export async function disownStalePid(dataDirectory: string): Promise<void> {
  const file = join(dataDirectory, "postmaster.pid");
  const text = await readText(file);
  if (text !== null && /^\d/.test(text)) await writeFile(file, text.replace(/^\d+/, String(nobodysPid)));
}

async function spawnServer(cluster: Cluster): Promise<ProcessId> {
  const log = await open(cluster.logFile, "a", 0o600);
  const [program, ...args] = cluster.command;
  await disownStalePid(cluster.dataDirectory);
  assert(program !== undefined, "a cluster's command names a program");
  try {
    const child = spawn(program, args, { cwd: "/", env: { PATH: process.env["PATH"], LC_ALL: "C" }, detached: true, stdio: ["ignore", log.fd, log.fd], ...asAccount(cluster.account) });
    await new Promise<void>((resolve, reject) => child.once("spawn", resolve).once("error", reject));
    child.unref();
    const id = child.pid === undefined ? null : await processOf(child.pid);
    return id ?? { pid: child.pid ?? 0, startedAt: "" };
  } finally {
    await log.close();
  }
}

async function waitUntilReady(cluster: Cluster, process: ProcessId, timeoutMs: number): Promise<void> {
  const failed = async (why?: string): Promise<never> => {
    throw explainFailure(why ?? (await readTail(cluster.logFile)), cluster);
  };
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const file = await readPostmasterFile(cluster.dataDirectory);
    if (file?.pid === process.pid && file.ready) return;
    if (!(await isRunning(process))) await failed();
    if (performance.now() > deadline) await failed(`it is not ready after ${timeoutMs} ms`);
    await sleep(20);
  }
}

/** The fast shutdown first, which writes everything down; then the ones that leave work to the next start. */
export async function stopServer(process: ProcessId): Promise<void> {
  for (const [signal, waitMs] of [["SIGINT", 20_000], ["SIGQUIT", 5000], ["SIGKILL", 5000]] as const) {
    await signalProcess(process, signal);
    if (await waitForEnd(process, waitMs)) return;
  }
}

/** A loopback port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  assert(address !== null && typeof address === "object", "a TCP server has an address");
  return address.port;
}
