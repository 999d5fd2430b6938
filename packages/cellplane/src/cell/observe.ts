import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../base/clock.ts";
import type { CellDriver } from "../drivers/driver.ts";
import type { HealthCheck } from "./model.ts";
import { canonicalJson } from "../base/canonical.ts";
import type { CellStore, Look, Watch, Watched } from "./store.ts";

export interface ObserveDeps {
  cells: Pick<CellStore, "watched" | "saveLooks" | "openWatch">;
  /** @throws CellplaneError driver_unknown */
  driver: (name: string) => CellDriver;
  clock: Clock;
  /** Told what went wrong with looking; the loop goes on. */
  report: (error: unknown) => void;
  /** Between two looks at the health of every cell, ms. */
  healthEveryMs?: number;
  /** Between two looks for foreign changes, ms. */
  driftEveryMs?: number;
}

/** A probe that takes longer has failed. */
const probeTimeoutMs = 2000;
const driftTimeoutMs = 15_000;
const probesAtOnce = 32;
/** One lost probe is no dead cell. */
const failuresMax = 2;
/** What has not changed is written this often, so that people see that someone looks. */
const saveEveryMs = 10_000;

/** What is remembered of a cell between two looks. */
interface Memory extends Omit<Look, "ok"> {
  /** Null: seen too seldom to say. */
  ok: boolean | null;
  failures: number;
  driftAtMs: number;
  savedAtMs: number;
}

/**
 * Looks at every cell in service, for as long as the process lives: its health each second, foreign changes twice a
 * minute. Of several control planes one does it; when that one dies the next takes over within a second or two. It
 * knows nothing but what it sees, so cells that went on while no control plane lived are found as they are.
 *
 * @returns stops it, and waits until it has stopped
 */
export function observeCells(deps: ObserveDeps): () => Promise<void> {
  const { cells, report, healthEveryMs = 1000 } = deps;
  const stopping = new AbortController();
  const pause = (ms: number, signal: AbortSignal): Promise<unknown> => sleep(ms, undefined, { signal }).catch(() => undefined);

  async function hold(watch: Watch): Promise<void> {
    const over = AbortSignal.any([stopping.signal, watch.lost]);
    while (!over.aborted && !(await watch.tryTake())) await pause(healthEveryMs * 2, over);
    const memories = new Map<string, Memory>();
    while (!over.aborted) {
      const startedAtMs = deps.clock.nowMs();
      await look(deps, memories, over).catch(report);
      await pause(Math.max(0, healthEveryMs - (deps.clock.nowMs() - startedAtMs)), over);
    }
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      const watch = await cells.openWatch().catch(report);
      if (watch) {
        await hold(watch).catch(report);
        await watch.end().catch(() => undefined);
      }
      await pause(healthEveryMs, stopping.signal);
    }
  }

  const ended = run();
  return async () => {
    stopping.abort();
    await ended;
  };
}

async function look(deps: ObserveDeps, memories: Map<string, Memory>, signal: AbortSignal): Promise<void> {
  const watched = await deps.cells.watched();
  const names = new Set(watched.map((cell) => cell.name));
  for (const name of memories.keys()) if (!names.has(name)) memories.delete(name);

  const changed: Look[] = [];
  const waiting = [...watched];
  const probe = async (): Promise<void> => {
    for (let cell = waiting.pop(); cell && !signal.aborted; cell = waiting.pop()) {
      const before = memories.get(cell.name);
      const after = await lookAt(deps, cell, before, signal);
      if (signal.aborted) return;
      const same = before && before.ok === after.ok && canonicalJson([before.checks, before.drift]) === canonicalJson([after.checks, after.drift]);
      if (after.ok !== null && (!same || after.observedAtMs - before.savedAtMs >= saveEveryMs)) {
        after.savedAtMs = after.observedAtMs;
        changed.push({ cell: cell.name, ok: after.ok, checks: after.checks, drift: after.drift, observedAtMs: after.observedAtMs });
      }
      memories.set(cell.name, after);
    }
  };
  await Promise.all(Array.from({ length: probesAtOnce }, probe));
  if (changed.length > 0) await deps.cells.saveLooks(changed);
}

async function lookAt({ driver, clock, report, driftEveryMs = 30_000 }: ObserveDeps, cell: Watched, before: Memory | undefined, signal: AbortSignal): Promise<Memory> {
  const within = (timeoutMs: number): AbortSignal => AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  let checks: HealthCheck[];
  try {
    checks = await driver(cell.driver).health(cell.name, within(probeTimeoutMs));
  } catch (error) {
    checks = [{ name: "driver", ok: false, detail: error instanceof Error ? error.message : String(error) }];
  }
  const observedAtMs = clock.nowMs();
  const failures = checks.every((check) => check.ok) ? 0 : (before?.failures ?? 0) + 1;
  const memory: Memory = { cell: cell.name, ok: before?.ok ?? null, checks: before?.checks ?? [], drift: before?.drift ?? null, failures, observedAtMs, driftAtMs: before?.driftAtMs ?? -Infinity, savedAtMs: before?.savedAtMs ?? 0 };
  if (failures === 0 || failures >= failuresMax) Object.assign(memory, { ok: failures === 0, checks });
  if (observedAtMs - memory.driftAtMs >= driftEveryMs) {
    memory.driftAtMs = observedAtMs;
    const observed = await driver(cell.driver).observe(cell.name, within(driftTimeoutMs)).catch(report);
    if (observed) memory.drift = observed.drift;
  }
  return memory;
}
