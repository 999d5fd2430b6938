import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AssertionFailure } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { next, type RunEvent } from "./machine.ts";
import { isFinal, type RunState } from "./model.ts";
import { afterMove, type Answer, type HeldRun, moveAfter, moveToRelease, nextTask } from "./plan.ts";
import { cancelRun, claim, getOperation, openWorker, pauseRun, releaseWorkers, resumeRun, retryRun, settle, signalRun, startRun, takeLocks } from "./store.ts";
import { workflowKey } from "./steps.ts";
import { type Engine, flow, openEngine } from "./testing/engine.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine();
});
afterAll(() => engine.close());

const nothing = async (): Promise<void> => undefined;
const modelled = flow("modelled", [{ name: "a", run: nothing, undo: nothing }, { name: "b", run: nothing }, { name: "c", run: nothing, undo: nothing }], { locks: () => [{ name: "modelled", slots: 1 }] });
const versions = [workflowKey(modelled)];

/** What should be so, by the table alone. */
interface Model {
  state: RunState;
  inHand: boolean;
  asked: "pause" | "cancel" | null;
  due: boolean;
}
/** What is so. The test is the worker. */
interface Real {
  id: string;
  worker: number;
  held: HeldRun | null;
}

const afterEvent = (state: RunState, event: RunEvent): RunState => {
  const to = next(state, event);
  expect(to, `${event} in ${state}`).not.toBe("refuse");
  return to as RunState;
};

/** Letting go, what was asked for takes place, but nothing stops an end or a way back. */
function letGo(model: Model, wanted: RunState): void {
  const asked = model.state === "running" && !isFinal(wanted) ? model.asked : null;
  model.state = asked === "cancel" ? "undoing" : asked === "pause" && (wanted === "pending" || wanted === "waiting") ? "paused" : wanted;
  model.inHand = false;
  model.asked = null;
  model.due = model.state === "pending" || model.state === "undoing";
}

async function check(model: Model, real: Real): Promise<void> {
  const [row] = await engine.store.query<{ state: RunState; owner: number | null; asked: string | null; begun: boolean; due: boolean; finished: boolean; slots: number }>(
    "select state, owner, begun, asked, due_at is not null as due, finished_at is not null as finished, (select count(*) from run_lock where run = $1) as slots from run where id = $1",
    [real.id],
  );
  expect(row).toMatchObject({ state: model.state, asked: model.asked, finished: isFinal(model.state) });
  expect(row?.owner !== null).toBe(model.inHand);
  if (real.held) expect(row?.begun).toBe(real.held.begun);
  if (isFinal(model.state)) expect(row).toMatchObject({ due: false, slots: 0 });
  if (model.state === "paused" || model.state === "parked") expect(row?.due).toBe(false);
}

type Command = fc.AsyncCommand<Model, Real>;
const command = (name: string, can: (model: Readonly<Model>) => boolean, run: (model: Model, real: Real) => Promise<void>): Command => ({
  check: can,
  run: async (model, real) => {
    await run(model, real);
    await check(model, real);
  },
  toString: () => name,
});

const claimIt = command("claim", () => true, async (model, real) => {
  // Time passes: whatever waits for it is due.
  await engine.store.query("update run set due_at = now() - interval '1 s' where id = $1 and due_at is not null", [real.id]);
  const [run] = await claim(engine.store, real.worker, versions, 1);
  expect(run !== undefined).toBe(model.due && !model.inHand);
  if (!run) return;
  if (run.locks.length > 0 && !run.locked && !(run.state === "undoing" && !run.begun && run.records.length === 0)) {
    expect((await engine.store.transaction((tx) => takeLocks(tx, real.worker, run))).kind).toBe("locked");
    const [{ epoch } = expect.unreachable()] = await engine.store.query<{ epoch: number }>("select epoch from run where id = $1", [real.id]);
    expect(epoch).toBeGreaterThan(run.epoch);
    real.held = { ...run, locked: true, begun: run.begun || run.state === "running", epoch };
  } else real.held = run;
  Object.assign(model, { state: afterEvent(model.state, "claim"), inHand: true, due: false });
});

const answer = (name: string, given: Answer): Command =>
  command(name, (model) => model.inHand, async (model, real) => {
    const run = real.held ?? expect.unreachable();
    const task = nextTask(modelled, run);
    const move = task.kind === "end" ? task.move : moveAfter(modelled, task.step.name === run.step ? run : { ...run, step: task.step.name }, task, given, 0.5);
    if (task.kind !== "end" && task.step.name !== run.step) await engine.store.query("update run set step = $2 where id = $1", [run.id, task.step.name]);
    const writing = { run: task.kind === "end" ? run : { ...run, step: task.step.name }, move };
    const [written] = await engine.store.transaction((tx) => settle(tx, real.worker, [writing], { waits: false }));
    expect(afterEvent(model.state, move.event)).toBe(move.state);
    if (move.keeps) {
      model.state = move.state;
      if (move.state === "undoing") model.asked = null;
      real.held = { ...afterMove(writing.run, move), begun: move.begun && (model.asked === null || move.state === "undoing") };
    } else {
      letGo(model, move.state);
      if (move.dueInMs !== null && !isFinal(model.state) && model.state === move.state) model.due = true;
      if (model.state === "undoing" && move.dueInMs === null && move.state === "undoing") model.due = false;
      real.held = null;
    }
    expect(written).toMatchObject({ state: model.state, asked: model.asked });
    // The same write once more is fenced off: the run is elsewhere now. (A step that is kept where it is may be written twice.)
    if (move.step !== writing.run.step || !move.keeps) expect(await engine.store.transaction((tx) => settle(tx, real.worker, [writing], { waits: false }))).toEqual([]);
  });

const verbs = { pause: pauseRun, resume: resumeRun, cancel: cancelRun, retry: retryRun };
const ask = (verb: keyof typeof verbs): Command =>
  command(verb, () => true, async (model, real) => {
    const to = next(model.state, verb);
    const asked = engine.store.transaction((tx) => verbs[verb](tx, real.id));
    if (to === "refuse") return void (await expect(asked).rejects.toMatchObject({ code: "wrong_state" }));
    const { state } = await asked;
    if (model.inHand) {
      if (model.state === "running") model.asked = verb === "cancel" ? "cancel" : verb === "pause" ? (model.asked ?? "pause") : verb === "resume" && model.asked === "pause" ? null : model.asked;
    } else if (to !== model.state || (verb === "retry" && !isFinal(to))) {
      // What was never begun is undone at once.
      expect(state === to || (verb === "cancel" && state === "undone")).toBe(true);
      Object.assign(model, { state, due: state === "pending" || state === "undoing" });
    }
  });

const signal = command("signal", () => true, async (model, real) => {
  const told = engine.store.transaction((tx) => signalRun(tx, real.id, "go", 1));
  if (isFinal(model.state)) return void (await expect(told).rejects.toBeInstanceOf(CellplaneError));
  await told;
  const [{ due } = expect.unreachable()] = await engine.store.query<{ due: boolean }>("select due_at is not null as due from run where id = $1", [real.id]);
  if (model.state === "waiting") expect(due).toBe(true);
  model.due = due;
});

const die = command("die", () => true, async (model, real) => {
  const former = real.worker;
  real.worker = await openWorker(engine.store, { build: "test", workflows: versions });
  await releaseWorkers(engine.store, [former], { crashed: true });
  if (!model.inHand) return;
  const zombie = real.held ?? expect.unreachable();
  expect(await engine.store.transaction((tx) => settle(tx, former, [{ run: zombie, move: moveToRelease(zombie) }], { waits: true }))).toEqual([]);
  real.held = null;
  letGo(model, afterEvent(model.state, "release"));
});

// Weighted so that runs get somewhere: most sequences would else end at the first cancel.
const weighted: [number, Command][] = [
  [8, claimIt],
  [10, answer("done", { kind: "outcome", outcome: { kind: "done", result: 1 } })],
  [1, answer("again", { kind: "outcome", outcome: { kind: "again", afterMs: 60_000 } })],
  [2, answer("wait for a signal", { kind: "outcome", outcome: { kind: "signal", name: "go", timeoutMs: null } })],
  [1, answer("park", { kind: "outcome", outcome: { kind: "park", reason: "look" } })],
  [2, answer("fail", { kind: "error", error: new Error("no") })],
  [1, answer("fail for good", { kind: "error", error: fail("not_found", { what: "cell", name: "x" }) })],
  [1, answer("break a promise", { kind: "error", error: new AssertionFailure("this does not hold: x") })],
  [1, answer("stop", { kind: "interrupted" })],
  [3, ask("pause")], [3, ask("resume")], [1, ask("cancel")], [3, ask("retry")], [2, signal], [2, die],
];
const commands = weighted.flatMap(([weight, command]) => Array.from({ length: weight }, () => fc.constant(command)));

test("W1, W4, W8, W9: whatever workers, people and deaths do to a run, its row is where the table says", async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 30, size: "max" }), async (sequence) => {
      const real: Real = { id: await engine.store.transaction((tx) => startRun(tx, modelled, {})), worker: await openWorker(engine.store, { build: "test", workflows: versions }), held: null };
      try {
        await fc.asyncModelRun(() => ({ model: { state: "pending", inHand: false, asked: null, due: true } satisfies Model as Model, real }), sequence);
        expect((await getOperation(engine.store, real.id)).id).toBe(real.id);
      } finally {
        await engine.store.query("update run set due_at = null, owner = null where id = $1", [real.id]);
        await engine.store.query("delete from run_lock");
        await engine.store.query("delete from worker");
      }
    }),
    { numRuns: 60, seed, endOnFailure: true },
  );
}, 60_000);
