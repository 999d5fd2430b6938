import { createHash, type Hash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { fail } from "../base/errors.ts";
import { canonicalJson } from "../base/canonical.ts";
import { recordAudit } from "../audit/store.ts";
import type { Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import type { Caller, Endpoint } from "./contract.ts";
import { type IdempotencyStore, keepAnswers } from "./store.ts";

/** A mutation on its way through the server. */
export interface Mutation {
  endpoint: Endpoint;
  caller: Caller;
  params: Record<string, string>;
  query: unknown;
  body: unknown;
  ifMatch: number | null;
  reason: string | null;
  /** Null: the caller does not mean to repeat it. */
  key: string | null;
  dryRun: boolean;
  trace: string;
  nowMs: number;
  /** What the transaction answered, and the same as it will be sent. */
  done?: { value: unknown; answer: unknown };
}

/** Thrown out of a handler whose call turned out to have been answered already. */
export class Answered extends Error {
  override name = "Answered";
  readonly answer: string;
  constructor(answer: string) {
    super("answered already");
    this.answer = answer;
  }
}

/** What makes two requests the same one. */
function fingerprintOf({ endpoint, params, query, body, ifMatch }: Mutation): Buffer {
  const hash: Hash = createHash("sha256");
  return hash.update(canonicalJson([endpoint.id, params, query, body, ifMatch])).digest();
}

/** As in "cell/eu-1": the first parameter and its value; for what a POST to a collection makes, the name in its answer. */
function subjectOf(endpoint: Endpoint, params: Record<string, string>, answer: unknown): string {
  const [first] = Object.entries(params);
  if (first) return first.join("/");
  const noun = (endpoint.path.split("/")[2] ?? "").replace(/s$/, "");
  const made = answer as { name?: unknown; id?: unknown } & Record<string, { name?: unknown } | undefined>;
  const name = made?.name ?? made?.[noun]?.name ?? made?.id;
  return typeof name === "string" ? `${noun}/${name}` : noun;
}

export interface MutationDeps {
  store: Store;
  idempotency: IdempotencyStore;
}

/**
 * The answer this call has had before, under its key; null when it is new.
 * @throws CellplaneError idempotency_mismatch when the key was used for something else
 */
export async function answerBefore({ idempotency }: MutationDeps, mutation: Mutation): Promise<string | null> {
  if (mutation.key === null || mutation.dryRun) return null;
  const known = await idempotency.find(mutation.caller.name, mutation.key);
  if (known && !known.fingerprint.equals(fingerprintOf(mutation))) throw fail("idempotency_mismatch", { key: mutation.key });
  return known?.answer ?? null;
}

/**
 * Does the work in one transaction with its audit entry and its idempotency record, so that there is either all of it or
 * nothing, however often it is asked for and wherever the process dies.
 * @throws Answered when the same call has been done meanwhile
 */
export async function mutate<R>(deps: MutationDeps, mutation: Mutation, work: (tx: Tx) => Promise<R>): Promise<R> {
  const { caller, key, dryRun } = mutation;
  try {
    return await deps.store.transaction(
      async (tx) => {
        if (key !== null && !dryRun && !(await deps.idempotency.take(tx, caller.name, key, fingerprintOf(mutation)))) throw new Taken();
        const value = await work(tx);
        record(mutation, tx, value);
        return value;
      },
      { dryRun },
    );
  } catch (error) {
    if (!(error instanceof Taken)) throw error;
    const answer = await answerBefore(deps, mutation);
    assert(answer !== null, "a key that was taken has its answer");
    throw new Answered(answer);
  }
}

/** Leaves the audit entry of a mutation, and its answer for repeats of it, to be written when the transaction commits. */
export function record(mutation: Mutation, tx: Tx, value: unknown): void {
  const { endpoint, caller, key, dryRun } = mutation;
  const answer = answerOf(endpoint, value);
  const kept = endpoint.shownOnce ? { ...(answer as object), [endpoint.shownOnce]: null } : answer;
  if (key !== null && !dryRun) tx.atCommit("answers", { caller: caller.name, key, fingerprint: fingerprintOf(mutation), answer: JSON.stringify(kept) }, keepAnswers);
  recordAudit(tx, {
    at: new Date(mutation.nowMs).toISOString(), actor: caller.name, role: caller.role, action: endpoint.id,
    subject: subjectOf(endpoint, mutation.params, kept), reason: mutation.reason, trace: mutation.trace,
    request: mutation.body, result: kept,
  });
  mutation.done = { value, answer };
}

/** Somebody else had the key and has committed. */
class Taken extends Error {}

/** What is sent: exactly what the endpoint declares, whatever else the handler's value carries. */
export function answerOf(endpoint: Endpoint, value: unknown): unknown {
  if (endpoint.status === 204) return null;
  const result = endpoint.returns.safeParse(value);
  assert(result.success, `what ${endpoint.id} answers is as it declares: ${result.success ? "" : result.error.message}`);
  return result.data;
}
