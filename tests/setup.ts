import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync } from "node:fs";
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";
import { isRunning, type ProcessId, processOf } from "../packages/cellplane/src/drivers/process.ts";
import { findPostgres } from "../packages/cellplane/src/drivers/postgres/binaries.ts";
import { runningServer, startPostgres, stopServer } from "../packages/cellplane/src/drivers/postgres/server.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Superuser's URL of the one PostgreSQL of this run. */
    postgresUrl: string;
  }
}

const root = fileURLToPath(new URL("..", import.meta.url));
const prefix = "cellplane-tests-";

/** Once for the whole run: the built packages that child processes run, and one PostgreSQL that may lose its data. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await removeOrphans();
  buildPackages();
  const directory = await mkdtemp(join(tmpdir(), prefix));
  // PostgreSQL's user has to pass when it is not ours.
  await chmod(directory, 0o711);
  await writeFile(join(directory, "owner.json"), JSON.stringify(await processOf(process.pid)));
  const server = await startPostgres(await findPostgres(process.env["CELLPLANE_PG_BIN"]), {
    directory: join(directory, "postgres"),
    port: 0,
    throwaway: true,
    settings: { fsync: false, synchronous_commit: "off", full_page_writes: false, max_connections: 200, autovacuum_naptime: "1h" },
  });
  project.provide("postgresUrl", server.url);
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}

/** What runs that were killed have left: their servers, then their folders. */
async function removeOrphans(): Promise<void> {
  for (const name of (await readdir(tmpdir())).filter((name) => name.startsWith(prefix))) {
    const directory = join(tmpdir(), name);
    const owner = await readFile(join(directory, "owner.json"), "utf8").then((text) => JSON.parse(text) as ProcessId, () => null);
    // Without an owner's name it is being made this moment, or its maker was killed in that moment: not worth a guess.
    if (!owner || (await isRunning(owner))) continue;
    const server = await runningServer(join(directory, "postgres", "data"));
    if (server) await stopServer(server.process);
    await rm(directory, { recursive: true, force: true });
  }
}

/** Failing types do not stop a test run: `npm run check` tells of them. */
function buildPackages(): void {
  const tsc = join(root, "node_modules/@typescript/native/bin/tsc");
  for (const name of ["packages/sdk", "packages/cellplane", "examples/shop"]) {
    const source = join(root, name, "src");
    if (!existsSync(source) || readdirSync(source).length === 0) continue;
    spawnSync(process.execPath, [tsc, "-p", join(root, name)], { stdio: "ignore" });
  }
  cpSync(join(root, "packages/cellplane/src/store/schema"), join(root, "packages/cellplane/dist/store/schema"), { recursive: true });
}
