/**
 * The workflow runner beside graphile-worker, a job queue that one would use instead, on the same PostgreSQL.
 *
 * The work is the same for both: runs of five steps that do nothing, each begun only when the former is durable. With
 * graphile-worker a run is a chain of five jobs, the next added by the former, which is how one builds a workflow on a
 * queue; it keeps neither results, progress nor a way back, and its local queue and batched completion are switched on.
 * Both have 50 slots in one process, and PostgreSQL writes through to the disk.
 *
 * `stepsPerSecond` and processor time are those of 2,000 runs started before. `stepP50Ms` is the time from the end
 * of a step to the begin of the next when one run is alone, and `roundTripsPerStep` its round trips with PostgreSQL, the claim
 * among them; under load runs share them. `resumeAfterKillP99Ms` is the time from kill -9 of the process that
 * has 25 runs in work to the begin of each of them in another that was idle. `vsPeerCpuRatio` is processor time per step, of
 * Node and PostgreSQL together, ours ÷ theirs. What limits all of them: PostgreSQL's processor time, and the disk's when one run is alone.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Logger, run as runGraphile, type Runner as GraphileRunner, runMigrations, type TaskList } from "graphile-worker";
import pg from "pg";
import { z } from "zod";
import { onDatabase } from "../packages/cellplane/src/drivers/postgres/cluster.ts";
import { applySchema } from "../packages/cellplane/src/store/schema.ts";
import { openStore, type Store } from "../packages/cellplane/src/store/store.ts";
import { type Step, type StartableWorkflow, workflow } from "../packages/cellplane/src/workflow/model.ts";
import { createRunner } from "../packages/cellplane/src/workflow/runner.ts";
import { startRun } from "../packages/cellplane/src/workflow/store.ts";
import { openPostgres, postgresCpuSeconds } from "./shared/postgres.ts";
import { median, printJson, printTable, quantile, quick, shown, spread } from "./shared/report.ts";

const [stepsPerRun, slots] = [5, 50];
/** As many as there are cells in a large fleet; the peer, whose figures are per step as well, need not take that long. */
const runs = 2000;
const peerRuns = quick ? 200 : 1000;
const rounds = quick ? 2 : 7;
const aloneRuns = 20;
const kills = quick ? 6 : 60;
const orphans = 25;
const idleMs = quick ? 3000 : 20_000;

const server = await openPostgres();
let roundTrips = 0;
const send = pg.Client.prototype.query;
pg.Client.prototype.query = function counted(this: pg.Client, ...args: unknown[]) {
  roundTrips++;
  return (send as (...args: unknown[]) => unknown).apply(this, args);
} as typeof send;

async function createDatabase(name: string): Promise<string> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query(`create database ${name}`);
  await client.end();
  return onDatabase(server.url, name);
}

/** One side of the comparison. `work` is called by every step. */
interface Side {
  name: string;
  runs: number;
  start(work: (run: number, step: number) => void): Promise<void>;
  stop(): Promise<void>;
  /** Adds runs from..from+count, which are then due. */
  add(from: number, count: number): Promise<void>;
}

const Input = z.object({ run: z.number() });
type Input = z.infer<typeof Input>;

async function ours({ locks }: { locks: boolean }): Promise<Side> {
  const store: Store = openStore(await createDatabase(locks ? "ours_with_locks" : "ours"));
  await applySchema(store);
  let work: (run: number, step: number) => void = () => undefined;
  const steps: Step<Input>[] = Array.from({ length: stepsPerRun }, (_, step) => ({ name: `step ${step}`, run: async ({ input }) => work(input.run, step) }));
  const chain: StartableWorkflow<Input> = workflow<Input>({
    name: "chain", version: 1, input: Input, subject: ({ run }) => `run/${run}`, steps,
    ...(locks ? { locks: ({ run }) => [{ name: `run/${run}`, slots: 1 }] } : {}),
  });
  let runner = createRunner({ store, workflows: [chain], build: "bench", slots });
  return {
    name: locks ? "cellplane, a lock per run" : "cellplane",
    runs,
    async start(given) {
      work = given;
      runner = createRunner({ store, workflows: [chain], build: "bench", slots });
      runner.start();
    },
    stop: () => runner.stop(),
    add: (from, count) => store.transaction(async (tx) => {
      for (let run = from; run < from + count; run++) await startRun(tx, chain, { run });
    }),
  };
}

async function theirs(): Promise<Side> {
  const connectionString = await createDatabase("theirs");
  await runMigrations({ connectionString });
  const logger = new Logger(() => () => undefined);
  const pool = new pg.Pool({ connectionString, max: 10 });
  pool.on("error", () => undefined);
  pool.on("connect", (client) => client.on("error", () => undefined));
  let runner: GraphileRunner | undefined;
  const add = "select graphile_worker.add_job('step', json_build_object('run', n, 'step', 0)) from generate_series($1::int, $2::int) n";
  return {
    name: "graphile-worker 0.17",
    runs: peerRuns,
    async start(work) {
      const taskList: TaskList = {
        step: async (payload, helpers) => {
          const { run, step } = payload as { run: number; step: number };
          work(run, step);
          if (step + 1 < stepsPerRun) await helpers.addJob("step", { run, step: step + 1 });
        },
      };
      runner = await runGraphile({
        pgPool: pool, taskList, noHandleSignals: true, logger,
        preset: { worker: { concurrentJobs: slots, completeJobBatchDelay: 0, failJobBatchDelay: 0, localQueue: { size: 4 * slots } } },
      });
    },
    stop: async () => runner?.stop(),
    add: async (from, count) => void (await pool.query(add, [from, from + count - 1])),
  };
}

interface Figures {
  stepsPerSecond: number[];
  roundTripsPerStep: number[];
  nodeCpuMsPerStep: number[];
  cpuMsPerStep: number[];
  gapMs: number[];
  roundTripsPerStepAlone: number[];
  idleQueriesPerSecond: number;
}
const noFigures = (): Figures => ({ stepsPerSecond: [], roundTripsPerStep: [], nodeCpuMsPerStep: [], cpuMsPerStep: [], gapMs: [], roundTripsPerStepAlone: [], idleQueriesPerSecond: Number.NaN });

async function throughput(side: Side, figures: Figures, runs: number): Promise<void> {
  await side.add(0, runs);
  const steps = runs * stepsPerRun;
  let left = steps;
  let finish = (): void => undefined;
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const [cpu, serverCpu, trips, startedMs] = [process.cpuUsage(), postgresCpuSeconds(server.pid), roundTrips, performance.now()];
  await side.start(() => {
    if (--left === 0) finish();
  });
  await finished;
  // The last steps are done when they are durable, too.
  await side.stop();
  const tookMs = performance.now() - startedMs;
  const used = process.cpuUsage(cpu);
  const nodeMs = (used.user + used.system) / 1000;
  figures.stepsPerSecond.push(steps / (tookMs / 1000));
  figures.roundTripsPerStep.push((roundTrips - trips) / steps);
  figures.nodeCpuMsPerStep.push(nodeMs / steps);
  figures.cpuMsPerStep.push((nodeMs + (postgresCpuSeconds(server.pid) - serverCpu) * 1000) / steps);
}

/** One run after the other, and what lies between two of its steps. */
async function alone(side: Side, figures: Figures): Promise<void> {
  let formerMs = 0;
  let ended = (): void => undefined;
  await side.start((_, step) => {
    const nowMs = performance.now();
    if (step > 0) figures.gapMs.push(nowMs - formerMs);
    formerMs = nowMs;
    if (step === stepsPerRun - 1) ended();
  });
  let ofRuns = 0;
  for (let run = 0; run < aloneRuns; run++) {
    const end = new Promise<void>((resolve) => (ended = resolve));
    await side.add(run, 1);
    const before = roundTrips;
    await end;
    await sleep(20);
    ofRuns += roundTrips - before;
  }
  figures.roundTripsPerStepAlone.push(ofRuns / (aloneRuns * stepsPerRun));
  await side.stop();
}

async function idle(side: Side, figures: Figures): Promise<void> {
  await side.start(() => undefined);
  await sleep(500);
  const before = roundTrips;
  await sleep(idleMs);
  figures.idleQueriesPerSecond = (roundTrips - before) / (idleMs / 1000);
  await side.stop();
}

/** How long until another process begins what a killed one had in work. */
async function resumeAfterKill(): Promise<number[]> {
  const url = await createDatabase("kills");
  const store = openStore(url);
  await applySchema(store);
  const tookMs: number[] = [];
  const victimOf = (): { child: ChildProcess; ready: Promise<void>; busy: Promise<void> } => {
    const child = spawn(process.execPath, [fileURLToPath(new URL("runner/victim.js", import.meta.url)), url, String(orphans)], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout });
    const said = (word: string): Promise<void> => new Promise((resolve) => lines.on("line", (line) => line === word && resolve()));
    return { child, ready: said("ready"), busy: said("busy") };
  };
  let killedMs = 0;
  let begun = (): void => undefined;
  const hanging = workflow({ name: "hanging", version: 1, input: z.object({}), subject: () => "bench", steps: [{ name: "hang", run: async () => begun() }] });
  let next = victimOf();
  for (let kill = 0; kill < kills; kill++) {
    const victim = next;
    await victim.ready;
    await store.transaction(async (tx) => {
      for (let run = 0; run < orphans; run++) await startRun(tx, hanging, {});
    });
    await victim.busy;
    const survivor = createRunner({ store, workflows: [hanging], build: "bench", slots });
    survivor.start();
    next = victimOf();
    await next.ready;
    next.child.kill("SIGSTOP");
    // At any moment between two ticks of the survivor.
    await sleep(400 + Math.random() * 300);
    const all = new Promise<void>((resolve) => {
      let left = orphans;
      begun = () => {
        tookMs.push(performance.now() - killedMs);
        if (--left === 0) resolve();
      };
    });
    killedMs = performance.now();
    victim.child.kill("SIGKILL");
    await all;
    await survivor.stop();
    next.child.kill("SIGCONT");
  }
  next.child.kill("SIGKILL");
  await store.close();
  return tookMs;
}

const sides = [await ours({ locks: false }), await ours({ locks: true }), await theirs()];
const [plain, withLocks, peer] = sides.map(noFigures) as [Figures, Figures, Figures];
const figures = [plain, withLocks, peer];
console.log(`${runs} runs × ${stepsPerRun} steps, ${slots} slots, ${rounds} rounds in turn …`);
for (const side of sides) await throughput(side, noFigures(), 200);
for (let round = 0; round < rounds; round++) for (const [i, side] of sides.entries()) await throughput(side, figures[i] ?? noFigures(), side.runs);
for (let round = 0; round < rounds; round++) for (const [i, side] of sides.entries()) await alone(side, figures[i] ?? noFigures());
for (const [i, side] of sides.entries()) if (side !== sides[1]) await idle(side, figures[i] ?? noFigures());
console.log(`${kills} kills of a process with ${orphans} runs in work …`);
const tookMs = await resumeAfterKill();

const row = (name: string, of: (figures: Figures) => string): string[] => [name, ...figures.map(of)];
printTable([
  ["", ...sides.map(({ name }) => name)],
  row("steps per second", (f) => spread(f.stepsPerSecond)),
  row("round trips per step", (f) => spread(f.roundTripsPerStep)),
  row("round trips per step of a run alone", (f) => spread(f.roundTripsPerStepAlone)),
  row("CPU per step, Node, ms", (f) => spread(f.nodeCpuMsPerStep)),
  row("CPU per step, with PostgreSQL, ms", (f) => spread(f.cpuMsPerStep)),
  row(`${runs} runs × ${stepsPerRun} steps, s`, (f) => spread(f.stepsPerSecond.map((perSecond) => (runs * stepsPerRun) / perSecond))),
  row("between steps of a run alone, p50 … p99, ms", (f) => `${shown(median(f.gapMs))} … ${shown(quantile(f.gapMs, 0.99))}`),
  row("queries per second when idle", (f) => shown(f.idleQueriesPerSecond)),
  ["resumed after kill -9, p50 … p99, ms", `${shown(median(tookMs))} … ${shown(quantile(tookMs, 0.99))}`, "", "4 h by default"],
]);
printJson({
  stepsPerSecond: median(plain.stepsPerSecond),
  roundTripsPerStep: median(plain.roundTripsPerStepAlone),
  roundTripsPerStepUnderLoad: median(plain.roundTripsPerStep),
  stepP50Ms: median(plain.gapMs),
  resumeAfterKillP99Ms: quantile(tookMs, 0.99),
  idleQueriesPerSecond: plain.idleQueriesPerSecond,
  vsPeerCpuRatio: median(plain.cpuMsPerStep) / median(peer.cpuMsPerStep),
  stepsPerSecondWithLocks: median(withLocks.stepsPerSecond),
  peerStepsPerSecond: median(peer.stepsPerSecond),
  peerStepP50Ms: median(peer.gapMs),
});
await server.close();
process.exit(0);
