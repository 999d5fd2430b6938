import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RouteChange } from "../../routing/model.ts";
import { applied } from "../../routing/testing/model.ts";
import type { Limits } from "../config.ts";
import { openRouteDisk } from "../disk.ts";
import { type RunningRouter, startRouter } from "../serve.ts";

export const stampSecret = "the fleet's secret";

/** What a cell saw of a request. */
export interface Seen {
  cell: string;
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  raw: string[];
  body: string;
}

export interface TestCell {
  name: string;
  index: number;
  server: Server;
  port: number;
  seen: Seen[];
}

export interface TestFleet {
  router: RunningRouter;
  cells: TestCell[];
  directory: string;
  log: string[];
  open(): Socket;
  /** Sends the bytes and gives all that comes back until the other side closes, or until `until` is in it. */
  raw(request: string | Buffer, until?: string): Promise<string>;
  close(): Promise<void>;
}

/** A cell that answers with its name, and keeps what it saw. `handle` may answer instead by returning true. */
export async function testCell(name: string, index: number, handle?: (request: IncomingMessage, response: Parameters<RequestListener>[1], body: string) => boolean | void): Promise<TestCell> {
  const cell: TestCell = { name, index, port: 0, seen: [], server: createServer() };
  cell.server.on("request", (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString("latin1");
      cell.seen.push({ cell: name, method: request.method ?? "", url: request.url ?? "", headers: request.headers, raw: request.rawHeaders, body });
      if (handle?.(request, response, body) === true) return;
      const answer = `${name}:${request.method}:${request.url}:${body.length}`;
      response.writeHead(200, { "x-cell": name, "content-length": answer.length }).end(answer);
    });
  });
  await new Promise<void>((resolve) => cell.server.listen(0, "127.0.0.1", resolve));
  cell.port = (cell.server.address() as AddressInfo).port;
  return cell;
}

/** Writes a table to a router's disk. */
export async function store(directory: string, changes: readonly RouteChange[], version = 1): Promise<void> {
  const disk = await openRouteDisk(directory, stampSecret, (why) => { throw new Error(why); });
  await disk.save(applied(changes), () => ({ version, digest: "0".repeat(64) }), () => version);
  await disk.close();
}

export const cellChange = (cell: Pick<TestCell, "name" | "index" | "port">): RouteChange => ({ kind: "cell", index: cell.index, cell: cell.name, endpoint: `127.0.0.1:${cell.port}`, state: "open" });
export const tenantChange = (tenant: string, cellIndex: number, epoch = 1, state: "active" | "hold" | "suspended" | "quarantined" = "active"): RouteChange => ({ kind: "tenant", tenant, cellIndex, state, epoch });
export const hostRule: RouteChange = { kind: "rules", rules: [{ by: "host", suffix: "test" }] };

/** A router without a control plane; tenants acme → the first cell, bolt → the second, found as `acme.test` and `bolt.test`. */
export async function testFleet({ cells, changes = [], limits = {}, controlPlane = [], directory }: { cells: TestCell[]; changes?: RouteChange[]; limits?: Partial<Limits>; controlPlane?: string[]; directory?: string }): Promise<TestFleet> {
  const stateDirectory = directory ?? (await mkdtemp(join(tmpdir(), "cellplane-router-")));
  const log: string[] = [];
  if (controlPlane.length === 0) {
    const tenants = ["acme", "bolt"].slice(0, cells.length).map((tenant, i) => tenantChange(tenant, cells[i]?.index ?? 1));
    await store(stateDirectory, [hostRule, ...cells.map(cellChange), ...tenants, ...changes]);
  }
  const router = await startRouter({
    name: "test", listen: { host: "127.0.0.1", port: 0 }, admin: { host: "127.0.0.1", port: 0 }, controlPlane, token: "router-token", stampSecret, stateDirectory,
    limits: { drainIdleMs: 50, drainMs: 2000, ...limits }, log: (line) => log.push(line),
  });
  const open = (): Socket => connect({ host: "127.0.0.1", port: router.port, allowHalfOpen: true });
  return {
    router, cells, directory: stateDirectory, log, open,
    raw: (request, until) => exchange(open(), request, until),
    async close() {
      await router.close();
      for (const cell of cells) {
        cell.server.closeAllConnections();
        await new Promise((resolve) => cell.server.close(resolve));
      }
      await rm(stateDirectory, { recursive: true, force: true });
    },
  };
}

export function exchange(socket: Socket, request: string | Buffer, until?: string): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const done = (): void => {
      socket.destroy();
      resolve(text);
    };
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (until !== undefined && text.includes(until)) done();
    });
    socket.on("end", done);
    socket.on("error", done);
    socket.write(request);
  });
}
