import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { type TestFleet, testFleet } from "../placement/testing/fleet.ts";
import type { Operation } from "../workflow/model.ts";
import { getOperation, retryRun } from "../workflow/store.ts";
import type { CreatedTenant, Tenant, TenantDetail } from "./model.ts";

let fleet: TestFleet;
afterEach(() => fleet.close());

async function open(...options: Parameters<typeof testFleet>): Promise<void> {
  fleet = await testFleet(...options);
  fleet.startRunner();
}

async function until<T>(look: () => Promise<T>, holds: (seen: T) => boolean): Promise<T> {
  for (let seen = await look(), i = 0; ; seen = await look(), i++) {
    if (holds(seen) || i > 400) return seen;
    await sleep(25);
  }
}
const operation = (id: string | null): Promise<Operation> => getOperation(fleet.store, id ?? "");
const ended = (id: string | null): Promise<Operation> => until(() => operation(id), ({ state }) => ["succeeded", "failed", "undone", "parked"].includes(state));
const tenant = async (name: string): Promise<TenantDetail & { code: string }> => (await fleet.send<TenantDetail>("viewer", "GET", `/v1/tenants/${name}`)).body;
const create = async (body: unknown): Promise<CreatedTenant> => (await fleet.send<CreatedTenant>("operator", "POST", "/v1/tenants", body)).body;
const remove = async (name: string): Promise<Tenant> => (await fleet.send<Tenant>("admin", "DELETE", `/v1/tenants/${name}`)).body;

describe("a tenant with a cell of its own", () => {
  test("P7: waits as pending until the cell is there, and nobody else gets that cell", async () => {
    await open([{ name: "eu-1" }], { blueprint: "app" });
    const [a, b] = await Promise.all(["a", "b"].map((name) => create({ name, dedicated: true, keys: [{ kind: "host", value: `${name}.example` }] })));
    expect(a).toMatchObject({ state: "pending", cell: null, epoch: 0, because: ["it has a cell of its own", expect.stringContaining("one is made in")] });
    for (const pending of [a, b]) expect((await ended(pending?.operation ?? null)).state).toBe("succeeded");
    expect(await tenant("a")).toMatchObject({ state: "active", cell: "only-a", epoch: 1, operation: null, placements: [{ cell: "only-a", epoch: 1 }] });
    expect(await tenant("b")).toMatchObject({ state: "active", cell: "only-b" });
    expect((await fleet.routes()).map(({ tenant, cell }) => `${tenant} in ${cell}`)).toEqual(["a in only-a", "b in only-b"]);
    expect(await fleet.store.query("select value, tenant from route_key order by 1")).toEqual([{ value: "a.example", tenant: "a" }, { value: "b.example", tenant: "b" }]);
    expect((await fleet.counters()).map(({ used }) => used[0])).toEqual([0, 1, 1]);
  });

  test("P7: a cell that cannot be made parks the operation; the tenant can still be deleted", async () => {
    await open([], { strategy: "cell-per-tenant", blueprint: "app" });
    fleet.engine.broken = true;
    const created = await create({ name: "a", region: "us" });
    const parked = await ended(created.operation);
    expect(parked).toMatchObject({ state: "parked", waitsFor: expect.stringContaining("only-a could not be made") });
    expect(await tenant("a")).toMatchObject({ state: "pending", operation: created.operation });
    const deleting = await remove("a");
    expect((await ended(deleting.operation)).state).toBe("succeeded");
    expect(await tenant("a")).toMatchObject({ code: "not_found" });
  });

  test("P7: after a person has made the cell, the parked operation is retried and the tenant has its home", async () => {
    await open([], { strategy: "cell-per-tenant", blueprint: "app" });
    fleet.engine.broken = true;
    const { operation } = await create({ name: "a", region: "us" });
    await ended(operation);
    await fleet.addCell({ name: "only-a", region: "us", class: "dedicated" });
    await fleet.store.transaction((tx) => retryRun(tx, operation ?? ""));
    expect(await until(() => tenant("a"), ({ state }) => state === "active")).toMatchObject({ state: "active", cell: "only-a", operation: null });
  });
});

describe("deletion", () => {
  test("T5 T2: closes the route first, erases what is in the cell, then frees names, claims and room; the name goes on counting epochs", async () => {
    await open([{ name: "eu-1", capacity: { tenants: 1, connections: 5 } }]);
    await create({ name: "a", keys: [{ kind: "host", value: "a.example" }], load: { connections: 2.5 }, claims: [{ kind: "login", value: "ann" }] });
    fleet.rowsInCells.set("eu-1/a", 17);
    const deleting = await remove("a");
    expect(deleting).toMatchObject({ state: "deleting", cell: "eu-1" });
    expect(await fleet.routes()).toEqual([]);
    expect(await fleet.store.query("select * from route_key")).toEqual([]);
    // Until it is gone, nobody has its name and its room.
    expect(await create({ name: "a" })).toMatchObject({ code: "already_exists" });
    expect((await fleet.send("operator", "POST", "/v1/tenants/a/resume")).body).toMatchObject({ code: "wrong_state" });
    expect((await fleet.send("operator", "POST", "/v1/tenants/a/keys", { kind: "host", value: "b.example" })).body).toMatchObject({ code: "wrong_state" });
    // A request that was still running writes behind the first pass.
    await until(async () => fleet.rowsInCells.size, (size) => size === 0);
    fleet.rowsInCells.set("eu-1/a", 1);
    expect((await ended(deleting.operation)).state).toBe("succeeded");
    expect(fleet.rowsInCells.size).toBe(0);
    expect(await tenant("a")).toMatchObject({ code: "not_found" });
    expect(await fleet.counters()).toEqual([{ cell: "eu-1", used: [0, 0, 0], summed: [0, 0, 0] }]);
    expect(await fleet.store.query("select (select count(*) from claim)::int + (select count(*) from tenant_key)::int + (select count(*) from placement)::int as n")).toEqual([{ n: 0 }]);
    const kinds = await fleet.store.query<{ kind: string }>("select kind from event where subject = 'tenant/a' order by id");
    expect(kinds.map(({ kind }) => kind)).toEqual(["tenant.created", "tenant.state", "tenant.deleted", "claim.released"]);

    expect(await create({ name: "a", keys: [{ kind: "host", value: "a.example" }] })).toMatchObject({ epoch: 2, cell: "eu-1" });
    expect(await fleet.routes()).toEqual([{ tenant: "a", cell: "eu-1", state: "active", epoch: 2 }]);
  });

  test("T5: asked for twice, it is done once", async () => {
    await open([{ name: "eu-1" }]);
    await create({ name: "a" });
    const [first, second] = [await remove("a"), await remove("a")];
    for (const { operation } of [first, second]) expect((await ended(operation)).state).toBe("succeeded");
    expect((await fleet.counters())[0]?.used).toEqual([0, 0, 0]);
    expect(await remove("a")).toMatchObject({ code: "not_found" });
  });
});
