import { afterEach, describe, expect, test } from "vitest";
import { CellplaneError } from "../base/errors.ts";
import { type CreatedTenant, NewTenant } from "../tenant/model.ts";
import { type TestCell, type TestFleet, testFleet } from "./testing/fleet.ts";

let fleet: TestFleet;
const open = async (...args: Parameters<typeof testFleet>): Promise<TestFleet> => (fleet = await testFleet(...args));
afterEach(() => fleet.close());

const codeOf = (error: unknown): string => (error instanceof CellplaneError ? error.code : String(error));
const attempt = <T>(work: Promise<T>): Promise<T | string> => work.catch(codeOf);
const say = (outcome: CreatedTenant | Error | string): string => (outcome instanceof Error ? codeOf(outcome) : typeof outcome === "string" ? outcome : `${outcome.created ? "created" : "there"} ${outcome.name} in ${outcome.cell}`);
const createAll = (...tenants: (Partial<NewTenant> & { name: string })[]): Promise<string[]> =>
  fleet.store.transaction(async (tx) => (await fleet.admission.createAll(tx, tenants.map((tenant) => NewTenant.parse(tenant)))).map(say));

describe("admission", () => {
  test("P2: of a thousand creations at once on four control planes none goes over a capacity in any dimension", async () => {
    const cells: TestCell[] = [
      { name: "eu-1", capacity: { tenants: 200, connections: 150 } },
      { name: "eu-2", capacity: { tenants: 100, connections: 1000, diskBytes: 40_000 } },
      { name: "us-1", region: "us", capacity: { tenants: 50 } },
      { name: "us-2", region: "us", capacity: { connections: 60.5 } },
    ];
    await open(cells);
    const planes = [fleet, fleet.addPlane(), fleet.addPlane(), fleet.addPlane()];
    const outcomes = await Promise.all(
      Array.from({ length: 1000 }, async (_, i) => {
        const name = `t-${i}`;
        const plane = planes[i % 4] ?? fleet;
        const outcome = await attempt(plane.create({ name, region: i % 3 === 0 ? "us" : null, load: { connections: (i % 7) * 0.3, diskBytes: i } }));
        // Meanwhile room comes and goes: some grow, and a cell is cordoned.
        if (typeof outcome === "object" && i % 10 === 0) await attempt(plane.store.transaction(async (tx) => plane.tenants.update(tx, await plane.tenants.hold(tx, name), { load: { connections: 3 } })));
        if (i === 500) await fleet.store.query("update cell set state = 'cordoned' where name = 'eu-2'");
        return outcome;
      }),
    );
    const created = outcomes.filter((outcome) => typeof outcome === "object");
    expect(new Set(outcomes.filter((outcome) => typeof outcome === "string"))).toEqual(new Set(["no_capacity"]));
    expect(created.length).toBeGreaterThan(200);
    const over = await fleet.store.query("select name from cell where tenants_used > tenants_capacity or connections_used > connections_capacity or disk_bytes_used > disk_bytes_capacity");
    expect(over).toEqual([]);
    for (const { used, summed } of await fleet.counters()) expect(used).toEqual(summed);
    expect(await fleet.store.query("select count(*)::int as n from tenant")).toEqual([{ n: created.length }]);
    expect((await fleet.routes()).map(({ tenant, cell }) => `${tenant} ${cell}`).sort()).toEqual(created.map(({ name, cell }) => `${name} ${cell}`).sort());
  });

  test("P2: a cell that fills up between the reading and the counting is decided about again", async () => {
    await open([{ name: "eu-1", capacity: { connections: 10 } }, { name: "eu-2", capacity: { connections: 9 } }]);
    const rival = fleet.addPlane();
    let struck = false;
    const outcome = await fleet.store.transaction(async (tx) => {
      const query = tx.query.bind(tx);
      // The plan has seen an empty eu-1; before it is counted in, someone else takes nearly all of it.
      tx.query = async (sql, params) => {
        if (!struck && sql.includes("update cell c set")) {
          struck = true;
          await rival.store.query("update cell set connections_used = 9 where name = 'eu-1'");
        }
        return query(sql, params);
      };
      return fleet.admission.createAll(tx, [NewTenant.parse({ name: "a", load: { connections: 5 } })]);
    });
    expect(struck).toBe(true);
    expect(outcome).toMatchObject([{ name: "a", cell: "eu-2" }]);
    expect((await fleet.counters()).map(({ used }) => used)).toEqual([[0, 9, 0], [1, 5, 0]]);
  });

  test("P2: what a cell's row does not have is not given, though plan and row count differently", async () => {
    // Doubles add 0.7 and 0.1 up to just this capacity, PostgreSQL's numerics to 0.8.
    await open([{ name: "eu-1", capacity: { connections: 0.7999999999999999 } }]);
    const outcomes: string[] = [];
    for (let i = 0; i < 9; i++) outcomes.push(say(await attempt(fleet.create({ name: `t-${i}`, load: { connections: 0.1 } }))));
    expect(outcomes.slice(6)).toEqual(["created t-6 in eu-1", "no_capacity", "no_capacity"]);
    expect(await fleet.counters()).toEqual([{ cell: "eu-1", used: [7, 0.7, 0], summed: [7, 0.7, 0] }]);
  });

  test("P8: each creation of a batch has its own outcome, and only what was created is written", async () => {
    await open([{ name: "eu-1", capacity: { tenants: 3 } }]);
    await fleet.create({ name: "old", keys: [{ kind: "host", value: "old.example" }, { kind: "path", value: "news" }], claims: [{ kind: "login", value: "boss" }] });
    expect(
      await createAll(
        { name: "a", keys: [{ kind: "alias", value: "old.example" }] },
        { name: "b", keys: [{ kind: "header", value: "b" }], claims: [{ kind: "login", value: "Bob" }] },
        { name: "c", region: "us" },
        { name: "d", claims: [{ kind: "login", value: "BOSS" }, { kind: "login", value: "d" }] },
        { name: "news" },
        { name: "e", keys: [{ kind: "header", value: "old" }] },
        { name: "b" },
        { name: "f", claims: [{ kind: "login", value: "bob" }] },
        { name: "g" },
        { name: "h", cell: "nowhere" },
      ),
    ).toEqual(["key_taken", "created b in eu-1", "residency_unsatisfiable", "claim_taken", "key_taken", "key_taken", "already_exists", "claim_taken", "created g in eu-1", "not_found"]);
    const rows = await fleet.store.query("select name, (select count(*)::int from tenant_key k where k.tenant = name) as keys, (select count(*)::int from claim c where c.tenant = name) as claims from tenant order by name");
    expect(rows).toEqual([{ name: "b", keys: 1, claims: 1 }, { name: "g", keys: 0, claims: 0 }, { name: "old", keys: 2, claims: 1 }]);
    expect(await fleet.store.query("select tenant, value from claim order by value")).toEqual([{ tenant: "b", value: "bob" }, { tenant: "old", value: "boss" }]);
    expect((await fleet.counters())[0]?.used).toEqual([3, 0, 0]);
    expect((await fleet.routes()).map((route) => route.tenant)).toEqual(["b", "g", "old"]);
  });

  test("P8: one that breaks the database's rules does not take the others of its batch with it", async () => {
    await open([{ name: "eu-1" }]);
    await fleet.store.query("alter table tenant add constraint unforeseen check (name <> 'bad')");
    const outcomes = await Promise.all(["a", "bad", "b"].map((name) => fleet.create({ name }).then(say, (error: Error) => error.message)));
    expect(outcomes).toEqual(["created a in eu-1", expect.stringContaining("unforeseen"), "created b in eu-1"]);
  });

  test("P9: creating the same again is harmless, on whichever control plane; a difference is refused", async () => {
    await open([{ name: "eu-1" }, { name: "eu-2" }]);
    const rival = fleet.addPlane();
    const wanted = { name: "a", tier: "gold", labels: { x: "1", y: "2" }, keys: [{ kind: "host" as const, value: "a.example" }, { kind: "path" as const, value: "a" }], load: { connections: 0.5 }, claims: [{ kind: "email", value: "A@a.example" }] };
    const first = await fleet.create(wanted);
    const again = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? rival : fleet).create({ ...wanted, keys: wanted.keys.toReversed(), labels: { y: "2", x: "1" } })));
    for (const tenant of again) expect(tenant).toEqual({ ...first, created: false, because: [] });
    expect(await attempt(fleet.create({ ...wanted, cell: first.cell }))).toMatchObject({ created: false });
    for (const different of [{ tier: "lead" }, { labels: {} }, { keys: [] }, { load: {} }, { region: "eu" }, { dedicated: true }, { cell: first.cell === "eu-1" ? "eu-2" : "eu-1" }, { claims: [{ kind: "email", value: "b@a.example" }] }]) {
      expect(await attempt(fleet.create({ ...wanted, ...different }))).toBe("already_exists");
    }
  });

  test("P8: callers are told to come back when too many wait", async () => {
    await open([{ name: "eu-1", capacity: { tenants: 10 } }]);
    const outcomes = await Promise.all(Array.from({ length: 10_050 }, (_, i) => attempt(fleet.create({ name: `t-${i}`, region: "us" }))));
    expect(outcomes.filter((outcome) => outcome === "busy").length).toBe(50);
  });
});
