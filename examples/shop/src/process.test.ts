import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { secret, shopDatabase } from "./testing/shop.ts";
import { startRouter, type TestRouter } from "./testing/router.ts";
import type { Receipt } from "./traffic/receipt.ts";

/** Long enough for a machine with much else to do. */
const soon = { timeout: 30_000 };
let folder = "";
let database: Awaited<ReturnType<typeof shopDatabase>>;
let router: TestRouter;
let port = 0;
const children = new Set<ChildProcess>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellplane-shop-"));
  database = await shopDatabase();
  router = await startRouter({ port: () => port });
  await writeFile(join(folder, "tenants"), "acme\nglobex\ninitech\n");
});
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
  await router.stop();
  await database.drop();
  await rm(folder, { recursive: true });
});

function start(script: "app" | "traffic", args: string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(process.execPath, [fileURLToPath(new URL(`../dist/${script}.js`, import.meta.url)), ...args], { env: { PATH: process.env["PATH"], ...env }, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  return child;
}

async function startApp(env: Record<string, string> = {}): Promise<{ app: ChildProcess; port: number }> {
  const app = start("app", [], { PORT: "0", DATABASE_URL: database.url, CELLPLANE_CELL: "eu-1", CELLPLANE_REGION: "eu", CELLPLANE_STAMP_SECRET: secret, ...env });
  if (!app.stdout) throw new Error("the app has no stdout");
  const [line] = (await once(createInterface({ input: app.stdout }), "line")) as [string];
  return { app, port: (JSON.parse(line) as { listening: { port: number } }).listening.port };
}

const exitOf = async (child: ChildProcess): Promise<{ code: number | null; out: string; err: string }> => {
  const text = async (stream: ChildProcess["stdout"]) => {
    let all = "";
    for await (const chunk of stream ?? []) all += String(chunk);
    return all;
  };
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]);
  return { code: code as number | null, out, err };
};

const trafficArgs = () => ["--target", router.url, "--header", "x-tenant", "--tenants", join(folder, "tenants"), "--journal", join(folder, "journal"), "--rate", "80", "--in-flight", "4", "--reads", "0.3", "--every", "1"];

test("S3, T5: an app killed again and again loses nothing it acknowledged, and the generator says so", async () => {
  let { app, port: first } = await startApp();
  port = first;
  const traffic = start("traffic", [...trafficArgs(), "--check", "--json"]);
  const ended = exitOf(traffic);
  for (let kills = 0; kills < 5; kills++) {
    const before = router.requests;
    await expect.poll(() => router.requests, soon).toBeGreaterThan(before + 40);
    const gone = once(app, "exit");
    app.kill("SIGKILL");
    await gone;
    ({ app, port } = await startApp());
  }
  traffic.kill("SIGTERM");
  const { code, out, err } = await ended;
  const { seen, verdict, kept } = JSON.parse(out) as Receipt;
  expect(verdict).toMatchObject({ lost: 0, duplicated: 0, ghosts: 0, misplaced: 0, unexplained: 0, ledgersOff: 0, tenantsUnverified: 0, tenantsChecked: 3, examples: [] });
  expect({ code, kept }).toEqual({ code: 0, kept: true });
  expect(verdict?.writesChecked).toBeGreaterThan(100);
  expect(seen?.rejected).toBeGreaterThan(0);
  expect(err).toMatch(/requests\/s to 3 tenants: \d+ ok/);
});

test("S6: an app asked to stop while another takes over answers all it was sent, exits with 0 and leaves no connection", async () => {
  const one = await startApp({ CELLPLANE_VERSION: "one" });
  port = one.port;
  const traffic = start("traffic", [...trafficArgs(), "--check", "--json", "--failed-max", "0"]);
  const ended = exitOf(traffic);
  await expect.poll(() => router.requests, soon).toBeGreaterThan(100);
  const two = await startApp({ CELLPLANE_VERSION: "two" });
  port = two.port;
  const exited = exitOf(one.app);
  one.app.kill("SIGTERM");
  expect(await exited).toMatchObject({ code: 0, err: "" });
  const before = router.requests;
  await expect.poll(() => router.requests, soon).toBeGreaterThan(before + 50);
  traffic.kill("SIGINT");
  const { code, out } = await ended;
  expect((JSON.parse(out) as Receipt).seen?.failures).toEqual({});
  expect(code).toBe(0);
  const last = exitOf(two.app);
  two.app.kill("SIGINT");
  expect((await last).code).toBe(0);
  await expect.poll(async () => (await database.query("select count(*)::int as n from pg_stat_activity where datname = current_database() and application_name = 'shop'")).rows[0], soon).toEqual({ n: 0 });
});

test("T5: the command ends with 1 when a promise is broken, and prints which", async () => {
  ({ port } = await startApp());
  expect((await exitOf(start("traffic", [...trafficArgs(), "--duration", "2.5"]))).code).toBe(0);
  const checkArgs = ["check", "--journal", join(folder, "journal"), "--patience", "1"];
  expect(await exitOf(start("traffic", checkArgs))).toMatchObject({ code: 0, out: expect.stringContaining("every promise kept") });
  await database.query("delete from event where (tenant_id, id) = (select tenant_id, id from event where tenant_id = 'globex' limit 1)");
  const { code, out } = await exitOf(start("traffic", checkArgs));
  expect(code).toBe(1);
  expect(out).toMatch(/^lost +1 /m);
  expect(out).toMatch(/BROKEN PROMISES/);
  expect(out).toMatch(/lost: \w+-\w+ of globex/);
});

test("T4, T5: a generator that was killed leaves what can still be checked", async () => {
  ({ port } = await startApp());
  const traffic = start("traffic", trafficArgs());
  const ended = exitOf(traffic);
  await expect.poll(() => router.requests, soon).toBeGreaterThan(150);
  traffic.kill("SIGKILL");
  await ended;
  const { code, out } = await exitOf(start("traffic", ["check", "--journal", join(folder, "journal"), "--json"]));
  expect({ code, verdict: (JSON.parse(out) as Receipt).verdict }).toMatchObject({ code: 0, verdict: { lost: 0, unexplained: 0, tenantsChecked: 3 } });
});

test("wrong usage is said and ends with 3; an app without its cell does not start", async () => {
  const cases = [["--rate", "0", "--tenants", "x"], ["--nonsense"], ["dance"], [], ["check"], ["--tenants", "x", "--check"], ["--tenants", "x", "--reads", "many"]];
  const answers = await Promise.all(cases.map(async (args) => exitOf(start("traffic", args))));
  expect(answers.map(({ code }) => code)).toEqual(cases.map(() => 3));
  for (const { err } of answers) expect(err).toMatch(/--help/);
  const { code, err } = await exitOf(start("app", [], { DATABASE_URL: database.url }));
  expect(code).not.toBe(0);
  expect(err).toMatch(/CELLPLANE_CELL is not set/);
});
