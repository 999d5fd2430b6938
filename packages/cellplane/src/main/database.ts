import type { Keeper } from "../drivers/keeper/model.ts";
import type { PostgresBinaries } from "../drivers/postgres/binaries.ts";
import { prepareCluster } from "../drivers/postgres/cluster.ts";
import { freePort } from "../drivers/postgres/server.ts";
import { keepAddresses, keptAddresses } from "./address.ts";
import type { StateLayout } from "./state.ts";

/** Keeps the control plane's own PostgreSQL running. @returns its URL */
export async function keepControlPostgres(keeper: Keeper, layout: StateLayout, binaries: PostgresBinaries): Promise<string> {
  const name = "control-postgres";
  const kept = await keptAddresses(layout.addresses);
  const port = kept[name]?.port ?? (await freePort());
  await keepAddresses(layout.addresses, { ...kept, [name]: { host: "127.0.0.1", port } });
  const cluster = await prepareCluster(binaries, { directory: layout.controlPostgres, port, settings: { max_connections: 60, shared_buffers: "32MB" } });
  await keeper.put({
    name, tier: "database", command: cluster.command, account: cluster.account, directory: "/", env: { LC_ALL: "C" }, logFile: cluster.logFile,
    ready: { kind: "postgres", dataDirectory: cluster.dataDirectory }, readyIntervalMs: 20, stopSignal: "SIGINT", stopTimeoutMs: 20_000,
  });
  await keeper.waitReady(name, 60_000);
  return cluster.url;
}
