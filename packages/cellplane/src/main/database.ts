import type { Keeper } from "../drivers/keeper/model.ts";
import { portBook } from "../drivers/local/ports.ts";
import type { PostgresBinaries } from "../drivers/postgres/binaries.ts";
import { prepareCluster } from "../drivers/postgres/cluster.ts";
import { postgresService } from "../drivers/postgres/service.ts";
import { fail } from "../base/errors.ts";
import type { StateLayout } from "./state.ts";

/** The service's name in the state directory. */
export const controlPostgres = "control-postgres";
const readyTimeoutMs = 60_000;

/**
 * Keeps the control plane's own PostgreSQL running, on the port it had before.
 *
 * @returns its URL, which holds a password
 * @throws CellplaneError postgres_failed, disk_full
 */
export async function keepControlPostgres(keeper: Keeper, layout: StateLayout, binaries: PostgresBinaries): Promise<string> {
  const port = await portBook(layout.directory).reserve(controlPostgres);
  const cluster = await prepareCluster(binaries, { directory: layout.controlPostgres, port, settings: { shared_buffers: "32MB" } });
  await keeper.put(postgresService(cluster, controlPostgres));
  const status = await keeper.waitReady(controlPostgres, readyTimeoutMs);
  if (status.state !== "ready") throw fail("postgres_failed", { why: status.problem, log: cluster.logFile });
  return cluster.url;
}
