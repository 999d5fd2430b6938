import type { IncomingMessage } from "node:http";
import type { Gate } from "../admission.ts";
import type { Refusal } from "../refusal.ts";
import { asTenant } from "../tenant.ts";
import { headersOf } from "./node.ts";

// The few shapes of Fastify (4 and 5) that are used here, so that the SDK needs no dependency.
interface Request {
  raw: IncomingMessage;
}
interface Reply {
  code(status: number): Reply;
  headers(values: Record<string, string>): Reply;
  send(payload: string): unknown;
}
type Done = (error?: Error | null, payload?: unknown) => void;
interface Hook {
  (name: "onRequest", hook: (request: Request, reply: Reply, done: Done) => void): void;
  (name: "onError", hook: (request: Request, reply: Reply, error: Error, done: () => void) => void): void;
  (name: "onSend", hook: (request: Request, reply: Reply, payload: unknown, done: Done) => void): void;
}
/** Fastify's own types of a hook are generic in the whole app: `never` fits every app, and `Hook` says what is passed. */
interface Fastify {
  addHook(name: never, hook: never): unknown;
}

/** `app.register(guard.fastify)`, before other plugins. */
export function guardFastify(gate: Gate): (app: Fastify) => Promise<void> {
  const plugin = async (app: Fastify): Promise<void> => {
    const hook: Hook = (name: string, run: unknown) => void app.addHook(name as never, run as never);
    const refusals = new WeakMap<Request, Refusal>();

    hook("onRequest", (request, reply, done) => {
      // Fastify itself carries the context past the reading of the body.
      const admission = gate.admit(request.raw.url ?? "", headersOf(request.raw));
      if (admission.refusal) {
        const { status, headers, body } = admission.refusal;
        reply.code(status).headers(headers).send(body);
        return;
      }
      asTenant(admission.tenant, done);
    });
    // The app's own error handler runs between these two; a fence's refusal wins over whatever it would say.
    hook("onError", (request, _reply, error, done) => {
      const refusal = gate.mapError(error);
      if (refusal) refusals.set(request, refusal);
      done();
    });
    hook("onSend", (request, reply, payload, done) => {
      const refusal = refusals.get(request);
      if (refusal) reply.code(refusal.status).headers(refusal.headers);
      done(null, refusal ? refusal.body : payload);
    });
  };
  // Fastify's documented mark for a plugin whose hooks are meant for the whole app, not for a scope of its own.
  return Object.assign(plugin, { [Symbol.for("skip-override")]: true, [Symbol.for("fastify.display-name")]: "cellplane-guard" });
}
