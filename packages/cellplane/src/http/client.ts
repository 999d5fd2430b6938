import type { EventItem } from "../observe/model.ts";
import type { Endpoint } from "./contract.ts";

type Part<K extends string, T> = Record<never, never> extends T ? { [key in K]?: T } : { [key in K]: T };
/** What a call needs: the parts the endpoint declares, without what has a default. */
export type CallInput<PI, QI, BI> = Part<"params", PI> & Part<"query", QI> & Part<"body", BI>;

export interface CallOptions {
  dryRun?: boolean;
  /** Refused with generation_stale unless the thing is at this generation. */
  ifMatch?: number;
  reason?: string;
  /** Default: a fresh one for each mutation, so that it may be sent again. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export interface EventQuery {
  /** A cursor; null: from now on. */
  after?: string | null;
  /** Prefixes, as in ["cell."]; empty: all. */
  kinds?: string[];
  subject?: string;
  signal?: AbortSignal;
}

export interface Client {
  /** @throws CellplaneError the one the server answered, or server_unreachable */
  call<P, Q, B, R, PI, QI, BI>(endpoint: Endpoint<P, Q, B, R, PI, QI, BI>, input: CallInput<PI, QI, BI>, options?: CallOptions): Promise<R>;
  pages<P, Q, B, T, PI, QI, BI>(endpoint: Endpoint<P, Q, B, { items: T[]; nextCursor: string | null }, PI, QI, BI>, input: CallInput<PI, Omit<QI, "limit" | "cursor">, BI>): AsyncIterable<T>;
  events(filter?: EventQuery): AsyncIterable<EventItem>;
}
