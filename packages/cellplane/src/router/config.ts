/** What a router is told at its start. Everything else it learns from the route feed. */
export interface RouterConfig {
  /** Stands in acknowledgements and metrics; one name per process. */
  name: string;
  /** Where clients connect; `fd` takes over a listening socket, as from a systemd socket unit. */
  listen: { host: string; port: number } | { fd: number };
  /** Metrics, readiness and explanations; for operators only. */
  admin: { host: string; port: number };
  /** Control plane instances, as in `http://127.0.0.1:7070`; tried in turn. Empty: the table on disk is all there is. */
  controlPlane: readonly string[];
  /** Bearer token of the role `router`. */
  token: string;
  /** The fleet's stamp secret: signs what cells are told, and the table on disk. */
  stampSecret: string;
  /** Folder of the table's copy; made when absent. */
  stateDirectory: string;
  limits?: Partial<Limits>;
  /** One line for people. */
  log?: (line: string) => void;
}

export interface Limits {
  /** Client connections open at once; more are closed at once. Larger than what one cell can hold, so that a hung cell cannot take them all. */
  clientsMax: number;
  /** Connections to one cell, each with one request under way; and besides them upgraded ones, such as WebSockets. */
  cellConnectionsMax: number;
  cellTunnelsMax: number;
  /** Requests that wait for a connection to one cell, and how long. */
  cellQueueMax: number;
  cellQueueMs: number;
  cellConnectMs: number;
  /** After so many failed connects in a row, or with all connections silent for `stallMs` while others wait, a cell answers 503 at once for `breakerMs`. */
  connectFailuresMax: number;
  stallMs: number;
  breakerMs: number;
  /** An idle connection to a cell is closed after this, before the cell's own server would. Node's closes after 5 s. */
  cellIdleMs: number;
  /** Requests under way for one tenant. */
  tenantInFlightMax: number;
  /** From the first byte of a head to its last; an idle client; a body or an answer that makes no progress; an open tunnel without traffic. */
  headMs: number;
  idleMs: number;
  progressMs: number;
  tunnelMs: number;
  /** Bytes of a request's body kept so that it can be sent again after a 421, and how often it is. */
  replayBytesMax: number;
  replaysMax: number;
  /** How long a request refused with 421 waits for a newer route. */
  staleMs: number;
  /** Requests of one tenant, and of all, that wait while it is on hold, and how long. */
  holdMax: number;
  holdTotalMax: number;
  holdMs: number;
  /** Requests released together when a hold ends. */
  holdRelease: number;
  /** Bytes in flight towards a slow receiver before the sender is paused. */
  bufferBytesMax: number;
  /** At shutdown: how long idle clients may still send a request, and how long running ones may take. */
  drainIdleMs: number;
  drainMs: number;
}

export const defaultLimits: Limits = {
  clientsMax: 20_000,
  cellConnectionsMax: 1024, cellTunnelsMax: 10_000, cellQueueMax: 1024, cellQueueMs: 5000, cellConnectMs: 2000,
  connectFailuresMax: 4, stallMs: 4000, breakerMs: 1000, cellIdleMs: 4000,
  tenantInFlightMax: 512,
  headMs: 10_000, idleMs: 75_000, progressMs: 60_000, tunnelMs: 3_600_000,
  replayBytesMax: 64 * 1024, replaysMax: 3, staleMs: 2000,
  holdMax: 1024, holdTotalMax: 8192, holdMs: 10_000, holdRelease: 16,
  bufferBytesMax: 256 * 1024,
  drainIdleMs: 1000, drainMs: 30_000,
};
