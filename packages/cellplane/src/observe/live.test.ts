import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testDatabase } from "../../../../tests/database.ts";
import { prng } from "../base/prng.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { eventSink } from "./events.ts";
import { type LiveEvents, type Message, openLiveEvents, type Subscription } from "./live.ts";
import { compareCursors, parseCursor } from "./model.ts";
import { type EventStore, insertEvents, openEventStore } from "./store.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let store: Store;
let events: EventStore;
const opened: LiveEvents[] = [];
const sink = eventSink(insertEvents);

beforeAll(async () => {
  db = await testDatabase();
  store = openStore(db.url, { connectionsMax: 12 });
  await applySchema(store);
  events = openEventStore(store);
});
afterAll(async () => {
  for (const live of opened) live.close();
  await store.close();
  await db.drop();
});

function openLive(options: Parameters<typeof openLiveEvents>[1] = {}, from: EventStore = events): LiveEvents {
  const live = openLiveEvents(from, options);
  opened.push(live);
  return live;
}

const emit = (kind: string, subject: string, data: Record<string, unknown> = {}, before: Promise<unknown> | null = null) =>
  store.transaction(async (tx) => {
    // Takes its transaction id first, so that it is older than what commits while it waits.
    await tx.query("select pg_current_xact_id()");
    await before;
    sink.emit(tx, kind, subject, data);
  });

const everything: Omit<Subscription, "signal"> = { after: null, filter: { kinds: [], subject: null } };

/** Collects until `enough`, or the stream ends. */
async function collect(live: LiveEvents, from: Partial<Subscription>, enough: (messages: Message[]) => boolean): Promise<Message[]> {
  const stop = new AbortController();
  const messages: Message[] = [];
  for await (const message of live.follow({ ...everything, signal: stop.signal, ...from })) {
    messages.push(message);
    if (enough(messages)) stop.abort();
  }
  return messages;
}

const eventsOf = (messages: Message[]) => messages.flatMap((message) => (message.kind === "event" ? [message.event] : []));
const position = async () => (await events.position()).now;

describe("E1: whoever resumes by cursor sees every event once, in order", () => {
  const seed = Date.now() % 1e9;
  test(`also when transactions commit in another order than they began, and followers come and go (SEED=${seed})`, async () => {
    const random = prng(seed);
    const live = openLive({ queueMax: 20 });
    const start = await position();
    const total = 300;
    const writing = (async () => {
      const running = new Set<Promise<unknown>>();
      for (let i = 0; i < total; i++) {
        const write = emit("race.event", `race/${i}`, { i }, random() < 0.3 ? sleep(random() * 120) : null).finally(() => running.delete(write));
        running.add(write);
        if (running.size >= 8) await Promise.race(running);
        if (random() < 0.05) await sleep(random() * 30);
      }
      await Promise.all(running);
    })();

    const followers = Array.from({ length: 4 }, async () => {
      const seen: { i: number; cursor: string }[] = [];
      for (let cursor = start; seen.length < total; ) {
        const leaveAfter = 1 + Math.floor(random() * 60);
        const got = eventsOf(await collect(live, { after: cursor, filter: { kinds: ["race."], subject: null } }, (messages) => eventsOf(messages).length >= Math.min(leaveAfter, total - seen.length)));
        seen.push(...got.map((event) => ({ i: Number(event.data["i"]), cursor: event.cursor })));
        cursor = parseCursor(seen.at(-1)?.cursor ?? "") ?? cursor;
      }
      return seen;
    });
    const all = await Promise.all(followers);
    await writing;
    for (const seen of all) {
      expect(seen.map((s) => s.i).sort((a, b) => a - b)).toEqual(Array.from({ length: total }, (_, i) => i));
      const cursors = seen.map((s) => parseCursor(s.cursor) ?? { xid: "0", id: 0 });
      expect(cursors.every((cursor, i) => i === 0 || compareCursors(cursors[i - 1] ?? cursor, cursor) < 0)).toBe(true);
    }
  });

  test("what an older transaction still hides is not told before it ends", async () => {
    const live = openLive();
    const start = await position();
    let end = () => undefined as void;
    const older = emit("held.older", "held/1", {}, new Promise<void>((resolve) => (end = resolve)));
    await expect.poll(async () => (await store.query("select 1 from pg_stat_activity where state = 'idle in transaction' and datname = current_database()")).length).toBeGreaterThan(0);
    await emit("held.newer", "held/2");
    expect((await events.after(start, { kinds: ["held."], subject: null }, 10)).events).toEqual([]);
    const both = collect(live, { after: start, filter: { kinds: ["held."], subject: null } }, (messages) => eventsOf(messages).length === 2);
    await sleep(50);
    end();
    await older;
    expect(eventsOf(await both).map((event) => event.kind)).toEqual(["held.older", "held.newer"]);
  });
});

test("E2: a stream without a cursor starts now, and says where that is", async () => {
  const live = openLive();
  const start = await position();
  await emit("past.event", "past/1");
  await expect.poll(async () => (await events.after(start, { kinds: ["past."], subject: null }, 1)).events).toHaveLength(1);
  const seen = collect(live, { filter: { kinds: ["now.", "past."], subject: null } }, (messages) => eventsOf(messages).length === 1);
  await expect.poll(() => live.followers()).toBe(1);
  await emit("now.event", "now/1");
  const [hello, event] = await seen;
  expect(hello).toMatchObject({ kind: "hello", reset: false });
  expect(event).toMatchObject({ kind: "event", event: { kind: "now.event" } });
});

test("E3: filters by kinds and by subject, exactly or below", async () => {
  const start = await position();
  for (const [kind, subject] of [["f.a", "cell/eu-1"], ["f.b", "cell/eu-10"], ["f.ab", "cells"], ["g.a", "cell/eu-1"]] as const) await emit(kind, subject);
  const seen = async (kinds: string[], subject: string | null) => (await events.after(start, { kinds, subject }, 10)).events.map((event) => `${event.kind} ${event.subject}`);
  await expect.poll(() => seen(["f.", "g."], null)).toHaveLength(4);
  expect(await seen(["f.a"], null)).toEqual(["f.a cell/eu-1", "f.ab cells"]);
  expect(await seen([], "cell/eu-1")).toEqual(["f.a cell/eu-1", "g.a cell/eu-1"]);
  expect(await seen(["f."], "cell/")).toEqual(["f.a cell/eu-1", "f.b cell/eu-10"]);
  expect(await seen(["f_"], "cell/%")).toEqual([]);
});

test("E4: one reader serves all followers", async () => {
  let reads = 0;
  const counted: EventStore = { ...events, after: (...args) => (reads++, events.after(...args)) };
  const live = openLive({}, counted);
  const stop = new AbortController();
  setMaxListeners(100, stop.signal);
  const got = Array.from({ length: 30 }, () => 0);
  const all = got.map(async (_, i) => {
    for await (const message of live.follow({ ...everything, filter: { kinds: ["fan."], subject: null }, signal: stop.signal })) if (message.kind === "event") got[i] = (got[i] ?? 0) + 1;
  });
  await expect.poll(() => live.followers()).toBe(30);
  await sleep(100);
  reads = 0;
  for (let i = 0; i < 10; i++) await emit("fan.out", `fan/${i}`);
  await expect.poll(() => got.every((n) => n === 10)).toBe(true);
  expect(reads).toBeLessThan(40);
  stop.abort();
  await Promise.all(all);
  expect(live.followers()).toBe(0);
});

test("E5: a follower that cannot keep up is let go, and loses nothing by it", async () => {
  const live = openLive({ queueMax: 5 });
  const stop = new AbortController();
  const slow = live.follow({ ...everything, filter: { kinds: ["slow."], subject: null }, signal: stop.signal });
  const hello = (await slow.next()).value as Message & { kind: "hello" };
  const pending = slow.next();
  await expect.poll(() => live.followers()).toBe(1);
  await store.transaction(async (tx) => {
    for (let i = 0; i < 50; i++) sink.emit(tx, "slow.event", `slow/${i}`, {});
  });
  const first = (await pending).value as Message;
  const rest: Message[] = [];
  for await (const message of slow) rest.push(message);
  expect(eventsOf([first, ...rest]).length).toBeLessThan(50);
  const again = await collect(live, { after: parseCursor(eventsOf([first, ...rest]).at(-1)?.cursor ?? hello.cursor), filter: { kinds: ["slow."], subject: null } }, (messages) => eventsOf([first, ...rest, ...messages]).length >= 50);
  expect(eventsOf([first, ...rest, ...again]).map((event) => event.subject)).toEqual(Array.from({ length: 50 }, (_, i) => `slow/${i}`));
});

test("E6: a quiet stream is kept alive, and its cursor moves on past what the filter leaves out", async () => {
  const live = openLive({ beatMs: 50 });
  const messages = collect(live, { filter: { kinds: ["never."], subject: null } }, (seen) => seen.filter((message) => message.kind === "beat").length >= 4);
  await expect.poll(() => live.followers()).toBe(1);
  await emit("other.event", "other/1");
  const [hello, ...beats] = (await messages) as (Message & { kind: "beat" | "hello" })[];
  const cursorOf = (message: { cursor: string } | undefined) => parseCursor(message?.cursor ?? "") ?? { xid: "0", id: 0 };
  expect(compareCursors(cursorOf(beats.at(-1)), cursorOf(hello))).toBeGreaterThan(0);
});

test("E7: who comes from before what is kept is told to read everything again", async () => {
  const old = await position();
  for (let i = 0; i < 5; i++) await emit("old.event", `old/${i}`);
  await expect.poll(async () => events.trim(0, 100_000)).toBe(0);
  await emit("fresh.event", "fresh/1");
  const live = openLive();
  const stop = new AbortController();
  const { value } = await live.follow({ ...everything, after: old, signal: stop.signal }).next();
  expect(value).toMatchObject({ kind: "hello", reset: true });
  expect(await store.query("select 1 from event where kind = 'old.event'")).toEqual([]);
});

test("text that PostgreSQL cannot keep is told all the same", async () => {
  const start = await position();
  await emit("odd.event", "odd/1", { log: "a\0b\ud800c", nested: [{ "k": "\0" }] });
  await expect.poll(async () => (await events.after(start, { kinds: ["odd."], subject: null }, 1)).events[0]?.data).toEqual({ log: "a\uFFFDb\uFFFDc", nested: [{ k: "\uFFFD" }] });
});
