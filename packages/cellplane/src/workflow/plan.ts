import { AssertionFailure, assert } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { next, type RunEvent } from "./machine.ts";
import type { Json, Lock, Operation, OperationStep, Outcome, RunState, Step, Workflow } from "./model.ts";

/** A run in a worker's hands, as the worker knows it. */
export interface HeldRun {
  id: string;
  workflow: string;
  version: number;
  subject: string;
  state: "running" | "undoing";
  input: Json;
  parent: string | null;
  epoch: number;
  /** The step in work or next. Null: none, which undoing may come to. */
  step: string | null;
  /** The step may have been started, and then has to be taken back even though it is not recorded. */
  begun: boolean;
  /** Failed tries of the step. */
  failures: number;
  /** How often a process died with the step in its hands. */
  crashes: number;
  /** Since the step was first begun. */
  elapsedMs: number;
  signals: Record<string, Json>;
  /** Counts the signals, so that one that comes while a step decides to wait for it is not missed. */
  signalsSeen: number;
  locks: Lock[];
  locked: boolean;
  /** In the order in which they were done. */
  records: Pick<OperationStep, "name" | "state" | "result">[];
}

/** What a worker does next with a run. */
export type Task = { kind: "run" | "undo"; step: Step<never> } | { kind: "end"; move: Move };

/** What is written when a step has ended: one statement, and the run is elsewhere. */
export interface Move {
  event: RunEvent;
  /** What became of the step; null when it is still open. */
  record: Pick<OperationStep, "name" | "state" | "attempts" | "result"> | null;
  state: RunState;
  step: string | null;
  begun: boolean;
  failures: number;
  /** The worker goes on with the run. */
  keeps: boolean;
  /** When it may be claimed again; null: not before someone wakes it. */
  dueInMs: number | null;
  awaits: "signal" | "children" | "lock" | null;
  /** The signal's name, the children's ids, or the lock's name and its slots. */
  awaited: string[];
  /** Why it does not move, for people. */
  waitsFor: string | null;
  /** Null: as it was. */
  error: Operation["error"];
  result: Json;
  /** Done steps ÷ all steps; null: as it was. */
  ratio: number | null;
  /** A line for the run's log; null: nothing worth a line. */
  line: string | null;
}

/** What a try of a step came to. Interrupted: it was told to stop, and did. */
export type Answer = { kind: "outcome"; outcome: Outcome } | { kind: "error"; error: unknown } | { kind: "interrupted" };

/** A step that takes its process down this often is left for a person, before it takes down every instance for ever. */
export const crashesMax = 10;
const retryDefaults = { attemptsMax: 5, firstDelayMs: 200, delayMaxMs: 30_000 };

const done = (run: HeldRun): string[] => run.records.filter((record) => record.state === "done").map((record) => record.name);

/** The step begun and not recorded first, then what was done, latest first; steps without an undo are passed over. */
function toUndo(workflow: Workflow, run: HeldRun): string[] {
  const recorded = new Set(run.records.map((record) => record.name));
  const open = run.begun && run.step !== null && !recorded.has(run.step) ? [run.step] : [];
  return [...open, ...done(run).toReversed()].filter((name) => {
    const step = workflow.steps.find((step) => step.name === name);
    return !step || step.undo;
  });
}

/** The next thing to do with a run, from what is recorded and not from where it stood: a build may have put steps in between. */
export function nextTask(workflow: Workflow, run: HeldRun): Task {
  if (run.crashes >= crashesMax) {
    const error = describeError(fail("step_interrupted", { step: run.step ?? "none", times: run.crashes }));
    return { kind: "end", move: move(run, run.state === "undoing" ? "undoFail" : "park", { error, waitsFor: error.message, line: error.message }) };
  }
  if (run.state === "running") {
    const recorded = new Set(done(run));
    const step = workflow.steps.find((step) => !recorded.has(step.name));
    return step ? { kind: "run", step } : { kind: "end", move: move(run, "succeed", { ratio: 1, step: null }) };
  }
  const [name] = toUndo(workflow, run);
  if (name === undefined) return { kind: "end", move: move(run, "undone", { step: null, line: "everything is taken back" }) };
  const step = workflow.steps.find((step) => step.name === name);
  if (step) return { kind: "undo", step };
  const error = describeError(fail("step_unknown", { step: name }));
  return { kind: "end", move: move(run, "undoFail", { error, line: error.message }) };
}

/**
 * What to write after a try of a step.
 *
 * @param random uniform in [0, 1): where in its range the pause before the next try lies
 */
export function moveAfter(workflow: Workflow, run: HeldRun, task: Exclude<Task, { kind: "end" }>, answer: Answer, random: number): Move {
  const { step } = task;
  if (answer.kind === "interrupted") return move(run, "release", { dueInMs: 0 });
  if (answer.kind === "error") return afterError(workflow, run, task, answer.error, random);
  const { outcome } = answer;
  switch (outcome.kind) {
    case "done":
      return afterDone(workflow, run, task, outcome.result ?? null);
    case "again":
      return move(run, "wait", { failures: 0, dueInMs: outcome.afterMs, waitsFor: outcome.note ?? `looks again at ${step.name} every ${outcome.afterMs} ms`, line: outcome.note ?? null });
    case "signal":
      return move(run, "wait", { failures: 0, dueInMs: outcome.timeoutMs, awaits: "signal", awaited: [outcome.name], waitsFor: `waits for the signal ${outcome.name}`, line: `waits for the signal ${outcome.name}` });
    case "children":
      return move(run, "wait", { failures: 0, awaits: "children", awaited: outcome.runIds, waitsFor: `waits for ${outcome.runIds.length} operations that it started` });
    case "park": {
      const error = describeError(fail("step_failed", { step: step.name, why: outcome.reason }));
      return move(run, run.state === "undoing" ? "undoFail" : "park", { error, waitsFor: outcome.reason, line: `${step.name}: ${outcome.reason}` });
    }
  }
}

function afterDone(workflow: Workflow, run: HeldRun, { kind, step }: Exclude<Task, { kind: "end" }>, result: Json): Move {
  const former = run.records.find(({ name }) => name === step.name);
  const record = { name: step.name, state: kind === "run" ? ("done" as const) : ("undone" as const), attempts: run.failures + 1, result: kind === "run" ? result : (former?.result ?? null) };
  const after: HeldRun = { ...run, step: null, begun: false, failures: 0, crashes: 0, records: withRecord(run, record) };
  const line = `${step.name}: ${kind === "run" ? "done" : "taken back"}${run.failures > 0 ? ` at attempt ${run.failures + 1}` : ""}`;
  const following = nextTask(workflow, after);
  if (following.kind === "end") return { ...following.move, record, result, line: following.move.line === null ? line : `${line}; ${following.move.line}` };
  const ratio = done(after).length / workflow.steps.length;
  return move(after, "done", { record, step: following.step.name, begun: kind === "run", keeps: true, ratio, line });
}

function afterError(workflow: Workflow, run: HeldRun, { step }: Exclude<Task, { kind: "end" }>, cause: unknown, random: number): Move {
  const error = describeError(cause, step.name);
  const undoing = run.state === "undoing";
  if (cause instanceof AssertionFailure) return move(run, undoing ? "undoFail" : "park", { error, waitsFor: error.message, line: `${step.name}: ${error.message}` });

  const { attemptsMax, firstDelayMs, delayMaxMs } = { ...retryDefaults, ...step.retry };
  const failures = run.failures + 1;
  const hopeless = cause instanceof CellplaneError && cause.kind.retry === "never";
  if (!hopeless && failures < attemptsMax) {
    const dueInMs = random * Math.min(delayMaxMs, firstDelayMs * 2 ** (failures - 1));
    const line = `attempt ${failures} of ${attemptsMax} failed: ${error.message}`;
    return move(run, "wait", { failures, dueInMs, waitsFor: line, line });
  }
  const line = `${step.name}: gave up at attempt ${failures}: ${error.message}`;
  if (undoing) return move(run, "undoFail", { failures, error, line });
  if (step.whenExhausted === "park") return move(run, "park", { failures, error, waitsFor: error.message, line });
  const [first] = toUndo(workflow, run);
  if (first === undefined) return move(run, "fail", { failures, error, line });
  return move(run, "giveUp", { step: first, begun: run.begun && first === run.step, failures: 0, error, line, keeps: true });
}

/** The run as it is once the move is written. */
export function afterMove(run: HeldRun, { state, step, begun, failures, record }: Move): HeldRun {
  assert(state === "running" || state === "undoing", "only a run that is kept goes on");
  return { ...run, state, step, begun, failures, crashes: 0, elapsedMs: record ? 0 : run.elapsedMs, records: record ? withRecord(run, record) : run.records };
}

const withRecord = (run: HeldRun, record: HeldRun["records"][number]): HeldRun["records"] => [...run.records.filter(({ name }) => name !== record.name), record];

/** The run goes to wait for a lock, and begins nothing meanwhile. */
export const moveToLockQueue = (run: HeldRun, lock: Lock, holders: string[]): Move =>
  move(run, "wait", { awaits: "lock", awaited: [lock.name, String(lock.slots)], waitsFor: `waits for ${lock.name}, held by ${holders.join(", ")}` });

/** The run goes back only when everything it has started has gone back. */
export const moveToChildren = (run: HeldRun, runIds: string[]): Move =>
  move(run, "wait", { awaits: "children", awaited: runIds, waitsFor: `waits for ${runIds.length} operations that it started to end` });

/** The run goes back to where any worker may claim it. */
export const moveToRelease = (run: HeldRun): Move => move(run, "release", { dueInMs: 0 });

function move(run: HeldRun, event: RunEvent, change: Partial<Move>): Move {
  const state = next(run.state, event);
  assert(state !== "refuse", `${event} can happen to a run that is ${run.state}`);
  return {
    event, state, record: null, step: run.step, begun: run.begun, failures: run.failures, keeps: false, dueInMs: null, awaits: null, awaited: [], waitsFor: null,
    error: null, result: null, ratio: null, line: null, ...change,
  };
}

/** What people are told of a failure: code, what happened, what to do. */
export function describeError(error: unknown, step = ""): NonNullable<Operation["error"]> {
  if (error instanceof CellplaneError) return { code: error.code, message: error.message, fix: error.kind.fix };
  // PostgreSQL stores neither NUL nor half a character, and nobody reads more than this.
  const why = (error instanceof Error ? error.message : String(error)).replace(/\p{Surrogate}|\0/gu, "\ufffd").slice(0, 2000);
  return describeError(error instanceof AssertionFailure ? fail("defect", { what: why }) : fail("step_failed", { step, why }));
}
