import fc from "fast-check";
import { expect, test } from "vitest";
import { moves, next, runEvents } from "./machine.ts";
import { finalStates, isFinal, runStates } from "./model.ts";

const anyEvents = fc.array(fc.constantFrom(...runEvents), { maxLength: 40 });

test("W1: every state answers every event", () => {
  for (const state of runStates) expect(Object.keys(moves[state]).sort()).toEqual([...runEvents].sort());
});

test("W1: whatever happens, a final state stays, but for a failed undo that a person has tried again", () => {
  fc.assert(
    fc.property(anyEvents, (events) => {
      let state: (typeof runStates)[number] = "pending";
      for (const event of events) {
        const to = next(state, event);
        if (isFinal(state)) expect([state, event, to]).toSatisfy(() => to === "refuse" || to === state || (state === "undo_failed" && event === "retry" && to === "undoing"));
        if (to !== "refuse") state = to;
      }
    }),
  );
});

test("W1: a run that goes back never goes forward again", () => {
  const after = (state: (typeof runStates)[number]) => runEvents.map((event) => next(state, event)).filter((to) => to !== "refuse");
  const reached = new Set(["undoing" as (typeof runStates)[number]]);
  for (let size = 0; size < reached.size; ) {
    size = reached.size;
    for (const state of [...reached]) for (const to of after(state)) reached.add(to);
  }
  expect([...reached].sort()).toEqual(["undo_failed", "undoing", "undone"]);
});

test("W1: from every state a final one can be reached, and every state can be reached", () => {
  const reach = (from: (typeof runStates)[number]) => {
    const seen = new Set([from]);
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
