import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fail } from "../../base/errors.ts";
import { createTurns } from "../turns.ts";
import { openChannel } from "./channel.ts";
import { launchDigest } from "./launch.ts";
import { type Keeper, type NewService, Service, type ServiceStatus, tiers } from "./model.ts";
import { createUnit, servicesIn, type Unit, writeService } from "./unit.ts";

/** Ended this often in a row a service is not waited for any longer. */
const failuresMax = 3;

export interface KeeperOptions {
  /** Gives way to the next keeper that asks. Default: false */
  yields?: boolean;
  /** Called when it has given way. */
  onYield?: () => void;
  /** How often logs are looked at. Default: 30,000 */
  trimIntervalMs?: number;
}

/**
 * Becomes the one keeper of the state directory, in this process: adopts what runs, starts what should.
 *
 * @throws CellplaneError state_dir_in_use, state_dir_too_long
 */
export async function startKeeper(stateDirectory: string, { yields = false, onYield, trimIntervalMs = 30_000 }: KeeperOptions = {}): Promise<Keeper> {
  const directory = join(stateDirectory, "services");
  // The servers' own users have to pass here; what is in `services` holds passwords.
  await mkdir(stateDirectory, { recursive: true, mode: 0o711 });
  await mkdir(directory, { recursive: true, mode: 0o700 });

  const units = new Map<string, Unit>();
  const turns = createTurns();
  const waiters = new Set<() => void>();
  let ending = false;
  const statusOf = (name: string): ServiceStatus | undefined => units.get(name)?.status();
  const changed = (name: string): void => {
    for (const unit of units.values()) if (unit.service()?.after.includes(name)) unit.wake();
    for (const wake of waiters) wake();
  };
  const takeUp = async (name: string): Promise<Unit> => {
    const unit = await createUnit(name, { directory, statusOf, changed });
    units.set(name, unit);
    changed(name);
    return unit;
  };

  const keeper: Keeper = {
    put: (wanted) => turns(wanted.name, async () => {
      if (ending) throw fail("keeper_gone", { path: stateDirectory });
      const service = Service.parse(wanted);
      await writeService(directory, service);
      const unit = units.get(service.name);
      await unit?.put(service);
      return (unit ?? (await takeUp(service.name))).status();
    }),
    remove: (name) => turns(name, async () => {
      if (ending) throw fail("keeper_gone", { path: stateDirectory });
      await units.get(name)?.stop({ forget: true });
      units.delete(name);
      changed(name);
    }),
    status: async () => [...units.values()].map((unit) => unit.status()).sort((a, b) => (a.name < b.name ? -1 : 1)),
    async waitReady(name, timeoutMs, signal) {
      const deadlineMs = performance.now() + timeoutMs;
      for (;;) {
        signal?.throwIfAborted();
        const unit = units.get(name);
        if (ending) throw fail("keeper_gone", { path: stateDirectory });
        if (!unit) throw fail("not_found", { what: "service", name });
        const service = unit.service();
        const status = unit.status();
        const current = service !== null && status.launched === launchDigest(service);
        const restMs = deadlineMs - performance.now();
        if ((status.state === "ready" && current) || status.state === "ended" || status.failures >= failuresMax || restMs <= 0) return status;
        await new Promise<void>((resolve) => {
          const wake = (): void => {
            waiters.delete(wake);
            clearTimeout(timer);
            resolve();
          };
          const timer = setTimeout(wake, Math.min(restMs, 1000));
          waiters.add(wake);
        });
      }
    },
    async stopAll() {
      ending = true;
      for (const tier of tiers) await Promise.all([...units.values()].filter((unit) => (unit.service()?.tier ?? "app") === tier).map((unit) => unit.stop({ forget: false })));
    },
    async close() {
      ending = true;
      clearInterval(trimming);
      for (const wake of waiters) wake();
      await Promise.all([...units.values()].map((unit) => unit.release()));
      await channel.close();
    },
  };

  async function answer(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    const given = params as { service: NewService; name: string; timeoutMs: number };
    switch (method) {
      case "put":
        return keeper.put(given.service);
      case "remove":
        return keeper.remove(given.name);
      case "status":
        return keeper.status();
      case "waitReady":
        return keeper.waitReady(given.name, given.timeoutMs, signal);
      case "stopAll":
        return keeper.stopAll();
      case "yield":
        if (!yields) throw fail("state_dir_in_use", { path: stateDirectory, pid: process.pid });
        // Answered first; whoever asked sees the socket vanish when everything is released.
        if (!ending) setImmediate(() => void keeper.close().then(onYield));
        return null;
      default:
        throw new Error(`a keeper knows no ${method}`);
    }
  }

  const channel = await openChannel(stateDirectory, { yields, answer });
  const trimming = setInterval(() => {
    for (const unit of units.values()) void unit.trimLog().catch(() => undefined);
  }, trimIntervalMs);
  for (const name of await servicesIn(directory)) await turns(name, () => takeUp(name));
  return keeper;
}
