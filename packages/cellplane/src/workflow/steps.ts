import { setTimeout as sleep } from "node:timers/promises";
import { AssertionFailure, assert } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import type { EventSink } from "../drivers/driver.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { isFinal, type Json, type Outcome, type RunState, type StepContext, type Workflow } from "./model.ts";
import { afterMove, type Answer, type HeldRun, type Move, moveAfter, moveToChildren, moveToLockQueue, moveToRelease, nextTask, type Task } from "./plan.ts";
import { beginStep, cancelChildren, childId, getOperation, giveBack, intend, record, settle, startRun, takeLocks, wakeParents, type Writing, type Written, writeProgress } from "./store.ts";

/** What a worker tells about its work, as it happens. */
export type RunnerEvent =
  | { kind: "worker"; worker: number; what: "born" | "lost" | "ended"; why: string }
  | { kind: "takeover"; worker: number; from: number[] }
  | { kind: "begun" | "answered" | "fenced"; run: string; workflow: string; step: string; undo: boolean; epoch: number; attempt: number }
  | { kind: "written"; run: string; workflow: string; step: string | null; move: Move["event"]; state: RunState; epoch: number }
  | { kind: "problem"; error: unknown };

/** Why a step is told to stop although nothing is wrong with it. */
export class StopRequest extends Error {
  override name = "StopRequest";
}

/** One worker: a session with PostgreSQL, and what it has in hand as long as the session lives. */
export interface Worker {
  id: number;
  session: Queryable;
  store: Store;
  workflows: ReadonlyMap<string, Workflow>;
  events: EventSink | undefined;
  random: () => number;
  log: (event: RunnerEvent) => void;
  /** It is dead, and everything it had is someone else's. */
  over: boolean;
  /** It begins no further step. */
  draining: boolean;
  hands: Map<string, Hand>;
  /** Looks for runs to claim, soon. */
  lookAfter: (ms: number) => void;
  write: (writing: Writing) => Promise<Written | null>;
}

/** A run in work. */
export interface Hand {
  /** A person wants it stopped, which a run on its way back does not heed. */
  asked: boolean;
  undoing: boolean;
  /** Of the step in work. */
  stop: AbortController | null;
}

type StepTask = Exclude<Task, { kind: "end" }>;

export const workflowKey = (of: { name: string; version: number }): string => `${of.name}@${of.version}`;

/** Carries a claimed run from step to step until it ends, waits, or is someone else's. Never throws. */
export async function carry(worker: Worker, claimed: HeldRun, hand: Hand): Promise<void> {
  const workflow = worker.workflows.get(workflowKey({ name: claimed.workflow, version: claimed.version }));
  let run = claimed;
  try {
    assert(workflow, "a worker claims only what it knows");
    if (needsLocks(run)) {
      const locked = await lock(worker, run);
      if (!locked) return;
      run = locked;
    }
    let childrenEnded = false;
    while (!worker.over) {
      if (worker.draining || (hand.asked && run.state === "running")) return void (await worker.write({ run, move: moveToRelease(run) }));
      if (run.state === "undoing" && !childrenEnded) {
        const open = await cancelChildren(worker.store, run.id);
        if (open.length > 0) return await wait(worker, run, moveToChildren(run, open));
        childrenEnded = true;
      }
      const task = nextTask(workflow, run);
      if (task.kind === "end") return void (await worker.write({ run, move: task.move }));
      if (task.step.name !== run.step) {
        if (!(await intend(worker.session, worker.id, run, task.step.name))) return;
        run = { ...run, step: task.step.name, begun: run.state === "running", elapsedMs: 0 };
      }
      const [move, written] = await perform(worker, workflow, run, task, hand);
      // It is in other hands, or a commit was not heard of; whose it is then, the fence knows.
      if (!written) return await giveBack(worker.session, worker.id, run, 0);
      if (!move.keeps) return;
      run = afterMove(run, move);
      if (written.asked !== null && run.state === "running") {
        hand.asked = true;
        run = { ...run, begun: false };
      }
    }
  } catch (error) {
    // Nothing is known of where the run stands now; whoever reads it next will see. Not at once, lest the same happens for ever.
    if (worker.over) return;
    worker.log({ kind: "problem", error });
    await giveBack(worker.session, worker.id, run, 1000).catch(() => undefined);
  }
}

/** What was cancelled before it had its locks has nothing to take back. */
const needsLocks = (run: HeldRun): boolean => run.locks.length > 0 && !run.locked && !(run.state === "undoing" && !run.begun && run.records.length === 0);

async function lock(worker: Worker, run: HeldRun): Promise<HeldRun | null> {
  const answer = await worker.store.transaction(async (tx) => {
    const answer = await takeLocks(tx, worker.id, run);
    if (answer.kind === "queued") await record(tx, worker.id, [{ run, move: moveToLockQueue(run, answer.lock, answer.holders) }], { waits: true });
    return answer;
  });
  return answer.kind === "locked" ? { ...run, locked: true, epoch: answer.epoch, begun: run.begun || run.state === "running" } : null;
}

/** The children may all have ended before the wait was written, when nobody could see it. */
async function wait(worker: Worker, run: HeldRun, move: Move): Promise<void> {
  if (await worker.write({ run, move })) await wakeParents(worker.store, [run.id]);
}

/** Tries the task's step once and writes what came of it. Null: the run is in other hands. */
async function perform(worker: Worker, workflow: Workflow, run: HeldRun, task: StepTask, hand: Hand): Promise<[Move, Written | null]> {
  const about = { run: run.id, workflow: run.workflow, step: task.step.name, undo: task.kind === "undo", epoch: run.epoch, attempt: run.failures + 1 };
  worker.log({ kind: "begun", ...about });
  const transactional = task.kind === "run" && task.step.tx !== undefined;
  let move: Move;
  let written: Written | null;
  if (transactional) [move, written] = await tryInTransaction(worker, workflow, run, task, hand);
  else {
    const answer = await tryStep(worker, run, task, hand, (context) => (task.kind === "run" ? task.step.run?.(context) : task.step.undo?.(context)));
    worker.log({ kind: "answered", ...about });
    move = moveAfter(workflow, run, task, answer, worker.random());
    written = await worker.write({ run, move }).catch((error: unknown) => {
      // What PostgreSQL can not store is a failure of the step that answered it.
      move = moveAfter(workflow, run, task, { kind: "error", error }, worker.random());
      return worker.write({ run, move });
    });
  }
  if (!written) worker.log({ kind: "fenced", ...about });
  else if (move.awaits === "children") await wakeParents(worker.store, [run.id]);
  return [move, written];
}

/** The run is in other hands. */
class Fenced extends Error {}
/** The step failed, or was told to stop: its transaction is rolled back, and the answer written on its own. */
class NothingToCommit extends Error {}

const timeoutDefaultMs = 600_000;

/** The step, its record and what follows from it are one transaction, so that its effect is there exactly once. */
async function tryInTransaction(worker: Worker, workflow: Workflow, run: HeldRun, task: StepTask, hand: Hand): Promise<[Move, Written | null]> {
  let move = moveToRelease(run);
  let answer: Answer = { kind: "interrupted" };
  try {
    const written = await worker.store.transaction(async (tx) => {
      if (!(await beginStep(tx, worker.id, run, task.step.timeoutMs ?? timeoutDefaultMs))) throw new Fenced();
      answer = await tryStep(worker, run, task, hand, (context) => task.step.tx?.(context, tx), tx);
      if (answer.kind !== "outcome") throw new NothingToCommit();
      move = moveAfter(workflow, run, task, answer, worker.random());
      const [written] = await settle(tx, worker.id, [{ run, move }], { waits: true });
      if (!written) throw new Fenced();
      tellEvents(worker, tx, [{ run, move }], [written]);
      return written;
    });
    afterWrite(worker, [{ run, move }], [written]);
    return [move, written];
  } catch (error) {
    if (error instanceof Fenced || worker.over) return [move, null];
    move = moveAfter(workflow, run, task, error instanceof NothingToCommit ? answer : { kind: "error", error }, worker.random());
    return [move, await worker.write({ run, move })];
  }
}

async function tryStep(worker: Worker, run: HeldRun, { step }: StepTask, hand: Hand, call: (context: StepContext<never>) => Promise<Outcome | void> | undefined, tx?: Tx): Promise<Answer> {
  const stop = new AbortController();
  const { timeoutMs = timeoutDefaultMs } = step;
  const timer = setTimeout(() => stop.abort(fail("step_timed_out", { step: step.name, timeoutMs })), timeoutMs);
  // One that does not listen is left behind when its time is over or its worker dead: what it still does is fenced by its
  // epoch. In a transaction it is waited for, since the connection is its own until it ends.
  const leftBehind = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => {
      if (!tx && !(stop.signal.reason instanceof StopRequest)) reject(stop.signal.reason as Error);
    });
  });
  leftBehind.catch(() => undefined);
  hand.stop = stop;
  hand.undoing = run.state === "undoing";
  if (hand.asked && run.state === "running") stop.abort(new StopRequest());
  try {
    const outcome = await Promise.race([call(contextOf(worker, run, step.name, stop.signal, tx)), leftBehind]);
    return { kind: "outcome", outcome: outcome ?? { kind: "done" } };
  } catch (error) {
    if (!stop.signal.aborted || error instanceof AssertionFailure) return { kind: "error", error };
    return stop.signal.reason instanceof StopRequest ? { kind: "interrupted" } : { kind: "error", error: stop.signal.reason };
  } finally {
    clearTimeout(timer);
    hand.stop = null;
  }
}

function contextOf(worker: Worker, run: HeldRun, step: string, signal: AbortSignal, tx?: Tx): StepContext<never> {
  const db = tx ?? worker.store;
  return {
    input: run.input as never,
    token: { runId: run.id, epoch: run.epoch },
    attempt: run.failures + 1,
    elapsedMs: run.elapsedMs,
    signal,
    result: <T extends Json>(name: string) => (run.records.find((record) => record.name === name)?.result ?? undefined) as T | undefined,
    received: (name) => run.signals[name],
    progress: (message, ratio) => writeProgress(worker.store, worker.id, run, message, ratio ?? null),
    child: (name, key, input) => {
      const [latest] = [...worker.workflows.values()].filter((workflow) => workflow.name === name).sort((a, b) => b.version - a.version);
      assert(latest, `this build knows the workflow ${name}`);
      return startRun<Json>(db, latest, input, { id: childId(run.id, step, key), parent: run.id });
    },
    operation: (id) => getOperation(db, id),
  };
}

// ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Entry {
  writing: Writing;
  resolve: (written: Written | null) => void;
  reject: (error: unknown) => void;
}

const batchMax = 200;

/**
 * Gathers what steps come to while a write is under way and writes it together, so that under load many steps share a
 * round trip and a commit. What frees locks or tells events needs a transaction; the rest is one statement on the
 * worker's own session, which never waits for a lock.
 */
export function createWriter(worker: Omit<Worker, "write">): Worker["write"] {
  const plain = createQueue(worker, (writings) => record(worker.session, worker.id, writings, { waits: false }));
  const settling = createQueue(worker, (writings) => writeInTransaction(worker, writings, { waits: false }));
  return (writing) => (needsTransaction(worker, writing) ? settling(writing) : plain(writing));
}

function createQueue(worker: Omit<Worker, "write">, send: (writings: Writing[]) => Promise<Written[]>): Worker["write"] {
  const entries: Entry[] = [];
  let busy = false;

  async function drain(): Promise<void> {
    // Whatever else ends in this turn of the event loop comes along.
    await new Promise(setImmediate);
    while (entries.length > 0) {
      const batch = entries.splice(0, batchMax);
      const writings = batch.map(({ writing }) => writing);
      const written = await send(writings).catch(() => []);
      afterWrite(worker, writings, written);
      const rows = new Map(written.map((row) => [row.id, row]));
      for (const entry of batch) {
        const row = rows.get(entry.writing.run.id);
        if (row) entry.resolve(row);
        else void sendAlone(worker, entry);
      }
    }
    busy = false;
  }

  return (writing) =>
    new Promise((resolve, reject) => {
      entries.push({ writing, resolve, reject });
      if (busy) return;
      busy = true;
      void drain();
    });
}

/** A write that did not happen among others: its run is in other hands, its row was locked, or one of the batch can not be stored. Alone, it is known which. */
async function sendAlone(worker: Omit<Worker, "write">, { writing, resolve, reject }: Entry): Promise<void> {
  while (!worker.over) {
    try {
      const written = await writeInTransaction(worker, [writing], { waits: true });
      afterWrite(worker, [writing], written);
      return resolve(written[0] ?? null);
    } catch (error) {
      if (!isPassing(error)) return reject(error);
      await sleep(20);
    }
  }
  resolve(null);
}

/** The connection broke, or PostgreSQL asks to try again: the same write may be sent again, since it is fenced by the step it came from. */
const isPassing = (error: unknown): boolean => (error instanceof CellplaneError ? error.kind.retry !== "never" : ["40001", "40P01", "25P03", "55P03"].includes((error as { code?: string }).code ?? ""));

const writeInTransaction = (worker: Omit<Worker, "write">, writings: Writing[], options: { waits: boolean }): Promise<Written[]> =>
  worker.store.transaction(async (tx) => {
    const written = await settle(tx, worker.id, writings, options);
    tellEvents(worker, tx, writings, written);
    return written;
  });

/** A step that is done, or waits, is told by its log alone; events are for what becomes of the whole run. */
const toldMoves: readonly Move["event"][] = ["succeed", "fail", "giveUp", "park", "undone", "undoFail", "release"];

const needsTransaction = ({ events }: Omit<Worker, "write">, { run, move }: Writing): boolean =>
  (isFinal(move.state) && run.locks.length > 0) || (events !== undefined && toldMoves.includes(move.event));

function tellEvents({ events }: Omit<Worker, "write">, tx: Tx, writings: Writing[], written: Written[]): void {
  if (!events) return;
  for (const { id, state } of written) {
    const writing = writings.find(({ run }) => run.id === id);
    if (!writing || !toldMoves.includes(writing.move.event) || state === "pending") continue;
    const { run, move } = writing;
    events.emit(tx, `operation.${state}`, run.subject, { operation: id, workflow: run.workflow, step: run.step, error: move.error });
  }
}

function afterWrite(worker: Omit<Worker, "write">, writings: Writing[], written: Written[]): void {
  const rows = new Map(written.map((row) => [row.id, row]));
  const parents = new Set<string>();
  for (const { run, move } of writings) {
    const row = rows.get(run.id);
    if (!row) continue;
    worker.log({ kind: "written", run: run.id, workflow: run.workflow, step: move.record?.name ?? run.step, move: move.event, state: row.state, epoch: run.epoch });
    if (move.dueInMs !== null) worker.lookAfter(move.dueInMs);
    if (isFinal(row.state) && run.parent !== null) parents.add(run.parent);
  }
  if (parents.size > 0) wakeParents(worker.store, [...parents]).catch((error: unknown) => worker.log({ kind: "problem", error }));
}
