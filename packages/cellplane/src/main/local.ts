import { readFile } from "node:fs/promises";
import { contextFileIn, writeContext } from "../cli/context.ts";
import { connectKeeper } from "../drivers/keeper/client.ts";
import { createLocalDriver } from "../drivers/local/driver.ts";
import { findPostgres } from "../drivers/postgres/binaries.ts";
import { createEraser } from "../drivers/postgres/erase.ts";
import type { Address } from "./address.ts";
import { keepControlPostgres } from "./database.ts";
import { type ControlPlane, startControlPlane } from "./server.ts";
import { keepStampSecret, stateLayout } from "./state.ts";

export interface LocalServerOptions {
  stateDirectory: string;
  listen: Address;
  /** null: a PostgreSQL of its own in the state directory. */
  databaseUrl: string | null;
  pgBin: string | null;
  /** null: the one in the state directory. */
  stampSecret: string | null;
  logLevel: string;
}

/** A control plane instance whose cells may be processes of this machine. */
export async function runServer({ stateDirectory, listen, databaseUrl, pgBin, stampSecret, logLevel }: LocalServerOptions): Promise<ControlPlane> {
  const layout = stateLayout(stateDirectory);
  const keeper = connectKeeper(layout.directory);
  const postgres = (): ReturnType<typeof findPostgres> => findPostgres(pgBin ?? undefined);
  const local = createLocalDriver({
    stateDirectory: layout.directory, keeper, findPostgres: postgres,
    environment: { CELLPLANE_STAMP_SECRET: stampSecret ?? (await keepStampSecret(layout)) },
  });
  const server = await startControlPlane({
    databaseUrl: databaseUrl ?? (await keepControlPostgres(keeper, layout, await postgres())),
    stateDirectory: layout.directory, listen, logLevel,
    drivers: { local },
    eraser: createEraser({ databaseOf: local.databaseOf }),
  });
  // Commands on this machine find the way from here.
  const { admin } = JSON.parse(await readFile(layout.tokens, "utf8")) as { admin?: string };
  await writeContext(contextFileIn(layout.directory), { server: server.url, token: admin ?? null });
  return server;
}
