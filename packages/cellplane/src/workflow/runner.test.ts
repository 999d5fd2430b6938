import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { assert } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
import { openStore } from "../store/store.ts";
import type { Json, Outcome } from "./model.ts";
import { createRunner } from "./runner.ts";
import type { RunnerEvent } from "./steps.ts";
import { cancelRun, deleteFinalRuns, getOperation, listOperations, pauseRun, readLog, readSteps, resumeRun, retryRun, signalRun, startRun } from "./store.ts";
import { type Engine, flow, openEngine, until } from "./testing/engine.ts";

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine();
  await engine.store.query("create table effect (run text, step text, at timestamptz default clock_timestamp())");
});
afterEach(() => engine.stopRunners());
afterAll(() => engine.close());

/** A way to PostgreSQL that can go silent without closing, as a broken network does. */
async function openProxy(url: string): Promise<{ url: string; freeze(): void; close(): void }> {
  const sockets = new Set<Socket>();
  const proxy = createServer((near) => {
    const far = connect(Number(new URL(url).port), new URL(url).hostname);
    for (const [from, to] of [[near, far], [far, near]] as const) {
      sockets.add(from.on("error", () => to.destroy()).on("close", () => to.destroy()));
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return {
    url: Object.assign(new URL(url), { host: `127.0.0.1:${(proxy.address() as AddressInfo).port}` }).href,
    freeze: () => sockets.forEach((socket) => socket.unpipe().pause()),
    close() {
      sockets.forEach((socket) => socket.destroy());
      proxy.close();
    },
  };
}

const done = (result: Json = null): Outcome => ({ kind: "done", result });
const never = (signal: AbortSignal): Promise<never> => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
const state = async (id: string) => (await getOperation(engine.store, id)).state;

describe("steps", () => {
  test("W3: results are found by name, and the last one is the operation's", async () => {
    const adding = flow("adding", [
      { name: "one", run: async ({ input }) => done(Number(input["n"]) + 1) },
      { name: "two", tx: async ({ result }, tx) => done((await tx.query<{ n: number }>("select $1::int * 2 as n", [result("one")]))[0]?.n ?? 0) },
      { name: "three", run: async ({ result, progress }) => {
        await progress("nearly there", 0.9);
        return done({ two: result("two") ?? null });
      } },
    ]);
    engine.run([adding]);
    const id = await engine.start(adding, { n: 1 });
    expect(await engine.wait(id)).toMatchObject({ state: "succeeded", result: { two: 4 }, ratio: 1, step: null, message: "nearly there", subject: "test/adding", waitsFor: null });
    expect((await readSteps(engine.store, id)).map(({ name, state, result }) => [name, state, result])).toEqual([["one", "done", 2], ["two", "done", 4], ["three", "done", { two: 4 }]]);
  });

  test("W2: a tx step's effect goes with its failure, and stays with its success", async () => {
    const paying = flow("paying", [{
      name: "pay", retry: { attemptsMax: 5, firstDelayMs: 1 },
      tx: async ({ token, attempt }, tx) => {
        await tx.query("insert into effect (run, step) values ($1, 'pay')", [token.runId]);
        if (attempt < 4) throw new Error("not yet");
      },
    }]);
    engine.run([paying]);
    const id = await engine.start(paying, {});
    expect((await engine.wait(id)).state).toBe("succeeded");
    expect(await engine.store.query("select * from effect where run = $1", [id])).toHaveLength(1);
  });

  test("W6, W7: a failure that says never undoes at once, latest first, and keeps its cause", async () => {
    const trail: string[] = [];
    const step = (name: string) => ({ name, run: async () => void trail.push(name), undo: async () => void trail.push(`undo ${name}`) });
    const failing = flow("failing", [step("a"), { name: "b", tx: async () => done(1) }, step("c"), {
      ...step("d"),
      run: async () => {
        trail.push("d");
        throw fail("not_found", { what: "cell", name: "eu-1" });
      },
    }]);
    engine.run([failing]);
    const id = await engine.start(failing, {});
    expect(await engine.wait(id)).toMatchObject({ state: "undone", error: { code: "not_found" }, step: null });
    expect(trail).toEqual(["a", "c", "d", "undo d", "undo c", "undo a"]);
    expect((await readSteps(engine.store, id)).map(({ name, state }) => `${name} ${state}`)).toEqual(["a undone", "b done", "c undone", "d undone"]);
  });

  test("W7: an undo that gives up is told, and tried again when a person asks", async () => {
    let broken = true;
    const stuck = flow("stuck", [
      { name: "a", retry: { attemptsMax: 2, firstDelayMs: 1 }, run: async () => undefined, undo: async () => {
        if (broken) throw new Error("the engine is away");
      } },
      { name: "b", run: async () => { throw fail("not_found", { what: "cell", name: "eu-1" }); } },
    ]);
    engine.run([stuck]);
    const id = await engine.start(stuck, {});
    expect(await engine.wait(id)).toMatchObject({ state: "undo_failed", error: { message: "step a failed: the engine is away" } });
    broken = false;
    await engine.store.transaction((tx) => retryRun(tx, id));
    await until("it is undone", async () => (await state(id)) === "undone");
  });

  test("W7: a broken promise of our own parks the run with its text; a person may retry or cancel", async () => {
    let tries = 0;
    const broken = flow("broken", [{ name: "a", run: async () => {
      tries++;
      assert(tries > 1, "a cell has one region");
    } }]);
    engine.run([broken]);
    const id = await engine.start(broken, {});
    expect(await engine.wait(id)).toMatchObject({ state: "parked", error: { code: "defect", message: "this does not hold: a cell has one region" } });
    await sleep(50);
    expect(tries).toBe(1);
    await engine.store.transaction((tx) => retryRun(tx, id));
    await until("it succeeds", async () => (await state(id)) === "succeeded");
    expect((await getOperation(engine.store, id)).error).toBeNull();
  });

  test("W7: a step that takes longer than its time has failed, also one that does not listen", async () => {
    const late = flow("late", [{ name: "a", timeoutMs: 50, retry: { attemptsMax: 2, firstDelayMs: 1 }, run: () => new Promise(() => undefined) }]);
    engine.run([late]);
    expect(await engine.wait(await engine.start(late, {}))).toMatchObject({ state: "failed", error: { code: "step_timed_out" } });
  });

  test("W7: an answer that PostgreSQL can not store is the step's failure, and nobody else's", async () => {
    const odd = flow("odd", [{ name: "a", retry: { attemptsMax: 1 }, run: async ({ input }) => done(input["odd"] ? "nul \0 and half \ud800" : "fine") }]);
    engine.run([odd]);
    const ids = await Promise.all(Array.from({ length: 20 }, (_, i) => engine.start(odd, { odd: i === 7 })));
    const states = await Promise.all(ids.map(async (id) => (await engine.wait(id)).state));
    expect(states.map((state, i) => (i === 7 ? state === "failed" : state === "succeeded"))).not.toContain(false);
  });
});

describe("people", () => {
  test("W9: pause stops a step that listens within 200 ms; resume goes on; cancel takes back", async () => {
    const trail: string[] = [];
    const long = flow("long", [
      { name: "a", run: async () => void trail.push("a"), undo: async () => void trail.push("undo a") },
      { name: "b", run: ({ signal }) => (trail.push("b"), never(signal)), undo: async () => void trail.push("undo b") },
    ]);
    engine.run([long]);
    const id = await engine.start(long, {});
    // Were they not told but found at the next tick, half of them would take more than 150 ms. A busy machine gets three chances.
    const medians: number[] = [];
    for (let rounds = 1; medians.length < 3 && Math.min(...medians) >= 100; ) {
      const tookMs: number[] = [];
      for (const end = rounds + 5; rounds < end; rounds++) {
        await until("b is in work", () => trail.filter((entry) => entry === "b").length === rounds);
        const askedMs = performance.now();
        await engine.store.transaction((tx) => pauseRun(tx, id));
        await until("it is paused", async () => (await state(id)) === "paused");
        tookMs.push(performance.now() - askedMs);
        await engine.store.transaction((tx) => resumeRun(tx, id));
      }
      medians.push(tookMs.sort((a, b) => a - b)[2] ?? Infinity);
    }
    expect(Math.min(...medians), `medians of ${medians.map(Math.round).join(", ")} ms`).toBeLessThan(100);
    await until("b is in work", () => trail.at(-1) === "b");
    await engine.store.transaction((tx) => cancelRun(tx, id));
    expect(await engine.wait(id)).toMatchObject({ state: "undone", error: { code: "cancelled" } });
    expect(trail.slice(-2)).toEqual(["undo b", "undo a"]);
  });

  test("W9: a step that does not listen ends, and the next is not begun nor taken back", async () => {
    const trail: string[] = [];
    let release = (): void => undefined;
    const deaf = flow("deaf", [
      { name: "a", run: () => new Promise((resolve) => (release = resolve)), undo: async () => void trail.push("undo a") },
      { name: "b", run: async () => void trail.push("b"), undo: async () => void trail.push("undo b") },
    ]);
    engine.run([deaf]);
    const id = await engine.start(deaf, {});
    await until("a is in work", async () => (await getOperation(engine.store, id)).step === "a" && (await state(id)) === "running");
    expect((await engine.store.transaction((tx) => pauseRun(tx, id))).asked).toBe("pause");
    await sleep(50);
    expect(await state(id)).toBe("running");
    release();
    await until("it is paused", async () => (await state(id)) === "paused");
    await engine.store.transaction((tx) => cancelRun(tx, id));
    expect((await engine.wait(id)).state).toBe("undone");
    expect(trail).toEqual(["undo a"]);
  });

  test("W9: what was never begun is cancelled without a worker; a verb that makes no sense is refused", async () => {
    const orphan = flow("orphan", [{ name: "a", run: async () => undefined }]);
    const id = await engine.start(orphan, {});
    expect(await engine.store.transaction((tx) => cancelRun(tx, id))).toMatchObject({ state: "undone", error: { code: "cancelled" } });
    expect((await engine.store.transaction((tx) => cancelRun(tx, id))).state).toBe("undone");
    await expect(engine.store.transaction((tx) => resumeRun(tx, id))).rejects.toMatchObject({ code: "wrong_state" });
    await expect(engine.store.transaction((tx) => pauseRun(tx, "op-none"))).rejects.toMatchObject({ code: "not_found" });
    await expect(engine.store.transaction((tx) => signalRun(tx, id, "go", null))).rejects.toMatchObject({ code: "wrong_state" });
  });
});

describe("waiting", () => {
  test("W10: runs that wait take no slot", async () => {
    const sleeping = flow("sleeping", [{ name: "a", run: async ({ elapsedMs }) => (elapsedMs < 300 ? { kind: "again", afterMs: 320 - elapsedMs } : done()) }]);
    engine.run([sleeping], { slots: 1 });
    const startedMs = performance.now();
    const ids: string[] = [];
    await engine.store.transaction(async (tx) => {
      for (let n = 0; n < 20; n++) ids.push(await startRun(tx, sleeping, {}));
    });
    for (const id of ids) expect((await engine.wait(id)).state).toBe("succeeded");
    expect(performance.now() - startedMs).toBeLessThan(20 * 300);
  });

  test("W10: a slot that comes free is filled at once", async () => {
    const short = flow("short", [{ name: "a", run: async () => undefined }]);
    const ids: string[] = [];
    await engine.store.transaction(async (tx) => {
      for (let n = 0; n < 100; n++) ids.push(await startRun(tx, short, {}));
    });
    engine.run([short], { slots: 4 });
    const startedMs = performance.now();
    for (const id of ids) expect((await engine.wait(id)).state).toBe("succeeded");
    // Were they filled at the next tick only, it would take 25 of them.
    expect(performance.now() - startedMs).toBeLessThan(5000);
  });

  test("W10: a signal is heard before, while and after the step decides to wait for it", async () => {
    const decided: string[] = [];
    let signalNow: ((id: string) => Promise<unknown>) | null = null;
    const waiting = flow("waiting", [{ name: "a", run: async ({ token, received }) => {
      const heard = received("go");
      if (heard !== undefined) return done(heard);
      await signalNow?.(token.runId);
      signalNow = null;
      decided.push(token.runId);
      return { kind: "signal", name: "go", timeoutMs: null };
    } }]);
    const send = (payload: Json) => (id: string) => engine.store.transaction((tx) => signalRun(tx, id, "go", payload));
    const before = await engine.start(waiting, {});
    await send("before")(before);
    engine.run([waiting]);
    expect((await engine.wait(before)).result).toBe("before");

    signalNow = send("while");
    const during = await engine.start(waiting, {});
    expect((await engine.wait(during)).result).toBe("while");

    const after = await engine.start(waiting, {});
    await until("it waits", async () => (await state(after)) === "waiting");
    expect((await getOperation(engine.store, after)).waitsFor).toBe("waits for the signal go");
    await engine.store.transaction((tx) => signalRun(tx, after, "other", null));
    await sleep(50);
    expect(await state(after)).toBe("waiting");
    await send({ by: "me" })(after);
    expect((await engine.wait(after)).result).toEqual({ by: "me" });
    expect(decided).toHaveLength(2);
  });

  test("W10: waiting for a signal ends with its time", async () => {
    const impatient = flow("impatient", [{ name: "a", run: async ({ elapsedMs, received }) => (received("go") !== undefined || elapsedMs > 90 ? done(elapsedMs > 90) : { kind: "signal", name: "go", timeoutMs: 100 }) }]);
    engine.run([impatient]);
    expect((await engine.wait(await engine.start(impatient, {}))).result).toBe(true);
  });

  test("W11: a parent starts each child once however often the step runs, and goes on when all have ended", async () => {
    const child = flow("child", [{ name: "a", run: async ({ input }) => {
      if (input["key"] === "2") throw fail("not_found", { what: "cell", name: "2" });
      return done(input["key"] ?? null);
    } }]);
    let tries = 0;
    const parent = flow("parent", [{ name: "fan out", retry: { attemptsMax: 3, firstDelayMs: 1 }, run: async ({ child, operation }) => {
      const ids = await Promise.all(Array.from({ length: 30 }, (_, i) => child("child", String(i), { key: String(i) })));
      if (tries++ === 0) throw new Error("once more");
      const ended = await Promise.all(ids.map(operation));
      if (ended.some(({ finishedAt }) => finishedAt === null)) return { kind: "children", runIds: ids };
      return done(ended.map(({ state }) => state));
    } }]);
    engine.run([parent, child]);
    engine.run([parent, child]);
    const id = await engine.start(parent, {});
    const { result } = await engine.wait(id);
    expect(result).toEqual(Array.from({ length: 30 }, (_, i) => (i === 2 ? "failed" : "succeeded")));
    expect((await listOperations(engine.store, { parent: id })).items).toHaveLength(30);
  });

  test("W11: a parent is not forgotten when its children have ended before it waits for them", async () => {
    const child = flow("quick child", [{ name: "a", run: async () => undefined }]);
    let tries = 0;
    const parent = flow("slow parent", [{ name: "fan out", run: async ({ child, operation }) => {
      const id = await child("quick child", "1", {});
      if (tries++ > 0) return done();
      await until("the child has ended", async () => (await operation(id)).finishedAt !== null);
      // Whoever would wake the parent has come and gone.
      await sleep(50);
      return { kind: "children", runIds: [id] };
    } }]);
    // Alone, since others sweep every few seconds for what was forgotten.
    const alone = await openEngine();
    try {
      alone.run([parent, child]);
      const startedMs = performance.now();
      expect((await alone.wait(await alone.start(parent, {}))).state).toBe("succeeded");
      expect(performance.now() - startedMs).toBeLessThan(3000);
    } finally {
      await alone.close();
    }
  });

  test("W6, W11: a cancelled parent cancels its children and waits for them before it takes back its own", async () => {
    const trail: string[] = [];
    const child = flow("slow child", [{ name: "a", run: ({ signal }) => never(signal), undo: async () => {
      await sleep(30);
      trail.push("undo child");
    } }]);
    const parent = flow("careful parent", [
      { name: "first", run: async () => undefined, undo: async () => void trail.push("undo parent") },
      { name: "fan out", run: async ({ child }) => ({ kind: "children", runIds: [await child("slow child", "1", {}), await child("slow child", "2", {})] }) },
    ]);
    engine.run([parent, child]);
    const id = await engine.start(parent, {});
    await until("the children are in work", async () => (await listOperations(engine.store, { parent: id, state: "running" })).items.length === 2);
    await engine.store.transaction((tx) => cancelRun(tx, id));
    expect((await engine.wait(id)).state).toBe("undone");
    expect(trail).toEqual(["undo child", "undo child", "undo parent"]);
  });
});

describe("locks", () => {
  test("W8: a lock has one holder at a time, a semaphore as many as it has slots, and epochs grow from holder to holder", async () => {
    const holders = new Map<string, number>();
    const most = new Map<string, number>();
    const epochs: number[] = [];
    const enter = (name: string, by: number) => {
      holders.set(name, (holders.get(name) ?? 0) + by);
      most.set(name, Math.max(most.get(name) ?? 0, holders.get(name) ?? 0));
    };
    const guarded = flow("guarded", [{ name: "a", run: async ({ input, token }) => {
      const names = ["semaphore", `lock ${String(input["lock"])}`];
      if (input["lock"] === 0) epochs.push(token.epoch);
      for (const name of names) enter(name, 1);
      await sleep(5);
      for (const name of names) enter(name, -1);
    } }], { locks: (input) => [{ name: "semaphore", slots: 3 }, { name: `lock ${String(input["lock"])}`, slots: 1 }] });
    for (let n = 0; n < 3; n++) engine.run([guarded]);
    const ids: string[] = [];
    for (let n = 0; n < 60; n++) ids.push(await engine.start(guarded, { lock: n % 4 }));
    for (const id of ids) expect((await engine.wait(id)).state).toBe("succeeded");
    expect(Object.fromEntries(most)).toEqual({ semaphore: expect.toSatisfy((n: number) => n === 2 || n === 3), "lock 0": 1, "lock 1": 1, "lock 2": 1, "lock 3": 1 });
    expect(epochs).toEqual(epochs.toSorted((a, b) => a - b));
    expect(await engine.store.query("select * from run_lock")).toEqual([]);
  });

  test("W8: of those who wait the oldest is served first", async () => {
    const served: Json[] = [];
    const queueing = flow("queueing", [{ name: "a", run: async ({ input, received }) => {
      if (input["n"] === 0 && received("go") === undefined) return { kind: "signal", name: "go", timeoutMs: null };
      served.push(input["n"] ?? null);
      return done();
    } }], { locks: () => [{ name: "counter", slots: 1 }] });
    engine.run([queueing]);
    engine.run([queueing]);
    const ids: string[] = [];
    for (let n = 0; n < 8; n++) {
      ids.push(await engine.start(queueing, { n }));
      await until("it waits", async () => (await state(ids[n] ?? "")) === "waiting");
    }
    await engine.store.transaction((tx) => signalRun(tx, ids[0] ?? "", "go", null));
    for (const id of ids) expect((await engine.wait(id)).state).toBe("succeeded");
    expect(served).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test("W8: a run that waits says for whom; it leaves the queue when it is paused or cancelled, and nobody behind it is forgotten", async () => {
    const wanting = flow("wanting", [{ name: "a", run: async ({ received }) => (received("go") === undefined ? { kind: "signal", name: "go", timeoutMs: null } : done()) }], { locks: () => [{ name: "cell/eu-1", slots: 1 }] });
    engine.run([wanting]);
    const ids: string[] = [];
    for (let n = 0; n < 5; n++) {
      ids.push(await engine.start(wanting, {}));
      await until("it waits", async () => (await state(ids[n] ?? "")) === "waiting");
    }
    const [holder = "", paused = "", cancelled = "", third = "", last = ""] = ids;
    expect((await getOperation(engine.store, third)).waitsFor).toBe(`waits for cell/eu-1, held by ${holder}`);
    await engine.store.transaction((tx) => pauseRun(tx, paused));
    await engine.store.transaction((tx) => cancelRun(tx, cancelled));
    expect(await state(cancelled)).toBe("undone");
    const go = (id: string) => engine.store.transaction((tx) => signalRun(tx, id, "go", null));
    await go(holder);
    expect((await engine.wait(holder)).state).toBe("succeeded");
    await go(third);
    expect((await engine.wait(third)).state).toBe("succeeded");
    await engine.store.transaction((tx) => resumeRun(tx, paused));
    await go(last);
    await go(paused);
    expect((await engine.wait(last)).state).toBe("succeeded");
    expect((await engine.wait(paused)).state).toBe("succeeded");
  });

  test("W8: a run that is undone keeps its locks until that is over", async () => {
    const trail: string[] = [];
    const failing = flow("failing holder", [{ name: "a", run: async () => { throw fail("not_found", { what: "cell", name: "x" }); }, undo: async () => {
      await sleep(50);
      trail.push("undone");
    } }], { locks: () => [{ name: "cell/x", slots: 1 }] });
    const next = flow("next holder", [{ name: "a", run: async () => void trail.push("next") }], { locks: () => [{ name: "cell/x", slots: 1 }] });
    engine.run([failing, next]);
    const first = await engine.start(failing, {});
    await until("it has the lock", async () => (await engine.store.query("select * from run_lock where run = $1", [first])).length === 1);
    const second = await engine.start(next, {});
    await engine.wait(first);
    expect((await engine.wait(second)).state).toBe("succeeded");
    expect(trail).toEqual(["undone", "next"]);
  });
});

describe("starting and reading", () => {
  const plain = flow("plain", [{ name: "a", run: async () => undefined }]);

  test("W13: a run starts with its transaction or not at all", async () => {
    const id = await engine.store.transaction((tx) => startRun(tx, plain, {}), { dryRun: true });
    await expect(getOperation(engine.store, id)).rejects.toMatchObject({ code: "not_found" });
  });

  test("W13: the same key is the same run, also for ten at once; another input is refused", async () => {
    const ids = await Promise.all(Array.from({ length: 10 }, () => engine.start(plain, { n: 1 }, { idempotencyKey: "once" })));
    expect(new Set(ids).size).toBe(1);
    await expect(engine.start(plain, { n: 2 }, { idempotencyKey: "once" })).rejects.toMatchObject({ code: "idempotency_mismatch" });
    await expect(engine.start(plain, 7 as never)).rejects.toMatchObject({ code: "invalid_input" });
  });

  test("W14: lists are paged without gaps, and filtered", async () => {
    const listed = flow("listed", [{ name: "a", run: async () => undefined }], { subject: ({ n }) => `cell/${Number(n) % 2}` });
    const ids: string[] = [];
    for (let n = 0; n < 25; n++) ids.push(await engine.start(listed, { n }));
    const found: string[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await listOperations(engine.store, { workflow: "listed", limit: 10, cursor });
      found.push(...page.items.map(({ id }) => id));
      if (page.nextCursor === null) break;
      cursor = page.nextCursor;
    }
    expect(found).toEqual(ids.toReversed());
    expect((await listOperations(engine.store, { workflow: "listed", subject: "cell/1", state: "open" })).items).toHaveLength(12);
    expect((await listOperations(engine.store, { workflow: "listed", state: "failed" })).items).toEqual([]);
  });

  test("W12: a run that no living worker knows waits and says so, and steps are what the newest build has", async () => {
    const of = (version: number) => flow("versioned", [{ name: "a", run: async () => done(version) }], { version });
    const [first, second] = [of(1), of(2)];
    engine.run([first]);
    const old = await engine.start(first, {});
    const young = await engine.start(second, {});
    expect((await engine.wait(old)).result).toBe(1);
    expect(await getOperation(engine.store, young)).toMatchObject({ state: "pending", waitsFor: "no running build knows versioned version 2" });
    engine.run([second]);
    expect((await engine.wait(young)).result).toBe(2);
  });

  test("W14: a log reader by cursor sees every line once, also those that commit late", async () => {
    const id = await engine.start(flow("logged", [{ name: "a", run: async () => undefined }]), {});
    const line = (db: { query: (sql: string, params: unknown[]) => Promise<unknown> }, message: string) => db.query("insert into run_log (run, message) values ($1, $2)", [id, message]);
    const seen: string[] = [];
    let cursor: string | undefined;
    const read = async () => {
      for (const { message, cursor: at } of await readLog(engine.store, id, { after: cursor })) {
        seen.push(message);
        cursor = at;
      }
    };
    await engine.store.transaction(async (tx) => {
      await line(tx, "begun first, committed last");
      await line(engine.store, "begun last, committed first");
      await read();
      expect(seen).toEqual([]);
    });
    await until("both lines are seen", async () => (await read(), seen.length === 2));
    expect(seen).toEqual(["begun first, committed last", "begun last, committed first"]);
    await expect(readLog(engine.store, id, { after: "x" })).rejects.toMatchObject({ code: "invalid_input" });
  });

  test("W14: runs that ended long ago are forgotten with all that is theirs, others are not", async () => {
    const forgotten = flow("forgotten", [{ name: "a", run: async () => undefined }]);
    engine.run([forgotten]);
    const [old, young] = [await engine.start(forgotten, {}), await engine.start(forgotten, {})];
    await engine.wait(old);
    await engine.wait(young);
    const open = await engine.start(flow("never run", [{ name: "a", run: async () => undefined }]), {});
    await engine.store.query("update run set finished_at = now() - interval '31 days' where id = $1", [old]);
    await engine.store.query("update run set created_at = now() - interval '31 days' where id = $1", [open]);
    expect(await deleteFinalRuns(engine.store, { olderThanDays: 30, countMax: 100 })).toBe(1);
    const left = await engine.store.query<{ id: string }>("select id from run where id = any($1) union all select run from run_step where run = $2 union all select run from run_log where run = $2", [[old, young, open], old]);
    expect(left.map(({ id }) => id).sort()).toEqual([young, open].sort());
  });
});

describe("workers", () => {
  test("W3, W9: stopping waits for steps in work, begins no other, and gives the rest to others at once", async () => {
    let release = (): void => undefined;
    const trail: string[] = [];
    const handed = flow("handed over", [
      { name: "a", run: () => new Promise((resolve) => (release = resolve)) },
      { name: "b", run: async () => void trail.push("b") },
    ]);
    const endless = flow("endless", [{ name: "a", run: ({ signal }) => (trail.push("endless"), never(signal)) }]);
    const first = engine.run([handed, endless]);
    const id = await engine.start(handed, {});
    const other = await engine.start(endless, {});
    await until("both are in work", async () => (await listOperations(engine.store, { state: "running" })).items.filter((o) => [id, other].includes(o.id)).length === 2);
    const stopped = first.stop({ drainMs: 300 });
    release();
    await stopped;
    expect(trail).toEqual(["endless"]);
    expect([await state(id), await state(other)]).toEqual(["pending", "pending"]);
    expect(await engine.store.query("select * from worker")).toEqual([]);
    expect(await engine.store.query("select crashes from run where id = any($1) and crashes > 0", [[id, other]])).toEqual([]);
    engine.run([handed, endless]);
    expect((await engine.wait(id)).state).toBe("succeeded");
  });

  test("W4: a worker that others hold for dead drops what it has, and begins a new life", async () => {
    const events: RunnerEvent[] = [];
    let tries = 0;
    const kept = flow("kept", [{ name: "a", run: ({ signal }) => (tries++ === 0 ? never(signal) : Promise.resolve()) }]);
    engine.run([kept], { log: (event) => events.push(event) });
    const id = await engine.start(kept, {});
    await until("it is in work", () => tries === 1);
    engine.run([kept]);
    const [{ owner } = expect.unreachable()] = await engine.store.query<{ owner: number }>("select owner from run where id = $1", [id]);
    // As if it had been stopped for a minute, until another looks before its own next beat.
    await until("it is lost", async () => {
      await engine.store.query("update worker set beat_at = now() - interval '1 minute' where id = $1", [owner]);
      return events.some((event) => event.kind === "worker" && event.what === "lost");
    });
    await until("it lives again", () => events.filter((event) => event.kind === "worker" && event.what === "born").length === 2);
    expect((await engine.wait(id)).state).toBe("succeeded");
  });

  test("W5: a worker that is cut off stops its steps before others take them", async () => {
    const proxy = await openProxy(engine.url);
    const cutOff = openStore(proxy.url, { connectionsMax: 2 });
    const at: string[] = [];
    const long = flow("cut off", [{ name: "a", run: ({ signal, attempt }) => {
      at.push(`begun ${attempt}`);
      if (at.length > 1) return Promise.resolve();
      signal.addEventListener("abort", () => at.push("stopped"));
      return never(signal);
    } }]);
    const runner = createRunner({ store: cutOff, workflows: [long], build: "test" });
    try {
      runner.start();
      const id = await engine.start(long, {});
      await until("it is in work", () => at.length === 1);
      engine.run([long]);
      proxy.freeze();
      expect((await engine.wait(id)).state).toBe("succeeded");
      expect(at).toEqual(["begun 1", "stopped", "begun 1"]);
    } finally {
      proxy.close();
      await runner.stop();
      await cutOff.close();
    }
  });

  test("W15: an idle instance asks at most 4 times a second", async () => {
    const quiet = await openEngine();
    try {
      quiet.run([flow("none", [{ name: "a", run: async () => undefined }])]);
      await sleep(500);
      const query = vi.spyOn(pg.Client.prototype, "query");
      // Of this engine alone: others of this file tick as well.
      const port = new URL(quiet.url).pathname.slice(1);
      await sleep(5000);
      const asked = query.mock.contexts.filter((client) => (client as unknown as { database: string }).database === port).length;
      query.mockRestore();
      expect(asked).toBeGreaterThan(5);
      expect(asked / 5).toBeLessThanOrEqual(4);
    } finally {
      await quiet.close();
    }
  });
});
