import { testDatabase } from "../../../../../tests/database.ts";
import type { Capacity, CellSpec } from "../../cell/model.ts";
import { createClaimStore } from "../../claim/store.ts";
import { eventSink } from "../../observe/events.ts";
import { insertEvents } from "../../observe/store.ts";
import { routePublisher } from "../../routing/store.ts";
import { applySchema } from "../../store/schema.ts";
import { openStore } from "../../store/store.ts";
import { type CreatedTenant, NewTenant } from "../../tenant/model.ts";
import { createTenantStore } from "../../tenant/store.ts";
import type { Json } from "../../workflow/model.ts";
import { PlacementPolicy } from "../model.ts";
import { createPlacementStore } from "../store.ts";

export interface TestCell {
  name: string;
  region?: string;
  class?: string;
  state?: string;
  capacity?: Capacity;
}

/** The tables on a real server with cells in them, and any number of control planes that share it. */
export async function testFleet(cells: TestCell[], policy: Partial<PlacementPolicy> = {}) {
  const database = await testDatabase();
  const started: { workflow: string; input: Json }[] = [];
  const settings = { policy: PlacementPolicy.parse({ headroomRatio: 0, ...policy }), regions: ["eu", "us"] };
  const sink = eventSink(insertEvents);
  const planes: ReturnType<typeof plane>[] = [];

  function plane() {
    const store = openStore(database.url, { connectionsMax: 4 });
    const tenants = createTenantStore({ routes: routePublisher, events: sink });
    const claims = createClaimStore(sink);
    const admission = createPlacementStore({
      store, tenants, claims,
      settings: async () => settings,
      specOf: async (_, cell) => ({ cell: cell.name, region: cell.region, blueprint: cell.blueprint }) as CellSpec,
      start: async (_, workflow, input) => `op-${started.push({ workflow, input })}`,
    });
    const create = (tenant: Partial<NewTenant> & { name: string }): Promise<CreatedTenant> => admission.create(NewTenant.parse(tenant), () => undefined);
    return { store, tenants, claims, admission, create };
  }

  const addPlane = (): ReturnType<typeof plane> => {
    const added = plane();
    planes.push(added);
    return added;
  };
  const first = addPlane();
  await applySchema(first.store);
  let index = 0;
  async function addCell({ name, region = "eu", class: kind = "shared", state = "active", capacity = {} }: TestCell): Promise<void> {
    await first.store.query(
      `insert into cell (name, index, region, blueprint, class, driver, origin, state, spec, overrides, labels, tenants_capacity, connections_capacity, requests_per_second_capacity, disk_bytes_capacity)
       values ($1, $2, $3, 'app', $4, 'fake', 'person', $5, '{}', '{}', '{}', $6, $7, $8, $9)`,
      [name, ++index, region, kind, state, capacity.tenants ?? null, capacity.connections ?? null, capacity.requestsPerSecond ?? null, capacity.diskBytes ?? null],
    );
  }
  for (const cell of cells) await addCell(cell);
  return {
    ...first, events: sink, started, settings, addPlane, addCell, url: database.url,
    async used(): Promise<Record<string, Capacity>> {
      const rows = await first.store.query<Record<string, number> & { name: string }>("select name, tenants_used, connections_used, disk_bytes_used from cell");
      return Object.fromEntries(rows.map((row) => [row.name, { tenants: row["tenants_used"], connections: row["connections_used"], diskBytes: row["disk_bytes_used"] }])) as Record<string, Capacity>;
    },
    async close() {
      for (const each of planes) await each.store.close();
      await database.drop();
    },
  };
}
export type TestFleet = Awaited<ReturnType<typeof testFleet>>;
