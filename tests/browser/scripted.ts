import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import type { Cell } from "../../packages/cellplane/src/cell/model.ts";
import type { Tenant } from "../../packages/cellplane/src/tenant/model.ts";
import type { Operation } from "../../packages/cellplane/src/workflow/model.ts";
import { cell } from "../../packages/console/src/testing/cell.ts";

/** The strictest policy the console runs under: nothing inline, nothing from elsewhere, no strings made into scripts. */
const contentPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const contentTypes: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

interface SentEvent {
  text: string;
  item: { cursor: string; at: string; kind: string; subject: string; data: Record<string, unknown> };
}

/**
 * A control plane that does as the test says: the paths and shapes of the real one over plain HTTP, a real event stream with resume, and a
 * fleet that is whatever the test makes it. The test with the real fleet is fleet.test.ts.
 */
export async function scriptedPlane({ console: folder, token = "secret" }: { console: string; token?: string }) {
  const cells = new Map<string, Cell>();
  const tenants: Tenant[] = [];
  let operations: Operation[] = [];
  let rates: Record<string, number[]> | null = null;
  let failing: { status: number; code: string; detail: string } | null = null;
  const log: SentEvent[] = [];
  const streams = new Set<ServerResponse>();
  /** The cursor each stream was asked to resume after; "" for none. */
  const resumedAfter: string[] = [];
  const posts: { path: string; reason: string; key: string }[] = [];

  const json = (response: ServerResponse, body: unknown, status = 200): void => {
    response.writeHead(status, { "content-type": status < 400 ? "application/json" : "application/problem+json" });
    response.end(JSON.stringify(body));
  };
  const refuse = (response: ServerResponse, status: number, code: string, detail: string, fix = "Change something first."): void =>
    json(response, { type: `urn:cellplane:error:${code}`, title: code, status, code, detail, fix, retry: "never", instance: "urn:cellplane:trace:4bf92f35" }, status);

  function emit(kind: string, subject: string, data: Record<string, unknown> = {}): void {
    const id = log.length + 1;
    const item = { cursor: `700.${id}`, at: new Date().toISOString(), kind, subject, data };
    const text = `id: ${item.cursor}\ndata: ${JSON.stringify(item)}\n\n`;
    log.push({ item, text });
    for (const stream of streams) stream.write(text);
  }

  function stream(request: IncomingMessage, response: ServerResponse): void {
    const after = String(request.headers["last-event-id"] ?? "");
    resumedAfter.push(after);
    const from = after ? Number(after.split(".")[1]) : log.length;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write(`event: hello\nid: 700.${from}\ndata: {}\n\n`);
    for (const event of log.slice(from)) response.write(event.text);
    streams.add(response);
    response.on("close", () => streams.delete(response));
  }

  function answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://plane");
    if (url.pathname === "/console") return void response.writeHead(308, { location: "/console/" }).end();
    if (url.pathname.startsWith("/console/")) return void file(url.pathname.slice("/console/".length) || "index.html", response);
    if (request.headers.authorization !== `Bearer ${token}`) return refuse(response, 401, "unauthenticated", "nobody has this token", "Pass a valid token.");
    if (failing) return refuse(response, failing.status, failing.code, failing.detail, "Check that PostgreSQL runs; nothing was lost.");
    const [, , noun, name, verb] = url.pathname.split("/");
    const page = <T>(all: T[]): void => {
      const limit = Number(url.searchParams.get("limit") ?? 100);
      const from = Number(url.searchParams.get("cursor") ?? 0);
      json(response, { items: all.slice(from, from + limit), nextCursor: from + limit < all.length ? String(from + limit) : null });
    };
    if (noun === "whoami") return json(response, { name: "test", role: "admin" });
    if (noun === "events") return request.headers.accept === "text/event-stream" ? stream(request, response) : page(log.map(({ item }) => item).toReversed());
    if (noun === "operations") return page(operations);
    if (noun === "tenants") return page(tenants.filter((tenant) => tenant.cell === url.searchParams.get("cell")));
    if (noun === "traffic" && rates) return json(response, { cells: rates });
    if (noun === "cells" && !name) return page([...cells.values()]);
    const cell = noun === "cells" ? cells.get(name ?? "") : undefined;
    if (!cell) return refuse(response, 404, "not_found", `there is no ${noun} ${name}`);
    if (request.method === "POST") {
      posts.push({ path: url.pathname, reason: decodeURIComponent(String(request.headers["cellplane-reason"] ?? "")), key: String(request.headers["idempotency-key"] ?? "") });
      change({ name: cell.name, state: verb === "cordon" ? "cordoned" : "active" });
      return json(response, cells.get(cell.name));
    }
    const why = (state: string): string => `cell ${cell.name} is ${cell.state}; this needs ${state}`;
    const refused = {
      cordon: cell.state === "active" ? null : why("active"), uncordon: cell.state === "cordoned" ? null : why("cordoned"),
      drain: null, update: null, retire: `cell ${cell.name} still has ${cell.used.tenants} tenants`, destroy: `cell ${cell.name} still has ${cell.used.tenants} tenants`,
    };
    json(response, { ...cell, refused });
  }

  async function file(path: string, response: ServerResponse): Promise<void> {
    const safe = normalize(path);
    const body = safe.startsWith("..") ? null : await readFile(join(folder, safe)).catch(() => null);
    if (!body) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": contentTypes[extname(safe)] ?? "application/octet-stream", "content-security-policy": contentPolicy, "x-content-type-options": "nosniff" });
    response.end(body);
  }

  let server: Server;
  let port = 0;
  async function start(): Promise<void> {
    server = createServer(answer).listen(port, "127.0.0.1");
    await once(server, "listening");
    port = (server.address() as AddressInfo).port;
  }
  async function stop(): Promise<void> {
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  }

  /** Changes a cell as the real plane would: the row first, then the event. */
  function change(patch: Partial<Cell> & Pick<Cell, "name">): void {
    const former = cells.get(patch.name);
    cells.set(patch.name, { ...(former ?? freshCell(patch)), ...patch, generation: (former?.generation ?? 0) + 1 });
    emit(patch.state ? "cell.state" : "cell.health", `cell/${patch.name}`);
  }

  await start();
  return {
    origin: `http://127.0.0.1:${port}`,
    link: `http://127.0.0.1:${port}/console/#token=${token}`,
    cells, tenants, posts, resumedAfter,
    get streams() {
      return streams.size;
    },
    change,
    emit,
    setOperations(next: Operation[]): void {
      operations = next;
      emit("operation.state", next[0]?.subject ?? "operation/none", {});
    },
    setRates(next: Record<string, number[]>): void {
      rates = next;
    },
    /** Answers every call of the API with this problem; null: as it should. */
    fail(problem: typeof failing): void {
      failing = problem;
    },
    /** Nobody answers any more; `start` comes back on the same port with all that happened meanwhile. */
    stop, start,
  };
}
export type ScriptedPlane = Awaited<ReturnType<typeof scriptedPlane>>;

/** A healthy cell that was looked at just now. */
export function freshCell(patch: Partial<Cell> & Pick<Cell, "name">): Cell {
  const one = cell(patch);
  return { ...one, health: { ...one.health, observedAt: new Date().toISOString() } };
}

export function tenant(name: string, cell: string): Tenant {
  return { name, cell, tier: "standard", region: null, dedicated: false, labels: {}, keys: [], load: {}, state: "active", epoch: 1, generation: 1, operation: null, createdAt: "2026-01-02T03:04:05.000Z" };
}
