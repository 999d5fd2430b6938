import { once } from "node:events";
import { Agent, createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { signStamp } from "@cellplane/sdk";
import { secret } from "./shop.ts";

/** What goes wrong with one request. "lose": it is applied and its answer is not delivered · "twice": it is sent on two times · "lie": it is applied and said not to be */
type Mischief = "none" | "lose" | "twice" | "lie" | "refuse" | "unavailable";

export interface TestRouter {
  url: string;
  /** How often each operation id arrived. */
  arrived: Map<string, number>;
  requests: number;
  stop(): Promise<void>;
}

interface RouterOptions {
  /** The shop's port, asked for each request. */
  port: () => number;
  cell?: string;
  mischief?: (request: IncomingMessage, tenant: string) => Mischief;
  /** The tenant a request is stamped for; default: the header x-tenant. */
  tenantOf?: (named: string, request: IncomingMessage) => string;
}

/** Stamps requests by their x-tenant header and sends them on, with faults by choice. Not a router: a device to break things with. */
export async function startRouter({ port, cell = "eu-1", mischief = () => "none", tenantOf = (named) => named }: RouterOptions): Promise<TestRouter> {
  const agent = new Agent({ keepAlive: true });
  const arrived = new Map<string, number>();

  function forward(request: IncomingMessage, tenant: string, body: Buffer): Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }> {
    return new Promise((resolve, reject) => {
      const onward = httpRequest({
        agent, port: port(), host: "127.0.0.1", method: request.method, path: request.url,
        headers: {
          ...request.headers,
          "x-cellplane-tenant": tenant, "x-cellplane-cell": cell, "x-cellplane-epoch": "1", "x-cellplane-signature": signStamp(secret, { tenant, cell, epoch: 1 }),
        },
      });
      onward.on("error", reject);
      onward.on("response", async (response) => {
        const chunks: Buffer[] = [];
        try {
          for await (const chunk of response) chunks.push(chunk as Buffer);
          resolve({ status: response.statusCode ?? 500, headers: response.headers, body: Buffer.concat(chunks) });
        } catch (error) {
          reject(error as Error);
        }
      });
      onward.end(body);
    });
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const tenant = tenantOf(String(request.headers["x-tenant"]), request);
    const operation = request.headers["idempotency-key"];
    router.requests++;
    if (typeof operation === "string") arrived.set(operation, (arrived.get(operation) ?? 0) + 1);

    const what = mischief(request, tenant);
    if (what === "refuse") return void request.socket.destroy();
    if (what === "unavailable") return void response.writeHead(503, { "retry-after": "0" }).end();
    try {
      const answer = await forward(request, tenant, body);
      if (what === "twice") await forward(request, tenant, body);
      if (what === "lose") return void request.socket.destroy();
      if (what === "lie") return void response.writeHead(409).end("{}");
      response.writeHead(answer.status, answer.headers as Record<string, string>).end(answer.body);
    } catch (error) {
      const refused = (error as NodeJS.ErrnoException).code === "ECONNREFUSED";
      response.writeHead(refused ? 503 : 502, refused ? { "retry-after": "0" } : {}).end();
    }
  }

  const server = createServer((request, response) => void handle(request, response).catch(() => response.destroy())).listen(0, "127.0.0.1");
  await once(server, "listening");
  const router: TestRouter = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrived,
    requests: 0,
    async stop() {
      server.close().closeAllConnections();
      agent.destroy();
    },
  };
  return router;
}
