import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { AssertionFailure } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
import { isFinal, type Step, type Workflow, workflow } from "./model.ts";
import { afterMove, type Answer, crashesMax, type HeldRun, moveAfter, nextTask } from "./plan.ts";

const nothing = async (): Promise<void> => undefined;
const step = (name: string, more: Partial<Step<unknown>> = {}): Step<unknown> => ({ name, run: nothing, undo: nothing, ...more });
const define = (steps: Step<unknown>[]): Workflow => workflow({ name: "test", version: 1, input: z.unknown(), subject: () => "test", steps });
const held = (workflow: Workflow, more: Partial<HeldRun> = {}): HeldRun => ({
  id: "op-1", workflow: "test", version: 1, subject: "test", state: "running", input: null, parent: null, epoch: 1, step: workflow.steps[0]?.name ?? null, begun: true, failures: 0,
  crashes: 0, elapsedMs: 0, signals: {}, signalsSeen: 0, locks: [], locked: false, records: [], ...more,
});
const done: Answer = { kind: "outcome", outcome: { kind: "done" } };

/** Plays a run to its end; `answers` says what each try of a step comes to. */
function play(workflow: Workflow, answers: (task: string) => Answer): { trail: string[]; end: string } {
  const trail: string[] = [];
  let run = held(workflow);
  for (let tries = 0; tries < 1000; tries++) {
    const task = nextTask(workflow, run);
    if (task.kind === "end") return { trail, end: task.move.state };
    const name = `${task.kind} ${task.step.name}`;
    trail.push(name);
    const move = moveAfter(workflow, run, task, answers(name), 0.5);
    if (isFinal(move.state) || move.state === "parked") return { trail, end: move.state };
    // Waiting and being claimed again: the same run, its state as the claim leaves it.
    run = afterMove(run, move.state === "waiting" || move.state === "pending" ? { ...move, state: "running" } : move);
  }
  throw new Error("it does not end");
}

test("W3: steps follow each other as they stand, each from the record of the one before", () => {
  expect(play(define([step("a"), step("b"), step("c")]), () => done)).toEqual({ trail: ["run a", "run b", "run c"], end: "succeeded" });
});

test("W6: what was done is taken back from the latest to the first, the failed step before all", () => {
  const failing = (name: string): Answer => (name === "run c" ? { kind: "error", error: fail("not_found", { what: "cell", name: "x" }) } : done);
  expect(play(define([step("a"), step("b"), step("c"), step("d")]), failing)).toEqual({ trail: ["run a", "run b", "run c", "undo c", "undo b", "undo a"], end: "undone" });
});

test("W6: steps without an undo are passed over; with none at all the run has failed", () => {
  const failing = (name: string): Answer => (name === "run c" ? { kind: "error", error: fail("not_found", { what: "cell", name: "x" }) } : done);
  const plain = { name: "b", run: nothing };
  expect(play(define([step("a"), plain, { name: "c", run: nothing }]), failing)).toEqual({ trail: ["run a", "run b", "run c", "undo a"], end: "undone" });
  expect(play(define([plain, { name: "c", run: nothing }]), failing)).toEqual({ trail: ["run b", "run c"], end: "failed" });
});

test("W7: attempts are counted, and the last one decides", () => {
  const broken: Answer = { kind: "error", error: new Error("connection refused") };
  const tries = (whenExhausted: "undo" | "park") => play(define([step("a", { retry: { attemptsMax: 3 }, whenExhausted })]), (name) => (name === "run a" ? broken : done));
  expect(tries("undo")).toEqual({ trail: ["run a", "run a", "run a", "undo a"], end: "undone" });
  expect(tries("park")).toEqual({ trail: ["run a", "run a", "run a"], end: "parked" });
});

test("W7: pauses double up to their limit, and lie anywhere between nothing and that", () => {
  const retry = { attemptsMax: 99, firstDelayMs: 100, delayMaxMs: 1000 };
  const flow = define([step("a", { retry })]);
  const pause = (failures: number, random: number) => {
    const run = held(flow, { failures });
    return moveAfter(flow, run, { kind: "run", step: step("a", { retry }) }, { kind: "error", error: new Error("no") }, random).dueInMs;
  };
  expect([0, 1, 2, 3, 4, 50].map((failures) => pause(failures, 1))).toEqual([100, 200, 400, 800, 1000, 1000]);
  expect(pause(2, 0)).toBe(0);
  expect(pause(2, 0.5)).toBe(200);
});

test("W7: a broken promise of our own is neither tried again nor taken back", () => {
  const flow = define([step("a"), step("b")]);
  expect(play(flow, (name) => (name === "run b" ? { kind: "error", error: new AssertionFailure("this does not hold: x") } : done))).toEqual({ trail: ["run a", "run b"], end: "parked" });
});

test("W7: a step that takes processes down is left for a person", () => {
  const flow = define([step("a")]);
  const stateAt = (run: Partial<HeldRun>) => {
    const task = nextTask(flow, held(flow, run));
    return task.kind === "end" ? task.move.state : task.kind;
  };
  expect(stateAt({ crashes: crashesMax - 1 })).toBe("run");
  expect(stateAt({ crashes: crashesMax })).toBe("parked");
  expect(stateAt({ crashes: crashesMax, state: "undoing" })).toBe("undo_failed");
});

test("W12: a build that puts a step in between runs it; one that has lost a step does not take it for undone", () => {
  const grown = define([step("a"), step("new"), step("b")]);
  const task = nextTask(grown, held(grown, { step: "b", records: [{ name: "a", state: "done", result: null }] }));
  expect(task.kind === "run" && task.step.name).toBe("new");
  const shrunk = define([step("b")]);
  const back = nextTask(shrunk, held(shrunk, { state: "undoing", begun: false, records: [{ name: "a", state: "done", result: null }] }));
  expect(back.kind === "end" && back.move.error?.code).toBe("step_unknown");
});

test("W6: however steps answer, each done step with an undo is taken back once, or the run does not claim to be undone", () => {
  const kinds = fc.constantFrom<Answer>(
    done, done, done, { kind: "interrupted" }, { kind: "error", error: new Error("no") }, { kind: "error", error: fail("not_found", { what: "cell", name: "x" }) },
    { kind: "outcome", outcome: { kind: "again", afterMs: 1 } }, { kind: "outcome", outcome: { kind: "signal", name: "go", timeoutMs: null } }, { kind: "outcome", outcome: { kind: "park", reason: "look" } },
  );
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }), fc.array(kinds, { maxLength: 30 }), (undos, given) => {
      const flow = define(undos.map((has, i) => ({ name: `s${i}`, run: nothing, ...(has ? { undo: nothing } : {}) })));
      const answers = [...given];
      const finished: string[] = [];
      const { end } = play(flow, (name) => {
        const answer = answers.shift() ?? done;
        if (answer === done) finished.push(name);
        return answer;
      });
      const ofKind = (kind: string) => finished.filter((name) => name.startsWith(`${kind} `)).map((name) => name.slice(kind.length + 1));
      const [doneSteps, undone] = [ofKind("run"), ofKind("undo")];
      const undoable = doneSteps.filter((name) => flow.steps.find((step) => step.name === name)?.undo);
      expect({ end, twice: finished.length - new Set(finished).size, doneSteps, undone: undone.filter((name) => doneSteps.includes(name)) }).toEqual({
        end,
        twice: 0,
        doneSteps: end === "succeeded" ? flow.steps.map((step) => step.name) : doneSteps,
        undone: end === "undone" ? undoable.toReversed() : undone.filter((name) => doneSteps.includes(name)),
      });
    }),
  );
});
