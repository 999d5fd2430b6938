import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { testDatabase } from "../../../../tests/database.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { withoutSecrets } from "./model.ts";
import { type AuditStore, openAuditStore, recordAudit } from "./store.ts";

let db: Awaited<ReturnType<typeof testDatabase>>;
let store: Store;
let audit: AuditStore;

beforeAll(async () => {
  db = await testDatabase();
  store = openStore(db.url, { connectionsMax: 8 });
  await applySchema(store);
  audit = openAuditStore(store);
});
afterAll(async () => {
  await store.close();
  await db.drop();
});

const emptied = ["truncate audit", "update audit_head set seq = 0, hash = sha256('')"];
beforeEach(() => tamper(...emptied));

const entry = (subject: string, request: unknown = { name: subject }) => ({
  at: "2026-03-01T12:00:00.123Z", actor: "ci", role: "operator", action: "createCell", subject, reason: null, trace: "0".repeat(32), request, result: { name: subject, ratio: 0.1, list: [1, { b: 1, a: null }] },
});
const append = (...subjects: string[]) => store.transaction(async (tx) => subjects.forEach((subject) => recordAudit(tx, entry(subject))));
/** As someone does who owns the database: past the trigger. */
const tamper = (...statements: string[]) =>
  store.transaction(async (tx) => {
    await tx.query("alter table audit disable trigger audit_append_only");
    for (const sql of statements) await tx.query(sql);
    await tx.query("alter table audit enable trigger audit_append_only");
  });

test("A1: the log holds, whoever writes at once, one by one or many together", async () => {
  await Promise.all(Array.from({ length: 40 }, (_, i) => append(...Array.from({ length: i % 4 }, (_, k) => `cell/c${i}-${k}`))));
  const { n } = (await store.query<{ n: number }>("select count(*) as n from audit"))[0] ?? { n: 0 };
  expect(n).toBe(60);
  expect(await audit.verify(null)).toMatchObject({ ok: true, verified: 60, head: { seq: 60 }, firstBad: null });
});

test("A2: what rolls back leaves no entry and no gap", async () => {
  await append("cell/a");
  await expect(
    store.transaction(async (tx) => {
      recordAudit(tx, entry("cell/b"));
      throw new Error("no");
    }),
  ).rejects.toThrow("no");
  await store.transaction(async (tx) => recordAudit(tx, entry("cell/c")), { dryRun: true });
  await append("cell/d");
  expect((await audit.list({}, null, 10)).map((e) => `${e.seq} ${e.subject}`)).toEqual(["2 cell/d", "1 cell/a"]);
  expect((await audit.verify(null)).ok).toBe(true);
});

test.each(["update audit set actor = 'me'", "delete from audit", "truncate audit"])("A3: the database refuses: %s", async (sql) => {
  await append("cell/a");
  await expect(store.query(sql)).rejects.toThrow("append-only");
});

describe("A4: verify names the first entry that is not as it was written", () => {
  beforeEach(() => append(...Array.from({ length: 9 }, (_, i) => `cell/c${i + 1}`)));

  const columns = { at: "now()", actor: "'me'", role: "'admin'", action: "'x'", subject: "'cell/x'", reason: "'because'", trace: "'1'", request: "'{}'", result: "null", hash: "sha256('x')", digest: "sha256('x')" };
  test.each(Object.entries(columns).filter(([column]) => column !== "digest"))("edited: %s", async (column, value) => {
    await tamper(`update audit set ${column} = ${value} where seq = 5`);
    expect((await audit.verify(null)).firstBad).toMatchObject({ seq: 5, why: expect.stringContaining("changed") as string });
  });

  test.each([
    ["deleted in the middle", ["delete from audit where seq = 4"], 4],
    ["deleted at the start", ["delete from audit where seq = 1"], 1],
    ["truncated at the end", ["delete from audit where seq > 7"], 8],
    ["emptied", ["truncate audit"], 1],
    ["two entries swapped", ["update audit set seq = 100 where seq = 3", "update audit set seq = 3 where seq = 6", "update audit set seq = 6 where seq = 100"], 3],
    ["renumbered over a deleted one", ["delete from audit where seq = 4", "update audit set seq = seq - 1 where seq > 4"], 4],
    ["one inserted at the end, past the chain", ["insert into audit select 10, at, actor, role, action, subject, reason, trace, request, result, digest, hash from audit where seq = 9"], 10],
    ["head moved back", ["update audit_head set seq = 7, hash = (select hash from audit where seq = 7)"], 8],
    ["head with another hash", ["update audit_head set hash = sha256('x')"], 9],
  ])("%s", async (_, statements, seq) => {
    await tamper(...(statements as string[]));
    expect((await audit.verify(null)).firstBad?.seq).toBe(seq);
  });

  test("a log rewritten as a whole is told by a head noted before", async () => {
    const noted = (await audit.verify(null)).head;
    expect((await audit.verify(noted)).ok).toBe(true);
    await tamper(...emptied);
    await append(...Array.from({ length: 9 }, (_, i) => `cell/forged${i}`));
    expect((await audit.verify(null)).ok).toBe(true);
    expect((await audit.verify(noted)).firstBad?.seq).toBe(9);
    await tamper(...emptied);
    expect((await audit.verify(noted)).firstBad?.seq).toBe(1);
  });
});

describe("A5: no secret is written down", () => {
  test("by name and by form", () => {
    expect(withoutSecrets({ env: { DB_PASSWORD: "p", API_TOKEN: "t", LOG: "info", DATABASE_URL: "postgres://app:hunter2@db:5432/x" }, keys: [{ kind: "apikey", value: "abc" }], secret: "" })).toEqual({
      env: { DB_PASSWORD: "•••", API_TOKEN: "•••", LOG: "info", DATABASE_URL: "postgres://app:•••@db:5432/x" }, keys: [{ kind: "apikey", value: "abc" }], secret: "",
    });
  });

  test("nor who someone is: people may ask to be forgotten, and the log is kept", () => {
    expect(withoutSecrets({ claims: [{ kind: "email", value: "ada.lovelace@mail.example.com" }] })).toEqual({ claims: [{ kind: "email", value: "•••@mail.example.com" }] });
    expect(withoutSecrets("by ada@example.com, for bob+x@sub.example.org")).toBe("by •••@example.com, for •••@sub.example.org");
  });

  test("in no time, whatever is sent", () => {
    const startMs = performance.now();
    for (const bomb of ["x", "a:", "//", "//:", "://a:", "//a:b", "a@", "@a.", "a@a."]) withoutSecrets(bomb.repeat(1_000_000 / bomb.length));
    expect(performance.now() - startMs).toBeLessThan(3000);
  });

  test("in the rows, also when the value is large", async () => {
    await store.transaction(async (tx) => recordAudit(tx, entry("cell/a", { env: { PASSWORD: "hunter2" }, filler: "x".repeat(50_000), more: "postgres://u:hunter2@h/" })));
    const [row] = await store.query<{ text: string }>("select audit::text as text from audit");
    expect(row?.text).not.toContain("hunter2");
    expect(row?.text).toContain("truncated");
    expect((await audit.verify(null)).ok).toBe(true);
  });
});

test("lists by subject and below it, by actor and action, in pages", async () => {
  await append("cell/eu-1", "cell/eu-10", "cell/eu-1/key", "tenant/a");
  expect((await audit.list({ subject: "cell/eu-1" }, null, 10)).map((e) => e.subject)).toEqual(["cell/eu-1/key", "cell/eu-1"]);
  expect(await audit.list({ actor: "nobody" }, null, 10)).toEqual([]);
  expect((await audit.list({}, 3, 1)).map((e) => e.seq)).toEqual([2]);
});
