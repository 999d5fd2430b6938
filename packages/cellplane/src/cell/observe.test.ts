import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { systemClock } from "../base/clock.ts";
import type { CellDriver } from "../drivers/driver.ts";
import { eventSink } from "../observe/events.ts";
import { insertEvents } from "../observe/store.ts";
import { openStore, type Store } from "../store/store.ts";
import { until } from "../workflow/testing/engine.ts";
import { observeCells } from "./observe.ts";
import { createCellStore } from "./store.ts";
import { openPlane, specNamed } from "./testing/plane.ts";

let plane: Awaited<ReturnType<typeof openPlane>>;
const stops: (() => Promise<void>)[] = [];
const stores: Store[] = [];
beforeAll(async () => {
  plane = await openPlane();
  for (const name of ["o-1", "o-2", "o-3"]) await plane.create(specNamed(name, { config: { theme: "light" } }));
});
afterEach(async () => {
  await Promise.all(stops.splice(0).map((stop) => stop()));
  await Promise.all(stores.splice(0).map((store) => store.close()));
});
afterAll(() => plane.close());

/** One control plane that looks; it counts its probes. */
function look(driver: Partial<CellDriver> = {}) {
  const store = openStore(plane.url, { connectionsMax: 2 });
  stores.push(store);
  const seen = { probes: 0, problems: [] as unknown[], stop: async () => undefined as void };
  const engine: CellDriver = { ...plane.fake, ...driver };
  const counting: CellDriver = { ...engine, health: (cell, signal) => (seen.probes++, engine.health(cell, signal)) };
  const cells = createCellStore(store, eventSink(insertEvents));
  seen.stop = observeCells({ cells, driver: () => counting, clock: systemClock, report: (error) => seen.problems.push(error), healthEveryMs: 50, driftEveryMs: 200 });
  stops.push(seen.stop);
  return seen;
}
const healthOf = async (cell: string) => (await plane.now(cell)).health;
const kinds = async (cell: string) => (await plane.events(cell)).filter(({ kind }) => kind === "cell.health" || kind === "cell.drift").map(({ kind, data }) => `${kind} ${JSON.stringify(data["ok"] ?? data["drift"])}`);

test("C16: cells that went on without a control plane are found as they are, and changes are told once", async () => {
  expect(await healthOf("o-1")).toEqual({ ok: null, checks: [], observedAt: null });
  look();
  await until("all are well", async () => (await Promise.all(["o-1", "o-2", "o-3"].map(healthOf))).every(({ ok }) => ok));
  plane.fake.setHealth("o-1", [{ name: "service/app", ok: false, detail: "connection refused" }]);
  await until("it is down", async () => (await healthOf("o-1")).ok === false);
  expect(await healthOf("o-1")).toMatchObject({ checks: [{ name: "service/app", ok: false, detail: "connection refused" }] });
  plane.fake.setHealth("o-1", null);
  await until("it is back", async () => (await healthOf("o-1")).ok === true);
  expect(await kinds("o-1")).toEqual(["cell.health true", "cell.health false", "cell.health true"]);
  expect(await kinds("o-2")).toEqual(["cell.health true"]);
  expect((await plane.now("o-1")).state).toBe("active");
});

test("C15: one lost probe is no dead cell", async () => {
  const before = (await kinds("o-2")).length;
  const { health } = plane.fake;
  let calls = 0;
  const seen = look({ health: async (cell, signal) => (cell === "o-2" && calls++ % 2 === 1 ? [{ name: "service/app", ok: false, detail: "timed out" }] : health(cell, signal)) });
  await until("it was looked at often", () => seen.probes > 60);
  expect((await kinds("o-2")).length).toBe(before);
  expect((await healthOf("o-2")).ok).toBe(true);
});

test("C15: a cell whose engine does not answer is down, and the others are looked at all the same", async () => {
  const { health } = plane.fake;
  look({ health: (cell, signal) => (cell === "o-3" ? Promise.reject(new Error("no answer")) : health(cell, signal)) });
  await until("it is down", async () => (await healthOf("o-3")).ok === false);
  expect(await healthOf("o-3")).toMatchObject({ checks: [{ name: "driver", ok: false, detail: "no answer" }] });
  expect((await healthOf("o-1")).ok).toBe(true);
});

test("C16: who takes over from another tells nothing that was told", async () => {
  plane.fake.setHealth("o-1", [{ name: "service/app", ok: false, detail: "connection refused" }]);
  const first = look();
  await until("it is down", async () => (await healthOf("o-1")).ok === false);
  await first.stop();
  const told = await kinds("o-1");
  const second = look();
  await until("the other looks", () => second.probes > 30);
  expect(await kinds("o-1")).toEqual(told);
  plane.fake.setHealth("o-1", null);
});

test("C13, C16: a foreign change is shown, and told when it comes and when it goes", async () => {
  look();
  plane.fake.edit("o-2", "config.theme", "foreign");
  await until("it is seen", async () => (await plane.now("o-2")).drift.length > 0);
  expect((await plane.now("o-2")).drift).toEqual([{ path: "config.theme", expected: "light", actual: "foreign" }]);
  plane.fake.edit("o-2", "config.theme", "light");
  await until("it is gone", async () => (await plane.now("o-2")).drift.length === 0);
  expect((await kinds("o-2")).slice(-2)).toEqual(['cell.drift [{"path":"config.theme","actual":"foreign","expected":"light"}]', "cell.drift []"]);
});

test("C15: of several control planes one looks, and another when that one is gone", async () => {
  const planes = [look(), look(), look()];
  const looking = () => planes.filter(({ probes }) => probes > 0);
  await until("one looks", () => looking().length > 0 && looking().some(({ probes }) => probes > 30));
  expect(looking()).toHaveLength(1);
  const [first] = looking();
  await first?.stop();
  const probes = first?.probes;
  await until("another looks", () => looking().length === 2);
  expect(first?.probes).toBe(probes);
});

test("C15: who loses its session with the database stops looking, and begins again", async () => {
  const seen = look();
  await until("it looks", () => seen.probes > 0);
  await plane.store.query("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = $1 and database = (select oid from pg_database where datname = current_database())", [0x77617463]);
  const probes = seen.probes;
  await until("it looks again", () => seen.probes > probes + 10);
});

test("cells that are out of service are not looked at", async () => {
  await plane.create(specNamed("o-4"));
  await plane.do("cell.retire", { cell: "o-4" });
  const seen = look();
  await until("it looks", () => seen.probes > 20);
  expect((await healthOf("o-4")).observedAt).toBeNull();
});
