import { afterEach, describe, expect, test } from "vitest";
import { CellplaneError } from "../base/errors.ts";
import { NewTenant } from "../tenant/model.ts";
import { type TestCell, type TestFleet, testFleet } from "./testing/fleet.ts";

let fleet: TestFleet;
const open = async (cells: TestCell[], policy: Parameters<typeof testFleet>[1] = {}): Promise<TestFleet> => (fleet = await testFleet(cells, policy));
afterEach(() => fleet.close());

const codeOf = (error: unknown): string => (error instanceof CellplaneError ? error.code : String(error));
const attempt = <T>(work: Promise<T>): Promise<T | string> => work.catch(codeOf);

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
    // Meanwhile room comes and goes: others grow, leave, and a cell is cordoned.
    const outcomes = await Promise.all(
      Array.from({ length: 1000 }, async (_, i) => {
        const name = `t-${i}`;
        const plane = planes[i % 4] ?? fleet;
        const outcome = await attempt(plane.create({ name, region: i % 3 === 0 ? "us" : null, load: { connections: (i % 7) * 0.3, diskBytes: i } }));
        if (typeof outcome === "object" && i % 10 === 0) await plane.store.transaction(async (tx) => plane.tenants.update(tx, await plane.tenants.hold(tx, name), { load: { connections: 3 } })).catch(codeOf);
        if (i === 500) await fleet.store.query("update cell set state = 'cordoned' where name = 'eu-2'");
        return outcome;
      }),
    );
    const created = outcomes.filter((outcome) => typeof outcome === "object");
    const refused = outcomes.filter((outcome) => typeof outcome === "string");
    expect(new Set(refused)).toEqual(new Set(["no_capacity"]));
    expect(created.length).toBeGreaterThan(200);
    const [over] = await fleet.store.query("select name from cell where tenants_used > tenants_capacity or connections_used > connections_capacity or disk_bytes_used > disk_bytes_capacity");
    expect(over).toBeUndefined();
    const [differs] = await fleet.store.query(
      `select c.name from cell c left join (select cell, count(*) as n, sum(connections) as connections, sum(disk_bytes) as disk from tenant group by cell) t on t.cell = c.name
        where (c.tenants_used, c.connections_used, c.disk_bytes_used) is distinct from (coalesce(t.n, 0), coalesce(t.connections, 0), coalesce(t.disk, 0))`,
    );
    expect(differs).toBeUndefined();
    expect(await fleet.store.query("select count(*)::int as n from tenant")).toEqual([{ n: created.length }]);
    expect(await fleet.store.query("select count(*)::int as n from route_tenant r join tenant t on t.name = r.tenant and t.epoch = r.epoch join cell c on c.name = t.cell and c.index = r.cell_index")).toEqual([{ n: created.length }]);
  });

  test("P2: a cell that fills up between reading and counting is decided about again", async () => {
    await open([{ name: "eu-1", capacity: { connections: 10 } }, { name: "eu-2", capacity: { connections: 9 } }]);
    // The plan sees an empty eu-1; before it is counted in, someone else has taken nearly all of it.
    const rival = fleet.addPlane();
    let struck = false;
    const outcome = await fleet.store.transaction(async (tx) => {
      const query = tx.query.bind(tx);
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
    expect(await fleet.used()).toMatchObject({ "eu-1": { connections: 9, tenants: 0 }, "eu-2": { connections: 5, tenants: 1 } });
  });
});
