import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createGuard, currentTenant } from "@cellplane/sdk";
import pg from "pg";
import { testDatabase } from "../../../../tests/database.ts";
import { type ShopConfig, shopApi } from "../api.ts";
import { openShop, type ShopOptions } from "../store.ts";

export const secret = "stamp secret of the tests";

/** A database with the shop's schema. */
export async function shopDatabase(): Promise<{ url: string; query: (sql: string, params?: unknown[]) => Promise<pg.QueryResult>; drop: () => Promise<void> }> {
  const database = await testDatabase();
  const pool = new pg.Pool({ connectionString: database.url, max: 2 });
  pool.on("error", () => undefined);
  await pool.query(await readFile(new URL("../../schema/0001-shop.sql", import.meta.url), "utf8"));
  return {
    url: database.url,
    query: (sql, params) => pool.query(sql, params),
    drop: async () => {
      await pool.end();
      await database.drop();
    },
  };
}

export interface RunningShop {
  port: number;
  /** May be changed while it runs. */
  config: ShopConfig;
  stop(): Promise<void>;
}

/** The shop of a cell in this process, on a free port. */
export async function startShop(databaseUrl: string, { cell = "eu-1", isolation = "read committed" }: { cell?: string; isolation?: ShopOptions["isolation"] } = {}): Promise<RunningShop> {
  const shop = openShop({ databaseUrl, isolation, connectionsMax: 8 });
  const guard = createGuard({ cell, secret });
  const config: ShopConfig = { banner: "", latencyMs: 0, errorRate: 0 };
  const tenant = () => currentTenant() ?? { tenant: "nobody", cell, epoch: 0 };
  const server = createServer(guard.http(shopApi({ shop, guard, config: () => config, tenant, region: "eu", version: "1", closing: () => false }))).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    config,
    async stop() {
      server.close().closeAllConnections();
      await shop.close();
    },
  };
}
