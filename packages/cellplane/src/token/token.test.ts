import { mkdtemp, readFile, rm, stat, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from "vitest";
import { type TestApi, testApi } from "../http/testing/api.ts";
import { firstTokens } from "./first.ts";
import { admitSecrets, openTokenStore } from "./store.ts";

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.close());

let stateDir: string;
beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "cellplane-token-"));
});
afterEach(() => rm(stateDir, { recursive: true, force: true }));

/** As an instance sees it that has seen no token before. */
async function whoIs(secret = "") {
  const tokens = openTokenStore(api.store);
  tokens.close();
  return tokens.find(secret, Date.now());
}
const withoutFirst = () => api.store.query("delete from token where name in ('viewer', 'operator', 'admin', 'router')");

test("T1: the first start makes a token for each role, in a file for its owner only; later starts keep them", async () => {
  await withoutFirst();
  const first = await firstTokens(api.store, stateDir);
  expect(Object.keys(first).sort()).toEqual(["admin", "operator", "router", "viewer"]);
  expect((await stat(join(stateDir, "tokens.json"))).mode & 0o777).toBe(0o600);
  expect(await firstTokens(api.store, stateDir)).toEqual(first);
  for (const [role, secret] of Object.entries(first)) expect(await whoIs(secret)).toMatchObject({ name: role, role, refusal: null });
});

test("T2: a start that dies between the file and the database loses no token", async () => {
  await withoutFirst();
  const first = await firstTokens(api.store, stateDir);
  await withoutFirst();
  expect(await firstTokens(api.store, stateDir)).toEqual(first);
  expect(await whoIs(first.admin)).toMatchObject({ role: "admin" });
});

test("T3: of several instances with folders of their own, one makes the tokens; new ones are made only when asked for", async () => {
  await withoutFirst();
  const other = await mkdtemp(join(tmpdir(), "cellplane-token-"));
  const made = await Promise.all([firstTokens(api.store, stateDir), firstTokens(api.store, other)]);
  const names = made.flatMap((tokens) => Object.keys(tokens));
  expect(names.sort()).toEqual(["admin", "operator", "router", "viewer"]);
  await unlink(join(stateDir, "tokens.json"));
  const replaced = await firstTokens(api.store, stateDir, { replace: true });
  expect(await whoIs(replaced.admin)).toMatchObject({ role: "admin", refusal: null });
  expect(await firstTokens(api.store, other)).toEqual({});
  await rm(other, { recursive: true });
});

test("a file that is none is refused, not overwritten", async () => {
  await writeFile(join(stateDir, "tokens.json"), "{nonsense");
  await expect(firstTokens(api.store, stateDir)).rejects.toMatchObject({ code: "context_invalid" });
  expect(await readFile(join(stateDir, "tokens.json"), "utf8")).toBe("{nonsense");
});

describe("with tokens as they were", () => {
  beforeAll(() => admitSecrets(api.store, api.secrets, { replace: true }));

  test("T4: a secret is shown once and kept nowhere", async () => {
    const key = { "idempotency-key": "make-ci" };
    const created = await api.send("admin", "POST", "/v1/tokens", { name: "ci", role: "operator" }, key);
    const { secret } = JSON.parse(created.text) as { secret: string };
    expect(secret).toMatch(/^cpt_[\w-]{43}$/);
    const repeated = JSON.parse((await api.send("admin", "POST", "/v1/tokens", { name: "ci", role: "operator" }, key)).text) as { secret: null; token: { name: string } };
    expect([repeated.secret, repeated.token.name]).toEqual([null, "ci"]);
    for (const table of ["token", "idempotency", "audit", "event"]) {
      const [row] = await api.store.query<{ text: string }>(`select coalesce(string_agg(t::text, ''), '') as text from ${table} t`);
      expect(row?.text).not.toContain(secret.slice(4));
    }
    expect((await api.app.request("/v1/whoami", { headers: { authorization: `Bearer ${secret}` } })).status).toBe(200);
  });

  test("T5: a revoked token is refused at once, at every instance, and its name is not given again", async () => {
    const { secret } = JSON.parse((await api.send("admin", "POST", "/v1/tokens", { name: "gone", role: "viewer" })).text) as { secret: string };
    const elsewhere = openTokenStore(api.store);
    const asked = async () => (await elsewhere.find(secret, Date.now()))?.refusal ?? null;
    expect(await asked()).toBeNull();
    expect((await api.send("admin", "DELETE", "/v1/tokens/gone")).status).toBe(200);
    await expect.poll(asked, { timeout: 5000 }).toBe("the token gone was revoked");
    elsewhere.close();
    const refused = await api.app.request("/v1/whoami", { headers: { authorization: `Bearer ${secret}` } });
    expect([refused.status, await refused.text()]).toEqual([401, expect.stringContaining("was revoked")]);
    expect((await api.send("admin", "POST", "/v1/tokens", { name: "gone", role: "viewer" })).body.code).toBe("already_exists");
    expect((await api.send("admin", "DELETE", "/v1/tokens/never")).status).toBe(404);
  });

  test("T6: an expired token is refused, also one that was good a moment ago", async () => {
    const { secret } = JSON.parse((await api.send("admin", "POST", "/v1/tokens", { name: "brief", role: "viewer", expiresInMs: 60_000 })).text) as { secret: string };
    expect(await api.tokens.find(secret, Date.now())).toMatchObject({ refusal: null });
    expect(await api.tokens.find(secret, Date.now() + 61_000)).toMatchObject({ refusal: "the token brief has expired" });
  });
});
