import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { prng } from "../base/prng.ts";
import { exchange, stampSecret, type TestCell, type TestFleet, tenantChange, testCell, testFleet } from "./testing/fleet.ts";

const get = (path = "/", host = "acme.test", ...lines: string[]): string => `${[`GET ${path} HTTP/1.1`, `Host: ${host}`, ...lines].join("\r\n")}\r\n\r\n`;
const close = "Connection: close";
const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 0);
const codeOf = (answer: string): unknown => (JSON.parse(answer.slice(answer.indexOf("{"))) as { code: string }).code;

let fleet: TestFleet;
let eu1: TestCell;
let eu2: TestCell;
beforeAll(async () => {
  [eu1, eu2] = [
    await testCell("eu-1", 1, (request, response, body) => {
      if (request.url === "/chunks") {
        response.write("one,");
        setTimeout(() => response.end("two"), 5);
      } else if (request.url === "/204") response.writeHead(204).end();
      else if (request.url === "/echo") response.end(body);
      else return false;
      return true;
    }),
    await testCell("eu-2", 2),
  ];
  fleet = await testFleet({ cells: [eu1, eu2], changes: [tenantChange("cyan", 1, 1, "suspended"), tenantChange("dune", 1, 1, "quarantined"), tenantChange("echo", 9)] });
});
afterAll(() => fleet.close());
beforeEach(() => {
  eu1.seen.length = 0;
  eu2.seen.length = 0;
});

describe("D4: a request reaches its tenant's cell and no other", () => {
  test("by its host, in any case, with or without a port", async () => {
    for (const host of ["acme.test", "ACME.test", "acme.test:8080"]) expect(await fleet.raw(get("/a?b=1", host, close))).toContain("eu-1:GET:/a?b=1:0");
    expect(await fleet.raw(get("/", "bolt.test", close))).toContain("eu-2:GET:/:0");
  });

  test.each([["nobody.test", 404, "unknown_tenant"], ["acme.test.", 404, "unknown_tenant"], ["cyan.test", 403, "suspended"], ["dune.test", 503, "quarantined"], ["echo.test", 503, "cell_unknown"]])("%s is refused with %d %s", async (host, status, code) => {
    const answer = await fleet.raw(get("/", host, close));
    expect([statusOf(answer), codeOf(answer)]).toEqual([status, code]);
    expect(answer).toContain("content-type: application/problem+json");
    if (status === 503) expect(answer).toContain("retry-after: 1\r\n");
    expect(eu1.seen).toEqual([]);
  });

  test("it carries the stamp, signed, and where it came from", async () => {
    await fleet.raw(get("/", "acme.test", "x-cellplane-tenant: evil", "X_Cellplane_Cell: evil", "X-Forwarded-For: 9.9.9.9", "x-request-id: mine", close));
    const headers = eu1.seen[0]?.headers ?? {};
    const signature = createHmac("sha256", stampSecret).update("acme\neu-1\n1").digest("hex");
    expect(headers).toMatchObject({
      "x-cellplane-tenant": "acme", "x-cellplane-cell": "eu-1", "x-cellplane-epoch": "1", "x-cellplane-signature": signature,
      "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": "acme.test", "x-request-id": "mine", host: "acme.test",
    });
    expect(JSON.stringify(eu1.seen[0]?.raw)).not.toMatch(/evil|9\.9\.9\.9/);
  });

  test("each request without an id gets one of its own", async () => {
    for (let i = 0; i < 3; i++) await fleet.raw(get("/", "acme.test", close));
    expect(new Set(eu1.seen.map((seen) => seen.headers["x-request-id"])).size).toBe(3);
  });
});

describe("D5: one connection carries many requests, each with its own answer", () => {
  test("kept alive on both sides", async () => {
    const socket = fleet.open();
    const ports = new Set<number | undefined>();
    eu1.server.on("request", (request) => ports.add(request.socket.remotePort));
    for (let i = 0; i < 5; i++) {
      socket.write(get(`/${i}`));
      const [chunk] = (await once(socket, "data")) as [Buffer];
      expect(chunk.toString()).toContain(`eu-1:GET:/${i}:0`);
    }
    socket.destroy();
    expect(ports.size).toBe(1);
  });

  test("sent at once, answered in order, each at its own cell", async () => {
    const all = get("/1") + get("/2", "bolt.test") + get("/3", "nobody.test") + get("/4") + `POST /5 HTTP/1.1\r\nHost: bolt.test\r\nContent-Length: 3\r\n\r\nabc${get("/6", "acme.test", close)}`;
    const answer = await fleet.raw(all);
    expect(answer.match(/eu-\d:\w+:\/\d:\d|unknown_tenant/g)).toEqual(["eu-1:GET:/1:0", "eu-2:GET:/2:0", "unknown_tenant", "eu-1:GET:/4:0", "eu-2:POST:/5:3", "eu-1:GET:/6:0"]);
  });

  test("a thousand refusals in one write do not pile up on the stack", async () => {
    const answer = await fleet.raw(get("/", "nobody.test").repeat(1000) + get("/", "nobody.test", close));
    expect(answer.match(/HTTP\/1\.1 404/g)).toHaveLength(1001);
  });

  test("who asks and does not listen is asked to wait", async () => {
    const socket = fleet.open();
    const requests = Buffer.from(get("/", "nobody.test").repeat(1000));
    let sent = 0;
    const send = (): void => {
      while (sent < 100_000_000 && socket.write(requests)) sent += requests.length;
      sent += requests.length;
    };
    socket.on("drain", send).pause();
    send();
    let before = -1;
    // It stops by itself, long before all is sent.
    while (before !== socket.bytesWritten - socket.writableLength) {
      before = socket.bytesWritten - socket.writableLength;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(before).toBeLessThan(20_000_000);
    socket.destroy();
  });

  test("byte by byte", async () => {
    const socket = fleet.open();
    const answer = exchange(socket, "");
    for (const letter of `POST /slow HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n${close}\r\n\r\n3\r\nabc\r\n0\r\n\r\n`) {
      socket.write(letter);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await answer).toContain("eu-1:POST:/slow:3");
  });

  test("HTTP/1.0 closes unless it asks not to", async () => {
    expect(await fleet.raw("GET / HTTP/1.0\r\nHost: acme.test\r\n\r\n")).toContain("eu-1:GET:/:0");
    const kept = await fleet.raw("GET /a HTTP/1.0\r\nHost: acme.test\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\nHost: acme.test\r\n\r\n");
    expect(kept.match(/eu-1:GET:\/\w:0/g)).toEqual(["eu-1:GET:/a:0", "eu-1:GET:/b:0"]);
    expect(kept).toContain("connection: keep-alive");
  });

  test("answers without a body end where they end", async () => {
    const answer = await fleet.raw(`HEAD /x HTTP/1.1\r\nHost: acme.test\r\n\r\n${get("/204")}${get("/chunks")}${get("/last", "acme.test", close)}`);
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 204", "HTTP/1.1 200", "HTTP/1.1 200"]);
    expect(answer).toContain("4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n");
    expect(answer).toContain("eu-1:GET:/last:0");
  });

  test("a client that has said all it had to say still gets its answer", async () => {
    const socket = fleet.open();
    const answer = exchange(socket, "");
    socket.end(get("/half"));
    expect(await answer).toContain("eu-1:GET:/half:0");
  });
});

describe("D1: no second request is smuggled in", () => {
  const smuggled = "GET /smuggled HTTP/1.1\r\nHost: bolt.test\r\n\r\n";
  test.each<[string, string]>([
    ["CL.TE", `POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ["TE.CL", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${(smuggled.length).toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`],
    ["TE.TE", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n${smuggled}`],
    ["a coding behind a folded line", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ["a length behind a space", `POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length : 5\r\n\r\nhello${smuggled}`],
    ["LF only", `GET / HTTP/1.1\nHost: acme.test\n\n${smuggled}`],
    ["a bad chunk size", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n${smuggled}`],
    ["a bad chunk end", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n${smuggled}`],
    ["a chunk extension with a line end", `POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n${smuggled}`],
    ["two lengths", `POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 0\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`],
    ["a body for nobody", `POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 100\r\n\r\n${smuggled}`],
  ])("%s", async (_, request) => {
    const answer = await fleet.raw(request);
    expect(answer.match(/HTTP\/1\.1 \d+/g)?.filter((line) => line !== "HTTP/1.1 100")).toHaveLength(1);
    expect(statusOf(answer)).toBeGreaterThanOrEqual(400);
    expect(answer).toContain("connection: close");
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([...eu1.seen, ...eu2.seen].filter((seen) => seen.url === "/smuggled")).toEqual([]);
  });

  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
  test(`whatever is done to the bytes, a cell sees only what was answered for it, with one stamp (SEED=${seed})`, async () => {
    const random = prng(seed);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const requests = [get("/a"), get("/b", "bolt.test"), `POST /c HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 5\r\n\r\nhello`, `POST /d HTTP/1.1\r\nHost: bolt.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`];
    const noise = ["\r", "\n", "\r\n", " ", "\t", "\0", ":", "\x0b", "0", "Host: bolt.test\r\n", "x-cellplane-tenant: evil\r\n", "X_Cellplane-Cell: evil\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: x-cellplane-tenant\r\n", ";", "\x80"];
    for (let round = 0; round < 400; round++) {
      let bytes = Array.from({ length: 1 + Math.floor(random() * 3) }, () => pick(requests)).join("");
      for (let i = 0; i < 1 + Math.floor(random() * 3); i++) {
        const at = Math.floor(random() * bytes.length);
        bytes = bytes.slice(0, at) + pick(noise) + bytes.slice(at + Math.floor(random() * 3));
      }
      const socket = fleet.open();
      const answer = exchange(socket, Buffer.from(bytes, "latin1"));
      socket.end();
      const answered = (await answer).match(/^HTTP\/1\.1 \d/gm)?.length ?? 0;
      const seen = [...eu1.seen.splice(0), ...eu2.seen.splice(0)];
      expect(seen.length, bytes).toBeLessThanOrEqual(answered);
      for (const { cell, raw, headers } of seen) {
        const stamps = raw.filter((text, i) => i % 2 === 0 && /^x.cellplane/i.test(text));
        expect(stamps, bytes).toEqual(["x-cellplane-tenant", "x-cellplane-cell", "x-cellplane-epoch", "x-cellplane-signature"]);
        expect([headers["x-cellplane-tenant"], headers["x-cellplane-cell"]], bytes).toEqual(cell === "eu-1" ? ["acme", "eu-1"] : ["bolt", "eu-2"]);
      }
    }
  });

  test("a body that looks like a request is a body", async () => {
    expect(await fleet.raw(`POST /real HTTP/1.1\r\nHost: acme.test\r\nContent-Length: ${smuggled.length}\r\n${close}\r\n\r\n${smuggled}`)).toContain(`eu-1:POST:/real:${smuggled.length}`);
    expect(eu2.seen).toEqual([]);
  });
});

describe("D6: bodies stream both ways, of any size, without being gathered", () => {
  test("128 MiB there and back; who does not read stops who sends", async () => {
    const size = 128 * 1024 * 1024;
    // A cell that sends back what it gets, as it gets it.
    const cell = await testCell("stream", 1);
    cell.server.removeAllListeners("request");
    cell.server.on("request", (request, response) => {
      response.writeHead(200, { "content-length": size });
      request.pipe(response);
    });
    const streaming = await testFleet({ cells: [cell] });
    const socket = streaming.open().pause();
    socket.write(`POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: ${size}\r\n\r\n`);
    const piece = Buffer.alloc(64 * 1024, "x");
    let sent = 0;
    const sending = (async () => {
      for (; sent < size; sent += piece.length) if (!socket.write(piece)) await once(socket, "drain");
    })();
    let before = -1;
    while (before !== sent) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
    // Four kernel buffers of some MiB each, and what the router may hold.
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    let received = 0;
    for await (const chunk of socket) if ((received += (chunk as Buffer).length) >= size) break;
    await sending;
    expect(received).toBeGreaterThanOrEqual(size);
    await streaming.close();
  });

  test("100 Continue comes from the cell", async () => {
    const socket = fleet.open();
    socket.write(`POST /echo HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n${close}\r\n\r\n`);
    const [first] = (await once(socket, "data")) as [Buffer];
    expect(first.toString()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    expect(await exchange(socket, "hello")).toMatch(/hello$/);
  });

  test("an answer before the request is whole ends both connections", async () => {
    const cell = await rawCell((socket) => socket.once("data", () => socket.write("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")));
    const early = await testFleet({ cells: [cell] });
    const answer = await early.raw("POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 1000000\r\n\r\nabc");
    expect(answer).toMatch(/^HTTP\/1\.1 413 Too Much\r\n[^]*connection: close\r\n\r\nno$/);
    await expect.poll(() => cell.sockets.every((socket) => socket.destroyed)).toBe(true);
    await early.close();
  });

  test("what a cell sends beyond its answer goes nowhere", async () => {
    const cell = await rawCell((socket) => socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")));
    const chatty = await testFleet({ cells: [cell] });
    const answer = await chatty.raw(get() + get());
    expect(answer).not.toContain("evil");
    await expect.poll(() => cell.sockets.every((socket) => socket.destroyed)).toBe(true);
    await chatty.close();
  });
});

/** A cell that speaks whatever the test says. */
async function rawCell(onConnection: (socket: Socket) => void, index = 1): Promise<TestCell & { sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const closeAllConnections = (): void => sockets.forEach((socket) => socket.destroy());
  return { name: `raw-${index}`, index, port: (server.address() as AddressInfo).port, seen: [], sockets, server: Object.assign(server, { closeAllConnections }) as unknown as TestCell["server"] };
}

describe("D7: what a cell does wrong stays with its request", () => {
  test.each<[string, string, number, string]>([
    ["no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", 502, "cell_answer"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502, "cell_answer"],
    ["a switch nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502, "cell_answer"],
  ])("%s", async (_, text, status, code) => {
    const odd = await testFleet({ cells: [await rawCell((socket) => socket.once("data", () => socket.write(text)))] });
    const answer = await odd.raw(get("/", "acme.test", close));
    expect([statusOf(answer), codeOf(answer)]).toEqual([status, code]);
    await odd.close();
  });

  test("half an answer is a broken connection, never a whole answer", async () => {
    const half = await testFleet({ cells: [await rawCell((socket) => socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")))] });
    const socket = half.open();
    const closed = new Promise((resolve) => socket.on("close", resolve).on("error", () => undefined));
    socket.resume().write(get());
    await closed;
    expect(socket.errored).toMatchObject({ code: "ECONNRESET" });
    await half.close();
  });

  test("an answer that ends with its connection is whole", async () => {
    const old = await testFleet({ cells: [await rawCell((socket) => socket.once("data", () => socket.end("HTTP/1.0 200 OK\r\n\r\nall of it")))] });
    expect(await old.raw(get())).toMatch(/connection: close\r\n\r\nall of it$/);
    await old.close();
  });

  test("a connection closed while idle costs a GET nothing, a POST is not sent twice", async () => {
    let requests = 0;
    // Answers the first request of a connection, then drops the connection at the second.
    const cell = await rawCell((socket) => {
      let here = 0;
      socket.on("data", () => {
        requests++;
        if (++here > 1) socket.destroy();
        else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      });
    });
    const dropping = await testFleet({ cells: [cell] });
    expect(statusOf(await dropping.raw(get("/", "acme.test", close)))).toBe(200);
    expect(statusOf(await dropping.raw(get("/", "acme.test", close)))).toBe(200);
    expect(requests).toBe(3);
    const post = await dropping.raw(`POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 2\r\n${close}\r\n\r\nhi`);
    expect([statusOf(post), codeOf(post)]).toEqual([502, "cell_dropped"]);
    expect(requests).toBe(4);
    await dropping.close();
  });

  test("a dead cell answers 503 with Retry-After, and is asked again when it is back", async () => {
    const cell = await testCell("gone", 1);
    cell.server.close();
    const dead = await testFleet({ cells: [cell], limits: { breakerMs: 200 } });
    const answer = await dead.raw(get("/", "acme.test", close));
    expect([statusOf(answer), codeOf(answer)]).toEqual([503, "cell_down"]);
    expect(answer).toContain("retry-after: 1");
    // The breaker is open: no more waiting.
    const start = performance.now();
    expect(codeOf(await dead.raw(get("/", "acme.test", close)))).toBe("cell_down");
    expect(performance.now() - start).toBeLessThan(100);
    await new Promise<void>((resolve) => cell.server.listen(cell.port, "127.0.0.1", resolve));
    await expect.poll(async () => statusOf(await dead.raw(get("/", "acme.test", close))), { timeout: 5000 }).toBe(200);
    await dead.close();
  });

  test("a cell that restarts costs latency, no error", async () => {
    const cell = await testCell("restarting", 1);
    const { port } = cell;
    await new Promise((resolve) => cell.server.close(resolve));
    const fleet = await testFleet({ cells: [cell] });
    setTimeout(() => cell.server.listen(port, "127.0.0.1"), 150);
    expect(statusOf(await fleet.raw(get("/", "acme.test", close)))).toBe(200);
    await fleet.close();
  });
});

describe("D8: a hung cell takes nothing from the others", () => {
  test("its connections, its queue and its wait are bounded; the others answer as before", async () => {
    const hung = await rawCell(() => undefined);
    const well = await testCell("well", 2);
    const both = await testFleet({ cells: [hung, well], limits: { cellConnectionsMax: 4, cellQueueMax: 4, cellQueueMs: 60_000, stallMs: 500, breakerMs: 60_000, progressMs: 60_000 } });
    const answers = Array.from({ length: 12 }, () => both.raw(get("/", "acme.test", close)));
    // 4 with the cell, 4 in its queue: the rest at once.
    const first = await Promise.race(answers);
    expect([statusOf(first), codeOf(first)]).toEqual([503, "cell_busy"]);
    const start = performance.now();
    for (let i = 0; i < 20; i++) expect(statusOf(await both.raw(get("/", "bolt.test", close)))).toBe(200);
    expect(performance.now() - start).toBeLessThan(2000);
    // Nothing from the cell for `stallMs`: who waits is told, who comes is told at once.
    await expect.poll(async () => codeOf(await both.raw(get("/", "acme.test", close))), { timeout: 3000 }).toBe("cell_down");
    const settled = await Promise.all(answers.map((answer) => Promise.race([answer, new Promise<string>((resolve) => setTimeout(() => resolve("with the cell"), 200))])));
    expect(settled.filter((answer) => answer === "with the cell")).toHaveLength(4);
    await both.close();
  });

  test("one tenant's share is bounded", async () => {
    const hung = await rawCell((socket) => void socket.resume());
    const shared = await testFleet({ cells: [hung], limits: { tenantInFlightMax: 2 } });
    const open = [shared.open(), shared.open()];
    for (const socket of open) socket.write(get());
    await expect.poll(() => hung.sockets.length).toBe(2);
    expect(codeOf(await shared.raw(get("/", "acme.test", close)))).toBe("tenant_busy");
    // Whoever leaves makes room, at the cell too.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    open[0]?.destroy();
    await expect.poll(() => hung.sockets.filter((socket) => !socket.destroyed).length).toBe(1);
    open[1]?.destroy();
    await shared.close();
  });
});

describe("D9: nobody holds a connection for nothing", () => {
  const limits = { headMs: 200, idleMs: 300, progressMs: 300 };
  test("a head, a body, an answer, an idle client: each has its time", async () => {
    const hung = await rawCell(() => undefined);
    const slow = await testFleet({ cells: [hung], limits });
    const timed = async (request: string): Promise<[number, string, number]> => {
      const start = performance.now();
      const answer = await slow.raw(request);
      return [statusOf(answer), answer.includes("{") ? String(codeOf(answer)) : answer, performance.now() - start];
    };
    const [head, body, cell, idle] = await Promise.all([timed("GET / HTTP/1.1\r\nHost: ac"), timed("POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 10\r\n\r\nabc"), timed(get()), timed("")]);
    expect(head?.slice(0, 2)).toEqual([408, "head_timeout"]);
    expect(body?.slice(0, 2)).toEqual([408, "body_timeout"]);
    expect(cell?.slice(0, 2)).toEqual([504, "cell_timeout"]);
    expect(idle?.slice(0, 2)).toEqual([0, ""]);
    for (const [, , ms] of [head, body, cell, idle]) expect(ms).toBeLessThan(2500);
    await slow.close();
  });

  test("more connections than allowed are closed at once", async () => {
    const few = await testFleet({ cells: [await testCell("few", 1)], limits: { clientsMax: 2 } });
    const open = [few.open(), few.open()];
    await Promise.all(open.map((socket) => once(socket, "connect")));
    await expect.poll(async () => (await fetch(`http://127.0.0.1:${few.router.adminPort}/metrics`).then((r) => r.text())).includes("cellplane_router_clients 2")).toBe(true);
    expect(await few.raw(get())).toBe("");
    open.forEach((socket) => socket.destroy());
    await few.close();
  });
});

describe("D10: an upgraded connection is a tunnel", () => {
  test("WebSocket messages go both ways, and the close too", async () => {
    const cell = await testCell("ws", 1);
    const sockets = new WebSocketServer({ server: cell.server });
    const stamps: unknown[] = [];
    sockets.on("connection", (socket, request) => {
      stamps.push(request.headers["x-cellplane-tenant"]);
      socket.on("message", (message: Buffer) => socket.send(`echo ${message.toString()}`));
    });
    const fleet = await testFleet({ cells: [cell] });
    const socket = new WebSocket(`ws://127.0.0.1:${fleet.router.port}/live`, { headers: { host: "acme.test" } });
    await once(socket, "open");
    for (const text of ["one", "x".repeat(200_000)]) {
      socket.send(text);
      const [message] = (await once(socket, "message")) as [Buffer];
      expect(message.toString()).toBe(`echo ${text}`);
    }
    const metrics = await fetch(`http://127.0.0.1:${fleet.router.adminPort}/metrics`).then((r) => r.text());
    expect(metrics).toContain('cellplane_router_in_flight{cell="ws"} 1');
    expect(stamps).toEqual(["acme"]);
    socket.close();
    await once(socket, "close");
    sockets.close();
    await fleet.close();
  });

  test("an upgrade that the cell does not make is an ordinary answer", async () => {
    expect(await fleet.raw(get("/", "acme.test", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), "eu-1:GET:/:0")).toContain("HTTP/1.1 ");
  });
});

describe("D11: a router goes without breaking anything", () => {
  test("what is under way finishes, idle clients are let go, new ones are not taken", async () => {
    let answer: (() => void) | undefined;
    const cell = await testCell("draining", 1, (_, response) => {
      answer = () => response.end("finished");
      return true;
    });
    const fleet = await testFleet({ cells: [cell] });
    const idle = fleet.open();
    await once(idle, "connect");
    const busy = fleet.raw(get());
    await expect.poll(() => answer !== undefined).toBe(true);
    const closing = fleet.router.close();
    const ended = once(idle.resume(), "end");
    await expect(new Promise((resolve, reject) => fleet.open().on("connect", resolve).on("error", reject))).rejects.toThrow("ECONNREFUSED");
    await ended;
    idle.destroy();
    answer?.();
    expect(await busy).toMatch(/finished$/);
    await closing;
    await fleet.close();
  });
});
