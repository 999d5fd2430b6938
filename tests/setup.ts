import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
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
const nobodysAgeMs = 600_000;

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
    const found = await stat(directory).catch(() => null);
    // Other users of this machine clean up after themselves.
    if (!found || found.uid !== process.getuid?.()) continue;
    const owner = await readFile(join(directory, "owner.json"), "utf8").then((text) => JSON.parse(text) as ProcessId, () => null);
    // Without an owner's name it is being made this moment, or its maker, or whoever removed it, was killed in theirs.
    if (owner ? await isRunning(owner) : Date.now() - found.mtimeMs < nobodysAgeMs) continue;
    const server = await runningServer(join(directory, "postgres", "data"));
    if (server) await stopServer(server.process);
    await rm(directory, { recursive: true, force: true });
  }
}

/**
 * Failing types do not stop a test run: `npm run check` tells of them. Compiled aside and then moved file by file, since
 * processes of another run may be loading from `dist` right now.
 */
function buildPackages(): void {
  const tsc = join(root, "node_modules/@typescript/native/bin/tsc");
  for (const name of ["packages/sdk", "packages/cellplane", "examples/shop"]) {
    const project = join(root, name);
    const source = join(project, "src");
    if (!existsSync(source) || readdirSync(source).length === 0) continue;
    // Written last, so it tells that everything older was built.
    const stamp = join(project, ".tmp", "built");
    if (existsSync(stamp) && existsSync(join(project, "dist")) && newestMs(source) < statSync(stamp).mtimeMs) continue;
    const startedAt = new Date();
    // As deep as `dist`, since source maps name the sources by a relative path.
    const aside = join(project, `.build-${process.pid}`);
    spawnSync(process.execPath, [tsc, "-p", project, "--outDir", aside], { stdio: "ignore" });
    if (name === "packages/cellplane") cpSync(join(source, "store/schema"), join(aside, "store/schema"), { recursive: true });
    replaceFiles(aside, join(project, "dist"));
    rmSync(aside, { recursive: true, force: true });
    mkdirSync(join(project, ".tmp"), { recursive: true });
    writeFileSync(stamp, "");
    // What was changed while the compiler read is built next time.
    utimesSync(stamp, startedAt, startedAt);
  }
}

const newestMs = (path: string): number => {
  const stats = statSync(path);
  return stats.isDirectory() ? Math.max(stats.mtimeMs, ...readdirSync(path).map((name) => newestMs(join(path, name)))) : stats.mtimeMs;
};

function replaceFiles(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) replaceFiles(source, target);
    else renameSync(source, target);
  }
}
