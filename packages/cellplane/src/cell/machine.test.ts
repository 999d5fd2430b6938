import fc from "fast-check";
import { expect, test } from "vitest";
import { type CellEvent, cellEvents, isInService, moves, next, takesTenants } from "./machine.ts";
import { type CellState, cellStates } from "./model.ts";

const anyEvents = fc.array(fc.constantFrom(...cellEvents), { maxLength: 40 });
const after = (events: CellEvent[], from: CellState = "requested"): CellState => {
  let state = from;
  for (const event of events) {
    const to = moves[state][event];
    if (to !== "refuse" && to !== "stay") state = to;
  }
  return state;
};

const reachable = (from: CellState): Set<CellState> => {
  const seen = new Set<CellState>([from]);
  for (const state of seen) for (const to of Object.values(moves[state])) if (to !== "refuse" && to !== "stay") seen.add(to);
  return seen;
};

test("C1: every state can be reached, and none but those of the model", () => {
  expect([...reachable("requested")].sort()).toEqual([...cellStates].sort());
});

test("C1: whatever happens after, destroyed stays destroyed and retired is only ever destroyed", () => {
  fc.assert(fc.property(anyEvents, (events) => after(events, "destroyed") === "destroyed"));
  fc.assert(fc.property(anyEvents, (events) => ["retired", "destroyed"].includes(after(events, "retired"))));
});

test("C2: from every state but destroyed there is a way to destroyed", () => {
  for (const state of cellStates) expect([...reachable(state)], state).toContain("destroyed");
});

test("C2: an event that is repeated is harmless or refused, but never leads on", () => {
  fc.assert(
    fc.property(anyEvents, fc.constantFrom(...cellEvents), (events, event) => {
      const state = after(events);
      const once = moves[state][event];
      if (once === "refuse" || once === "stay") return true;
      return moves[once][event] === "stay" || moves[once][event] === "refuse";
    }),
  );
});

test("C3: a cell that takes tenants is in service, and only an active one does", () => {
  expect(cellStates.filter(takesTenants)).toEqual(["active"]);
  for (const state of cellStates) if (takesTenants(state)) expect(isInService(state)).toBe(true);
});

test("C1: a refusal names the states in which it would be allowed", () => {
  expect(() => next({ name: "eu-1", state: "retired" }, "uncordon")).toThrow("cell eu-1 is retired; this needs active or cordoned or draining or empty");
  expect(next({ name: "eu-1", state: "active" }, "uncordon")).toBe("active");
});
