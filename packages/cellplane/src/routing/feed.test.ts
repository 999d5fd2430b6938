import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../../../../tests/database.ts";
import { systemClock } from "../base/clock.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { checkBatch, type Frame, readFrames } from "./batch.ts";
import { openRouteFeed, type RouteFeed } from "./feed.ts";
import type { RouteChange } from "./model.ts";
import { readSnapshot, type SnapshotPosition } from "./snapshot.ts";
import { routeHead, routePublisher, trimRouteLog } from "./store.ts";
import { feedServer } from "./testing/server.ts";

let database: TestDatabase;
let store: Store;
let feeds: RouteFeed[];
let servers: { url: string; close(): Promise<void> }[];
beforeAll(async () => {
  database = await testDatabase();
  store = openStore(database.url);
  await applySchema(store);
  await publish({ kind: "rules", rules: [{ by: "host", suffix: "example.com" }, { by: "header", header: "x-tenant" }] }, { kind: "cell", index: 1, cell: "eu-1", endpoint: "127.0.0.1:80", state: "open" });
  feeds = [await openRouteFeed(store, { clock: systemClock, beatMs: 100 }), await openRouteFeed(store, { clock: systemClock })];
  servers = await Promise.all(feeds.map(feedServer));
});
afterAll(async () => {
  await Promise.all(feeds.map((feed) => feed.close()));
  await Promise.all(servers.map((server) => server.close()));
  await store.close();
  await database.drop();
});

const publish = (...changes: RouteChange[]): Promise<void> => store.transaction(async (tx) => routePublisher.publish(tx, changes));
const tenant = (name: string, epoch = 1): RouteChange => ({ kind: "tenant", tenant: name, cellIndex: 1, state: "active", epoch });

async function* stream({ version, digest }: SnapshotPosition, server = 0): AsyncGenerator<Frame> {
  const abort = new AbortController();
  const response = await fetch(`${servers[server]?.url}/v1/routes/stream?from=${version}&digest=${digest}`, { signal: abort.signal });
  try {
    yield* readFrames(response.body as AsyncIterable<Uint8Array>);
  } finally {
    abort.abort();
  }
}

/** Follows until the version is reached, as a router would. @returns the batches' bounds, and where it then is */
async function follow(from: SnapshotPosition, to: number, server = 0): Promise<{ batches: [number, number][]; at: SnapshotPosition }> {
  let at = from;
  const batches: [number, number][] = [];
  for await (const frame of stream(from, server)) {
    if (frame.kind === "gap") throw new Error("gap");
    if (frame.kind === "batch") {
      const batch = checkBatch(at, frame);
      batches.push([frame.from, frame.to]);
      if (batch) at = { version: frame.to, digest: batch.digest };
    }
    if (at.version >= to) break;
  }
  return { batches, at };
}

describe("R8: any instance serves any router, from any version it still knows", () => {
  test("changes that come together travel together", async () => {
    const from = await routeHead(store);
    const following = follow(from, from.version + 30);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await Promise.all(Array.from({ length: 30 }, (_, i) => publish(tenant(`burst-${i}`))));
    const { batches, at } = await following;
    expect(batches.length).toBeLessThan(15);
    expect(at).toEqual(await routeHead(store));
  });

  test("who was away is sent what is missing, by another instance", async () => {
    const from = await routeHead(store);
    for (let i = 0; i < 5; i++) await publish(tenant(`away-${i}`));
    expect((await follow(from, from.version + 5, 1)).at).toEqual(await routeHead(store));
  });

  test("the log serves when memory does not reach back, and a gap is said when the log does not either", async () => {
    const from = await routeHead(store);
    for (let i = 0; i < 5; i++) await publish(tenant(`old-${i}`));
    const fresh = await openRouteFeed(store, { clock: systemClock });
    const server = await feedServer(fresh);
    servers.push(server);
    expect((await follow(from, from.version + 5, 2)).at).toEqual(await routeHead(store));
    await trimRouteLog(store, 2);
    await fresh.close();
    const later = await openRouteFeed(store, { clock: systemClock });
    servers[2] = await feedServer(later);
    await server.close();
    await expect(follow(from, from.version + 5, 2)).rejects.toThrow("gap");
    await servers.pop()?.close();
    await later.close();
  });

  test("another history is a gap, at whatever version", async () => {
    const { version } = await routeHead(store);
    for (const from of [{ version, digest: "ab".repeat(32) }, { version: version + 100, digest: "ab".repeat(32) }, { version: -1, digest: "" }]) await expect(follow(from, Infinity)).rejects.toThrow("gap");
  });

  test("silence is a beat", async () => {
    const kinds: string[] = [];
    for await (const frame of stream(await routeHead(store))) if (kinds.push(frame.kind) === 3) break;
    expect(kinds).toEqual(["beat", "beat", "beat"]);
  });
});

describe("R4: a snapshot is one moment", () => {
  test("taken while tenants are made, it and the log from there are everything", async () => {
    const making = (async () => {
      for (let i = 0; i < 60; i++) await publish(tenant(`during-${i}`), { kind: "key", key: { kind: "host", value: `during-${i}.com` }, tenant: `during-${i}` });
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const response = await fetch(`${servers[0]?.url}/v1/routes/snapshot`);
    const loaded = await readSnapshot(response.body as AsyncIterable<Uint8Array>);
    await making;
    const head = await routeHead(store);
    expect((await follow(loaded, head.version)).at).toEqual(head);
  });

  test("10,000 tenants are there within a moment", async () => {
    await publish(...Array.from({ length: 10_000 }, (_, i) => tenant(`many-${i}`)));
    const start = performance.now();
    const loaded = await readSnapshot((await fetch(`${servers[1]?.url}/v1/routes/snapshot`)).body as AsyncIterable<Uint8Array>);
    expect(loaded.table.tenants).toBeGreaterThanOrEqual(10_000);
    expect(performance.now() - start).toBeLessThan(3000);
  });
});

describe("R7: what a router says is known to every instance", () => {
  test("its version, and what is under way for tenants on hold", async () => {
    const { version } = await routeHead(store);
    const say = (body: unknown): Promise<Response> => fetch(`${servers[0]?.url}/v1/routes/acks`, { method: "POST", body: JSON.stringify(body) });
    expect((await say({ router: "edge-1", version: version - 2, inFlight: { acme: 3 } })).status).toBe(204);
    await expect.poll(() => feeds[1]?.routers()).toMatchObject([{ name: "edge-1", version: version - 2, behind: 2, inFlight: { acme: 3 } }]);
    await expect(Promise.resolve(feeds[0]?.routers())).resolves.toMatchObject([{ name: "edge-1" }]);
  });
});

describe("R1: the control plane explains by the code that routers run", () => {
  test("from its rows", async () => {
    await publish(tenant("acme", 3), { kind: "key", key: { kind: "alias", value: "acme.org" }, tenant: "acme" });
    expect(await feeds[0]?.explain({ host: "acme.org" })).toMatchObject({ outcome: "forward", tenant: "acme", cell: "eu-1", epoch: 3, why: "host acme.org names acme, which lives in eu-1 at epoch 3" });
    const byHeader = await feeds[0]?.explain({ host: "x.example.com", headers: ["X-Tenant: acme"] });
    expect(byHeader?.looks.map((look) => [look.space, look.value, look.tenant])).toEqual([["host", "x.example.com", null], ["name", "x", null], ["header", "acme", null], ["name", "acme", "acme"]]);
    expect(await feeds[0]?.explain({ host: "nobody.example.com" })).toMatchObject({ outcome: "refuse", status: 404, reason: "unknown_tenant", tenant: null });
  });
});
