import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFile, readdir, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readText, writeWhole } from "../files.ts";
import { disownStalePid, runningServer } from "../postgres/server.ts";
import { isRunning, type ProcessId, signalProcess, waitForEnd } from "../process.ts";
import { launch, launchDigest } from "./launch.ts";
import { Service, ServiceStatus } from "./model.ts";
import { whyNotReady } from "./ready.ts";

/** One service in the keeper's hands. */
export interface Unit {
  readonly name: string;
  status(): ServiceStatus;
  /** Null while its file cannot be read. */
  service(): Service | null;
  /** Its file has been written anew. */
  put(service: Service): Promise<void>;
  /** Look again: something it waits for may have changed. */
  wake(): void;
  /** Ends its process; with `forget` its files go too. */
  stop(options: { forget: boolean }): Promise<void>;
  /** Lets go and leaves the process running. */
  release(): Promise<void>;
  trimLog(): Promise<void>;
}

export interface UnitDeps {
  /** Of the files: `services/` in the state directory. */
  directory: string;
  statusOf: (name: string) => ServiceStatus | undefined;
  /** Called after each change of the status. */
  changed: (name: string) => void;
}

/** Ended this soon after its start a process has failed again, not anew. */
const stableMs = 10_000;
/** What nobody can ask whether it is ready is taken for ready once it has run this long. */
const settleMs = 300;
const firstPauseMs = 100;
const pauseMaxMs = 30_000;
/** How soon the end of a process is noticed that is not our child. */
const adoptedIntervalMs = 300;

const serviceFile = (directory: string, name: string): string => join(directory, `${name}.json`);
const statusFile = (directory: string, name: string): string => join(directory, `${name}.status.json`);

/** Names of all services of which there are files. */
export async function servicesIn(directory: string): Promise<string[]> {
  const names = (await readdir(directory)).filter((file) => file.endsWith(".json")).map((file) => file.replace(/(\.status)?\.json$/, ""));
  return [...new Set(names)];
}

/** @throws CellplaneError disk_full */
export const writeService = (directory: string, service: Service): Promise<void> =>
  writeWhole(serviceFile(directory, service.name), `${JSON.stringify(service, null, 2)}\n`, { durable: true });

/** A failed service's next start: at once, then later and later. */
const pauseMs = (failures: number): number => Math.min(pauseMaxMs, firstPauseMs * 2 ** (failures - 1));

type Mode = "keep" | "stop" | "forget" | "release";

/** Takes the service up from its files: adopts the process it has, or starts one. */
export async function createUnit(name: string, { directory, statusOf, changed }: UnitDeps): Promise<Unit> {
  let service: Service | null = null;
  let status = await readStatus();
  let mode: Mode = "keep";
  let child: ChildProcess | null = null;
  let launchedAtMs = performance.now();
  let problemOfFile = "";
  /** The process was seen alive by this keeper, so its number is not someone else's a moment after its end. */
  let seenAlive = false;
  let written: Promise<void> = Promise.resolve();
  const bell = createBell();
  const write = (): Promise<void> => writeWhole(statusFile(directory, name), JSON.stringify(status));

  async function readStatus(): Promise<ServiceStatus> {
    const fresh: ServiceStatus = { name, state: "stopped", process: null, launched: null, failures: 0, problem: "", logFrom: 0 };
    try {
      return ServiceStatus.parse(JSON.parse((await readText(statusFile(directory, name))) ?? "null"));
    } catch {
      return fresh;
    }
  }

  /** Also a hand-edited file counts, from the next start of the process on. */
  async function readService(): Promise<void> {
    try {
      const text = await readText(serviceFile(directory, name));
      if (text === null) return;
      service = Service.parse(JSON.parse(text));
      problemOfFile = "";
    } catch (error) {
      problemOfFile = `${serviceFile(directory, name)}: ${(error as Error).message}`;
    }
  }

  /** Also where it cannot be written down, as on a full disk: processes have to be stopped all the same. */
  async function become(change: Partial<ServiceStatus>): Promise<void> {
    await record(change).catch(() => undefined);
  }

  async function record(change: Partial<ServiceStatus>): Promise<void> {
    const next = { ...status, ...change };
    if (JSON.stringify(next) === JSON.stringify(status)) return;
    status = next;
    changed(name);
    // One after the other, so that the last one written is the last one become.
    written = written.then(write, write);
    await written;
  }

  const missing = (of: Service): string[] => of.after.filter((other) => statusOf(other)?.state !== "ready");

  async function start(of: Service): Promise<void> {
    const foreign = of.ready?.kind === "postgres" ? await runningServer(of.ready.dataDirectory) : null;
    launchedAtMs = performance.now();
    if (foreign) return become({ state: "starting", process: foreign.process, launched: launchDigest(of), problem: "" });
    if (of.ready?.kind === "postgres") await disownStalePid(of.ready.dataDirectory);
    try {
      const started = await launch(of, (process, logFrom) => record({ state: "starting", process, launched: launchDigest(of), problem: "it is starting", logFrom }));
      child = started;
      launchedAtMs = performance.now();
      started.once("exit", bell.ring);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const folder = await stat(of.directory).catch(() => null);
      const why = code === "ENOENT" && !folder ? `there is no folder ${of.directory}` : message;
      await become({ state: "backoff", process: null, launched: null, failures: status.failures + 1, problem: `it could not be started: ${why}` });
    }
  }

  /** The process is gone and nobody asked for that. */
  async function bury(process: ProcessId, of: Service | null): Promise<void> {
    if (child?.pid === process.pid && child.exitCode === null && child.signalCode === null) await Promise.race([once(child, "exit"), sleep(1000)]);
    const [code, signal] = child?.pid === process.pid ? [child.exitCode, child.signalCode] : [null, null];
    child = null;
    if (seenAlive) killGroup(process.pid);
    seenAlive = false;
    const how = signal !== null ? `was ended by ${signal}` : code !== null ? `ended with code ${code}` : "ended";
    const again = of !== null && (of.restart === "always" || (of.restart === "on-failure" && code !== 0));
    const failures = status.state === "ready" && performance.now() - launchedAtMs > stableMs ? 1 : status.failures + 1;
    await become({ state: again ? "backoff" : "ended", process: null, launched: null, failures, problem: `it ${how}` });
  }

  async function end(process: ProcessId): Promise<void> {
    await become({ state: "stopping", problem: "it is being stopped" });
    await signalProcess(process, service?.stopSignal ?? "SIGTERM", { group: true });
    if (!(await waitForEnd(process, service?.stopTimeoutMs ?? 10_000))) {
      await signalProcess(process, "SIGKILL", { group: true });
      await waitForEnd(process, 10_000);
    }
    child = null;
    seenAlive = false;
    killGroup(process.pid);
    await become({ state: "stopped", process: null, launched: null, problem: "it is stopped" });
  }

  /** Does what is to be done now. @returns how long to wait for the next look; null: until the bell rings */
  async function look(): Promise<number | null> {
    const { process } = status;
    if (process && !(await isRunning(process))) await bury(process, service);
    else if (process) {
      seenAlive = true;
      // While its file is unreadable a running process is left alone.
      if (service && status.launched !== launchDigest(service)) {
        await end(process);
        return 0;
      }
      if (status.state === "ready") {
        if (performance.now() - launchedAtMs > stableMs) await become({ failures: 0 });
      } else {
        const settling = performance.now() - launchedAtMs < settleMs ? "it has only just started" : "";
        const problem = service?.ready ? await whyNotReady(service.ready) : settling;
        await become(problem === "" ? { state: "ready", problem } : { state: "starting", problem });
      }
      if (status.state !== "ready") return service?.readyIntervalMs ?? 250;
      return child ? (status.failures > 0 ? stableMs : null) : adoptedIntervalMs;
    }

    if (status.state === "ended") return null;
    if (status.state === "backoff") {
      const waitMs = launchedAtMs + pauseMs(status.failures) - performance.now();
      if (waitMs > 0) return waitMs;
    }
    await readService();
    if (!service || problemOfFile !== "") {
      await become({ state: "invalid", problem: problemOfFile });
      return null;
    }
    const waitsFor = missing(service);
    if (waitsFor.length > 0) {
      await become({ state: "waiting", problem: `it waits for ${waitsFor.join(", ")}` });
      return null;
    }
    await start(service);
    return 0;
  }

  async function tend(): Promise<void> {
    while (mode === "keep") {
      const waitMs = await look().catch(async (error: Error) => {
        await become({ problem: error.message });
        return 1000;
      });
      if (mode === "keep") await bell.wait(waitMs);
    }
    if (mode !== "release" && status.process) await end(status.process);
    if (mode === "forget") await rm(statusFile(directory, name), { force: true });
  }

  const leave = (how: Mode) => async (): Promise<void> => {
    if (mode !== "forget") mode = how;
    bell.ring();
    await tended;
  };

  await readService();
  // What a former keeper wrote may be long over; nobody is to hear of it as if it were so.
  if (status.process && !(await isRunning(status.process))) {
    await become({ state: "backoff", process: null, launched: null, failures: status.failures + 1, problem: "it ended while nobody kept it" });
  }
  // Someone removed the service and its keeper died before it was stopped.
  if (!service && problemOfFile === "") mode = "forget";
  const tended = tend();
  // Whoever stops the unit hears of a failure.
  tended.catch(() => undefined);

  return {
    name,
    status: () => status,
    service: () => service,
    wake: bell.ring,
    async put(wanted) {
      const other = !service || launchDigest(service) !== launchDigest(wanted);
      service = wanted;
      problemOfFile = "";
      // Something new deserves a new chance at once.
      if (other) await become({ failures: 0, ...(status.process ? {} : { state: "stopped" as const }) });
      bell.ring();
    },
    async stop({ forget }) {
      if (forget) await rm(serviceFile(directory, name), { force: true });
      await leave(forget ? "forget" : "stop")();
    },
    release: leave("release"),
    async trimLog() {
      const file = service?.logFile;
      const size = file ? ((await stat(file).catch(() => null))?.size ?? 0) : 0;
      if (!file || !service || size <= service.logBytesMax) return;
      // The process has the file open and writes at its end, so it is emptied in place.
      await copyFile(file, `${file}.1`);
      await truncate(file);
    },
  };
}

/** What a process has left behind in its group. Called right after its end, before the number can be anyone else's. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody is left.
  }
}

/** Ends a wait early; rung while nobody waits, it ends the next one. */
function createBell(): { ring: () => void; wait: (ms: number | null) => Promise<void> } {
  let rung = false;
  let wakeUp: (() => void) | null = null;
  return {
    ring() {
      rung = true;
      wakeUp?.();
    },
    async wait(ms) {
      let timer: NodeJS.Timeout | undefined;
      if (!rung) {
        await new Promise<void>((resolve) => {
          wakeUp = resolve;
          if (ms !== null) timer = setTimeout(resolve, ms);
        });
      }
      clearTimeout(timer);
      wakeUp = null;
      rung = false;
    },
  };
}
