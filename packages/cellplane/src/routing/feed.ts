import type { Clock } from "../base/clock.ts";
import type { Store } from "../store/store.ts";
import { batchFrame, beatFrame, gapFrame, type LogRow } from "./batch.ts";
import { explainByRows } from "./explain.ts";
import type { Explanation, Router } from "./model.ts";
import type { AskedRequest } from "./request.ts";
import { sealSnapshot, type SnapshotPosition } from "./snapshot.ts";
import { changesSince, isOnLog, listAcks, readRoutes, routeHead, type RouterAck, routesChannel, saveAcks } from "./store.ts";

/** What one control plane instance gives to routers. Any instance serves any router at any time. */
export interface RouteFeed {
  /** GET /v1/routes/snapshot */
  snapshotStream(request: Request): Promise<Response>;
  /** GET /v1/routes/stream?from=<version>&digest=<digest>: lives until one side goes. */
  changeStream(request: Request): Promise<Response>;
  ack(ack: Omit<RouterAck, "atMs">): void;
  /** Routers heard of within the last hour, by any instance. */
  routers(): Promise<Router[]>;
  explain(request: AskedRequest): Promise<Explanation>;
  close(): Promise<void>;
}

export interface RouteFeedOptions {
  clock: Clock;
  /** Changes within this time travel together: what costs a router is the batch, not the change. */
  coalesceMs?: number;
  beatMs?: number;
  /** How long acknowledgements are gathered before they are written. */
  ackMs?: number;
}

interface Subscriber {
  controller: ReadableStreamDefaultController<Uint8Array>;
}

const pageRows = 2000;
/** Log rows kept in memory for routers that reconnect. */
const recentBytesMax = 8 * 1024 * 1024;
/** A router that lets this much pile up is cut off; it resumes where it is. */
const backlogBytesMax = 64 * 1024 * 1024;
const highWaterMark = 1024 * 1024;
/** Acknowledgements an instance wants a second, of all its routers together. */
const acksPerSecond = 1000;
const ackEveryMsMin = 20;
const snapshotReuseMs = 2000;
const routersSinceMs = 3_600_000;

export async function openRouteFeed(store: Store, { clock, coalesceMs = 20, beatMs = 2000, ackMs = 50 }: RouteFeedOptions): Promise<RouteFeed> {
  const subscribers = new Set<Subscriber>();
  /** The version pushed last. Live subscribers have been sent everything up to it. */
  let tail = await routeHead(store);
  let recent: LogRow[] = [];
  let recentBytes = 0;
  let closed = false;

  // ── new versions ──────────────────────────────────────────────────────────────────────────────────────────────────

  let timer: NodeJS.Timeout | null = null;
  let reading = false;

  function wake(afterMs: number): void {
    if (closed || timer) return;
    timer = setTimeout(() => {
      timer = null;
      if (reading) return wake(coalesceMs);
      reading = true;
      readOn()
        // The database is away: routers go on with what they have, and the next notification or reconnect wakes us.
        .catch(() => wake(1000))
        .finally(() => (reading = false));
    }, afterMs);
  }

  async function readOn(): Promise<void> {
    for (;;) {
      const rows = await changesSince(store, tail.version, pageRows);
      const first = rows[0];
      if (closed || !first) return;
      if (first.version !== tail.version + 1) return startAnew();
      const frame = batchFrame(rows);
      tail = rows.at(-1) ?? tail;
      remember(rows);
      for (const subscriber of subscribers) push(subscriber, frame);
      if (rows.length < pageRows) return;
    }
  }

  function remember(rows: LogRow[]): void {
    recent.push(...rows);
    for (const row of rows) recentBytes += row.changes.length;
    let drop = 0;
    while (recentBytes > recentBytesMax && drop < recent.length) recentBytes -= recent[drop++]?.changes.length ?? 0;
    if (drop > 0) recent = recent.slice(drop);
  }

  /** The log was cut off beneath us, or the database has another history: everybody takes a snapshot. */
  async function startAnew(): Promise<void> {
    recent = [];
    recentBytes = 0;
    tail = await routeHead(store);
    for (const subscriber of subscribers) end(subscriber, gapFrame());
  }

  function push(subscriber: Subscriber, frame: Uint8Array): void {
    if ((subscriber.controller.desiredSize ?? -1) < highWaterMark - backlogBytesMax) return end(subscriber);
    subscriber.controller.enqueue(frame);
  }

  function end(subscriber: Subscriber, frame?: Uint8Array): void {
    if (!subscribers.delete(subscriber)) return;
    if (frame) subscriber.controller.enqueue(frame);
    subscriber.controller.close();
  }

  const unlisten = store.listen(routesChannel, (payload) => {
    // After a reconnect the database may be another one, restored from a backup.
    if (payload === "") void isOnLog(store, tail).then((known) => (known ? wake(0) : startAnew())).catch(() => wake(1000));
    else wake(coalesceMs);
  });

  const beat = (): Buffer => beatFrame(tail.version, Math.max(ackEveryMsMin, Math.round((subscribers.size * 1000) / acksPerSecond)));
  const beats = setInterval(() => {
    const frame = beat();
    for (const subscriber of subscribers) push(subscriber, frame);
  }, beatMs);
  beats.unref();

  // ── one router ────────────────────────────────────────────────────────────────────────────────────────────────────

  async function follow(subscriber: Subscriber, from: SnapshotPosition, gone: () => boolean): Promise<void> {
    const { controller } = subscriber;
    let version = from.version;
    const known = (from.version === tail.version && from.digest === tail.digest) || recent.some((row) => row.version === from.version && row.digest === from.digest) || (await isOnLog(store, from));
    if (gone()) return;
    if (!known) {
      controller.enqueue(gapFrame());
      return controller.close();
    }
    controller.enqueue(beat());
    while (version < tail.version) {
      const oldest = recent[0]?.version ?? Infinity;
      const rows = oldest <= version + 1 ? recent.slice(version + 1 - oldest, version + 1 - oldest + pageRows) : await changesSince(store, version, pageRows);
      if (gone()) return;
      if (rows[0]?.version !== version + 1) {
        controller.enqueue(gapFrame());
        return controller.close();
      }
      controller.enqueue(batchFrame(rows));
      version = rows.at(-1)?.version ?? version;
      while ((controller.desiredSize ?? 0) < 0 && !gone()) await new Promise((resolve) => setTimeout(resolve, 20));
      if (gone()) return;
    }
    // No await between the last comparison with `tail` and here: the next push finds it.
    subscribers.add(subscriber);
  }

  // ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────

  interface BuiltSnapshot {
    position: SnapshotPosition;
    chunks: Buffer[];
    builtAtMs: number;
  }
  /** One for all who ask at the same time: a thousand routers may start at once. */
  let snapshot: Promise<BuiltSnapshot> | null = null;

  async function buildSnapshot(): Promise<BuiltSnapshot> {
    let position: SnapshotPosition | undefined;
    let count = 0;
    const lines: string[] = [];
    await readRoutes(store, (at, about) => ((position = at), (count = about)), (chunk) => lines.push(chunk));
    const at = position ?? tail;
    const chunks: Buffer[] = [];
    for await (const chunk of sealSnapshot(at, count, lines)) chunks.push(chunk);
    return { position: at, chunks, builtAtMs: clock.nowMs() };
  }

  async function currentSnapshot(): Promise<BuiltSnapshot> {
    const built = await snapshot?.catch(() => null);
    // A slightly older one is as good: the reader's stream goes on from its version.
    if (built && (built.position.version === tail.version || clock.nowMs() - built.builtAtMs < snapshotReuseMs)) return built;
    const building = (snapshot = buildSnapshot());
    setTimeout(() => snapshot === building && (snapshot = null), 30_000).unref();
    return building;
  }

  // ── acknowledgements ──────────────────────────────────────────────────────────────────────────────────────────────

  const acks = new Map<string, RouterAck>();
  let ackTimer: NodeJS.Timeout | null = null;

  async function writeAcks(): Promise<void> {
    ackTimer = null;
    const gathered = [...acks.values()];
    acks.clear();
    if (gathered.length > 0) await saveAcks(store, gathered);
  }

  return {
    async snapshotStream(request) {
      const { position, chunks } = await currentSnapshot();
      let next = 0;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          const chunk = chunks[next++];
          if (chunk) controller.enqueue(chunk);
          else controller.close();
        },
      });
      const headers = { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store", "x-route-version": String(position.version) };
      return new Response(request.method === "HEAD" ? null : body, { headers });
    },

    async changeStream(request) {
      const query = new URL(request.url).searchParams;
      const from: SnapshotPosition = { version: Number(query.get("from") ?? 0), digest: query.get("digest") ?? "" };
      let subscriber: Subscriber | undefined;
      let gone = false;
      const body = new ReadableStream<Uint8Array>(
        {
          start(controller) {
            const mine = (subscriber = { controller });
            void follow(mine, from, () => gone || closed).catch((error: unknown) => {
              if (!gone) controller.error(error);
            });
          },
          cancel() {
            gone = true;
            if (subscriber) subscribers.delete(subscriber);
          },
        },
        new ByteLengthQueuingStrategy({ highWaterMark }),
      );
      return new Response(body, { headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no" } });
    },

    ack(ack) {
      acks.set(ack.router, { ...ack, atMs: clock.nowMs() });
      ackTimer ??= setTimeout(() => void writeAcks().catch(() => undefined), ackMs);
    },

    async routers() {
      await writeAcks();
      const [head, known] = await Promise.all([routeHead(store), listAcks(store, routersSinceMs)]);
      const nowMs = clock.nowMs();
      return known.map(({ router, version, inFlight, atMs }) => ({ name: router, version, behind: Math.max(0, head.version - version), ageMs: Math.max(0, Math.round(nowMs - atMs)), inFlight }));
    },

    explain: (request) => explainByRows(store, request),

    async close() {
      if (closed) return;
      closed = true;
      unlisten();
      clearInterval(beats);
      if (timer) clearTimeout(timer);
      if (ackTimer) clearTimeout(ackTimer);
      for (const subscriber of subscribers) end(subscriber);
      await writeAcks().catch(() => undefined);
    },
  };
}
