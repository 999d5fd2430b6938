import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Applied, Audit } from "./model.ts";
import { shopDatabase, startShop, type RunningShop } from "./testing/shop.ts";
import { startRouter, type TestRouter } from "./testing/router.ts";

let database: Awaited<ReturnType<typeof shopDatabase>>;
let shops: Record<"read committed" | "serializable", RunningShop>;
let router: TestRouter;
let current: "read committed" | "serializable" = "read committed";

beforeAll(async () => {
  database = await shopDatabase();
  shops = { "read committed": await startShop(database.url), serializable: await startShop(database.url, { isolation: "serializable" }) };
  router = await startRouter({ port: () => shops[current].port });
});
afterAll(async () => {
  await router.stop();
  await Promise.all(Object.values(shops).map((shop) => shop.stop()));
  await database.drop();
});

async function call<T = Record<string, unknown>>(tenant: string, method: string, path: string, { id, body }: { id?: string; body?: unknown } = {}): Promise<{ status: number; headers: Headers; body: T }> {
  const headers = { "x-tenant": tenant, ...(id !== undefined && { "idempotency-key": id }) };
  const response = await fetch(`${router.url}${path}`, { method, headers, ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }) });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: (response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text) as T };
}

const items = (...cents: number[]) => cents.map((priceCents, i) => ({ sku: `sku-${i}`, quantity: i + 1, priceCents }));
const open = (tenant: string) => call(tenant, "POST", "/accounts", { id: "open", body: { name: "ada" } });
const place = (tenant: string, id: string, cents = 1000) => call<Applied>(tenant, "POST", "/orders", { id, body: { account: "ada", items: items(cents, 1) } });
const inOrder: Omit<Audit, "operations"> = { entriesCents: 0, operationsOff: 0, accountsOff: 0, ordersOff: 0, eventsStray: 0 };
const audit = async (tenant: string) => (await call<Audit>(tenant, "GET", "/audit")).body;

test("an order goes from placed to paid, another is amended and cancelled, and the ledger follows", async () => {
  await open("story");
  const first = (await place("story", "a")).body.order?.id;
  expect((await call<Applied>("story", "POST", `/orders/${first}/pay`, { id: "b" })).body).toMatchObject({ replayed: false, order: { state: "paid", totalCents: 1002, version: 2 } });
  const second = (await place("story", "c", 50)).body.order?.id;
  expect((await call<Applied>("story", "PATCH", `/orders/${second}`, { id: "d", body: { items: items(70) } })).body.order).toMatchObject({ totalCents: 70, version: 2 });
  expect(await call("story", "GET", "/balance")).toMatchObject({ body: { accounts: [{ name: "cash", balanceCents: 1002 }, { name: "revenue", balanceCents: -1072 }, { name: "ada", balanceCents: 70 }] } });
  expect((await call<Applied>("story", "DELETE", `/orders/${second}`, { id: "e" })).body.order).toMatchObject({ state: "cancelled", version: 3 });
  expect((await call<{ items: unknown[] }>("story", "GET", "/orders")).body.items).toEqual([
    { id: second, account: "ada", state: "cancelled", totalCents: 70, version: 3 },
    { id: first, account: "ada", state: "paid", totalCents: 1002, version: 2 },
  ]);
  expect((await call<{ items: { kind: string }[] }>("story", "GET", "/events")).body.items.map(({ kind }) => kind)).toEqual(["account.opened", "order.placed", "order.paid", "order.placed", "order.amended", "order.cancelled"]);
  expect(await audit("story")).toEqual({ operations: 6, ...inOrder });
  const page = await call<string>("story", "GET", "/");
  expect(page.headers.get("x-shop-version")).toBe("1");
  for (const shown of ["story", "eu-1", "<dd>1</dd>"]) expect(page.body).toContain(shown);
});

describe.each(["read committed", "serializable"] as const)("at %s", (isolation) => {
  const tenant = isolation.replace(" ", "-");
  beforeAll(async () => {
    current = isolation;
    await open(tenant);
  });
  afterAll(() => void (current = "read committed"));

  test("S1: twelve requests with one operation id are one order", async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => place(tenant, "the-one")));
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(11).fill(200), 201]);
    expect(new Set(answers.map(({ body }) => body.order?.id)).size).toBe(1);
    const { items } = (await call<{ items: unknown[] }>(tenant, "GET", "/operations?after=open")).body;
    expect(items).toEqual([{ operationId: "the-one", events: 1, deliveries: 12 }]);
  });

  test("S2: the books add up while many requests work on the same orders", async () => {
    const placed = await Promise.all(Array.from({ length: 10 }, (_, i) => place(tenant, `place-${i}`, i)));
    const answers = await Promise.all(
      placed.flatMap(({ body }, i) => {
        const path = `/orders/${body.order?.id}`;
        return [
          call(tenant, "POST", `${path}/pay`, { id: `pay-${i}` }),
          call(tenant, "DELETE", path, { id: `cancel-${i}` }),
          call(tenant, "PATCH", path, { id: `amend-${i}`, body: { items: items(i * 7) } }),
          audit(tenant).then((seen) => ({ status: JSON.stringify({ ...seen, operations: 0 }) === JSON.stringify({ operations: 0, ...inOrder }) ? 200 : 599 })),
        ];
      }),
    );
    // Of paying and cancelling one wins; amending comes before or too late.
    expect(answers.every(({ status }) => status === 200 || status === 201 || status === 409)).toBe(true);
    expect(answers.filter(({ status }) => status === 201).length).toBeGreaterThanOrEqual(10);
    expect(await audit(tenant)).toMatchObject(inOrder);
  });
});

test("S4: bad input is refused and leaves nothing", async () => {
  await open("strict");
  const order = (await place("strict", "first")).body.order?.id;
  const before = await audit("strict");
  const good = { account: "ada", items: items(5) };
  const refused: [number, string, string, unknown, string | undefined][] = [
    [400, "POST", "/orders", good, undefined],
    [400, "POST", "/orders", good, "x".repeat(101)],
    [400, "POST", "/orders", "{", "id"],
    [400, "POST", "/orders", "[]", "id"],
    [400, "POST", "/orders", "null", "id"],
    [400, "POST", "/orders", { ...good, items: [] }, "id"],
    [400, "POST", "/orders", { ...good, items: [null] }, "id"],
    [400, "POST", "/orders", { ...good, items: [{ sku: "s", quantity: 0, priceCents: 1 }] }, "id"],
    [400, "POST", "/orders", { ...good, items: [{ sku: "s", quantity: 1, priceCents: 0.5 }] }, "id"],
    [400, "POST", "/orders", { ...good, items: [{ sku: "s", quantity: 1, priceCents: "1" }] }, "id"],
    [400, "POST", "/orders", { account: 7, items: items(1) }, "id"],
    [404, "POST", "/orders", { ...good, account: "nobody" }, "id"],
    [404, "POST", "/orders", { ...good, account: "cash" }, "id"],
    [404, "POST", "/orders", { ...good, account: "' or true --" }, "id"],
    [413, "POST", "/orders", { ...good, padding: "x".repeat(70_000) }, "id"],
    [400, "POST", "/accounts", { name: "cash" }, "id"],
    [400, "POST", "/accounts", {}, "id"],
    [409, "POST", "/accounts", { name: "ada" }, "id"],
    [409, "POST", "/accounts", { name: "bob" }, "first"],
    [404, "POST", "/orders/999999999/pay", undefined, "id"],
    [404, "POST", `/orders/${order}/eat`, undefined, "id"],
    [404, "POST", "/orders/1e3/pay", undefined, "id"],
    [404, "PUT", "/orders", good, "id"],
    [404, "GET", "/constructor", undefined, undefined],
    [404, "GET", "//", undefined, undefined],
  ];
  for (const [status, method, path, body, id] of refused) {
    const answer = await call("strict", method, path, { ...(id !== undefined && { id }), ...(body !== undefined && { body }) });
    expect({ method, path, body, status: answer.status, type: answer.headers.get("content-type") }).toEqual({ method, path, body, status, type: "application/problem+json" });
  }
  expect(await audit("strict")).toEqual(before);
});

test("S5: a tenant neither sees nor changes another's rows", async () => {
  await Promise.all([open("ours"), open("theirs")]);
  const theirs = (await place("theirs", "x")).body.order?.id;
  for (const [method, path] of [["POST", `/orders/${theirs}/pay`], ["DELETE", `/orders/${theirs}`], ["PATCH", `/orders/${theirs}`]] as const) {
    expect((await call("ours", method, path, { id: "y", ...(method === "PATCH" && { body: { items: items(1) } }) })).status).toBe(404);
  }
  // The same operation id is another operation with another tenant.
  expect((await place("ours", "x")).body.replayed).toBe(false);
  expect((await call<{ items: unknown[] }>("ours", "GET", "/orders")).body.items).toHaveLength(1);
  expect((await call<{ items: { id: number; state: string }[] }>("theirs", "GET", "/orders")).body.items).toMatchObject([{ id: theirs, state: "placed" }]);
});

test("S7: without its database the shop says that nothing was applied", async () => {
  await open("patient");
  const name = new URL(database.url).pathname.slice(1);
  // A database cannot be closed from within.
  const outside = new pg.Client({ connectionString: Object.assign(new URL(database.url), { pathname: "/postgres" }).href });
  await outside.connect();
  try {
    await outside.query(`alter database ${name} allow_connections false`);
    await outside.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = 'shop'", [name]);
    const answer = await place("patient", "late");
    expect(answer).toMatchObject({ status: 503, body: { code: "not_applied" } });
    expect(answer.headers.get("retry-after")).toBe("1");
    expect((await fetch(`http://127.0.0.1:${shops["read committed"].port}/ready`)).status).toBe(503);
  } finally {
    await outside.query(`alter database ${name} allow_connections true`);
    await outside.end();
  }
  expect((await place("patient", "latest")).status).toBe(201);
  expect((await call<{ items: { operationId: string }[] }>("patient", "GET", "/operations")).body.items.map(({ operationId }) => operationId)).toEqual(["latest", "open"]);
});

test("S7: when the connection breaks during the commit nobody is told to try again", async () => {
  await open("unlucky");
  await database.query("create function die() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5); return new; end $$");
  await database.query("create constraint trigger die after insert on orders deferrable initially deferred for each row when (new.tenant_id = 'unlucky') execute function die()");
  const answer = await place("unlucky", "who-knows");
  expect(answer).toMatchObject({ status: 500, body: { code: "outcome_unknown" } });
  expect(answer.headers.get("retry-after")).toBeNull();
  await database.query("drop trigger die on orders");
  expect(await place("unlucky", "who-knows")).toMatchObject({ status: 201, body: { replayed: false } });
});

test("S8: what the database's fence refuses is answered 421 and has no effect", async () => {
  await open("moved");
  await database.query(`create function refuse() returns trigger language plpgsql as $$ begin if new.tenant_id = 'moved' then raise exception 'fenced' using errcode = 'CP001'; end if; return new; end $$`);
  // Deferred, so that it is the commit that fails.
  for (const [name, when] of [["at_write", "before insert on order_line for each row"], ["at_commit", "after insert on order_line deferrable initially deferred for each row"]] as const) {
    await database.query(`create ${name === "at_commit" ? "constraint " : ""}trigger ${name} ${when} execute function refuse()`);
    expect(await place("moved", name)).toMatchObject({ status: 421, body: { code: "route_stale", data: { tenant: "moved" } } });
    await database.query(`drop trigger ${name} on order_line`);
  }
  expect(await audit("moved")).toEqual({ operations: 1, ...inOrder });
});

test("what the cell's configuration turns is turned at once: failures before any effect, waiting, the banner", async () => {
  await open("tuned");
  const { config } = shops["read committed"];
  Object.assign(config, { errorRate: 1, banner: "sale & more" });
  expect(await place("tuned", "a")).toMatchObject({ status: 500, body: { code: "injected" } });
  Object.assign(config, { errorRate: 0, latencyMs: 60 });
  const startedMs = performance.now();
  expect((await call<string>("tuned", "GET", "/")).body).toContain("sale &#38; more");
  expect(performance.now() - startedMs).toBeGreaterThanOrEqual(59);
  Object.assign(config, { latencyMs: 0, banner: "" });
  expect((await audit("tuned")).operations).toBe(1);
});
