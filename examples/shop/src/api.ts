import type { IncomingMessage, ServerResponse } from "node:http";
import type { Guard, TenantContext } from "@cellplane/sdk";
import { accountNameOf, itemsOf, newOrderOf, operationIdOf, ShopError } from "./model.ts";
import { page } from "./page.ts";
import { OutcomeUnknown, type Shop } from "./store.ts";

/** What experiments and chaos runs may turn at any time, in the cell's configuration. */
export interface ShopConfig {
  /** Shown on the page. */
  banner: string;
  /** Waited before each request is handled. */
  latencyMs: number;
  /** Share of requests that fail with 500 before they have any effect, from 0 to 1. */
  errorRate: number;
}

export interface ShopApi {
  shop: Shop;
  guard: Pick<Guard, "mapError">;
  config: () => ShopConfig;
  /** The tenant of the request being handled. */
  tenant: () => TenantContext;
  region: string;
  version: string;
  /** True from the moment the process is asked to stop. */
  closing: () => boolean;
}

interface Request {
  tenant: string;
  /** The number in the path; NaN where the route has none. */
  id: number;
  query: URLSearchParams;
  /** Of a write; empty where it is missing. */
  operationId: () => string;
  body: () => Promise<Record<string, unknown>>;
}

type Handle = (request: Request, api: ShopApi) => Promise<unknown>;

const bodyBytesMax = 64 * 1024;

const routes: Record<string, Handle> = {
  "POST /accounts": async ({ tenant, operationId, body }, { shop }) => shop.openAccount(tenant, operationId(), accountNameOf(await body())),
  "POST /orders": async ({ tenant, operationId, body }, { shop }) => shop.placeOrder(tenant, operationId(), newOrderOf(await body())),
  "PATCH /orders/:id": async ({ tenant, operationId, id, body }, { shop }) => shop.amendOrder(tenant, operationId(), id, itemsOf(await body())),
  "POST /orders/:id/pay": ({ tenant, operationId, id }, { shop }) => shop.payOrder(tenant, operationId(), id),
  "DELETE /orders/:id": ({ tenant, operationId, id }, { shop }) => shop.cancelOrder(tenant, operationId(), id),
  "GET /orders": async ({ tenant, query }, { shop }) => ({ items: await shop.orders(tenant, limitOf(query, 100)) }),
  "GET /balance": async ({ tenant }, { shop }) => ({ accounts: await shop.accounts(tenant) }),
  "GET /events": async ({ tenant, query }, { shop }) => ({ items: await shop.events(tenant, Number(query.get("after")) || 0, limitOf(query, 1000)) }),
  "GET /operations": async ({ tenant, query }, { shop }) => ({ items: await shop.operations(tenant, query.get("after") ?? "", limitOf(query, 5000)) }),
  "GET /audit": ({ tenant }, { shop }) => shop.audit(tenant),
};

/** The shop over HTTP. Every answer but the page is JSON, and every failure a problem document. */
export function shopApi(api: ShopApi): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  const { guard, config, closing, shop, version } = api;

  return async (request, response) => {
    const reply = (status: number, body: unknown, headers: Record<string, string> = {}): void => {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      // A router's pooled connection ends with its answer while the process is stopping, and not between two requests.
      if (closing()) response.setHeader("connection", "close");
      response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", "x-shop-version": version, "content-length": Buffer.byteLength(text), ...headers }).end(text);
    };
    const problem = (status: number, code: string, detail: string, headers: Record<string, string> = {}): void =>
      reply(status, { type: `urn:shop:error:${code}`, title: code.replaceAll("_", " "), status, detail, code }, { "content-type": "application/problem+json", ...headers });

    try {
      const [path = "/", search = ""] = (request.url ?? "/").split("?", 2);
      if (path === "/ready") {
        await shop.ping();
        return closing() ? problem(503, "closing", "the process is stopping") : reply(200, { ready: true, version });
      }
      const { latencyMs, errorRate } = config();
      if (latencyMs > 0) await new Promise((resolve) => setTimeout(resolve, latencyMs));
      if (errorRate > 0 && Math.random() < errorRate) return problem(500, "injected", "this failure was asked for by the configuration");

      if (request.method === "GET" && path === "/") {
        const { tenant, cell, epoch } = api.tenant();
        const [orders, accounts] = await Promise.all([shop.orders(tenant, 10), shop.accounts(tenant)]);
        return reply(200, page({ tenant, cell, epoch, region: api.region, version, banner: config().banner, orders, accounts }), { "content-type": "text/html; charset=utf-8" });
      }
      const id = /^\/orders\/(\d{1,15})(?=\/|$)/.exec(path)?.[1];
      const handle = routes[`${request.method} ${id === undefined ? path : path.replace(id, ":id")}`];
      if (!handle) return problem(404, "not_found", `there is no ${request.method} ${path}`);
      const result = await handle(
        {
          tenant: api.tenant().tenant,
          id: Number(id),
          query: new URLSearchParams(search),
          operationId: () => operationIdOf(request.headers["idempotency-key"]),
          body: () => readBody(request),
        },
        api,
      );
      return reply(request.method === "GET" || (result as { replayed: boolean }).replayed ? 200 : 201, result);
    } catch (error) {
      if (error instanceof ShopError) return problem(error.status, error.code, error.message);
      // Somebody may have written it, so nobody may be told to try again.
      if (error instanceof OutcomeUnknown) return problem(500, "outcome_unknown", error.message);
      const refusal = guard.mapError(error);
      if (refusal) return reply(refusal.status, refusal.body, refusal.headers);
      console.error(`${request.method} ${request.url}: ${(error as Error).message}`);
      // Every write is one transaction and its commit was not reached: nothing of it was applied.
      return problem(503, "not_applied", (error as Error).message, { "retry-after": "1" });
    }
  };
}

function limitOf(query: URLSearchParams, max: number): number {
  const limit = Number(query.get("limit") ?? max);
  return Number.isInteger(limit) && limit >= 1 ? Math.min(limit, max) : max;
}

async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) throw new ShopError(413, "too_large", `a body has at most ${bodyBytesMax} bytes`);
    chunks.push(chunk);
  }
  let body: unknown;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw new ShopError(400, "invalid_input", "the body is not JSON");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw new ShopError(400, "invalid_input", "the body is not a JSON object");
  return body as Record<string, unknown>;
}
