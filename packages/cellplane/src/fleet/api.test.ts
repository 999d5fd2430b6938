import { afterAll, beforeAll, expect, test } from "vitest";
import type { CellplaneError } from "../base/errors.ts";
import { cellHandlers } from "../cell/api.ts";
import { reserve } from "../cell/store.ts";
import { openPlane } from "../cell/testing/plane.ts";
import type { Handler } from "../http/contract.ts";
import { routePublisher } from "../routing/store.ts";
import { listOperations } from "../workflow/store.ts";
import { fleetHandlers, type HashedPlan } from "./api.ts";
import type { StoredFleet } from "./model.ts";
import { parseFleet } from "./parse.ts";
import { fleetWorkflows } from "./steps.ts";
import { createFleetStore, type FleetStore } from "./store.ts";

let plane: Awaited<ReturnType<typeof openPlane>>;
let fleets: FleetStore;
let handlers: Handler[];
beforeAll(async () => {
  plane = await openPlane({
    more: ({ store }) => {
      fleets = createFleetStore(store);
      return fleetWorkflows({ fleets, routes: routePublisher });
    },
  });
  const start = (tx: Parameters<typeof plane.startRun>[2], workflow: string, input: unknown) => plane.startRun(workflow, input, tx);
  handlers = [
    ...fleetHandlers({ fleets, cells: plane.cells, parse: parseFleet, drivers: { fake: plane.fake }, start }),
    ...cellHandlers({ cells: plane.cells, driver: plane.driver, specOf: fleets.specOf, start }),
  ];
});
afterAll(() => plane.close());

interface Asked {
  params?: Record<string, string>;
  query?: Record<string, unknown>;
  body?: unknown;
  role?: string;
  dryRun?: boolean;
  ifMatch?: number;
}

/** Calls a handler as the server would. */
async function call<R>(id: string, { params = {}, query = {}, body = {}, role = "admin", dryRun = false, ifMatch }: Asked = {}): Promise<R> {
  const found = handlers.find(({ endpoint }) => endpoint.id === id);
  if (!found) throw new Error(`no endpoint ${id}`);
  const { endpoint } = found;
  const given = {
    params: endpoint.params.parse(params), query: endpoint.query.parse(query), body: endpoint.body.parse(body), caller: { name: "test", role }, ifMatch: ifMatch ?? null, reason: null, dryRun, signal: AbortSignal.timeout(20_000),
    mutate: (work: never) => plane.store.transaction(work, { dryRun }),
  };
  const answer = await found.handle(given as never);
  return endpoint.returns.parse(answer) as R;
}

interface Applied {
  plan: HashedPlan;
  operation: string | null;
}

interface FileOf {
  version?: string;
  tenants?: number;
  config?: string;
  cells?: string[];
  more?: string;
}
const fileOf = ({ version = "1", tenants = 10, config = "{}", cells = ["eu-1", "eu-2", "us-1"], more = "" }: FileOf = {}): string => `fleet: demo
regions:
  eu:
  us: { spare: true }
blueprints:
  shop:
    driver: fake
    version: "${version}"
    services: { app: { command: [app], ports: { http: auto } } }
    config: ${config}
    capacity: { tenants: ${tenants} }
cells:
${cells.map((cell) => `  ${cell}: { region: ${cell.slice(0, 2)}, blueprint: shop }`).join("\n")}
${more}`;

const bodyOf = (text: string, more: Record<string, unknown> = {}) => ({ text, file: "cellplane.yaml", baseDirectory: "/srv/shop", ...more });
const planned = (text: string, more = {}): Promise<HashedPlan> => call("planFleet", { body: bodyOf(text, more) });
/** Applies it, waits, and answers how it ended. */
async function applied(text: string, more: Record<string, unknown> = {}) {
  const answer = await call<Applied>("applyFleet", { body: bodyOf(text, more) });
  return { ...answer, run: answer.operation === null ? null : await plane.wait(answer.operation) };
}
const actions = (plan: HashedPlan): string[] => plan.cells.map(({ cell, action }) => `${cell} ${action}`);
const versions = async (): Promise<Record<string, string>> => Object.fromEntries((await plane.cells.all()).map((cell) => [cell.name, `${cell.state} ${cell.version}`]));

test("F3, F5: applying makes the cells, publishes the rules, and the second apply does nothing", async () => {
  const plan = await planned(fileOf());
  expect(actions(plan)).toEqual(["eu-1 create", "eu-2 create", "us-1 create"]);
  expect(await plane.cells.all()).toEqual([]);
  await expect(call("getFleet")).rejects.toMatchObject({ code: "fleet_missing" });

  const { run } = await applied(fileOf(), { hash: plan.hash });
  expect(run).toMatchObject({ state: "succeeded", subject: "fleet/demo" });
  expect(await versions()).toEqual({ "eu-1": "active 1", "eu-2": "active 1", "us-1": "active 1" });
  expect(await call<StoredFleet>("getFleet")).toMatchObject({ generation: 1, baseDirectory: "/srv/shop", fleet: { fleet: "demo" } });
  expect((await plane.store.query("select rules from route_head"))[0]).toEqual({ rules: [{ by: "host" }] });
  expect(await fleets.settings()).toMatchObject({ policy: { strategy: "shared" }, regions: ["eu", "us"] });

  expect(await applied(fileOf())).toMatchObject({ operation: null, run: null });
  expect((await call<StoredFleet>("getFleet")).generation).toBe(1);
});

test("F4: a plan that has become another is not applied", async () => {
  const { hash } = await planned(fileOf({ tenants: 20 }));
  await call("cordonCell", { params: { cell: "eu-1" } });
  await expect(applied(fileOf({ tenants: 20 }), { hash })).rejects.toMatchObject({ code: "plan_stale" });
  await call("uncordonCell", { params: { cell: "eu-1" } });
  expect((await plane.now("eu-1")).capacity.tenants).toBe(10);
});

test("F4: of two applies decided from the same fleet, the second to come is refused", async () => {
  const decided = await Promise.all([21, 22].map(async (tenants) => ({ text: fileOf({ tenants }), plan: await planned(fileOf({ tenants })) })));
  const started = await Promise.all(
    decided.map(({ text, plan }) => plane.startRun("fleet.apply", { wanted: { fleet: parseFleet(text, "cellplane.yaml").fleet, file: "cellplane.yaml", baseDirectory: "/srv/shop" }, plan })),
  );
  const runs = await Promise.all(started.map((run) => plane.wait(run)));
  expect(runs.map(({ state }) => state).sort()).toEqual(["failed", "succeeded"]);
  expect(runs.find(({ state }) => state === "failed")?.error?.code).toBe("generation_stale");
});

test("F9, F8: a change that a cell does not take reaches no other, and the next apply goes on", async () => {
  await plane.store.transaction((tx) => reserve(tx, [{ cell: "eu-1", load: { tenants: 2 } }]));
  const { run } = await applied(fileOf({ version: "2", config: "{ broken: exits at once }", cells: ["eu-1", "eu-2", "us-1", "eu-3"] }));
  expect(run).toMatchObject({ state: "failed", error: { code: "fleet_incomplete" } });
  // eu-3 is new, and made from the same broken blueprint.
  expect(run?.error?.message).toMatch(/^not as the fleet file says: eu-3: .*exits at once.* \(operation op-\w+\)$/);
  expect(await versions()).toMatchObject({ "eu-1": "active 1", "eu-2": "active 1", "us-1": "active 1", "eu-3": "failed 2" });

  const again = await applied(fileOf({ version: "2", config: "{ broken: exits at once }" }));
  expect(again.run?.error?.message).toContain("eu-2: cell eu-2 did not take the update and runs as before: exits at once");
  expect((await listOperations(plane.store, { workflow: "cell.update", parent: again.run?.id })).items.map(({ subject }) => subject)).toEqual(["cell/eu-2"]);
  expect(await versions()).toMatchObject({ "eu-1": "active 1", "eu-2": "active 1", "us-1": "active 1" });

  expect((await applied(fileOf({ version: "3", cells: ["eu-1", "eu-2", "us-1", "eu-3"] }))).run?.state).toBe("succeeded");
  expect(await versions()).toEqual({ "eu-1": "active 3", "eu-2": "active 3", "us-1": "active 3", "eu-3": "active 3" });
});

test("F6: an absent cell is kept, and pruned only when told to, only when empty, only by an admin", async () => {
  const text = fileOf({ version: "3", cells: ["eu-2"] });
  expect((await applied(text)).run?.state).toBe("succeeded");
  expect(Object.keys(await versions())).toEqual(["eu-1", "eu-2", "eu-3", "us-1"]);
  await expect(call("applyFleet", { body: bodyOf(text, { prune: true }), role: "operator" })).rejects.toMatchObject({ code: "forbidden" });

  const pruned = await applied(text, { prune: true });
  expect(actions(pruned.plan)).toEqual(["eu-3 destroy", "us-1 destroy", "eu-2 none", "eu-1 none"]);
  expect(pruned.run?.state).toBe("succeeded");
  expect(await versions()).toEqual({ "eu-1": "active 3", "eu-2": "active 3", "eu-3": "destroyed 3", "us-1": "destroyed 3" });
  expect(await plane.route("us-1")).toBeUndefined();
});

test("F1: what the fleet does not allow is refused at its line, and nothing has changed", async () => {
  const issues = async (text: string): Promise<unknown[]> => {
    const error = await applied(text).then(() => null, (failure: CellplaneError<"fleet_refused">) => failure);
    return [error?.code, error?.kind.exit, ...(error?.data.issues.map((issue) => `${issue.line}:${issue.column} ${issue.message}`) ?? [])];
  };
  const before = await call<StoredFleet>("getFleet");
  expect(await issues(fileOf({ version: "3", tenants: 1, cells: ["eu-1", "eu-2"] }))).toEqual(["fleet_refused", 8, "11:26 1 is below the 2 in use: raise it, or move tenants away first"]);
  expect(await issues(fileOf({ cells: ["eu-1", "us-1"] }))).toEqual(["fleet_refused", 8, "14:9 cell us-1 is destroyed and does not come back: its data are kept under the name: purge it, or choose another name"]);
  expect(await issues(fileOf().replace("driver: fake", "driver: faek"))).toEqual(["fleet_invalid", 3, "7:13 there is no driver faek; there is fake"]);
  expect(await issues("fleet: [")).toEqual(["fleet_invalid", 3, expect.stringMatching(/^1:9 /)]);
  expect(await call<StoredFleet>("getFleet")).toEqual(before);
});

test("F10: a cell that someone else changed is left out and shown, and overwritten when told to", async () => {
  plane.fake.edit("eu-2", "config.theme", "foreign");
  await plane.cells.saveLooks([{ cell: "eu-2", ok: true, checks: [], drift: [{ path: "config.theme", actual: "foreign" }], observedAtMs: 1_700_000_000_000 }]);
  const text = fileOf({ version: "4", cells: ["eu-1", "eu-2"] });
  const { plan, run } = await applied(text);
  expect(actions(plan)).toEqual(["eu-1 update", "eu-2 none"]);
  expect(run?.state).toBe("succeeded");
  expect(await versions()).toMatchObject({ "eu-1": "active 4", "eu-2": "active 3" });

  expect((await applied(text, { overwriteDrift: true })).run?.state).toBe("succeeded");
  expect(await versions()).toMatchObject({ "eu-2": "active 4" });
  expect((await plane.fake.observe("eu-2", AbortSignal.timeout(1000))).drift).toEqual([]);
  await plane.cells.saveLooks([{ cell: "eu-2", ok: true, checks: [], drift: [], observedAtMs: 1_700_000_001_000 }]);
});

test("F7: a cell made by hand follows its blueprint, and prune leaves it", async () => {
  const cell = await call<{ operation: string }>("createCell", { body: { name: "hand-1", region: "us", blueprint: "shop", overrides: { capacity: { tenants: 3 } } } });
  expect((await plane.wait(cell.operation)).state).toBe("succeeded");
  expect((await applied(fileOf({ version: "5", cells: ["eu-1", "eu-2"] }), { prune: true })).run?.state).toBe("succeeded");
  expect(await plane.now("hand-1")).toMatchObject({ state: "active", version: "5", capacity: { tenants: 3 }, origin: "person" });
});

test("a dry run says what would be and changes nothing", async () => {
  const answer = await call<Applied>("applyFleet", { body: bodyOf(fileOf({ version: "9", cells: ["eu-1", "eu-2"] })), dryRun: true });
  expect(actions(answer.plan).filter((action) => action.endsWith("update"))).toHaveLength(3);
  expect(await versions()).toMatchObject({ "eu-1": "active 5" });
  expect((await listOperations(plane.store, { state: "open" })).items).toEqual([]);
});

// ── cells over the API ──────────────────────────────────────────────────────────────────────────────────────────────

test("C4: destroying a cell with tenants is refused by a guard, at once", async () => {
  const error = await call("destroyCell", { params: { cell: "eu-1" }, query: { purge: "true" } }).catch((failure: CellplaneError) => failure);
  expect(error).toMatchObject({ code: "cell_has_tenants", kind: { exit: 8, http: 409 }, message: "cell eu-1 has 2 tenants: destroy would cut them off" });
});

test("C7: a cell that has changed since it was looked at is left as it is", async () => {
  const { generation } = await plane.now("eu-1");
  await expect(call("cordonCell", { params: { cell: "eu-1" }, ifMatch: generation - 1 })).rejects.toMatchObject({ code: "generation_stale" });
  await call("cordonCell", { params: { cell: "eu-1" }, ifMatch: generation });
  expect(await call("getCell", { params: { cell: "eu-1" } })).toMatchObject({ state: "cordoned", refused: { uncordon: null, destroy: "cell eu-1 has 2 tenants: destroy would cut them off" } });
  await call("uncordonCell", { params: { cell: "eu-1" } });
});

test("C11: an update over the API says what changes, and one that changes nothing starts nothing", async () => {
  const update = (body: unknown, dryRun = false) => call<{ operation: string | null; changes: unknown[]; restarts: boolean }>("updateCell", { params: { cell: "hand-1" }, body, dryRun });
  expect(await update({ overrides: { capacity: { tenants: 3 } } })).toMatchObject({ operation: null, changes: [] });
  expect(await update({ overrides: { version: "6" } }, true)).toMatchObject({ changes: [{ path: "version", from: "5", to: "6" }], restarts: true });
  const { operation } = await update({ overrides: { capacity: { tenants: 4 } }, labels: { team: "a" } });
  expect((await plane.wait(operation ?? "")).state).toBe("succeeded");
  expect(await plane.now("hand-1")).toMatchObject({ capacity: { tenants: 4 }, labels: { team: "a" }, version: "5" });
  await expect(update({ overrides: { capacity: { tenant: 4 } } })).rejects.toMatchObject({ code: "invalid_input" });
  await expect(update({ overrides: { driver: "other" } })).rejects.toMatchObject({ code: "cell_update_refused" });
});

test("what a cell is to be made from must be in the fleet file", async () => {
  const create = (body: Record<string, unknown>) => call("createCell", { body: { name: "new-1", region: "eu", blueprint: "shop", ...body } });
  await expect(create({ region: "mars" })).rejects.toMatchObject({ code: "invalid_input", message: "region: the fleet file has no region mars" });
  await expect(create({ blueprint: "shpo" })).rejects.toMatchObject({ code: "invalid_input", message: "blueprint: the fleet file has no blueprint shpo" });
  await expect(create({ name: "eu-1" })).rejects.toMatchObject({ code: "already_exists" });
  expect(await plane.cells.get("new-1")).toBeNull();
});

test("cells are listed in pages, by name, without the destroyed", async () => {
  const first = await call<{ items: { name: string }[]; nextCursor: string }>("listCells", { query: { limit: "2" } });
  expect(first.items.map(({ name }) => name)).toEqual(["eu-1", "eu-2"]);
  expect(await call("listCells", { query: { limit: "2", cursor: first.nextCursor } })).toMatchObject({ items: [{ name: "hand-1" }], nextCursor: null });
  expect(await call("listCells", { query: { state: "destroyed" } })).toMatchObject({ items: [{ name: "eu-3" }, { name: "us-1" }] });
  expect(await call("observeCell", { params: { cell: "eu-1" } })).toMatchObject({ driver: "fake", observed: { exists: true, drift: [] }, checks: [{ ok: true }] });
});
