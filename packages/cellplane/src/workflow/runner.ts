import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { assert } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
import { stableHash } from "../base/prng.ts";
import type { EventSink } from "../drivers/driver.ts";
import type { Queryable } from "../store/model.ts";
import { asStoreError, type Store } from "../store/store.ts";
import type { Workflow } from "./model.ts";
import { carry, createWriter, type Hand, type RunnerEvent, StopRequest, type Worker, workflowKey } from "./steps.ts";
import { askedChannel, beat, claim, deleteFinalRuns, dueChannel, openWorker, releaseWorkers, wakeForgotten } from "./store.ts";

export interface RunnerOptions {
  store: Store;
  workflows: readonly Workflow[];
  /** Names this build to people, beside the versions it can run. */
  build: string;
  /** Runs in work at once. A run that waits needs none. */
  slots?: number;
  /** Hears what becomes of runs. */
  events?: EventSink;
  log?: (event: RunnerEvent) => void;
  random?: () => number;
  /** How long runs that have ended are kept; null: for ever. */
  retentionDays?: number | null;
}

export interface Runner {
  start(): void;
  /** Begins no further step, waits for those in work for `drainMs`, tells the rest to stop, and gives all runs back. */
  stop(options?: { drainMs?: number }): Promise<void>;
}

/** How often a worker says that it lives and looks for what it was not told of. */
const tickMs = 300;
/** Who was not heard of for so long is dead. It gives up by itself at two thirds, by its own monotonic clock. */
const silentMsMax = 4000;
const sweepEveryTicks = 16;
const forgetEveryTicks = 200;
const stopGraceMs = 2000;

/**
 * Runs workflows, beside any number of other runners on the same database. It lives in lives: each is one session with
 * PostgreSQL and one row in `worker`. When the session breaks, or others hold it for dead, everything in hand is dropped
 * and a new life begins.
 */
export function createRunner({ store, workflows, build, slots = 20, events, log = () => undefined, random = Math.random, retentionDays = 30 }: RunnerOptions): Runner {
  checkWorkflows(workflows);
  const byKey = new Map(workflows.map((workflow) => [workflowKey(workflow), workflow]));
  const versions = [...byKey.keys()];
  const stopping = new AbortController();
  let life: Life | null = null;
  let lives: Promise<void> | null = null;

  interface Life extends Worker {
    /** Settles when it is over. */
    ended: Promise<void>;
    end: (why: string) => void;
    claiming: boolean;
    claimAgain: boolean;
    lastBeatMs: number;
  }

  async function live(): Promise<void> {
    const stopped = new Promise<void>((resolve) => stopping.signal.addEventListener("abort", () => resolve()));
    for (let pauseMs = 50; !stopping.signal.aborted; pauseMs = Math.min(pauseMs * 2, 1000)) {
      try {
        life = await begin();
        pauseMs = 50;
        void tick(life, 0);
        await Promise.race([life.ended, stopped]);
        if (!life.over) await drain(life);
      } catch (error) {
        log({ kind: "problem", error });
      }
      life = null;
      await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  async function begin(): Promise<Life> {
    const sentMs = performance.now();
    const client = await store.connect();
    const session = prepared(client);
    const id = await openWorker(session, { build, workflows: versions }).catch(async (error: unknown) => {
      await client.end();
      throw error;
    });
    const over = new AbortController();
    const worker: Omit<Life, "write"> = {
      id, session, store, workflows: byKey, events, random, log, over: false, draining: false, hands: new Map(), claiming: false, claimAgain: false, lastBeatMs: sentMs,
      ended: new Promise((resolve) => over.signal.addEventListener("abort", () => resolve())),
      end: (why) => {
        if (worker.over) return;
        worker.over = true;
        void client.end().catch(() => undefined);
        const lost = fail("database_unavailable", { why });
        for (const hand of worker.hands.values()) hand.stop?.abort(lost);
        log({ kind: "worker", worker: id, what: why === "" ? "ended" : "lost", why });
        over.abort();
      },
      lookAfter: (ms) => {
        // What falls due later, a tick will see in time.
        if (ms < tickMs) setTimeout(() => look(born), ms + 1).unref();
      },
    };
    const born: Life = Object.assign(worker, { write: createWriter(worker) });
    client.on("end", () => born.end("its session broke"));
    client.on("error", () => born.end("its session broke"));
    log({ kind: "worker", worker: id, what: "born", why: "" });
    watch(born);
    return born;
  }

  /** A worker that can not say that it lives stops before others take over, whatever became of its last beat. */
  function watch(born: Life): void {
    const leftMs = born.lastBeatMs + (silentMsMax * 2) / 3 - performance.now();
    if (leftMs <= 0) born.end("it could not beat");
    if (!born.over) setTimeout(() => watch(born), leftMs).unref();
  }

  async function tick(born: Life, count: number): Promise<void> {
    const sentMs = performance.now();
    try {
      const answer = await beat(born.session, born.id, silentMsMax, versions);
      if (!answer.alive) return born.end("others held it for dead");
      born.lastBeatMs = sentMs;
      for (const id of answer.asked) askToStop(born, id);
      if (answer.dead.length > 0) {
        await releaseWorkers(born.session, answer.dead, { crashed: true });
        log({ kind: "takeover", worker: born.id, from: answer.dead });
      }
      if (answer.due || answer.dead.length > 0) look(born);
      if (answer.dueInMs !== null) born.lookAfter(answer.dueInMs);
      if (count % sweepEveryTicks === sweepEveryTicks - 1) await wakeForgotten(store);
      if (count % forgetEveryTicks === 1 && retentionDays !== null) await deleteFinalRuns(store, { olderThanDays: retentionDays, countMax: 1000 });
    } catch (error) {
      if (!born.over) log({ kind: "problem", error });
    }
    if (!born.over) setTimeout(() => void tick(born, count + 1), Math.max(0, sentMs + tickMs - performance.now()));
  }

  function askToStop(born: Life, id: string): void {
    const hand = born.hands.get(id);
    if (!hand || hand.asked) return;
    hand.asked = true;
    if (!hand.undoing) hand.stop?.abort(new StopRequest());
  }

  /** Claims as much as there are free slots. Calls that come meanwhile are one more look afterwards. */
  function look(born: Life): void {
    born.claimAgain = true;
    if (!born.claiming) void claimAll(born);
  }

  async function claimAll(born: Life): Promise<void> {
    born.claiming = true;
    try {
      while (born.claimAgain && !born.over && !born.draining && born.hands.size < slots) {
        born.claimAgain = false;
        const free = slots - born.hands.size;
        const claimed = await claim(born.session, born.id, versions, free);
        // As many as there was room for: there may be more, which the next free slot looks for.
        born.claimAgain ||= claimed.length === free;
        for (const run of claimed) {
          const hand: Hand = { asked: false, undoing: false, stop: null };
          born.hands.set(run.id, hand);
          void carry(born, run, hand).finally(() => {
            born.hands.delete(run.id);
            if (born.claimAgain) look(born);
          });
        }
      }
    } catch (error) {
      if (!born.over) log({ kind: "problem", error });
    } finally {
      born.claiming = false;
    }
  }

  /** The end that was asked for: steps in work are given time, then told to stop, and what they leave goes to others. */
  async function drain(last: Life): Promise<void> {
    last.draining = true;
    const emptyWithin = async (ms: number): Promise<void> => {
      for (const untilMs = performance.now() + ms; last.hands.size > 0 && !last.over && performance.now() < untilMs; ) await sleep(10);
    };
    await emptyWithin(stopping.signal.reason as number);
    for (const hand of last.hands.values()) hand.stop?.abort(new StopRequest());
    await emptyWithin(stopGraceMs);
    try {
      if (!last.over) await releaseWorkers(last.session, [last.id], { crashed: false });
    } finally {
      last.end("");
    }
  }

  return {
    start() {
      assert(lives === null, "a runner is started once");
      const unlisten = [
        store.listen(dueChannel, () => life && look(life)),
        store.listen(askedChannel, (id) => life && askToStop(life, id)),
      ];
      lives = live().finally(() => unlisten.forEach((stop) => stop()));
    },

    async stop({ drainMs = 10_000 } = {}) {
      stopping.abort(drainMs);
      await lives;
    },
  };
}

/** One statement after the other; those of one text are parsed and planned once. */
function prepared(client: pg.Client): Queryable {
  let last: Promise<unknown> = Promise.resolve();
  return {
    query<R>(text: string, values: readonly unknown[] = []): Promise<R[]> {
      const send = async (): Promise<R[]> => {
        try {
          return (await client.query({ name: `w${stableHash(text)}`, text, values: [...values] })).rows as R[];
        } catch (error) {
          throw asStoreError(error);
        }
      };
      const result = last.then(send, send);
      last = result;
      return result;
    },
  };
}

function checkWorkflows(workflows: readonly Workflow[]): void {
  assert(new Set(workflows.map(workflowKey)).size === workflows.length, "no two workflows have the same name and version");
  for (const { name, steps } of workflows) {
    assert(steps.length > 0, `workflow ${name} has a step`);
    assert(new Set(steps.map((step) => step.name)).size === steps.length, `the steps of workflow ${name} have names of their own`);
    for (const step of steps) assert(!step.run !== !step.tx, `step ${step.name} of workflow ${name} has either run or tx`);
  }
}
