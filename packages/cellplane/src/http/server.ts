import { randomBytes } from "node:crypto";
import type { Server as NodeServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { type Context, Hono } from "hono";
import type { Logger } from "pino";
import { assert } from "../base/assert.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Store } from "../store/store.ts";
import type { TokenStore } from "../token/store.ts";
import { authenticate } from "./authenticate.ts";
import { readJson } from "./body.ts";
import { type Call, type Endpoint, type Handler, isMutation, type RawHandler } from "./contract.ts";
import { Answered, answerBefore, answerOf, mutate, type Mutation, type MutationDeps, record } from "./mutation.ts";
import { openApi } from "./openapi.ts";
import { problemOf, problemType } from "./problem.ts";
import { openIdempotencyStore } from "./store.ts";
import { check, strict } from "./validate.ts";

export interface AppParts {
  store: Store;
  tokens: TokenStore;
  handlers: Handler[];
  raw?: RawHandler[];
  log: Logger;
  clock?: Clock;
  metrics?: Metrics;
  version?: string;
}

/** `route`: the path as declared, for metrics; "" until it is known. */
export type App = Hono<{ Variables: { trace: string; route: string } }>;
type AppContext = Context<{ Variables: { trace: string; route: string } }>;

/** The API as a function from Request to Response; `startServer` gives it a port. */
export function createApp(parts: AppParts): App {
  const { handlers, raw = [], log, metrics, store, clock = systemClock } = parts;
  const deps: MutationDeps = { store, idempotency: openIdempotencyStore(store) };
  const app: App = new Hono({ strict: true });

  app.use(async (c, next) => {
    const startMs = performance.now();
    c.set("trace", traceOfRequest(c.req.raw));
    c.set("route", "");
    await next();
    secure(c);
    const ms = performance.now() - startMs;
    metrics?.httpRequest(c.req.method, c.get("route"), c.res.status, ms / 1000);
    log.debug({ trace: c.get("trace"), method: c.req.method, path: c.req.path, status: c.res.status, ms }, "request");
  });

  app.onError((error, c) => {
    const trace = c.get("trace");
    const expected = error instanceof CellplaneError ? error : fail("internal", { trace });
    if (expected.kind.http >= 500) log.error({ trace, err: error, method: c.req.method, path: c.req.path }, expected.message);
    return problem(c, expected);
  });

  for (const route of raw) {
    const path = honoPath(route.path);
    app.on(route.method, [path], async (c, next) => {
      if (route.accept && !(c.req.header("accept") ?? "").includes(route.accept)) return next();
      c.set("route", route.path);
      const caller = await authenticate(c.req.raw, route.role, parts.tokens, clock);
      return route.handle(c.req.raw, { caller, params: c.req.param() as Record<string, string> });
    });
  }

  app.get("/health", (c) => c.json({ ok: true }));
  app.get("/ready", async (c) => {
    await store.query("select 1");
    return c.json({ ok: true });
  });
  let document: string | null = null;
  app.get("/openapi.json", (c) => {
    document ??= JSON.stringify(openApi(handlers.map((h) => h.endpoint), parts.version));
    return c.body(document, 200, { "content-type": "application/json" });
  });

  const ordered = [...handlers].sort((a, b) => comparePaths(a.endpoint.path, b.endpoint.path));
  assert(new Set(ordered.map(({ endpoint: e }) => `${e.method} ${e.path}`)).size === ordered.length, "no two endpoints have one method and path");
  for (const { endpoint, handle } of ordered) {
    const serve = endpointServer(endpoint, handle as unknown as (call: Call<unknown, unknown, unknown>) => Promise<unknown>, deps, parts.tokens, clock);
    app.on(endpoint.method, [honoPath(endpoint.path)], serve);
  }
  const routes = [...ordered.map((h) => h.endpoint), ...raw].filter((route) => !route.path.endsWith("*"));
  for (const path of new Set(routes.map((route) => route.path))) {
    const allowed = [...new Set(routes.filter((route) => route.path === path).map((route) => route.method))];
    app.all(honoPath(path), (c) => {
      c.header("allow", allowed.join(", "));
      throw fail("method_not_allowed", { method: c.req.method, path: c.req.path, allowed });
    });
  }
  app.notFound((c) => problem(c, fail("not_found", { what: "path", name: c.req.path })));
  return app;
}

function endpointServer(endpoint: Endpoint, handle: (call: Call<unknown, unknown, unknown>) => Promise<unknown>, deps: MutationDeps, tokens: TokenStore, clock: Clock) {
  const mutates = isMutation(endpoint);
  const schemas = { params: strict(endpoint.params), query: strict(endpoint.query), body: strict(endpoint.body) };

  return async (c: AppContext): Promise<Response> => {
    c.set("route", endpoint.path);
    const request = c.req.raw;
    const caller = await authenticate(request, endpoint.role, tokens, clock);
    const { dryRun, ...query } = queryOf(request, mutates);
    const params = c.req.param() as Record<string, string>;
    const mutation: Mutation = {
      endpoint, caller, params: check(schemas.params, params, "path") as Record<string, string>, query: check(schemas.query, query, "query"),
      body: endpoint.method === "GET" ? {} : check(schemas.body, (await readJson(request)) ?? {}, ""),
      ifMatch: ifMatchOf(c), reason: reasonOf(c), key: mutates ? keyOf(c) : null, dryRun: dryRun === true, trace: c.get("trace"), nowMs: clock.nowMs(),
    };
    const before = await answerBefore(deps, mutation);
    if (before !== null) return sendText(c, endpoint, before, null);

    let mutated = false;
    const call: Call<unknown, unknown, unknown> = {
      params: mutation.params, query: mutation.query, body: mutation.body, caller, ifMatch: mutation.ifMatch, reason: mutation.reason, dryRun: mutation.dryRun, signal: request.signal,
      mutate: async (work) => {
        assert(mutates && !mutated, `${endpoint.id} writes once, in one transaction`);
        mutated = true;
        return mutate(deps, mutation, work);
      },
      record: (tx, answer) => record(mutation, tx, answer),
    };
    let value: unknown;
    try {
      value = await handle(call);
    } catch (error) {
      if (error instanceof Answered) return sendText(c, endpoint, error.answer, null);
      throw error;
    }
    assert(!mutation.done || value === mutation.done.value, `${endpoint.id} answers with what its transaction returned`);
    const answer = mutation.done ? mutation.done.answer : answerOf(endpoint, value);
    return sendText(c, endpoint, JSON.stringify(answer), generationOf(answer));
  };
}

function sendText(c: AppContext, endpoint: Endpoint, text: string, generation: number | null): Response {
  const etag = generation === null ? null : `"${generation}"`;
  if (etag) c.header("etag", etag);
  if (endpoint.status === 204) return c.body(null, 204);
  if (etag && endpoint.method === "GET" && c.req.header("if-none-match") === etag) return c.body(null, 304);
  return c.body(text, endpoint.status, { "content-type": "application/json" });
}

const newTrace = (): string => randomBytes(16).toString("hex");

const refusal = (error: CellplaneError): Response =>
  Response.json(problemOf(error, newTrace()), { status: error.kind.http, headers: { "content-type": problemType, connection: "close", "retry-after": "1" } });

function problem(c: AppContext, error: CellplaneError): Response {
  const body = problemOf(error, c.get("trace"));
  if (body.status === 401) c.header("www-authenticate", 'Bearer realm="cellplane"');
  if (body.status === 503) c.header("retry-after", "1");
  return c.body(JSON.stringify(body), body.status as 500, { "content-type": problemType });
}

/** What a raw handler has set stays: the console's pages need a policy of their own. */
function secure(c: AppContext): void {
  const headers = c.res.headers;
  const set = (name: string, value: string) => headers.has(name) || headers.set(name, value);
  headers.set("x-trace-id", c.get("trace"));
  set("x-content-type-options", "nosniff");
  set("referrer-policy", "no-referrer");
  set("cache-control", "no-store");
  set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
}

/** The caller's trace goes on (W3C Trace Context); without one a new one starts. */
function traceOfRequest(request: Request): string {
  const given = /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(request.headers.get("traceparent") ?? "")?.[1];
  return given && !/^0+$/.test(given) ? given : newTrace();
}

const generationOf = (answer: unknown): number | null => {
  const generation = (answer as { generation?: unknown } | null)?.generation;
  return typeof generation === "number" ? generation : null;
};

function queryOf(request: Request, mutates: boolean): Record<string, string | string[]> & { dryRun?: boolean } {
  const at = request.url.indexOf("?");
  if (at < 0) return {};
  const query: Record<string, string | string[] | boolean> = Object.create(null) as Record<string, string>;
  for (const [name, value] of new URLSearchParams(request.url.slice(at))) {
    if (mutates && name === "dryRun") {
      if (value !== "true" && value !== "false") throw fail("invalid_input", { issues: [{ path: "query.dryRun", message: "true or false" }] });
      query[name] = value === "true";
      continue;
    }
    const known = query[name];
    query[name] = known === undefined ? value : [known as string, value].flat();
  }
  return { ...query } as Record<string, string | string[]> & { dryRun?: boolean };
}

function headerIssue(name: string, message: string): CellplaneError {
  return fail("invalid_input", { issues: [{ path: `header.${name}`, message }] });
}

function ifMatchOf(c: AppContext): number | null {
  const text = c.req.header("if-match");
  if (text === undefined || text === "*") return null;
  const generation = /^"(\d{1,15})"$/.exec(text)?.[1];
  if (!generation) throw headerIssue("if-match", 'the ETag of an earlier answer, as in "7"');
  return Number(generation);
}

function keyOf(c: AppContext): string | null {
  const key = c.req.header("idempotency-key");
  if (key !== undefined && !/^[\x21-\x7e]{1,128}$/.test(key)) throw headerIssue("idempotency-key", "1 to 128 printable ASCII characters");
  return key ?? null;
}

/** Percent-encoded, since headers carry ASCII only. */
function reasonOf(c: AppContext): string | null {
  const text = c.req.header("cellplane-reason");
  if (text === undefined) return null;
  try {
    const reason = decodeURIComponent(text);
    if (reason.length <= 1000 && !reason.includes("\0")) return reason;
  } catch {
    // No percent-encoding: refused below.
  }
  throw headerIssue("cellplane-reason", "at most 1000 characters, percent-encoded as UTF-8");
}

const honoPath = (path: string): string => path.replaceAll(/\{(\w+)\}/g, ":$1");

/** Fixed segments before parameters, since the first route that matches answers. */
function comparePaths(a: string, b: string): number {
  const rank = (path: string) => path.replaceAll(/\{\w+\}/g, "\uFFFF");
  return rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0;
}

export interface RunningServer {
  url: string;
  port: number;
  /** Takes no new requests, lets those in work end for this long, then cuts them off. */
  close(graceMs?: number): Promise<void>;
}

/**
 * @param port 0 for a free one
 * @throws CellplaneError port_in_use
 */
export async function startServer(
  app: Pick<App, "fetch">,
  { port, host = "127.0.0.1", flag = "--port", headTimeoutMs = 10_000 }: { port: number; host?: string; flag?: string; headTimeoutMs?: number },
): Promise<RunningServer> {
  let stopping = false;
  const server = createAdaptorServer({
    // A connection that was open before may still bring a request: it is sent to another instance.
    fetch: (request, env) => (stopping ? refusal(fail("shutting_down", {})) : app.fetch(request, env)),
    // Slow senders are cut off; streams of answers may last.
    serverOptions: { requestTimeout: headTimeoutMs * 3, headersTimeout: headTimeoutMs, keepAliveTimeout: 65_000, connectionsCheckingInterval: headTimeoutMs / 2 },
  }) as NodeServer;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(error.code === "EADDRINUSE" ? fail("port_in_use", { port, purpose: "API", flag }, { cause: error }) : error));
    server.listen(port, host, resolve);
  });
  const bound = (server.address() as AddressInfo).port;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${bound}`,
    port: bound,
    async close(graceMs = 5000) {
      stopping = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const sweep = setInterval(() => server.closeIdleConnections(), 50);
      const cut = setTimeout(() => server.closeAllConnections(), graceMs);
      server.closeIdleConnections();
      await closed;
      clearInterval(sweep);
      clearTimeout(cut);
    },
  };
}
