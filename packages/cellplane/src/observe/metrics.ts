import { Counter, Gauge, Histogram, Registry } from "prom-client";

/**
 * Metrics of the control plane. Every name is declared here once, in the conventions of Prometheus: seconds and bytes,
 * `_total` on counters, no tenant in a label.
 */
const gauges = {
  cellplane_cell_up: { help: "1 when all checks of the cell were well at the last look, else 0.", labels: ["cell", "region"] },
  cellplane_cell_state: { help: "1 for the state the cell is in.", labels: ["cell", "region", "state"] },
  cellplane_cell_tenants: { help: "Tenants placed on the cell.", labels: ["cell", "region"] },
  cellplane_cell_capacity_ratio: { help: "Used part of the cell's capacity, by dimension.", labels: ["cell", "region", "resource"] },
  cellplane_operations: { help: "Operations that are not final, by state.", labels: ["state"] },
  cellplane_route_table_version: { help: "Version of the newest change in the route log.", labels: [] },
  cellplane_audit_head_seq: { help: "Entries in the audit log.", labels: [] },
  cellplane_event_streams: { help: "Event streams open at this instance.", labels: [] },
} as const satisfies Record<string, { help: string; labels: readonly string[] }>;

type GaugeName = keyof typeof gauges;
type Sample<N extends GaugeName> = { labels: Record<(typeof gauges)[N]["labels"][number], string>; value: number };

export interface Metrics {
  httpRequest(method: string, route: string, status: number, seconds: number): void;
  /** Asked at every scrape; the samples of the last one are forgotten first. A source that fails leaves its gauge empty. */
  gauge<N extends GaugeName>(name: N, source: () => Promise<Sample<N>[]>): void;
  /** The text of `GET /metrics`. */
  text(): Promise<string>;
  contentType: string;
}

export function openMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Counter({ name: "cellplane_http_requests_total", help: "Requests the API has answered.", labelNames: ["method", "route", "code_class"], registers });
  const duration = new Histogram({
    name: "cellplane_http_request_duration_seconds", help: "Time from a request's head to its answer's head.", labelNames: ["method", "route"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5], registers,
  });
  return {
    httpRequest(method, route, status, seconds) {
      requests.inc({ method, route: route || "none", code_class: `${Math.floor(status / 100)}xx` });
      duration.observe({ method, route: route || "none" }, seconds);
    },
    gauge(name, source) {
      const { help, labels } = gauges[name];
      const gauge = new Gauge({
        name, help, labelNames: labels as readonly string[] as string[], registers: [],
        async collect() {
          this.reset();
          for (const { labels, value } of await source().catch(() => [])) this.set(labels as Record<string, string>, value);
        },
      });
      registry.registerMetric(gauge);
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
