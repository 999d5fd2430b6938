import { z } from "zod";
import type { Tx } from "../store/model.ts";

/**
 * A run is one durable execution of a workflow; people meet it as an *operation*.
 *
 *   pending ─► running ─► succeeded
 *      ▲          │ ├───► failed          (a step gave up and there is nothing to undo)
 *      │          │ └───► undoing ─► undone | undo_failed
 *      └─ waiting ┘        (sleeps, awaits a signal or children, retries later; holds no slot)
 *         parked           (a person must retry or cancel) · paused (a person must resume)
 */
export const runStates = ["pending", "running", "waiting", "paused", "parked", "undoing", "succeeded", "failed", "undone", "undo_failed"] as const;
export type RunState = (typeof runStates)[number];
export const finalStates = ["succeeded", "failed", "undone", "undo_failed"] as const satisfies readonly RunState[];

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What an effect carries so that the receiver can refuse a zombie: "apply only if the epoch is ≥ the last one seen". */
export interface FencingToken {
  runId: string;
  /** +1 at every claim of the run. */
  epoch: number;
}

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
  /** 1 at the first try of this step in this run. */
  attempt: number;
  /** Aborts on pause, cancel, a lost lease and shutdown. */
  signal: AbortSignal;
  /** The recorded result of an earlier step, by its name. */
  result<T extends Json>(step: string): T | undefined;
  /** Signals received so far, by name. */
  received(name: string): Json | undefined;
  /** Progress for people: stored in the run's append-only log. `ratio` is 0…1 of the whole run. */
  progress(message: string, ratio?: number): Promise<void>;
  /** Starts a child run once, however often the step runs: its id is derived from this run, this step and `key`. */
  child(workflow: string, key: string, input: Json): Promise<string>;
}

/**
 * Steps are found by name when a run resumes, so a build may reorder or add them. Each may run twice (after a crash it
 * will), so it is idempotent. `tx` steps run inside the transaction that records them: exactly once.
 */
export interface Step<I> {
  name: string;
  run?: (context: StepContext<I>) => Promise<Outcome | void>;
  tx?: (context: StepContext<I>, tx: Tx) => Promise<Outcome | void>;
  /** Takes back what `run` did, or may have done: also called for the step that failed or was interrupted. Absent: nothing to take back. */
  undo?: (context: StepContext<I>) => Promise<Outcome | void>;
  retry?: { attemptsMax: number; firstDelayMs?: number; delayMaxMs?: number };
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

export const workflow = <I>(definition: Workflow<I>): Workflow => definition as unknown as Workflow;

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
  error: z.object({ code: z.string(), message: z.string(), fix: z.string() }).nullable(),
  result: z.json().nullable(),
  parent: z.string().nullable(),
  createdAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().nullable(),
});
export type Operation = z.infer<typeof Operation>;
