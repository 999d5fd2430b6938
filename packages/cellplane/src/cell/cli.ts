import { type Cli, flag, type Shown } from "../cli/command.ts";
import { formatBytes } from "../base/units.ts";
import { fail } from "../base/errors.ts";
import { cordonCell, createCell, destroyCell, drainCell, getCell, listCells, observeCell, retireCell, uncordonCell, updateCell } from "./api.ts";
import { type Cell, cellStates, dimensions, type Overrides } from "./model.ts";

const one = { cell: "Its name" };
const operationOf = (cell: Cell): string | null => cell.operation;

const healthOf = ({ health }: Cell): string => (health.ok === null ? "unknown" : health.ok ? "well" : `down: ${health.checks.filter((check) => !check.ok).map((check) => check.name).join(", ")}`);

/** "3/100": used of what it holds; an unlimited dimension has no second number. */
function load(cell: Cell, dimension: (typeof dimensions)[number]): string {
  const shown = (amount: number): string => (dimension === "diskBytes" ? formatBytes(amount) : String(amount));
  const capacity = cell.capacity[dimension];
  return `${shown(cell.used[dimension] ?? 0)}${capacity === undefined ? "" : `/${shown(capacity)}`}`;
}

const columns = {
  NAME: (cell: Cell): Shown => cell.name,
  REGION: (cell: Cell): Shown => cell.region,
  STATE: (cell: Cell): Shown => cell.state,
  HEALTH: healthOf,
  TENANTS: (cell: Cell): Shown => load(cell, "tenants"),
  VERSION: (cell: Cell): Shown => cell.version,
};
const wide = {
  CLASS: (cell: Cell): Shown => cell.class,
  BLUEPRINT: (cell: Cell): Shown => cell.blueprint,
  DRIVER: (cell: Cell): Shown => cell.driver,
  ENDPOINT: (cell: Cell): Shown => cell.endpoint,
  CONNECTIONS: (cell: Cell): Shown => load(cell, "connections"),
  "REQUESTS/S": (cell: Cell): Shown => load(cell, "requestsPerSecond"),
  DISK: (cell: Cell): Shown => load(cell, "diskBytes"),
  DRIFT: (cell: Cell): Shown => cell.drift.map((field) => field.path),
  OPERATION: (cell: Cell): Shown => cell.operation,
};

/** `{"config.theme": "dark"}` → `{config: {theme: "dark"}}`; a value that is JSON is taken as JSON, any other as text, and so are versions and environments. */
export function overridesOf(pairs: Record<string, string>): Overrides {
  const overrides: Overrides = {};
  for (const [path, text] of Object.entries(pairs)) {
    const keys = path.split(".");
    if (keys.some((key) => key === "" || key === "__proto__")) throw fail("bad_usage", { command: "cell", why: `${path} is no path of a field` });
    const last = keys.pop() ?? "";
    let at: Record<string, unknown> = overrides;
    for (const key of keys) {
      const next = Object.hasOwn(at, key) ? at[key] : {};
      if (typeof next !== "object" || next === null) throw fail("bad_usage", { command: "cell", why: `${path} lies within a field that is set as a whole` });
      at[key] = next;
      at = next as Record<string, unknown>;
    }
    at[last] = path === "version" || keys.at(-1) === "env" ? text : valueOf(text);
  }
  return overrides;
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

const set = flag.pairs("A field of the blueprint this cell has otherwise, as in version=2 or config.theme=dark; may be repeated");

export function registerCell(cli: Cli): void {
  const cell = cli.noun("cell");

  cli.verb(cell, "list", {
    summary: "List the cells",
    flags: { region: flag.text("Only those of this region"), state: flag.choice(cellStates, "Only those in this state; destroyed ones are listed only so"), blueprint: flag.text("Only those made from this blueprint") },
    run: ({ flags, pages }) => pages(listCells, { query: flags }),
    columns,
    wide,
  });

  cli.verb(cell, "describe", {
    summary: "Show a cell, its spec, its health and what may be done with it",
    args: one,
    run: ({ args, call }) => call(getCell, { params: { cell: args.cell } }),
    columns: {
      ...columns,
      ...wide,
      GENERATION: (found) => found.generation,
      LABELS: (found) => Object.entries(found.labels).map(([key, value]) => `${key}=${value}`),
      "MAY NOT": (found) => Object.entries(found.refused).flatMap(([verb, why]) => (why === null ? [] : [`${verb} (${why})`])),
    },
  });

  cli.verb(cell, "drift", {
    summary: "Look at a cell now and show what someone else changed",
    args: one,
    flags: { detailedExitcode: flag.toggle("Exit with 2 when something differs") },
    run: async ({ args, flags, call, exitWith }) => {
      const look = await call(observeCell, { params: { cell: args.cell } });
      if (flags.detailedExitcode && look.observed.drift.length > 0) exitWith(2);
      return look;
    },
    text: ({ cell: name, observed, checks }) =>
      [
        ...checks.map((check) => `${check.ok ? "well" : "down"}  ${check.name}  ${check.detail}`.trimEnd()),
        ...(observed.exists ? [] : [`${name} is not there`]),
        ...(observed.drift.length === 0 ? ["no foreign changes"] : observed.drift.map((field) => `changed  ${field.path}  ${JSON.stringify(field.expected)} → ${JSON.stringify(field.actual)}`)),
      ].join("\n"),
  });

  cli.verb(cell, "create", {
    summary: "Make a cell from a blueprint of the fleet file",
    help: "A cell made so does not stand in the fleet file: `apply --prune` leaves it alone, and changes of its blueprint reach it.",
    args: one,
    flags: { region: flag.required(flag.text("Where")), blueprint: flag.required(flag.text("From what")), set, label: flag.pairs("A label; may be repeated") },
    mutates: true,
    run: ({ args, flags, call }) => call(createCell, { body: { name: args.cell, region: flags.region, blueprint: flags.blueprint, overrides: overridesOf(flags.set), labels: flags.label } }),
    columns,
    operation: operationOf,
  });

  cli.verb(cell, "update", {
    summary: "Change a cell in place; it returns to what it was when it does not get ready",
    help: "What the fleet file says of the cell comes back with the next apply.",
    args: one,
    flags: { set, overwriteDrift: flag.toggle("Undo what someone else changed, instead of refusing") },
    mutates: true,
    before: ({ args, call }) => call(getCell, { params: { cell: args.cell } }),
    run: ({ args, flags, call }) => call(updateCell, { params: { cell: args.cell }, body: { overrides: overridesOf(flags.set), overwriteDrift: flags.overwriteDrift } }),
    after: async ({ args, call }, { changes, restarts }) => ({ ...(await call(getCell, { params: { cell: args.cell } })), changes, restarts }),
    columns: { ...columns, CHANGES: (found) => found.changes.map((change) => change.path), RESTARTS: (found) => found.restarts },
    operation: operationOf,
  });

  const verbs = [
    { name: "cordon", endpoint: cordonCell, summary: "Place no more tenants on a cell" },
    { name: "uncordon", endpoint: uncordonCell, summary: "Place tenants on a cell again; calls off a drain" },
    { name: "drain", endpoint: drainCell, summary: "Cordon a cell and wait until no tenant is left" },
    { name: "retire", endpoint: retireCell, summary: "Take a cell without tenants out of service for good" },
  ];
  for (const { name, endpoint, summary } of verbs) {
    cli.verb(cell, name, {
      summary,
      args: one,
      mutates: true,
      before: ({ args, call }) => call(getCell, { params: { cell: args.cell } }),
      run: ({ args, call }) => call(endpoint, { params: { cell: args.cell } }),
      columns,
      operation: operationOf,
    });
  }

  cli.verb(cell, "destroy", {
    summary: "Take down a cell without tenants; its data are kept unless purged",
    args: one,
    flags: { purge: flag.toggle("Remove its data too; the name may then be used again") },
    mutates: true,
    confirm: ({ args }) => args.cell,
    before: ({ args, call }) => call(getCell, { params: { cell: args.cell } }),
    run: ({ args, flags, call }) => call(destroyCell, { params: { cell: args.cell }, query: { purge: flags.purge ? "true" : "false" } }),
    columns,
    operation: operationOf,
  });
}
