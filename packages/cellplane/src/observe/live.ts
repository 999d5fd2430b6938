import { fail } from "../base/errors.ts";
import { compareCursors, type Cursor, type EventFilter, type EventItem, formatCursor, parseCursor, wants } from "./model.ts";
import type { EventStore } from "./store.ts";

export type Message =
  /** The first one: where the stream stands. `reset`: events after the cursor asked for are gone, so read everything again. */
  | { kind: "hello"; cursor: string; reset: boolean }
  | { kind: "event"; event: EventItem }
  /** Nothing new; the cursor may have moved on past what the filter leaves out. */
  | { kind: "beat"; cursor: string };

export interface Subscription {
  /** Null: from now on. */
  after: Cursor | null;
  filter: EventFilter;
  signal: AbortSignal;
}

interface Follower {
  filter: EventFilter;
  queue: EventItem[];
  /** Too slow: it is told what it has in its queue and no more, and comes back by its cursor. */
  dropped: boolean;
  wake: () => void;
}

const everything: EventFilter = { kinds: [], subject: null };
const pageSize = 500;

/**
 * Events as they happen, for any number of followers. One reader of the database for all of them; a follower that comes
 * with a cursor reads by itself up to where that reader is, and then goes on with it.
 */
export function openLiveEvents(store: EventStore, { beatMs = 15_000, queueMax = 1000, followersMax = 1000, streamMaxMs = 900_000 } = {}) {
  const followers = new Set<Follower>();
  /** How far the shared reader has told; null while nobody follows. */
  let position: Cursor | null = null;
  let starting: Promise<void> | null = null;
  let stopListening: (() => void) | null = null;
  let reading = false;
  let readAgain = false;
  let timer: NodeJS.Timeout | null = null;
  let waitMs = 0;
  let closed = false;

  function tell(event: EventItem): void {
    for (const follower of followers) {
      if (follower.dropped || !wants(follower.filter, event)) continue;
      if (follower.queue.length >= queueMax) follower.dropped = true;
      else follower.queue.push(event);
      follower.wake();
    }
  }

  /** Reads on from `position`. Called by notifications; calls that come while it reads make it read once more. */
  async function read(): Promise<void> {
    if (reading) {
      readAgain = true;
      return;
    }
    reading = true;
    if (timer) clearTimeout(timer);
    timer = null;
    try {
      do {
        readAgain = false;
        if (!position || closed) return;
        const { events, unsettled } = await store.after(position, everything, pageSize);
        if (!position) return;
        for (const event of events) tell(event);
        position = lastOf(events) ?? position;
        readAgain ||= events.length === pageSize;
        // Nobody notifies when an older transaction ends, so what waits for it is asked for again.
        waitMs = unsettled ? Math.min(Math.max(10, waitMs * 2), 250) : 0;
      } while (readAgain);
    } catch {
      // The database is away: followers keep their connection, and go on when it is back.
      waitMs = 500;
    } finally {
      reading = false;
      if (waitMs > 0 && position && !closed) timer = setTimeout(() => void read(), waitMs);
    }
  }

  async function start(): Promise<void> {
    const { now } = await store.position();
    position = now;
    stopListening = store.onNew(() => void read());
    void read();
  }

  function stop(): void {
    position = null;
    starting = null;
    stopListening?.();
    if (timer) clearTimeout(timer);
    timer = null;
  }

  /** Everything behind `from`, in pages, until the newest is reached. */
  async function* catchUp(from: Cursor, filter: EventFilter, to: Cursor | null): AsyncGenerator<EventItem> {
    let at = from;
    while (true) {
      const { events } = await store.after(at, filter, pageSize);
      for (const event of events) {
        at = cursorOf(event);
        if (to && compareCursors(at, to) > 0) return;
        yield event;
      }
      if (events.length < pageSize) return;
    }
  }

  async function* follow({ after, filter, signal }: Subscription): AsyncGenerator<Message> {
    if (followers.size >= followersMax) throw fail("too_many_streams", { max: followersMax });
    const endsAtMs = performance.now() + streamMaxMs;
    const { now, horizon } = await store.position();
    const reset = after !== null && compareCursors(after, horizon) < 0;
    let reached = after === null || reset ? now : after;
    yield { kind: "hello", cursor: formatCursor(reached), reset };

    // Twice: the first reads what may be much, the second what came meanwhile, up to where the shared reader stood when we joined it.
    for await (const event of catchUp(reached, filter, null)) {
      reached = cursorOf(event);
      yield { kind: "event", event };
    }
    const follower: Follower = { filter, queue: [], dropped: false, wake: () => undefined };
    const onAbort = () => follower.wake();
    signal.addEventListener("abort", onAbort);
    followers.add(follower);
    try {
      starting ??= start().catch((error: unknown) => {
        starting = null;
        throw error;
      });
      await starting;
      const joined = position ?? reached;
      for await (const event of catchUp(reached, filter, joined)) {
        reached = cursorOf(event);
        yield { kind: "event", event };
      }
      while (!signal.aborted && !closed && performance.now() < endsAtMs) {
        const event = follower.queue.shift();
        if (!event && follower.dropped) return;
        if (event) {
          if (compareCursors(cursorOf(event), reached) <= 0) continue;
          reached = cursorOf(event);
          yield { kind: "event", event };
          continue;
        }
        if (await idle(follower, beatMs)) continue;
        if (position && compareCursors(position, reached) > 0 && follower.queue.length === 0) reached = position;
        yield { kind: "beat", cursor: formatCursor(reached) };
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      followers.delete(follower);
      if (followers.size === 0) stop();
    }
  }

  return {
    follow,
    followers: () => followers.size,
    close() {
      closed = true;
      for (const follower of followers) follower.wake();
      stop();
    },
  };
}
export type LiveEvents = ReturnType<typeof openLiveEvents>;

/** True when woken, false when the time is over. */
async function idle(follower: Follower, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ms);
    follower.wake = () => {
      clearTimeout(timer);
      follower.wake = () => undefined;
      resolve(true);
    };
  });
}

const lastOf = (events: EventItem[]): Cursor | null => {
  const last = events.at(-1);
  return last ? cursorOf(last) : null;
};

function cursorOf(event: EventItem): Cursor {
  return parseCursor(event.cursor) ?? { xid: "0", id: 0 };
}
