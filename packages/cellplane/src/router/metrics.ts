import type { RefusalKind } from "./refuse.ts";

/** Seconds; the upper bounds of the histogram's buckets. */
const bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/** Counters of one cell; plain arrays, because each request touches them. */
export class CellCounters {
  readonly byClass = new Float64Array(classes.length);
  readonly buckets = new Float64Array(bounds.length + 1);
  seconds = 0;
  retries = 0;

  /** @param ms from the head of the request to the end of the answer */
  count(status: number, ms: number): void {
    const at = Math.floor(status / 100) - 1;
    this.byClass[at] = (this.byClass[at] ?? 0) + 1;
    const seconds = ms / 1000;
    let bucket = 0;
    while (bucket < bounds.length && seconds > (bounds[bucket] as number)) bucket++;
    this.buckets[bucket] = (this.buckets[bucket] ?? 0) + 1;
    this.seconds += seconds;
  }
}

/** What the router counts over its life. Names are listed in SPEC.md. */
export class Counters {
  readonly cells = new Map<string, CellCounters>();
  readonly refused = new Map<RefusalKind, number>();
  batches = 0;
  snapshots = 0;
  feedErrors = 0;
  badData = 0;
  clientsRefused = 0;
  diskErrors = 0;

  ofCell(cell: string): CellCounters {
    let counters = this.cells.get(cell);
    if (!counters) this.cells.set(cell, (counters = new CellCounters()));
    return counters;
  }

  refuse(kind: RefusalKind): void {
    this.refused.set(kind, (this.refused.get(kind) ?? 0) + 1);
  }
}

/** What is true at the moment of asking. */
export interface Gauges {
  tableVersion: number;
  /** Since the control plane last said that the table is the newest; null while it never did. */
  tableAgeSeconds: number | null;
  tenants: number;
  keys: number;
  tableBytes: number;
  clients: number;
  held: number;
  cells: { cell: string; inFlight: number; queued: number; idle: number; broken: boolean }[];
}

/** In the text format of Prometheus. */
export function renderMetrics(counters: Counters, gauges: Gauges): string {
  const lines: string[] = [];
  const family = (name: string, type: string, help: string, samples: [labels: string, value: number][]): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples.map(([labels, value]) => `${name}${labels} ${value}`));
  };
  const cells = [...counters.cells];
  family("cellplane_router_requests_total", "counter", "Requests answered by a cell.", cells.flatMap(([cell, c]) => classes.map((name, i): [string, number] => [`{cell="${cell}",code_class="${name}"}`, c.byClass[i] ?? 0]).filter(([, n]) => n > 0)));
  family("cellplane_router_refused_total", "counter", "Requests the router answered by itself, by reason.", [...counters.refused].map(([kind, n]) => [`{reason="${kind}"}`, n]));
  family("cellplane_router_retries_total", "counter", "Requests sent again, after a 421 or a dropped connection.", cells.map(([cell, c]) => [`{cell="${cell}"}`, c.retries]));
  lines.push("# HELP cellplane_router_request_duration_seconds From the head of a request to the end of its answer.", "# TYPE cellplane_router_request_duration_seconds histogram");
  for (const [cell, c] of cells) {
    let sum = 0;
    c.buckets.forEach((n, i) => lines.push(`cellplane_router_request_duration_seconds_bucket{cell="${cell}",le="${bounds[i] ?? "+Inf"}"} ${(sum += n)}`));
    lines.push(`cellplane_router_request_duration_seconds_sum{cell="${cell}"} ${c.seconds}`, `cellplane_router_request_duration_seconds_count{cell="${cell}"} ${sum}`);
  }
  const gauge = (name: string, help: string, value: number | null): void => family(name, "gauge", help, value === null ? [] : [["", value]]);
  gauge("cellplane_route_table_version", "Version of the route log that is applied.", gauges.tableVersion);
  gauge("cellplane_route_table_age_seconds", "Since the control plane last confirmed the table.", gauges.tableAgeSeconds);
  gauge("cellplane_route_table_tenants", "Tenants with a route.", gauges.tenants);
  gauge("cellplane_route_table_keys", "Keys besides the tenants' names.", gauges.keys);
  gauge("cellplane_route_table_bytes", "Memory of the table.", gauges.tableBytes);
  gauge("cellplane_router_clients", "Client connections.", gauges.clients);
  gauge("cellplane_router_held", "Requests that wait for a route to change.", gauges.held);
  const perCell = (name: string, help: string, of: (cell: Gauges["cells"][number]) => number): void => family(name, "gauge", help, gauges.cells.map((cell) => [`{cell="${cell.cell}"}`, of(cell)]));
  perCell("cellplane_router_in_flight", "Connections to a cell with a request under way, or upgraded.", (cell) => cell.inFlight);
  perCell("cellplane_router_queue", "Requests that wait for a connection to a cell.", (cell) => cell.queued);
  perCell("cellplane_router_idle_connections", "Idle connections to a cell.", (cell) => cell.idle);
  perCell("cellplane_router_breaker_open", "1 while a cell is answered for with 503.", (cell) => Number(cell.broken));
  family("cellplane_route_feed_total", "counter", "What came from the control plane.", [['{what="batch"}', counters.batches], ['{what="snapshot"}', counters.snapshots], ['{what="error"}', counters.feedErrors], ['{what="bad_data"}', counters.badData]]);
  gauge("cellplane_router_disk_errors", "Failed writes of the table to disk.", counters.diskErrors);
  gauge("cellplane_router_clients_refused", "Client connections refused because too many were open.", counters.clientsRefused);
  return `${lines.join("\n")}\n`;
}
