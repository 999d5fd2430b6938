import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Body } from "./body.ts";
import { CellHead, ClientHead } from "./head.ts";

const read = (text: string): { head: ClientHead; end: number } => {
  const head = new ClientHead();
  const bytes = Buffer.from(text, "latin1");
  return { head, end: head.read(bytes, 0, bytes.length) };
};
const get = (...lines: string[]): string => `${["GET / HTTP/1.1", "Host: a.test", ...lines].join("\r\n")}\r\n\r\n`;

describe("D1: a head is read in one way or refused", () => {
  test.each<[string, string, number]>([
    ["lines that end in LF", "GET / HTTP/1.1\nHost: a.test\n\n", 400],
    ["one line that ends in LF", "GET / HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", 400],
    ["an empty line that is LF", "GET / HTTP/1.1\r\nHost: a.test\r\n\n", 400],
    ["a lone CR in a value", get("X: a\rb"), 400],
    ["a folded line", get("X: a", " b"), 400],
    ["a line folded with a tab", get("X: a", "\tb"), 400],
    ["a space before the colon", get("X : a"), 400],
    ["a line without a colon", get("X"), 400],
    ["an empty name", get(": a"), 400],
    ["NUL in a value", get("X: a\0b"), 400],
    ["NUL in a name", get("X\0: a"), 400],
    ["a non-ASCII name", get("X\u00e9: a"), 400],
    ["a space in the target", "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["two spaces after the method", "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["a tab after the method", "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["a non-ASCII target", "GET /\u00e9 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["a fragment", "GET /#x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["a small method", "get / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["no version", "GET /\r\nHost: a.test\r\n\r\n", 400],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
    ["HTTP/1.2", "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", 505],
    ["a version with more digits", "GET / HTTP/1.10\r\nHost: a.test\r\n\r\n", 400],
    ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
    ["two hosts", get("Host: a.test"), 400],
    ["a host with a slash", "GET / HTTP/1.1\r\nHost: a.test/b\r\n\r\n", 400],
    ["a host with a user", "GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n", 400],
    ["a host with a comma", "GET / HTTP/1.1\r\nHost: a.test,b.test\r\n\r\n", 400],
    ["a host with a space", "GET / HTTP/1.1\r\nHost: a.test b.test\r\n\r\n", 400],
    ["an encoded host", "GET / HTTP/1.1\r\nHost: %61.test\r\n\r\n", 400],
    ["a non-ASCII host", "GET / HTTP/1.1\r\nHost: \u0430.test\r\n\r\n".replace("\u0430", "\u00e0"), 400],
    ["a port that is none", "GET / HTTP/1.1\r\nHost: a.test:8o\r\n\r\n", 400],
    ["an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400],
    ["an absolute target for another host", "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["an absolute target with another port", "GET http://a.test:81/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["an absolute target with a user", "GET http://x@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["another scheme", "GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["a target that is no path", "GET a HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["* but for OPTIONS", "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
    ["CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405],
    ["TRACE", "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n", 405],
    ["CL.TE", get("Content-Length: 4", "Transfer-Encoding: chunked"), 400],
    ["TE.CL", get("Transfer-Encoding: chunked", "Content-Length: 4"), 400],
    ["two lengths", get("Content-Length: 4", "Content-Length: 5"), 400],
    ["two equal lengths", get("Content-Length: 4", "Content-Length: 4"), 400],
    ["a list of lengths", get("Content-Length: 4, 4"), 400],
    ["a signed length", get("Content-Length: +4"), 400],
    ["a negative length", get("Content-Length: -1"), 400],
    ["a hex length", get("Content-Length: 0x4"), 400],
    ["an empty length", get("Content-Length:"), 400],
    ["a length beyond all numbers", get("Content-Length: 99999999999999999999"), 400],
    ["another coding", get("Transfer-Encoding: gzip"), 501],
    ["chunked and another coding", get("Transfer-Encoding: gzip, chunked"), 501],
    ["chunked twice", get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400],
    ["chunked and identity", get("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 400],
    ["a vertical tab before chunked", get("Transfer-Encoding: \u000bchunked"), 400],
    ["chunked with something behind", get("Transfer-Encoding: chunked;x"), 501],
    ["xchunked", get("Transfer-Encoding: xchunked"), 501],
    ["chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", 400],
    ["another expectation", get("Expect: 200-ok"), 417],
    ["a long target", `GET /${"a".repeat(9000)} HTTP/1.1\r\nHost: a.test\r\n\r\n`, 414],
    ["too many fields", get(...Array.from({ length: 101 }, (_, i) => `X${i}: y`)), 431],
    ["a large head", get(`X: ${"a".repeat(17_000)}`), 431],
    ["a large head without an end", `GET / HTTP/1.1\r\nHost: a.test\r\nX: ${"a".repeat(17_000)}`, 431],
    ["two empty lines before a request", "\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400],
  ])("%s", (_, text, status) => expect(read(text).end).toBe(-status));

  test.each<[string, string]>([
    ["one empty line before it", `\r\n${get()}`],
    ["HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n"],
    ["an absolute target for the same host", "GET HTTP://A.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n"],
    ["an absolute target without a path", "GET http://a.test?q HTTP/1.1\r\nHost: a.test\r\n\r\n"],
    ["OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"],
    ["an address and a port", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"],
    ["an empty value", get("X:")],
    ["bytes beyond ASCII in a value", get("X: caf\u00e9")],
    ["chunked in capitals", get("Transfer-Encoding: CHUNKED")],
    ["an extension method", "VERSION-CONTROL / HTTP/1.1\r\nHost: a.test\r\n\r\n"],
  ])("takes %s", (_, text) => expect(read(text).end).toBe(text.length));

  test("byte by byte it is incomplete until its end, and then the same", () => {
    const text = get("X: y", "Content-Length: 3", "Connection: keep-alive");
    for (let length = 0; length < text.length; length++) expect(read(text.slice(0, length)).end).toBe(0);
    expect(read(text).end).toBe(text.length);
  });

  test("a head cut anywhere and continued with anything is never taken for shorter", () =>
    fc.assert(
      fc.property(fc.nat(60), fc.string({ unit: fc.constantFrom("\r", "\n", " ", ":", "a", "0", "\t", "\0"), maxLength: 8 }), (cut, noise) => {
        const text = get("Content-Length: 0").slice(0, cut) + noise;
        const { end } = read(text);
        expect(end).toBeLessThanOrEqual(text.length);
        // The only way to complete it is to write what was there.
        if (end > 0) expect(text.slice(0, end)).toMatch(/^(\r\n)?GET \/\S* HTTP\/1\.1\r\n(.+\r\n)+\r\n$/);
      }),
      { numRuns: 2000 },
    ));
});

describe("D2: only what the router says reaches a cell under the router's names", () => {
  const forwarded = (...lines: string[]): string => {
    const { head, end } = read(get(...lines));
    expect(end).toBeGreaterThan(0);
    return head.forwarded(head.targetStart);
  };

  test.each([
    "x-cellplane-tenant: evil", "X-Cellplane-Tenant: evil", "X-CELLPLANE-EPOCH: 9", "x_cellplane_tenant: evil", "X_Cellplane_Cell: evil", "x-cellplane_signature: evil", "x.cellplane.tenant: evil", "x-cellplane: evil",
    "x-forwarded-for: 1.2.3.4", "X-Forwarded-Host: evil", "x_forwarded_for: 1.2.3.4", "Forwarded: for=1.2.3.4",
    "Connection: keep-alive", "Keep-Alive: timeout=5", "Proxy-Connection: close", "TE: trailers", "Trailer: X", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__",
  ])("drops %s", (line) => expect(forwarded("A: 1", line, "B: 2")).toBe("GET / HTTP/1.1\r\nHost: a.test\r\nA: 1\r\nB: 2\r\n"));

  test.each(["x-cellplanes: fine", "x-cell: fine", "x-forwarder: fine", "x-request-id: abc", "cookie: a=b", "expect: 100-continue", "content-length: 0"])("passes %s", (line) =>
    expect(forwarded(line)).toBe(`GET / HTTP/1.1\r\nHost: a.test\r\n${line}\r\n`));

  test("drops what Connection names, but never Host, lengths or codings", () => {
    expect(forwarded("X-Secret: 1", "Connection: close, x-secret, host, content-length", "Content-Length: 3", "X: 2")).toBe("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX: 2\r\n");
    expect(forwarded("Connection: transfer-encoding", "Transfer-Encoding: chunked")).toContain("Transfer-Encoding: chunked");
  });

  test("whatever the spelling, a name that folds to ours does not pass", () =>
    fc.assert(
      fc.property(fc.constantFrom("tenant", "cell", "epoch", "signature"), fc.array(fc.constantFrom("-", "_"), { minLength: 2, maxLength: 2 }), fc.func(fc.boolean()), ([...suffix], [a = "-", b = "-"], upper) => {
        const name = [..."x", a, ..."cellplane", b, ...suffix].map((letter, i) => (upper(i) ? letter.toUpperCase() : letter)).join("");
        expect(forwarded(`${name}: evil`)).not.toContain("evil");
      }),
    ));

  test("an upgrade passes, except to HTTP/2", () => {
    expect(forwarded("Connection: Upgrade", "Upgrade: websocket")).toBe("GET / HTTP/1.1\r\nHost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
    expect(forwarded("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x")).toBe("GET / HTTP/1.1\r\nHost: a.test\r\n");
  });

  test("what a path rule strips is gone, and an absolute target becomes a path", () => {
    const stripped = read("GET /t/acme/orders?x=/t/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    expect(stripped.head.forwarded(stripped.head.targetStart + "/t/acme".length)).toBe("GET /orders?x=/t/ HTTP/1.1\r\nHost: a.test\r\n");
    const whole = read("GET /t/acme?x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    expect(whole.head.forwarded(whole.head.targetStart + "/t/acme".length)).toBe("GET /?x HTTP/1.1\r\nHost: a.test\r\n");
    const absolute = read("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    expect(absolute.head.forwarded(absolute.head.pathStart)).toBe("GET /x?y HTTP/1.1\r\nHost: a.test\r\n");
    const bare = read("GET http://a.test?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    expect(bare.head.forwarded(bare.head.pathStart)).toBe("GET /?y HTTP/1.1\r\nHost: a.test\r\n");
  });
});

describe("D4: a host is one tenant's or nobody's", () => {
  test("whatever stands in Host, the name that is looked up is ASCII in small letters and part of it", () =>
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 40 }), (host) => {
        const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
        const head = new ClientHead();
        if (head.read(bytes, 0, bytes.length) <= 0) return;
        const name = Buffer.from(head.host.subarray(0, head.hostLength)).toString("latin1");
        expect(name).toMatch(/^[a-z0-9._[\]:-]*$/);
        expect(host.trim().toLowerCase().startsWith(name)).toBe(true);
      }),
      { numRuns: 3000 },
    ));
});

describe("D1: a body ends where it says", () => {
  const chunks = (text: string, pieces: number[] = []): { body: Body; passed: string; end: number } => {
    const body = new Body();
    body.begin("chunked");
    const bytes = Buffer.from(text, "latin1");
    let passed = "";
    let at = 0;
    for (const size of [...pieces, bytes.length]) {
      const end = Math.min(bytes.length, at + size);
      const taken = body.take(bytes, at, end);
      passed += bytes.toString("latin1", at, body.passEnd) + (body.done && body.endsTrailers ? "\r\n" : "");
      at = taken;
      if (body.done || body.failed) break;
    }
    return { body, passed, end: at };
  };

  test.each(["x\r\n", "\r\n", "5\n", "5 \r\n", "-5\r\n", "0x5\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhelloX\r\n", "5\r\nhello\n0\r\n\r\n", "5;a\nb\r\n", "5;a\u0000\r\n", `5;${"a".repeat(300)}\r\n`, "1000000000000\r\n", "0\r\n\n", "0\r\nX: y\n\r\n", "0\r\n X: y\r\n\r\n", "5\rhello"])("refuses %j", (text) =>
    expect(chunks(text).body.failed).toBe(true));

  test("is passed on as it came, whatever the pieces", () =>
    fc.assert(
      fc.property(fc.array(fc.string({ unit: "binary", minLength: 1, maxLength: 30 }), { maxLength: 6 }), fc.array(fc.integer({ min: 1, max: 9 })), fc.string(), (parts, pieces, after) => {
        const text = `${parts.map((part) => `${Buffer.from(part, "latin1").length.toString(16)};ext\r\n${Buffer.from(part, "latin1").toString("latin1")}\r\n`).join("")}0\r\n\r\n`;
        const { body, passed, end } = chunks(text + after, pieces);
        expect([body.done, body.failed, passed, end]).toEqual([true, false, text, text.length]);
      }),
    ));

  test("trailers are dropped", () => {
    const text = "5\r\nhello\r\n0\r\nX-Cellplane-Tenant: evil\r\nY: z\r\n\r\nGET";
    for (const pieces of [[], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [13, 2, 5, 30]]) {
      const { body, passed, end } = chunks(text, pieces);
      expect([body.done, passed, end]).toEqual([true, "5\r\nhello\r\n0\r\n\r\n", text.length - 3]);
    }
  });
});

describe("D3: a cell's answer is read as strictly", () => {
  const answer = (text: string): number => new CellHead().read(Buffer.from(text, "latin1"), 0, text.length);
  test.each(["HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "200 OK HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"])("refuses %j", (text) =>
    expect(answer(text)).toBeLessThan(0));
  test.each(["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 200 \r\nA: b\r\n\r\n", "HTTP/1.1 200\r\nA: b\r\n\r\n", "HTTP/1.0 301 Moved\r\n\r\n"])("takes %j", (text) => expect(answer(text)).toBe(text.length));

  test("what is hop by hop stays with the router, and so does our name", () => {
    const head = new CellHead();
    const bytes = Buffer.from("HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=7\r\nX-Hop: 1\r\nx-cellplane-signature: s\r\nTrailer: X\r\nHost: fine\r\nSet-Cookie: a=b\r\n\r\n");
    expect(head.read(bytes, 0, bytes.length)).toBe(bytes.length);
    expect(head.forwarded()).toBe("HTTP/1.1 200 OK\r\nHost: fine\r\nSet-Cookie: a=b\r\n");
    expect(head.keepAliveSeconds).toBe(7);
  });
});
