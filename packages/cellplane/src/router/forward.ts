import { connect, type Socket } from "node:net";
import type { CellRoute } from "../routing/model.ts";
import { Body } from "./body.ts";
import type { Limits } from "./config.ts";
import type { CellHead } from "./head.ts";
import type { CellCounters } from "./metrics.ts";

/** A request on its way, as the connection to its cell sees it. Bytes are only good during the call. */
export interface Exchange {
  /** The answer to it has no body, whatever its head says. */
  readonly isHead: boolean;
  readonly asksUpgrade: boolean;
  /** Write the request. */
  begin(connection: CellConnection): void;
  /** There will be no connection. */
  refused(kind: "cell_down" | "cell_busy"): void;
  /** 100, 103: more follows. */
  interim(head: CellHead): void;
  /** 101: from here on bytes go both ways as they are. */
  upgraded(head: CellHead): void;
  answer(head: CellHead, body: Body, bytes: Buffer, start: number): void;
  answerBody(body: Body, bytes: Buffer, start: number): void;
  tunnel(bytes: Buffer, end: number): void;
  /** The answer is whole. @param reusable the connection may take another request @param excess the cell sent more than its answer */
  answered(reusable: boolean, excess: boolean): void;
  /** The cell takes bytes again. */
  drained(): void;
  /** @param kind how it broke before the answer was whole @param reused the connection had answered before: it may have been closed before the request came */
  lost(kind: "cell_dropped" | "cell_answer", reused: boolean): void;
}

/** Coarse time: the timers of a router are checked a few times a second, and so is this. */
export interface Ticks {
  nowMs: number;
}

/** One connection to a cell; one request at a time. */
export class CellConnection {
  readonly socket: Socket;
  readonly pool: CellPool;
  exchange: Exchange | null = null;
  /** It has answered before: a cell may close such a connection at any moment. */
  reused = false;
  idleSinceMs = 0;
  idleForMs: number;
  readonly #body = new Body();
  #partial: Buffer | null = null;
  #inBody = false;
  #tunnels = false;
  #reusable = true;

  constructor(pool: CellPool, host: string, port: number, readBuffer: Buffer) {
    this.pool = pool;
    this.idleForMs = pool.limits.cellIdleMs;
    this.socket = connect({ host, port, noDelay: true, onread: { buffer: readBuffer, callback: (size, buffer) => this.#read(buffer as Buffer, size) } });
    this.socket.on("drain", () => this.exchange?.drained());
    this.socket.on("end", () => this.#ended());
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => this.#lose("cell_dropped"));
  }

  start(exchange: Exchange): void {
    this.exchange = exchange;
    this.#inBody = false;
    this.#partial = null;
    exchange.begin(this);
  }

  /** Nothing more is wanted of it. */
  destroy(): void {
    this.exchange = null;
    this.socket.destroy();
    this.pool.remove(this);
  }

  #read(buffer: Buffer, size: number): boolean {
    const { exchange } = this;
    this.pool.lastAnswerMs = this.pool.ticks.nowMs;
    if (exchange === null) {
      // Nobody asked.
      this.destroy();
      return true;
    }
    if (this.#tunnels) {
      exchange.tunnel(buffer, size);
      return true;
    }
    let bytes = buffer;
    let end = size;
    if (this.#partial !== null) {
      bytes = Buffer.concat([this.#partial, buffer.subarray(0, size)]);
      end = bytes.length;
      this.#partial = null;
    }
    if (this.#inBody) this.#takeBody(exchange, bytes, 0, end);
    else this.#takeHead(exchange, bytes, end);
    return true;
  }

  #takeHead(exchange: Exchange, bytes: Buffer, end: number): void {
    const head = this.pool.head;
    for (let start = 0; ; ) {
      const headEnd = head.read(bytes, start, end);
      if (headEnd === 0) {
        if (start < end) this.#partial = Buffer.from(bytes.subarray(start, end));
        return;
      }
      if (headEnd < 0) return this.#lose("cell_answer");
      if (head.status === 101) {
        this.#tunnels = true;
        this.pool.detach(this);
        exchange.upgraded(head);
        if (headEnd < end && this.exchange === exchange) exchange.tunnel(bytes.subarray(headEnd), end - headEnd);
        return;
      }
      if (head.status < 200) {
        exchange.interim(head);
        if (this.exchange !== exchange) return;
        start = headEnd;
        continue;
      }
      if (exchange.isHead || head.status === 204 || head.status === 304) this.#body.begin("none");
      else if (head.chunked) this.#body.begin("chunked");
      else if (head.contentLength >= 0) this.#body.begin("length", head.contentLength);
      else this.#body.begin("close");
      this.#inBody = true;
      this.#reusable = !head.close && (head.minor === 1 || head.keepAlive) && this.#body.kind !== "close";
      if (head.keepAliveSeconds !== null) this.idleForMs = Math.min(this.pool.limits.cellIdleMs, Math.max(0, head.keepAliveSeconds * 1000 - 1000));
      const bodyEnd = this.#body.take(bytes, headEnd, end);
      if (this.#body.failed) return this.#lose("cell_answer");
      exchange.answer(head, this.#body, bytes, headEnd);
      if (this.#body.done && this.exchange === exchange) this.#finish(exchange, bodyEnd < end);
      return;
    }
  }

  #takeBody(exchange: Exchange, bytes: Buffer, start: number, end: number): void {
    const bodyEnd = this.#body.take(bytes, start, end);
    if (this.#body.failed) return this.#lose("cell_answer");
    exchange.answerBody(this.#body, bytes, start);
    if (this.#body.done && this.exchange === exchange) this.#finish(exchange, bodyEnd < end);
  }

  #finish(exchange: Exchange, excess: boolean): void {
    this.exchange = null;
    this.reused = true;
    exchange.answered(this.#reusable && !excess && !this.socket.destroyed, excess);
  }

  #ended(): void {
    const { exchange } = this;
    if (exchange !== null && this.#inBody && this.#body.kind === "close") {
      this.#body.done = true;
      this.#finish(exchange, false);
    } else if (exchange === null) this.destroy();
    else this.#lose("cell_dropped");
  }

  #lose(kind: "cell_dropped" | "cell_answer"): void {
    const { exchange } = this;
    this.exchange = null;
    this.socket.destroy();
    this.pool.remove(this);
    exchange?.lost(kind, this.reused);
  }
}

/** What one cell may take of the router: so many connections, so many waiting, so long. Nothing of it is shared with another cell. */
export class CellPool {
  route: CellRoute;
  readonly limits: Limits;
  readonly ticks: Ticks;
  readonly head: CellHead;
  readonly counters: CellCounters;
  /** When the cell last sent anything. */
  lastAnswerMs: number;
  readonly #readBuffer: Buffer;
  readonly #connections = new Set<CellConnection>();
  readonly #idle: CellConnection[] = [];
  readonly #queue: { exchange: Exchange; untilMs: number }[] = [];
  #queueStart = 0;
  #connecting = 0;
  #failures = 0;
  #openUntilMs = 0;
  #retry: NodeJS.Timeout | null = null;
  /** Upgraded connections live for hours: they take no room from requests. */
  readonly #tunnels = new Set<CellConnection>();
  #closed = false;

  constructor(route: CellRoute, parts: { limits: Limits; ticks: Ticks; head: CellHead; readBuffer: Buffer; counters: CellCounters }) {
    this.route = route;
    this.limits = parts.limits;
    this.ticks = parts.ticks;
    this.head = parts.head;
    this.counters = parts.counters;
    this.#readBuffer = parts.readBuffer;
    this.lastAnswerMs = parts.ticks.nowMs;
  }

  get connections(): number {
    return this.#connections.size;
  }
  get tunnels(): number {
    return this.#tunnels.size;
  }
  get idle(): number {
    return this.#idle.length;
  }
  get queued(): number {
    return this.#queue.length - this.#queueStart;
  }
  get broken(): boolean {
    return this.ticks.nowMs < this.#openUntilMs;
  }

  /** Begins the exchange on a connection, now or when there is one, or refuses it. */
  take(exchange: Exchange): void {
    if (exchange.asksUpgrade && this.tunnels >= this.limits.cellTunnelsMax) return exchange.refused("cell_busy");
    const connection = this.#idle.pop();
    if (connection !== undefined) return connection.start(exchange);
    if (this.broken) return exchange.refused("cell_down");
    if (this.queued >= this.limits.cellQueueMax) return exchange.refused("cell_busy");
    this.#queue.push({ exchange, untilMs: this.ticks.nowMs + this.limits.cellQueueMs });
    this.#connectMore();
  }

  /** Its client is gone. */
  forget(exchange: Exchange): void {
    for (let i = this.#queueStart; i < this.#queue.length; i++) {
      if (this.#queue[i]?.exchange !== exchange) continue;
      this.#queue.splice(i, 1);
      return;
    }
  }

  release(connection: CellConnection): void {
    if (this.#closed) return connection.destroy();
    const next = this.#shift();
    if (next !== undefined) return connection.start(next);
    connection.idleSinceMs = this.ticks.nowMs;
    this.#idle.push(connection);
  }

  detach(connection: CellConnection): void {
    this.#tunnels.add(connection);
    if (this.#connections.delete(connection) && this.queued > 0) this.#connectMore();
  }

  remove(connection: CellConnection): void {
    this.#tunnels.delete(connection);
    if (!this.#connections.delete(connection)) return;
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    if (this.queued > 0) this.#connectMore();
  }

  /** Idle connections of a cell that has just dropped one are as good as dead. */
  dropIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  /** The cell has a new place or state. Requests under way end where they are. */
  update(route: CellRoute): void {
    const moved = route.endpoint !== this.route.endpoint;
    this.route = route;
    if (moved) {
      this.dropIdle();
      this.#failures = 0;
      this.#openUntilMs = 0;
    }
    if (route.state === "closed" || route.endpoint === null) this.#refuseAll("cell_down");
    else this.#connectMore();
  }

  /** The cell is gone, or the router goes. Requests under way end where they are. */
  close(): void {
    this.#closed = true;
    if (this.#retry) clearTimeout(this.#retry);
    this.#refuseAll("cell_down");
    this.dropIdle();
  }

  /** Called a few times a second. */
  sweep(): void {
    const { nowMs } = this.ticks;
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      const connection = this.#idle[i];
      if (connection && nowMs - connection.idleSinceMs >= connection.idleForMs) connection.destroy();
    }
    while ((this.#queue[this.#queueStart]?.untilMs ?? Infinity) <= nowMs) this.#shift()?.refused("cell_busy");
    // All connections taken, others wait, and not a byte for seconds: the cell hangs, so nobody need wait for it.
    if (this.queued > 0 && this.#connections.size >= this.limits.cellConnectionsMax && nowMs - this.lastAnswerMs > this.limits.stallMs) this.#break();
  }

  #shift(): Exchange | undefined {
    const next = this.#queue[this.#queueStart];
    if (next === undefined) return undefined;
    this.#queueStart++;
    if (this.#queueStart > 64 && this.#queueStart * 2 > this.#queue.length) {
      this.#queue.splice(0, this.#queueStart);
      this.#queueStart = 0;
    }
    return next.exchange;
  }

  #refuseAll(kind: "cell_down" | "cell_busy"): void {
    const waiting = this.#queue.splice(0).slice(this.#queueStart);
    this.#queueStart = 0;
    for (const { exchange } of waiting) exchange.refused(kind);
  }

  #break(): void {
    this.#openUntilMs = this.ticks.nowMs + this.limits.breakerMs;
    this.#refuseAll("cell_down");
  }

  #connectMore(): void {
    const target = hostAndPort(this.route.endpoint);
    if (target === null || this.#retry !== null) return;
    // After a failure one connection at a time asks whether the cell is back.
    const attempts = this.#failures > 0 ? 1 : this.queued;
    while (this.#connecting < attempts && this.#connections.size < this.limits.cellConnectionsMax) this.#connect(target);
  }

  #connect({ host, port }: { host: string; port: number }): void {
    const connection = new CellConnection(this, host, port, this.#readBuffer);
    const { endpoint } = this.route;
    this.#connections.add(connection);
    this.#connecting++;
    const settle = (ok: boolean): void => {
      clearTimeout(timer);
      connection.socket.off("connect", connected).off("close", failed);
      this.#connecting--;
      if (ok) {
        this.#failures = 0;
        if (endpoint !== this.route.endpoint) connection.destroy();
        else this.release(connection);
        this.#connectMore();
      } else this.#failed();
    };
    const connected = (): void => settle(true);
    const failed = (): void => settle(false);
    const timer = setTimeout(() => connection.socket.destroy(), this.limits.cellConnectMs);
    connection.socket.on("connect", connected).on("close", failed);
  }

  #failed(): void {
    this.#failures++;
    if (this.#failures >= this.limits.connectFailuresMax) {
      // One more failure is enough to break again.
      this.#failures = this.limits.connectFailuresMax - 1;
      return this.#break();
    }
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      if (this.queued > 0) this.#connectMore();
    }, 50 * 2 ** (this.#failures - 1));
  }
}

function hostAndPort(endpoint: string | null): { host: string; port: number } | null {
  const [, host, port] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(endpoint ?? "") ?? [];
  return host === undefined ? null : { host, port: Number(port) };
}
