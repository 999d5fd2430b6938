import { once } from "node:events";
import { createServer, request as httpRequest, type RequestListener } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { setImmediate as turn, setTimeout as pause } from "node:timers/promises";
import express from "express";
import * as fc from "fast-check";
import fastify from "fastify";
import { Hono } from "hono";
import { getRequestListener } from "@hono/node-server";
import { afterEach, describe, expect, test } from "vitest";
import { createGuard, currentTenant, type Guard, type Refusal, signStamp, type Stamp } from "./index.ts";

const secret = "a fleet's stamp secret";
const cell = "eu-1";

const stamped = (stamp: Partial<Stamp> = {}, by = secret): Record<string, string> => {
  const full = { tenant: "acme", cell, epoch: 3, ...stamp };
  return { "x-cellplane-tenant": full.tenant, "x-cellplane-cell": full.cell, "x-cellplane-epoch": String(full.epoch), "x-cellplane-signature": signStamp(by, full) };
};
const reader = (headers: Record<string, string>) => (name: string) => headers[name];
const codeOf = (guard: Guard, headers: Record<string, string>, path = "/orders") => guard.admit(path, reader(headers)).refusal?.code ?? "admitted";

describe("the gate", () => {
  test("G1: a request for another cell is misdirected", () => {
    const guard = createGuard({ cell, secret });
    const { refusal } = guard.admit("/orders", reader(stamped({ cell: "eu-2" })));
    expect(refusal).toMatchObject({ code: "misdirected", status: 421, stamp: { tenant: "acme", cell: "eu-2", epoch: 3 } });
    expect(JSON.parse(refusal?.body ?? "")).toMatchObject({ status: 421, code: "misdirected", retry: "same", data: { tenant: "acme", cell: "eu-2", here: "eu-1" } });
  });

  test("G2: an epoch below the highest seen is stale, for each tenant apart", () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom("acme", "globex", "initech"), fc.integer({ min: 1, max: 9 })), { maxLength: 60 }), (requests) => {
        const guard = createGuard({ cell, secret });
        const highest = new Map<string, number>();
        for (const [tenant, epoch] of requests) {
          const seen = highest.get(tenant) ?? 0;
          expect(codeOf(guard, stamped({ tenant, epoch }))).toBe(epoch < seen ? "route_stale" : "admitted");
          highest.set(tenant, Math.max(seen, epoch));
        }
      }),
    ));

  test("G2: an epoch below what the cell knows from elsewhere is stale", () => {
    const guard = createGuard({ cell, secret, epochOf: (tenant) => (tenant === "acme" ? 4 : undefined) });
    expect(codeOf(guard, stamped({ epoch: 3 }))).toBe("route_stale");
    expect(codeOf(guard, stamped({ epoch: 4 }))).toBe("admitted");
    expect(codeOf(guard, stamped({ tenant: "globex", epoch: 1 }))).toBe("admitted");
  });

  test("G3: no stamp is 400, half a stamp is 400, a foreign signature is 403", () => {
    const guard = createGuard({ cell, secret });
    expect(guard.admit("/", reader({})).refusal).toMatchObject({ status: 400, code: "unstamped" });
    for (const missing of Object.keys(stamped())) {
      const { [missing]: _, ...rest } = stamped();
      expect(guard.admit("/", reader(rest)).refusal).toMatchObject({ status: 400, code: "stamp_malformed" });
    }
    expect(guard.admit("/", reader(stamped({}, "another secret"))).refusal).toMatchObject({ status: 403, code: "stamp_forged", stamp: null });
  });

  test("G3: changing any character of a stamp makes it forged or broken, also once the true one is known", () => {
    const guard = createGuard({ cell, secret });
    const good = stamped();
    expect(codeOf(guard, good)).toBe("admitted");
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(good)), fc.nat(), fc.constantFrom(..."0123456789abcdefz-,. \n"), (name, at, character) => {
        const value = good[name] ?? "";
        const index = at % (value.length + 1);
        const changed = value.slice(0, index) + character + value.slice(index + 1);
        fc.pre(changed !== value);
        expect(["stamp_forged", "stamp_malformed"]).toContain(codeOf(guard, { ...good, [name]: changed }));
      }),
      { numRuns: 500 },
    );
  });

  test("G3: fields cannot be shifted into each other under one signature", () => {
    const guard = createGuard({ cell, secret });
    const signature = signStamp(secret, { tenant: "a\nb", cell, epoch: 1 });
    const shifted = { "x-cellplane-tenant": "a", "x-cellplane-cell": `b\n${cell}`, "x-cellplane-epoch": "1", "x-cellplane-signature": signature };
    // The payload is the same text: it is only refused because no cell has such a name, and HTTP has no such header.
    expect(codeOf(guard, shifted)).toBe("misdirected");
  });

  test("G3: a signed epoch that is no whole number from 1 up is broken", () => {
    const guard = createGuard({ cell, secret });
    for (const epoch of [0, -1, 1.5, NaN, Infinity, 1e21]) expect(codeOf(guard, stamped({ epoch }))).toBe("stamp_malformed");
  });

  test("G3: unstamped requests are let through where that is asked for, broken and forged ones are not", () => {
    const guard = createGuard({ cell, secret, unstamped: "allow" });
    expect(guard.admit("/", reader({}))).toEqual({ tenant: undefined });
    expect(codeOf(guard, { "x-cellplane-tenant": "acme" })).toBe("stamp_malformed");
    expect(codeOf(guard, stamped({}, "another secret"))).toBe("stamp_forged");
  });

  test("G3: while one secret replaces another both are good", () => {
    const guard = createGuard({ cell, secret: ["new", "old"] });
    for (const by of ["old", "new", "old"]) expect(codeOf(guard, stamped({}, by))).toBe("admitted");
    expect(codeOf(guard, stamped({}, "older"))).toBe("stamp_forged");
  });

  test("G4: forged and misdirected epochs are not remembered", () => {
    const guard = createGuard({ cell, secret });
    codeOf(guard, stamped({ epoch: 9 }, "another secret"));
    codeOf(guard, stamped({ epoch: 9, cell: "eu-2" }));
    expect(codeOf(guard, stamped({ epoch: 3 }))).toBe("admitted");
  });

  test("G6: the fence's error is found among the causes, others are left alone", () => {
    const refusals: Refusal[] = [];
    const guard = createGuard({ cell, secret, onRefuse: (refusal) => refusals.push(refusal) });
    const fenced = Object.assign(new Error("fenced"), { code: "CP001" });
    expect(guard.mapError(new Error("query failed", { cause: new Error("driver", { cause: fenced }) }))).toMatchObject({ status: 421, code: "route_stale" });
    for (const other of [new Error("plain"), Object.assign(new Error("unique"), { code: "23505" }), "CP001", null, undefined]) expect(guard.mapError(other)).toBeNull();
    const circle = new Error("circle");
    circle.cause = circle;
    expect(guard.mapError(circle)).toBeNull();
    expect(refusals).toHaveLength(1);
  });

  test("G7: health paths need no stamp and only they", () => {
    const guard = createGuard({ cell, secret, healthPaths: ["/ready"] });
    for (const path of ["/ready", "/ready?verbose"]) expect(guard.admit(path, reader({}))).toEqual({ tenant: undefined });
    for (const path of ["/ready/", "//ready", "/ready/../orders", "/READY", "/health", "http://x/ready", "", "/%72eady"]) expect(codeOf(guard, {}, path)).toBe("unstamped");
  });

  test("G8: what is remembered is bounded, and tenants still in use are served", () => {
    const guard = createGuard({ cell, secret, tenantsMax: 3 });
    for (let i = 0; i < 50; i++) expect(codeOf(guard, stamped({ tenant: `tenant-${i}`, epoch: 2 }))).toBe("admitted");
    // The newest three are known, the first one has been forgotten: its old epoch is the database fence's business.
    expect(codeOf(guard, stamped({ tenant: "tenant-49", epoch: 1 }))).toBe("route_stale");
    expect(codeOf(guard, stamped({ tenant: "tenant-0", epoch: 1 }))).toBe("admitted");
  });

  test("an empty cell or secret is a mistake of the caller", () => {
    expect(() => createGuard({ cell: "", secret })).toThrow(/cell/);
    for (const empty of ["", [], [""]]) expect(() => createGuard({ cell, secret: empty })).toThrow(/secret/);
  });
});

interface App {
  listener: RequestListener;
  /** Called with the tenant by each handler that runs. */
  handled: string[];
}
const fenced = () => Object.assign(new Error("fenced"), { code: "CP001" });

/** The same small app on each framework: POST /echo answers with the tenant and the body's length, POST /fenced fails by the fence, POST /broken otherwise. */
const frameworks: Record<string, (guard: Guard) => Promise<App>> = {
  "node:http": async (guard) => {
    const handled: string[] = [];
    const listener = guard.http(async (request, response) => {
      handled.push(currentTenant()?.tenant ?? "nobody");
      let length = 0;
      for await (const chunk of request) length += (chunk as Buffer).length;
      if (request.url === "/fenced") throw fenced();
      await turn();
      response.end(JSON.stringify({ ...currentTenant(), length }));
    });
    return { listener, handled };
  },
  express: async (guard) => {
    const handled: string[] = [];
    const app = express();
    app.use(guard.connect(), express.text());
    app.get("/ready", (_request, response) => void response.json({}));
    app.post("/echo", async (request, response) => {
      handled.push(currentTenant()?.tenant ?? "nobody");
      await turn();
      response.json({ ...currentTenant(), length: (request.body as string).length });
    });
    app.post("/fenced", async () => {
      throw fenced();
    });
    app.post("/broken", async () => {
      throw new Error("broken");
    });
    app.use(guard.connectErrors());
    app.use((_error: unknown, _request: express.Request, response: express.Response, _next: express.NextFunction) => void response.status(500).json({ code: "own" }));
    return { listener: app, handled };
  },
  fastify: async (guard) => {
    const handled: string[] = [];
    const app = fastify();
    await app.register(guard.fastify);
    app.get("/ready", () => ({}));
    app.post("/echo", async (request) => {
      handled.push(currentTenant()?.tenant ?? "nobody");
      await turn();
      return { ...currentTenant(), length: (request.body as string).length };
    });
    app.post("/fenced", async () => {
      throw fenced();
    });
    app.post("/broken", async () => {
      throw new Error("broken");
    });
    app.setErrorHandler((_error, _request, reply) => reply.code(500).send({ code: "own" }));
    await app.ready();
    return { listener: (request, response) => app.routing(request, response), handled };
  },
  hono: async (guard) => {
    const handled: string[] = [];
    const app = new Hono();
    app.use(guard.hono());
    app.get("/ready", (context) => context.json({}));
    app.post("/echo", async (context) => {
      handled.push(currentTenant()?.tenant ?? "nobody");
      const body = await context.req.text();
      await turn();
      return context.json({ ...currentTenant(), length: body.length });
    });
    app.post("/fenced", () => {
      throw fenced();
    });
    app.post("/broken", () => {
      throw new Error("broken");
    });
    app.onError((_error, context) => context.json({ code: "own" }, 500));
    return { listener: getRequestListener(app.fetch), handled };
  },
};

const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

async function serve(listener: RequestListener): Promise<{ port: number; server: ReturnType<typeof createServer> }> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  closing.push(() => server.close().closeAllConnections());
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, server };
}

/** The body's last byte follows after a moment, so that it does not arrive with the head. */
async function send(port: number, path: string, headers: Record<string, string>, body?: string): Promise<{ status: number; type: string; body: Record<string, unknown> }> {
  const request = httpRequest({ port, path, method: body === undefined ? "GET" : "POST", headers: { ...headers, ...(body !== undefined && { "content-type": "text/plain" }) } });
  const answered = once(request, "response");
  if (body) {
    request.write(body.slice(1));
    await pause(5);
  }
  request.end(body?.slice(0, 1));
  const [response] = await answered;
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, type: response.headers["content-type"] ?? "", body: text === "" ? {} : (JSON.parse(text) as Record<string, unknown>) };
}

describe.each(Object.keys(frameworks))("on %s", (name) => {
  const start = async (guard = createGuard({ cell, secret })) => {
    const app = await (frameworks[name] as (typeof frameworks)[string])(guard);
    return { ...app, ...(await serve(app.listener)) };
  };

  test("G1–G4: what is refused never reaches a handler", async () => {
    const refusals: string[] = [];
    const { port, handled } = await start(createGuard({ cell, secret, onRefuse: (refusal) => refusals.push(refusal.code) }));
    expect(await send(port, "/echo", stamped(), "12345")).toMatchObject({ status: 200, body: { tenant: "acme", cell, epoch: 3, length: 5 } });
    const refused = [
      [stamped({ cell: "eu-2" }), 421, "misdirected"],
      [stamped({ epoch: 2 }), 421, "route_stale"],
      [{}, 400, "unstamped"],
      [{ "x-cellplane-tenant": "acme" }, 400, "stamp_malformed"],
      [stamped({}, "another secret"), 403, "stamp_forged"],
    ] as const;
    for (const [headers, status, code] of refused) {
      expect(await send(port, "/echo", headers, "12345")).toMatchObject({ status, type: expect.stringContaining("application/problem+json"), body: { status, code } });
    }
    expect(handled).toEqual(["acme"]);
    expect(refusals).toEqual(refused.map(([, , code]) => code));
  });

  test("G5: each of many requests at once sees its own tenant, after its body and its awaits too", async () => {
    const { port } = await start();
    const answers = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const tenant = `tenant-${i}`;
        const { body } = await send(port, "/echo", stamped({ tenant, epoch: i + 1 }), "x".repeat(i * 1500));
        return body["tenant"] === tenant && body["epoch"] === i + 1 && body["length"] === i * 1500;
      }),
    );
    expect(answers).toEqual(answers.map(() => true));
    expect(currentTenant()).toBeUndefined();
  });

  test("G6: the fence's refusal becomes 421, before the app's own error handler", async () => {
    const { port } = await start();
    expect(await send(port, "/fenced", stamped(), "x")).toMatchObject({ status: 421, type: expect.stringContaining("problem+json"), body: { code: "route_stale", data: { tenant: "acme" } } });
  });

  test.skipIf(name === "node:http")("G6: other errors are the app's", async () => {
    const { port } = await start();
    expect(await send(port, "/broken", stamped(), "x")).toMatchObject({ status: 500, body: { code: "own" } });
  });

  test("G7: the health path is served without a stamp", async () => {
    const { port } = await start();
    expect((await send(port, "/ready", {})).status).toBe(200);
  });
});

test("G1: an upgrade for another cell is refused on the socket, and one for this cell goes through", async () => {
  const guard = createGuard({ cell, secret });
  const { port, server } = await serve(() => undefined);
  server.on(
    "upgrade",
    guard.upgrade((_request, socket) => socket.end(`HTTP/1.1 101 Switching Protocols\r\n\r\nhello ${currentTenant()?.tenant}`)),
  );
  const upgrade = async (headers: Record<string, string>): Promise<string> => {
    const socket = connect(port, "127.0.0.1");
    const lines = Object.entries({ host: "x", connection: "Upgrade", upgrade: "websocket", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`GET / HTTP/1.1\r\n${lines.join("")}\r\n`);
    let text = "";
    for await (const chunk of socket) text += String(chunk);
    return text;
  };
  expect(await upgrade(stamped())).toContain("hello acme");
  expect(await upgrade(stamped({ cell: "eu-2" }))).toMatch(/^HTTP\/1\.1 421 .*misdirected/s);
});

test("G3: a stamp header sent twice is refused", async () => {
  const guard = createGuard({ cell, secret });
  const { port } = await serve(guard.http((_request, response) => void response.end("{}")));
  const socket = connect(port, "127.0.0.1");
  const lines = Object.entries(stamped()).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${lines.join("")}x-cellplane-tenant: globex\r\n\r\n`);
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  expect(text).toMatch(/^HTTP\/1\.1 403 .*stamp_forged/s);
});
