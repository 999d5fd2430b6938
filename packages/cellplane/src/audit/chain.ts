import { createHash } from "node:crypto";
import { canonicalJson } from "../base/canonical.ts";
import type { AuditEntry, NewAuditEntry } from "./model.ts";

/** The hash before the first entry. */
export const genesis = createHash("sha256").digest();

/** SHA-256 of what the entry says, without its place. */
export const digestOf = ({ at, actor, role, action, subject, reason, trace, request, result }: NewAuditEntry): Buffer =>
  createHash("sha256").update(canonicalJson({ at, actor, role, action, subject, reason, trace, request, result })).digest();

/** The link that entry `seq` with this digest makes; schema/0003-audit.sql computes the same when it appends. */
function linkOf(previous: Buffer, seq: number, digest: Buffer): Buffer {
  const place = Buffer.alloc(8);
  place.writeBigInt64BE(BigInt(seq));
  return createHash("sha256").update(previous).update(place).update(digest).digest();
}

export interface ChainPosition {
  seq: number;
  hash: Buffer;
}

/** Follows the chain from `start` over consecutive entries. @returns where it got to, and the first entry that does not fit */
export function followChain(start: ChainPosition, entries: AuditEntry[]): { reached: ChainPosition; firstBad: { seq: number; why: string } | null } {
  let reached = start;
  for (const entry of entries) {
    const seq = reached.seq + 1;
    if (entry.seq !== seq) return { reached, firstBad: { seq, why: `entry ${seq} is missing; the next one there is ${entry.seq}` } };
    const hash = linkOf(reached.hash, seq, digestOf(entry));
    if (!hash.equals(Buffer.from(entry.hash, "hex"))) return { reached, firstBad: { seq, why: `entry ${seq} was changed, inserted or moved: its hash is not the one of its content and its place` } };
    reached = { seq, hash };
  }
  return { reached, firstBad: null };
}
