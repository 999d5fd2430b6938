import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { check, isBroken, type Verdict } from "./traffic/check.ts";
import { readJournal } from "./traffic/journal.ts";
import { type Load, type Seen, startLoad } from "./traffic/load.ts";
import type { Addressing } from "./traffic/model.ts";
import { type Receipt, receiptLines } from "./traffic/receipt.ts";
import { tenantsOfApi, tenantsOfFile, type TenantSource } from "./traffic/tenants.ts";

const usage = `Usage: node dist/traffic.js [check] [options]

Sends the traffic of many tenants through a router at a steady rate, and proves what became of it.

  --target URL         the router (default http://127.0.0.1:8080)
  --host-suffix NAME   tenants as <tenant>.NAME in the Host header (default shop.localhost)
  --header NAME        tenants by this header instead
  --path-prefix PATH   tenants by a path prefix instead, as in /t/
  --tenants FILE       names of tenants, one a line or a JSON array; read again as it changes
  --api URL            tenants from the control plane instead (default CELLPLANE_SERVER), with --token-file FILE or
                       CELLPLANE_TOKEN
  --refresh SECONDS    how often to read them again (default 5)
  --rate N             requests a second, all tenants together (default 100)
  --reads SHARE        share of reads, 0 to 1 (default 0.5)
  --duration SECONDS   stop by itself (default: at Ctrl-C)
  --timeout SECONDS    of a request (default 10)
  --in-flight N        requests under way at most (default 1000)
  --retry              send rejected requests again as new ones, after their Retry-After
  --journal FOLDER     record what clients were told of each write
  --journal-mib N      of that folder at most (default 512); the oldest goes first
  --check              at the end, verify what was recorded; alone as \`check\`: verify a former run, and as --tenants
                       or --api say which tenants were deleted meanwhile (without: none)
  --run ID             the run to check (default: the newest)
  --patience SECONDS   how long a tenant may take to be checkable (default 30)
  --failed-max N       exit with 1 when more requests than this failed
  --every SECONDS      a line of progress on stderr (default 10; 0: none)
  --stats-port N       what was seen so far as JSON on http://127.0.0.1:N/stats
  --json               the receipt as one line of JSON

Exit codes: 0 every promise kept · 1 a promise broken, or too many failed · 3 usage`;

const defaultTarget = "http://127.0.0.1:8080";

const options = {
  target: { type: "string" },
  "host-suffix": { type: "string", default: "shop.localhost" },
  header: { type: "string" },
  "path-prefix": { type: "string" },
  tenants: { type: "string" },
  api: { type: "string" },
  "token-file": { type: "string" },
  refresh: { type: "string", default: "5" },
  rate: { type: "string", default: "100" },
  reads: { type: "string", default: "0.5" },
  duration: { type: "string" },
  timeout: { type: "string", default: "10" },
  "in-flight": { type: "string", default: "1000" },
  retry: { type: "boolean", default: false },
  journal: { type: "string" },
  "journal-mib": { type: "string", default: "512" },
  check: { type: "boolean", default: false },
  run: { type: "string" },
  patience: { type: "string", default: "30" },
  "failed-max": { type: "string" },
  every: { type: "string", default: "10" },
  "stats-port": { type: "string" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const;

class UsageError extends Error {}

const parse = (args: string[]) => {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
};
type Flags = ReturnType<typeof parse>["values"];

/** @throws UsageError unless the flag is a number of at least `min` */
function numberOf(flags: Flags, name: keyof Flags, min: number): number {
  const number = Number(flags[name]);
  if (!(number >= min)) throw new UsageError(`--${name} wants a number of at least ${min}, not ${String(flags[name])}`);
  return number;
}

function addressingOf(flags: Flags): Addressing {
  if (flags["path-prefix"] !== undefined) return { by: "path", prefix: flags["path-prefix"] };
  return flags.header === undefined ? { by: "host", suffix: flags["host-suffix"] } : { by: "header", header: flags.header };
}

/** Null when neither a file nor a control plane is named. */
function sourceOf(flags: Flags): TenantSource | null {
  const { tenants, api = process.env["CELLPLANE_SERVER"], "token-file": tokenFile } = flags;
  if (tenants !== undefined) return tenantsOfFile(tenants);
  if (api === undefined) return null;
  return tenantsOfApi(api, async () => (tokenFile === undefined ? (process.env["CELLPLANE_TOKEN"] ?? "") : (await readFile(tokenFile, "utf8")).trim()));
}

/** Sends until the duration is over or the process is asked to stop. */
async function send(flags: Flags): Promise<Seen> {
  const tenants = sourceOf(flags);
  if (!tenants) throw new UsageError("whose traffic? name a file with --tenants or a control plane with --api");
  const load = await startLoad({
    target: flags.target ?? defaultTarget,
    addressing: addressingOf(flags),
    tenants,
    refreshMs: numberOf(flags, "refresh", 0.1) * 1000,
    requestsPerSecond: numberOf(flags, "rate", 0.001),
    readShare: numberOf(flags, "reads", 0),
    timeoutMs: numberOf(flags, "timeout", 0.001) * 1000,
    inFlightMax: numberOf(flags, "in-flight", 1),
    journal: flags.journal === undefined ? null : { folder: flags.journal, bytesMax: numberOf(flags, "journal-mib", 1) * 2 ** 20 },
    retry: flags.retry,
    warn: (line) => console.error(line),
  });
  const stats = flags["stats-port"] === undefined ? null : serveStats(load, numberOf(flags, "stats-port", 0));
  const everyMs = numberOf(flags, "every", 0) * 1000;
  const progress = everyMs > 0 ? setInterval(() => console.error(progressLine(load, everyMs)), everyMs) : undefined;
  await new Promise<void>((resolve) => {
    if (flags.duration !== undefined) setTimeout(resolve, numberOf(flags, "duration", 0) * 1000);
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
  clearInterval(progress);
  stats?.close();
  return load.stop();
}

function progressLine(load: Load, everyMs: number): string {
  const { requests, ok, rejected, unknown, p50Ms, p99Ms } = load.window();
  const { tenants, inFlight } = load.seen();
  const time = new Date().toISOString().slice(11, 19);
  return `${time}  ${Math.round(requests / (everyMs / 1000))} requests/s to ${tenants} tenants: ${ok} ok, ${rejected} rejected, ${unknown} unknown; p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms; ${inFlight} under way`;
}

function serveStats(load: Load, port: number): ReturnType<typeof createServer> {
  const server = createServer((request, response) => {
    const known = request.method === "GET" && request.url === "/stats";
    response.writeHead(known ? 200 : 404, { "content-type": "application/json", "cache-control": "no-store", "access-control-allow-origin": "*" }).end(known ? JSON.stringify(load.seen()) : "{}");
  });
  server.listen(port, "127.0.0.1");
  return server;
}

async function verify(flags: Flags, run: string | null): Promise<Verdict> {
  if (flags.journal === undefined) throw new UsageError("there is nothing to check without --journal");
  const names = await sourceOf(flags)?.(AbortSignal.timeout(10_000));
  return check(await readJournal(flags.journal, run), { target: flags.target ?? null, patienceMs: numberOf(flags, "patience", 0) * 1000, present: names ? new Set(names) : null });
}

async function main(args: string[]): Promise<number> {
  const { values: flags, positionals } = parse(args);
  if (flags.help) {
    console.log(usage);
    return 0;
  }
  if (positionals.some((word) => word !== "check")) throw new UsageError(`what is ${positionals.join(" ")}?`);
  const checkOnly = positionals.length > 0;
  if ((checkOnly || flags.check) && flags.journal === undefined) throw new UsageError("there is nothing to check without --journal");

  const seen = checkOnly ? null : await send(flags);
  const verdict = checkOnly || flags.check ? await verify(flags, seen?.run ?? flags.run ?? null) : null;
  const kept = !(verdict && isBroken(verdict));
  const receipt: Receipt = { seen, verdict, kept };
  console.log(flags.json ? JSON.stringify(receipt) : receiptLines(receipt).join("\n"));
  const tooMany = seen !== null && flags["failed-max"] !== undefined && seen.requests - seen.ok > numberOf(flags, "failed-max", 0);
  return kept && !tooMany ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  console.error(error instanceof UsageError ? `${error.message}\nTry: node dist/traffic.js --help` : error.message);
  return error instanceof UsageError ? 3 : 1;
});
