import { afterAll, beforeAll, expect, test } from "vitest";
import { fail } from "../base/errors.ts";
import { cancelRun, getOperation } from "../workflow/store.ts";
import { until } from "../workflow/testing/engine.ts";
import { createCellStore, release, reserve } from "./store.ts";
import { openPlane, specNamed } from "./testing/plane.ts";

let plane: Awaited<ReturnType<typeof openPlane>>;
beforeAll(async () => {
  plane = await openPlane();
});
afterAll(() => plane.close());

const take = (cell: string, tenants = 1) => plane.store.transaction(async (tx) => (await reserve(tx, [{ cell, load: { tenants } }])).has(cell));
const give = (cell: string, tenants = 1) => plane.store.transaction((tx) => release(tx, cell, { tenants }));

test("C8, C9: a created cell is active, and the routers know where it is", async () => {
  const operation = await plane.create(specNamed("c9-1"));
  expect(operation).toMatchObject({ state: "succeeded", error: null });
  const cell = await plane.now("c9-1");
  expect(cell).toMatchObject({ state: "active", endpoint: "c9-1.fake:80", operation: null, version: "1", used: { tenants: 0 }, capacity: { tenants: 10 } });
  expect(await plane.route("c9-1")).toEqual({ index: cell.index, endpoint: "c9-1.fake:80", state: "open" });
  expect((await plane.events("c9-1")).map(({ kind, data }) => `${kind} ${String(data["state"])}`)).toEqual(["cell.requested requested", "cell.state provisioning", "cell.state active"]);
});

test("C10: a creation that fails leaves nothing at the engine, and asking again goes on from there", async () => {
  const failed = await plane.create(specNamed("c10-1", { config: { broken: "exits at once" } }));
  expect(failed).toMatchObject({ state: "undone", error: { code: "cell_not_healthy" } });
  expect(failed.error?.message).toContain("exits at once");
  const before = await plane.now("c10-1");
  expect(before).toMatchObject({ state: "failed", operation: null });
  expect(plane.fake.cells()).not.toContain("c10-1");
  expect(await plane.route("c10-1")).toBeUndefined();

  expect(await plane.create(specNamed("c10-1", { version: "2" }))).toMatchObject({ state: "succeeded" });
  expect(await plane.now("c10-1")).toMatchObject({ state: "active", index: before.index, version: "2" });
});

test("C10: a passing failure of the engine is tried again", async () => {
  plane.fake.failNext("apply", "c10-2", fail("driver_failed", { cell: "c10-2", why: "no answer" }), 2);
  expect(await plane.create(specNamed("c10-2"))).toMatchObject({ state: "succeeded" });
});

test("C11: an update changes the cell in place", async () => {
  await plane.create(specNamed("c11-1"));
  const before = await plane.now("c11-1");
  expect(await plane.update(specNamed("c11-1", { version: "2", capacity: { tenants: 20 } }))).toMatchObject({ state: "succeeded" });
  const after = await plane.now("c11-1");
  expect(after).toMatchObject({ state: "active", version: "2", capacity: { tenants: 20 }, spec: { version: "2" }, operation: null });
  expect(after.generation).toBeGreaterThan(before.generation);
  expect(plane.fake.servedBy("c11-1")?.version).toBe("2");
});

test("C11: an update that does not get ready leaves the former cell, and says why", async () => {
  await plane.create(specNamed("c11-2"));
  const before = await plane.now("c11-2");
  const operation = await plane.update(specNamed("c11-2", { version: "2", config: { broken: "connection refused" }, capacity: { tenants: 5 } }));
  expect(operation).toMatchObject({ state: "undone", error: { code: "update_reverted" } });
  expect(operation.error?.message).toContain("connection refused");
  expect(await plane.now("c11-2")).toMatchObject({ state: "active", spec: before.spec, capacity: before.capacity, endpoint: before.endpoint, operation: null });
  expect(plane.fake.servedBy("c11-2")).toEqual(before.spec);
});

test("C11: an update that is taken but then unwell is taken back", async () => {
  await plane.create(specNamed("c11-3"));
  plane.fake.setHealth("c11-3", [{ name: "service/app", ok: false, detail: "answers 500" }]);
  const operation = await plane.update(specNamed("c11-3", { version: "2" }));
  expect(operation).toMatchObject({ state: "undone", error: { code: "cell_not_healthy" } });
  expect(operation.error?.message).toContain("service/app: answers 500");
  expect(plane.fake.servedBy("c11-3")?.version).toBe("1");
  expect((await plane.now("c11-3")).version).toBe("1");
});

test("C11: an update whose engine dies half-way goes on", async () => {
  await plane.create(specNamed("c11-4"));
  plane.fake.killAt("fake.apply.half");
  expect(await plane.update(specNamed("c11-4", { version: "2", config: { a: 1 } }))).toMatchObject({ state: "succeeded" });
  expect(plane.fake.servedBy("c11-4")?.version).toBe("2");
});

test("C11: an update whose engine dies half-way for good is taken back", async () => {
  await plane.create(specNamed("c11-5"));
  const before = await plane.now("c11-5");
  plane.fake.failNext("apply", "c11-5", fail("driver_failed", { cell: "c11-5", why: "no answer" }), 4);
  plane.fake.killAt("fake.apply.half");
  expect(await plane.update(specNamed("c11-5", { version: "2", config: { a: 1 } }))).toMatchObject({ state: "undone", error: { code: "step_failed" } });
  expect(plane.fake.servedBy("c11-5")).toEqual(before.spec);
  expect(await plane.now("c11-5")).toMatchObject({ spec: before.spec, capacity: before.capacity, operation: null });
});

test("C12: while an update is under way no more is placed than both capacities hold", async () => {
  await plane.create(specNamed("c12-1", { capacity: { tenants: 2 } }));
  plane.fake.setHealth("c12-1", [{ name: "service/app", ok: false, detail: "starting" }]);
  const run = await plane.startRun("cell.update", plane.updateInput(specNamed("c12-1", { capacity: { tenants: 1 }, version: "2" })));
  await until("it waits to be well", async () => (await getOperation(plane.store, run)).step === "healthy");
  expect(await take("c12-1")).toBe(true);
  expect(await take("c12-1")).toBe(false);
  plane.fake.setHealth("c12-1", null);
  expect((await plane.wait(run)).state).toBe("succeeded");
  const refused = await plane.update(specNamed("c12-1", { capacity: { tenants: 0 } }));
  expect(refused).toMatchObject({ error: { code: "cell_update_refused" } });
  expect(refused.error?.message).toContain("capacity.tenants: 0 is below the 1 in use");
  expect((await plane.now("c12-1")).capacity.tenants).toBe(1);
});

test("C13: what someone else changed is kept, and an update is refused unless it is told to overwrite it", async () => {
  await plane.create(specNamed("c13-1", { config: { theme: "light" } }));
  plane.fake.edit("c13-1", "config.theme", "foreign");
  const refused = await plane.update(specNamed("c13-1", { config: { theme: "light" }, version: "2" }));
  expect(refused).toMatchObject({ state: "undone", error: { code: "cell_drifted" } });
  expect((await plane.fake.observe("c13-1", AbortSignal.timeout(1000))).drift).toMatchObject([{ path: "config.theme", expected: "light", actual: "foreign" }]);
  expect(await plane.now("c13-1")).toMatchObject({ version: "1", capacity: { tenants: 10 }, operation: null });

  expect(await plane.update(specNamed("c13-1", { config: { theme: "light" }, version: "2" }), true)).toMatchObject({ state: "succeeded" });
  expect((await plane.fake.observe("c13-1", AbortSignal.timeout(1000))).drift).toEqual([]);
});

test("C14: a drain places nothing more, shows how many remain, and ends in empty", async () => {
  await plane.create(specNamed("c14-1"));
  await take("c14-1", 2);
  const run = await plane.startRun("cell.drain", { cell: "c14-1" });
  await until("it says how many remain", async () => (await getOperation(plane.store, run)).message === "2 of 2 tenants remain");
  expect(await take("c14-1")).toBe(false);
  await give("c14-1");
  await until("one remains", async () => (await getOperation(plane.store, run)).message === "1 of 2 tenants remain");
  expect(await plane.now("c14-1")).toMatchObject({ state: "draining", operation: run });
  await give("c14-1");
  expect((await plane.wait(run)).state).toBe("succeeded");
  expect(await plane.now("c14-1")).toMatchObject({ state: "empty", operation: null });
});

test("C14: a drain that is called off ends, and the cell is what was decided", async () => {
  await plane.create(specNamed("c14-2"));
  await take("c14-2");
  const run = await plane.startRun("cell.drain", { cell: "c14-2" });
  await until("it drains", async () => (await plane.now("c14-2")).state === "draining");
  await plane.store.transaction(async (tx) => plane.cells.move(tx, await plane.cells.hold(tx, "c14-2"), "cordon"));
  expect(await plane.wait(run)).toMatchObject({ state: "undone", error: { code: "drain_called_off" } });
  expect((await plane.now("c14-2")).state).toBe("cordoned");
});

test("C4: a cell with tenants is not destroyed; it goes on serving", async () => {
  await plane.create(specNamed("c4-1"));
  await take("c4-1");
  const refused = await plane.do("cell.destroy", { cell: "c4-1", purge: true });
  expect(refused).toMatchObject({ state: "failed", error: { code: "cell_has_tenants" } });
  expect(await plane.now("c4-1")).toMatchObject({ state: "active", operation: null });
  expect(await plane.route("c4-1")).toMatchObject({ state: "open" });
  expect(plane.fake.servedBy("c4-1")).not.toBeNull();
});

test("C4: of a destruction and a placement that meet, one wins and the other is told", async () => {
  const names = Array.from({ length: 12 }, (_, i) => `c4-race-${i}`);
  await Promise.all(names.map((name) => plane.create(specNamed(name))));
  const outcomes = await Promise.all(
    names.map(async (name) => {
      const run = await plane.startRun("cell.destroy", { cell: name, purge: false });
      let taken = false;
      for (let i = 0; i < 20 && !taken && (await plane.now(name)).state === "active"; i++) taken = await take(name);
      return { name, taken, operation: await plane.wait(run) };
    }),
  );
  for (const { name, taken, operation } of outcomes) {
    const cell = await plane.now(name);
    if (!taken) expect(cell, name).toMatchObject({ state: "destroyed", used: { tenants: 0 } });
    else {
      expect(operation.error?.code, name).toBe("cell_has_tenants");
      expect(cell, name).toMatchObject({ state: "active", used: { tenants: 1 } });
    }
  }
});

test("C8: routers close a cell when it retires and forget it when it is gone", async () => {
  await plane.create(specNamed("c8-1"));
  expect((await plane.do("cell.retire", { cell: "c8-1" })).state).toBe("succeeded");
  expect(await plane.now("c8-1")).toMatchObject({ state: "retired" });
  expect(await plane.route("c8-1")).toMatchObject({ state: "closed" });
  expect(plane.fake.servedBy("c8-1")).not.toBeNull();
  expect((await plane.do("cell.destroy", { cell: "c8-1", purge: false })).state).toBe("succeeded");
  expect(await plane.route("c8-1")).toBeUndefined();
  expect(plane.fake.servedBy("c8-1")).toBeNull();
});

test("C5, C6: a number is given once, and a name only when its data are gone", async () => {
  await plane.create(specNamed("c6-1"));
  const first = await plane.now("c6-1");
  await plane.do("cell.destroy", { cell: "c6-1", purge: false });
  expect(await plane.create(specNamed("c6-1"))).toMatchObject({ error: { code: "cell_name_kept" } });
  expect((await plane.now("c6-1")).state).toBe("destroyed");

  expect((await plane.do("cell.destroy", { cell: "c6-1", purge: true })).state).toBe("succeeded");
  expect(await plane.cells.get("c6-1")).toBeNull();
  await plane.create(specNamed("c6-1"));
  const second = await plane.now("c6-1");
  expect(second).toMatchObject({ state: "active" });
  expect(second.index).toBeGreaterThan(first.index);
});

test("C5: cells asked for at once have numbers of their own", async () => {
  const names = Array.from({ length: 20 }, (_, i) => `c5-${i}`);
  const given = await Promise.all(names.map((name) => plane.store.transaction((tx) => plane.cells.request(tx, { spec: specNamed(name), overrides: {}, labels: {}, origin: "person" }))));
  expect(new Set(given.map((cell) => cell.index)).size).toBe(names.length);
});

test("C7: what was decided from an older generation is not written", async () => {
  await plane.create(specNamed("c7-1"));
  const seen = await plane.now("c7-1");
  await plane.store.transaction((tx) => plane.cells.move(tx, seen, "cordon"));
  await expect(plane.store.transaction((tx) => plane.cells.move(tx, seen, "drain"))).rejects.toMatchObject({ code: "generation_stale", data: { expected: seen.generation, actual: seen.generation + 1 } });
  await expect(plane.store.transaction((tx) => plane.cells.limit(tx, seen, {}))).rejects.toMatchObject({ code: "generation_stale" });
  expect((await plane.now("c7-1")).state).toBe("cordoned");
});

test("C3: two hundred arrivals at once fill a cell to its capacity and not above, in every dimension", async () => {
  await plane.create(specNamed("c3-1", { capacity: { tenants: 150, requestsPerSecond: 10 } }));
  const taken = await Promise.all(Array.from({ length: 200 }, () => plane.store.transaction((tx) => reserve(tx, [{ cell: "c3-1", load: { tenants: 1, requestsPerSecond: 0.1 } }]))));
  expect(taken.filter((cells) => cells.has("c3-1"))).toHaveLength(100);
  expect((await plane.now("c3-1")).used).toEqual({ tenants: 100, connections: 0, requestsPerSecond: 10, diskBytes: 0 });
  expect((await plane.store.transaction((tx) => reserve(tx, [{ cell: "c3-1", load: { tenants: 1 } }], { headroomRatio: 0.5 }))).size).toBe(0);
});

test("C3: a cell that is cordoned, and one that is another tenant's own, takes nobody", async () => {
  await plane.create(specNamed("c3-2", { class: "dedicated" }));
  expect(await take("c3-2")).toBe(true);
  expect(await take("c3-2")).toBe(false);
  await give("c3-2");
  await plane.store.transaction(async (tx) => plane.cells.move(tx, await plane.cells.hold(tx, "c3-2"), "cordon"));
  expect(await take("c3-2")).toBe(false);
});

test("C1: the table itself refuses a retired cell with tenants, however a statement is written", async () => {
  await plane.create(specNamed("c1-1"));
  await take("c1-1");
  await expect(plane.store.query("update cell set state = 'retired' where name = 'c1-1'")).rejects.toThrow("check constraint");
  await expect(plane.store.query("update cell set tenants_used = -1 where name = 'c1-1'")).rejects.toThrow("check constraint");
});

test("a cell that is cancelled while it is made is taken back", async () => {
  plane.fake.failNext("apply", "cancel-1", fail("driver_failed", { cell: "cancel-1", why: "slow" }), 4);
  const run = await plane.startRun("cell.create", { spec: specNamed("cancel-1"), overrides: {}, labels: {}, origin: "fleet" });
  await until("it is being made", async () => (await plane.cells.get("cancel-1"))?.state === "provisioning");
  await plane.store.transaction((tx) => cancelRun(tx, run));
  expect((await plane.wait(run)).state).toBe("undone");
  expect((await plane.now("cancel-1")).state).toBe("failed");
  expect(plane.fake.cells()).not.toContain("cancel-1");
});

test("a dry run of a request leaves neither a row nor a number behind", async () => {
  const cells = createCellStore(plane.store, { emit: () => undefined });
  const ask = (name: string, dryRun: boolean) => plane.store.transaction((tx) => cells.request(tx, { spec: specNamed(name), overrides: {}, labels: {}, origin: "person" }), { dryRun });
  const dry = await ask("dry-1", true);
  expect(await plane.cells.get("dry-1")).toBeNull();
  expect((await ask("dry-2", false)).index).toBe(dry.index);
});
