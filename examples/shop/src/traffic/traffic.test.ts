import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import * as fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { shopDatabase, startShop, type RunningShop } from "../testing/shop.ts";
import { startRouter, type TestRouter } from "../testing/router.ts";
import { openClient } from "./client.ts";
import { check, isBroken, type Verdict } from "./check.ts";
import { openJournal, readJournal } from "./journal.ts";
import { type LoadOptions, type Seen, startLoad } from "./load.ts";
import { histogram, pauses } from "./measure.ts";
import { address, operationIdOf, operationNumberOf, type Outcome, outcomeOf } from "./model.ts";
import { tenantsOfApi, tenantsOfFile } from "./tenants.ts";

/** Long enough for a machine with much else to do. */
const soon = { timeout: 30_000 };
let folder = "";
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), "cellplane-traffic-"))));
afterEach(() => rm(folder, { recursive: true }));

describe("judging and measuring", () => {
  test.each([
    [200, null, "ok"], [201, null, "ok"], [400, null, "rejected"], [403, null, "rejected"], [404, null, "rejected"], [409, null, "rejected"], [421, null, "rejected"], [429, 1, "rejected"],
    [503, 0, "rejected"], [503, 1, "rejected"], [503, null, "unknown"], [500, null, "unknown"], [500, 1, "unknown"], [502, null, "unknown"], [502, 1, "unknown"], [504, null, "unknown"], [302, null, "rejected"],
    ["refused", null, "rejected"], ["timeout", null, "unknown"], ["reset", null, "unknown"],
  ] as const)("T1: %s with Retry-After %s is %s", (status, retryAfterSeconds, outcome) => {
    expect(outcomeOf({ status, retryAfterSeconds })).toBe(outcome satisfies Outcome);
  });

  test("T3: an operation id names its run and number, and nobody else's", () =>
    fc.assert(
      fc.property(fc.nat(), fc.string(), (number, other) => {
        expect(operationNumberOf("run1", operationIdOf("run1", number))).toBe(number);
        expect(operationNumberOf("run2", operationIdOf("run1", number))).toBeNull();
        expect(operationNumberOf("run1", `run1-${other}`)).toSatisfy((seen) => seen === null || operationIdOf("run1", seen) === `run1-${other}`);
        expect(operationIdOf("run1", number) < operationIdOf("run1", number + 1)).toBe(true);
      }),
    ));

  test("a tenant is addressed by host, header or path", () => {
    expect(address({ by: "host", suffix: "shop.localhost" }, "acme", "/orders")).toEqual({ path: "/orders", headers: { host: "acme.shop.localhost" } });
    expect(address({ by: "header", header: "x-tenant" }, "acme", "/orders")).toEqual({ path: "/orders", headers: { "x-tenant": "acme" } });
    expect(address({ by: "path", prefix: "/t/" }, "acme", "/orders")).toEqual({ path: "/t/acme/orders", headers: {} });
  });

  test("T2: the times shown are within 2.5 % of the true ones", () =>
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0.01, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 300 }), fc.constantFrom(0.5, 0.9, 0.99, 1), (times, share) => {
        const seen = histogram();
        for (const time of times) seen.add(time);
        const exact = times.toSorted((a, b) => a - b)[Math.ceil(times.length * share) - 1] ?? 0;
        expect(Math.abs(seen.at(share) - exact) / exact).toBeLessThan(0.025);
      }),
    ));

  test("T7: a pause goes from the first request that failed to the next success, and may still go on", () => {
    const seen = pauses();
    seen.succeeded("a", 0, 5);
    expect(seen.longest(5)).toEqual({ tenant: "a", ms: 5 });
    seen.failed("b", 100);
    seen.failed("b", 150);
    // Sent before the failures: says nothing about when they ended.
    seen.succeeded("b", 90, 160);
    expect(seen.longest(160)).toEqual({ tenant: "b", ms: 70 });
    seen.succeeded("b", 200, 210);
    expect(seen.longest(9999)).toEqual({ tenant: "b", ms: 110 });
    seen.failed("c", 10_000);
    expect(seen.longest(10_500)).toEqual({ tenant: "c", ms: 500 });
  });
});

test("T1: what a connection does is told apart: refused, reset, half an answer, none in time", async () => {
  const answers: Record<string, (socket: Socket) => unknown> = {
    "/whole": (socket) => socket.end("HTTP/1.1 503 Later\r\nretry-after: 2\r\ncontent-length: 2\r\n\r\n{}"),
    "/half": (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", () => socket.destroy()),
    "/reset": (socket) => socket.destroy(),
    "/never": () => undefined,
    "/slow": (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
  };
  const server = createTcpServer((socket) => socket.on("error", () => undefined).once("data", (head) => answers[String(head).split(" ")[1] ?? ""]?.(socket))).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const client = openClient({ target: `http://127.0.0.1:${port}`, addressing: { by: "header", header: "x-tenant" }, timeoutMs: 150, connectionsMax: 9 });
  const ask = async (path: string) => (await client.send("acme", { method: "GET", path })).status;
  expect(await client.send("acme", { method: "GET", path: "/whole" })).toEqual({ status: 503, retryAfterSeconds: 2, body: {} });
  expect(await Promise.all(["/half", "/reset", "/never", "/slow"].map(ask))).toEqual(["reset", "reset", "timeout", "timeout"]);
  server.close();
  client.close();
  await once(server, "close");
  expect(await ask("/")).toBe("refused");
});

describe("the journal", () => {
  const head = { run: "run1", target: "http://router", addressing: { by: "header", header: "x-tenant" } } as const;
  const onFailure = (error: Error) => expect.fail(error.message);

  test("T4: what was recorded is read back, with the run's end", async () => {
    const journal = await openJournal({ folder, head, bytesMax: 1e6, onFailure });
    journal.record(1, "acme", "ok");
    journal.record(0, "globex", "unknown");
    journal.record(3000, "acme", "rejected");
    await expect.poll(() => readJournal(folder, null).then(({ next, complete }) => ({ next, complete }), () => null), soon).toEqual({ next: 3001, complete: false });
    await journal.end(3002);
    const recorded = await readJournal(folder, null);
    expect(recorded).toMatchObject({ ...head, complete: true, from: 0, next: 3002, tenants: ["acme", "globex"] });
    expect([0, 1, 2, 3000, 3001, 99_999].map((n) => [recorded.outcomeOf(n), recorded.tenantOf(n)])).toEqual([["unknown", 1], ["ok", 0], [null, -1], ["rejected", 0], [null, -1], [null, -1]]);
  });

  test("T4: a generator killed at any byte leaves a journal that can be read", async () => {
    const journal = await openJournal({ folder, head, bytesMax: 1e6, onFailure });
    for (let i = 0; i < 5; i++) journal.record(i, "acme", "ok");
    await journal.end(5);
    const file = join(folder, "run1.0001.ndjson");
    const whole = await readFile(file);
    const firstLine = whole.indexOf("\n");
    for (let bytes = firstLine; bytes < whole.length; bytes++) {
      await writeFile(file, whole.subarray(0, bytes));
      const { next, outcomeOf } = await readJournal(folder, "run1");
      for (let n = 0; n < next; n++) expect(outcomeOf(n)).toBe("ok");
    }
  });

  test("T4: it stays within its bytes by dropping the oldest, and says from where it still knows", async () => {
    await writeFile(join(folder, "run0.0001.ndjson"), "x".repeat(5000));
    const journal = await openJournal({ folder, head, bytesMax: 8000, onFailure });
    for (let i = 0; i < 1000; i++) {
      // Answers come out of order.
      journal.record(i ^ 1, "acme", "ok");
      if (i % 50 === 49) await pause(110);
    }
    await journal.end(1000);
    const sizes = await Promise.all((await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size));
    // One flush may overshoot a segment.
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(8000 + 2500);
    expect(await readdir(folder)).not.toContain("run0.0001.ndjson");
    const { from, next, outcomeOf } = await readJournal(folder, null);
    expect(from).toBeGreaterThan(0);
    for (let n = from; n < next; n++) expect(outcomeOf(n)).toBe("ok");
  });

  test("T4: the newest run is meant unless another is named, and none is said", async () => {
    for (const run of ["aaa", "aab"]) await (await openJournal({ folder, head: { ...head, run }, bytesMax: 1e6, onFailure })).end(0);
    expect((await readJournal(folder, null)).run).toBe("aab");
    expect((await readJournal(folder, "aaa")).run).toBe("aaa");
    await expect(readJournal(folder, "aac")).rejects.toThrow(/no journal of run aac/);
  });
});

describe("on a running shop", () => {
  let database: Awaited<ReturnType<typeof shopDatabase>>;
  let shop: RunningShop;
  let router: TestRouter;
  beforeAll(async () => {
    database = await shopDatabase();
    shop = await startShop(database.url);
  });
  afterAll(async () => {
    await shop.stop();
    await database.drop();
  });
  afterEach(() => router.stop());

  /** No more at once than the shop has connections: what a busy machine makes wait is unsent, and not refused. */
  const load = (options: Partial<LoadOptions> = {}) =>
    startLoad({
      target: router.url, addressing: { by: "header", header: "x-tenant" }, tenants: async () => ["acme", "globex", "initech"], refreshMs: 50, requestsPerSecond: 100, readShare: 0.3,
      timeoutMs: 30_000, inFlightMax: 6, journal: { folder, bytesMax: 1e7 }, retry: false, warn: () => undefined, ...options,
    });
  /** Sends until so many writes were acknowledged. */
  const traffic = async (writes: number, options: Partial<LoadOptions> = {}): Promise<Seen> => {
    const running = await load(options);
    await expect.poll(() => running.seen().writesAcknowledged, soon).toBeGreaterThanOrEqual(writes);
    return running.stop();
  };
  const verify = async (present: ReadonlySet<string> | null = null): Promise<Verdict> => check(await readJournal(folder, null), { target: null, patienceMs: 300, present });
  const faultless = { lost: 0, duplicated: 0, ghosts: 0, misplaced: 0, unexplained: 0, ledgersOff: 0, tenantsUnverified: 0 };

  test("T3, T5: good traffic fails nowhere, arrives once each, and checks out", async () => {
    router = await startRouter({ port: () => shop.port });
    const seen = await traffic(120);
    expect(seen.failures).toEqual({});
    expect(seen).toMatchObject({ rejected: 0, unknown: 0, inFlight: 0, tenants: 3 });
    expect(seen.requests).toBe(router.requests);
    expect([...router.arrived.values()].every((times) => times === 1)).toBe(true);
    expect(router.arrived.size).toBe(seen.writesAcknowledged);
    const verdict = await verify();
    expect(verdict).toMatchObject({ ...faultless, tenantsChecked: 3, writesChecked: seen.writesAcknowledged, unknownApplied: 0, examples: [] });
    expect(isBroken(verdict)).toBe(false);
  });

  test("T5: lost answers and refusals are no broken promise", async () => {
    let n = 0;
    let calm = false;
    router = await startRouter({ port: () => shop.port, mischief: () => (calm ? "none" : (["none", "lose", "none", "unavailable", "refuse"] as const)[n++ % 5]) ?? "none" });
    const seen = await traffic(100);
    calm = true;
    expect(seen.failures).toEqual({ reset: expect.any(Number), 503: expect.any(Number) });
    const verdict = await verify();
    expect(verdict).toMatchObject(faultless);
    expect(verdict.unknownApplied).toBeGreaterThan(0);
    expect(verdict.unknownApplied).toBeLessThan(seen.unknown);
  });

  test("T5: a router that sends a write twice is found out, though the shop applies it once", async () => {
    let twice = 0;
    router = await startRouter({ port: () => shop.port, mischief: (request) => (request.method === "PATCH" && ++twice ? "twice" : "none") });
    await traffic(150, { readShare: 0 });
    expect(twice).toBeGreaterThan(0);
    const verdict = await verify();
    expect(verdict).toMatchObject({ ...faultless, duplicated: twice });
    expect(isBroken(verdict)).toBe(true);
  });

  test("T5: a write that was said to be rejected and is there is found out", async () => {
    let lies = 0;
    router = await startRouter({ port: () => shop.port, mischief: (request) => (request.method === "DELETE" && ++lies ? "lie" : "none") });
    await traffic(150, { readShare: 0 });
    expect(lies).toBeGreaterThan(0);
    // The generator believes that the order can still be paid or cancelled, and is told that it cannot.
    expect(await verify()).toMatchObject({ ...faultless, ghosts: expect.toSatisfy((ghosts: number) => ghosts > 0 && ghosts <= lies) });
  });

  test("T5: a write that reaches another tenant is found out", async () => {
    let astray = 0;
    const tenantOf = (named: string, { url }: IncomingMessage) => (named === "acme" && url === "/accounts" && astray++ === 0 ? "globex" : named);
    router = await startRouter({ port: () => shop.port, tenantOf });
    await traffic(100, { readShare: 0 });
    expect(await verify()).toMatchObject({ ...faultless, misplaced: 1, lost: 1 });
  });

  /** What a broken store or a careless move would do, by hand, to one acknowledged operation of acme's. */
  const damage: [string, string, Partial<Verdict>][] = [
    ["an order with all that belongs to it is gone", `
      with o as (select o.operation_id as op, o.order_id as id from operation o where tenant_id = 'acme' and kind = 'order.placed' and starts_with(operation_id, $1)
        and not exists (select from operation n where n.tenant_id = o.tenant_id and n.order_id = o.order_id and n.operation_id <> o.operation_id) limit 1),
      e as (delete from event using o where tenant_id = 'acme' and operation_id = o.op),
      b as (update account a set balance_cents = balance_cents - l.amount_cents from ledger_entry l, o where l.tenant_id = 'acme' and l.operation_id = o.op and a.tenant_id = 'acme' and a.id = l.account_id),
      l as (delete from ledger_entry using o where tenant_id = 'acme' and operation_id = o.op),
      i as (delete from order_line using o where tenant_id = 'acme' and order_id = o.id),
      d as (delete from orders using o where tenant_id = 'acme' and orders.id = o.id)
      delete from operation using o where tenant_id = 'acme' and operation_id = o.op`, { lost: 1 }],
    ["an event is gone", "delete from event where id = (select max(id) from event where tenant_id = 'acme' and starts_with(operation_id, $1))", { lost: 1 }],
    ["an operation was applied twice", "insert into event (tenant_id, operation_id, kind, data) select tenant_id, operation_id, kind, data from event where tenant_id = 'acme' and starts_with(operation_id, $1) limit 1", { duplicated: 1 }],
    ["an operation of the run is there that nobody sent", "with e as (insert into event (tenant_id, operation_id, kind, data) values ('acme', $1 || '-zzzzzzzz', 'made-up', '{}')) insert into operation (tenant_id, operation_id, kind) values ('acme', $1 || '-zzzzzzzz', 'made-up')", { unexplained: 1 }],
    ["half of an entry is gone", "delete from ledger_entry where id = (select max(id) from ledger_entry where tenant_id = 'acme' and starts_with(operation_id, $1))", { ledgersOff: 1 }],
    ["a balance was overwritten by an older one", "update account set balance_cents = balance_cents - 1 where tenant_id = 'acme' and name = 'revenue'", { ledgersOff: 1 }],
    ["a line came back", "insert into order_line (tenant_id, order_id, sku, quantity, price_cents) select tenant_id, order_id, sku, 1, 5 from order_line where tenant_id = 'acme' limit 1", { ledgersOff: 1 }],
    ["an order's payment was undone, its event was not", "update orders set state = 'placed' where (tenant_id, id) = (select tenant_id, id from orders where tenant_id = 'acme' and state = 'paid' limit 1)", { ledgersOff: 1 }],
    ["an event came without its operation", "insert into event (tenant_id, operation_id, kind, data) values ('acme', 'someone-else', 'made-up', to_jsonb($1::text))", { ledgersOff: 1 }],
  ];

  test("T5: nine kinds of damage are each found out, and named", async () => {
    router = await startRouter({ port: () => shop.port });
    for (const [what, sql, found] of damage) {
      await database.query("truncate operation, account, orders, order_line, ledger_entry, event cascade");
      const { run } = await traffic(80, { readShare: 0, requestsPerSecond: 200, tenants: async () => ["acme", "globex"] });
      expect({ what, ...(await verify()) }).toMatchObject({ what, ...faultless });
      await database.query(sql, sql.includes("$1") ? [run] : []);
      const verdict = await verify();
      expect({ what, ...verdict }).toMatchObject({ what, ...faultless, ...found });
      expect(verdict.examples[0]).toMatch(/acme/);
    }
    await database.query("truncate operation, account, orders, order_line, ledger_entry, event cascade");
  });

  test("T5: a tenant that cannot be asked is not passed over, unless it departed", async () => {
    let gone = false;
    router = await startRouter({ port: () => shop.port, mischief: (_request, tenant) => (gone && tenant === "globex" ? "unavailable" : "none") });
    await traffic(50);
    gone = true;
    expect(await verify()).toMatchObject({ ...faultless, tenantsUnverified: 1, tenantsChecked: 2 });
    expect(await verify(new Set(["acme", "initech"]))).toMatchObject({ ...faultless, tenantsDeparted: 1, tenantsChecked: 2 });
  });

  test("T2, T7: requests leave on time while answers are slow, and the delay shows", async () => {
    router = await startRouter({ port: () => shop.port });
    shop.config.latencyMs = 400;
    const running = await load({ requestsPerSecond: 100, inFlightMax: 500, readShare: 1 });
    await expect.poll(() => running.seen().inFlight, { ...soon, interval: 10 }).toBeGreaterThan(25);
    await expect.poll(() => running.seen().ok, soon).toBeGreaterThan(20);
    shop.config.latencyMs = 0;
    const seen = await running.stop();
    expect(seen.p50Ms).toBeGreaterThan(380);
    expect(seen.longestPauseMs).toBeGreaterThan(400);
  });

  test("T2: more under way than allowed is counted and not sent", async () => {
    router = await startRouter({ port: () => shop.port });
    shop.config.latencyMs = 200;
    const running = await load({ requestsPerSecond: 300, inFlightMax: 5, readShare: 1 });
    await expect.poll(() => running.seen().unsent, soon).toBeGreaterThan(10);
    expect(running.seen().inFlight).toBeLessThanOrEqual(5);
    shop.config.latencyMs = 0;
    await running.stop();
  });

  test("T3: what was rejected is asked again only when wanted, and then as a new operation", async () => {
    let refuse = true;
    router = await startRouter({ port: () => shop.port, mischief: () => (refuse ? "unavailable" : "none") });
    const running = await load({ retry: true, requestsPerSecond: 20, readShare: 0 });
    await expect.poll(() => running.seen().rejected, soon).toBeGreaterThan(30);
    refuse = false;
    await expect.poll(() => running.seen().ok, soon).toBeGreaterThan(5);
    await running.stop();
    expect([...router.arrived.values()].every((times) => times === 1)).toBe(true);
    expect(await verify()).toMatchObject(faultless);
  });

  test("T6: tenants come and go, and a source that fails changes nothing", async () => {
    const asked = new Set<string>();
    router = await startRouter({
      port: () => shop.port,
      mischief: (_request, tenant) => {
        asked.add(tenant);
        return "none";
      },
    });
    let source: () => string[] = () => ["first"];
    const warnings: string[] = [];
    const running = await load({ tenants: async () => source(), warn: (line) => warnings.push(line) });
    await expect.poll(() => [...asked], soon).toEqual(["first"]);
    source = () => ["second"];
    await expect.poll(() => [...asked], soon).toEqual(["first", "second"]);
    source = () => {
      throw new Error("the control plane is down");
    };
    await expect.poll(() => warnings.length, soon).toBeGreaterThan(2);
    asked.clear();
    await expect.poll(() => [...asked], soon).toEqual(["second"]);
    // The first comes back as another customer with the same name: nothing is expected to be there.
    for (const table of ["order_line", "ledger_entry", "orders", "account", "operation", "event"]) await database.query(`delete from ${table} where tenant_id = 'first'`);
    asked.clear();
    source = () => ["first"];
    await expect.poll(() => [...asked], soon).toEqual(["second", "first"]);
    const before = running.seen().writesAcknowledged;
    await expect.poll(() => running.seen().writesAcknowledged, soon).toBeGreaterThan(before + 30);
    expect((await running.stop()).failures).toEqual({});
  });
});

describe("where tenants come from", () => {
  const { signal } = new AbortController();

  test("T6: a file, as lines or JSON, as it is now", async () => {
    const file = join(folder, "tenants");
    const tenants = tenantsOfFile(file);
    await writeFile(file, "acme\n\n globex \n");
    expect(await tenants(signal)).toEqual(["acme", "globex"]);
    await writeFile(file, '["initech", 7, ""]');
    expect(await tenants(signal)).toEqual(["initech"]);
  });

  test("T6: the control plane's list, page by page, active ones only", async () => {
    const server = createServer((request, response) => {
      const cursor = new URL(request.url ?? "", "http://x").searchParams.get("cursor");
      if (request.headers.authorization !== "Bearer token-1") return void response.writeHead(401).end("{}");
      const items = cursor === null ? [{ name: "a", state: "active" }, { name: "b", state: "suspended" }] : [{ name: "c", state: "active" }];
      response.end(JSON.stringify({ items, nextCursor: cursor === null ? "more & more" : null }));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect(await tenantsOfApi(url, async () => "token-1")(signal)).toEqual(["a", "c"]);
    await expect(tenantsOfApi(url, async () => "")(signal)).rejects.toThrow(/401/);
    server.close().closeAllConnections();
  });
});
