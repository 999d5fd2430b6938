import { randomUUID } from "node:crypto";
import { CellplaneError, fail } from "../base/errors.ts";
import type { EventItem } from "../observe/model.ts";
import { type Endpoint, isMutation } from "./contract.ts";
import { errorOf } from "./problem.ts";
import { readSse } from "./sse.ts";

type Part<K extends string, T> = Record<never, never> extends T ? { [key in K]?: T } : { [key in K]: T };
/** What a call needs: the parts the endpoint declares, without what has a default. */
type CallInput<PI, QI, BI> = Part<"params", PI> & Part<"query", QI> & Part<"body", BI>;

export interface CallOptions {
  dryRun?: boolean;
  /** Refused with generation_stale unless the thing is at this generation. */
  ifMatch?: number;
  reason?: string;
  /** Default: a fresh one for each mutation, so that it may be sent again. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

interface EventQuery {
  /** A cursor; null: from now on. */
  after?: string | null;
  /** Beginnings of kinds, as in ["cell."]; empty: all. */
  kinds?: string[];
  /** As in "cell/eu-1"; with a "/" at its end, all below it. */
  subject?: string;
  signal?: AbortSignal;
}

export interface Client {
  /** @throws CellplaneError the one the server answered, or server_unreachable */
  call<P, Q, B, R, PI, QI, BI>(endpoint: Endpoint<P, Q, B, R, PI, QI, BI>, input: CallInput<PI, QI, BI>, options?: CallOptions): Promise<R>;
  pages<P, Q, B, T, PI, QI, BI>(endpoint: Endpoint<P, Q, B, { items: T[]; nextCursor: string | null }, PI, QI, BI>, input: CallInput<PI, Omit<QI, "limit" | "cursor">, BI>): AsyncIterable<T>;
  /** Goes on by itself when the connection breaks. An item of kind "stream.reset" says that some before it are lost. */
  events(query?: EventQuery): AsyncIterable<EventItem>;
}

export interface ClientOptions {
  /** As in http://127.0.0.1:4600 */
  server: string;
  /** Null: calls without one, good for public endpoints only. */
  token: string | null;
  /** How long a call that may be repeated is repeated while the server asks for patience. Default 10 s. */
  patienceMs?: number;
  fetch?: typeof fetch;
}

const callTimeoutMs = 60_000;

export function createClient({ server, token, patienceMs = 10_000, fetch = globalThis.fetch }: ClientOptions): Client {
  const base = server.replace(/\/+$/, "");
  const authorization: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };

  /** @throws CellplaneError server_unreachable, or what the server answered */
  async function send(method: string, path: string, headers: Record<string, string>, body: string | undefined, signal: AbortSignal | undefined): Promise<Response> {
    const url = base + path;
    let response: Response;
    try {
      response = await fetch(url, { method, headers: { ...authorization, ...headers }, ...(body === undefined ? {} : { body }), ...(signal ? { signal } : {}), redirect: "error" });
    } catch (error) {
      if (signal?.aborted && signal.reason instanceof DOMException && signal.reason.name === "TimeoutError") throw fail("server_unreachable", { url: base, why: "no answer within a minute" });
      signal?.throwIfAborted();
      throw fail("server_unreachable", { url: base, why: reasonOf(error) }, { cause: error });
    }
    if (response.ok) return response;
    const text = await response.text();
    throw errorOf(parsed(text), response.status, base);
  }

  /** Every call of ours may be repeated: reads change nothing, and mutations carry a key. */
  async function patiently<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    const endMs = performance.now() + patienceMs;
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 2000)) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof CellplaneError) || error.kind.http !== 503 || refused(error) || performance.now() + waitMs > endMs) throw error;
        await pause(waitMs * (0.5 + Math.random()), signal);
      }
    }
  }

  const client: Client = {
    async call(endpoint, input, options = {}) {
      const { params, query, body } = input as { params?: Record<string, unknown>; query?: Record<string, unknown>; body?: unknown };
      const mutates = isMutation(endpoint);
      const search = searchOf({ ...query, ...(options.dryRun && mutates ? { dryRun: true } : {}) });
      const headers: Record<string, string> = { accept: "application/json" };
      if (body !== undefined) headers["content-type"] = "application/json";
      if (mutates) headers["idempotency-key"] = options.idempotencyKey ?? randomUUID();
      if (options.ifMatch !== undefined) headers["if-match"] = `"${options.ifMatch}"`;
      if (options.reason !== undefined) headers["cellplane-reason"] = encodeURIComponent(options.reason);
      return patiently(options.signal, async () => {
        const timeout = AbortSignal.timeout(callTimeoutMs);
        const response = await send(endpoint.method, pathOf(endpoint.path, params ?? {}) + search, headers, body === undefined ? undefined : JSON.stringify(body), options.signal ? AbortSignal.any([options.signal, timeout]) : timeout);
        if (response.status === 204) return null as never;
        const text = await response.text();
        const answer = parsed(text);
        if (answer === undefined) throw fail("unexpected_answer", { url: base, why: `no JSON, but ${response.headers.get("content-type") ?? "nothing"}` });
        return answer as never;
      });
    },

    async *pages(endpoint, input) {
      for (let cursor: string | null = null, first = true; first || cursor !== null; first = false) {
        const { query } = input as { query?: Record<string, unknown> };
        const page: { items: unknown[]; nextCursor: string | null } = await client.call(endpoint, { ...input, query: { ...query, limit: 1000, ...(cursor === null ? {} : { cursor }) } } as never);
        yield* page.items as never[];
        cursor = page.nextCursor;
      }
    },

    async *events({ after = null, kinds = [], subject, signal } = {}) {
      const path = `/v1/events${searchOf({ kinds: kinds.length > 0 ? kinds.join(",") : undefined, subject })}`;
      let lastId = after;
      let connected = false;
      for (let waitMs = 100; !signal?.aborted; waitMs = Math.min(waitMs * 2, 5000)) {
        try {
          const response = await send("GET", path, { accept: "text/event-stream", ...(lastId === null ? {} : { "last-event-id": lastId }) }, undefined, signal);
          if (!response.body) throw fail("unexpected_answer", { url: base, why: "a stream without a body" });
          connected = true;
          for await (const message of readSse(response.body, signal)) {
            waitMs = 100;
            lastId = message.id ?? lastId;
            if (message.event === "reset") yield { cursor: lastId ?? "", at: new Date().toISOString(), kind: "stream.reset", subject: "", data: {} };
            if (message.event === "message" && message.data) yield JSON.parse(message.data) as EventItem;
          }
        } catch (error) {
          if (signal?.aborted) return;
          // A first connection that fails is news; a later one is a restart to be waited for.
          if (error instanceof CellplaneError && (!connected || error.kind.http !== 503)) throw error;
        }
        await pause(waitMs, signal).catch(() => undefined);
      }
    },
  };
  return client;
}

/** Nobody is there, or the address is wrong: waiting would not help. A connection that broke in the middle is worth another. */
const refused = (error: CellplaneError): boolean => error.code === "server_unreachable" && !/ECONNRESET|EPIPE|other side closed|socket hang up/.test(error.message);

/** Node hides what happened in the cause of "fetch failed", several times over when a name has several addresses. */
function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { message?: string; code?: string; errors?: { message: string }[] } }).cause;
  return cause?.message || cause?.errors?.[0]?.message || cause?.code || (error instanceof Error ? error.message : String(error));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const pathOf = (path: string, params: Record<string, unknown>): string => path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(params[name])));

function searchOf(query: Record<string, unknown>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== null) search.append(name, String(one));
  return search.size > 0 ? `?${search.toString()}` : "";
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}
