import { afterEach, describe, expect, test } from "vitest";
import type { CreatedTenant, Tenant, TenantDetail } from "./model.ts";
import { type TestFleet, testFleet } from "../placement/testing/fleet.ts";

let fleet: TestFleet;
const open = async (...args: Parameters<typeof testFleet>): Promise<TestFleet> => (fleet = await testFleet(...args));
afterEach(() => fleet.close());

const post = (path: string, body?: unknown, headers = {}) => fleet.send<Tenant>("operator", "POST", path, body, headers);
const get = <R = TenantDetail>(path: string) => fleet.send<R>("viewer", "GET", path);
const namesOf = async (query: string): Promise<string[]> => (await get<{ items: Tenant[] }>(`/v1/tenants?${query}`)).body.items.map((tenant) => tenant.name);

describe("tenants over the API", () => {
  test("T2 T3: created, suspended and resumed; routers hear of each", async () => {
    await open([{ name: "eu-1" }]);
    const created = await fleet.send<CreatedTenant>("operator", "POST", "/v1/tenants", { name: "acme", keys: [{ kind: "host", value: "acme.example" }], labels: { plan: "pro" } });
    expect(created.status).toBe(201);
    expect(created.body).toMatchObject({ name: "acme", tier: "standard", state: "active", cell: "eu-1", epoch: 1, generation: 1, created: true, because: ["it is the only cell that fits"] });
    expect(await fleet.routes()).toEqual([{ tenant: "acme", cell: "eu-1", state: "active", epoch: 1 }]);
    expect(await fleet.store.query("select space, value, tenant from route_key")).toEqual([{ space: "host", value: "acme.example", tenant: "acme" }]);

    expect((await post("/v1/tenants/acme/suspend")).body).toMatchObject({ state: "suspended", generation: 2 });
    expect((await post("/v1/tenants/acme/suspend")).body).toMatchObject({ state: "suspended", generation: 2 });
    expect((await fleet.routes())[0]?.state).toBe("suspended");
    expect((await post("/v1/tenants/acme/resume", undefined, { "if-match": '"1"' })).body).toMatchObject({ code: "generation_stale" });
    expect((await post("/v1/tenants/acme/resume", undefined, { "if-match": '"2"' })).body).toMatchObject({ state: "active", generation: 3 });
    expect((await fleet.routes())[0]?.state).toBe("active");
    expect((await get("/v1/tenants/acme")).body).toMatchObject({ labels: { plan: "pro" }, keys: [{ kind: "host", value: "acme.example" }], placements: [{ cell: "eu-1", role: "home", epoch: 1, until: null }], claims: [] });
    expect((await get("/v1/tenants/nobody")).body).toMatchObject({ code: "not_found" });
    const kinds = await fleet.store.query<{ kind: string }>("select kind from event where subject = 'tenant/acme' order by id");
    expect(kinds.map(({ kind }) => kind)).toEqual(["tenant.created", "tenant.state", "tenant.state"]);
  });

  test("P5: a dry run says why and leaves nothing behind", async () => {
    await open([{ name: "eu-1", capacity: { tenants: 10 } }, { name: "us-1", region: "us" }, { name: "eu-2", state: "cordoned" }]);
    const dry = await fleet.send<CreatedTenant>("operator", "POST", "/v1/tenants?dryRun=true", { name: "acme", region: "eu" });
    expect(dry.body).toMatchObject({ cell: "eu-1", because: ["its data stay in region eu", "it is the only cell that fits"], rejected: [{ cell: "us-1", reason: "is in region us" }, { cell: "eu-2", reason: "is cordoned" }] });
    const explained = await fleet.send("viewer", "POST", "/v1/placement:explain", { name: "acme", region: "eu", load: {} });
    expect(explained.body).toMatchObject({ outcome: "placed", cell: "eu-1", rejected: dry.body.rejected });
    expect((await get("/v1/tenants/acme")).status).toBe(404);
    expect((await fleet.counters()).every(({ used }) => used[0] === 0)).toBe(true);
    expect(await fleet.routes()).toEqual([]);
    expect((await fleet.send("operator", "POST", "/v1/tenants?dryRun=true", { name: "acme", region: "mars" })).body).toMatchObject({ code: "residency_unsatisfiable" });
  });

  test("T1: keys are one tenant's in the whole fleet, and a word is not another tenant's name", async () => {
    await open([{ name: "eu-1" }]);
    for (const name of ["a", "b"]) await fleet.create({ name });
    const add = async (tenant: string, kind: string, value: string) => (await post(`/v1/tenants/${tenant}/keys`, { kind, value })).body;
    expect(await add("a", "host", "a.example")).toMatchObject({ generation: 2, keys: [{ kind: "host", value: "a.example" }] });
    expect(await add("a", "host", "a.example")).toMatchObject({ generation: 2 });
    expect(await add("b", "alias", "a.example")).toMatchObject({ code: "key_taken", detail: "the key host:a.example belongs to tenant a" });
    expect(await add("b", "header", "a")).toMatchObject({ code: "key_taken" });
    expect(await add("b", "path", "c")).toMatchObject({ generation: 2 });
    expect((await post("/v1/tenants", { name: "c" })).body).toMatchObject({ code: "key_taken", detail: "the key path:c belongs to tenant b" });
    expect(await add("a", "path", "a")).toMatchObject({ generation: 3 });
    expect(await add("a", "host", "A.example")).toMatchObject({ code: "invalid_input" });
    expect(await add("a", "apikey", "clear-text-secret")).toMatchObject({ code: "invalid_input" });
    const removed = await fleet.send("operator", "DELETE", "/v1/tenants/b/keys/path/c");
    expect(removed.body).toMatchObject({ keys: [], generation: 3 });
    expect((await fleet.send("operator", "DELETE", "/v1/tenants/b/keys/path/c")).body).toMatchObject({ code: "not_found" });
    expect((await fleet.send("operator", "DELETE", "/v1/tenants/b/keys/host/a.example")).body).toMatchObject({ code: "not_found" });
    expect((await post("/v1/tenants", { name: "c" })).status).toBe(201);
    expect(await fleet.store.query("select space, value, tenant from route_key order by 1, 2")).toEqual([{ space: "host", value: "a.example", tenant: "a" }, { space: "path", value: "a", tenant: "a" }]);
  });

  test("T1: of many who want one key at once, one gets it", async () => {
    await open([{ name: "eu-1" }]);
    const planes = [fleet, fleet.addPlane(), fleet.addPlane()];
    await Promise.all(Array.from({ length: 10 }, (_, i) => fleet.create({ name: `old-${i}` })));
    const key = { kind: "host" as const, value: "one.example" };
    const word = { kind: "header" as const, value: "new-7" };
    const outcomes = await Promise.all([
      ...Array.from({ length: 30 }, (_, i) => planes[i % 3]?.create({ name: `new-${i}`, keys: [{ ...key, kind: i % 2 ? "host" : "alias" }] }).then(() => "created", (error: { code: string }) => error.code)),
      ...Array.from({ length: 10 }, async (_, i) => (await planes[i % 3]?.send("operator", "POST", `/v1/tenants/old-${i}/keys`, key))?.status),
      ...Array.from({ length: 10 }, async (_, i) => (await planes[i % 3]?.send("operator", "POST", `/v1/tenants/old-${i}/keys`, word))?.status),
    ]);
    expect(outcomes.slice(0, 40).filter((outcome) => outcome === "created" || outcome === 200).length).toBe(1);
    const [{ n } = { n: 0 }] = await fleet.store.query<{ n: number }>("select (select count(*) from tenant where name = 'new-7') + (select count(*) from tenant_key where space = 'header') as n");
    expect(n).toBeLessThanOrEqual(1);
    expect((await fleet.counters()).every(({ used, summed }) => used[0] === summed[0])).toBe(true);
  });

  test("T4: a change names what it was decided from; a greater load is counted, a pin must be where it lives", async () => {
    await open([{ name: "eu-1", capacity: { connections: 10 } }], { headroomRatio: 0.5 });
    await fleet.create({ name: "a", labels: { x: "1", y: "2" }, load: { connections: 2 } });
    const patch = (body: unknown, headers = {}) => fleet.send<Tenant>("operator", "PATCH", "/v1/tenants/a", body, headers);
    expect((await patch({ tier: "gold", labels: { x: null, z: "3" }, load: { connections: 7.5 } })).body).toMatchObject({ tier: "gold", labels: { y: "2", z: "3" }, load: { connections: 7.5 }, generation: 2 });
    expect((await patch({ load: { connections: 11 } })).body).toMatchObject({ code: "no_capacity", detail: "no cell has room for a: eu lacks 1 connections (in eu-1)" });
    expect((await patch({ tier: "iron" }, { "if-match": '"1"' })).status).toBe(412);
    expect((await patch({ region: "us" })).body).toMatchObject({ code: "residency_unsatisfiable" });
    expect((await patch({ region: "eu" })).body).toMatchObject({ region: "eu", generation: 3 });
    expect((await patch({ region: null, load: {} })).body).toMatchObject({ region: null, load: {}, generation: 4 });
    expect((await patch({ labels: { "Bad Key": "x" } })).body).toMatchObject({ code: "invalid_input" });
    for (const value of ["a\u0000b", "\ud800", "x".repeat(256)]) expect((await patch({ labels: { x: value } })).status).toBe(400);
    expect((await patch({ cell: "eu-2" })).body).toMatchObject({ code: "invalid_input" });
    expect(await fleet.counters()).toEqual([{ cell: "eu-1", used: [1, 0, 0], summed: [1, 0, 0] }]);
  });

  test("T6: lists are in the order of names, filtered, and each page goes on where the last ended", async () => {
    await open([{ name: "eu-1" }, { name: "us-1", region: "us" }]);
    const all = Array.from({ length: 60 }, (_, i) => `t-${String(i).padStart(2, "0")}`);
    await Promise.all(all.map((name, i) => fleet.create({ name, region: i % 3 === 0 ? "us" : "eu", tier: i % 2 ? "free" : "gold", labels: { plan: i % 4 === 0 ? "x" : "y", ...(i % 5 === 0 ? { vip: "" } : {}) } })));
    await post("/v1/tenants/t-07/suspend");
    const pages: string[][] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body }: { body: { items: Tenant[]; nextCursor: string | null } } = await get(`/v1/tenants?limit=7&tier=free${cursor && `&cursor=${cursor}`}`);
      pages.push(body.items.map((tenant) => tenant.name));
      cursor = body.nextCursor;
    }
    expect(pages.flat()).toEqual(all.filter((_, i) => i % 2));
    expect(pages.map((page) => page.length)).toEqual([7, 7, 7, 7, 2]);
    const where = (keep: (i: number) => boolean) => all.filter((_, i) => keep(i));
    expect(await namesOf("region=us")).toEqual(where((i) => i % 3 === 0));
    expect(await namesOf("cell=us-1")).toEqual(where((i) => i % 3 === 0));
    expect(await namesOf("state=suspended")).toEqual(["t-07"]);
    expect(await namesOf(`labels=${encodeURIComponent("plan=x,vip")}`)).toEqual(where((i) => i % 20 === 0));
    expect(await namesOf(`labels=${encodeURIComponent("plan!=x,!vip")}&tier=gold`)).toEqual(where((i) => i % 4 !== 0 && i % 5 !== 0 && i % 2 === 0));
    expect((await get("/v1/tenants?labels=a%3Db%3Dc")).body).toMatchObject({ code: "invalid_input" });
    expect((await get("/v1/tenants?labels=%27%3B%20drop%20table%20tenant")).body).toMatchObject({ code: "invalid_input" });
    expect((await get("/v1/tenants?colour=red")).body).toMatchObject({ code: "invalid_input" });
  });

  test("T7: an import has an outcome for each row; the same rows again change nothing", async () => {
    await open([{ name: "eu-1", capacity: { tenants: 4 } }]);
    const rows = [{ name: "a", keys: [{ kind: "host", value: "a.example" }] }, { name: "B" }, { name: "b", region: "mars" }, null, { name: "c", keys: [{ kind: "host", value: "a.example" }] }, { name: "a", tier: "gold" }, { name: "d" }, { name: "d" }, { name: "e", teir: 1 }];
    const send = async (query = "") => (await fleet.send<{ outcomes: { name: string; outcome: string; error: { code: string } | null }[] }>("operator", "POST", `/v1/tenants:import${query}`, { tenants: rows })).body.outcomes.map(({ name, outcome, error }) => [name, error?.code ?? outcome]);
    const expected = [["a", "created"], ["B", "invalid_input"], ["b", "residency_unsatisfiable"], [null, "invalid_input"], ["c", "key_taken"], ["a", "already_exists"], ["d", "created"], ["d", "unchanged"], ["e", "invalid_input"]];
    expect(await send("?dryRun=true")).toEqual(expected);
    expect(await namesOf("")).toEqual([]);
    expect(await send()).toEqual(expected);
    expect(await send()).toEqual(expected.map(([name, outcome]) => [name, outcome === "created" ? "unchanged" : outcome]));
    expect(await namesOf("")).toEqual(["a", "d"]);
    const tooMany = await fleet.send("operator", "POST", "/v1/tenants:import", { tenants: Array.from({ length: 1001 }, (_, i) => ({ name: `t-${i}` })) });
    expect(tooMany.body).toMatchObject({ code: "invalid_input" });
  });

  test("roles: viewers change nothing, operators erase nothing", async () => {
    await open([{ name: "eu-1" }]);
    await fleet.create({ name: "a" });
    expect((await fleet.send("viewer", "POST", "/v1/tenants", { name: "b" })).status).toBe(403);
    expect((await fleet.send("operator", "DELETE", "/v1/tenants/a")).status).toBe(403);
    expect((await fleet.send("router", "GET", "/v1/tenants")).status).toBe(403);
  });
});
