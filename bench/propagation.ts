/**
 * How long a change of a route takes to be applied and acknowledged by every router: with 1, 10 and 100 of them.
 *
 * What is measured: from the call that commits the change (PostgreSQL that writes through to the disk) until the control
 * plane has the acknowledgement of the last router. Routers are simulated as far as traffic goes: each has its own
 * connection, follows the log with the feed of a real router, checks digests, applies lines to a table of its own and
 * acknowledges by HTTP; all live in one other process. Twenty changes a second, each of one tenant; in the quick run ten
 * seconds for each number of routers. `routers` and `changeToAckedP99Ms` are those of the largest number.
 *
 * What limits it: changes wait up to 20 ms to travel together; then each router costs a socket write, and an acknowledgement
 * of some 0.1 ms of processor time on either side. So the control plane asks for about a thousand of them a second in
 * all: with 100 routers each speaks at most every 100 ms, with 1,000 once a second. The routers run on this machine too.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { systemClock } from "../packages/cellplane/src/base/clock.ts";
import { startFeed } from "../packages/cellplane/src/router/feed.ts";
import { openRouteFeed } from "../packages/cellplane/src/routing/feed.ts";
import { lineReader } from "../packages/cellplane/src/routing/lines.ts";
import type { SnapshotPosition } from "../packages/cellplane/src/routing/snapshot.ts";
import { routeHead, routePublisher } from "../packages/cellplane/src/routing/store.ts";
import { RouteTable } from "../packages/cellplane/src/routing/table.ts";
import { feedServer } from "../packages/cellplane/src/routing/testing/server.ts";
import { applySchema } from "../packages/cellplane/src/store/schema.ts";
import { openStore } from "../packages/cellplane/src/store/store.ts";
import { openPostgres } from "./shared/postgres.ts";
import { median, printJson, printTable, quantile, quick, shown } from "./shared/report.ts";

const tenants = 10_000;
const changesPerSecond = 20;
const seconds = quick ? 10 : 30;

/** So many routers in this process, until it is told to stop. */
function simulate(url: string, count: number): void {
  for (let i = 0; i < count; i++) {
    let table = new RouteTable();
    let position: SnapshotPosition | null = null;
    startFeed({
      urls: [url], token: "any", router: `sim-${i}`,
      position: () => position,
      takeSnapshot(loaded) {
        ({ table } = loaded);
        position = { version: loaded.version, digest: loaded.digest };
      },
      async takeBatch(frame, batch) {
        const read = lineReader(table);
        for (const { start, end } of batch.versions) read(frame.payload, start, end);
        position = { version: frame.to, digest: batch.digest };
      },
      confirmed: () => undefined,
      inFlight: () => ({}),
      failed: (why) => console.error(why),
    });
  }
}

async function measure(): Promise<void> {
  const postgres = await openPostgres();
  const store = openStore(postgres.url);
  await applySchema(store);
  await store.transaction(async (tx) => routePublisher.publish(tx, Array.from({ length: tenants }, (_, i) => ({ kind: "tenant", tenant: `tenant-${i}`, cellIndex: 1, state: "active", epoch: 1 }))));
  const feed = await openRouteFeed(store, { clock: systemClock });
  const acked = new Map<string, number>();
  let heard = (): void => undefined;
  const server = await feedServer({
    ...feed,
    ack(ack) {
      feed.ack(ack);
      acked.set(ack.router, ack.version);
      heard();
    },
  });
  const rows = [["routers", "p50 ms", "p99 ms", "worst ms"]];
  const p99s = new Map<number, number>();
  try {
    let epoch = 1;
    for (const count of quick ? [1, 10, 100] : [1, 10, 100, 1000]) {
      acked.clear();
      const routers = fork(fileURLToPath(import.meta.url), ["--simulate", server.url, String(count)], { execArgv: [] });
      const { version } = await routeHead(store);
      while ([...acked.values()].filter((at) => at >= version).length < count) await sleep(50);

      const times: number[] = [];
      /** Version → when its commit began; removed when the last router has acknowledged it. */
      const open = new Map<number, number>();
      heard = () => {
        const least = Math.min(...acked.values());
        for (const [version, startMs] of open) {
          if (version > least) continue;
          times.push(performance.now() - startMs);
          open.delete(version);
        }
      };
      for (let i = 0; i < seconds * changesPerSecond; i++) {
        const startMs = performance.now();
        const tenant = `tenant-${Math.floor(Math.random() * tenants)}`;
        epoch++;
        await store.transaction(async (tx) => routePublisher.publish(tx, [{ kind: "tenant", tenant, cellIndex: 1 + (epoch % 50), state: "active", epoch }]));
        open.set((await routeHead(store)).version, startMs);
        await sleep(Math.max(0, 1000 / changesPerSecond - (performance.now() - startMs)));
      }
      const deadline = performance.now() + 10_000;
      while (open.size > 0 && performance.now() < deadline) await sleep(20);
      if (open.size > 0) throw new Error(`${open.size} changes were never acknowledged by all ${count} routers`);
      p99s.set(count, quantile(times, 0.99));
      rows.push([String(count), shown(median(times)), shown(quantile(times, 0.99)), shown(Math.max(...times))]);
      routers.kill();
      await once(routers, "exit");
    }
  } finally {
    await server.close();
    await feed.close();
    await store.close();
    await postgres.close();
  }
  printTable(rows);
  const [routers, changeToAckedP99Ms] = [...p99s].at(-1) ?? [0, Number.NaN];
  printJson({ routers, changeToAckedP99Ms, changeToAckedP99Ms1: p99s.get(1) ?? Number.NaN, changeToAckedP99Ms10: p99s.get(10) ?? Number.NaN, changeToAckedP99Ms100: p99s.get(100) ?? Number.NaN });
}

const simulated = process.argv.indexOf("--simulate");
if (simulated > 0) simulate(process.argv[simulated + 1] ?? "", Number(process.argv[simulated + 2]));
else await measure();
