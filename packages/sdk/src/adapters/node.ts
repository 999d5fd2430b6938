import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Gate } from "../admission.ts";
import type { Refusal } from "../refusal.ts";
import type { ReadHeader } from "../stamp.ts";
import { asTenant } from "../tenant.ts";

/** Repeated headers arrive joined by commas, which no stamp contains, so they are refused as malformed or forged. */
export const headersOf =
  (request: IncomingMessage): ReadHeader =>
  (name) =>
    request.headers[name] as string | undefined;

export function sendRefusal(response: ServerResponse, { status, headers, body }: Refusal): void {
  response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
}

type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;

/** Wraps the listener of `http.createServer`. When the promise of an async handler fails by the database's fence, it answers 421. */
export const guardHttp =
  (gate: Gate) =>
  (handle: Handler): ((request: IncomingMessage, response: ServerResponse) => unknown) =>
  (request, response) => {
    const admission = gate.admit(request.url ?? "", headersOf(request));
    if (admission.refusal) return sendRefusal(response, admission.refusal);
    return asTenant(admission.tenant, async () => {
      try {
        await handle(request, response);
      } catch (error) {
        const refusal = response.headersSent ? null : gate.mapError(error);
        if (!refusal) throw error;
        sendRefusal(response, refusal);
      }
    });
  };

type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer) => unknown;

/** Wraps a listener of the server's `upgrade` event: WebSockets do not pass through its request listener. */
export const guardUpgrade =
  (gate: Gate) =>
  (handle: UpgradeHandler): ((request: IncomingMessage, socket: Duplex, head: Buffer) => unknown) =>
  (request, socket, head) => {
    const admission = gate.admit(request.url ?? "", headersOf(request));
    if (!admission.refusal) return asTenant(admission.tenant, () => handle(request, socket, head));
    const { status, headers, body } = admission.refusal;
    const lines = Object.entries({ ...headers, "content-length": Buffer.byteLength(body), connection: "close" }).map(([name, value]) => `${name}: ${value}\r\n`);
    return socket.end(`HTTP/1.1 ${status} Refused\r\n${lines.join("")}\r\n${body}`);
  };
