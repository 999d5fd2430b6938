/**
 * Every failure a user can meet, in one table. A code is public and permanent; its entry says what happened (`say`),
 * what to do (`fix`), the HTTP status of the API, the exit code of the CLI and whether the same call may be sent again.
 */

/** 1 failed · 3 usage or validation · 4 auth · 5 conflict or stale plan · 6 timed out waiting · 7 failed and rolled back · 8 refused by a guard */
type ExitCode = 1 | 3 | 4 | 5 | 6 | 7 | 8;

interface ErrorKind<D> {
  http: number;
  exit: ExitCode;
  /** "same": the same call may be sent again unchanged · "later": after a pause · "never": change something first */
  retry: "same" | "later" | "never";
  fix: string;
  say: (data: D) => string;
}

const kind = <D>(entry: ErrorKind<D>): ErrorKind<D> => entry;

export interface Issue {
  /** Where in the input, as in `cells.eu-1.region`; empty for the whole. */
  path: string;
  message: string;
  line?: number | undefined;
  column?: number | undefined;
}

const listIssues = (issues: Issue[], file?: string): string =>
  issues
    .map((i) => {
      const at = i.line === undefined ? (file ?? "") : `${file ?? "input"}:${i.line}:${i.column ?? 1}`;
      return [at, i.path, i.message].filter(Boolean).join(": ");
    })
    .join("; ");

export const errorKinds = {
  // ── requests and callers ────────────────────────────────────────────────────────────────────────────────────────
  invalid_input: kind<{ issues: Issue[] }>({ http: 400, exit: 3, retry: "never", fix: "Correct the fields named and send the request again.", say: (d) => listIssues(d.issues) }),
  not_found: kind<{ what: string; name: string }>({ http: 404, exit: 1, retry: "never", fix: "Check the name; list what exists with the noun's `list`.", say: (d) => `there is no ${d.what} ${d.name}` }),
  already_exists: kind<{ what: string; name: string }>({ http: 409, exit: 5, retry: "never", fix: "Choose another name, or update the existing one.", say: (d) => `${d.what} ${d.name} exists already, and differs` }),
  generation_stale: kind<{ what: string; name: string; expected: number; actual: number }>({
    http: 412, exit: 5, retry: "never", fix: "Read it again and decide again.",
    say: (d) => `${d.what} ${d.name} is at generation ${d.actual}, not ${d.expected}: someone changed it meanwhile`,
  }),
  unauthenticated: kind<{ why: string }>({ http: 401, exit: 4, retry: "never", fix: "Pass a valid token: --token, CELLPLANE_TOKEN or the context written at the first start.", say: (d) => d.why }),
  forbidden: kind<{ role: string; needs: string }>({ http: 403, exit: 4, retry: "never", fix: "Ask an admin for a token with the role named.", say: (d) => `this needs the role ${d.needs}; the token has ${d.role}` }),
  idempotency_mismatch: kind<{ key: string }>({ http: 409, exit: 5, retry: "never", fix: "Use a new idempotency key for a different request.", say: (d) => `idempotency key ${d.key} was used for another request` }),
  wrong_state: kind<{ what: string; name: string; state: string; wanted: string }>({
    http: 409, exit: 5, retry: "never", fix: "Wait for the state or choose another verb; `describe` shows what may follow.",
    say: (d) => `${d.what} ${d.name} is ${d.state}; this needs ${d.wanted}`,
  }),
  internal: kind<{ trace: string }>({ http: 500, exit: 1, retry: "later", fix: "Look for the trace id in the control plane's log.", say: (d) => `something went wrong on our side (trace ${d.trace})` }),

  // ── this machine ────────────────────────────────────────────────────────────────────────────────────────────────
  database_unavailable: kind<{ why: string }>({ http: 503, exit: 1, retry: "later", fix: "Check that PostgreSQL runs and accepts connections; nothing was lost.", say: (d) => `the control plane's database does not answer: ${d.why}` }),
  server_unreachable: kind<{ url: string; why: string }>({ http: 503, exit: 1, retry: "later", fix: "Start it with `npm start` or `cellplane server`, or name another with --server.", say: (d) => `no answer from ${d.url}: ${d.why}` }),
  port_in_use: kind<{ port: number; purpose: string; flag: string }>({ http: 500, exit: 1, retry: "never", fix: "Stop what holds the port, or choose another with the flag named.", say: (d) => `port ${d.port} for the ${d.purpose} is in use (choose another with ${d.flag})` }),
  disk_full: kind<{ path: string }>({ http: 507, exit: 1, retry: "later", fix: "Free space and start again; what was acknowledged is kept.", say: (d) => `no space left on the disk of ${d.path}` }),
  state_dir_in_use: kind<{ path: string; pid: number }>({ http: 500, exit: 1, retry: "never", fix: "Stop the other process, or choose another --state-dir.", say: (d) => `${d.path} is used by the running process ${d.pid}` }),
  postgres_failed: kind<{ why: string; log: string }>({ http: 500, exit: 1, retry: "later", fix: "Read the log named; `cellplane doctor` checks the usual causes.", say: (d) => `PostgreSQL did not start: ${d.why} (log: ${d.log})` }),
  postgres_not_found: kind<{ where: string; why: string }>({ http: 500, exit: 1, retry: "never", fix: "Run `npm install` on Linux (glibc) or macOS, or name the programs of a PostgreSQL ≥ 15 with --pg-bin.", say: (d) => `there is no usable PostgreSQL at ${d.where}: ${d.why}` }),
  unreachable_directory: kind<{ path: string; account: string }>({ http: 500, exit: 1, retry: "never", fix: "Choose a --state-dir outside of private home folders, as in /var/lib/cellplane.", say: (d) => `PostgreSQL runs as user ${d.account}, which cannot enter ${d.path}` }),
  state_dir_too_long: kind<{ path: string; bytesMax: number }>({ http: 500, exit: 1, retry: "never", fix: "Choose a shorter --state-dir: sockets in it need room in their names.", say: (d) => `the path ${d.path} is longer than ${d.bytesMax} bytes` }),
  keeper_gone: kind<{ path: string }>({ http: 503, exit: 1, retry: "same", fix: "Try again: the next keeper adopts what runs.", say: (d) => `nobody keeps the services of ${d.path}` }),
  keeper_failed: kind<{ path: string; log: string }>({ http: 500, exit: 1, retry: "later", fix: "Read the log named.", say: (d) => `the keeper of ${d.path} did not start (log: ${d.log})` }),
  schema_checksum: kind<{ step: string }>({ http: 500, exit: 1, retry: "never", fix: "Run the build that wrote the database, or restore the file: applied schema steps never change.", say: (d) => `schema step ${d.step} differs from the one that was applied` }),
  schema_newer: kind<{ step: string }>({ http: 500, exit: 1, retry: "never", fix: "Run a build at least as new as the database.", say: (d) => `the database has schema step ${d.step}, which this build does not know` }),

  // ── the API and the command line ────────────────────────────────────────────────────────────────────────────────
  method_not_allowed: kind<{ method: string; path: string; allowed: string[] }>({
    http: 405, exit: 3, retry: "never", fix: "Use one of the methods allowed; /openapi.json lists them all.", say: (d) => `${d.path} takes ${d.allowed.join(", ")}, not ${d.method}`,
  }),
  body_too_large: kind<{ bytesMax: number }>({ http: 413, exit: 3, retry: "never", fix: "Send it in several requests.", say: (d) => `the request's body is larger than ${d.bytesMax} bytes` }),
  wrong_media_type: kind<{ type: string }>({ http: 415, exit: 3, retry: "never", fix: "Send JSON with `content-type: application/json`.", say: (d) => `the request's body is ${d.type || "of no declared type"}, not application/json` }),
  too_many_streams: kind<{ max: number }>({ http: 503, exit: 1, retry: "later", fix: "Close some, or follow through another instance.", say: (d) => `this instance has ${d.max} event streams open already` }),
  shutting_down: kind<Record<never, never>>({ http: 503, exit: 1, retry: "same", fix: "Send the request again: another instance, or this one after its restart, will answer.", say: () => "this instance is shutting down" }),
  audit_broken: kind<{ seq: number; why: string }>({
    http: 409, exit: 1, retry: "never", fix: "Someone wrote to the audit log past the control plane: compare with a backup from before, and change the database's passwords.",
    say: (d) => `the audit log does not hold from entry ${d.seq} on: ${d.why}`,
  }),
  bad_usage: kind<{ why: string; command: string }>({ http: 400, exit: 3, retry: "never", fix: "Add --help to see the arguments and flags.", say: (d) => (d.command ? `${d.command}: ${d.why}` : d.why) }),
  not_confirmed: kind<{ name: string; why: string }>({ http: 400, exit: 3, retry: "never", fix: "Type the name when asked, or pass --yes.", say: (d) => `nothing was done to ${d.name}: ${d.why}` }),
  no_context: kind<{ looked: string[] }>({
    http: 400, exit: 3, retry: "never", fix: "Start a fleet with `npm start` or `cellplane up`, or pass --server and --token (CELLPLANE_SERVER, CELLPLANE_TOKEN).",
    say: (d) => `no server is known: there is no ${d.looked.join(" and no ")}`,
  }),
  context_invalid: kind<{ file: string; why: string }>({ http: 400, exit: 3, retry: "never", fix: "Correct the file, or remove it and pass --server and --token.", say: (d) => `${d.file} can not be read: ${d.why}` }),
  unexpected_answer: kind<{ url: string; why: string }>({ http: 502, exit: 1, retry: "never", fix: "Check that --server names a cellplane control plane of a fitting version.", say: (d) => `${d.url} did not answer like a control plane: ${d.why}` }),
  unknown_refusal: kind<{ code: string; detail: string; fix: string }>({ http: 500, exit: 1, retry: "never", fix: "Do what the message says; a client as new as the control plane says more.", say: (d) => `${d.detail} (${d.code}): ${d.fix}` }),
  operation_failed: kind<{ operation: string; message: string; fix: string }>({ http: 409, exit: 1, retry: "never", fix: "See its steps with `cellplane operation watch`.", say: (d) => `operation ${d.operation} failed: ${d.message}${d.fix ? ` (${d.fix})` : ""}` }),
  operation_refused: kind<{ operation: string; message: string; fix: string }>({ http: 409, exit: 8, retry: "never", fix: "Do what the message says, then start it again.", say: (d) => `operation ${d.operation} was refused: ${d.message}${d.fix ? ` (${d.fix})` : ""}` }),
  operation_undone: kind<{ operation: string; message: string; fix: string }>({ http: 409, exit: 7, retry: "never", fix: "Correct the cause and start it again: everything it did was taken back.", say: (d) => `operation ${d.operation} failed and was undone: ${d.message}` }),
  operation_parked: kind<{ operation: string; message: string }>({ http: 409, exit: 1, retry: "never", fix: "Look into it, then `cellplane operation retry` or `cellplane operation cancel`.", say: (d) => `operation ${d.operation} waits for a person: ${d.message}` }),
  wait_timed_out: kind<{ operation: string; afterMs: number }>({ http: 504, exit: 6, retry: "later", fix: "Go on with `cellplane operation watch`; the operation runs on.", say: (d) => `operation ${d.operation} still runs after ${Math.round(d.afterMs / 1000)} s` }),

  // ── cells and the fleet file ────────────────────────────────────────────────────────────────────────────────────
  cell_has_tenants: kind<{ cell: string; tenants: number; verb: string }>({
    http: 409, exit: 8, retry: "never", fix: "Move its tenants away first: `cellplane cell drain` shows how many remain.",
    say: (d) => `cell ${d.cell} has ${d.tenants} ${d.tenants === 1 ? "tenant" : "tenants"}: ${d.verb} would cut them off`,
  }),
  cell_name_kept: kind<{ cell: string }>({
    http: 409, exit: 5, retry: "never", fix: "Choose another name, or give up the data with `cellplane cell destroy --purge`.",
    say: (d) => `cell ${d.cell} was destroyed and its data are kept under its name`,
  }),
  cell_update_refused: kind<{ cell: string; issues: Issue[] }>({
    http: 409, exit: 8, retry: "never", fix: "Change the fields named, or make another cell and move the tenants.",
    say: (d) => `cell ${d.cell} can not become that: ${listIssues(d.issues)}`,
  }),
  cell_drifted: kind<{ cell: string; paths: string[] }>({
    http: 409, exit: 8, retry: "never", fix: "Look at it with `cellplane cell drift`; take the foreign change into the fleet file, or overwrite it with `cellplane cell update --overwrite-drift`.",
    say: (d) => `someone else changed cell ${d.cell}: ${d.paths.join(", ")}`,
  }),
  cell_numbers_exhausted: kind<{ max: number }>({
    http: 409, exit: 8, retry: "never", fix: "Start another fleet: numbers of destroyed cells are never used again.",
    say: (d) => `all ${d.max} cell numbers have been used`,
  }),
  cell_not_healthy: kind<{ cell: string; afterMs: number; checks: string[] }>({
    http: 409, exit: 7, retry: "never", fix: "Look at the log of the service named, correct the blueprint and apply again.",
    say: (d) => `cell ${d.cell} was not well after ${Math.round(d.afterMs / 1000)} s: ${d.checks.join("; ")}`,
  }),
  drain_called_off: kind<{ cell: string; state: string; tenants: number }>({
    http: 409, exit: 5, retry: "never", fix: "Drain it again when it is meant.",
    say: (d) => `the drain of cell ${d.cell} was called off (it is ${d.state}) with ${d.tenants} tenants left`,
  }),
  driver_unknown: kind<{ driver: string; known: string[] }>({
    http: 400, exit: 3, retry: "never", fix: "Name one of the drivers this control plane has.",
    say: (d) => `there is no driver ${d.driver}; there is ${d.known.join(", ")}`,
  }),
  fleet_missing: kind<Record<never, never>>({ http: 409, exit: 1, retry: "never", fix: "Apply a fleet file first: `cellplane apply -f cellplane.yaml`.", say: () => "no fleet file has been applied yet" }),
  fleet_file_unreadable: kind<{ file: string; why: string }>({ http: 400, exit: 3, retry: "never", fix: "Name the fleet file with -f, or go to the folder of cellplane.yaml.", say: (d) => `${d.file} can not be read: ${d.why}` }),
  plan_stale: kind<{ what: string }>({ http: 409, exit: 5, retry: "never", fix: "Plan again, look at what it says now, and apply that.", say: (d) => `${d.what} has changed since the plan was made` }),
  fleet_invalid: kind<{ file: string; issues: Issue[] }>({ http: 400, exit: 3, retry: "never", fix: "Correct the lines named.", say: (d) => listIssues(d.issues, d.file) }),
  fleet_refused: kind<{ file: string; issues: Issue[] }>({
    http: 409, exit: 8, retry: "never", fix: "Correct the lines named, or change the fleet first as they say.", say: (d) => listIssues(d.issues, d.file),
  }),
  fleet_incomplete: kind<{ cells: string[] }>({
    http: 409, exit: 1, retry: "never", fix: "See why with `cellplane operation list`, correct the fleet file and apply again: what is done stays done.",
    say: (d) => `not as the fleet file says: ${d.cells.join("; ")}`,
  }),

  // ── tenants, placement, claims ──────────────────────────────────────────────────────────────────────────────────────
  key_taken: kind<{ key: string; tenant: string }>({ http: 409, exit: 5, retry: "never", fix: "Choose another key, or remove it from the tenant that has it.", say: (d) => `the key ${d.key} belongs to tenant ${d.tenant}` }),
  claim_taken: kind<{ kind: string; value: string }>({ http: 409, exit: 5, retry: "never", fix: "Choose another value; a reservation comes free by itself when its time is over.", say: (d) => `the ${d.kind} ${d.value} is claimed by another tenant or operation` }),
  no_capacity: kind<{ tenant: string; regions: { region: string; cell: string; missing: { dimension: string; amount: number }[] }[] }>({
    http: 409, exit: 8, retry: "later", fix: "Add a cell or raise a capacity, or move tenants away; `placement explain` shows each cell.",
    say: (d) => `no cell has room for ${d.tenant}: ${d.regions.map((r) => `${r.region} lacks ${r.missing.map((m) => `${m.amount} ${m.dimension}`).join(" and ")} (in ${r.cell})`).join("; ")}`,
  }),
  residency_unsatisfiable: kind<{ tenant: string; region: string; why: string }>({
    http: 409, exit: 8, retry: "never", fix: "Name a region that has cells, or add one to the fleet file.", say: (d) => `${d.tenant} must stay in region ${d.region}: ${d.why}`,
  }),
  no_cell: kind<{ tenant: string; reasons: string[] }>({
    http: 409, exit: 8, retry: "later", fix: "Uncordon or add a cell that may take it, or change what it asks for; `placement explain` shows each cell.",
    say: (d) => `no cell may take ${d.tenant}: ${d.reasons.length === 0 ? "the fleet has no cells" : d.reasons.join("; ")}`,
  }),
  busy: kind<{ what: string; waiting: number }>({ http: 503, exit: 1, retry: "later", fix: "Send it again in a moment, with fewer at once.", say: (d) => `${d.waiting} ${d.what} wait already` }),

  // ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────
  cancelled: kind<Record<never, never>>({ http: 409, exit: 7, retry: "never", fix: "Start it again when it is meant.", say: () => "a person cancelled it" }),
  step_failed: kind<{ step: string; why: string }>({ http: 500, exit: 1, retry: "later", fix: "Correct the cause; `cellplane operation describe` shows every attempt.", say: (d) => `step ${d.step} failed: ${d.why}` }),
  step_timed_out: kind<{ step: string; timeoutMs: number }>({
    http: 504, exit: 1, retry: "later", fix: "Look at what the step waits for; `cellplane operation describe` shows every attempt.", say: (d) => `step ${d.step} was not done after ${d.timeoutMs} ms`,
  }),
  step_interrupted: kind<{ step: string; times: number }>({
    http: 500, exit: 1, retry: "later", fix: "Look into the log of the control plane for why its process died, then retry or cancel the operation.",
    say: (d) => `the control plane died ${d.times} times during step ${d.step}`,
  }),
  step_unknown: kind<{ step: string }>({ http: 500, exit: 1, retry: "never", fix: "Run the build that began the operation until it is done.", say: (d) => `this build does not know step ${d.step}, which is to be taken back` }),
  defect: kind<{ what: string }>({ http: 500, exit: 1, retry: "never", fix: "Report it: this is a mistake in the control plane. Nothing was retried or undone.", say: (d) => d.what }),

  service_failed: kind<{ service: string; why: string; log: string }>({ http: 500, exit: 1, retry: "later", fix: "Read the log named; what else was started has been stopped again.", say: (d) => `${d.service} did not start: ${d.why} (log: ${d.log})` }),
  start_incomplete: kind<{ command: string }>({ http: 500, exit: 1, retry: "later", fix: "Its message is above. Correct the cause and start again; everything was stopped, and what was done is kept.", say: (d) => `starting stopped at \`cellplane ${d.command}\`` }),
  tokens_elsewhere: kind<{ file: string }>({
    http: 500, exit: 4, retry: "never", fix: "Copy tokens.json from the state directory of the instance that started first, or use a database of its own.",
    say: (d) => `the control plane's database was first used with another state directory, so ${d.file} has no valid tokens`,
  }),

  // ── drivers ─────────────────────────────────────────────────────────────────────────────────────────────────────
  fenced: kind<{ cell: string; epoch: number; seen: number }>({
    http: 409, exit: 5, retry: "never", fix: "Nothing: a newer operation is at work on the cell.", say: (d) => `cell ${d.cell} has seen epoch ${d.seen}; ${d.epoch} comes too late`,
  }),
  driver_failed: kind<{ cell: string; why: string }>({ http: 502, exit: 1, retry: "later", fix: "Look at what the driver says, then try again: what is done stays done.", say: (d) => `the driver of cell ${d.cell} failed: ${d.why}` }),
  update_reverted: kind<{ cell: string; why: string }>({
    http: 409, exit: 7, retry: "never", fix: "Correct the cause and apply again: the cell runs as before.", say: (d) => `cell ${d.cell} did not take the update and runs as before: ${d.why}`,
  }),
  revert_failed: kind<{ cell: string; why: string; reverting: string }>({
    http: 500, exit: 1, retry: "later", fix: "Look at the logs of the services named; the same update again, or the next, goes on from here.",
    say: (d) => `cell ${d.cell} did not take the update (${d.why}), and what it was before is not ready either: ${d.reverting}`,
  }),
  schema_step_failed: kind<{ file: string; line: number | null; why: string }>({
    http: 409, exit: 1, retry: "never", fix: "Correct the file: nothing of it was applied.", say: (d) => `schema step ${d.file}${d.line === null ? "" : `, line ${d.line}`}: ${d.why}`,
  }),
  erase_failed: kind<{ cell: string; tenant: string; table: string; why: string }>({
    http: 409, exit: 1, retry: "later", fix: "Remove what still refers to the tenant's rows, then try again.", say: (d) => `rows of ${d.tenant} in ${d.table} of cell ${d.cell} were not erased: ${d.why}`,
  }),

  // ── routing ─────────────────────────────────────────────────────────────────────────────────────────────────────
  route_stale: kind<{ tenant: string; askedEpoch: number; epoch: number }>({
    http: 421, exit: 5, retry: "same", fix: "Send the request through the router again; it will have the newer route.",
    say: (d) => `${d.tenant} moved: asked at epoch ${d.askedEpoch}, the cell is at ${d.epoch}`,
  }),
};

export type ErrorCode = keyof typeof errorKinds;
export type ErrorData<C extends ErrorCode> = Parameters<(typeof errorKinds)[C]["say"]>[0];

/** An expected failure, with a public code. Anything else that is thrown is a defect of ours. */
export class CellplaneError<C extends ErrorCode = ErrorCode> extends Error {
  override name = "CellplaneError";
  readonly code: C;
  readonly data: ErrorData<C>;

  constructor(code: C, data: ErrorData<C>, options?: ErrorOptions) {
    super((errorKinds[code].say as (data: ErrorData<C>) => string)(data), options);
    this.code = code;
    this.data = data;
  }

  get kind(): Pick<ErrorKind<never>, "http" | "exit" | "retry" | "fix"> {
    return errorKinds[this.code];
  }
}

export const fail = <C extends ErrorCode>(code: C, data: ErrorData<C>, options?: ErrorOptions): CellplaneError<C> => new CellplaneError(code, data, options);
