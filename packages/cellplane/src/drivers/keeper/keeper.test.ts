import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { freePort } from "../postgres/server.ts";
import { isRunning, type ProcessId } from "../process.ts";
import { connectKeeper } from "./client.ts";
import { startKeeper } from "./keeper.ts";
import type { Keeper, NewService, ServiceStatus } from "./model.ts";

let state: string;
let keepers: Keeper[];
let children: ChildProcess[];

beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "keeper-"));
  keepers = [];
  children = [];
});

afterEach(async () => {
  // Also when a test failed halfway.
  for (const child of children) child.kill("SIGKILL");
  await Promise.all(keepers.map((keeper) => keeper.close()));
  const last = await startKeeper(state);
  await last.stopAll();
  await last.close();
  await rm(state, { recursive: true, force: true });
});

const keep = async (options = {}): Promise<Keeper> => {
  const keeper = await startKeeper(state, options);
  keepers.push(keeper);
  return keeper;
};

const service = (name: string, more: Partial<NewService> = {}): NewService => ({ name, tier: "app", command: ["sleep", "1000"], directory: state, logFile: join(state, `${name}.log`), ...more });

/** A keeper in a process of its own that puts one service; it may be killed at a point on the way. */
async function otherKeeper(given: NewService | null, failpoint = ""): Promise<{ kill: () => Promise<void>; ended: Promise<unknown> }> {
  const dist = fileURLToPath(new URL("../../../dist/drivers/keeper/keeper.js", import.meta.url));
  const code = `import { startKeeper } from ${JSON.stringify(dist)};
    const keeper = await startKeeper(${JSON.stringify(state)});
    ${given ? `await keeper.put(${JSON.stringify(given)}); await keeper.waitReady(${JSON.stringify(given.name)}, 10000);` : ""}
    console.log("kept");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { env: { ...process.env, CELLPLANE_FAILPOINT: failpoint }, stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const ended = once(child, "exit");
  await Promise.race([once(child.stdout, "data"), ended]);
  return { ended, kill: async () => void (child.kill("SIGKILL"), await ended) };
}

async function until<T>(look: () => Promise<T | null | undefined | false>, what: string): Promise<T> {
  for (const deadline = performance.now() + 20_000; performance.now() < deadline; await sleep(20)) {
    const seen = await look();
    if (seen) return seen;
  }
  throw new Error(`did not come: ${what}`);
}

const processOf = (status: ServiceStatus | undefined): ProcessId => {
  if (!status?.process) throw new Error(`it does not run: ${JSON.stringify(status)}`);
  return status.process;
};
const running = async (keeper: Keeper, name: string): Promise<ProcessId> => processOf(await keeper.waitReady(name, 10_000));
/** How many processes run that have the text among their arguments. */
const processesWith = async (text: string): Promise<number> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(text)).length;
};

test("K1: a service runs until it is removed, and is started again when it ends", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const first = await running(keeper, "a");
  process.kill(first.pid, "SIGKILL");
  const second = await until(async () => {
    const [status] = await keeper.status();
    return status?.state === "ready" && status.process?.pid !== first.pid && status.process;
  }, "a second process");
  await keeper.remove("a");
  expect(await isRunning(second)).toBe(false);
  expect(await readdir(join(state, "services"))).toEqual([]);
});

test("K2: the same service again leaves its process alone; another command, environment or revision restarts it", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const first = await running(keeper, "a");
  await keeper.put(service("a", { readyIntervalMs: 300 }));
  expect(await running(keeper, "a")).toEqual(first);
  let former = first;
  for (const change of [{ command: ["sleep", "1001"] }, { env: { A: "1" } }, { revision: "2" }]) {
    await keeper.put(service("a", change));
    const next = await running(keeper, "a");
    expect(next).not.toEqual(former);
    expect(await isRunning(former)).toBe(false);
    former = next;
  }
});

test.skipIf(process.platform !== "linux")("K3: a killed keeper's processes run on and are adopted by the next one, not started twice", async () => {
  const marker = `1000.${await freePort()}`;
  const other = await otherKeeper(service("a", { command: ["sleep", marker] }));
  await other.kill();
  expect(await processesWith(marker)).toBe(1);
  const keeper = await keep();
  const adopted = await running(keeper, "a");
  expect(await processesWith(marker)).toBe(1);
  // An adopted process is looked after like one's own.
  process.kill(adopted.pid, "SIGKILL");
  await until(async () => (await keeper.status())[0]?.process?.pid !== adopted.pid && (await keeper.status())[0]?.state === "ready", "its restart");
});

test("K3: a process that has the pid by now is neither taken for the service nor harmed", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const own = await running(keeper, "a");
  await keeper.close();
  const bystander = spawn("sleep", ["1000"], { detached: true });
  children.push(bystander);
  const file = join(state, "services", "a.status.json");
  await writeFile(file, (await readFile(file, "utf8")).replace(`"pid":${own.pid}`, `"pid":${bystander.pid}`));
  process.kill(own.pid, "SIGKILL");
  const next = await keep();
  expect((await running(next, "a")).pid).not.toBe(bystander.pid);
  await next.stopAll();
  expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
  bystander.kill("SIGKILL");
  await once(bystander, "exit");
});

test.skipIf(process.platform !== "linux").each(["keeper.spawned", "keeper.recorded", "keeper.started"])("K4: killed at %s, one process runs after the next keeper came", async (point) => {
  const marker = `1000.${await freePort()}`;
  const other = await otherKeeper(service("a", { command: ["sleep", marker] }), point);
  expect(await other.ended).toEqual([null, "SIGKILL"]);
  const keeper = await keep();
  await running(keeper, "a");
  expect(await processesWith(marker)).toBe(1);
});

test("K5: a service that was removed while its keeper died is stopped by the next", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const process = await running(keeper, "a");
  await keeper.close();
  await rm(join(state, "services", "a.json"));
  const next = await keep();
  await until(async () => !(await isRunning(process)), "its end");
  await until(async () => (await readdir(join(state, "services"))).length === 0, "its files' removal");
  expect((await next.status()).filter((status) => status.state === "ready")).toEqual([]);
});

test("K6: one keeper at a time; a killed one is not in the way", async () => {
  const other = await otherKeeper(null);
  await expect(startKeeper(state)).rejects.toMatchObject({ code: "state_dir_in_use" });
  await other.kill();
  await keep();
  await expect(startKeeper(state)).rejects.toMatchObject({ code: "state_dir_in_use", data: { pid: process.pid } });
});

test("K6: of many that start at once exactly one keeps", async () => {
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => keep()));
  expect(outcomes.filter((outcome) => outcome.status === "fulfilled")).toHaveLength(1);
});

test("K7: a service that fails is tried again, later and later, and is not waited for longer than that shows", async () => {
  const keeper = await keep();
  await keeper.put(service("a", { command: ["sh", "-c", "echo broken; exit 3"], ready: { kind: "tcp", host: "127.0.0.1", port: 1 } }));
  const status = await keeper.waitReady("a", 20_000);
  expect(status).toMatchObject({ state: "backoff", failures: 3, problem: "it ended with code 3", process: null });
  expect(await readFile(join(state, "a.log"), "utf8")).toBe("broken\n".repeat(3));
  // A new command gets a new chance at once.
  await keeper.put(service("a"));
  expect(await keeper.waitReady("a", 5000)).toMatchObject({ state: "ready", failures: 0 });
});

test("K7: what cannot be started says why", async () => {
  const keeper = await keep();
  await keeper.put(service("a", { directory: join(state, "absent") }));
  await keeper.put(service("b", { command: ["./absent"], ready: { kind: "tcp", host: "127.0.0.1", port: 1 } }));
  expect((await keeper.waitReady("a", 5000)).problem).toContain(`there is no folder ${join(state, "absent")}`);
  expect((await keeper.waitReady("b", 5000)).problem).toBe("it ended with code 127");
  expect(await readFile(join(state, "b.log"), "utf8")).toContain("absent");
});

test("K8: it is ready when it answers, and its dependents start after that", async () => {
  const port = await freePort();
  const server = `setTimeout(() => require("node:http").createServer((_, answer) => answer.end()).listen(${port}, "127.0.0.1"), 300)`;
  const keeper = await keep();
  await keeper.put(service("b", { after: ["a"] }));
  await keeper.put(service("a", { command: [process.execPath, "-e", server], ready: { kind: "http", url: `http://127.0.0.1:${port}/` }, readyIntervalMs: 50 }));
  expect((await keeper.status())[1]).toMatchObject({ name: "b", state: "waiting", problem: "it waits for a" });
  const status = await keeper.waitReady("b", 10_000);
  expect(status.state).toBe("ready");
  expect((await keeper.status()).map((of) => of.state)).toEqual(["ready", "ready"]);
});

test("K9: all are stopped from the outside in, the stubborn ones by force, and start again with the next keeper", async () => {
  const log = join(state, "order");
  const told = (name: string): string[] => ["sh", "-c", `trap 'echo ${name} >>${log}; exit 0' TERM; while :; do sleep 0.05; done`];
  const keeper = await keep();
  await keeper.put(service("d", { tier: "database", command: told("d") }));
  await keeper.put(service("a", { tier: "app", command: told("a") }));
  await keeper.put(service("r", { tier: "router", command: told("r") }));
  await keeper.put(service("s", { tier: "traffic", command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], stopTimeoutMs: 200 }));
  const processes = await Promise.all(["d", "a", "r", "s"].map((name) => running(keeper, name)));
  // A trap is set a moment after the shell has started.
  await sleep(200);
  await keeper.stopAll();
  expect(await readFile(log, "utf8")).toBe("r\na\nd\n");
  expect(await Promise.all(processes.map(isRunning))).toEqual([false, false, false, false]);
  await keeper.close();
  const next = await keep();
  for (const name of ["d", "a", "r", "s"]) await running(next, name);
});

test("K10: a file edited by hand counts from the next start on, an unreadable one harms nothing", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const first = await running(keeper, "a");
  const file = join(state, "services", "a.json");
  await writeFile(file, "{");
  process.kill(first.pid, "SIGKILL");
  const invalid = await until(async () => (await keeper.status()).find((status) => status.state === "invalid"), "the state invalid");
  expect(invalid.problem).toContain(file);
  await keeper.put(service("a"));
  expect((await keeper.waitReady("a", 5000)).state).toBe("ready");
});

test("K11: without a keeper the client starts one, which yields to the next that is started", async () => {
  const client = connectKeeper(state);
  await client.put(service("a"));
  const process = await running(client, "a");
  const keeper = await keep();
  expect(await running(keeper, "a")).toEqual(process);
  expect(await running(client, "a")).toEqual(process);
  await expect(client.waitReady("b", 1)).rejects.toMatchObject({ code: "not_found" });
});

test("K12: a log that grows is cut, and its former part kept once", async () => {
  const keeper = await keep({ trimIntervalMs: 50 });
  const command = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.001; done"];
  await keeper.put(service("a", { command, logBytesMax: 2048 }));
  const log = join(state, "a.log");
  await until(async () => (await readFile(`${log}.1`, "utf8").catch(() => "")).startsWith("line ") && (await stat(log)).size < 2048, "a cut log");
  expect(await until(() => readFile(log, "utf8"), "more lines")).toMatch(/^line |^\d/);
});

test("K13: what cannot be written down, as on a full disk, is stopped all the same", async () => {
  const keeper = await keep();
  await keeper.put(service("a"));
  const process = await running(keeper, "a");
  await rm(join(state, "services"), { recursive: true });
  await keeper.stopAll();
  expect(await isRunning(process)).toBe(false);
});
