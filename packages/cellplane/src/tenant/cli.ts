import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { fail } from "../base/errors.ts";
import { type Cli, flag, type Invocation, type Shown } from "../cli/command.ts";
import { addTenantKey, createTenant, deleteTenant, getTenant, importTenants, listTenants, removeTenantKey, resumeTenant, suspendTenant, updateTenant } from "./api.ts";
import { type KeyKind, keyKinds, type Load, type Tenant, tenantStates } from "./model.ts";
import { type FileRow, readRows, type RowFormat, rowFormats } from "./rows.ts";

const one = { tenant: "Its name" };
const operationOf = (tenant: Tenant): string | null => tenant.operation;

const columns = {
  NAME: (tenant: Tenant): Shown => tenant.name,
  TIER: (tenant: Tenant): Shown => tenant.tier,
  STATE: (tenant: Tenant): Shown => tenant.state,
  CELL: (tenant: Tenant): Shown => tenant.cell,
  EPOCH: (tenant: Tenant): Shown => tenant.epoch,
};
const wide = {
  PIN: (tenant: Tenant): Shown => tenant.region,
  DEDICATED: (tenant: Tenant): Shown => tenant.dedicated,
  KEYS: (tenant: Tenant): Shown => tenant.keys.map((key) => `${key.kind}:${key.kind === "apikey" ? `${key.value.slice(0, 12)}…` : key.value}`),
  LABELS: (tenant: Tenant): Shown => Object.entries(tenant.labels).map(([key, value]) => `${key}=${value}`),
  LOAD: (tenant: Tenant): Shown => Object.entries(tenant.load).map(([dimension, amount]) => `${dimension}=${amount}`),
  CREATED: (tenant: Tenant): Shown => tenant.createdAt,
  OPERATION: operationOf,
};

const loadFlags = {
  connections: flag.number("PostgreSQL connections it is expected to take"),
  requestsPerSecond: flag.number("Requests per second it is expected to send"),
  disk: flag.bytes("Space it is expected to take, as in 2GiB"),
};

/** What a new tenant asks for, on the command line. */
export const newTenantFlags = {
  tier: flag.text("Its tier (default: standard)"),
  region: flag.text("Region its data must stay in"),
  dedicated: flag.toggle("It gets a cell of its own"),
  cell: flag.text("Cell it must go to"),
  label: flag.pairs("A label; may be repeated"),
  host: flag.many("A host name that names it; may be repeated", { placeholder: "<host>" }),
  alias: flag.many("A further host name; may be repeated", { placeholder: "<host>" }),
  header: flag.many("A value of the tenant header that names it; may be repeated"),
  path: flag.many("A first path segment that names it; may be repeated"),
  claim: flag.many("A value only it may hold, as in email=ann@acme.example; may be repeated", { placeholder: "<kind=value>" }),
  ...loadFlags,
};
type FlagsOf<F> = { [K in keyof F]: F[K] extends { initial: infer T } ? T : never };

export function newTenantOf(name: string, flags: FlagsOf<typeof newTenantFlags>) {
  return {
    name, tier: flags.tier, region: flags.region, dedicated: flags.dedicated, cell: flags.cell, labels: flags.label,
    keys: (["host", "alias", "header", "path"] as const).flatMap((kind) => flags[kind].map((value) => ({ kind, value }))),
    claims: flags.claim.map((text) => ({ kind: text.slice(0, Math.max(0, text.indexOf("="))), value: text.slice(text.indexOf("=") + 1) })),
    load: loadOf(flags) ?? {},
  };
}

function loadOf(flags: FlagsOf<typeof loadFlags>): Load | undefined {
  const load: Load = {};
  if (flags.connections !== undefined) load.connections = flags.connections;
  if (flags.requestsPerSecond !== undefined) load.requestsPerSecond = flags.requestsPerSecond;
  if (flags.disk !== undefined) load.diskBytes = flags.disk;
  return Object.keys(load).length > 0 ? load : undefined;
}

export function registerTenant(cli: Cli): void {
  const tenant = cli.noun("tenant");

  cli.verb(tenant, "list", {
    summary: "List tenants in the order of their names",
    help: "cellplane tenant list --cell eu-1\ncellplane tenant list -l plan=free,stage!=trial,vip,!internal",
    flags: {
      cell: flag.text("Only those that live in this cell"), region: flag.text("Only those that live in this region"), tier: flag.text("Only those of this tier"),
      state: flag.choice(tenantStates, "Only those in this state"), labels: flag.text("Only those whose labels are so", { short: "l", placeholder: "<selector>" }),
    },
    run: ({ flags, pages }) => pages(listTenants, { query: flags }),
    columns,
    wide,
  });

  cli.verb(tenant, "describe", {
    summary: "Show a tenant, its keys, its claims and the cells it lived in",
    args: one,
    run: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
    columns: {
      ...columns,
      ...wide,
      GENERATION: (found) => found.generation,
      CLAIMS: (found) => found.claims.map((claim) => `${claim.kind}:${claim.value} (${claim.state})`),
      CELLS: (found) => found.placements.map((stay) => `${stay.cell} at epoch ${stay.epoch}, ${stay.since} to ${stay.until ?? "now"}: ${stay.because.join("; ")}`).join("\n"),
    },
  });

  cli.verb(tenant, "create", {
    summary: "Create a tenant and give it its cell",
    help: "With --dry-run it says why the tenant would go where, and what speaks against every other cell.\nCreating the same tenant again changes nothing.",
    args: one,
    flags: newTenantFlags,
    mutates: true,
    run: ({ args, flags, call }) => call(createTenant, { body: newTenantOf(args.tenant, flags) }),
    columns: {
      ...columns,
      BECAUSE: (created) => (created.created ? created.because.join("\n") : "it was there already, and the same"),
      REJECTED: (created) => created.rejected.map(({ cell, reason }) => `${cell}: ${reason}`).join("\n"),
      OPERATION: operationOf,
    },
    operation: operationOf,
    after: async ({ args, call }, created) => ({ ...created, ...(await call(getTenant, { params: { tenant: args.tenant } })) }),
  });

  cli.verb(tenant, "update", {
    summary: "Change a tenant's tier, pin, labels or expected load",
    args: one,
    flags: {
      tier: flag.text("Its tier"), region: flag.text("Region its data must stay in: the one it lives in"), unpin: flag.toggle("Its data may live in any region"),
      label: flag.pairs("A label to set; may be repeated"), removeLabel: flag.many("A label to take away; may be repeated", { placeholder: "<key>" }), ...loadFlags,
    },
    mutates: true,
    before: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
    run: ({ args, flags, call }) =>
      call(updateTenant, {
        params: { tenant: args.tenant },
        body: { tier: flags.tier, region: flags.unpin ? null : flags.region, labels: { ...flags.label, ...Object.fromEntries(flags.removeLabel.map((key) => [key, null])) }, load: loadOf(flags) },
      }),
    columns: { ...columns, ...wide },
  });

  for (const { name, endpoint, summary } of [
    { name: "suspend", endpoint: suspendTenant, summary: "Let routers refuse a tenant's requests" },
    { name: "resume", endpoint: resumeTenant, summary: "Let routers send on a suspended tenant's requests" },
  ]) {
    cli.verb(tenant, name, {
      summary,
      args: one,
      mutates: true,
      before: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
      run: ({ args, call }) => call(endpoint, { params: { tenant: args.tenant } }),
      columns,
    });
  }

  cli.verb(tenant, "delete", {
    summary: "Close a tenant's route, erase its rows, free its names and its room",
    args: one,
    mutates: true,
    confirm: ({ args }) => args.tenant,
    before: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
    run: ({ args, call }) => call(deleteTenant, { params: { tenant: args.tenant } }),
    columns: { ...columns, OPERATION: operationOf },
    operation: operationOf,
  });

  cli.verb(tenant, "import", {
    summary: "Create tenants from a file",
    help: `NDJSON: one tenant as JSON on each line, as the API takes it.
CSV: the first line names the columns: name, tier, region, dedicated, cell, label.<key>, key.<kind> (host, alias,
header, path, apikey; several separated by spaces), claim.<kind>, load.connections, load.requestsPerSecond, load.diskBytes.
Rows that are there already and the same are left alone, so an import that was interrupted is run again.
With --dry-run each part of the file is judged by itself.`,
    flags: {
      file: flag.required(flag.text("File to read; - for stdin", { short: "f", placeholder: "<file>" })),
      format: flag.choice(rowFormats, "Form of the file (default: by its name, else NDJSON)"),
    },
    mutates: true,
    run: ({ flags, call, terminal, exitWith, signal }) => importFile({ file: flags.file, format: flags.format, call, terminal, exitWith, signal }),
    columns: { CREATED: (done) => done.created, UNCHANGED: (done) => done.unchanged, FAILED: (done) => done.failed },
  });

  const key = cli.noun("key", { in: tenant, summary: "Keys: how requests name a tenant" });
  const kind = flag.required(flag.choice(keyKinds, "What it is"));

  cli.verb(key, "add", {
    summary: "Add a way in which requests name a tenant",
    help: "Of an API key only the SHA-256 is sent and kept: --generate makes one and prints it once, --secret-file reads one.",
    args: one,
    flags: {
      kind, value: flag.text("Host, header value, path segment, or the hex SHA-256 of an API key"), generate: flag.toggle("Make a new API key and print it"),
      secretFile: flag.text("File that holds an API key; - for stdin", { placeholder: "<file>" }),
    },
    mutates: true,
    before: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
    run: async ({ args, flags, call }) => {
      const secret = flags.generate ? `cpk_${randomBytes(32).toString("base64url")}` : flags.secretFile === undefined ? null : await readSecret(flags.secretFile);
      if (secret !== null && flags.kind !== "apikey") throw fail("bad_usage", { command: "tenant key add", why: "--generate and --secret-file are for --kind apikey" });
      if ((secret === null) === (flags.value === undefined)) throw fail("bad_usage", { command: "tenant key add", why: "name the key by one of --value, --generate and --secret-file" });
      const value = secret === null ? (flags.value ?? "") : createHash("sha256").update(secret).digest("hex");
      const changed = await call(addTenantKey, { params: { tenant: args.tenant }, body: { kind: flags.kind as KeyKind, value } });
      return { ...changed, ...(flags.generate && secret !== null ? { apiKey: secret } : {}) };
    },
    columns: { NAME: columns.NAME, KEYS: wide.KEYS, "API KEY (shown once)": (changed) => changed.apiKey },
  });

  cli.verb(key, "remove", {
    summary: "Remove a key from a tenant",
    args: one,
    flags: { kind, value: flag.required(flag.text("The key; of an API key its hex SHA-256")) },
    mutates: true,
    before: ({ args, call }) => call(getTenant, { params: { tenant: args.tenant } }),
    run: ({ args, flags, call }) => call(removeTenantKey, { params: { tenant: args.tenant, kind: flags.kind as KeyKind, value: flags.value } }),
    columns: { NAME: columns.NAME, KEYS: wide.KEYS },
  });
}

const secretCharactersMin = 20;

async function readSecret(file: string): Promise<string> {
  const secret = (await readFile(file === "-" ? "/dev/stdin" : file, "utf8").catch((error: Error) => Promise.reject(fail("bad_usage", { command: "tenant key add", why: error.message })))).replace(/\r?\n$/, "");
  if (secret.length < secretCharactersMin || /\s/.test(secret)) throw fail("bad_usage", { command: "tenant key add", why: `an API key has at least ${secretCharactersMin} characters and no spaces: a shorter one could be found from its digest` });
  return secret;
}

// ── import ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const rowsPerCall = 500;
/** Below what the server takes as one body. */
const bytesPerCall = 750_000;
const failuresKept = 10_000;
const failuresTold = 50;

interface ImportResult {
  created: number;
  unchanged: number;
  failed: number;
  failures: { line: number; name: string | null; code: string; message: string }[];
}

async function importFile({ file, format, call, terminal, exitWith, signal }: Pick<Invocation<never, never>, "call" | "terminal" | "exitWith" | "signal"> & { file: string; format: RowFormat | undefined }): Promise<ImportResult> {
  const size = file === "-" ? null : (await stat(file).catch((error: Error) => Promise.reject(fail("bad_usage", { command: "tenant import", why: error.message })))).size;
  const source = (file === "-" ? process.stdin : createReadStream(file)).setEncoding("utf8");
  let bytesRead = 0;
  async function* counted(): AsyncIterable<string> {
    for await (const piece of source as AsyncIterable<string>) {
      bytesRead += Buffer.byteLength(piece);
      yield piece;
    }
  }

  const done: ImportResult = { created: 0, unchanged: 0, failed: 0, failures: [] };
  const progress = terminal.progress(`importing ${file}`);
  const said = (): string => `${done.created} created, ${done.unchanged} unchanged, ${done.failed} failed`;
  const refuse = (line: number, name: string | null, error: { code: string; message: string }): void => {
    done.failed++;
    if (done.failures.length < failuresKept) done.failures.push({ line, name, code: error.code, message: error.message });
  };
  async function send(rows: FileRow[]): Promise<void> {
    if (rows.length === 0) return;
    const { outcomes } = await call(importTenants, { body: { tenants: rows.map(({ row }) => row) } });
    outcomes.forEach(({ outcome, name, error }, i) => {
      if (error) refuse(rows[i]?.line ?? 0, name, error);
      else done[outcome === "created" ? "created" : "unchanged"]++;
    });
    progress.update(size === null || size === 0 ? null : bytesRead / size, said());
  }

  try {
    let [batch, bytes]: [FileRow[], number] = [[], 0];
    for await (const row of readRows(counted(), format ?? (file.endsWith(".csv") ? "csv" : "ndjson"))) {
      if (row.problem !== undefined) {
        refuse(row.line, null, { code: "invalid_input", message: row.problem });
        continue;
      }
      const rowBytes = Buffer.byteLength(JSON.stringify(row.row)) + 1;
      if (batch.length === rowsPerCall || bytes + rowBytes > bytesPerCall) {
        await send(batch);
        [batch, bytes] = [[], 0];
      }
      batch.push(row);
      bytes += rowBytes;
      signal.throwIfAborted();
    }
    await send(batch);
  } catch (error) {
    progress.done(`stopped after ${said()}: run it again to go on`);
    throw error;
  }
  progress.done(said());
  for (const { line, name, message } of done.failures.slice(0, failuresTold)) terminal.note(`${file}:${line}: ${name === null ? "" : `${name}: `}${message}`);
  if (done.failed > failuresTold) terminal.note(`… and ${done.failed - failuresTold} more; -o json lists them`);
  if (done.failed > 0) exitWith(1);
  return done;
}
