/**
 * A whole fleet on this machine: 2 regions, 4 cells of the shop, each with its own PostgreSQL, as `npm start` runs it.
 *
 * `coldStartMs` is the time from starting `cellplane up` on an empty state directory (everything installed and built) to the
 * first answer of a tenant through the router; `warmStartMs` the same when the state is there. `rssMiB` is the proportional
 * set size of all processes together, which counts shared memory once. `tenantsCreatedPerSecond` are single POSTs of the API by
 * 32 connections that each wait for the answer. `routeVisibleP99Ms` is the time from the API's answer for a new tenant to the
 * first request of it that the router does not refuse as unknown. What limits them: initdb of five servers; PostgreSQL in
 * small; the commit of a batch; the 20 ms in which changes are gathered for the routers.
 */
import { readdir, readFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { eventually, shopFleet, startFleet, type TestFleet } from "../tests/fleet.ts";
import { median, printJson, printTable, quantile, quick, shown } from "./shared/report.ts";

const [creations, connections, looks] = quick ? [2000, 32, 40] : [10_000, 32, 200];
const cells = ["eu-1", "eu-2", "us-1", "us-2"];

const fleetFile = shopFleet(cells, "{ tenants: 1000000 }");

const agent = new Agent({ keepAlive: true, maxSockets: connections });

/** A request over a connection that is kept; only its status is of interest. */
function send(url: string, method: string, headers: Record<string, string>, body = ""): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, agent, headers: { ...headers, ...(body ? { "content-type": "application/json", "content-length": Buffer.byteLength(body) } : {}) } }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

const create = (fleet: TestFleet, name: string): Promise<number> => send(`${fleet.apiUrl}/v1/tenants`, "POST", { authorization: `Bearer ${fleet.adminToken}` }, JSON.stringify({ name }));
const ask = (fleet: TestFleet, tenant: string): Promise<number> => send(`${fleet.routerUrl}/balance`, "GET", { "x-tenant": tenant });

async function firstAnswer(fleet: TestFleet, tenant: string): Promise<void> {
  await eventually(`${tenant} is answered`, async () => (await ask(fleet, tenant)) === 200);
}

/** Processes of the fleet and all below them; PostgreSQL's children do not name the folder. */
async function proportionalMiB(directory: string): Promise<number> {
  const parents = new Map<number, number>();
  const wanted = new Set<number>();
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
    parents.set(pid, Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    const told = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")) + (await readFile(`/proc/${pid}/environ`, "utf8").catch(() => ""));
    if (told.includes(directory)) wanted.add(pid);
  }
  const ours = (pid: number): boolean => wanted.has(pid) || ((parents.get(pid) ?? 0) > 1 && ours(parents.get(pid) ?? 0));
  let kib = 0;
  for (const pid of parents.keys()) {
    if (pid === process.pid || !ours(pid)) continue;
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => "");
    kib += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
  }
  return kib / 1024;
}

const coldFromMs = performance.now();
const fleet = await startFleet({ fleetFile });
try {
  await create(fleet, "first");
  await firstAnswer(fleet, "first");
  const coldStartMs = performance.now() - coldFromMs;

  const visible: number[] = [];
  for (let i = 0; i < looks; i++) {
    await create(fleet, `visible-${i}`);
    const fromMs = performance.now();
    while ((await ask(fleet, `visible-${i}`)) === 404);
    visible.push(performance.now() - fromMs);
  }

  const fromMs = performance.now();
  let next = 0;
  let refused = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      for (let i = next++; i < creations; i = next++) if ((await create(fleet, `tenant-${i}`)) !== 201) refused++;
    }),
  );
  const createdPerSecond = (creations - refused) / ((performance.now() - fromMs) / 1000);
  if (refused > 0) console.error(`${refused} creations were refused`);

  const rssMiB = await proportionalMiB(fleet.stateDirectory);
  await fleet.interrupt();
  const warmFromMs = performance.now();
  await fleet.startAgain();
  await firstAnswer(fleet, "first");
  const warmStartMs = performance.now() - warmFromMs;

  printTable([
    ["", "measured", "target"],
    ["cold start, s", shown(coldStartMs / 1000), "≤ 20"],
    ["warm start, s", shown(warmStartMs / 1000), "≤ 5"],
    [`memory of ${cells.length} cells, control plane and router, MiB`, shown(rssMiB), "≤ 1024"],
    ["tenants created per second", shown(createdPerSecond), "≥ 500"],
    ["new tenant visible in the router, ms: median, p99", `${shown(median(visible))}, ${shown(quantile(visible, 0.99))}`, "p99 ≤ 250"],
  ]);
  printJson({ coldStartMs, warmStartMs, rssMiB, tenantsCreatedPerSecond: createdPerSecond, routeVisibleP99Ms: quantile(visible, 0.99) });
} finally {
  agent.destroy();
  await fleet.stop();
}
