import { spawn } from "node:child_process";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { CellplaneError, fail } from "../../base/errors.ts";
import { callKeeper } from "./channel.ts";
import type { Keeper, ServiceStatus } from "./model.ts";

const startTimeoutMs = 10_000;

/**
 * The keeper of the state directory, whoever it is: when nobody keeps it, a process of its own is started that does, and
 * stays when we end. Calls go on with the next keeper when one dies.
 */
export function connectKeeper(stateDirectory: string): Keeper {
  async function call<T>(method: string, params: unknown, signal?: AbortSignal): Promise<T> {
    for (const deadlineMs = performance.now() + startTimeoutMs; ; ) {
      try {
        return (await callKeeper(stateDirectory, method, params, signal)) as T;
      } catch (error) {
        if (!(error instanceof CellplaneError) || error.code !== "keeper_gone" || performance.now() > deadlineMs) throw error;
        await startDetached(stateDirectory);
      }
    }
  }
  return {
    put: (service) => call<ServiceStatus>("put", { service }),
    remove: (name) => call("remove", { name }),
    status: () => call<ServiceStatus[]>("status", {}),
    waitReady: (name, timeoutMs, signal) => call<ServiceStatus>("waitReady", { name, timeoutMs }, signal),
    stopAll: () => call("stopAll", {}),
    close: async () => undefined,
  };
}

/** Returns when someone keeps the directory: that process, or another that was faster. */
async function startDetached(stateDirectory: string): Promise<void> {
  await mkdir(stateDirectory, { recursive: true, mode: 0o711 });
  const logFile = join(stateDirectory, "keeper.log");
  const log = await open(logFile, "a", 0o600);
  try {
    // Run from the sources, as tests do, the program is the built one.
    const program = fileURLToPath(new URL("./main.ts", import.meta.url)).replace("/src/drivers/", "/dist/drivers/").replace(/\.ts$/, ".js");
    const child = spawn(process.execPath, [program, stateDirectory], { cwd: "/", detached: true, stdio: ["ignore", log.fd, log.fd] });
    child.unref();
    child.on("error", () => undefined);
    for (const deadlineMs = performance.now() + startTimeoutMs; performance.now() < deadlineMs; await sleep(20)) {
      const found = await callKeeper(stateDirectory, "status", {}).catch(() => null);
      if (found) return;
      if (child.exitCode !== null && child.exitCode !== 0) break;
    }
    throw fail("keeper_failed", { path: stateDirectory, log: logFile });
  } finally {
    await log.close();
  }
}
