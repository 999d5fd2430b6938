import { createServer } from "node:http";
import { cellEnvironment, configFromEnvironment, currentTenant, guardFromEnvironment } from "@cellplane/sdk";
import { type ShopConfig, shopApi } from "./api.ts";
import { openShop } from "./store.ts";

// The shop's process in a cell. Environment: PORT, HOST, DATABASE_URL, SHOP_ISOLATION ("serializable"), SHOP_CONNECTIONS,
// and what the cell's driver sets (the SDK's SPEC).

const env = process.env;
const { cell, region } = cellEnvironment();
const databaseUrl = env["DATABASE_URL"];
if (!databaseUrl) throw new Error("DATABASE_URL is not set: the postgres:// URL of the cell's database");

const shop = openShop({
  databaseUrl,
  isolation: env["SHOP_ISOLATION"] === "serializable" ? "serializable" : "read committed",
  connectionsMax: Number(env["SHOP_CONNECTIONS"] ?? 5),
});
const guard = guardFromEnvironment();
let closing = false;

const handle = shopApi({
  shop,
  guard,
  config: configFromEnvironment<ShopConfig>({ banner: "", latencyMs: 0, errorRate: 0 }),
  // Without a router, on a developer's machine, everything belongs to one tenant.
  tenant: () => currentTenant() ?? { tenant: "local", cell, epoch: 1 },
  region,
  version: env["CELLPLANE_VERSION"] ?? "dev",
  closing: () => closing,
});
// Routers close idle connections first: were it this side, a request could already be on its way.
const server = createServer({ keepAliveTimeout: 120_000 }, guard.http(handle));
server.listen(Number(env["PORT"] ?? 3000), env["HOST"] ?? "127.0.0.1", () => console.log(JSON.stringify({ listening: server.address(), cell, pid: process.pid })));

/** How long requests are still taken, so that those on their way on pooled connections arrive. */
const lameDuckMs = 200;
/** After that, how long those under way may take. */
const drainMs = 5000;

function stop(): void {
  if (closing) return;
  closing = true;
  setTimeout(() => {
    server.close(() => void shop.close().finally(() => process.exit(0)));
    setTimeout(() => process.exit(1), drainMs).unref();
  }, lameDuckMs);
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
