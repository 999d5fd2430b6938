import { pino } from "pino";
import { testDatabase } from "../../../../../tests/database.ts";
import { assert } from "../../base/assert.ts";
import type { Capacity, CellSpec } from "../../cell/model.ts";
import { CreateCellInput } from "../../cell/steps.ts";
import { claimHandlers } from "../../claim/api.ts";
import { createClaimStore } from "../../claim/store.ts";
import { createApp } from "../../http/server.ts";
import { eventSink } from "../../observe/events.ts";
import { insertEvents } from "../../observe/store.ts";
import { routePublisher } from "../../routing/store.ts";
import { applySchema } from "../../store/schema.ts";
import { openStore } from "../../store/store.ts";
import { tenantHandlers } from "../../tenant/api.ts";
import { type CreatedTenant, NewTenant } from "../../tenant/model.ts";
import { tenantWorkflows } from "../../tenant/steps.ts";
import { createTenantStore } from "../../tenant/store.ts";
import { newSecret } from "../../token/secret.ts";
import { admitSecrets, openTokenStore } from "../../token/store.ts";
import { type Workflow, workflow } from "../../workflow/model.ts";
import { createRunner } from "../../workflow/runner.ts";
import { operationHandlers } from "../../workflow/api.ts";
import * as runs from "../../workflow/store.ts";
import { placementHandlers } from "../api.ts";
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
  const settings = { policy: PlacementPolicy.parse({ headroomRatio: 0, ...policy }), regions: ["eu", "us"] };
  const events = eventSink(insertEvents);
  const secrets = { viewer: newSecret(), operator: newSecret(), admin: newSecret(), router: newSecret() };
  /** Rows that tenants have in their cells, as "cell/tenant". */
  const rowsInCells = new Map<string, number>();
  const closing: (() => Promise<void> | void)[] = [];
  /** While it is broken, no cell can be made. */
  const engine = { broken: false };
  let index = 0;

  /** Stands for the cell's own workflow. */
  const makeCell: Workflow<CreateCellInput> = {
    name: "cell.create",
    version: 1,
    input: CreateCellInput,
    subject: ({ spec }) => `cell/${spec.cell}`,
    steps: [
      {
        name: "make",
        retry: { attemptsMax: 1 },
        run: async ({ input: { spec } }) => {
          if (engine.broken) throw new Error("no such image");
          await addCell({ name: spec.cell, region: spec.region, class: spec.class });
        },
      },
    ],
  };

  function addPlane() {
    const store = openStore(database.url, { connectionsMax: 4 });
    const tenants = createTenantStore({ routes: routePublisher, events });
    const claims = createClaimStore(events);
    const start: Parameters<typeof createPlacementStore>[0]["start"] = (tx, name, input) => {
      const workflow = all.find((workflow) => workflow.name === name);
      assert(workflow, `there is a workflow ${name}`);
      return runs.startRun(tx, workflow, input);
    };
    const admission = createPlacementStore({
      store, tenants, claims, start,
      settings: async () => settings,
      specOf: async (_, cell) => ({ cell: cell.name, region: cell.region, blueprint: cell.blueprint, class: "dedicated", driver: "fake", services: {}, config: {}, capacity: {}, version: "1", baseDirectory: "/" }) satisfies CellSpec,
    });
    const eraser = {
      async erase(cell: string, tenant: string) {
        const count = rowsInCells.get(`${cell}/${tenant}`) ?? 0;
        rowsInCells.delete(`${cell}/${tenant}`);
        return { orders: count };
      },
    };
    const all = [...tenantWorkflows({ store, tenants, claims, admission, eraser }), workflow(makeCell)];
    const tokens = openTokenStore(store);
    const handlers = [...tenantHandlers({ store, tenants, admission, start }), ...placementHandlers({ admission }), ...claimHandlers({ store, claims }), ...operationHandlers({ store, runs, events })];
    const app = createApp({ store, tokens, handlers, log: pino({ level: "silent" }) });
    closing.push(() => tokens.close(), () => store.close());

    const create = (tenant: Partial<NewTenant> & { name: string }): Promise<CreatedTenant> => admission.create(NewTenant.parse(tenant), () => undefined);
    /** A call as a role, without a socket. */
    async function send<R>(role: keyof typeof secrets, method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<{ status: number; body: R & { code: string; detail: string } }> {
      const text = body === undefined ? "" : JSON.stringify(body);
      const carried = body === undefined ? {} : { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)) };
      const response = await app.request(path, { method, headers: { authorization: `Bearer ${secrets[role]}`, ...carried, ...headers }, ...(body === undefined ? {} : { body: text }) });
      return { status: response.status, body: (await response.json()) as R & { code: string; detail: string } };
    }
    function startRunner(): void {
      const runner = createRunner({ store, workflows: all, build: "test" });
      runner.start();
      closing.unshift(() => runner.stop({ drainMs: 100 }));
    }
    return { store, tenants, claims, admission, app, create, send, startRunner };
  }

  const first = addPlane();
  const { store } = first;
  await applySchema(store);
  await admitSecrets(store, secrets, { replace: true });

  async function addCell({ name, region = "eu", class: kind = "shared", state = "active", capacity = {} }: TestCell): Promise<void> {
    await store.query(
      `insert into cell (name, index, region, blueprint, class, driver, origin, state, spec, overrides, labels, tenants_capacity, connections_capacity, requests_per_second_capacity, disk_bytes_capacity)
       values ($1, $2, $3, 'app', $4, 'fake', 'person', $5, '{}', '{}', '{}', $6, $7, $8, $9)`,
      [name, ++index, region, kind, state, capacity.tenants ?? null, capacity.connections ?? null, capacity.requestsPerSecond ?? null, capacity.diskBytes ?? null],
    );
  }
  for (const cell of cells) await addCell(cell);

  return {
    ...first, settings, secrets, engine, rowsInCells, addPlane, addCell,
    atEnd: (close: () => Promise<void>) => void closing.unshift(close),
    /** Counters of each cell, and what they should be by the tenants it has. */
    async counters() {
      return store.query<{ cell: string; used: number[]; summed: number[] }>(
        `select c.name as cell, array[c.tenants_used, c.connections_used, c.disk_bytes_used]::float8[] as used,
                array[count(t.*), coalesce(sum(t.connections), 0), coalesce(sum(t.disk_bytes), 0)]::float8[] as summed
           from cell c left join tenant t on t.cell = c.name group by c.name order by c.name`,
      );
    },
    /** Routes as routers get them, in the order of the tenants' names. */
    routes: () => store.query<{ tenant: string; cell: string; state: string; epoch: number }>("select r.tenant, c.name as cell, r.state, r.epoch from route_tenant r join cell c on c.index = r.cell_index order by r.tenant"),
    async close() {
      for (const close of closing) await close();
      await database.drop();
    },
  };
}
export type TestFleet = Awaited<ReturnType<typeof testFleet>>;
