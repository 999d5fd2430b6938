import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { registerClaim } from "../claim/cli.ts";
import { type Entry, runCli } from "../cli/program.ts";
import { startServer } from "../http/server.ts";
import { registerPlacement } from "../placement/cli.ts";
import { type TestFleet, testFleet } from "../placement/testing/fleet.ts";
import { registerTenant } from "./cli.ts";
import type { Tenant } from "./model.ts";

const entries: Entry[] = [
  { name: "tenant", summary: "Tenants", load: async () => registerTenant },
  { name: "placement", summary: "Placement", load: async () => registerPlacement },
  { name: "claim", summary: "Claims", load: async () => registerClaim },
];

let fleet: TestFleet;
let server: Awaited<ReturnType<typeof startServer>>;
let directory: string;
beforeEach(async () => {
  fleet = await testFleet([{ name: "eu-1", capacity: { tenants: 5000 } }, { name: "eu-2", state: "cordoned" }]);
  server = await startServer(fleet.app, { port: 0 });
  directory = await mkdtemp(join(tmpdir(), "cellplane-tenant-"));
  fleet.atEnd(async () => {
    await server.close(0);
    await rm(directory, { recursive: true });
  });
});
afterEach(() => fleet.close());

interface Ran {
  code: number;
  out: string;
  err: string;
}

/** One command line, with an interrupt after `interruptAfterMs` or when `interruptWhen` is seen on stderr. */
async function run(words: string[], { role = "admin" as const, stopAt = "" } = {}): Promise<Ran> {
  const ran: Ran = { code: 0, out: "", err: "" };
  let interrupt = (): void => undefined;
  ran.code = await runCli(words, entries, "test", {
    env: { CELLPLANE_TOKEN: fleet.secrets[role], CELLPLANE_SERVER: server.url, CI: "1", HOME: directory },
    cwd: directory,
    stdin: process.stdin,
    stdout: { write: (text) => void (ran.out += text) },
    stderr: {
      write: (text) => {
        ran.err += text;
        if (stopAt !== "" && ran.err.includes(stopAt)) interrupt();
      },
    },
    onInterrupt: (call) => {
      interrupt = call;
      return () => undefined;
    },
  });
  return ran;
}
const file = async (name: string, text: string): Promise<string> => {
  await writeFile(join(directory, name), text);
  return join(directory, name);
};
const names = async (): Promise<string[]> => (await run(["tenant", "list", "-o", "name"])).out.trim().split("\n").filter(Boolean);

describe("the command line of tenants", () => {
  test("creates, shows, changes and explains", async () => {
    expect(await run(["tenant", "create", "acme", "--region", "eu", "--host", "acme.example", "--label", "plan=pro", "--connections", "2", "--claim", "email=Ann@acme.example", "-o", "name"])).toMatchObject({ code: 0, out: "acme\n" });
    const described = (await run(["tenant", "describe", "acme"])).out;
    for (const part of [/NAME +acme/, /CELL +eu-1/, /KEYS +host:acme.example/, /LABELS +plan=pro/, /LOAD +connections=2/, /CLAIMS +email:hmac:[0-9a-f]{32} \(confirmed\)/, /CELLS +eu-1 at epoch 1/]) expect(described).toMatch(part);
    const dry = await run(["tenant", "create", "zeta", "--dry-run"]);
    expect(dry).toMatchObject({ code: 0, err: expect.stringContaining("nothing was changed") });
    expect(dry.out).toMatch(/BECAUSE +it is the only cell that fits\nREJECTED +eu-2: is cordoned/);
    expect(await run(["placement", "explain", "zeta", "--region", "us"])).toMatchObject({ code: 0, out: expect.stringContaining("is refused\n  because zeta must stay in region us") });
    expect(await run(["tenant", "create", "zeta", "--region", "mars"])).toMatchObject({ code: 8, err: expect.stringContaining("residency_unsatisfiable") });
    expect(await run(["tenant", "create", "Zeta"])).toMatchObject({ code: 3 });
    expect(await run(["tenant", "create", "acme"])).toMatchObject({ code: 5, err: expect.stringContaining("already_exists") });
    expect(await run(["tenant", "update", "acme", "--tier", "gold", "--remove-label", "plan", "--label", "vip=", "--diff"])).toMatchObject({ code: 0, err: expect.stringContaining("gold") });
    expect(JSON.parse((await run(["tenant", "list", "-l", "vip,!plan", "-o", "json"])).out)).toMatchObject([{ name: "acme", tier: "gold" }]);
    expect(await run(["tenant", "suspend", "acme"])).toMatchObject({ code: 0, out: expect.stringContaining("suspended") });
    expect(await run(["tenant", "delete", "acme"])).toMatchObject({ code: 3, err: expect.stringContaining("--yes") });
    expect(await run(["tenant", "delete", "acme", "--yes"])).toMatchObject({ code: 0, out: expect.stringContaining("deleting") });
    expect(await names()).toEqual(["acme"]);
  });

  test("P7: waits for a cell that is made, and shows the tenant in it", async () => {
    fleet.settings.policy.blueprint = "app";
    fleet.startRunner();
    const made = await run(["tenant", "create", "acme", "--dedicated", "--region", "us", "--wait"]);
    expect(made).toMatchObject({ code: 0, out: expect.stringMatching(/STATE +active\nCELL +only-acme\n[^]*BECAUSE +its data stay in region us/) });
    expect((await run(["tenant", "delete", "acme", "--yes", "--wait"])).code).toBe(0);
    expect(await names()).toEqual([]);
  });

  test("T8: a generated API key is printed once; neither it nor one from a file reaches the server", async () => {
    await run(["tenant", "create", "acme"]);
    const added = await run(["tenant", "key", "add", "acme", "--kind", "apikey", "--generate", "-o", "json"]);
    const { apiKey, keys } = JSON.parse(added.out) as Tenant & { apiKey: string };
    expect(apiKey).toMatch(/^cpk_[\w-]{43}$/);
    expect(keys).toEqual([{ kind: "apikey", value: createHash("sha256").update(apiKey).digest("hex") }]);
    const clear = "a-secret-key-of-a-customer";
    expect((await run(["tenant", "key", "add", "acme", "--kind", "apikey", "--secret-file", await file("key", `${clear}\n`)])).code).toBe(0);
    expect(await fleet.store.query("select value from tenant_key where value = $1", [createHash("sha256").update(clear).digest("hex")])).toHaveLength(1);
    const [all] = await fleet.store.query<{ text: string }>("select concat((select string_agg(a::text, '') from audit a), (select string_agg(e::text, '') from event e), (select string_agg(k::text, '') from tenant_key k), (select string_agg(i::text, '') from idempotency i)) as text");
    expect(all?.text).toContain("addTenantKey");
    for (const secret of [apiKey, clear]) expect(all?.text).not.toContain(secret);
    expect(await run(["tenant", "key", "add", "acme", "--kind", "apikey", "--value", clear])).toMatchObject({ code: 3 });
    expect(await run(["tenant", "key", "add", "acme", "--kind", "apikey", "--secret-file", await file("short", "hunter2")])).toMatchObject({ code: 3, err: expect.stringContaining("at least 20 characters") });
    expect(await run(["tenant", "key", "add", "acme", "--kind", "host"])).toMatchObject({ code: 3 });
    expect(await run(["tenant", "key", "add", "acme", "--kind", "host", "--value", "acme.example", "--generate"])).toMatchObject({ code: 3 });
    expect(await run(["tenant", "key", "remove", "acme", "--kind", "apikey", "--value", keys[0]?.value ?? ""])).toMatchObject({ code: 0 });
  });

  test("claims are reserved, confirmed, found and reconciled", async () => {
    await run(["tenant", "create", "acme"]);
    expect((await run(["claim", "reserve", "acme", "login=Ann", "email=ann@acme.example", "--owner", "signup-1", "--ttl", "5m"])).code).toBe(0);
    expect(await run(["claim", "reserve", "other", "login=ann", "--owner", "signup-2"])).toMatchObject({ code: 5, err: expect.stringContaining("claim_taken") });
    expect((await run(["claim", "confirm", "acme", "login=ann", "--owner", "signup-1"])).out).toMatch(/login +ann +acme +confirmed/);
    expect((await run(["claim", "find", "email=ANN@acme.example", "-o", "json"])).out).toContain("acme");
    expect((await run(["claim", "find", "login=bob"])).code).toBe(1);
    const list = await file("logins.ndjson", `{"tenant":"acme","kind":"login","value":"bob"}\n\n{"tenant":"acme","kind":"email"}\n`);
    expect((await run(["claim", "reconcile", "-f", list, "--taken-at", new Date().toISOString(), "-o", "json"])).out).toContain('"adopted": [\n      "bob"');
    expect((await run(["claim", "list", "--kind", "login", "-o", "name"])).out).toBe("login=bob\n");
    expect(await run(["claim", "reconcile", "-f", await file("bad", '{"tenant":"Acme"}'), "--taken-at", "2031-01-01T00:00:00Z"])).toMatchObject({ code: 3, err: expect.stringContaining("bad:1") });
    expect((await run(["claim", "release", "acme", "login=bob", "-o", "name"])).out).toBe("login:bob\n");
  });
});

describe("import", () => {
  test("T7: of NDJSON with bad rows, the good ones are created and each bad one is named with its line", async () => {
    const path = await file("tenants.ndjson", ['{"name":"a","keys":[{"kind":"host","value":"a.example"}]}', "", '{"name":"B"}', "{nonsense", '{"name":"c","keys":[{"kind":"host","value":"a.example"}]}', '{"name":"d","region":"mars"}', '{"name":"e"}'].join("\n"));
    const first = await run(["tenant", "import", "-f", path, "-o", "json"]);
    expect(first.code).toBe(1);
    expect(JSON.parse(first.out)).toMatchObject({ created: 2, unchanged: 0, failed: 4, failures: expect.arrayContaining([expect.objectContaining({ line: 5, name: "c", code: "key_taken" })]) });
    for (const told of ["tenants.ndjson:3: B: ", "tenants.ndjson:4: this is no JSON", "tenants.ndjson:6: d: "]) expect(first.err).toContain(told);
    expect(JSON.parse((await run(["tenant", "import", "-f", path, "-o", "json"])).out)).toMatchObject({ created: 0, unchanged: 2, failed: 4 });
    expect(await names()).toEqual(["a", "e"]);
  });

  test("T7: of CSV with every kind of column", async () => {
    const path = await file("tenants.csv", `\uFEFFname,tier,dedicated,label.plan,key.host,claim.company,load.connections\r\nacme,gold,false,"a ""b"", c",acme.example www.acme.example,"Acme\nInc",0.5\r\n\r\nzeta,,,,,,\r\nbad,x\r\n`);
    expect(await run(["tenant", "import", "-f", path, "-o", "json"])).toMatchObject({ code: 1, err: expect.stringContaining("tenants.csv:6: 2 fields where the first line has 7") });
    expect(await names()).toEqual(["zeta"]);
    const good = await file("good.csv", `name,tier,dedicated,label.plan,key.host,claim.company,load.connections\nacme,gold,false,"a ""b"", c",acme.example www.acme.example,Acme Inc,0.5`);
    expect((await run(["tenant", "import", "-f", good])).code).toBe(0);
    expect(JSON.parse((await run(["tenant", "describe", "acme", "-o", "json"])).out)).toMatchObject({
      tier: "gold", labels: { plan: 'a "b", c' }, keys: [{ kind: "host", value: "acme.example" }, { kind: "host", value: "www.acme.example" }], claims: [{ kind: "company", value: "acme inc" }], load: { connections: 0.5 },
    });
    expect(await run(["tenant", "import", "-f", await file("odd.csv", "name,colour\na,red\n")])).toMatchObject({ code: 1, err: expect.stringContaining("there is no column colour") });
    expect(await run(["tenant", "import", "-f", join(directory, "missing.csv")])).toMatchObject({ code: 3 });
    expect(await run(["tenant", "import", "-f", await file("empty.csv", "")])).toMatchObject({ code: 0 });
  });

  test("T7: an import that was interrupted is run again and ends with the same tenants", async () => {
    const rows = Array.from({ length: 3000 }, (_, i) => JSON.stringify({ name: `t-${i}`, keys: [{ kind: "host", value: `t-${i}.example` }] }));
    const path = await file("many.ndjson", rows.join("\n"));
    const stopping = run(["tenant", "import", "-f", path], { stopAt: "created" });
    expect(await stopping).toMatchObject({ code: 130 });
    const before = (await names()).length;
    expect(before).toBeGreaterThan(0);
    expect(before).toBeLessThan(3000);
    const again = JSON.parse((await run(["tenant", "import", "-f", path, "-o", "json"])).out) as { created: number; unchanged: number };
    expect(again).toMatchObject({ created: 3000 - before, unchanged: before });
    expect((await names()).length).toBe(3000);
    expect(await fleet.counters()).toMatchObject([{ used: [3000, 0, 0], summed: [3000, 0, 0] }, { used: [0, 0, 0] }]);
  });

  test("T7: a dry run creates nothing", async () => {
    const path = await file("some.ndjson", '{"name":"a"}\n{"name":"b","region":"mars"}');
    expect(await run(["tenant", "import", "-f", path, "--dry-run"])).toMatchObject({ code: 1, err: expect.stringContaining("1 created, 0 unchanged, 1 failed") });
    expect(await names()).toEqual([]);
  });
});
