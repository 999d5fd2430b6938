// A worker process that can be told where to die: node worker.mjs <database url> [slots]
// It tells what it does on stdout, one JSON object a line.
import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { z } from "zod";
import { fail } from "../../../dist/base/errors.js";
import { applySchema } from "../../../dist/store/schema.js";
import { openStore } from "../../../dist/store/store.js";
import { workflow } from "../../../dist/workflow/model.js";
import { createRunner } from "../../../dist/workflow/runner.js";

const [url, slots = "1"] = process.argv.slice(2);
const store = openStore(url, { connectionsMax: 5 });
const world = new pg.Pool({ connectionString: url, max: 3 });
world.on("error", () => undefined);
const tell = (event) => writeSync(1, `${JSON.stringify({ atMs: Date.now(), pid: process.pid, ...event })}\n`);

/** Runs in hand → where this process dies, decided when the step begins, so that only one process dies for a case. */
const armed = new Map();
function dieAt(run, step, point) {
  const kill = armed.get(run);
  if (kill?.step !== step || kill.point !== point) return;
  tell({ kind: "killed", run, step, point });
  process.kill(process.pid, "SIGKILL");
  // The signal may take a moment to arrive, in which nothing more must happen.
  for (;;);
}

async function arm({ input, token }, step) {
  if (input.kill?.step !== step) return;
  const { rowCount } = await world.query("insert into world_killed (run) values ($1) on conflict do nothing", [token.runId]);
  if (rowCount === 1) armed.set(token.runId, input.kill);
}

/** Something outside of the engine that refuses whoever comes with an older epoch than it has seen. */
async function affect({ token }, what) {
  const { rowCount } = await world.query(
    `with fence as (
       insert into world_fence (run, epoch) values ($1, $2)
       on conflict (run) do update set epoch = excluded.epoch where world_fence.epoch <= excluded.epoch returning run)
     insert into world_effect (run, what, epoch, pid) select $1, $3, $2, $4 from fence`,
    [token.runId, token.epoch, what, process.pid],
  );
  if (rowCount === 0) {
    tell({ kind: "refused", run: token.runId, what });
    throw new Error("refused: someone with a greater epoch was here");
  }
}

/** A step that leaves a trace in the world, and dies where it is told. */
const step = (name) => ({
  name,
  run: async (context) => {
    await arm(context, name);
    dieAt(context.token.runId, name, "before");
    await affect(context, name);
    dieAt(context.token.runId, name, "inside");
  },
  undo: async (context) => {
    await arm(context, `undo ${name}`);
    dieAt(context.token.runId, `undo ${name}`, "before");
    await affect(context, `undo ${name}`);
    dieAt(context.token.runId, `undo ${name}`, "inside");
  },
});

const txStep = (name) => ({
  name,
  tx: async (context, tx) => {
    await arm(context, name);
    dieAt(context.token.runId, name, "before");
    await tx.query("insert into world_row (run, step) values ($1, $2)", [context.token.runId, name]);
    dieAt(context.token.runId, name, "inside");
    tx.atCommit("audit", null, async () => dieAt(context.token.runId, name, "commit"));
  },
});

const Input = z.object({ kill: z.object({ step: z.string(), point: z.string() }).nullable() });
const define = (name, steps, more = {}) => workflow({ name, version: 1, input: Input, subject: () => "test", steps, ...more });
const locked = { locks: () => [{ name: "one of two", slots: 2 }] };

const workflows = [
  define("forward", [txStep("reserve"), step("make"), step("wire"), txStep("publish"), step("check")], locked),
  define("backward", [
    { ...txStep("reserve"), undo: step("reserve").undo },
    step("make"),
    step("wire"),
    { ...step("break"), run: async (context) => {
      await affect(context, "break");
      throw fail("not_found", { what: "cell", name: "eu-1" });
    } },
  ], locked),
  // Told to stop it does not listen, as a process does not that is stopped itself.
  define("deaf", [
    { name: "slow", run: async (context) => {
      await affect(context, "slow begins");
      tell({ kind: "slow", run: context.token.runId });
      while ((await world.query("select from world_open")).rowCount === 0) await sleep(20);
      await affect(context, "slow ends");
    } },
    txStep("publish"),
  ], locked),
  // What the test of a dying database counts.
  define("counting", [txStep("one"), step("two"), txStep("three"), step("four"), txStep("five")]),
];

const runner = createRunner({
  store, workflows, build: "test", slots: Number(slots),
  log: (event) => {
    if (event.kind === "answered") dieAt(event.run, event.undo ? `undo ${event.step}` : event.step, "answered");
    if (event.kind === "written") {
      dieAt(event.run, event.step, "written");
      dieAt(event.run, `undo ${event.step}`, "written");
    }
    if (event.kind !== "answered") tell(event.kind === "problem" ? { kind: "problem", message: String(event.error) } : event);
  },
});

await applySchema(store);
runner.start();
process.on("SIGTERM", async () => {
  await runner.stop({ drainMs: 1000 });
  await store.close();
  await world.end();
});
