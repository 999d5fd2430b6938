import { z } from "zod";
import { CellplaneError } from "../base/errors.ts";
import type { Tx } from "../store/model.ts";

/** Each role may do what the ones before it may. "public" needs no token, "router" is what a data-plane process holds. */
export const roles = ["public", "viewer", "operator", "admin"] as const;
export type Role = (typeof roles)[number];

/**
 * One call of the API, declared once: the server validates by it, OpenAPI is generated from it, the CLI and the console
 * call through it. Declarations carry no code of the server, so that clients load none of it.
 */
export interface Endpoint<P = unknown, Q = unknown, B = unknown, R = unknown> {
  /** `operationId` in OpenAPI: verb and noun in camelCase, as in `createCell`. */
  id: string;
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Parameters in braces, as in `/v1/cells/{cell}`. */
  path: string;
  role: Role;
  summary: string;
  params: z.ZodType<P>;
  query: z.ZodType<Q>;
  body: z.ZodType<B>;
  returns: z.ZodType<R>;
  /** 200, or 201 when it creates, 202 when it starts an operation, 204 when it returns nothing. */
  status: 200 | 201 | 202 | 204;
}

const nothing = z.object({});

/** Declares an endpoint; what is left out is empty (`params`, `query`, `body`) or 200 (`status`). Mutations also take `?dryRun=true`. */
export function endpoint<P = Record<string, never>, Q = Record<string, never>, B = Record<string, never>, R = unknown>(
  e: Pick<Endpoint<P, Q, B, R>, "id" | "method" | "path" | "role" | "summary" | "returns"> & Partial<Pick<Endpoint<P, Q, B, R>, "params" | "query" | "body" | "status">>,
): Endpoint<P, Q, B, R> {
  return { params: nothing as unknown as z.ZodType<P>, query: nothing as unknown as z.ZodType<Q>, body: nothing as unknown as z.ZodType<B>, status: 200, ...e };
}

/** Who calls, as the token says. `name` stands in the audit log. */
export interface Caller {
  name: string;
  role: Role;
}

export interface Call<P, Q, B> {
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
   * dry run. A mutating handler does all of its writing inside one call of it.
   */
  mutate<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
}

/** An endpoint with its code. A result with a `generation` is sent with that as its ETag. */
export interface Handler {
  endpoint: Endpoint;
  handle: (call: Call<never, never, never>) => Promise<unknown>;
}

export const handler = <P, Q, B, R>(e: Endpoint<P, Q, B, R>, handle: (call: Call<P, Q, B>) => Promise<R>): Handler => ({ endpoint: e as Endpoint, handle });

/** Cursor pagination: at most `limit` items, and the `cursor` of the next page or null on the last. */
export const PageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(200).optional(),
});
export type PageQuery = z.infer<typeof PageQuery>;
export const page = <T>(item: z.ZodType<T>) => z.object({ items: z.array(item), nextCursor: z.string().nullable() });

export const isExpected = (error: unknown): error is CellplaneError => error instanceof CellplaneError;
