// A control plane's worker that dies where it is told, once: node worker.mjs <database url> <folder of markers>, with an IPC channel.
// Engine and orders are with the parent: an engine outlives whoever works with it.
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail } from "../../../dist/base/errors.js";
import { cellWorkflows } from "../../../dist/cell/steps.js";
import { createCellStore } from "../../../dist/cell/store.js";
import { eventSink } from "../../../dist/observe/events.js";
import { insertEvents } from "../../../dist/observe/store.js";
import { routePublisher } from "../../../dist/routing/store.js";
import { openStore } from "../../../dist/store/store.js";
import { createRunner } from "../../../dist/workflow/runner.js";

const [url, markers] = process.argv.slice(2);
/** run → { step, point } */
const orders = JSON.parse(process.env.ORDERS);

function dieAt(run, step, point) {
  const order = orders[run];
  if (order?.step !== step || order.point !== point || existsSync(join(markers, run))) return;
  writeFileSync(join(markers, run), point);
  process.kill(process.pid, "SIGKILL");
  // The signal may take a moment to arrive, in which nothing more must happen.
  for (;;);
}

const open = new Map();
let calls = 0;
process.on("message", ({ id, result, error }) => {
  const { resolve, reject } = open.get(id);
  open.delete(id);
  if (error) reject(error.code ? fail(error.code, error.data) : new Error(error.message));
  else resolve(result);
});
process.on("disconnect", () => process.exit(0));
const ask = (verb, ...args) =>
  new Promise((resolve, reject) => {
    open.set(++calls, { resolve, reject });
    process.send({ id: calls, verb, args });
  });
const plain = ({ opKey, epoch }) => ({ opKey, epoch });
const driver = {
  name: "fake",
  plan: (spec, _signal, options) => ask("plan", spec, options),
  apply: (plan, context) => ask("apply", plan, plain(context)),
  observe: (cell) => ask("observe", cell),
  health: (cell) => ask("health", cell),
  endpoints: (cell) => ask("endpoints", cell),
  destroy: (cell, context, options) => ask("destroy", cell, plain(context), options),
};

const store = openStore(url, { connectionsMax: 4 });
const cells = createCellStore(store, eventSink(insertEvents));
createRunner({
  store, build: "test", slots: 1, workflows: cellWorkflows({ store, cells, driver: () => driver, routes: routePublisher }),
  log: (event) => {
    if (event.run) dieAt(event.run, event.undo ? `undo ${event.step}` : event.step, event.kind);
    if (event.kind === "written") dieAt(event.run, `undo ${event.step}`, event.kind);
  },
}).start();
