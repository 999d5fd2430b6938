import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

// Benches run this file compiled, from a folder of their own.
const root = fileURLToPath(new URL("..", import.meta.url)).replace(/bench\/dist\/$/, "");
const program = join(root, "packages/cellplane/bin/cellplane.mjs");

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the CLI as a person would, in a process of its own. */
export async function cellplane(args: string[], { env = {}, cwd = root }: { env?: Record<string, string>; cwd?: string } = {}): Promise<Ran> {
  const child = spawn(process.execPath, [program, ...args], { cwd, env: { ...process.env, CI: "1", NO_COLOR: "1", ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const ran: Ran = { code: null, stdout: "", stderr: "" };
  child.stdout.on("data", (data: Buffer) => (ran.stdout += data.toString()));
  child.stderr.on("data", (data: Buffer) => (ran.stderr += data.toString()));
  [ran.code] = (await once(child, "close")) as [number | null];
  return ran;
}

export interface TestFleet {
  stateDirectory: string;
  apiUrl: string;
  routerUrl: string;
  consoleUrl: string;
  adminToken: string;
  cli(...args: string[]): Promise<Ran>;
  /** Calls the API as admin. */
  api(method: string, path: string, body?: unknown): Promise<{ status: number; body: never }>;
  /** Through the router, as a customer of the tenant. */
  request(tenant: string, path: string, init?: RequestInit): Promise<Response>;
  /** The process that the keeper has for a service, as in "control-plane", "router" or "cell-eu-1.app". */
  pidOf(service: string): Promise<number>;
  kill(service: string, signal?: NodeJS.Signals): Promise<void>;
  /** Kills the keeper itself (`cellplane up`), which leaves everything else running. */
  killUp(): Promise<void>;
  /** Starts `cellplane up` again on the same state. */
  startAgain(): Promise<void>;
  /** Ctrl-C: everything stops, and all data stay. */
  interrupt(): Promise<void>;
  /** Ctrl-C and away with the data; true when every process that was kept has gone. */
  stop(): Promise<boolean>;
}

export interface FleetOptions {
  /** Text of the fleet file; default: the example shop's. */
  fleetFile?: string;
  args?: string[];
  env?: Record<string, string>;
}

/**
 * A fleet file of the shop in these cells, whose names begin with their region; tenants by the header x-tenant, or as
 * `<tenant>.shop.localhost`.
 */
export const shopFleet = (cells: readonly string[], capacity = "{ tenants: 50, connections: 40 }"): string => `
fleet: test
regions: { ${[...new Set(cells.map((cell) => cell.slice(0, 2)))].map((region) => `${region}: {}`).join(", ")} }
blueprints:
  shop:
    services:
      app:
        command: [node, ${JSON.stringify(join(root, "examples/shop/dist/app.js"))}]
        env: { PORT: "\${port.http}", DATABASE_URL: "\${database.url}" }
        ports: { http: auto }
        readiness: { path: /ready }
    database: { engine: postgres, schema: [${JSON.stringify(join(root, "examples/shop/schema"))}] }
    capacity: ${capacity}
cells:
${cells.map((cell) => `  ${cell}: { region: ${cell.slice(0, 2)}, blueprint: shop }`).join("\n")}
routing: { identify: [ { by: header, header: x-tenant }, { by: host, suffix: shop.localhost } ] }
`;

/** A real fleet of real processes on free ports, in a folder of its own. */
export async function startFleet({ fleetFile, args = [], env = {} }: FleetOptions = {}): Promise<TestFleet> {
  const stateDirectory = await mkdtemp(join(tmpdir(), "cellplane-fleet-"));
  await chmod(stateDirectory, 0o711);
  const file = fleetFile === undefined ? join(root, "examples/shop/cellplane.yaml") : join(stateDirectory, "cellplane.yaml");
  if (fleetFile !== undefined) await writeFile(file, fleetFile);

  let up: ChildProcess;
  const fleet = { stateDirectory, apiUrl: "", routerUrl: "", consoleUrl: "", adminToken: "" };

  async function start(): Promise<void> {
    const words = ["up", "--state-dir", stateDirectory, "-f", file, "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "-o", "ndjson", ...args];
    up = spawn(process.execPath, [program, ...words], { cwd: root, env: { ...process.env, CI: "1", ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    up.stderr?.on("data", (data: Buffer) => (said += data.toString()));
    const lines = createInterface(up.stdout as NonNullable<typeof up.stdout>)[Symbol.asyncIterator]();
    const { value } = (await lines.next()) as { value?: string };
    if (value === undefined) throw new Error(`cellplane up ended: ${said}`);
    const where = JSON.parse(value) as { router: string; console: string; api: string };
    const tokens = JSON.parse(await readFile(join(stateDirectory, "tokens.json"), "utf8")) as { admin: string };
    Object.assign(fleet, { apiUrl: where.api, routerUrl: where.router, consoleUrl: where.console, adminToken: tokens.admin });
  }

  const pidOf = async (service: string): Promise<number> => {
    const status = JSON.parse(await readFile(join(stateDirectory, "services", `${service}.status.json`), "utf8")) as { process: { pid: number } | null };
    if (!status.process) throw new Error(`${service} does not run`);
    return status.process.pid;
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (up.exitCode !== null || up.signalCode !== null) return;
    const gone = once(up, "exit");
    up.kill(signal);
    await gone;
  };

  await start().catch(async (error: unknown) => {
    await cellplane(["down", "--state-dir", stateDirectory]);
    await rm(stateDirectory, { recursive: true, force: true });
    throw error;
  });

  return Object.assign(fleet, {
    cli: (...words: string[]) => cellplane(words, { env: { CELLPLANE_STATE_DIR: stateDirectory, ...env } }),
    async api(method: string, path: string, body?: unknown) {
      const response = await fetch(fleet.apiUrl + path, {
        method, headers: { authorization: `Bearer ${fleet.adminToken}`, ...(body === undefined ? {} : { "content-type": "application/json" }) }, ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      return { status: response.status, body: (text ? JSON.parse(text) : null) as never };
    },
    request: (tenant: string, path: string, init: RequestInit = {}) => fetch(fleet.routerUrl + path, { ...init, headers: { "x-tenant": tenant, ...(init.headers as Record<string, string>) } }),
    pidOf,
    kill: async (service: string, signal: NodeJS.Signals = "SIGKILL") => void process.kill(await pidOf(service), signal),
    killUp: () => end("SIGKILL"),
    interrupt: () => end("SIGINT"),
    startAgain: start,
    async stop() {
      await end("SIGINT");
      await cellplane(["down", "--state-dir", stateDirectory]);
      const left = await processesOf(stateDirectory);
      await rm(stateDirectory, { recursive: true, force: true });
      return left.length === 0;
    },
  });
}

/** Waits for a condition; the error of the last try says why it did not come. */
export async function eventually<T>(what: string, look: () => Promise<T | false | null | undefined> | T | false | null | undefined, timeoutMs = 30_000): Promise<T> {
  let last: unknown = "it was never true";
  for (const deadlineMs = performance.now() + timeoutMs; performance.now() < deadlineMs; await new Promise((resolve) => setTimeout(resolve, 50))) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`not within ${timeoutMs} ms: ${what} (${last instanceof Error ? last.message : String(last)})`);
}

/** Processes that name the folder in their command line. */
async function processesOf(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (line.includes(directory)) found.push(`${pid} ${line.replaceAll("\0", " ")}`);
  }
  return found;
}
