/**
 * Processor time per request of the router beside HAProxy and nginx, doing the same: find the tenant of the host among
 * 10,000 (or 1,000,000), take away what the client may not say, say tenant, cell, epoch and signature, pass on.
 *
 * How: one process with one thread of each; wrk keeps 32 connections busy with hosts at random; the cell is an nginx that
 * answers 12 bytes at once. Rounds are interleaved, so that what else the machine does meets all alike; processor time
 * comes from /proc/<pid>/stat, and the ratios are those of the medians. `addedP50Ms` is the median latency through the
 * router minus that of the cell itself, one connection at a time.
 *
 * What limits it: the kernel. Each proxy makes the same four system calls per request (read and write on both sides),
 * about half of all the time; the rest is reading heads, in V8 here and in C there. At full load proxies find several
 * requests per wake-up, so figures per request are better than at low load, for all of them.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { packEntry } from "../packages/cellplane/src/routing/model.ts";
import { RouteTable } from "../packages/cellplane/src/routing/table.ts";
import { openRouteDisk } from "../packages/cellplane/src/router/disk.ts";
import { startRouter } from "../packages/cellplane/src/router/serve.ts";
import { median, printJson, printTable, quick, shown, spread } from "./shared/report.ts";

const stampSecret = "bench";
const suffix = "bench.test";
const nameOf = (i: number): string => `tenant-${i}`;

/** The router of one table, as a process of its own. */
async function serve(): Promise<void> {
  const [directory = "", port = ""] = process.argv.slice(process.argv.indexOf("--serve") + 1);
  const router = await startRouter({ name: "bench", listen: { host: "127.0.0.1", port: Number(port) }, admin: { host: "127.0.0.1", port: 0 }, controlPlane: [], token: "", stampSecret, stateDirectory: directory });
  process.on("SIGTERM", () => void router.close().then(() => process.exit(0)));
}

interface Proxy {
  name: string;
  port: number;
  script: string;
  child: ChildProcess;
}

async function main(): Promise<void> {
  const seconds = quick ? 1 : 3;
  const rounds = quick ? 4 : 9;
  const directory = mkdtempSync(join(tmpdir(), "cellplane-bench-router-"));
  const children: ChildProcess[] = [];
  const start = (command: string, args: string[]): ChildProcess => {
    const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"] });
    children.push(child);
    return child;
  };
  try {
    const cellPort = await freePort();
    const cell = start("nginx", ["-p", directory, "-c", nginxFile(directory, "cell", `server { listen 127.0.0.1:${cellPort} backlog=4096; location / { return 200 "hello, world"; } }`)]);
    await listening(cellPort, cell);

    const proxies: Proxy[] = [];
    for (const tenants of [10_000, 1_000_000]) {
      const script = join(directory, `hosts-${tenants}.lua`);
      writeFileSync(script, wrkScript(tenants));
      const routerPort = await freePort();
      const table = join(directory, `table-${tenants}`);
      await writeTable(table, tenants, cellPort);
      proxies.push({ name: `router ${tenants}`, port: routerPort, script, child: start(process.execPath, [fileURLToPath(import.meta.url), "--serve", table, String(routerPort)]) });
      const haproxyPort = await freePort();
      const map = join(directory, `hosts-${tenants}.map`);
      writeFileSync(map, mapLines(tenants, (host, route) => `${host} ${route}`));
      writeFileSync(join(directory, `haproxy-${tenants}.cfg`), haproxyConfig(haproxyPort, cellPort, map));
      proxies.push({ name: `haproxy ${tenants}`, port: haproxyPort, script, child: start("haproxy", ["-db", "-f", join(directory, `haproxy-${tenants}.cfg`)]) });
      if (tenants > 10_000) continue;
      const nginxPort = await freePort();
      writeFileSync(join(directory, "hosts.conf"), mapLines(tenants, (host, route) => `${host} "${route}";`));
      proxies.push({ name: "nginx 10000", port: nginxPort, script, child: start("nginx", ["-p", directory, "-c", nginxFile(directory, "proxy", nginxProxy(nginxPort, cellPort, join(directory, "hosts.conf")))]) });
    }
    for (const proxy of proxies) await listening(proxy.port, proxy.child);

    let failed = 0;
    const micros = new Map<string, number[]>(proxies.map((proxy) => [proxy.name, []]));
    const rates = new Map<string, number[]>(proxies.map((proxy) => [proxy.name, []]));
    // V8 compiles what is hot on other threads of the process; that is the cost of a start, not of a request.
    for (const proxy of proxies) await wrk(proxy.port, proxy.script, proxy.name.startsWith("router") ? 3 : 1, 32);
    for (let round = 0; round < rounds; round++) {
      for (const proxy of proxies) {
        const before = cpuSeconds(proxy.child);
        const result = await wrk(proxy.port, proxy.script, seconds, 32);
        micros.get(proxy.name)?.push(((cpuSeconds(proxy.child) - before) * 1e6) / result.requests);
        rates.get(proxy.name)?.push(result.requests / seconds);
        if (proxy.name.startsWith("router")) failed += result.failed;
      }
    }
    const routerProxy = proxies[0] as Proxy;
    const added: number[] = [];
    for (let i = 0; i < 2; i++) added.push((await wrk(routerProxy.port, routerProxy.script, 1, 1)).p50Ms - (await wrk(cellPort, routerProxy.script, 1, 1)).p50Ms);

    const of = (name: string): number => median(micros.get(name) ?? []);
    const figures = {
      cpuVsHaproxy10k: of("router 10000") / of("haproxy 10000"),
      cpuVsHaproxy1M: of("router 1000000") / of("haproxy 1000000"),
      cpuVsNginx: of("router 10000") / of("nginx 10000"),
      addedP50Ms: median(added),
      failedRequests: failed,
      routerMicros: of("router 10000"),
      haproxyMicros: of("haproxy 10000"),
    };
    printTable([["proxy, tenants", "µs of CPU per request", "requests/s"], ...proxies.map(({ name }) => [name, spread(micros.get(name) ?? []), shown(median(rates.get(name) ?? []))])]);
    console.log(`\nrouter ÷ HAProxy: ${figures.cpuVsHaproxy10k.toFixed(2)} (10k), ${figures.cpuVsHaproxy1M.toFixed(2)} (1M)   router ÷ nginx: ${figures.cpuVsNginx.toFixed(2)}`);
    console.log(`latency added at the median: ${figures.addedP50Ms.toFixed(3)} ms   failed requests: ${failed}   Node ${process.version}`);
    printJson(figures);
  } finally {
    for (const child of children) child.kill("SIGTERM");
    await Promise.all(children.map((child) => (child.exitCode !== null || child.signalCode !== null ? null : new Promise((resolve) => child.once("exit", resolve)))));
    rmSync(directory, { recursive: true, force: true });
  }
}

async function writeTable(directory: string, tenants: number, cellPort: number): Promise<void> {
  const table = new RouteTable(tenants);
  table.setRules([{ by: "host", suffix }]);
  table.setCell({ index: 1, cell: "eu-1", endpoint: `127.0.0.1:${cellPort}`, state: "open" });
  const name = Buffer.alloc(64);
  for (let i = 0; i < tenants; i++) table.setTenant(name, 0, name.write(nameOf(i), "latin1"), packEntry(1, "active", 7));
  const disk = await openRouteDisk(directory, stampSecret, (why) => {
    throw new Error(why);
  });
  await disk.save(table, () => ({ version: 1, digest: "0".repeat(64) }), () => 1);
  await disk.close();
}

/** host → tenant:cell:epoch:signature, as an adapter would write it. */
function mapLines(tenants: number, line: (host: string, route: string) => string): string {
  const lines: string[] = [];
  const signature = createHmac("sha256", stampSecret).update("any").digest("hex");
  for (let i = 0; i < tenants; i++) lines.push(line(`${nameOf(i)}.${suffix}`, `${nameOf(i)}:eu-1:7:${signature}`));
  return `${lines.join("\n")}\n`;
}

const haproxyConfig = (port: number, cellPort: number, map: string): string => `
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout client 30s
  timeout connect 2s
  timeout server 30s
  timeout queue 5s
  option http-keep-alive
  option forwardfor
  http-reuse always
frontend clients
  bind 127.0.0.1:${port} backlog 4096
  http-request set-var(txn.route) req.hdr(host),lower,map_str(${map})
  http-request return status 404 unless { var(txn.route) -m found }
  http-request del-header x-cellplane- -m beg
  http-request del-header x_cellplane_ -m beg
  http-request del-header x-forwarded- -m beg
  http-request set-header x-forwarded-proto http
  http-request set-header x-forwarded-host %[req.hdr(host)]
  http-request set-header x-request-id %[rand,hex]-%[rand,hex] unless { req.hdr(x-request-id) -m found }
  http-request set-header x-cellplane-tenant %[var(txn.route),field(1,:)]
  http-request set-header x-cellplane-cell %[var(txn.route),field(2,:)]
  http-request set-header x-cellplane-epoch %[var(txn.route),field(3,:)]
  http-request set-header x-cellplane-signature %[var(txn.route),field(4,:)]
  default_backend cell
backend cell
  server eu-1 127.0.0.1:${cellPort} maxconn 256
`;

function nginxFile(directory: string, name: string, http: string): string {
  const file = join(directory, `nginx-${name}.conf`);
  mkdirSync(join(directory, "temp"), { recursive: true });
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${directory}/${name}.pid; error_log stderr crit; events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 60s; client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
${http} }
`,
  );
  return file;
}

const nginxProxy = (port: number, cellPort: number, hosts: string): string => `
  map_hash_max_size 262144; map_hash_bucket_size 256;
  map $host $route { default ""; include ${hosts}; }
  map $route $tenant { ~^(?<t>[^:]+): $t; }
  map $route $epoch { ~^[^:]+:[^:]+:(?<e>[^:]+): $e; }
  map $route $signature { ~:(?<s>[0-9a-f]+)$ $s; }
  upstream cell { server 127.0.0.1:${cellPort}; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    if ($route = "") { return 404; }
    location / {
      proxy_pass http://cell; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_buffering off;
      proxy_set_header x-forwarded-for $remote_addr; proxy_set_header x-forwarded-proto http; proxy_set_header x-forwarded-host $host; proxy_set_header x-request-id $request_id;
      proxy_set_header x-cellplane-tenant $tenant; proxy_set_header x-cellplane-cell eu-1; proxy_set_header x-cellplane-epoch $epoch; proxy_set_header x-cellplane-signature $signature;
    }
  }
`;

/** A browser's request, to hosts at random: most of them are not the one before. */
const wrkScript = (tenants: number): string => `
local requests = {}
init = function(args)
  math.randomseed(42)
  for i = 1, 20000 do
    local headers = {
      ["Host"] = "tenant-" .. math.random(0, ${tenants - 1}) .. ".${suffix}",
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
      ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      ["Accept-Language"] = "en-US,en;q=0.5",
      ["Accept-Encoding"] = "gzip, deflate, br",
      ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark",
    }
    requests[i] = wrk.format("GET", "/orders/" .. i, headers)
  end
end
local at = 0
request = function()
  at = at % 20000 + 1
  return requests[at]
end
`;

interface WrkResult {
  requests: number;
  failed: number;
  p50Ms: number;
}

/** Asynchronous, so that nothing of this process waits beside it. */
async function wrk(port: number, script: string, seconds: number, connections: number): Promise<WrkResult> {
  const child = spawn("wrk", ["-t1", `-c${connections}`, `-d${seconds}s`, "--latency", "-s", script, `http://127.0.0.1:${port}/`], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await new Promise((resolve) => child.once("exit", resolve));
  const number = (pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? 0);
  const errors = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)?.slice(1).reduce((sum, n) => sum + Number(n), 0) ?? 0;
  const [, p50 = "0", unit = "ms"] = /50%\s+([\d.]+)(us|ms|s)/.exec(text) ?? [];
  return { requests: number(/(\d+) requests in/), failed: errors + number(/Non-2xx or 3xx responses: (\d+)/), p50Ms: Number(p50) * ({ us: 0.001, ms: 1, s: 1000 }[unit] ?? 1) };
}

const ticksPerSecond = Number(execFileSync("getconf", ["CLK_TCK"]));

/** Of the process and, since nginx and haproxy may have a master, of its children. */
function cpuSeconds(child: ChildProcess): number {
  const pids = [child.pid ?? 0, ...execFileSync("sh", ["-c", `pgrep -P ${child.pid} || true`]).toString().split("\n").filter(Boolean).map(Number)];
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }, 0);
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

async function listening(port: number, child: ChildProcess): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => null);
    if (answer) return void (await answer.arrayBuffer());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

if (process.argv.includes("--serve")) await serve();
else await main();
