import type { Keeper } from "../drivers/keeper/model.ts";
import type { PostgresBinaries } from "../drivers/postgres/binaries.ts";
import { prepareCluster } from "../drivers/postgres/cluster.ts";
import { freePort } from "../drivers/postgres/server.ts";
import { postgresService } from "../drivers/postgres/service.ts";
import { fail } from "../base/errors.ts";
import { keepAddresses, keptAddresses } from "./address.ts";
import type { StateLayout } from "./state.ts";

/** The service's name in the state directory. */
const controlPostgres = "control-postgres";
const readyTimeoutMs = 60_000;

/**
 * Keeps the control plane's own PostgreSQL running, on the port it had before.
 *
 * @returns its URL, which holds a password
 * @throws CellplaneError postgres_failed, disk_full
 */
export async function keepControlPostgres(keeper: Keeper, layout: StateLayout, binaries: PostgresBinaries): Promise<string> {
  const kept = await keptAddresses(layout.addresses);
  const port = kept[controlPostgres]?.port ?? (await freePort());
  await keepAddresses(layout.addresses, { ...kept, [controlPostgres]: { host: "127.0.0.1", port } });
  const cluster = await prepareCluster(binaries, { directory: layout.controlPostgres, port, settings: { shared_buffers: "32MB" } });
  await keeper.put(postgresService(cluster, controlPostgres));
  const status = await keeper.waitReady(controlPostgres, readyTimeoutMs);
  if (status.state !== "ready") throw fail("postgres_failed", { why: status.problem, log: cluster.logFile });
  return cluster.url;
}
