import type { Queryable, Tx } from "../store/model.ts";
import { type ChainPosition, digestOf, followChain, genesis } from "./chain.ts";
import { type AuditEntry, type AuditVerdict, forAudit, type NewAuditEntry } from "./model.ts";

/** Adds an entry to the chain when the transaction commits. Secrets are blacked out here, so that no caller can forget to. */
export function recordAudit(tx: Tx, entry: Omit<NewAuditEntry, "request" | "result"> & { request: unknown; result: unknown }): void {
  const clean = { ...entry, request: forAudit(entry.request), result: forAudit(entry.result) };
  tx.atCommit("audit", clean, append);
}

async function append(tx: Tx, entries: NewAuditEntry[]): Promise<void> {
  // A round trip through JSON first: what is digested is exactly what will be read back.
  const plain = JSON.parse(JSON.stringify(entries)) as NewAuditEntry[];
  await tx.query("select audit_append($1::jsonb)", [JSON.stringify(plain.map((entry) => ({ ...entry, digest: digestOf(entry).toString("hex") })))]);
}

interface AuditRow extends Omit<AuditEntry, "at" | "hash"> {
  at: Date;
  hash: Buffer;
}

const asEntry = (row: AuditRow): AuditEntry => ({ ...row, at: row.at.toISOString(), hash: row.hash.toString("hex") });
const columns = "seq, at, actor, role, action, subject, reason, trace, request, result, hash";

export interface AuditFilter {
  subject?: string | undefined;
  actor?: string | undefined;
  action?: string | undefined;
}

async function list(db: Queryable, { subject, actor, action }: AuditFilter, before: number | null, limit: number): Promise<AuditEntry[]> {
  const rows = await db.query<AuditRow>(
    `select ${columns} from audit
     where ($1::bigint is null or seq < $1) and ($2::text is null or subject = $2 or subject like $3) and ($4::text is null or actor = $4) and ($5::text is null or action = $5)
     order by seq desc limit $6`,
    [before, subject ?? null, subject === undefined ? null : `${subject.replaceAll(/[\\%_]/g, "\\$&")}/%`, actor ?? null, action ?? null, limit],
  );
  return rows.map(asEntry);
}

async function readHead(db: Queryable): Promise<ChainPosition> {
  const [head] = await db.query<ChainPosition>("select seq, hash from audit_head");
  return head ?? { seq: 0, hash: genesis };
}

async function verify(db: Queryable, anchor: { seq: number; hash: string } | null, signal?: AbortSignal): Promise<AuditVerdict> {
  // The end is read first: entries appended meanwhile are beyond it and stay out of this verdict.
  const end = await readHead(db);
  const head = { seq: end.seq, hash: end.hash.toString("hex") };
  let reached: ChainPosition = { seq: 0, hash: genesis };
  const bad = (seq: number, why: string): AuditVerdict => ({ ok: false, verified: Math.min(reached.seq, seq - 1), head, firstBad: { seq, why } });
  while (true) {
    signal?.throwIfAborted();
    const rows = await db.query<AuditRow>(`select ${columns} from audit where seq > $1 and seq <= $2 order by seq limit 1000`, [reached.seq, end.seq]);
    const entries = rows.map(asEntry);
    const step = followChain(reached, entries);
    const anchored = anchor && entries.find((entry) => entry.seq === anchor.seq);
    if (anchored && anchored.hash !== anchor.hash && (!step.firstBad || step.firstBad.seq > anchor.seq)) return bad(anchor.seq, `entry ${anchor.seq} is not the one that was noted`);
    reached = step.reached;
    if (step.firstBad) return bad(step.firstBad.seq, step.firstBad.why);
    if (entries.length === 0) break;
  }
  if (reached.seq < end.seq) return bad(reached.seq + 1, `the log ends at entry ${reached.seq}, but its head says ${end.seq}: entries were cut off`);
  if (!reached.hash.equals(end.hash)) return bad(Math.max(reached.seq, 1), "the head does not name the last entry");
  const [beyond] = await db.query<{ seq: number }>("select min(seq) as seq from audit where seq <= 0 or (seq > $1 and seq > (select seq from audit_head))", [end.seq]);
  if (beyond && beyond.seq !== null) return bad(Math.max(beyond.seq, 1), `entry ${beyond.seq} stands outside the chain: the head does not know it`);
  if (anchor && anchor.seq > end.seq) return bad(end.seq + 1, `the log ends at entry ${end.seq}, but entry ${anchor.seq} was noted: entries were cut off`);
  return { ok: true, verified: reached.seq, head, firstBad: null };
}

export const openAuditStore = (db: Queryable) => ({
  /** Newest first. @param before only entries with a smaller seq; null: from the end */
  list: (filter: AuditFilter, before: number | null, limit: number) => list(db, filter, before, limit),
  head: () => readHead(db),
  /**
   * Follows the whole chain from its first entry.
   * @param anchor a head that was noted elsewhere; the chain must pass through it
   */
  verify: (anchor: { seq: number; hash: string } | null, signal?: AbortSignal) => verify(db, anchor, signal),
});
export type AuditStore = ReturnType<typeof openAuditStore>;
