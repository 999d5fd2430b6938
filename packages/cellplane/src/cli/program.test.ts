import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startServer, type RunningServer, createApp } from "../http/server.ts";
import { handler } from "../http/contract.ts";
import { type TestApi, testApi } from "../http/testing/api.ts";
import { createNote, deleteNote, getNote, listNotes, updateNote } from "../http/testing/notes.ts";
import { registerToken } from "../token/cli.ts";
import { getOperation, type OperationDetail } from "../workflow/api.ts";
import { pino } from "pino";
import { type Cli, flag } from "./command.ts";
import { writeContext } from "./context.ts";
import { differences } from "./differences.ts";
import type { Entry } from "./program.ts";
import { run, type Shell } from "./testing/shell.ts";

function registerNote(cli: Cli): void {
  const note = cli.noun("note");
  cli.verb(note, "list", { summary: "List notes", run: ({ pages }) => pages(listNotes, {}), columns: { NAME: (n) => n.name, TEXT: (n) => n.text }, wide: { GENERATION: (n) => n.generation } });
  cli.verb(note, "describe", { summary: "Show a note", args: { note: "Its name" }, run: ({ args, call }) => call(getNote, { params: args }), columns: { NAME: (n) => n.name, TEXT: (n) => n.text } });
  cli.verb(note, "create", {
    summary: "Create a note", args: { name: "Its name" }, flags: { text: flag.text("What it says"), operation: flag.text("Pretend that this runs") }, mutates: true,
    run: async ({ args, flags, call }) => ({ ...(await call(createNote, { body: { name: args.name, text: flags.text } })), operation: flags.operation ?? null }),
    operation: (answer) => answer.operation,
    columns: { NAME: (n) => n.name },
  });
  cli.verb(note, "update", {
    summary: "Change a note", args: { note: "Its name" }, flags: { text: flag.required(flag.text("What it says")), from: flag.number("Generation") }, mutates: true,
    before: ({ args, call }) => call(getNote, { params: args }),
    run: ({ args, flags, call }) => call(updateNote, { params: args, body: { text: flags.text } }, flags.from === undefined ? {} : { ifMatch: flags.from }),
    columns: { NAME: (n) => n.name, TEXT: (n) => n.text },
  });
  cli.verb(note, "delete", { summary: "Remove a note", args: { note: "Its name" }, mutates: true, confirm: ({ args }) => args.note, run: ({ args, call }) => call(deleteNote, { params: args }) });
  cli.verb(note, "probe", {
    summary: "Say what was understood", args: { "rest...": "Anything" },
    flags: { region: flag.text("A region"), size: flag.bytes("A size"), every: flag.durationMs("A span"), label: flag.pairs("Labels", { short: "l" }), tag: flag.many("Tags"), loud: flag.toggle("Loudly"), colour: flag.choice(["red", "blue"], "A colour") },
    run: ({ args, flags, exitWith }) => {
      if (flags.loud) exitWith(2);
      return { ...flags, rest: args.rest };
    },
  });
}
const entries: Entry[] = [
  { name: "note", summary: "Notes", load: async () => registerNote },
  { name: "token", summary: "Tokens", load: async () => registerToken },
];

let api: TestApi;
let server: RunningServer;
let home: string;
const operations = new Map<string, () => Partial<OperationDetail>>();
const operation = (more: Partial<OperationDetail>): OperationDetail => ({
  id: "op-1", workflow: "note.write", version: 1, subject: "note/x", state: "running", step: "write", ratio: 0.5, message: "writing", waitsFor: null, asked: null, error: null, result: null, parent: null,
  createdAt: "2026-01-01T00:00:00Z", finishedAt: null, steps: [], ...more,
});

beforeAll(async () => {
  api = await testApi();
  const handlers = [...api.handlers, handler(getOperation, async ({ params }) => operation(operations.get(params.operation)?.() ?? {}))];
  server = await startServer(createApp({ store: api.store, tokens: api.tokens, handlers, log: pino({ level: "silent" }) }), { port: 0 });
  home = await mkdtemp(join(tmpdir(), "cellplane-cli-"));
});
afterAll(async () => {
  await server.close(100);
  await api.close();
  await rm(home, { recursive: true, force: true });
});

const as = (role: keyof TestApi["secrets"], more: Record<string, string> = {}): Shell["env"] => ({ CELLPLANE_SERVER: server.url, CELLPLANE_TOKEN: api.secrets[role], ...more });
const note = (words: string, shell: Shell = {}) => run(entries, ["note", ...words.split(" ").filter(Boolean)], { env: as("admin") ?? {}, ...shell });
let serial = 0;
const fresh = () => `c${serial++}`;

describe("C1: data on stdout, everything else on stderr, in the form asked for whoever reads", () => {
  beforeAll(async () => {
    await note("create one --text first");
    await note("create two");
  });

  test("table, wide, name, ndjson, json, yaml", async () => {
    expect((await note("list")).stdout).toBe("NAME  TEXT\none   first\ntwo   -\n");
    expect((await note("list -o wide")).stdout).toBe("NAME  TEXT   GENERATION\none   first  1\ntwo   -      1\n");
    expect((await note("list -o name")).stdout).toBe("one\ntwo\n");
    expect((await note("list -o ndjson")).stdout.trim().split("\n").map((line) => (JSON.parse(line) as { name: string }).name)).toEqual(["one", "two"]);
    const items = [{ name: "one", text: "first", generation: 1 }, { name: "two", text: "", generation: 1 }];
    expect(JSON.parse((await note("list -o json")).stdout)).toEqual(items);
    expect(parse((await note("list -o yaml")).stdout)).toEqual(items);
    expect((await note("describe one")).stdout).toBe("NAME  one\nTEXT  first\n");
    expect(JSON.parse((await note("describe one -o json")).stdout)).toEqual(items[0]);
  });

  test("the same on a terminal", async () => {
    for (const format of ["table", "json", "yaml", "name", "ndjson"]) expect((await note(`list -o ${format}`, { tty: true })).stdout).toBe((await note(`list -o ${format}`)).stdout);
  });

  test("text of others cannot steer the terminal", async () => {
    await api.send("admin", "PATCH", "/v1/notes/two", { text: "\u001b[2Jgone\u0007\nnext" });
    expect((await note("list")).stdout).toBe("NAME  TEXT\none   first\ntwo   \uFFFD[2Jgone\uFFFD next\n");
    expect(JSON.parse((await note("describe two -o json")).stdout)).toMatchObject({ text: "\u001b[2Jgone\u0007\nnext" });
  });
});

describe("C2: an exit code for each kind of end, and a failure says what, why and what to do", () => {
  const cases: [string, string, number, string, Shell?][] = [
    ["nothing to complain about", "list", 0, ""],
    ["not found", "describe nobody", 1, "not_found"],
    ["no server", "list", 1, "server_unreachable", { env: { CELLPLANE_SERVER: "http://127.0.0.1:9", CELLPLANE_TOKEN: "x" } }],
    ["nothing known", "list", 3, "no_context", { env: {} }],
    ["an unknown verb", "lsit", 3, "bad_usage"],
    ["an unknown flag", "list --colour", 3, "bad_usage"],
    ["a missing argument", "describe", 3, "bad_usage"],
    ["one argument too many", "describe a b", 3, "bad_usage"],
    ["a missing flag", "update a", 3, "bad_usage"],
    ["a wrong choice", "list -o csv", 3, "bad_usage"],
    ["a wrong number", "update a --text x --from seven", 3, "bad_usage"],
    ["a wrong URL", "list --server localhost", 3, "bad_usage"],
    ["what the server finds invalid", "create Not_A_Name", 3, "invalid_input"],
    ["a wrong token", "list --token cpt_wrong", 4, "unauthenticated"],
    ["no token", "list", 4, "unauthenticated", { env: { CELLPLANE_SERVER: "HERE" } }],
    ["a role too low", "create x", 4, "forbidden", { env: { CELLPLANE_SERVER: "HERE", CELLPLANE_TOKEN: "VIEWER" } }],
    ["a stale generation", "update stale --text x --from 7", 5, "generation_stale"],
    ["unconfirmed", "delete stale", 3, "not_confirmed"],
    ["changes present", "probe --loud x", 2, ""],
  ];
  beforeAll(() => note("create stale"));
  test.each(cases)("%s", async (_, words, code, errorCode, shell = {}) => {
    const env = shell.env && Object.fromEntries(Object.entries(shell.env).map(([name, value]) => [name, value.replace("HERE", server.url).replace("VIEWER", api.secrets.viewer)]));
    const ended = await note(words, env ? { env } : {});
    expect([ended.code, /code: (\w+)/.exec(ended.stderr)?.[1] ?? ""]).toEqual([code, errorCode]);
    expect(ended.stderr).toMatch(errorCode ? /^error: .+\n(.*\n)*? {2}fix: .+\n {2}code: \w+/ : /^$/);
    expect(errorCode ? ended.stdout : "").toBe("");
  });

  test("an answer of the API is told with its trace, each issue on its line", async () => {
    const { stderr } = await note("create Not_A_Name");
    expect(stderr).toMatch(/trace: [0-9a-f]{32}/);
    expect(stderr).toContain("name: ");
  });

  test.each([["a page", () => new Response("<html>hello</html>")], ["a failing proxy", () => new Response("bad gateway", { status: 502 })], ["a redirect", () => Response.redirect("http://127.0.0.1:9/")]])("something else answers: %s", async (_, answer) => {
    const other = await startServer({ fetch: answer }, { port: 0 });
    const ended = await note("list", { env: { CELLPLANE_SERVER: other.url, CELLPLANE_TOKEN: "x" } });
    await other.close(0);
    expect([ended.code, ended.stderr]).toEqual([1, expect.stringMatching(/code: (unexpected_answer|server_unreachable)/)]);
  });

  test("a slip is answered with what was meant", async () => {
    expect((await note("lsit")).stderr).toContain("list");
  });
});

describe("C3: flag > CELLPLANE_* > project file > context > default", () => {
  const probe = async (words: string, env: Record<string, string> = {}, cwd = home) => JSON.parse((await run(entries, ["note", "probe", "-o", "json", ...words.split(" ").filter(Boolean)], { env, cwd })).stdout) as Record<string, unknown>;

  test("flags of every kind", async () => {
    expect(await probe("--region eu --size 1.5MiB --every 2m -l a=b --label c=d=e --tag x --tag y --loud --colour red r1 r2")).toEqual({
      region: "eu", size: 1_572_864, every: 120_000, label: { a: "b", c: "d=e" }, tag: ["x", "y"], loud: true, colour: "red", rest: ["r1", "r2"],
    });
    expect(await probe("r")).toEqual({ label: {}, tag: [], loud: false, rest: ["r"] });
  });

  test("each source gives way to the one before it", async () => {
    const project = join(home, "project", "deep");
    await mkdir(project, { recursive: true });
    await writeFile(join(home, "project", ".cellplane.yaml"), "region: from-project\nsize: 1KiB\nloud: true\ntag: [a, b]\n");
    const env = { CELLPLANE_REGION: "from-variable" };
    expect((await probe("r", {}, project))["region"]).toBe("from-project");
    expect((await probe("r", env, project))["region"]).toBe("from-variable");
    expect((await probe("--region from-flag r", env, project))["region"]).toBe("from-flag");
    expect(await probe("r", {}, project)).toMatchObject({ size: 1024, loud: true, tag: ["a", "b"] });
    const wrong = await run(entries, ["note", "probe", "r"], { env: { CELLPLANE_SIZE: "much" }, cwd: home });
    expect([wrong.code, wrong.stderr]).toEqual([3, expect.stringContaining("CELLPLANE_SIZE much: expected a size")]);
  });

  test("server and token from the context of this machine's fleet or one's own, and never a token to a server it is not for", async () => {
    const stateDir = join(home, "state");
    const file = join(stateDir, "context.json");
    await writeContext(file, { server: server.url, token: api.secrets.viewer });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const list = async (words: string, env: Record<string, string> = {}) => (await run(entries, ["note", "list", ...words.split(" ").filter(Boolean)], { env, cwd: home })).code;
    expect(await list(`--state-dir ${stateDir}`)).toBe(0);
    expect(await list("", { CELLPLANE_STATE_DIR: stateDir })).toBe(0);
    expect(await list(`--context ${file}`)).toBe(0);
    await writeContext(join(home, ".config", "cellplane", "context.json"), { server: server.url, token: "cpt_other" });
    expect(await list("", { HOME: home })).toBe(4);
    expect(await list("", { HOME: home, CELLPLANE_TOKEN: api.secrets.viewer })).toBe(0);
    expect(await list(`--state-dir ${stateDir} --server ${server.url}`)).toBe(0);
    const elsewhere = await startServer({ fetch: (request: Request) => Response.json({ items: [{ name: request.headers.get("authorization") ?? "no token", text: "", generation: 1 }], nextCursor: null }) }, { port: 0 });
    const told = await run(entries, ["note", "list", "--state-dir", stateDir, "--server", elsewhere.url, "-o", "name"], { cwd: home });
    await elsewhere.close(0);
    expect(told.stdout).toBe("no token\n");
    await writeFile(file, "{");
    const broken = await run(entries, ["note", "list", "--state-dir", stateDir]);
    expect([broken.code, broken.stderr]).toEqual([3, expect.stringContaining("context_invalid")]);
  });
});

describe("C4: what cannot be taken back asks for its name", () => {
  test("on a terminal; elsewhere it wants --yes", async () => {
    const name = fresh();
    await note(`create ${name}`);
    expect((await note(`delete ${name}`, { typed: "another" })).code).toBe(3);
    expect((await note(`delete ${name}`, { tty: true, typed: "" })).code).toBe(3);
    expect((await note(`delete ${name} --dry-run`)).code).toBe(0);
    const asked = await note(`delete ${name}`, { typed: name });
    expect([asked.code, asked.stdout, asked.stderr]).toEqual([0, "", expect.stringContaining(`Type ${name}`)]);
    await note(`create ${name}`);
    expect((await note(`delete ${name} --yes`)).code).toBe(0);
    await note(`create ${name}`);
    expect((await note(`delete ${name}`, { env: { ...as("admin"), CI: "1" }, typed: name })).code).toBe(3);
  });
});

describe("C5: a dry run and a difference change nothing", () => {
  test("--dry-run answers what would be; --diff tells the difference on stderr", async () => {
    const name = fresh();
    const dry = await note(`create ${name} --text hello --dry-run --diff -o json`);
    expect(JSON.parse(dry.stdout)).toMatchObject({ name, text: "hello" });
    expect(dry.stderr).toBe(`+ name: "${name}"\n+ text: "hello"\n+ generation: 1\ndry run: nothing was changed\n`);
    expect((await note(`describe ${name}`)).code).toBe(1);
    await note(`create ${name} --text hello`);
    const changed = await note(`update ${name} --text bye --diff -o name`);
    expect([changed.stdout, changed.stderr]).toEqual([`${name}\n`, '~ text: "hello" → "bye"\n~ generation: 1 → 2\n']);
    expect((await note(`describe ${name} -o json`)).stdout).toContain("bye");
  });

  test("of trees", () => {
    expect(differences({ a: 1, b: { c: [1, 2] }, d: 1 }, { a: 2, b: { c: [1, 3, 4] }, e: { f: null, g: 1 } })).toEqual(["~ a: 1 → 2", "~ b.c.1: 2 → 3", "+ b.c.2: 4", "- d: 1", "+ e.g: 1"]);
  });

  test("--reason and --idempotency-key reach the server", async () => {
    const name = fresh();
    const words = ["note", "create", name, "--reason", "wegen Ümbau", "--idempotency-key", `key-${name}`];
    expect((await run(entries, words, { env: as("admin") ?? {} })).code).toBe(0);
    expect((await run(entries, words, { env: as("admin") ?? {} })).code).toBe(0);
    expect((await run(entries, [...words, "--text", "else"], { env: as("admin") ?? {} })).code).toBe(5);
    expect((await api.audit.list({ subject: `note/${name}` }, null, 10)).map((entry) => entry.reason)).toEqual(["wegen Ümbau"]);
  });
});

describe("C6: --wait ends as the operation does", () => {
  const error = { code: "cell_not_healthy", message: "it was not well", fix: "mend it" };
  test.each([
    ["succeeded", { state: "succeeded" }, 0, ""],
    ["failed", { state: "failed", error }, 1, "operation_failed"],
    ["undone", { state: "undone", error }, 7, "operation_undone"],
    ["undo failed", { state: "undo_failed", error }, 1, "operation_failed"],
    ["refused by a guard", { state: "failed", error: { ...error, code: "cell_has_tenants" } }, 8, "operation_refused"],
    ["parked", { state: "parked", waitsFor: "a person" }, 1, "operation_parked"],
  ] as const)("%s", async (_, last, code, errorCode) => {
    const id = `op-${fresh()}`;
    let looks = 0;
    operations.set(id, () => (looks++ < 2 ? { id } : { id, ...last }));
    const ended = await note(`create ${fresh()} --operation ${id} --wait`);
    expect([ended.code, /code: (\w+)/.exec(ended.stderr)?.[1] ?? ""]).toEqual([code, errorCode]);
    expect(ended.stderr).toContain(id);
  });

  test("out of time: 6, with the id, and the operation goes on", async () => {
    operations.set("op-long", () => ({ id: "op-long" }));
    const name = fresh();
    const ended = await note(`create ${name} --operation op-long --wait --timeout 300ms -o json`);
    expect([ended.code, JSON.parse(ended.stdout)]).toEqual([6, expect.objectContaining({ name, operation: "op-long" })]);
    expect(ended.stderr).toContain("cellplane operation watch");
  });

  test("Ctrl-C: 130, with the id, and the operation goes on", async () => {
    const ended = await note(`create ${fresh()} --operation op-long --wait`, { interrupt: (press) => setTimeout(press, 300) });
    expect([ended.code, ended.stderr]).toEqual([130, expect.stringContaining("detached; op-long goes on")]);
  });

  test("without --wait it is only told", async () => {
    expect((await note(`create ${fresh()} --operation op-long`)).code).toBe(0);
  });
});

test("C7: a secret is printed once, on stdout, and nowhere else", async () => {
  const { code, stdout, stderr } = await run(entries, ["token", "create", "by-cli", "--role", "viewer", "-o", "json"], { env: as("admin") ?? {} });
  const { secret } = JSON.parse(stdout) as { secret: string };
  expect([code, stderr]).toEqual([0, ""]);
  expect((await run(entries, ["token", "whoami"], { env: { CELLPLANE_SERVER: server.url, CELLPLANE_TOKEN: secret } })).stdout).toBe("NAME  by-cli\nROLE  viewer\n");
  expect((await run(entries, ["token", "revoke", "by-cli", "--yes"], { env: as("admin") ?? {} })).stdout).toContain("revoked");
});

test("C8: colours and bars only where someone sees them, and never against NO_COLOR", async () => {
  expect((await note("describe nobody", { tty: true })).stderr).toContain("\u001b[31m");
  expect((await note("describe nobody", { tty: true, env: { ...as("admin"), NO_COLOR: "1" } })).stderr).not.toContain("\u001b");
  expect((await note("describe nobody")).stderr).not.toContain("\u001b");
});

test("help goes to stdout and ends well; a noun without a verb is shown its help and ends with 3", async () => {
  for (const words of [["--help"], ["help"], ["note", "--help"], ["help", "note", "list"], ["note", "create", "-h"], ["--version"]]) {
    const { code, stdout, stderr } = await run(entries, words);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).not.toBe("");
  }
  const bare = await run(entries, ["note"]);
  expect([bare.code, bare.stdout]).toEqual([3, ""]);
  expect(bare.stderr).toContain("Usage: cellplane note");
});
