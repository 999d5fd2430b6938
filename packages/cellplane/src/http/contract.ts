import { z } from "zod";
import type { Tx } from "../store/model.ts";

/** Each role may do what the ones before it may; "public" needs no token. */
const roleLadder = ["public", "viewer", "operator", "admin"] as const;
/** "router" stands apart: what a data-plane process holds, good for the route feed and its acknowledgements only. */
export const roles = [...roleLadder, "router"] as const;
export type Role = (typeof roles)[number];

export function mayCall(held: Role, needed: Role): boolean {
  if (needed === "public" || held === "admin" || held === needed) return true;
  if (needed === "router" || held === "router") return false;
  return roleLadder.indexOf(held) >= roleLadder.indexOf(needed);
}

/**
 * One call of the API, declared once: the server validates by it, OpenAPI is generated from it, the CLI and the console
 * call through it. Declarations carry no code of the server, so that clients load none of it.
 *
 * P, Q, B, R are what the handler sees; PI, QI, BI what a caller may send, where defaults are left out.
 */
export interface Endpoint<P = unknown, Q = unknown, B = unknown, R = unknown, PI = unknown, QI = unknown, BI = unknown> {
  /** `operationId` in OpenAPI: verb and noun in camelCase, as in `createCell`. */
  id: string;
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Parameters in braces, as in `/v1/cells/{cell}`. */
  path: string;
  role: Role;
  summary: string;
  /** More than the summary says, in Markdown, for OpenAPI. */
  description?: string;
  params: z.ZodType<P, PI>;
  query: z.ZodType<Q, QI>;
  body: z.ZodType<B, BI>;
  returns: z.ZodType<R>;
  /** 200, or 201 when it creates, 202 when it starts an operation, 204 when it returns nothing. */
  status: 200 | 201 | 202 | 204;
  /** A field of the answer that is a secret: sent once, kept neither in the audit log nor for repeats of the call. */
  shownOnce?: string;
}

const nothing = z.object({});

/** Declares an endpoint; what is left out is empty (`params`, `query`, `body`) or 200 (`status`). Mutations also take `?dryRun=true`. */
export function endpoint<P = Record<string, never>, Q = Record<string, never>, B = Record<string, never>, R = unknown, PI = P, QI = Q, BI = B>(
  e: Pick<Endpoint<P, Q, B, R, PI, QI, BI>, "id" | "method" | "path" | "role" | "summary" | "returns"> & Partial<Pick<Endpoint<P, Q, B, R, PI, QI, BI>, "params" | "query" | "body" | "status" | "description" | "shownOnce">>,
): Endpoint<P, Q, B, R, PI, QI, BI> {
  return { params: nothing as unknown as z.ZodType<P, PI>, query: nothing as unknown as z.ZodType<Q, QI>, body: nothing as unknown as z.ZodType<B, BI>, status: 200, ...e };
}

export const isMutation = (e: Pick<Endpoint, "method">): boolean => e.method !== "GET";

/** Who calls, as the token says. `name` stands in the audit log. */
export interface Caller {
  name: string;
  role: Role;
}

export interface Call<P, Q, B, R = unknown> {
  params: P;
  query: Q;
  body: B;
  caller: Caller;
  /** The generation named by If-Match; null when the caller did not ask for one. */
  ifMatch: number | null;
  /** Why, in the caller's words (`--reason`); stands in the audit log. */
  reason: string | null;
  dryRun: boolean;
  /** Aborted when the client goes away. */
  signal: AbortSignal;
  /**
   * The mutation's transaction: commits with its audit entry and the record of its idempotency key, or rolls back on a
   * dry run. A mutating handler does all of its writing inside one call of it. What `work` returns is the answer of the
   * endpoint: it is recorded with the key, and a repeat of the call is answered with the record.
   */
  mutate(work: (tx: Tx) => Promise<R>): Promise<R>;
  /**
   * For a handler that gathers many calls into one transaction it opens itself (group commit) instead of calling `mutate`:
   * queues this call's audit entry and the record of its idempotency key with `answer` there, by `tx.atCommit`. It must not
   * fail the transaction for a key that another call of the same batch has used.
   */
  record(tx: Tx, answer: unknown): void;
}

/** An endpoint with its code. A result with a `generation` is sent with that as its ETag. */
export interface Handler {
  endpoint: Endpoint;
  handle: (call: Call<never, never, never, never>) => Promise<unknown>;
}

export const handler = <P, Q, B, R, PI, QI, BI>(e: Endpoint<P, Q, B, R, PI, QI, BI>, handle: (call: Call<P, Q, B, R>) => Promise<R>): Handler =>
  ({ endpoint: e, handle }) as unknown as Handler;

/** What is no JSON call: feeds, metrics, static files. Answers by itself, after the role check. */
export interface RawHandler {
  method: "GET" | "POST";
  /** As in `/v1/feed/{router}`, or ending in `/*` for a whole tree. */
  path: string;
  role: Role;
  /** Only for requests that accept this media type; others go on to an endpoint of the same path. */
  accept?: string;
  handle: (request: Request, at: { caller: Caller; params: Record<string, string> }) => Promise<Response> | Response;
}

/** Cursor pagination: at most `limit` items, and the `cursor` of the next page or null on the last. */
export const PageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(200).optional(),
});
export type PageQuery = z.infer<typeof PageQuery>;
export const page = <T>(item: z.ZodType<T>) => z.object({ items: z.array(item), nextCursor: z.string().nullable() });
