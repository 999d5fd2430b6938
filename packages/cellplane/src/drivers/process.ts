import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const execute = promisify(execFile);

/**
 * A process of this machine, named so that a reused pid is never mistaken for it: the kernel gives no two processes the
 * same pid and start time.
 */
export interface ProcessId {
  pid: number;
  /** Opaque; equal for the same process only. The boot and clock ticks since then on Linux, `ps -o lstart` elsewhere. */
  startedAt: string;
}

/** The process that has the pid now; null when there is none, or only a zombie nobody has buried yet. */
export async function processOf(pid: number): Promise<ProcessId | null> {
  if (!Number.isInteger(pid) || pid <= 0) return null;
  try {
    if (process.platform === "linux") {
      const [stat, boot] = await Promise.all([readFile(`/proc/${pid}/stat`, "latin1"), readFile("/proc/sys/kernel/random/boot_id", "latin1")]);
      // proc(5): the name, field 2, stands in brackets and may hold anything; field 3 is the state, field 22 the start time.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return isDead(fields[0]) ? null : { pid, startedAt: `${boot.slice(0, 8)}+${fields[19]}` };
    }
    const { stdout } = await execute("ps", ["-o", "stat=", "-o", "lstart=", "-p", String(pid)], { env: { ...process.env, LC_ALL: "C", TZ: "UTC" } });
    const [state, ...startedAt] = stdout.trim().split(/\s+/);
    return isDead(state) ? null : { pid, startedAt: startedAt.join(" ") };
  } catch {
    return null;
  }
}

const isDead = (state: string | undefined): boolean => /^[ZX]/.test(state ?? "X");

export async function isRunning({ pid, startedAt }: ProcessId): Promise<boolean> {
  return (await processOf(pid))?.startedAt === startedAt;
}

/** Its arguments, program first; null when it is gone or belongs to someone who hides them. Elsewhere than on Linux split at spaces. */
export async function argumentsOf(pid: number): Promise<string[] | null> {
  try {
    if (process.platform === "linux") {
      const text = await readFile(`/proc/${pid}/cmdline`, "utf8");
      return text === "" ? null : text.replace(/\0$/, "").split("\0");
    }
    const { stdout } = await execute("ps", ["-o", "args=", "-ww", "-p", String(pid)]);
    return stdout.trim() === "" ? null : stdout.trim().split(" ");
  } catch {
    return null;
  }
}

/**
 * Signals the process, and its whole group when `group` is set; false when it is gone already. Checks the identity first,
 * so that a process which has inherited the pid is left alone.
 */
export async function signalProcess(id: ProcessId, signal: NodeJS.Signals, { group = false } = {}): Promise<boolean> {
  if (!(await isRunning(id))) return false;
  try {
    process.kill(group ? -id.pid : id.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** True when the process has gone within the time. */
export async function waitForEnd(id: ProcessId, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (let waitMs = 5; await isRunning(id); waitMs = Math.min(waitMs * 2, 100)) {
    if (performance.now() >= deadline) return false;
    await sleep(waitMs);
  }
  return true;
}
