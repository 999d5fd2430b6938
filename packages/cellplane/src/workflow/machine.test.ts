import fc from "fast-check";
import { expect, test } from "vitest";
import { moves, next, type RunEvent, runEvents } from "./machine.ts";
import { finalStates, isFinal, type RunState, runStates } from "./model.ts";

const anyEvents = fc.array(fc.constantFrom(...runEvents), { maxLength: 40 });

test("W1: every state answers every event", () => {
  expect(runStates.map((state) => Object.keys(moves[state]).sort())).toEqual(runStates.map(() => [...runEvents].sort()));
});

test("W1: whatever happens, a final state stays, but for a failed undo that a person has tried again", () => {
  const staysFinal = (events: readonly RunEvent[]): boolean => {
    let state: RunState = "pending";
    for (const event of events) {
      const to: RunState | "refuse" = next(state, event);
      const mayGo = !isFinal(state) || to === "refuse" || to === state || (state === "undo_failed" && event === "retry" && to === "undoing");
      if (!mayGo) return false;
      if (to !== "refuse") state = to;
    }
    return true;
  };
  expect(fc.check(fc.property(anyEvents, staysFinal))).toMatchObject({ failed: false });
});

test("W1: a run that goes back never goes forward again", () => {
  const after = (state: RunState) => runEvents.map((event) => next(state, event)).filter((to) => to !== "refuse");
  const reached = new Set<RunState>(["undoing"]);
  // A set goes on to what is added to it on the way.
  for (const state of reached) for (const to of after(state)) reached.add(to);
  expect([...reached].sort()).toEqual(["undo_failed", "undoing", "undone"]);
});

test("W1: from every state a final one can be reached, and every state can be reached", () => {
  const reach = (from: RunState) => {
    const seen = new Set<RunState>([from]);
    for (const state of seen) for (const event of runEvents) {
      const to = next(state, event);
      if (to !== "refuse") seen.add(to);
    }
    return seen;
  };
  expect([...reach("pending")].sort()).toEqual([...runStates].sort());
  for (const state of runStates) expect([...reach(state)].some((reached) => (finalStates as readonly string[]).includes(reached))).toBe(true);
});

test("W9: a person may cancel whatever has not ended, and ask twice", () => {
  for (const state of runStates.filter((state) => !isFinal(state))) expect(next(state, "cancel")).toBe("undoing");
  expect(next("paused", "pause")).toBe("paused");
  expect(next("undone", "cancel")).toBe("undone");
});
