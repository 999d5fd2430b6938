import { setTimeout as sleep } from "node:timers/promises";
import { type Logger, pino } from "pino";
import { systemClock } from "../base/clock.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { auditHandlers } from "../audit/api.ts";
import { openAuditStore } from "../audit/store.ts";
import { cellHandlers } from "../cell/api.ts";
import { observeCells } from "../cell/observe.ts";
import { cellWorkflows } from "../cell/steps.ts";
import { createCellStore } from "../cell/store.ts";
import { claimHandlers } from "../claim/api.ts";
import { createClaimStore } from "../claim/store.ts";
import type { CellDriver } from "../drivers/driver.ts";
import { fleetHandlers } from "../fleet/api.ts";
import { parseFleet } from "../fleet/parse.ts";
import { fleetWorkflows } from "../fleet/steps.ts";
import { createFleetStore } from "../fleet/store.ts";
import type { RawHandler } from "../http/contract.ts";
import { createApp, startServer } from "../http/server.ts";
import { openIdempotencyStore } from "../http/store.ts";
import { eventHandlers, eventStream } from "../observe/api.ts";
import { eventSink } from "../observe/events.ts";
import { openLiveEvents } from "../observe/live.ts";
import { type Metrics, openMetrics } from "../observe/metrics.ts";
import { insertEvents, openEventStore } from "../observe/store.ts";
import { placementHandlers } from "../placement/api.ts";
import { createPlacementStore } from "../placement/store.ts";
import { feedRoutes, routingHandlers } from "../routing/api.ts";
import { openRouteFeed } from "../routing/feed.ts";
import { routePublisher } from "../routing/store.ts";
import { applySchema } from "../store/schema.ts";
import { openStore, type Store } from "../store/store.ts";
import { tenantHandlers } from "../tenant/api.ts";
import { tenantWorkflows } from "../tenant/steps.ts";
import { createTenantStore } from "../tenant/store.ts";
import { tokenHandlers } from "../token/api.ts";
import { firstTokens } from "../token/first.ts";
import { openTokenStore } from "../token/store.ts";
import { operationHandlers } from "../workflow/api.ts";
import type { Json, Workflow } from "../workflow/model.ts";
import { createRunner } from "../workflow/runner.ts";
import * as runs from "../workflow/store.ts";
import { type Address, httpUrl } from "./address.ts";
import { housekeeping } from "./housekeeping.ts";
import { consoleFiles } from "./console.ts";
import { controlGauges } from "./gauges.ts";
import { buildVersion } from "./version.ts";

export interface ServerOptions {
  databaseUrl: string;
  stateDirectory: string;
  listen: Address;
  drivers: Record<string, CellDriver>;
  eraser: Parameters<typeof tenantWorkflows>[0]["eraser"];
  logLevel: string;
}

export interface ControlPlane {
  url: string;
  /** Finishes what is in flight, gives its runs back and ends; other instances and the next start go on. */
  close(): Promise<void>;
}

/** How long a start waits for a database that is not up yet. */
const databaseWaitMs = 30_000;

/**
 * One control plane instance: the API, the workflow runner and the reconcilers on one database. Any number of them may
 * run beside each other.
 *
 * @throws CellplaneError database_unavailable, port_in_use, schema_checksum, schema_newer
 */
export async function startControlPlane(options: ServerOptions): Promise<ControlPlane> {
  const log = pino({ level: options.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime });
  const store = openStore(options.databaseUrl, { connectionsMax: 16, applicationName: "cellplane-server" });
  await prepareDatabase(store, log);
  await firstTokens(store, options.stateDirectory);

  const events = openEventStore(store);
  const live = openLiveEvents(events);
  const sink = eventSink(insertEvents);
  const tokens = openTokenStore(store);
  const audit = openAuditStore(store);
  const metrics = openMetrics();
  const cells = createCellStore(store, sink);
  const fleets = createFleetStore(store);
  const claims = createClaimStore(sink);
  const tenants = createTenantStore({ routes: routePublisher, events: sink });
  const feed = await openRouteFeed(store, { clock: systemClock });

  const driver = (name: string): CellDriver => {
    const found = options.drivers[name];
    if (!found) throw fail("driver_unknown", { driver: name, known: Object.keys(options.drivers) });
    return found;
  };
  const workflows: Workflow[] = [];
  const start = (tx: Parameters<typeof runs.startRun>[0], name: string, input: Json): Promise<string> => {
    const workflow = workflows.find((candidate) => candidate.name === name);
    if (!workflow) throw new Error(`no workflow is called ${name}`);
    return runs.startRun(tx, workflow, input as never);
  };
  const admission = createPlacementStore({ store, tenants, claims, settings: fleets.settings, specOf: fleets.specOf, start });
  workflows.push(
    ...cellWorkflows({ store, cells, driver, routes: routePublisher }),
    ...fleetWorkflows({ fleets, routes: routePublisher }),
    ...tenantWorkflows({ store, tenants, claims, admission, eraser: options.eraser }),
  );

  const handlers = [
    ...tokenHandlers({ tokens }), ...auditHandlers({ audit }), ...eventHandlers({ events }), ...operationHandlers({ store, runs, events: sink }),
    ...cellHandlers({ cells, driver, specOf: fleets.specOf, start }), ...fleetHandlers({ fleets, cells, parse: parseFleet, drivers: options.drivers, start }),
    ...tenantHandlers({ store, tenants, admission, start }), ...placementHandlers({ admission }), ...claimHandlers({ store, claims }),
    ...routingHandlers({ feed }),
  ];
  const raw = [eventStream({ live }), ...feedRoutes(feed), metricsRoute(metrics), ...(await consoleFiles())];
  controlGauges(metrics, { store, cells, audit, live });

  const app = createApp({ store, tokens, handlers, raw, log, metrics, version: buildVersion });
  const server = await startServer(app, { port: options.listen.port, host: options.listen.host, flag: "--listen" });
  const runner = createRunner({ store, workflows, build: buildVersion, events: sink, log: (event) => log.debug(event, "workflow") });
  runner.start();
  const stopObserving = observeCells({ cells, driver, clock: systemClock, report: (error) => log.warn({ err: error }, "looking at the cells failed; it is tried again") });
  const stopHousekeeping = housekeeping({ store, events, claims, idempotency: openIdempotencyStore(store), log });
  log.info({ url: httpUrl(options.listen) }, "control plane is up");

  return {
    url: server.url,
    async close() {
      stopHousekeeping();
      await stopObserving();
      live.close();
      await feed.close();
      await Promise.all([server.close(), runner.stop()]);
      tokens.close();
      await store.close();
    },
  };
}

/** A database that is still starting is waited for; one that refuses or is too new is not. */
async function prepareDatabase(store: Store, log: Logger): Promise<void> {
  for (const deadlineMs = performance.now() + databaseWaitMs; ; ) {
    try {
      const applied = await applySchema(store);
      if (applied.length > 0) log.info({ applied }, "schema steps applied");
      return;
    } catch (error) {
      if (!(error instanceof CellplaneError) || error.code !== "database_unavailable" || performance.now() > deadlineMs) throw error;
      await sleep(200);
    }
  }
}

const metricsRoute = (metrics: Metrics): RawHandler => ({
  method: "GET", path: "/metrics", role: "public",
  handle: async () => new Response(await metrics.text(), { headers: { "content-type": metrics.contentType } }),
});
