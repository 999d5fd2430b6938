/**
 * Every failure a user can meet, in one table. A code is public and permanent; its entry says what happened (`say`),
 * what to do (`fix`), the HTTP status of the API, the exit code of the CLI and whether the same call may be sent again.
 */

/** 1 failed · 3 usage or validation · 4 auth · 5 conflict or stale plan · 6 timed out waiting · 7 failed and rolled back · 8 refused by a guard */
export type ExitCode = 1 | 3 | 4 | 5 | 6 | 7 | 8;

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
  schema_checksum: kind<{ step: string }>({ http: 500, exit: 1, retry: "never", fix: "Run the build that wrote the database, or restore the file: applied schema steps never change.", say: (d) => `schema step ${d.step} differs from the one that was applied` }),
  schema_newer: kind<{ step: string }>({ http: 500, exit: 1, retry: "never", fix: "Run a build at least as new as the database.", say: (d) => `the database has schema step ${d.step}, which this build does not know` }),

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
