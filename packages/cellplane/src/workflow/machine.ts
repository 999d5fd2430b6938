import type { RunState } from "./model.ts";

/** What can happen to a run. The first ten are its worker's doing, the last four a person's. */
export const runEvents = [
  "claim", // a worker takes it in hand
  "release", // the worker lets go of it, or died
  "wait", // a step answered "later"
  "done", // a step is done (or undone) and another follows
  "succeed", // the last step is done
  "fail", // a step gave up, and there is nothing to take back
  "giveUp", // a step gave up, and there is something to take back
  "park", // only a person can help
  "undone", // nothing is left to take back
  "undoFail", // an undo gave up
  "pause",
  "resume",
  "cancel",
  "retry",
] as const;
export type RunEvent = (typeof runEvents)[number];

/**
 * The whole life of a run. "stay" is a repeat or a step on the way, and harmless; "refuse" must not happen when a worker
 * does it, and is answered with wrong_state when a person asks for it.
 *
 * A run that was cancelled goes through `undoing` even when nothing was done yet: there it ends at once.
 */
export const moves: Record<RunState, Record<RunEvent, RunState | "stay" | "refuse">> = {
  pending: {
    claim: "running", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "paused", resume: "stay", cancel: "undoing", retry: "stay",
  },
  running: {
    claim: "refuse", release: "pending", wait: "waiting", done: "stay", succeed: "succeeded", fail: "failed", giveUp: "undoing",
    park: "parked", undone: "refuse", undoFail: "refuse", pause: "paused", resume: "stay", cancel: "undoing", retry: "stay",
  },
  waiting: {
    claim: "running", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "paused", resume: "stay", cancel: "undoing", retry: "pending",
  },
  paused: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "stay", resume: "pending", cancel: "undoing", retry: "refuse",
  },
  parked: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "refuse", resume: "refuse", cancel: "undoing", retry: "pending",
  },
  // Going back is neither paused nor called off: half of a thing taken back helps nobody.
  undoing: {
    claim: "stay", release: "stay", wait: "stay", done: "stay", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "undone", undoFail: "undo_failed", pause: "refuse", resume: "refuse", cancel: "stay", retry: "stay",
  },
  succeeded: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "refuse", resume: "refuse", cancel: "refuse", retry: "refuse",
  },
  failed: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "refuse", resume: "refuse", cancel: "refuse", retry: "refuse",
  },
  undone: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "refuse", resume: "refuse", cancel: "stay", retry: "refuse",
  },
  // The one final state with a way out, and only a person takes it.
  undo_failed: {
    claim: "refuse", release: "refuse", wait: "refuse", done: "refuse", succeed: "refuse", fail: "refuse", giveUp: "refuse",
    park: "refuse", undone: "refuse", undoFail: "refuse", pause: "refuse", resume: "refuse", cancel: "stay", retry: "undoing",
  },
};

/** The state after the event, or "refuse". */
export function next(state: RunState, event: RunEvent): RunState | "refuse" {
  const to = moves[state][event];
  return to === "stay" ? state : to;
}
