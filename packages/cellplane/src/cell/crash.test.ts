import { type ChildProcess, fork } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CellplaneError } from "../base/errors.ts";
import type { CellPlan, DriverContext } from "../drivers/driver.ts";
import type { FakeDriver } from "../drivers/fake/driver.ts";
import type { Operation } from "../workflow/model.ts";
import { until } from "../workflow/testing/engine.ts";
import type { CellSpec } from "./model.ts";
import { openPlane, specNamed } from "./testing/plane.ts";

interface Place {
  step: string;
  point: "begun" | "answered" | "written";
}
/** A step in a transaction has no effect before it is recorded. */
const inTransaction = ["allocate", "activate", "begin", "finish", "retire", "gone"];
/** Where a worker is killed: as the step begins, when its effect is there but not recorded, when it is recorded. */
const placesIn = (steps: string[]): Place[] =>
  steps.flatMap((step) => (["begun", "answered", "written"] as const).filter((point) => point !== "answered" || !inTransaction.includes(step)).map((point) => ({ step, point })));
const places = {
  create: placesIn(["allocate", "plan", "apply", "healthy", "activate"]),
  failing: placesIn(["apply", "undo apply", "undo allocate"]),
  update: placesIn(["begin", "plan", "apply", "healthy", "finish"]),
  reverted: placesIn(["apply", "undo apply", "undo begin"]),
  destroy: placesIn(["retire", "destroy", "gone"]),
};

let plane: Awaited<ReturnType<typeof openPlane>>;
beforeAll(async () => {
  plane = await openPlane();
  const made = (["update", "reverted", "destroy"] as const).flatMap((kind) => places[kind].map((_, i) => `${kind}-${i}`));
  for (const operation of await Promise.all(made.map((name) => plane.create(specNamed(name))))) expect(operation.state).toBe("succeeded");
  await plane.runner.stop();
});
afterAll(() => plane.close());

interface Asked {
  id: number;
  verb: "plan" | "apply" | "observe" | "health" | "endpoints" | "destroy";
  args: never[];
}

/** What the engine does for a worker, as if it were elsewhere: it ends what it has begun even when nobody waits for it. */
function serve(fake: FakeDriver, { verb, args }: Asked): Promise<unknown> {
  const { signal } = new AbortController();
  const [first, second, third] = args;
  const context = (of: unknown): DriverContext => ({ ...(of as Pick<DriverContext, "opKey" | "epoch">), signal, log: () => undefined });
  switch (verb) {
    case "plan": return fake.plan(first as unknown as CellSpec, signal, second ?? {});
    case "apply": return fake.apply(first as unknown as CellPlan, context(second));
    case "observe": return fake.observe(first as unknown as string, signal);
    case "health": return fake.health(first as unknown as string, signal);
    case "endpoints": return fake.endpoints(first as unknown as string);
    case "destroy": return fake.destroy(first as unknown as string, context(second), third as unknown as { purge: boolean });
  }
}

/** Starts one run for each place, and works on them in workers that die there, once, and are replaced. */
async function dieEverywhere(kind: keyof typeof places, start: (cell: string) => Promise<string>): Promise<{ cell: string; place: Place; operation: Operation }[]> {
  const runs = await Promise.all(places[kind].map(async (place, i) => ({ cell: `${kind}-${i}`, place, run: await start(`${kind}-${i}`) })));
  const orders = Object.fromEntries(runs.map(({ run, place }) => [run, place]));
  const markers = await mkdtemp(join(tmpdir(), "cell-crash-"));
  const workers = new Set<ChildProcess>();
  let closing = false;
  function spawnWorker(): void {
    const worker = fork(fileURLToPath(new URL("testing/worker.mjs", import.meta.url)), [plane.url, markers], { env: { ...process.env, ORDERS: JSON.stringify(orders) } });
    workers.add(worker);
    worker.on("message", (asked: Asked) =>
      void serve(plane.fake, asked)
        .then((result) => ({ result }), (error: CellplaneError) => ({ error: { code: error.code, data: error.data, message: error.message } }))
        .then((answer) => worker.connected && worker.send({ id: asked.id, ...answer }, () => undefined)));
    worker.on("exit", () => {
      workers.delete(worker);
      if (!closing) spawnWorker();
    });
  }
  try {
    for (let i = 0; i < 2; i++) spawnWorker();
    const ended = await Promise.all(runs.map(async ({ run, ...rest }) => ({ ...rest, operation: await plane.wait(run, 50_000) })));
    // Who is killed right after the end of a run may be so after the end was seen here.
    const killed = await until("as many died as were told to", async () => {
      const found = await readdir(markers);
      return found.length === runs.length && found;
    }).catch(() => readdir(markers));
    expect(runs.filter(({ run }) => !killed.includes(run)).map(({ place }) => place), "each was killed where it should be").toEqual([]);
    return ended;
  } finally {
    closing = true;
    for (const worker of workers) worker.kill("SIGKILL");
    await until("all workers have ended", () => workers.size === 0);
    await rm(markers, { recursive: true });
  }
}

const routes = async () => new Map((await plane.store.query<{ cell: string; index: number; endpoint: string; state: string }>("select cell, index, endpoint, state from route_cell")).map((route) => [route.cell, route]));

test("C9: a creation, killed at any step, ends with one cell that is active and known to the routers", async () => {
  const ended = await dieEverywhere("create", (name) => plane.startRun("cell.create", plane.createInput(specNamed(name))));
  const known = await routes();
  for (const { cell: name, place, operation } of ended) {
    expect(operation, JSON.stringify(place)).toMatchObject({ state: "succeeded" });
    const cell = await plane.now(name);
    expect(cell, JSON.stringify(place)).toMatchObject({ state: "active", endpoint: `${name}.fake:80`, operation: null });
    expect(known.get(name)).toEqual({ cell: name, index: cell.index, endpoint: `${name}.fake:80`, state: "open" });
    expect((await plane.events(name)).map(({ data }) => data["state"]), JSON.stringify(place)).toEqual(["requested", "provisioning", "active"]);
    expect(plane.fake.servedBy(name)).toEqual(specNamed(name));
  }
});

test("C10: a creation that fails, killed at any step of going back, leaves nothing behind", async () => {
  for (const { cell: name, place, operation } of await dieEverywhere("failing", (name) => plane.startRun("cell.create", plane.createInput(specNamed(name, { config: { broken: "exits at once" } }))))) {
    expect(operation, JSON.stringify(place)).toMatchObject({ state: "undone", error: { code: "cell_not_healthy" } });
    expect(await plane.now(name), JSON.stringify(place)).toMatchObject({ state: "failed", operation: null });
    expect(plane.fake.cells()).not.toContain(name);
    expect((await routes()).get(name)).toBeUndefined();
  }
});

test("C11: an update, killed at any step, ends with the new cell", async () => {
  const wanted = (name: string) => specNamed(name, { version: "2", capacity: { tenants: 20 } });
  for (const { cell: name, place, operation } of await dieEverywhere("update", (name) => plane.startRun("cell.update", plane.updateInput(wanted(name))))) {
    expect(operation, JSON.stringify(place)).toMatchObject({ state: "succeeded" });
    expect(await plane.now(name), JSON.stringify(place)).toMatchObject({ state: "active", spec: wanted(name), capacity: { tenants: 20 }, operation: null });
    expect(plane.fake.servedBy(name)).toEqual(wanted(name));
  }
});

test("C11: an update that does not get ready, killed at any step of going back, ends with the former cell", async () => {
  for (const { cell: name, place, operation } of await dieEverywhere("reverted", (name) => plane.startRun("cell.update", plane.updateInput(specNamed(name, { version: "2", capacity: { tenants: 5 }, config: { broken: "exits at once" } }))))) {
    expect(operation, JSON.stringify(place)).toMatchObject({ state: "undone", error: { code: "update_reverted" } });
    expect(await plane.now(name), JSON.stringify(place)).toMatchObject({ state: "active", spec: specNamed(name), capacity: { tenants: 10 }, operation: null });
    expect(plane.fake.servedBy(name)).toEqual(specNamed(name));
  }
});

test("C8: a destruction, killed at any step, ends with nothing that serves and routers that have forgotten", async () => {
  for (const { cell: name, place, operation } of await dieEverywhere("destroy", (name) => plane.startRun("cell.destroy", { cell: name, purge: true }))) {
    expect(operation, JSON.stringify(place)).toMatchObject({ state: "succeeded" });
    expect(await plane.cells.get(name), JSON.stringify(place)).toBeNull();
    expect((await routes()).get(name)).toBeUndefined();
    expect(plane.fake.cells()).not.toContain(name);
  }
});
