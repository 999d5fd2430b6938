import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isRunning, signalProcess, waitForEnd } from "../process.ts";
import { asAccount } from "./account.ts";
import { findPostgres } from "./binaries.ts";
import { freePort, type PostgresServer, runningServer, startPostgres } from "./server.ts";
import { parseSettings, settingsText } from "./settings.ts";

let root: string;
let servers: PostgresServer[];
const dist = fileURLToPath(new URL("../../../dist/drivers/postgres/", import.meta.url));
const isRoot = process.getuid?.() === 0;
const debian = "/usr/lib/postgresql/15/bin";
const hasDebian = await stat(debian).then(() => true, () => false);

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "postgres-"));
  await chmod(root, 0o711);
  servers = [];
});
afterEach(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await rm(root, { recursive: true, force: true });
});

const start = async (options: Partial<Parameters<typeof startPostgres>[1]> = {}, bin?: string): Promise<PostgresServer> => {
  const server = await startPostgres(await findPostgres(bin), { directory: join(root, "one"), port: 0, throwaway: true, ...options });
  servers.push(server);
  return server;
};

const run = (program: string, ...args: string[]): Buffer => execFileSync(program, args, { stdio: "pipe" });

const query = async (url: string, sql: string): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return (await client.query<Record<string, unknown>>(sql).finally(() => client.end())).rows;
};

describe.each([{ from: "npm", bin: undefined }, ...(hasDebian ? [{ from: "the system", bin: debian }] : [])])("PostgreSQL from $from", ({ bin }) => {
  test("P1: it is made, served on loopback alone with a password, and stopped", async () => {
    const server = await start({}, bin);
    expect(await query(server.url, "select current_setting('wal_level') as wal, rolsuper from pg_roles where rolname = current_user")).toEqual([{ wal: "logical", rolsuper: true }]);
    expect(await query(server.url, "select count(*)::int as open from pg_hba_file_rules where auth_method <> 'scram-sha-256'")).toEqual([{ open: 0 }]);
    await expect(query(server.url.replace(/:[^:@]*@/, ":wrong@"), "select 1")).rejects.toMatchObject({ code: "28P01" });
    expect((await stat(join(root, "one/password"))).mode & 0o077).toBe(0);
    await server.stop();
    expect(await isRunning(server.process)).toBe(false);
  });
});

test("P2: a server that a killed process has left is adopted, with its data and its port", async () => {
  const code = `import { findPostgres } from ${JSON.stringify(`${dist}binaries.js`)}; import { startPostgres } from ${JSON.stringify(`${dist}server.js`)};
    await startPostgres(await findPostgres(), { directory: ${JSON.stringify(join(root, "one"))}, port: 0, throwaway: true }); process.kill(process.pid, "SIGKILL");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "inherit" });
  expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
  const left = await runningServer(join(root, "one/data"));
  const server = await start({ port: 1 });
  expect(server).toMatchObject({ adopted: true, process: left?.process });
  expect(await query(server.url, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("P3: a stale pid file, also one whose pid is someone else's by now, is not in the way; what was committed is there", async () => {
  const server = await start();
  await query(server.url, "create table kept as select 1 as one");
  await signalProcess(server.process, "SIGKILL");
  await waitForEnd(server.process, 10_000);
  const file = join(root, "one/data/postmaster.pid");
  const { account } = await findPostgres();
  const other = spawn("sleep", ["60"], asAccount(account));
  await writeFile(file, (await readFile(file, "utf8")).replace(/^\d+/, String(other.pid)));
  expect(await runningServer(join(root, "one/data"))).toBeNull();
  const next = await start();
  other.kill();
  expect(next.adopted).toBe(false);
  expect(await query(next.url, "select * from kept")).toEqual([{ one: 1 }]);
});

test("P4: a port in use, a broken configuration and a foreign data directory each say what is wrong", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = holder.address() as { port: number };
  await expect(start({ port })).rejects.toMatchObject({ code: "port_in_use", data: { port } });
  holder.close();
  await expect(start({ settings: { shared_buffers: "lots" } })).rejects.toMatchObject({ code: "postgres_failed", message: expect.stringMatching(/log: .*postgres\.log/) });
  await writeFile(join(root, "one/data/PG_VERSION"), "9.6\n");
  await expect(start()).rejects.toMatchObject({ code: "postgres_failed", data: { why: expect.stringContaining("incompatible") } });
});

test("P4: programs that are absent or cannot run are refused with the reason", async () => {
  await expect(findPostgres(join(root, "absent"))).rejects.toMatchObject({ code: "postgres_not_found", data: { where: join(root, "absent"), why: expect.stringContaining("ENOENT") } });
});

test.skipIf(!isRoot)("P4: a folder the server's user cannot enter is named", async () => {
  await chmod(root, 0o700);
  await expect(start()).rejects.toMatchObject({ code: "unreachable_directory", data: { path: join(root, "one") } });
});

test.skipIf(!isRoot || process.platform !== "linux")("P5: a full disk says so, and with room again it goes on", async (context) => {
  const small = join(root, "small");
  try {
    await mkdir(small);
    run("mount", "-t", "tmpfs", "-o", "size=8m,mode=711", "tmpfs", small);
  } catch {
    return context.skip("this machine does not let us mount");
  }
  try {
    await expect(start({ directory: join(small, "one") })).rejects.toMatchObject({ code: "disk_full" });
    expect(await readdir(join(small, "one"))).not.toContain("data");
    run("mount", "-o", "remount,size=200m", small);
    const server = await start({ directory: join(small, "one") });
    expect(await query(server.url, "select 1 as one")).toEqual([{ one: 1 }]);
    await server.stop();
  } finally {
    run("umount", small);
  }
});

test("P6: the programs are laid out once for callers that come at the same time, and again after one was killed", async () => {
  const caller = (): Promise<unknown[]> => {
    const code = `import { findPostgres } from ${JSON.stringify(`${dist}binaries.js`)}; console.log((await findPostgres()).postgres);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "ignore", "inherit"] });
    return once(child, "exit");
  };
  expect(await Promise.all([caller(), caller(), caller()])).toEqual([[0, null], [0, null], [0, null]]);
  const { postgres } = await findPostgres();
  expect((await readdir(join(postgres, "../../.."))).filter((name) => name.endsWith(".draft"))).toEqual([]);
});

test("P7: settings are written so that they are read back as they were", async () => {
  const settings = { a: "it's", b: 3, c: true, "d.e": "", f: "x # y" };
  expect(parseSettings(settingsText(settings))).toEqual({ a: "it's", b: "3", c: "on", "d.e": "", f: "x # y" });
  expect(parseSettings("# no = 'thing'\n Work_Mem 4MB # small\nport=1\nport = 2\n")).toEqual({ work_mem: "4MB", port: "2" });
  expect(await freePort()).toBeGreaterThan(0);
});
