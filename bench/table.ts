/**
 * The router's table: bytes per tenant, look-ups, changes, and loading a snapshot, beside a plain Map of the same content.
 *
 * What is measured: `lookupNs` is one look-up (hash, compare, entry) of a random known host straight from a buffer; the
 * hosts are visited in random order, so most of them miss the processor's caches as in a busy fleet. `applyMicros` is one
 * change of a tenant's route as it arrives from the feed: a line of text. `loadSeconds` is reading the snapshot, with its
 * checksum, into a table of its own. `bytesPerTenant` is shared memory ÷ tenants, each with its name as its key
 * (`<name>.<suffix>`); `bytesPerTenantWithHost` with a host of its own besides.
 *
 * What limits it: cache and TLB misses (three to four a look-up); on loading, hashing and the checksum.
 */
import { readSnapshot, sealSnapshot } from "../packages/cellplane/src/routing/snapshot.ts";
import { lineReader, tableLines } from "../packages/cellplane/src/routing/lines.ts";
import { packEntry } from "../packages/cellplane/src/routing/model.ts";
import { RouteTable } from "../packages/cellplane/src/routing/table.ts";
import { median, printJson, printTable, quick, shown } from "./shared/report.ts";

const tenants = Number(process.env["TENANTS"] ?? (quick ? 1_000_000 : 10_000_000));
const looks = 2_000_000;
const nameOf = (i: number): string => `tenant-${1_000_000 + i}`;
const scratch = Buffer.alloc(256);
const put = (text: string): number => scratch.write(text, 0, "latin1");
const seconds = (sinceNs: bigint): number => Number(process.hrtime.bigint() - sinceNs) / 1e9;

function fill(count: number, withHost: boolean): RouteTable {
  const table = new RouteTable(withHost ? 2 * count : count);
  const host = Buffer.alloc(256);
  for (let i = 0; i < count; i++) {
    const length = put(nameOf(i));
    table.setTenant(scratch, 0, length, packEntry(1 + (i % 1000), "active", 1 + (i % 9)));
    if (withHost) table.setKey("host", host, 0, host.write(`${nameOf(i)}.example.com`, 0, "latin1"), scratch, 0, length);
  }
  return table;
}

/** Random names, written one after the other into one buffer as a router would find them. */
function questions(count: number): { bytes: Buffer; ends: Int32Array } {
  const bytes = Buffer.alloc(looks * 20);
  const ends = new Int32Array(looks + 1);
  for (let i = 0, at = 0; i < looks; i++) ends[i + 1] = at += bytes.write(nameOf(Math.floor(Math.random() * count)), at, "latin1");
  return { bytes, ends };
}

const table = fill(tenants, false);
const bytesPerTenant = table.byteLength() / tenants;
const { bytes, ends } = questions(tenants);

const lookupNs = median([0, 1, 2].map(() => {
  const start = process.hrtime.bigint();
  let epochs = 0;
  for (let i = 0; i < looks; i++) epochs += table.entryOf(table.find("name", bytes, ends[i] ?? 0, ends[i + 1] ?? 0)) % 2 ** 32;
  if (epochs === 0) throw new Error("nothing was found");
  return (seconds(start) * 1e9) / looks;
}));

const read = lineReader(table);
const applyMicros = (() => {
  const lines = Buffer.from(Array.from({ length: 100_000 }, () => `t ${nameOf(Math.floor(Math.random() * tenants))} 7 active 12\n`).join(""));
  read(lines, 0, lines.length);
  const start = process.hrtime.bigint();
  read(lines, 0, lines.length);
  return (seconds(start) * 1e6) / 100_000;
})();

const parts: Buffer[] = [];
let start = process.hrtime.bigint();
for await (const part of sealSnapshot({ version: 1, digest: "0".repeat(64) }, tenants, tableLines(table))) parts.push(part);
const writeSeconds = seconds(start);
start = process.hrtime.bigint();
async function* stored(): AsyncGenerator<Buffer> {
  yield* parts;
}
const loaded = await readSnapshot(stored());
const loadSeconds = seconds(start);
if (loaded.table.tenants !== tenants) throw new Error("the snapshot lost tenants");
const snapshotBytes = parts.reduce((sum, part) => sum + part.length, 0);
parts.length = 0;

const sample = Math.min(tenants, 1_000_000);
const bytesPerTenantWithHost = fill(sample, true).byteLength() / sample;

globalThis.gc?.();
const before = process.memoryUsage().heapUsed;
const map = new Map<string, { cell: number; epoch: number }>();
for (let i = 0; i < sample; i++) map.set(nameOf(i), { cell: 1 + (i % 1000), epoch: 1 });
const mapBytesPerTenant = (process.memoryUsage().heapUsed - before) / sample;
start = process.hrtime.bigint();
let found = 0;
for (let i = 0; i < looks; i++) found += map.get(bytes.toString("latin1", ends[i], ends[i + 1]))?.epoch ?? 0;
const mapLookupNs = (seconds(start) * 1e9) / looks;
if (found < 0) throw new Error("unreachable");

console.log(`table of ${tenants.toLocaleString("en")} tenants, beside a Map of ${sample.toLocaleString("en")}\n`);
printTable([
  ["", "table", "Map"],
  ["bytes per tenant", shown(bytesPerTenant), shown(mapBytesPerTenant)],
  ["  with a host besides", shown(bytesPerTenantWithHost), ""],
  ["look-up, ns", shown(lookupNs), shown(mapLookupNs)],
  ["apply a change, µs", shown(applyMicros), ""],
  ["load the snapshot, s", shown(loadSeconds), ""],
  ["write the snapshot, s", shown(writeSeconds), ""],
]);
printJson({ tenants, bytesPerTenant, bytesPerTenantWithHost, lookupNs, applyMicros, loadSeconds, writeSeconds, snapshotBytes, mapBytesPerTenant, mapLookupNs });
