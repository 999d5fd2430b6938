import { setTimeout as sleep } from "node:timers/promises";
import { fail } from "../../base/errors.ts";
import { type CellSpec, type HealthCheck, type Observed } from "../../cell/model.ts";
import { changesBetween } from "../../cell/plan.ts";
import type { CellDriver, CellPlan, DriverContext } from "../driver.ts";
import { addFacts, digestOf, driftBetween, type Facts } from "../facts.ts";
import { createTurns } from "../turns.ts";

type FakeVerb = "plan" | "apply" | "observe" | "health" | "destroy";

export interface FakeDriverOptions {
  name?: string;
  /** How long a step of an apply or destroy takes. Default: at once */
  pause?: (signal: AbortSignal) => Promise<void>;
  /** Why a spec never gets ready; "" for one that does. Default: `config.broken` as text */
  whyNeverReady?: (spec: CellSpec) => string;
}

/** Cells that exist in memory only, with the promises of real ones; what goes wrong is scripted. */
export interface FakeDriver extends CellDriver {
  /** The next calls of the verb for the cell fail with the error, before anything has happened. */
  failNext(verb: FakeVerb, cell: string, error: Error, times?: number): void;
  /** The next apply or destroy stops dead at the point: throws `killed`, as if its process had been. */
  killAt(point: string): void;
  /** What health says of the cell from now on; null: that it is well. */
  setHealth(cell: string, checks: HealthCheck[] | null): void;
  /** Changes a fact by a foreign hand, as in "config.greeting". */
  edit(cell: string, path: string, value: Facts[string]): void;
  /** The version that serves; null when none does. */
  servedBy(cell: string): CellSpec | null;
  cells(): string[];
}

interface FakeCell {
  epoch: number;
  made: CellSpec | null;
  intent: { opKey: string; target: CellSpec } | null;
  /** What runs; null: nothing does. */
  running: CellSpec | null;
  facts: Facts;
  last: { opKey: string; error: Error | null } | null;
  destroyed: "kept" | "purged" | null;
}

export const fakeApplyPoints = ["fake.apply.intended", "fake.apply.half", "fake.apply.changed", "fake.apply.recorded"];
export const fakeRevertPoints = ["fake.apply.changed"];
export const fakeDestroyPoints = ["fake.destroy.stopped", "fake.destroy.removed"];

/** What a kill looks like from inside one process. */
export class Killed extends Error {
  override name = "Killed";
}

const factsOf = (spec: CellSpec): Facts => {
  const facts: Facts = {};
  addFacts(facts, "config", spec.config);
  addFacts(facts, "services", spec.services);
  addFacts(facts, "database", spec.database ?? null);
  facts["version"] = spec.version;
  return facts;
};

const brokenByConfig = (spec: CellSpec): string => (typeof spec.config["broken"] === "string" ? spec.config["broken"] : "");

export function createFakeDriver({ name = "fake", pause = () => sleep(0), whyNeverReady = brokenByConfig }: FakeDriverOptions = {}): FakeDriver {
  const cells = new Map<string, FakeCell>();
  const health = new Map<string, HealthCheck[]>();
  const failures: { verb: FakeVerb; cell: string; error: Error }[] = [];
  const turns = createTurns();
  let killPoint: string | null = null;

  function scripted(verb: FakeVerb, cell: string): void {
    const at = failures.findIndex((failure) => failure.verb === verb && failure.cell === cell);
    const [failure] = at < 0 ? [] : failures.splice(at, 1);
    if (failure) throw failure.error;
  }

  async function step(point: string, signal: AbortSignal): Promise<void> {
    if (killPoint === point) {
      killPoint = null;
      throw new Killed(`killed at ${point}`);
    }
    signal.throwIfAborted();
    await pause(signal);
    signal.throwIfAborted();
  }

  const exists = (cell: FakeCell | undefined): cell is FakeCell => cell !== undefined && cell.destroyed === null && (cell.made !== null || cell.intent !== null);

  function observe(name: string): Observed {
    const cell = cells.get(name);
    if (!exists(cell)) return { exists: false, observedHash: null, specHash: null, drift: [], version: null };
    const expected = [cell.made, cell.intent?.target ?? null].filter((spec) => spec !== null).map(factsOf);
    return { exists: true, observedHash: digestOf(cell.facts), specHash: cell.made && digestOf(cell.made), drift: driftBetween(cell.facts, expected), version: cell.made?.version ?? null };
  }

  function claim(name: string, epoch: number): FakeCell {
    const cell = cells.get(name) ?? { epoch, made: null, intent: null, running: null, facts: {}, last: null, destroyed: null };
    if (epoch < cell.epoch) throw fail("fenced", { cell: name, epoch, seen: cell.epoch });
    cell.epoch = epoch;
    cells.set(name, cell);
    return cell;
  }

  const driftTo = (cell: FakeCell, target: CellSpec) => driftBetween(cell.facts, [cell.made, cell.intent?.target ?? null, target].filter((spec) => spec !== null).map(factsOf));

  async function apply(plan: CellPlan, { opKey, epoch, signal, log }: DriverContext): Promise<Observed> {
    const { spec } = plan;
    signal.throwIfAborted();
    scripted("apply", spec.cell);
    const cell = claim(spec.cell, epoch);
    if (cell.last?.opKey === opKey) {
      if (cell.last.error) throw cell.last.error;
      return observe(spec.cell);
    }
    if (cell.intent?.opKey !== opKey) {
      if (cell.destroyed === "kept") throw fail("cell_name_kept", { cell: spec.cell });
      if (observe(spec.cell).observedHash !== plan.baseObserved) throw fail("plan_stale", { what: `cell ${spec.cell}` });
      const drift = exists(cell) ? driftTo(cell, spec) : [];
      if (drift.length > 0 && !plan.overwritesDrift) throw fail("cell_drifted", { cell: spec.cell, paths: drift.map(({ path }) => path) });
      cell.intent = { opKey, target: spec };
      cell.destroyed = null;
    }
    const { target } = cell.intent;
    const next = factsOf(target);
    log("changing");
    await step("fake.apply.intended", signal);
    // Half of it first, as any real change is half done for a while.
    const paths = [...new Set([...Object.keys(cell.facts), ...Object.keys(next)])];
    for (const path of paths.slice(0, paths.length / 2)) setFact(cell.facts, path, next);
    await step("fake.apply.half", signal);
    for (const path of paths) setFact(cell.facts, path, next);
    const why = whyNeverReady(target);
    if (why !== "" && !cell.made) throw fail("cell_not_healthy", { cell: spec.cell, afterMs: 0, checks: [`service/app: ${why}`] });
    const stays = why === "" ? target : cell.made;
    cell.running = stays;
    await step("fake.apply.changed", signal);
    const error = why === "" ? null : fail("update_reverted", { cell: spec.cell, why });
    cell.facts = stays ? factsOf(stays) : {};
    Object.assign(cell, { made: stays, intent: null, last: { opKey, error } });
    await step("fake.apply.recorded", signal);
    if (error) throw error;
    return observe(spec.cell);
  }

  async function destroy(name: string, { epoch, signal }: DriverContext, { purge }: { purge: boolean }): Promise<void> {
    signal.throwIfAborted();
    scripted("destroy", name);
    if (!cells.has(name)) return;
    const cell = claim(name, epoch);
    cell.running = null;
    await step("fake.destroy.stopped", signal);
    cell.facts = {};
    await step("fake.destroy.removed", signal);
    Object.assign(cell, { made: null, intent: null, last: null, destroyed: purge || cell.destroyed === "purged" ? "purged" : "kept" });
  }

  return {
    name,
    async plan(spec, signal, { overwriteDrift = false } = {}) {
      signal.throwIfAborted();
      scripted("plan", spec.cell);
      const cell = cells.get(spec.cell);
      if (cell?.destroyed === "kept") throw fail("cell_name_kept", { cell: spec.cell });
      const undone = exists(cell) && overwriteDrift ? driftTo(cell, spec) : [];
      const specChanges = changesBetween(cell?.made ?? {}, spec).map(({ path, from, to }) => ({ path, from: from as unknown, to: to as unknown }));
      const changes = [...specChanges, ...undone.map(({ path, expected, actual }) => ({ path, from: actual, to: expected }))];
      const content = { spec, changes, restarts: exists(cell) && changes.length > 0, baseObserved: observe(spec.cell).observedHash, overwritesDrift: overwriteDrift };
      return { hash: digestOf(content), ...content };
    },
    apply: (plan, context) => turns(plan.spec.cell, () => apply(plan, context)),
    async observe(cell, signal) {
      signal.throwIfAborted();
      scripted("observe", cell);
      return observe(cell);
    },
    async health(cell, signal) {
      signal.throwIfAborted();
      scripted("health", cell);
      const running = cells.get(cell)?.running;
      return health.get(cell) ?? [{ name: "service/app", ok: Boolean(running), detail: running ? "" : "it does not run" }];
    },
    endpoints: async (cell) => (cells.get(cell)?.made ? { http: `${cell}.fake:80`, databaseUrl: null } : null),
    destroy: (cell, context, options) => turns(cell, () => destroy(cell, context, options)),
    failNext(verb, cell, error, times = 1) {
      for (let i = 0; i < times; i++) failures.push({ verb, cell, error });
    },
    killAt(point) {
      killPoint = point;
    },
    setHealth: (cell, checks) => void (checks ? health.set(cell, checks) : health.delete(cell)),
    edit(cell, path, value) {
      const found = cells.get(cell);
      if (found) found.facts[path] = value;
    },
    servedBy: (cell) => cells.get(cell)?.running ?? null,
    cells: () => [...cells].filter(([, cell]) => exists(cell)).map(([cell]) => cell),
  };
}

function setFact(facts: Facts, path: string, next: Facts): void {
  if (path in next) facts[path] = next[path];
  else delete facts[path];
}
