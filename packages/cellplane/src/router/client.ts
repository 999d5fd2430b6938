import type { Socket } from "node:net";
import { type Decision, identify, type RouteDecision, routeOf } from "../routing/model.ts";
import type { RouteTable } from "../routing/table.ts";
import { Body } from "./body.ts";
import type { Limits } from "./config.ts";
import type { CellConnection, CellPool, Exchange, Ticks } from "./forward.ts";
import type { CellHead, ClientHead } from "./head.ts";
import type { Holds, Waiting } from "./hold.ts";
import type { Stamp } from "./identify.ts";
import type { Counters } from "./metrics.ts";
import { kindOfHeadStatus, type RefusalKind, refusalText } from "./refuse.ts";

/** What all client connections of a router share. */
export interface Traffic {
  readonly limits: Limits;
  readonly ticks: Ticks;
  readonly counters: Counters;
  readonly holds: Holds;
  readonly clients: Set<Client>;
  /** Requests under way by tenant; tenants without any are absent. */
  readonly inFlight: Map<string, number>;
  /** Scratch: one head is read at a time. */
  readonly head: ClientHead;
  draining: boolean;
  /** The current table; null until there is one. */
  table(): RouteTable | null;
  /** What the current table says of a tenant. */
  decide(tenant: string): Decision;
  stamp(route: RouteDecision): Stamp;
  poolOf(route: RouteDecision): CellPool;
  newRequestId(): string;
  /** A request of the tenant is no longer under way. */
  ended(tenant: string): void;
}

/** before a request · within a head · waits for a connection or a route · with the cell · bytes both ways · nothing more but to be closed */
type Phase = "idle" | "head" | "waiting" | "sending" | "tunnel" | "closing";

const pendingBytesMax = 64 * 1024;
/** Up to here head and body go out as one string, which costs one system call and no copy that lives on. */
const stringBytesMax = 16 * 1024;
const lingerMs = 2000;
const halfCloseMs = 1000;

/** Bytes that outlive the call; the buffer they came in is read into again. */
const kept = (bytes: Buffer, start: number, end: number): string | Buffer => (end - start <= stringBytesMax ? bytes.toString("latin1", start, end) : Buffer.from(bytes.subarray(start, end)));

function write(socket: Socket, piece: string | Buffer): void {
  if (typeof piece === "string") socket.write(piece, "latin1");
  else socket.write(piece);
}

/** A client's connection: one request at a time, later ones wait in `pending`. */
export class Client implements Exchange, Waiting {
  tenant = "";
  entry = 0;
  isHead = false;
  asksUpgrade = false;
  /** When the phase it is in has taken too long. */
  deadlineMs: number;
  readonly #traffic: Traffic;
  readonly #socket: Socket;
  readonly #origin: string;
  #phase: Phase = "idle";
  /** Received and not yet looked at: part of a head, of a body whose cell is not there yet, or later requests. */
  #pending: Buffer | null = null;
  #reading = false;
  #halfClosed = false;

  // ── the request under way ─────────────────────────────────────────────────────────────────────────────────────────
  #startedMs = 0;
  #requestId = "";
  /** What goes to the cell, without the stamp and the empty line. */
  #headText = "";
  #stampText = "";
  #minor = 1;
  #repeatable = false;
  #close = false;
  readonly #body = new Body();
  /** What came of the body: to be sent, or sent again. Null when that is too long to keep. */
  #taken: (string | Buffer)[] | null = null;
  #takenBytes = 0;
  #pool: CellPool | null = null;
  #connection: CellConnection | null = null;
  #status = 0;
  /** The cell refused the route: its answer is not passed on. */
  #discards = false;
  #replays = 0;
  #redialled = false;

  constructor(traffic: Traffic, socket: Socket) {
    this.#traffic = traffic;
    this.#socket = socket;
    this.deadlineMs = traffic.ticks.nowMs + traffic.limits.idleMs;
    this.#origin = `x-forwarded-for: ${(socket.remoteAddress ?? "unknown").replace(/^::ffff:/, "")}\r\nx-forwarded-proto: http\r\n`;
    socket.on("data", (bytes: Buffer) => this.#receive(bytes, bytes.length));
    socket.on("end", () => this.#ended());
    socket.on("drain", () => this.#drained());
    socket.on("error", () => undefined);
    socket.on("close", () => this.#gone());
  }

  get idle(): boolean {
    return this.#phase === "idle";
  }

  /** No more requests are wanted from it. */
  shut(): void {
    this.#phase = "closing";
    this.#pending = null;
    this.deadlineMs = this.#traffic.ticks.nowMs + lingerMs;
    this.#socket.end();
    // Read on and drop it: a reset now could destroy an answer that is still on its way.
    this.#resume();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // ── from the client ───────────────────────────────────────────────────────────────────────────────────────────────

  #receive(bytes: Buffer, end: number): void {
    switch (this.#phase) {
      case "idle":
      case "head":
        if (this.#pending === null) return this.#readRequests(bytes, 0, end);
        this.#stash(bytes, 0, end);
        // Without a line end there is nothing new to tell: a head that drips in costs no more than its lines.
        if (bytes.includes(0x0a) || this.#pending.length > pendingBytesMax / 4) this.#readPending();
        return;
      case "waiting": return this.#stash(bytes, 0, end);
      case "sending": return this.#body.done ? this.#stash(bytes, 0, end) : this.#sendBody(bytes, 0, end);
      case "tunnel": return this.#sendTunnel(bytes, end);
      case "closing": return;
    }
  }

  #stash(bytes: Buffer, start: number, end: number): void {
    if (start >= end) return;
    const piece = bytes.subarray(start, end);
    this.#pending = this.#pending === null ? Buffer.from(piece) : Buffer.concat([this.#pending, piece]);
    if (this.#pending.length > pendingBytesMax) this.#socket.pause();
  }

  #readPending(): void {
    const pending = this.#pending;
    this.#pending = null;
    this.#resume();
    if (pending !== null) this.#readRequests(pending, 0, pending.length);
  }

  #resume(): void {
    // Who does not take answers is asked for no more requests.
    if (this.#socket.isPaused() && this.#socket.writableLength <= this.#traffic.limits.bufferBytesMax) this.#socket.resume();
  }

  #drained(): void {
    this.#connection?.socket.resume();
    if (this.#phase === "idle" || this.#phase === "head") this.#resume();
  }

  /** Reads request after request for as long as the router answers them by itself. */
  #readRequests(bytes: Buffer, start: number, end: number): void {
    const { head, ticks, limits } = this.#traffic;
    this.#reading = true;
    let at = start;
    while (at < end && (this.#phase === "idle" || this.#phase === "head")) {
      const headEnd = head.read(bytes, at, end);
      if (headEnd === 0) {
        if (this.#phase === "idle") this.deadlineMs = ticks.nowMs + limits.headMs;
        this.#phase = "head";
        break;
      }
      this.#resetRequest();
      if (headEnd < 0) {
        this.#close = true;
        this.#refuse(kindOfHeadStatus(-headEnd));
        at = end;
      } else at = this.#takeRequest(head, bytes, headEnd, end);
    }
    this.#reading = false;
    if (this.#phase !== "closing") this.#stash(bytes, at, end);
  }

  #resetRequest(): void {
    this.#startedMs = performance.now();
    this.#requestId = "";
    this.isHead = false;
    this.#body.begin("none");
    this.#taken = null;
    this.#takenBytes = 0;
    this.#status = 0;
    this.#discards = false;
    this.#replays = 0;
    this.#redialled = false;
  }

  /** @returns where what belongs to this request ends, as far as it is there */
  #takeRequest(head: ClientHead, bytes: Buffer, headEnd: number, end: number): number {
    const traffic = this.#traffic;
    this.isHead = head.isHead;
    this.#minor = head.minor;
    this.#repeatable = head.repeatable;
    this.asksUpgrade = head.asksUpgrade;
    this.#close = traffic.draining || this.#halfClosed || (head.minor === 1 ? head.close : !head.keepAlive);
    this.#body.begin(head.chunked ? "chunked" : head.contentLength > 0 ? "length" : "none", head.contentLength);
    const givesId = head.requestIdField < 0;
    this.#requestId = givesId ? traffic.newRequestId() : head.value(head.requestIdField);

    const table = traffic.table();
    const found = table && identify(table, head);
    const decision = found && routeOf(table, found.tenant);
    if (decision === null || decision.kind === "refuse") {
      this.#refuse(decision?.reason ?? "no_table");
      return headEnd;
    }
    const host = head.authorityEnd > head.authorityStart ? `x-forwarded-host: ${bytes.toString("latin1", head.authorityStart, head.authorityEnd)}\r\n` : "";
    this.#headText = `${head.forwarded(found?.pathStart ?? 0)}${this.#origin}${host}${givesId ? `x-request-id: ${this.#requestId}\r\n` : ""}`;
    let bodyEnd = headEnd;
    if (!this.#body.done) {
      this.#taken = [];
      bodyEnd = this.#body.take(bytes, headEnd, end);
      if (this.#body.failed) {
        this.#refuse("bad_request");
        return end;
      }
      if (this.#body.passEnd > headEnd) this.#keep(kept(bytes, headEnd, this.#body.passEnd));
      if (this.#body.done && this.#body.endsTrailers) this.#keep("\r\n");
    }
    this.#dispatch(decision);
    return bodyEnd;
  }

  #keep(piece: string | Buffer): void {
    this.#taken?.push(piece);
    this.#takenBytes += piece.length;
  }

  #ended(): void {
    this.#halfClosed = true;
    this.#close = true;
    if (this.#phase === "idle" || this.#phase === "head") this.shut();
    else if (this.#phase === "tunnel") this.#connection?.socket.end();
    // A body that will never be whole; or a client that has left. One that closes right behind its request may only have said all it had to say.
    else if (this.#phase !== "closing" && (!this.#body.done || performance.now() - this.#startedMs > halfCloseMs)) this.destroy();
  }

  #gone(): void {
    this.#phase = "closing";
    this.#traffic.clients.delete(this);
    this.#traffic.holds.remove(this);
    this.#pool?.forget(this);
    this.#connection?.destroy();
    this.#endRequest();
  }

  /** Called a few times a second. */
  sweep(nowMs: number): void {
    if (nowMs < this.deadlineMs) return;
    switch (this.#phase) {
      case "head":
        this.#resetRequest();
        this.#close = true;
        return this.#refuse("head_timeout");
      case "waiting":
        this.#traffic.holds.remove(this);
        this.#pool?.forget(this);
        return this.#refuse(this.#pool ? "cell_busy" : this.#replays > 0 ? "route_stale" : "hold_timeout");
      case "sending": return this.#abandon(this.#body.done ? "cell_timeout" : "body_timeout");
      default: this.#socket.destroy();
    }
  }

  // ── to the cell ───────────────────────────────────────────────────────────────────────────────────────────────────

  #dispatch(decision: Decision): void {
    const { limits, ticks, inFlight } = this.#traffic;
    this.#phase = "waiting";
    if (decision.kind === "refuse") return this.#refuse(decision.reason);
    const stamp = this.#traffic.stamp(decision);
    this.tenant = stamp.tenant;
    this.entry = decision.entry;
    this.#stampText = stamp.text;
    if (decision.state === "hold") return this.#wait(limits.holdMs);
    const running = inFlight.get(this.tenant) ?? 0;
    if (running >= limits.tenantInFlightMax) return this.#refuse("tenant_busy");
    inFlight.set(this.tenant, running + 1);
    this.deadlineMs = ticks.nowMs + limits.cellQueueMs + limits.progressMs;
    this.#pool = this.#traffic.poolOf(decision);
    this.#pool.take(this);
    if (this.#phase === "waiting" && !this.#body.done) this.#socket.pause();
  }

  /** For the route to change; the body is not read meanwhile. */
  #wait(forMs: number): void {
    this.#phase = "waiting";
    this.deadlineMs = this.#traffic.ticks.nowMs + forMs;
    if (!this.#traffic.holds.add(this)) return this.#refuse("hold_full");
    this.#socket.pause();
  }

  release(decision: Decision): void {
    this.#dispatch(decision);
  }

  refused(kind: "cell_down" | "cell_busy"): void {
    this.#refuse(kind);
  }

  begin(connection: CellConnection): void {
    const { limits, ticks } = this.#traffic;
    const { socket } = connection;
    this.#connection = connection;
    this.#phase = "sending";
    this.deadlineMs = ticks.nowMs + limits.progressMs;
    const text = `${this.#headText}${this.#stampText}\r\n`;
    const first = this.#taken?.[0];
    if (this.#taken === null || first === undefined) socket.write(text, "latin1");
    else if (typeof first === "string" && this.#taken.length === 1) socket.write(text + first, "latin1");
    else {
      socket.cork();
      socket.write(text, "latin1");
      for (const piece of this.#taken) write(socket, piece);
      socket.uncork();
    }
    if (this.#body.done) return;
    this.#forgetLongBody();
    const pending = this.#pending;
    this.#pending = null;
    this.#resume();
    if (pending !== null) this.#sendBody(pending, 0, pending.length);
  }

  #sendBody(bytes: Buffer, start: number, end: number): void {
    const socket = this.#connection?.socket;
    if (!socket) return;
    const { limits, ticks } = this.#traffic;
    this.deadlineMs = ticks.nowMs + limits.progressMs;
    const bodyEnd = this.#body.take(bytes, start, end);
    if (this.#body.failed) return this.#abandon("bad_request");
    if (this.#body.passEnd > start) this.#sendPiece(socket, kept(bytes, start, this.#body.passEnd));
    if (this.#body.done && this.#body.endsTrailers) this.#sendPiece(socket, "\r\n");
    this.#stash(bytes, bodyEnd, end);
    if (!this.#body.done && socket.writableLength > limits.bufferBytesMax) this.#socket.pause();
  }

  #sendPiece(socket: Socket, piece: string | Buffer): void {
    write(socket, piece);
    this.#keep(piece);
    this.#forgetLongBody();
  }

  /** What was sent and is too long cannot be sent again. */
  #forgetLongBody(): void {
    if (this.#takenBytes > this.#traffic.limits.replayBytesMax) this.#taken = null;
  }

  drained(): void {
    if (this.#phase === "tunnel" || (this.#phase === "sending" && !this.#body.done)) this.#resume();
  }

  // ── from the cell ─────────────────────────────────────────────────────────────────────────────────────────────────

  interim(head: CellHead): void {
    if (this.#minor === 1) this.#socket.write(`${head.forwarded()}\r\n`, "latin1");
  }

  answer(head: CellHead, body: Body, bytes: Buffer, start: number): void {
    const { limits, ticks } = this.#traffic;
    this.deadlineMs = ticks.nowMs + limits.progressMs;
    this.#status = head.status;
    if (head.status === 421) {
      this.#discards = true;
      return;
    }
    // An answer before the request is whole: what is left of the request cannot be told from the next one by everybody.
    if (!this.#body.done || body.kind === "close") this.#close = true;
    const ending = this.#close ? "connection: close\r\n\r\n" : this.#minor === 0 ? "connection: keep-alive\r\n\r\n" : "\r\n";
    this.#passAnswer(head.forwarded() + ending, body, bytes, start);
  }

  answerBody(body: Body, bytes: Buffer, start: number): void {
    const { limits, ticks } = this.#traffic;
    this.deadlineMs = ticks.nowMs + limits.progressMs;
    if (!this.#discards) this.#passAnswer("", body, bytes, start);
  }

  #passAnswer(text: string, body: Body, bytes: Buffer, start: number): void {
    const socket = this.#socket;
    const end = body.passEnd;
    const last = body.done && body.endsTrailers ? "\r\n" : "";
    if (end - start <= stringBytesMax) {
      const whole = end > start ? text + bytes.toString("latin1", start, end) + last : text + last;
      if (whole.length > 0) socket.write(whole, "latin1");
    } else {
      socket.cork();
      if (text.length > 0) socket.write(text, "latin1");
      socket.write(Buffer.from(bytes.subarray(start, end)));
      if (last.length > 0) socket.write(last, "latin1");
      socket.uncork();
    }
    if (!body.done && socket.writableLength > this.#traffic.limits.bufferBytesMax) this.#connection?.socket.pause();
  }

  answered(reusable: boolean, excess: boolean): void {
    const connection = this.#connection;
    const pool = this.#pool;
    this.#connection = null;
    if (connection && reusable && this.#body.done) pool?.release(connection);
    else connection?.destroy();
    if (this.#discards) return this.#replay();
    pool?.counters.count(this.#status, performance.now() - this.#startedMs);
    this.#endRequest();
    if (this.#close || excess) this.shut();
    else this.#next();
  }

  lost(kind: "cell_dropped" | "cell_answer", reused: boolean): void {
    const pool = this.#pool;
    this.#connection = null;
    if (this.#phase === "tunnel") {
      pool?.counters.count(101, performance.now() - this.#startedMs);
      this.#endRequest();
      return this.shut();
    }
    if (this.#discards) return this.#replay();
    if (this.#status !== 0) {
      // Half an answer: only a broken connection tells the client so.
      this.#endRequest();
      this.#phase = "closing";
      return void this.#socket.resetAndDestroy();
    }
    if (kind === "cell_dropped" && reused && this.#repeatable && !this.#redialled && pool) {
      this.#redialled = true;
      pool.counters.retries++;
      pool.dropIdle();
      this.#endRequest();
      return this.#dispatch(this.#traffic.decide(this.tenant));
    }
    this.#refuse(kind);
  }

  /** The cell refused the request before doing anything, since the tenant is elsewhere or its route is newer (RFC 9110 §15.5.20). */
  #replay(): void {
    const { limits } = this.#traffic;
    const canSend = this.#body.done ? this.#takenBytes === 0 || this.#taken !== null : this.#taken !== null;
    if (this.#pool) this.#pool.counters.retries++;
    this.#endRequest();
    this.#status = 0;
    this.#discards = false;
    if (!canSend || ++this.#replays > limits.replaysMax) return this.#refuse("route_stale");
    const decision = this.#traffic.decide(this.tenant);
    if (decision.kind === "route" && decision.entry === this.entry) return this.#wait(limits.staleMs);
    this.#dispatch(decision);
  }

  upgraded(head: CellHead): void {
    if (!this.asksUpgrade) return this.#abandon("cell_answer");
    this.#phase = "tunnel";
    this.deadlineMs = this.#traffic.ticks.nowMs + this.#traffic.limits.tunnelMs;
    this.#socket.write(`${head.forwarded()}\r\n`, "latin1");
    const pending = this.#pending;
    this.#pending = null;
    this.#resume();
    if (pending !== null) this.#sendTunnel(pending, pending.length);
  }

  tunnel(bytes: Buffer, end: number): void {
    this.deadlineMs = this.#traffic.ticks.nowMs + this.#traffic.limits.tunnelMs;
    write(this.#socket, kept(bytes, 0, end));
    if (this.#socket.writableLength > this.#traffic.limits.bufferBytesMax) this.#connection?.socket.pause();
  }

  #sendTunnel(bytes: Buffer, end: number): void {
    const socket = this.#connection?.socket;
    if (!socket) return;
    this.deadlineMs = this.#traffic.ticks.nowMs + this.#traffic.limits.tunnelMs;
    write(socket, kept(bytes, 0, end));
    if (socket.writableLength > this.#traffic.limits.bufferBytesMax) this.#socket.pause();
  }

  // ── endings ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answers by itself. A body that is not whole yet takes the connection with it. */
  #refuse(kind: RefusalKind): void {
    this.#traffic.counters.refuse(kind);
    if (!this.#body.done) this.#close = true;
    this.#endRequest();
    this.#socket.write(refusalText(kind, { requestId: this.#requestId, close: this.#close, bodyless: this.isHead }), "latin1");
    if (this.#socket.writableLength > this.#traffic.limits.bufferBytesMax) this.#socket.pause();
    if (this.#close) this.shut();
    else this.#next();
  }

  /** Gives up a request that is with the cell. */
  #abandon(kind: RefusalKind): void {
    this.#connection?.destroy();
    this.#connection = null;
    this.#close = true;
    if (this.#status === 0) return this.#refuse(kind);
    this.#endRequest();
    this.destroy();
  }

  /** It is no longer under way at a cell. */
  #endRequest(): void {
    if (this.#pool === null) return;
    this.#pool = null;
    const { inFlight } = this.#traffic;
    const running = (inFlight.get(this.tenant) ?? 1) - 1;
    if (running > 0) inFlight.set(this.tenant, running);
    else inFlight.delete(this.tenant);
    this.#traffic.ended(this.tenant);
  }

  #next(): void {
    this.#phase = "idle";
    this.deadlineMs = this.#traffic.ticks.nowMs + this.#traffic.limits.idleMs;
    this.#headText = "";
    this.#taken = null;
    if (this.#reading) return;
    if (this.#pending !== null) this.#readPending();
    else if (this.#halfClosed) this.shut();
    else this.#resume();
  }
}
