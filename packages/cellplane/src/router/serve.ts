import { randomBytes } from "node:crypto";
import { createServer, type AddressInfo, type Server } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { fail } from "../base/errors.ts";
import { lineReader } from "../routing/lines.ts";
import { type Decision, type RouteDecision, routeOf } from "../routing/model.ts";
import type { SnapshotPosition } from "../routing/snapshot.ts";
import type { RouteTable } from "../routing/table.ts";
import { adminServer } from "./admin.ts";
import { Client, type Traffic } from "./client.ts";
import { defaultLimits, type RouterConfig } from "./config.ts";
import { openRouteDisk } from "./disk.ts";
import { startFeed } from "./feed.ts";
import { CellPool, type Ticks } from "./forward.ts";
import { CellHead, ClientHead } from "./head.ts";
import { Holds } from "./hold.ts";
import { stamper } from "./identify.ts";
import { Counters, renderMetrics } from "./metrics.ts";

export interface RunningRouter {
  /** What it listens on, when it was told port 0. */
  port: number;
  adminPort: number;
  /** Version of the route log that is applied; 0 before the first table. */
  version(): number;
  /** Stops accepting, lets what is under way finish, and ends. */
  close(): Promise<void>;
}

const sweepMs = 100;
const readBufferBytes = 64 * 1024;
/** A batch is applied in slices of so many bytes, so that traffic flows meanwhile. */
const sliceBytes = 32 * 1024;

/** Serves from the table on disk at once, if there is one, and follows the control plane when it answers. @throws CellplaneError port_in_use */
export async function startRouter(config: RouterConfig): Promise<RunningRouter> {
  const limits = { ...defaultLimits, ...config.limits };
  const log = config.log ?? (() => undefined);
  const counters = new Counters();
  const ticks: Ticks = { nowMs: performance.now() };
  const stamp = stamper(config.stampSecret);
  const idPrefix = randomBytes(6).toString("base64url");
  const readBuffer = Buffer.allocUnsafeSlow(readBufferBytes);
  const cellHead = new CellHead();
  const pools = new Map<number, CellPool>();
  let ids = 0;
  let table: RouteTable | null = null;
  let position: SnapshotPosition | null = null;
  /** Up to this version lines may have been applied. */
  let reached = 0;
  let confirmedMs: number | null = null;

  const decide = (tenant: string): Decision => {
    const name = Buffer.from(tenant, "latin1");
    return table ? routeOf(table, table.find("name", name, 0, name.length)) : { kind: "refuse", status: 404, reason: "unknown_tenant" };
  };

  const traffic: Traffic = {
    limits, ticks, counters, decide,
    holds: new Holds(limits, decide),
    clients: new Set(),
    inFlight: new Map(),
    head: new ClientHead(),
    draining: false,
    table: () => table,
    stamp: (route) => stamp(table as RouteTable, route),
    poolOf(route: RouteDecision) {
      let pool = pools.get(route.cell.index);
      if (!pool) pools.set(route.cell.index, (pool = new CellPool(route.cell, { limits, ticks, head: cellHead, readBuffer, counters: counters.ofCell(route.cell.cell) })));
      return pool;
    },
    newRequestId: () => `${idPrefix}-${(ids++).toString(36)}`,
    ended: (tenant) => {
      if (table?.held.has(tenant)) feed.ack();
    },
  };

  // ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Cells have come, gone or changed, and whoever waits for a route may have one now. */
  function tableChanged(): void {
    for (const [index, pool] of pools) {
      const cell = table?.cellOf(index);
      if (!cell) {
        pool.close();
        pools.delete(index);
      } else if (cell !== pool.route) pool.update(cell);
    }
    traffic.holds.check();
  }

  const disk = await openRouteDisk(config.stateDirectory, config.stampSecret, (why) => {
    counters.diskErrors++;
    log(`the table cannot be written to ${config.stateDirectory}: ${why}`);
  });
  const stored = await disk.load((why) => {
    counters.badData++;
    log(`left aside: ${why}`);
  });
  if (stored) {
    ({ table, position } = stored);
    reached = position.version;
    log(`serving ${table.tenants} tenants from disk, at version ${position.version}`);
  }
  const save = (): void => {
    if (table && position) void disk.save(table, () => position as SnapshotPosition, () => reached);
  };
  if (stored && disk.isDue()) save();

  // ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (socket) => {
    if (traffic.clients.size >= limits.clientsMax) {
      counters.clientsRefused++;
      socket.destroy();
      return;
    }
    traffic.clients.add(new Client(traffic, socket));
  });
  const admin = adminServer({ table: () => table, notReady: () => (traffic.draining ? "draining" : table === null ? "no routes yet" : null), metrics: () => renderMetrics(counters, gauges()) });
  await listen(server, "fd" in config.listen ? config.listen : { ...config.listen, backlog: 4096 }, "router", "--listen");
  await listen(admin, config.admin, "router's metrics", "--admin-listen");

  const sweeper = setInterval(() => {
    ticks.nowMs = performance.now();
    for (const pool of pools.values()) pool.sweep();
    for (const client of traffic.clients) client.sweep(ticks.nowMs);
  }, sweepMs);

  // ── the control plane ─────────────────────────────────────────────────────────────────────────────────────────────

  let failing = false;
  const feed = startFeed({
    urls: config.controlPlane,
    token: config.token,
    router: config.name,
    position: () => position,
    takeSnapshot(loaded) {
      counters.snapshots++;
      table = loaded.table;
      position = { version: loaded.version, digest: loaded.digest };
      reached = loaded.version;
      tableChanged();
      save();
      log(`took the snapshot of version ${loaded.version}: ${loaded.table.tenants} tenants`);
    },
    async takeBatch(frame, batch) {
      if (!table) return;
      counters.batches++;
      reached = frame.to;
      const read = lineReader(table);
      for (const { start, end } of batch.versions) {
        for (let at = start; at < end; ) {
          const cut = end - at > sliceBytes ? frame.payload.indexOf(0x0a, at + sliceBytes) + 1 : end;
          read(frame.payload, at, cut === 0 ? end : cut);
          at = cut === 0 ? end : cut;
          if (at < end) await nextTurn();
        }
      }
      position = { version: frame.to, digest: batch.digest };
      disk.append(frame);
      tableChanged();
      if (disk.isDue()) save();
    },
    confirmed() {
      confirmedMs = performance.now();
      if (failing) log("the control plane answers again");
      failing = false;
    },
    inFlight: () => Object.fromEntries([...(table?.held ?? [])].map((tenant) => [tenant, traffic.inFlight.get(tenant) ?? 0])),
    failed(why, badData) {
      counters.feedErrors++;
      if (badData) counters.badData++;
      if (!failing || badData) log(`the control plane does not answer, the table stays as it is: ${why}`);
      failing = true;
    },
  });

  const gauges = (): Parameters<typeof renderMetrics>[1] => ({
    tableVersion: position?.version ?? 0,
    tableAgeSeconds: confirmedMs === null ? null : (performance.now() - confirmedMs) / 1000,
    tenants: table?.tenants ?? 0,
    keys: table?.keys ?? 0,
    tableBytes: table?.byteLength() ?? 0,
    clients: traffic.clients.size,
    held: traffic.holds.waiting,
    cells: [...pools.values()].map((pool) => ({ cell: pool.route.cell, inFlight: pool.connections - pool.idle + pool.tunnels, queued: pool.queued, idle: pool.idle, broken: pool.broken })),
  });

  let closing: Promise<void> | null = null;
  async function drain(): Promise<void> {
    traffic.draining = true;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const idleTimer = setInterval(() => {
      for (const client of traffic.clients) if (client.idle) client.shut();
    }, limits.drainIdleMs);
    const lastTimer = setTimeout(() => {
      for (const client of traffic.clients) client.destroy();
    }, limits.drainMs);
    await closed;
    clearInterval(idleTimer);
    clearTimeout(lastTimer);
    clearInterval(sweeper);
    await feed.stop();
    await disk.close();
    for (const pool of pools.values()) pool.close();
    admin.closeAllConnections();
    await new Promise<void>((resolve) => admin.close(() => resolve()));
  }

  return {
    port: portOf(server),
    adminPort: portOf(admin),
    version: () => position?.version ?? 0,
    close: () => (closing ??= drain()),
  };
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

function listen(server: Server, at: { host: string; port: number; backlog?: number } | { fd: number }, purpose: string, flag: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(error.code === "EADDRINUSE" && "port" in at ? fail("port_in_use", { port: at.port, purpose, flag }) : error));
    server.listen(at, () => resolve());
  });
}
