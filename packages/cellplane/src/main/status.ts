import type { Cli, Invocation } from "../cli/command.ts";
import { listCells } from "../cell/api.ts";
import type { Cell } from "../cell/model.ts";
import { listRouters } from "../routing/api.ts";
import { listOperations } from "../workflow/api.ts";

/** The fleet at a glance. */
export interface FleetStatus {
  cells: { cell: string; region: string; state: string; health: string; tenants: number; fullness: number | null; version: string }[];
  routers: { router: string; behind: number; ageMs: number }[];
  /** Not final ones. */
  operations: { operation: string; workflow: string; subject: string; state: string; message: string }[];
  /** What a person should look at, worst first; empty when all is well. */
  attention: string[];
}

type Calls = Pick<Invocation<unknown, unknown>, "call" | "pages">;

/** A router that has not spoken for so long is away. */
const silentRouterMs = 15_000;

export async function fleetStatus({ call, pages }: Calls): Promise<FleetStatus> {
  const cells: Cell[] = [];
  for await (const cell of pages(listCells, { query: {} })) cells.push(cell);
  const [routers, ...operations] = await Promise.all([
    call(listRouters, {}),
    ...(["running", "waiting", "parked", "paused", "undoing"] as const).map((state) => call(listOperations, { query: { state, limit: 20 } })),
  ]);
  const open = operations.flatMap((page) => page.items);
  return {
    cells: cells.map((cell) => ({
      cell: cell.name, region: cell.region, state: cell.state, health: healthOf(cell), tenants: cell.used.tenants ?? 0, fullness: fullnessOf(cell), version: cell.version,
    })),
    routers: routers.items.map(({ name, behind, ageMs }) => ({ router: name, behind, ageMs })),
    operations: open.map(({ id, workflow, subject, state, message }) => ({ operation: id, workflow, subject, state, message })),
    attention: [
      ...cells.filter((cell) => cell.health.ok === false).map((cell) => `cell ${cell.name} is not well: ${cell.health.checks.filter((check) => !check.ok).map((check) => `${check.name}: ${check.detail}`).join("; ")}`),
      ...cells.filter((cell) => cell.state === "failed").map((cell) => `cell ${cell.name} could not be made`),
      ...cells.filter((cell) => cell.drift.length > 0).map((cell) => `cell ${cell.name} was changed by someone else: ${cell.drift.map((field) => field.path).join(", ")}`),
      ...cells.filter((cell) => (fullnessOf(cell) ?? 0) >= 0.9).map((cell) => `cell ${cell.name} is ${Math.round((fullnessOf(cell) ?? 0) * 100)} % full`),
      ...routers.items.filter((router) => router.ageMs > silentRouterMs).map((router) => `router ${router.name} was last heard of ${Math.round(router.ageMs / 1000)} s ago`),
      ...open.filter((operation) => operation.state === "parked").map((operation) => `operation ${operation.id} waits for a person: ${operation.message}`),
    ],
  };
}

const healthOf = (cell: Cell): string => (cell.health.ok === null ? "unknown" : cell.health.ok ? "ok" : "down");

/** The fullest dimension, 0…1; null when nothing limits the cell. */
function fullnessOf(cell: Cell): number | null {
  const ratios = Object.entries(cell.capacity).flatMap(([dimension, capacity]) => (capacity ? [(cell.used[dimension as keyof typeof cell.used] ?? 0) / capacity] : []));
  return ratios.length > 0 ? Math.max(...ratios) : null;
}

export function statusText({ cells, routers, operations, attention }: FleetStatus): string {
  const table = (rows: string[][]): string => {
    const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
    return rows.map((row) => row.map((text, i) => (i === row.length - 1 ? text : text.padEnd(widths[i] ?? 0))).join("  ")).join("\n");
  };
  const percent = (ratio: number | null): string => (ratio === null ? "-" : `${Math.round(ratio * 100)}%`);
  const parts = [
    cells.length > 0
      ? table([["CELL", "REGION", "STATE", "HEALTH", "TENANTS", "FULL", "VERSION"], ...cells.map((cell) => [cell.cell, cell.region, cell.state, cell.health, String(cell.tenants), percent(cell.fullness), cell.version])])
      : "There are no cells yet: write a fleet file and `cellplane apply -f cellplane.yaml`.",
    routers.length > 0 ? table([["ROUTER", "BEHIND", "HEARD"], ...routers.map((router) => [router.router, String(router.behind), `${(router.ageMs / 1000).toFixed(1)}s ago`])]) : "No router has been heard of within the last hour.",
  ];
  if (operations.length > 0) parts.push(table([["OPERATION", "WORKFLOW", "SUBJECT", "STATE", "MESSAGE"], ...operations.map((operation) => [operation.operation, operation.workflow, operation.subject, operation.state, operation.message])]));
  parts.push(attention.length > 0 ? `Needs attention:\n${attention.map((line) => `  ! ${line}`).join("\n")}` : "All is well.");
  return parts.join("\n\n");
}

export function registerStatus(cli: Cli): void {
  cli.verb(cli.program, "status", {
    summary: "The fleet at a glance: cells, routers, operations under way, what needs attention",
    run: fleetStatus,
    text: statusText,
  });
}
