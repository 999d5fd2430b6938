import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { type TestControl, testControl } from "./testing/control.ts";
import { cellChange, exchange, hostRule, stampSecret, type TestCell, type TestFleet, tenantChange, testCell, testFleet } from "./testing/fleet.ts";
import { startRouter } from "./serve.ts";

const get = (host: string): string => `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
const cellOf = (answer: string): string => /\r\n\r\n(eu-\d):/.exec(answer)?.[1] ?? /"code":"(\w+)"/.exec(answer)?.[1] ?? answer;
const metric = async (fleet: TestFleet, name: string): Promise<number> => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(await (await fetch(`http://127.0.0.1:${fleet.router.adminPort}/metrics`)).text())?.[1]);

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

async function controlled(): Promise<{ control: TestControl; fleet: TestFleet; cells: TestCell[] }> {
  const cells = [await testCell("eu-1", 1), await testCell("eu-2", 2)];
  const control = await testControl([hostRule, ...cells.map(cellChange), tenantChange("acme", 1)]);
  const fleet = await testFleet({ cells, controlPlane: [control.url] });
  closing.push(() => control.close(), () => fleet.close());
  await expect.poll(() => fleet.router.version()).toBe(1);
  return { control, fleet, cells };
}

/** The same router again, from what is on its disk. */
async function restarted(fleet: TestFleet, log: string[] = [], controlPlane: string[] = []): Promise<{ cell(host: string): Promise<string>; version: number; close(): Promise<void> }> {
  const router = await startRouter({ name: "test", listen: { host: "127.0.0.1", port: 0 }, admin: { host: "127.0.0.1", port: 0 }, controlPlane, token: "router-token", stampSecret, stateDirectory: fleet.directory, limits: { drainIdleMs: 20 }, log: (line) => log.push(line) });
  return { version: router.version(), cell: async (host) => cellOf(await exchange(connect(router.port, "127.0.0.1"), get(host))), close: () => router.close() };
}

const saved = (fleet: TestFleet): Promise<void> => expect.poll(() => readFile(join(fleet.directory, "routes.snapshot"), "utf8").catch(() => "")).toContain("end ");

describe("D12: a router follows the log and says how far", () => {
  test("a change arrives, moves the tenant and is acknowledged", async () => {
    const { control, fleet } = await controlled();
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("eu-1");
    const version = control.publish(tenantChange("acme", 2, 2));
    await expect.poll(() => control.acks.at(-1)).toMatchObject({ router: "test", version, inFlight: {} });
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("eu-2");
    expect(await metric(fleet, "cellplane_route_table_version")).toBe(version);
    expect(await metric(fleet, "cellplane_route_table_age_seconds")).toBeLessThan(5);
  });

  test("a broken stream resumes where it was, without a snapshot", async () => {
    const { control, fleet } = await controlled();
    control.cut();
    const version = control.publish(tenantChange("bolt", 2));
    await expect.poll(() => fleet.router.version(), { timeout: 5000 }).toBe(version);
    expect(control.snapshots).toBe(1);
    expect(cellOf(await fleet.raw(get("bolt.test")))).toBe("eu-2");
  });

  test("a log that no longer reaches back is answered by a snapshot", async () => {
    const { control, fleet } = await controlled();
    await control.down();
    for (let i = 0; i < 5; i++) control.publish(tenantChange(`t${i}`, 2));
    control.trim();
    await control.up();
    await expect.poll(() => fleet.router.version(), { timeout: 10_000 }).toBe(6);
    expect(control.snapshots).toBe(2);
    expect(cellOf(await fleet.raw(get("t0.test")))).toBe("eu-2");
  });

  test("another history is noticed by its digest, even at the same version", async () => {
    const { control, fleet } = await controlled();
    control.restart();
    await expect.poll(() => control.snapshots, { timeout: 5000 }).toBe(2);
    const version = control.publish(tenantChange("bolt", 2));
    await expect.poll(() => fleet.router.version()).toBe(version);
  });

  test("a cell that moves, closes or goes is followed", async () => {
    const { control, fleet, cells } = await controlled();
    const moved = await testCell("eu-1", 1);
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("eu-1");
    const seen = async (version: number): Promise<void> => expect.poll(() => fleet.router.version()).toBe(version);
    await seen(control.publish(cellChange(moved)));
    await fleet.raw(get("acme.test"));
    expect([cells[0]?.seen.length, moved.seen.length]).toEqual([1, 1]);
    await seen(control.publish({ kind: "cell", index: 1, cell: "eu-1", endpoint: `127.0.0.1:${moved.port}`, state: "closed" }));
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("cell_closed");
    await seen(control.publish({ kind: "cellGone", index: 1, cell: "eu-1" }));
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("cell_unknown");
    moved.server.closeAllConnections();
    moved.server.close();
  });
});

describe("D13: what is not right changes nothing", () => {
  test("a spoilt batch is refused, the last good table serves, and a snapshot heals", async () => {
    const { control, fleet } = await controlled();
    control.mangle = (what, bytes) => (what === "batch" ? Buffer.from(bytes.toString("latin1").replace("t acme 2", "t acme 1"), "latin1") : bytes);
    control.publish(tenantChange("acme", 2, 2));
    await expect.poll(() => control.snapshots, { timeout: 5000 }).toBe(2);
    await expect.poll(async () => cellOf(await fleet.raw(get("acme.test")))).toBe("eu-2");
    expect(fleet.log.join("\n")).toContain("the digest of version 2 does not fit");
  });

  test(`a snapshot with any byte changed, cut or added is refused and the table stays`, async () => {
    const { control, fleet } = await controlled();
    let spoilt = 0;
    control.mangle = (what, bytes) => {
      if (what === "batch") return bytes.subarray(0, bytes.length - 1);
      spoilt++;
      const bad = Buffer.from(bytes);
      const at = (spoilt * 37) % bad.length;
      bad[at] = (bad[at] ?? 0) ^ 1;
      return bad;
    };
    control.publish(tenantChange("acme", 2, 2));
    control.cut();
    await expect.poll(() => spoilt, { timeout: 10_000 }).toBeGreaterThan(2);
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("eu-1");
    expect(await metric(fleet, "cellplane_route_table_version")).toBe(1);
    control.mangle = null;
    await expect.poll(async () => cellOf(await fleet.raw(get("acme.test"))), { timeout: 10_000 }).toBe("eu-2");
  });

  test("a wrong token is no reason to stop serving", async () => {
    const { control, fleet } = await controlled();
    await saved(fleet);
    await fleet.router.close();
    const other = await testControl([], "another token");
    closing.push(() => other.close());
    const again = await restarted(fleet, [], [other.url]);
    expect(await again.cell("acme.test")).toBe("eu-1");
    await again.close();
    expect(control.snapshots).toBe(1);
  });
});

describe("D14: a router starts from its disk", () => {
  test("with everything it had acknowledged, also what came after the snapshot", async () => {
    const { control, fleet } = await controlled();
    await saved(fleet);
    for (let i = 0; i < 20; i++) control.publish(tenantChange(`t${i}`, 1 + (i % 2)));
    await expect.poll(() => fleet.router.version()).toBe(21);
    await control.down();
    await fleet.router.close();
    const again = await restarted(fleet);
    expect(again.version).toBe(21);
    expect([await again.cell("acme.test"), await again.cell("t18.test"), await again.cell("t19.test")]).toEqual(["eu-1", "eu-1", "eu-2"]);
    await again.close();
    await control.up();
  });

  test("whatever is wrong with the files, it serves a table that once was, or none, and says so", async () => {
    const { control, fleet } = await controlled();
    await saved(fleet);
    for (let i = 0; i < 10; i++) control.publish(tenantChange("acme", 1 + (i % 2), 2 + i));
    await expect.poll(() => fleet.router.version()).toBe(11);
    await fleet.router.close();
    const files = ["routes.snapshot", "routes.journal"];
    const whole = await Promise.all(files.map((file) => readFile(join(fleet.directory, file))));
    expect(whole.every((bytes) => bytes.length > 0)).toBe(true);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), fc.constantFrom("flip", "cut", "add"), fc.integer({ min: 1, max: 255 }), async (which, place, how, noise) => {
        const bytes = whole[which] ?? Buffer.alloc(0);
        const at = Math.floor(place * bytes.length);
        const bad = how === "cut" ? bytes.subarray(0, at) : how === "add" ? Buffer.concat([bytes.subarray(0, at), Buffer.from([noise]), bytes.subarray(at)]) : Buffer.from(bytes);
        if (how === "flip") bad[at] = (bad[at] ?? 0) ^ noise;
        for (const name of await readdir(fleet.directory)) await rm(join(fleet.directory, name));
        await Promise.all(files.map((file, i) => writeFile(join(fleet.directory, file), (i === which ? bad : whole[i]) ?? "")));
        const log: string[] = [];
        const again = await restarted(fleet, log);
        // acme's cell alternates with the version: 1 → eu-1, 2 → eu-1 (epoch 2), 3 → eu-2, …
        expect(await again.cell("acme.test")).toBe(again.version === 0 ? "no_table" : again.version === 1 || again.version % 2 === 0 ? "eu-1" : "eu-2");
        if (which === 0) expect(again.version).toBe(0);
        // A journal that ends between two batches is a journal of former times, not a bad one.
        if (which === 0 || how !== "cut") expect(log.join("\n")).toContain("left aside");
        await again.close();
      }),
      { numRuns: 60 },
    );
  });

  test("without any table it says so, and that it is not ready", async () => {
    const fleet = await testFleet({ cells: [], controlPlane: ["http://127.0.0.1:1"] });
    closing.push(() => fleet.close());
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("no_table");
    expect((await fetch(`http://127.0.0.1:${fleet.router.adminPort}/ready`)).status).toBe(503);
  });
});

describe("D15: a moving tenant's requests wait and are not lost", () => {
  test("on hold they wait in order, and go to the new cell when it ends", async () => {
    const { control, fleet, cells } = await controlled();
    await expect.poll(() => control.publish(tenantChange("acme", 1, 1, "hold")) && control.acks.at(-1)?.inFlight).toMatchObject({ acme: 0 });
    const socket = fleet.open();
    const answers: Promise<string>[] = [];
    for (let i = 0; i < 40; i++) {
      answers.push(fleet.raw(`POST /${i} HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello`));
      await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(i + 1);
    }
    expect(cells.flatMap((cell) => cell.seen)).toEqual([]);
    const start = performance.now();
    control.publish(tenantChange("acme", 2, 2));
    expect(new Set((await Promise.all(answers)).map(cellOf))).toEqual(new Set(["eu-2"]));
    expect(performance.now() - start).toBeLessThan(2000);
    expect(cells[1]?.seen.map((seen) => [seen.headers["x-cellplane-epoch"], seen.body])).toEqual(answers.map(() => ["2", "hello"]));
    socket.destroy();
  });

  test("a hold that lasts too long, or that too many wait for, is 503", async () => {
    const cells = [await testCell("eu-1", 1)];
    const fleet = await testFleet({ cells, changes: [tenantChange("acme", 1, 1, "hold")], limits: { holdMs: 200, holdMax: 1 } });
    closing.push(() => fleet.close());
    const waiting = fleet.raw(get("acme.test"));
    await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(1);
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("hold_full");
    expect(cellOf(await waiting)).toBe("hold_timeout");
    // Who leaves while waiting leaves no trace.
    const gone = fleet.open();
    gone.write(get("acme.test"));
    await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(1);
    gone.resetAndDestroy();
    await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(0);
  });

  test("a suspended tenant's waiting requests are told so", async () => {
    const { control, fleet } = await controlled();
    await expect.poll(() => control.publish(tenantChange("acme", 1, 1, "hold")) && control.acks.at(-1)?.inFlight).toMatchObject({ acme: 0 });
    const waiting = fleet.raw(get("acme.test"));
    await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(1);
    control.publish(tenantChange("acme", 1, 1, "suspended"));
    expect(cellOf(await waiting)).toBe("suspended");
  });

  test("the acknowledgement counts what is under way for a tenant on hold, down to none", async () => {
    let finish: (() => void) | undefined;
    const cells = [await testCell("eu-1", 1, (_, response) => ((finish = () => response.end("done")), true)), await testCell("eu-2", 2)];
    const control = await testControl([hostRule, ...cells.map(cellChange), tenantChange("acme", 1)]);
    const fleet = await testFleet({ cells, controlPlane: [control.url] });
    closing.push(() => control.close(), () => fleet.close());
    await expect.poll(() => fleet.router.version()).toBe(1);
    const busy = fleet.raw(get("acme.test"));
    await expect.poll(() => finish !== undefined).toBe(true);
    control.publish(tenantChange("acme", 1, 1, "hold"));
    await expect.poll(() => control.acks.at(-1)?.inFlight).toEqual({ acme: 1 });
    finish?.();
    await busy;
    await expect.poll(() => control.acks.at(-1)?.inFlight).toEqual({ acme: 0 });
  });
});

describe("D16: a cell's 421 sends the request by the newer route", () => {
  /** A cell whose guard refuses the tenant, before it does anything. */
  const refusing = (): Promise<TestCell> => testCell("eu-1", 1, (_, response) => (response.writeHead(421, { "content-type": "application/problem+json" }).end('{"code":"route_stale"}'), true));
  const post = (body: string): string => `POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;

  test("at once, when the table has moved on meanwhile; with its body, whatever the method", async () => {
    const cells = [await refusing(), await testCell("eu-2", 2)];
    const control = await testControl([hostRule, ...cells.map(cellChange), tenantChange("acme", 1)]);
    const fleet = await testFleet({ cells, controlPlane: [control.url] });
    closing.push(() => control.close(), () => fleet.close());
    await expect.poll(() => fleet.router.version()).toBe(1);
    // The router is behind: the tenant has moved, the news comes after the refusal.
    const answers = [fleet.raw(post("x".repeat(30_000))), fleet.raw(`POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n`), fleet.raw(get("acme.test"))];
    await expect.poll(() => metric(fleet, "cellplane_router_held")).toBe(3);
    // News of others are none for them.
    for (let i = 0; i < 5; i++) {
      const version = control.publish(tenantChange("other", 2, 1 + i));
      await expect.poll(() => fleet.router.version()).toBe(version);
    }
    expect(await metric(fleet, "cellplane_router_held")).toBe(3);
    control.publish(tenantChange("acme", 2, 2));
    expect((await Promise.all(answers)).map(cellOf)).toEqual(["eu-2", "eu-2", "eu-2"]);
    expect(cells[1]?.seen.map((seen) => seen.body.length).sort()).toEqual([0, 3, 30_000]);
    expect(cells[1]?.seen.every((seen) => seen.headers["x-cellplane-epoch"] === "2" && seen.headers["x-cellplane-cell"] === "eu-2")).toBe(true);
  });

  test("no newer route in time is 503, never the 421; a body too long to keep is 503 at once", async () => {
    const fleet = await testFleet({ cells: [await refusing()], limits: { staleMs: 300, replayBytesMax: 1000 } });
    closing.push(() => fleet.close());
    const start = performance.now();
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("route_stale");
    expect(performance.now() - start).toBeGreaterThan(250);
    const answer = await fleet.raw(post("x".repeat(5000)));
    expect([cellOf(answer), answer.startsWith("HTTP/1.1 503"), answer.includes("retry-after")]).toEqual(["route_stale", true, true]);
  });

  test("a storm of them ends", async () => {
    const cells = [await refusing(), await testCell("eu-2", 2, (_, response) => (response.writeHead(421).end(), true))];
    const control = await testControl([hostRule, ...cells.map(cellChange), tenantChange("acme", 1)]);
    const fleet = await testFleet({ cells, controlPlane: [control.url], limits: { replaysMax: 3, staleMs: 1000 } });
    closing.push(() => control.close(), () => fleet.close());
    await expect.poll(() => fleet.router.version()).toBe(1);
    let epoch = 1;
    const moving = setInterval(() => control.publish(tenantChange("acme", 1 + (++epoch % 2), epoch)), 30);
    expect(cellOf(await fleet.raw(get("acme.test")))).toBe("route_stale");
    clearInterval(moving);
    expect(cells.flatMap((cell) => cell.seen).length).toBe(4);
  });
});
