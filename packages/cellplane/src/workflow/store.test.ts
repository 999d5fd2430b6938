import { deepStrictEqual as deepEqual, rejects } from "node:assert";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AssertionFailure, assert } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
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
  /** A signal came while it was in hand. */
  heard: boolean;
}
/** What is so. The test is the worker. */
interface Real {
  id: string;
  worker: number;
  held: HeldRun | null;
}

const afterEvent = (state: RunState, event: RunEvent): RunState => {
  const to = next(state, event);
  assert(to !== "refuse", `${event} may happen in ${state}`);
  return to;
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
  assert(row, "the run is there");
  const still = isFinal(model.state) || model.state === "paused" || model.state === "parked";
  deepEqual({ ...row, owner: row.owner !== null }, {
    state: model.state, asked: model.asked, owner: model.inHand, finished: isFinal(model.state),
    begun: real.held?.begun ?? row.begun,
    due: still ? false : row.due,
    slots: isFinal(model.state) ? 0 : row.slots,
  });
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
  assert((run !== undefined) === (model.due && !model.inHand), "what is due, and only that, can be claimed");
  if (!run) return;
  if (run.locks.length > 0 && !run.locked && !(run.state === "undoing" && !run.begun && run.records.length === 0)) {
    const answer = await engine.store.transaction((tx) => takeLocks(tx, real.worker, run));
    assert(answer.kind === "locked" && answer.epoch > run.epoch, "a free lock is had, with a greater epoch");
    real.held = { ...run, locked: true, begun: run.begun || run.state === "running", epoch: answer.epoch };
  } else real.held = run;
  Object.assign(model, { state: afterEvent(model.state, "claim"), inHand: true, due: false, heard: false });
});

const answer = (name: string, given: Answer): Command =>
  command(name, (model) => model.inHand, async (model, real) => {
    const run = real.held;
    assert(run, "it is in hand");
    const task = nextTask(modelled, run);
    const move = task.kind === "end" ? task.move : moveAfter(modelled, task.step.name === run.step ? run : { ...run, step: task.step.name }, task, given, 0.5);
    if (task.kind !== "end" && task.step.name !== run.step) await engine.store.query("update run set step = $2 where id = $1", [run.id, task.step.name]);
    const writing = { run: task.kind === "end" ? run : { ...run, step: task.step.name }, move };
    const [written] = await engine.store.transaction((tx) => settle(tx, real.worker, [writing], { waits: false }));
    deepEqual(move.state, afterEvent(model.state, move.event));
    if (move.keeps) {
      model.state = move.state;
      if (move.state === "undoing") model.asked = null;
      real.held = { ...afterMove(writing.run, move), begun: move.begun && (model.asked === null || move.state === "undoing") };
    } else {
      letGo(model, move.state);
      if (!isFinal(model.state) && model.state === move.state) model.due = move.dueInMs !== null || (move.awaits === "signal" && model.heard);
      real.held = null;
    }
    deepEqual([written?.state, written?.asked], [model.state, model.asked]);
    // The same write once more is fenced off: the run is elsewhere now. (A step that is kept where it is may be written twice.)
    if (move.step !== writing.run.step || !move.keeps) deepEqual(await engine.store.transaction((tx) => settle(tx, real.worker, [writing], { waits: false })), []);
  });

const verbs = { pause: pauseRun, resume: resumeRun, cancel: cancelRun, retry: retryRun };
const ask = (verb: keyof typeof verbs): Command =>
  command(verb, () => true, async (model, real) => {
    const to = next(model.state, verb);
    const asked = engine.store.transaction((tx) => verbs[verb](tx, real.id));
    if (to === "refuse") return rejects(asked, { code: "wrong_state" });
    const { state } = await asked;
    if (model.inHand) {
      if (model.state === "running") model.asked = verb === "cancel" ? "cancel" : verb === "pause" ? (model.asked ?? "pause") : verb === "resume" && model.asked === "pause" ? null : model.asked;
    } else if (to !== model.state || (verb === "retry" && !isFinal(to))) {
      // What was never begun is undone at once.
      assert(state === to || (verb === "cancel" && state === "undone"), `${verb} leads to ${to}`);
      Object.assign(model, { state, due: state === "pending" || state === "undoing" });
    }
  });

const signal = command("signal", () => true, async (model, real) => {
  const told = engine.store.transaction((tx) => signalRun(tx, real.id, "go", 1));
  if (isFinal(model.state)) return rejects(told, { code: "wrong_state" });
  await told;
  model.heard = model.inHand;
  const [row] = await engine.store.query<{ due: boolean }>("select due_at is not null as due from run where id = $1", [real.id]);
  assert(row && (model.state !== "waiting" || row.due), "a run that waits for it wakes");
  model.due = row.due;
});

const die = command("die", () => true, async (model, real) => {
  const former = real.worker;
  real.worker = await openWorker(engine.store, { build: "test", workflows: versions });
  await releaseWorkers(engine.store, [former], { crashed: true });
  if (!model.inHand) return;
  const zombie = real.held;
  assert(zombie, "it is in hand");
  deepEqual(await engine.store.transaction((tx) => settle(tx, former, [{ run: zombie, move: moveToRelease(zombie) }], { waits: true })), []);
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
        await fc.asyncModelRun(() => ({ model: { state: "pending", inHand: false, asked: null, due: true, heard: false } satisfies Model as Model, real }), sequence);
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
