import { z } from "zod";
import type { Tx } from "../store/model.ts";

/**
 * A run is one durable execution of a workflow; people meet it as an *operation*. machine.ts has the whole table.
 *
 *   pending ─► running ─► succeeded
 *      ▲        │ ▲ ├───► failed          (a step gave up and there is nothing to undo)
 *      │        ▼ │ └───► undoing ─► undone | undo_failed  (a person may have the undo tried again)
 *      │      waiting                     (sleeps, awaits a lock, a signal or children, retries later; holds no slot)
 *      ├───── paused                      (a person must resume)
 *      └───── parked                      (a person must retry or cancel)
 */
export const runStates = ["pending", "running", "waiting", "paused", "parked", "undoing", "succeeded", "failed", "undone", "undo_failed"] as const;
export type RunState = (typeof runStates)[number];
export const finalStates = ["succeeded", "failed", "undone", "undo_failed"] as const satisfies readonly RunState[];

export const isFinal = (state: RunState): boolean => (finalStates as readonly RunState[]).includes(state);

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What an effect carries so that the receiver can refuse a zombie: "apply only if the epoch is ≥ the last one seen". */
interface FencingToken {
  runId: string;
  /** Greater at every claim than at any claim before, of this run or another: whoever holds a lock later has the greater one. */
  epoch: number;
}

/** AbortSignal, where the program knows a platform. Spelled so because the pure files, which know none, import this model. */
type StopSignal = typeof globalThis extends { AbortSignal: { prototype: infer S } } ? S : { readonly aborted: boolean };

/** What a step answers. Plain data is "done". */
export type Outcome =
  | { kind: "done"; result?: Json }
  /** Run this step again after a while; holds no slot meanwhile. */
  | { kind: "again"; afterMs: number; note?: string }
  /** Run this step again when the signal arrives or the time is over. */
  | { kind: "signal"; name: string; timeoutMs: number | null }
  /** Run this step again when all these child runs are final. */
  | { kind: "children"; runIds: string[] }
  /** Only a person can help: wait for retry or cancel. */
  | { kind: "park"; reason: string };

export interface StepContext<I> {
  input: I;
  token: FencingToken;
  /** 1 until a try of this step has failed, then 2. */
  attempt: number;
  /** Since this step was first begun, whatever came between, by the database's clock: how a step that answers "again" knows its age. */
  elapsedMs: number;
  /** Aborts on pause, cancel, a lost lease, shutdown and the step's timeout. */
  signal: StopSignal;
  /** The recorded result of an earlier step, by its name. */
  result<T extends Json>(step: string): T | undefined;
  /** Signals received so far, by name. */
  received(name: string): Json | undefined;
  /** Progress for people: stored in the run's append-only log. `ratio` is 0…1 of the whole run. */
  progress(message: string, ratio?: number): Promise<void>;
  /** Starts a child run once, however often the step runs: its id is derived from this run, this step and `key`. */
  child(workflow: string, key: string, input: Json): Promise<string>;
  /** Another run as it stands now, a child above all. @throws CellplaneError not_found */
  operation(runId: string): Promise<Operation>;
}

/**
 * Steps are found by name when a run resumes, so a build may reorder or add them. Each may run twice (after a crash it
 * will), so it is idempotent. `tx` steps run inside the transaction that records them: exactly once. A step has either
 * `run` or `tx`; an undo is always of the first kind.
 */
export interface Step<I> {
  name: string;
  run?: (context: StepContext<I>) => Promise<Outcome | void>;
  tx?: (context: StepContext<I>, tx: Tx) => Promise<Outcome | void>;
  /** Takes back what `run` did, or may have done: also called for the step that failed or was interrupted. Absent: nothing to take back. */
  undo?: (context: StepContext<I>) => Promise<Outcome | void>;
  /** Full jitter: each pause is uniform in 0…min(delayMaxMs, firstDelayMs · 2ⁿ). Default: 5 attempts, 200 ms, 30 s. */
  retry?: { attemptsMax: number; firstDelayMs?: number; delayMaxMs?: number };
  /** After the last attempt: take back what was done (the default), or park, where going back is worse than waiting for a person. */
  whenExhausted?: "undo" | "park";
  /** The step's signal aborts after this long and the attempt counts as failed. Default 10 minutes. */
  timeoutMs?: number;
}

export interface Lock {
  /** As in "cell/eu-1" or "region/eu". */
  name: string;
  /** 1 for exclusive; more for a semaphore of that many slots. */
  slots: number;
}

export interface Workflow<I = never> {
  name: string;
  /** Raised when a run of the former build could not be continued by this one; the runner claims only versions it has. */
  version: number;
  input: z.ZodType<I>;
  /** What it is about, as in "cell/eu-1": operations are listed by it. */
  subject: (input: I) => string;
  /** Taken in sorted order before the first step, held until the run is final. */
  locks?: (input: I) => Lock[];
  steps: Step<I>[];
}

/** A workflow whose input's type is remembered for whoever starts it; the runner need not know it. */
export type StartableWorkflow<I> = Workflow & { readonly accepts?: I };
export const workflow = <I>(definition: Workflow<I>): StartableWorkflow<I> => definition as unknown as Workflow;

/** A run as the API shows it. */
export const Operation = z.object({
  id: z.string(),
  workflow: z.string(),
  version: z.int().min(1),
  subject: z.string(),
  state: z.enum(runStates),
  /** Name of the step in work or next; null when final. */
  step: z.string().nullable(),
  /** Done steps ÷ all steps, or what the step last reported. 0…1 */
  ratio: z.number().min(0).max(1),
  /** The latest progress message; "" before the first. */
  message: z.string(),
  /** Why it does not move, as in "waits for cell/eu-1, held by op-…"; null when it moves or is final. */
  waitsFor: z.string().nullable(),
  /** What a person asked for and the step in work has not yet answered to. */
  asked: z.enum(["pause", "cancel"]).nullable(),
  error: z.object({ code: z.string(), message: z.string(), fix: z.string() }).nullable(),
  /** What the last step answered. */
  result: z.json().nullable(),
  /** The run that started it; null when a caller did. */
  parent: z.string().nullable(),
  createdAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().nullable(),
}).meta({ id: "Operation" });
export type Operation = z.infer<typeof Operation>;

/** What became of one step. */
export const OperationStep = z.object({
  name: z.string(),
  state: z.enum(["done", "undone"]),
  attempts: z.int().min(1),
  result: z.json().nullable(),
  at: z.iso.datetime(),
});
export type OperationStep = z.infer<typeof OperationStep>;

/** A line of a run's append-only log. */
export const OperationLogLine = z.object({
  /** Where to read on after this line; opaque. */
  cursor: z.string(),
  at: z.iso.datetime(),
  step: z.string().nullable(),
  message: z.string(),
});
export type OperationLogLine = z.infer<typeof OperationLogLine>;
