import { Agent, type IncomingHttpHeaders, request as httpRequest } from "node:http";
import { type Addressing, address, type Answer } from "./model.ts";

export interface Request {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
  /** Of a write. */
  operationId?: string;
  body?: unknown;
}

export interface Client {
  /** Sends once, whatever happens; never throws. `body` is the answer's JSON, null when it has none. */
  send(tenant: string, request: Request): Promise<Answer & { body: unknown }>;
  close(): void;
}

export interface ClientOptions {
  /** Of the router, as in http://127.0.0.1:8080 */
  target: string;
  addressing: Addressing;
  timeoutMs: number;
  connectionsMax: number;
}

/** How long a connection may lie idle: shorter than any server keeps it, so that a request never meets one just being closed. */
const idleMs = 2000;

/** Errors that come before a single byte was sent. */
const refusedCodes = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND", "EAI_AGAIN", "EADDRNOTAVAIL"]);

export function openClient({ target, addressing, timeoutMs, connectionsMax }: ClientOptions): Client {
  const { hostname, port } = new URL(target);
  const agent = new Agent({ keepAlive: true, maxSockets: connectionsMax, maxFreeSockets: 64, timeout: idleMs });

  return {
    send(tenant, { method, path, operationId, body }) {
      const { path: addressed, headers } = address(addressing, tenant, path);
      const text = body === undefined ? undefined : JSON.stringify(body);
      return new Promise((resolve) => {
        const done = (status: Answer["status"], answered: IncomingHttpHeaders = {}, body: unknown = null): void => {
          clearTimeout(deadline);
          resolve({ status, retryAfterSeconds: answered["retry-after"] === undefined ? null : Number(answered["retry-after"]) || 0, body });
        };
        const request = httpRequest({
          agent, hostname, port, method, path: addressed,
          headers: {
            ...headers,
            ...(operationId !== undefined && { "idempotency-key": operationId }),
            ...(text !== undefined ? { "content-type": "application/json", "content-length": Buffer.byteLength(text) } : method !== "GET" && { "content-length": 0 }),
          },
        });
        let late = false;
        const deadline = setTimeout(() => {
          late = true;
          request.destroy();
        }, timeoutMs);
        request.on("error", (error: NodeJS.ErrnoException) => done(late ? "timeout" : refusedCodes.has(error.code ?? "") ? "refused" : "reset"));
        request.on("response", (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          // Half an answer proves nothing, even if it began with 200.
          response.on("error", () => done(late ? "timeout" : "reset"));
          response.on("end", () => done(response.statusCode ?? "reset", response.headers, jsonOf(Buffer.concat(chunks))));
        });
        request.end(text);
      });
    },
    close: () => agent.destroy(),
  };
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}
