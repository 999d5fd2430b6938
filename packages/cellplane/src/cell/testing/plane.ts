import { createFakeDriver } from "../../drivers/fake/driver.ts";
import { fail } from "../../base/errors.ts";
import { eventSink } from "../../observe/events.ts";
import { insertEvents } from "../../observe/store.ts";
import { routePublisher } from "../../routing/store.ts";
import type { Json, Operation, Workflow } from "../../workflow/model.ts";
import { startRun } from "../../workflow/store.ts";
import { openEngine } from "../../workflow/testing/engine.ts";
import { Blueprint, type CellSpec } from "../model.ts";
import { cellWorkflows, type CreateCellInput, type UpdateCellInput } from "../steps.ts";
import { createCellStore, type CellRecord } from "../store.ts";

/** A spec that the fake driver makes. */
export const specNamed = (cell: string, over: Partial<CellSpec> = {}): CellSpec => ({
  ...Blueprint.parse({ driver: "fake", services: { app: { command: ["app"], ports: { http: "auto" } } }, capacity: { tenants: 10 } }),
  cell, region: "eu", blueprint: "shop", baseDirectory: "/srv",
  ...over,
});

/** A control plane on a database of its own: real store, runner, route log and event log; cells that are fake. */
export async function openPlane({ more = () => [] }: { more?: (plane: Plane) => Workflow[] } = {}) {
  const engine = await openEngine();
  const { store } = engine;
  const fake = createFakeDriver();
  const cells = createCellStore(store, eventSink(insertEvents));
  const driver = (name: string) => {
    if (name !== "fake") throw fail("driver_unknown", { driver: name, known: ["fake"] });
    return fake;
  };
  const workflows = cellWorkflows({ store, cells, driver, routes: routePublisher, healthGraceMs: 2000 });

  async function start(workflow: string, input: unknown, tx = store as Parameters<typeof startRun>[0]): Promise<string> {
    const found = workflows.find(({ name }) => name === workflow);
    if (!found) throw new Error(`no workflow ${workflow}`);
    return startRun(tx, found, input as never);
  }
  async function now(name: string): Promise<CellRecord> {
    const cell = await cells.get(name);
    if (!cell) throw new Error(`no cell ${name}`);
    return cell;
  }
  const createInput = (spec: CellSpec): CreateCellInput => ({ spec, overrides: {}, labels: {}, origin: "fleet" });
  const updateInput = (spec: CellSpec, overwriteDrift = false): UpdateCellInput => ({ spec, overrides: {}, labels: {}, overwriteDrift });

  const plane = {
    ...engine,
    fake,
    cells,
    driver,
    now,
    startRun: start,
    /** Starts it and waits until it is final. */
    do: async (workflow: string, input: unknown): Promise<Operation> => engine.wait(await start(workflow, input)),
    create: async (spec: CellSpec): Promise<Operation> => plane.do("cell.create", createInput(spec)),
    update: async (spec: CellSpec, overwriteDrift = false): Promise<Operation> => plane.do("cell.update", updateInput(spec, overwriteDrift)),
    createInput,
    updateInput,
    /** What routers were told of a cell; undefined: nothing, or that it is gone. */
    route: async (cell: string) => (await store.query<{ index: number; endpoint: string | null; state: string }>("select index, endpoint, state from route_cell where cell = $1", [cell]))[0],
    events: (cell: string) => store.query<{ kind: string; data: Record<string, Json> }>("select kind, data from event where subject = $1 order by id", [`cell/${cell}`]),
  };
  workflows.push(...more(plane));
  return { ...plane, runner: engine.run(workflows) };
}
export interface Plane {
  store: Awaited<ReturnType<typeof openEngine>>["store"];
  cells: ReturnType<typeof createCellStore>;
}
