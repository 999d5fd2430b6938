import type { Cell } from "../../../cellplane/src/cell/model.ts";
import type { EventItem } from "../../../cellplane/src/observe/model.ts";
import type { Operation, RunState } from "../../../cellplane/src/workflow/model.ts";
import { asProblem, type Client, type Problem } from "./client.ts";
import { follow, type Stream } from "./stream.ts";

/** Whether the picture is kept up to date. `lost` says since when it is not. */
export type Link = { state: "connecting" } | { state: "live" } | { state: "lost"; sinceMs: number; retryAtMs: number; problem: Problem };

/** Requests per second of one cell, oldest first. */
export type Rates = readonly number[];

/** What the console knows of the fleet; a new object with every change. */
export interface Fleet {
  /** "failed": nothing could be read yet. Once ready it stays so: an older picture is better than none. */
  phase: "loading" | "ready" | "failed";
  /** Why the latest read failed; null when it did not. */
  problem: Problem | null;
  cells: ReadonlyMap<string, Cell>;
  /** Newest first, the latest of them only. */
  operations: readonly Operation[];
  /** What happened lately, newest first. */
  events: readonly EventItem[];
  /** Empty when the control plane does not measure them. */
  rates: ReadonlyMap<string, Rates>;
  link: Link;
}

export interface LiveFleet {
  get(): Fleet;
  subscribe(changed: () => void): () => void;
  /** Reads one cell again at once, after an action on it. */
  reread(cell: string): void;
  /** Tries to reconnect at once, and reads everything again. */
  retry(): void;
  stop(): void;
}

const eventsKept = 50;
const operationsRead = 100;
const cellsPerPage = 1000;
/** Above so many changed cells one list is cheaper than a call for each. */
const singleReadsMax = 8;
const pauseBetweenReadsMs = 200;
const retryReadMs = 2000;
const streamHeadMaxMs = 800;
const resyncMs = 30_000;
const ratesEveryMs = 2000;
/** How far an operation is, no event tells. */
const progressEveryMs = 2000;
/** A burst of events is drawn together. */
const eventsGatherMs = 60;

const unread: Fleet = { phase: "loading", problem: null, cells: new Map(), operations: [], events: [], rates: new Map(), link: { state: "connecting" } };

/**
 * Keeps the picture of the fleet up to date. An event only says *what* to read again, never what it is now: the API's answer after the
 * event can't be older than the event, so a lost, repeated or unknown event never leaves a wrong picture behind.
 * @param expired called when the token is no longer accepted
 */
export function liveFleet(client: Client, { expired, nowMs = () => Date.now() }: { expired: (problem: Problem) => void; nowMs?: () => number }): LiveFleet {
  const listeners = new Set<() => void>();
  const stopped = new AbortController();
  let fleet = unread;

  const set = (change: Partial<Fleet>): void => {
    fleet = { ...fleet, ...change };
    for (const changed of listeners) changed();
  };
  const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

  // ── what is to be read again; one reader, so that an older answer never overwrites a newer one ─────────────────────
  let stale = { all: true, operations: true, cells: new Set<string>() };
  let reading = false;

  async function readCells(names: ReadonlySet<string>): Promise<ReadonlyMap<string, Cell>> {
    const cells = new Map(fleet.cells);
    const answers = await Promise.all([...names].map((name) => client.get<Cell>(`v1/cells/${encodeURIComponent(name)}`, {}, stopped.signal).catch((error: unknown) => {
      if (asProblem(error).status === 404) return null;
      throw error;
    })));
    [...names].forEach((name, i) => {
      const cell = answers[i];
      if (cell && cell.state !== "destroyed") cells.set(name, cell);
      else cells.delete(name);
    });
    return cells;
  }

  async function readAllCells(): Promise<ReadonlyMap<string, Cell>> {
    const cells = new Map<string, Cell>();
    let cursor: string | undefined;
    do {
      const page = await client.get<{ items: Cell[]; nextCursor: string | null }>("v1/cells", { limit: cellsPerPage, cursor }, stopped.signal);
      for (const cell of page.items) if (cell.state !== "destroyed") cells.set(cell.name, cell);
      cursor = page.nextCursor ?? undefined;
    } while (cursor !== undefined);
    return cells;
  }

  async function read(): Promise<void> {
    if (reading) return;
    reading = true;
    while ((stale.all || stale.operations || stale.cells.size > 0) && !stopped.signal.aborted) {
      const now = stale;
      stale = { all: false, operations: false, cells: new Set() };
      try {
        const [cells, operations, earlier] = await Promise.all([
          now.all || now.cells.size > singleReadsMax ? readAllCells() : now.cells.size > 0 ? readCells(now.cells) : fleet.cells,
          now.all || now.operations ? client.get<{ items: Operation[] }>("v1/operations", { limit: operationsRead }, stopped.signal).then((page) => page.items) : fleet.operations,
          fleet.phase === "ready" ? [] : client.get<{ items: EventItem[] }>("v1/events", { limit: eventsKept }, stopped.signal).then((page) => page.items),
        ]);
        const seen = new Set(fleet.events.map((event) => event.cursor));
        set({ cells, operations, events: [...fleet.events, ...earlier.filter((event) => !seen.has(event.cursor))].slice(0, eventsKept), phase: "ready", problem: null });
        await pause(pauseBetweenReadsMs);
      } catch (error) {
        if (stopped.signal.aborted) break;
        const problem = asProblem(error);
        if (problem.status === 401) return expired(problem);
        stale = { all: stale.all || now.all, operations: stale.operations || now.operations, cells: new Set([...stale.cells, ...now.cells]) };
        set({ problem, phase: fleet.phase === "ready" ? "ready" : "failed" });
        await pause(retryReadMs);
      }
    }
    reading = false;
  }

  const mark = (what: { all?: boolean; operations?: boolean; cells?: readonly string[] }): void => {
    stale.all ||= what.all ?? false;
    stale.operations ||= what.operations ?? false;
    for (const cell of what.cells ?? []) stale.cells.add(cell);
    void read();
  };

  let fresh: EventItem[] = [];
  let gathering: ReturnType<typeof setTimeout> | null = null;
  const tellFresh = (): void => {
    const items = fresh;
    [fresh, gathering] = [[], null];
    const touched = items.map(touchedBy);
    set({ events: [...items.toReversed(), ...fleet.events].slice(0, eventsKept) });
    mark({ all: touched.some(({ all }) => all), operations: touched.some(({ operations }) => operations), cells: touched.flatMap(({ cells }) => cells) });
  };

  let measured = true;
  const readRates = async (): Promise<void> => {
    if (!measured || isHidden() || fleet.link.state !== "live") return;
    try {
      const { cells } = await client.get<{ cells: Record<string, number[]> }>("v1/traffic", {}, stopped.signal);
      set({ rates: new Map(Object.entries(cells)) });
    } catch (error) {
      if (asProblem(error).status === 404) measured = false;
    }
  };

  // ── the event stream ───────────────────────────────────────────────────────────────────────────────────────────────
  const stream: Stream = follow({
    open: (cursor, signal) => client.stream("v1/events", cursor, signal),
    onOpen: (resumed) => {
      set({ link: { state: "live" } });
      void readRates();
      if (!resumed || fleet.problem) mark({ all: true });
    },
    onMessage: ({ id, event, data }) => {
      const item = eventOf(id, event, data);
      if (!item) return;
      fresh.push(item);
      gathering ??= setTimeout(tellFresh, eventsGatherMs);
    },
    onLost: (problem, retryInMs) => {
      if (problem.status === 401) return expired(problem);
      const sinceMs = fleet.link.state === "lost" ? fleet.link.sinceMs : nowMs();
      set({ link: { state: "lost", sinceMs, retryAtMs: nowMs() + retryInMs, problem } });
      // Reading may still work though streaming does not (a proxy that buffers): then the picture is as old as the last retry.
      if (fleet.phase !== "ready") void read();
    },
  });
  // The stream comes first, so that nothing happens unseen between reading and following; but a proxy that holds its head back stops nothing.
  const impatience = setTimeout(() => void read(), streamHeadMaxMs);

  // What no event tells of (the gauge of a load that drifts) is read again now and then; a page in the background rests.
  const resync = setInterval(() => {
    if (!isHidden() && fleet.link.state === "live") mark({ all: true });
  }, resyncMs);

  const progress = setInterval(() => {
    if (!isHidden() && fleet.link.state === "live" && fleet.operations.some(isInWork)) mark({ operations: true });
  }, progressEveryMs);

  const rates = setInterval(() => void readRates(), ratesEveryMs);

  return {
    get: () => fleet,
    subscribe: (changed) => {
      listeners.add(changed);
      return () => void listeners.delete(changed);
    },
    reread: (cell) => mark({ cells: [cell], operations: true }),
    retry: () => {
      stream.retry();
      mark({ all: true });
    },
    stop: () => {
      stopped.abort();
      stream.stop();
      clearTimeout(impatience);
      if (gathering) clearTimeout(gathering);
      clearInterval(resync);
      clearInterval(progress);
      clearInterval(rates);
    },
  };
}

const inWork: readonly RunState[] = ["pending", "running", "waiting", "paused", "parked", "undoing"];
/** Not yet final. */
export const isInWork = (operation: Operation): boolean => inWork.includes(operation.state);

const isHidden = (): boolean => typeof document !== "undefined" && document.hidden;

/** The event in a message; null for what is none, as a server newer than this page may send other messages too. */
export function eventOf(id: string, event: string, data: string): EventItem | null {
  try {
    const given = JSON.parse(data) as Partial<EventItem>;
    if (typeof given.subject !== "string") return null;
    return { cursor: id, kind: given.kind ?? event, subject: given.subject, at: given.at ?? "", data: given.data ?? {} };
  } catch {
    return null;
  }
}

const nameIn = (subject: unknown, noun: string): string[] => (typeof subject === "string" && subject.startsWith(`${noun}/`) ? [subject.slice(noun.length + 1)] : []);

/** What an event makes stale. */
export function touchedBy({ kind, subject, data }: Pick<EventItem, "kind" | "subject" | "data">): { all: boolean; operations: boolean; cells: string[] } {
  const operations = kind.startsWith("operation.");
  // A tenant's events name the cells whose load they change, an operation's the thing it works on.
  const cells = [...nameIn(subject, "cell"), ...nameIn(data["subject"], "cell"), ...["cell", "source", "target"].flatMap((field) => (typeof data[field] === "string" ? [data[field]] : []))];
  return { all: cells.length === 0 && !operations && !kind.startsWith("claim."), operations, cells };
}
