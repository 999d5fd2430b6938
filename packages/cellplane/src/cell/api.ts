import { z } from "zod";
import { Labels, Name } from "../base/names.ts";
import { fail } from "../base/errors.ts";
import type { CellDriver } from "../drivers/driver.ts";
import { endpoint, handler, type Handler, page, PageQuery } from "../http/contract.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Json } from "../workflow/model.ts";
import { Cell, CellDetail, CellSpec, cellStates, FieldChange, HealthCheck, NewCell, Observed, Overrides } from "./model.ts";
import { allow, changesBetween, mergeOverrides, refusedChanges, refusedVerbs } from "./plan.ts";
import type { CellRecord, CellStore } from "./store.ts";
import type { CreateCellInput, DestroyCellInput, UpdateCellInput } from "./steps.ts";

const OneCell = z.object({ cell: Name });

const CellUpdate = z.strictObject({
  /** Merged into the overrides the cell has. */
  overrides: Overrides.default({}),
  /** Replace the labels the cell has. */
  labels: Labels.optional(),
  /** Undo what someone else changed, instead of refusing. */
  overwriteDrift: z.boolean().default(false),
});

/** The cell as it is, with what the operation will change about it. */
const CellUpdating = z.object({ ...Cell.shape, changes: z.array(FieldChange), restarts: z.boolean() });

/** A cell as its engine shows it now. */
const CellLook = z.object({ cell: Name, driver: z.string(), spec: CellSpec, observed: Observed, checks: z.array(HealthCheck) });

const CellQuery = PageQuery.extend({ state: z.enum(cellStates).optional(), region: Name.optional(), blueprint: Name.optional() });
const flagOf = (fallback: boolean) => z.stringbool().default(fallback);

export const listCells = endpoint({ id: "listCells", method: "GET", path: "/v1/cells", role: "viewer", summary: "Lists the cells; destroyed ones only with state=destroyed", query: CellQuery, returns: page(Cell) });
export const getCell = endpoint({ id: "getCell", method: "GET", path: "/v1/cells/{cell}", role: "viewer", summary: "Shows a cell, its spec, and why a verb would be refused", params: OneCell, returns: CellDetail });
export const observeCell = endpoint({ id: "observeCell", method: "GET", path: "/v1/cells/{cell}/observed", role: "viewer", summary: "Looks at a cell now: its health and what someone else changed", params: OneCell, returns: CellLook });
export const createCell = endpoint({ id: "createCell", method: "POST", path: "/v1/cells", role: "operator", status: 202, summary: "Makes a cell from a blueprint of the fleet file", body: NewCell, returns: Cell });
export const updateCell = endpoint({ id: "updateCell", method: "PATCH", path: "/v1/cells/{cell}", role: "operator", status: 202, summary: "Changes a cell in place; it returns to what it was when it does not get ready", params: OneCell, body: CellUpdate, returns: CellUpdating });
export const cordonCell = endpoint({ id: "cordonCell", method: "POST", path: "/v1/cells/{cell}/cordon", role: "operator", summary: "Places no more tenants on a cell", params: OneCell, returns: Cell });
export const uncordonCell = endpoint({ id: "uncordonCell", method: "POST", path: "/v1/cells/{cell}/uncordon", role: "operator", summary: "Places tenants on a cell again; calls off a drain", params: OneCell, returns: Cell });
export const drainCell = endpoint({ id: "drainCell", method: "POST", path: "/v1/cells/{cell}/drain", role: "operator", status: 202, summary: "Cordons a cell and waits until no tenant is left", params: OneCell, returns: Cell });
export const retireCell = endpoint({ id: "retireCell", method: "POST", path: "/v1/cells/{cell}/retire", role: "operator", status: 202, summary: "Takes a cell without tenants out of service for good", params: OneCell, returns: Cell });
export const destroyCell = endpoint({
  id: "destroyCell", method: "DELETE", path: "/v1/cells/{cell}", role: "admin", status: 202, summary: "Takes down a cell without tenants; its data are kept unless purged",
  params: OneCell, query: z.object({ purge: flagOf(false) }), returns: Cell,
});

export interface CellHandlerDeps {
  cells: CellStore;
  /** @throws CellplaneError driver_unknown */
  driver: (name: string) => CellDriver;
  /** What a cell of the fleet would be made from. @throws CellplaneError fleet_missing, invalid_input */
  specOf: (at: Queryable | undefined, cell: Pick<NewCell, "name" | "region" | "blueprint" | "overrides">) => Promise<CellSpec>;
  /** Starts a run with the transaction. @returns its id */
  start: (tx: Tx, workflow: string, input: Json) => Promise<string>;
}

/** What a cell is to those who may not see everything of it. */
function shown(record: CellRecord): Cell {
  const { spec: _, ...cell } = record;
  return cell;
}

export function cellHandlers({ cells, driver, specOf, start }: CellHandlerDeps): Handler[] {
  async function need(name: string, at?: Queryable): Promise<CellRecord> {
    const cell = await cells.get(name, at);
    if (!cell) throw fail("not_found", { what: "cell", name });
    return cell;
  }

  /** The cell, held until the transaction ends. @throws CellplaneError not_found, generation_stale when the caller has seen another */
  async function hold(tx: Tx, name: string, ifMatch: number | null): Promise<CellRecord> {
    const cell = await cells.hold(tx, name);
    if (ifMatch !== null && ifMatch !== cell.generation) throw fail("generation_stale", { what: "cell", name, expected: ifMatch, actual: cell.generation });
    return cell;
  }

  /** For runs that say themselves when they are over, however they end. */
  async function begin(tx: Tx, cell: CellRecord, workflow: string, input: unknown): Promise<Cell> {
    const operation = await start(tx, workflow, input as Json);
    await cells.engage(tx, cell.name, operation);
    return { ...shown(cell), operation };
  }

  return [
    handler(listCells, async ({ query: { limit, cursor, ...only } }) => {
      const found = await cells.list({ ...only, after: cursor, limit: limit + 1 });
      const items = found.slice(0, limit).map(shown);
      return { items, nextCursor: found.length > limit ? (items.at(-1)?.name ?? null) : null };
    }),

    handler(getCell, async ({ params }) => {
      const cell = await need(params.cell);
      return { ...cell, refused: refusedVerbs(cell) };
    }),

    handler(observeCell, async ({ params, signal }) => {
      const { name, spec } = await need(params.cell);
      const engine = driver(spec.driver);
      const [observed, checks] = await Promise.all([engine.observe(name, signal), engine.health(name, signal)]);
      return { cell: name, driver: spec.driver, spec, observed, checks };
    }),

    handler(createCell, ({ body, mutate }) =>
      mutate(async (tx) => {
        const spec = await specOf(tx, body);
        driver(spec.driver);
        const input: CreateCellInput = { spec, overrides: body.overrides, labels: body.labels, origin: "person" };
        return begin(tx, await cells.request(tx, input), "cell.create", input);
      }),
    ),

    handler(updateCell, async ({ params, body, ifMatch, signal, mutate }) => {
      const wantedOf = async (cell: CellRecord, at?: Queryable) => {
        allow("update", cell);
        const overrides = mergeOverrides(cell.overrides, body.overrides);
        const spec = await specOf(at, { ...cell, overrides });
        const issues = refusedChanges(cell, cell.spec, spec);
        if (issues.length > 0) throw fail("cell_update_refused", { cell: cell.name, issues });
        return { overrides, spec };
      };
      // The engine is asked before any transaction is begun: what it says may take a while.
      const seen = await need(params.cell);
      const engine = driver(seen.driver);
      const { drift } = await engine.observe(seen.name, signal);
      if (drift.length > 0 && !body.overwriteDrift) throw fail("cell_drifted", { cell: seen.name, paths: drift.map((field) => field.path) });
      const { changes: all, restarts } = await engine.plan((await wantedOf(seen)).spec, signal, { overwriteDrift: body.overwriteDrift });

      return mutate(async (tx) => {
        const cell = await hold(tx, params.cell, ifMatch);
        const { overrides, spec } = await wantedOf(cell, tx);
        const labels = body.labels ?? cell.labels;
        const changes = [...(all as FieldChange[]), ...changesBetween(cell.labels, labels, "labels")];
        if (changes.length === 0) return { ...shown(cell), changes, restarts };
        const input: UpdateCellInput = { spec, overrides, labels, overwriteDrift: body.overwriteDrift };
        return { ...(await begin(tx, cell, "cell.update", input)), changes, restarts };
      });
    }),

    handler(cordonCell, ({ params, ifMatch, mutate }) => mutate(async (tx) => shown(await cells.move(tx, await hold(tx, params.cell, ifMatch), "cordon")))),

    handler(uncordonCell, ({ params, ifMatch, mutate }) => mutate(async (tx) => shown(await cells.move(tx, await hold(tx, params.cell, ifMatch), "uncordon")))),

    handler(drainCell, ({ params, ifMatch, mutate }) =>
      mutate(async (tx) => {
        const cell = await hold(tx, params.cell, ifMatch);
        allow("drain", cell);
        return begin(tx, cell, "cell.drain", { cell: cell.name });
      }),
    ),

    handler(retireCell, ({ params, ifMatch, mutate }) =>
      mutate(async (tx) => {
        const cell = await hold(tx, params.cell, ifMatch);
        allow("retire", cell);
        return { ...shown(cell), operation: await start(tx, "cell.retire", { cell: cell.name }) };
      }),
    ),

    handler(destroyCell, ({ params, query, ifMatch, mutate }) =>
      mutate(async (tx) => {
        const cell = await hold(tx, params.cell, ifMatch);
        allow("destroy", cell);
        const input: DestroyCellInput = { cell: cell.name, purge: query.purge };
        return { ...shown(cell), operation: await start(tx, "cell.destroy", input) };
      }),
    ),
  ];
}
