import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../../../../tests/database.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { nextDigest } from "./batch.ts";
import type { RouteChange } from "./model.ts";
import { changesSince, isOnLog, listAcks, readRoutes, routeHead, routePublisher, routesChannel, routesOfKeys, saveAcks, trimRouteLog } from "./store.ts";
import { applied, modelTable } from "./testing/model.ts";
import { tableLines } from "./lines.ts";

let database: TestDatabase;
let store: Store;
beforeAll(async () => {
  database = await testDatabase();
  store = openStore(database.url);
  await applySchema(store);
});
afterAll(async () => {
  await store.close();
  await database.drop();
});
beforeEach(() => store.query("truncate route_log, route_cell, route_tenant, route_key, route_router"));

const publish = (...changes: RouteChange[]): Promise<void> => store.transaction(async (tx) => routePublisher.publish(tx, changes));
const tenant = (name: string, epoch = 1, state: "active" | "hold" = "active", cellIndex = 1): RouteChange => ({ kind: "tenant", tenant: name, cellIndex, state, epoch });
const key = (value: string, name: string): RouteChange => ({ kind: "key", key: { kind: "host", value }, tenant: name });
const lines = async (): Promise<string[]> => {
  let all = "";
  await readRoutes(store, () => undefined, (chunk) => (all += chunk));
  return all.split("\n").filter((line) => /^[tk]/.test(line)).sort();
};

describe("R5: each commit that changes routes gets the next version, and all of it or nothing", () => {
  test("one version per commit, whoever published in it; the digest chains", async () => {
    const before = await routeHead(store);
    await store.transaction(async (tx) => {
      routePublisher.publish(tx, [tenant("acme")]);
      routePublisher.publish(tx, [key("acme.com", "acme")]);
    });
    const rows = await changesSince(store, before.version, 10);
    expect(rows.map((row) => [row.version, row.changes])).toEqual([[before.version + 1, "t acme 1 active 1\nk host acme.com acme\n"]]);
    expect(await routeHead(store)).toEqual({ version: before.version + 1, digest: nextDigest(before.digest, rows[0]?.changes ?? "") });
    expect(await isOnLog(store, await routeHead(store))).toBe(true);
    expect(await isOnLog(store, { ...(await routeHead(store)), digest: before.digest })).toBe(false);
  });

  test("a transaction that rolls back leaves no hole", async () => {
    const { version } = await routeHead(store);
    await expect(store.transaction(async (tx) => { routePublisher.publish(tx, [tenant("acme")]); throw new Error("changed my mind"); })).rejects.toThrow("mind");
    await publish(tenant("bolt"));
    expect((await changesSince(store, version, 10)).map((row) => row.version)).toEqual([version + 1]);
  });

  test("parallel commits are numbered without holes and every row is there", async () => {
    const { version } = await routeHead(store);
    await Promise.all(Array.from({ length: 60 }, (_, i) => publish(tenant(`t${i}`), key(`t${i}.com`, `t${i}`))));
    const rows = await changesSince(store, version, 100);
    expect(rows.map((row) => row.version)).toEqual(Array.from({ length: 60 }, (_, i) => version + 1 + i));
    expect(await lines()).toHaveLength(120);
  });

  test("one notification per commit", async () => {
    const heard: string[] = [];
    const stop = store.listen(routesChannel, (payload) => heard.push(payload));
    await expect.poll(() => heard.length).toBe(1);
    await publish(...Array.from({ length: 3000 }, (_, i) => tenant(`many-${i}`)));
    await expect.poll(() => heard.at(-1)).toBe(String((await routeHead(store)).version));
    expect(heard).toHaveLength(2);
    stop();
  });
});

describe("R6: the rows are what the log says", () => {
  test("within one commit the last word counts", async () => {
    await publish(tenant("acme"), key("a.com", "acme"), { kind: "keyGone", key: { kind: "host", value: "a.com" } }, tenant("acme", 2, "hold"));
    expect(await lines()).toEqual(["t acme 1 hold 2"]);
  });

  test("an epoch never goes back", async () => {
    await publish(tenant("acme", 5));
    await expect(publish(tenant("acme", 4))).rejects.toMatchObject({ code: "generation_stale", data: { name: "acme", expected: 4, actual: 5 } });
    await publish(tenant("acme", 5, "hold"));
    expect(await lines()).toEqual(["t acme 1 hold 5"]);
  });

  test("keys go with their tenant, and the log says so", async () => {
    await publish(tenant("acme"), key("a.com", "acme"), key("b.com", "acme"), tenant("bolt"));
    const { version } = await routeHead(store);
    await publish({ kind: "tenantGone", tenant: "acme" }, key("b.com", "bolt"));
    expect(await lines()).toEqual(["k host b.com bolt", "t bolt 1 active 1"]);
    expect((await changesSince(store, version, 1))[0]?.changes).toBe("T acme\nk host b.com bolt\nK host a.com\n");
  });

  test("a snapshot equals the log replayed, and a plain map", async () => {
    const changes: RouteChange[] = [
      { kind: "rules", rules: [{ by: "host", suffix: "example.com" }] },
      { kind: "cell", index: 1, cell: "eu-1", endpoint: "127.0.0.1:80", state: "open" },
      { kind: "cell", index: 2, cell: "eu-2", endpoint: null, state: "closed" },
      ...Array.from({ length: 50 }, (_, i) => tenant(`t${i}`)), ...Array.from({ length: 50 }, (_, i) => key(`h${i}.com`, `t${i % 7}`)),
      { kind: "tenantGone", tenant: "t3" }, { kind: "cellGone", cell: "eu-2", index: 2 }, tenant("t1", 9, "hold", 2),
    ];
    for (const change of changes) await publish(change);
    let snapshot = "";
    await readRoutes(store, () => undefined, (chunk) => (snapshot += chunk));
    const sorted = (text: string): string[] => text.split("\n").sort();
    const model = modelTable(changes);
    const orphans = [...model.keys].filter(([, name]) => name === "t3").map(([place]) => ({ kind: "keyGone" as const, key: { kind: "host" as const, value: place.split(" ")[1] ?? "" } }));
    expect(sorted(snapshot)).toEqual(sorted([...tableLines(applied([...changes, ...orphans]))].join("")));
  });

  test("the log can be cut at any age", async () => {
    for (let i = 0; i < 10; i++) await publish(tenant(`t${i}`));
    const { version } = await routeHead(store);
    expect(await trimRouteLog(store, 3)).toBe(7);
    expect((await changesSince(store, 0, 100)).map((row) => row.version)).toEqual([version - 2, version - 1, version]);
    expect(await lines()).toHaveLength(10);
  });

  test("names and keys are found for route explain", async () => {
    await publish(tenant("acme", 4), key("a.com", "acme"));
    const rows = await routesOfKeys(store, [{ space: "name", value: "acme" }, { space: "host", value: "a.com" }, { space: "path", value: "a.com" }, { space: "name", value: "nobody" }]);
    expect(rows).toEqual([
      { space: "name", value: "acme", tenant: "acme", cellIndex: 1, state: "active", epoch: 4 },
      { space: "host", value: "a.com", tenant: "acme", cellIndex: 1, state: "active", epoch: 4 },
    ]);
  });
});

test("R7: the latest word of a router counts, in whatever order it arrives", async () => {
  const nowMs = Date.now();
  await saveAcks(store, [{ router: "r1", version: 5, inFlight: { acme: 2 }, atMs: nowMs }, { router: "r2", version: 1, inFlight: {}, atMs: nowMs }]);
  await saveAcks(store, [{ router: "r1", version: 4, inFlight: {}, atMs: nowMs - 1000 }]);
  expect((await listAcks(store, 60_000)).map(({ router, version, inFlight }) => ({ router, version, inFlight }))).toEqual([
    { router: "r1", version: 5, inFlight: { acme: 2 } },
    { router: "r2", version: 1, inFlight: {} },
  ]);
});

test("R5: a thousand commits at once get a thousand versions without a gap; twenty thousand changes in one commit get one", async () => {
  const { version: before } = await routeHead(store);
  await Promise.all(Array.from({ length: 1000 }, (_, i) => publish(tenant(`t${i}`), key(`t${i}.com`, `t${i}`))));
  expect((await routeHead(store)).version).toBe(before + 1000);
  await publish(...Array.from({ length: 10_000 }, (_, i) => tenant(`bulk-${i}`)), ...Array.from({ length: 10_000 }, (_, i) => key(`bulk-${i}.com`, `bulk-${i}`)));
  expect((await routeHead(store)).version).toBe(before + 1001);
});
