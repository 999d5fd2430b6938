import type { AuditStore } from "../audit/store.ts";
import { cellStates, dimensions } from "../cell/model.ts";
import type { CellStore } from "../cell/store.ts";
import type { LiveEvents } from "../observe/live.ts";
import type { Metrics } from "../observe/metrics.ts";
import { routeHead } from "../routing/store.ts";
import type { Store } from "../store/store.ts";
import { countOperations } from "../workflow/store.ts";

/** Tells the metrics where their numbers come from; each is read when someone scrapes. */
export function controlGauges(metrics: Metrics, { store, cells, audit, live }: { store: Store; cells: CellStore; audit: AuditStore; live: LiveEvents }): void {
  const perCell = (of: (cell: Awaited<ReturnType<CellStore["all"]>>[number]) => number | null) => async () =>
    (await cells.all()).flatMap((cell) => {
      const value = of(cell);
      return value === null ? [] : [{ labels: { cell: cell.name, region: cell.region }, value }];
    });
  metrics.gauge("cellplane_cell_up", perCell((cell) => (cell.health.ok === null ? null : Number(cell.health.ok))));
  metrics.gauge("cellplane_cell_tenants", perCell((cell) => cell.used.tenants ?? 0));
  metrics.gauge("cellplane_cell_state", async () =>
    (await cells.all()).flatMap((cell) => cellStates.map((state) => ({ labels: { cell: cell.name, region: cell.region, state }, value: Number(cell.state === state) }))),
  );
  metrics.gauge("cellplane_cell_capacity_ratio", async () =>
    (await cells.all()).flatMap((cell) =>
      dimensions.flatMap((resource) => {
        const capacity = cell.capacity[resource];
        return capacity ? [{ labels: { cell: cell.name, region: cell.region, resource }, value: (cell.used[resource] ?? 0) / capacity }] : [];
      }),
    ),
  );
  metrics.gauge("cellplane_operations", async () => (await countOperations(store)).map(({ state, count }) => ({ labels: { state }, value: count })));
  metrics.gauge("cellplane_route_table_version", async () => [{ labels: {}, value: (await routeHead(store)).version }]);
  metrics.gauge("cellplane_audit_head_seq", async () => [{ labels: {}, value: (await audit.list({}, null, 1))[0]?.seq ?? 0 }]);
  metrics.gauge("cellplane_event_streams", async () => [{ labels: {}, value: live.followers() }]);
}
