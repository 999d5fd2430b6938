import type { IncomingMessage, ServerResponse } from "node:http";
import type { Gate } from "../admission.ts";
import { asTenant } from "../tenant.ts";
import { headersOf, sendRefusal } from "./node.ts";

/** Express keeps the whole target here when a middleware is mounted below a path. */
type Request = IncomingMessage & { originalUrl?: string };
type Next = (error?: unknown) => void;

/** `app.use(guard.connect())`, before everything that has an effect. */
export const guardConnect =
  (gate: Gate) =>
  () =>
  (request: Request, response: ServerResponse, next: Next): void => {
    const admission = gate.admit(request.originalUrl ?? request.url ?? "", headersOf(request));
    if (admission.refusal) sendRefusal(response, admission.refusal);
    else asTenant(admission.tenant, next);
  };

/** `app.use(guard.connectErrors())`, after the routes and before other error handlers: answers 421 where the database's fence refused. */
export const guardConnectErrors =
  (gate: Gate) =>
  () =>
  (error: unknown, _request: Request, response: ServerResponse, next: Next): void => {
    const refusal = response.headersSent ? null : gate.mapError(error);
    if (refusal) sendRefusal(response, refusal);
    else next(error);
  };
