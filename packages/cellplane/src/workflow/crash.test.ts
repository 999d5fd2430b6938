import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, chmod } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { findPostgres } from "../drivers/postgres/binaries.ts";
import { startPostgres, stopServer } from "../drivers/postgres/server.ts";
import { signalProcess, waitForEnd } from "../drivers/process.ts";
import { applySchema } from "../store/schema.ts";
import { openStore } from "../store/store.ts";
import { workflow } from "./model.ts";
import { getOperation, listOperations, readSteps, startRun, waitForOperation } from "./store.ts";
import { type Engine, openEngine, until } from "./testing/engine.ts";

const worldSql = `
  create table world_killed (run text primary key);
  create table world_fence (run text primary key, epoch bigint not null);
  create table world_effect (id bigint generated always as identity, run text not null, what text not null, epoch bigint not null, pid int not null);
  create table world_row (run text not null, step text not null);
  create table world_open (opened timestamptz default now())`;

/** What the worker process knows under this name; only name and version count here. */
const known = (name: string) => workflow({ name, version: 1, input: z.object({ kill: z.object({ step: z.string(), point: z.string() }).nullable() }), subject: () => "test", locks: () => [{ name: "one of two", slots: 2 }], steps: [{ name: "first" }] });

interface Told {
  kind: string;
  atMs: number;
  pid: number;
  run?: string;
  step?: string;
  what?: string;
  epoch?: number;
}

/** Worker processes, and all they tell. One that dies is replaced, as a supervisor would. */
function openFleet(url: string) {
  const told: Told[] = [];
  const children = new Set<ChildProcess>();
  let closing = false;
  function spawnWorker({ slots = 1, replace = true } = {}): ChildProcess {
    const child = spawn(process.execPath, [fileURLToPath(new URL("testing/worker.mjs", import.meta.url)), url, String(slots)], { stdio: ["ignore", "pipe", "inherit"] });
    children.add(child);
    createInterface({ input: child.stdout }).on("line", (line) => told.push(JSON.parse(line) as Told));
    child.on("exit", () => {
      children.delete(child);
      if (replace && !closing) spawnWorker({ slots, replace });
    });
    return child;
  }
  return {
    told,
    spawnWorker,
    async close(): Promise<void> {
      closing = true;
      for (const child of children) child.kill("SIGCONT");
      for (const child of children) child.kill("SIGTERM");
      await until("all workers have ended", () => children.size === 0).finally(() => children.forEach((child) => child.kill("SIGKILL")));
    },
  };
}

let engine: Engine;
let db: pg.Pool;
beforeAll(async () => {
  engine = await openEngine();
  db = new pg.Pool({ connectionString: engine.url, max: 2 });
  await db.query(worldSql);
});
afterAll(async () => {
  await db.end();
  await engine.close();
});

const rows = async <R>(sql: string, params: unknown[]): Promise<R[]> => (await db.query(sql, params)).rows as R[];
const effectsOf = (run: string) => rows<{ what: string; epoch: string }>("select what, epoch from world_effect where run = $1 order by id", [run]);

const points = { run: ["before", "inside", "answered", "written"], tx: ["before", "inside", "commit", "written"] };
const forward = { reserve: "tx", make: "run", wire: "run", publish: "tx", check: "run" } as const;
const backward = { "undo break": "run", "undo wire": "run", "undo make": "run", "undo reserve": "run" } as const;
const cases = (steps: Record<string, "run" | "tx">) => Object.entries(steps).flatMap(([step, kind]) => points[kind].map((point) => ({ step, point })));

test("W2, W3, W4, W6, W8: killed before, inside and after each step, forward and back, with two instances", async () => {
  const fleet = openFleet(engine.url);
  try {
    fleet.spawnWorker();
    fleet.spawnWorker();
    const runs: { id: string; name: string; kill: { step: string; point: string } }[] = [];
    for (const [name, steps] of [["forward", forward], ["backward", backward]] as const) for (const kill of cases(steps)) runs.push({ id: await engine.start(known(name), { kill }), name, kill });

    for (const { id, name, kill } of runs) {
      const at = `${name}, killed ${kill.point} ${kill.step}`;
      const { state } = await engine.wait(id, 60_000);
      // Killed after its last write, it is told of a little later.
      await until(`${at}: it was killed`, () => fleet.told.some((event) => event.kind === "killed" && event.run === id));
      const effects = await effectsOf(id);
      const expected = name === "forward" ? ["make", "wire", "check"] : ["make", "wire", "break", "undo break", "undo wire", "undo make", "undo reserve"];
      const epochs = effects.map(({ epoch }) => Number(epoch));
      expect({
        at, state,
        kills: fleet.told.filter((event) => event.kind === "killed" && event.run === id).length,
        effects: [...new Set(effects.map(({ what }) => what))],
        // One death repeats at most the step it fell into.
        repeated: effects.length - expected.length <= 1,
        epochs,
        rows: (await rows<{ step: string }>("select step from world_row where run = $1", [id])).map(({ step }) => step),
        steps: (await readSteps(engine.store, id)).map((step) => `${step.name} ${step.state}`),
      }).toEqual({
        at, state: name === "forward" ? "succeeded" : "undone", kills: 1, effects: expected, repeated: true,
        epochs: epochs.toSorted((a, b) => a - b),
        rows: name === "forward" ? ["reserve", "publish"] : ["reserve"],
        steps: name === "forward" ? Object.keys(forward).map((step) => `${step} done`) : ["reserve undone", "make undone", "wire undone", "break undone"],
      });
    }
    expect(await rows("select * from run_lock", [])).toEqual([]);
  } finally {
    await fleet.close();
  }
}, 120_000);

test("W5: the runs of a killed process go on in less than 0.5 s", async () => {
  const fleet = openFleet(engine.url);
  try {
    const id = await engine.start(known("deaf"), { kill: null });
    let holder = fleet.spawnWorker({ replace: false });
    const begun = (pid: number | undefined) => fleet.told.find((event) => event.kind === "slow" && event.run === id && event.pid === pid);
    await until("the step is in work", () => begun(holder.pid));
    const tookMs: number[] = [];
    for (let kills = 0; kills < 7; kills++) {
      const idle = fleet.spawnWorker({ replace: false });
      await until("another waits", () => fleet.told.some((event) => event.kind === "worker" && event.pid === idle.pid));
      holder.kill("SIGKILL");
      const killedMs = Date.now();
      tookMs.push((await until("it goes on", () => begun(idle.pid))).atMs - killedMs);
      holder = idle;
    }
    await db.query("insert into world_open default values");
    expect((await engine.wait(id)).state).toBe("succeeded");
    await db.query("delete from world_open");
    console.log(`gone on after ${tookMs.join(", ")} ms`);
    expect(tookMs.sort((a, b) => a - b)[3]).toBeLessThan(500);
  } finally {
    await fleet.close();
  }
}, 60_000);

test("W4, W5: a worker that is stopped past its lease is taken over within 5 s, and nothing it does afterwards counts", async () => {
  const fleet = openFleet(engine.url);
  try {
    const zombie = fleet.spawnWorker({ replace: false });
    const id = await engine.start(known("deaf"), { kill: null });
    await until("the step is in work", () => fleet.told.some((event) => event.kind === "slow"));
    zombie.kill("SIGSTOP");
    const stoppedMs = Date.now();
    fleet.spawnWorker();
    const again = await until("another has it in hand", () => fleet.told.find((event) => event.kind === "slow" && event.pid !== zombie.pid));
    expect(again.atMs - stoppedMs).toBeLessThan(5500);
    zombie.kill("SIGCONT");
    // Both are now in the same step. The door opens, and both want to go through.
    await until("the zombie has seen that it is dead", () => fleet.told.some((event) => event.kind === "worker" && event.what === "lost" && event.pid === zombie.pid));
    await db.query("insert into world_open default values");
    expect((await engine.wait(id)).state).toBe("succeeded");
    await until("the zombie's effect is refused", () => fleet.told.some((event) => event.kind === "refused" && event.pid === zombie.pid));
    expect((await effectsOf(id)).map(({ what }) => what)).toEqual(["slow begins", "slow begins", "slow ends"]);
    expect(fleet.told.some((event) => event.kind === "written" && event.run === id && event.pid === zombie.pid)).toBe(false);
    expect(await rows("select * from world_row where run = $1", [id])).toHaveLength(1);
    // It is not thrown away: a new life works on.
    await until("it lives again", () => fleet.told.filter((event) => event.kind === "worker" && event.what === "born" && event.pid === zombie.pid).length === 2);
  } finally {
    await fleet.close();
  }
}, 60_000);

test("W16: PostgreSQL is killed under load and comes back: every run ends, every tx step counts once", async () => {
  const directory = await mkdtemp(join(tmpdir(), "cellplane-workflow-"));
  await chmod(directory, 0o711);
  const binaries = await findPostgres(process.env["CELLPLANE_PG_BIN"]);
  const options = { directory: join(directory, "postgres"), port: 0 };
  let server = await startPostgres(binaries, options);
  const store = openStore(server.url, { connectionsMax: 3 });
  const fleet = openFleet(server.url);
  try {
    await applySchema(store);
    await store.query(worldSql.replaceAll("create table ", "create table public."));
    fleet.spawnWorker({ slots: 8, replace: false });
    fleet.spawnWorker({ slots: 8, replace: false });
    const counting = { ...known("counting"), locks: () => [] };
    const runsPerRound = 150;
    const ids: string[] = [];
    const { port } = new URL(server.url);
    for (const signal of ["SIGQUIT", "SIGKILL"] as const) {
      await store.transaction(async (tx) => {
        for (let n = 0; n < runsPerRound; n++) ids.push(await startRun(tx, counting, { kill: null }));
      });
      const enough = ids.length - runsPerRound * 0.8;
      await until("some are done and some are not", () => fleet.told.filter((event) => event.kind === "written" && event.step === "five").length > enough);
      await signalProcess(server.process, signal);
      expect(await waitForEnd(server.process, 10_000)).toBe(true);
      server = await startPostgres(binaries, { ...options, port: Number(port) });
    }
    await until("the database answers", () => store.query("select 1").then(() => true, () => false));
    for (const id of ids) expect((await waitForOperation(store, id, { timeoutMs: 30_000 }).catch(() => getOperation(store, id))).state).toBe("succeeded");
    const counted = await store.query<{ count: number; distinct: number }>("select count(*) as count, count(distinct (run, step)) as distinct from public.world_row");
    expect(counted).toEqual([{ count: 3 * ids.length, distinct: 3 * ids.length }]);
    expect(await store.query("select run from public.world_effect group by run having count(distinct what) <> 2")).toEqual([]);
    expect(fleet.told.filter((event) => event.kind === "worker" && event.what === "lost").length).toBeGreaterThanOrEqual(2);
  } finally {
    await fleet.close();
    await store.close();
    await stopServer(server.process);
    await rm(directory, { recursive: true, force: true });
  }
}, 90_000);

test("W16: five instances start at once on an empty database, and one run is one run", async () => {
  const empty = await openEngine({ schema: false });
  const fleet = openFleet(empty.url);
  try {
    for (let n = 0; n < 5; n++) fleet.spawnWorker({ replace: false });
    await until("all five work", () => new Set(fleet.told.filter((event) => event.kind === "worker").map(({ pid }) => pid)).size === 5, 30_000);
    await empty.store.query(worldSql);
    const ids = await Promise.all(Array.from({ length: 10 }, (_, n) => empty.start(known("forward"), { kill: null }, { idempotencyKey: `key ${n % 2}` })));
    expect(new Set(ids).size).toBe(2);
    for (const id of ids) expect((await empty.wait(id)).state).toBe("succeeded");
    expect((await listOperations(empty.store)).items).toHaveLength(2);
  } finally {
    await fleet.close();
    await empty.close();
  }
}, 60_000);
