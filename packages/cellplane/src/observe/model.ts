import { z } from "zod";

/** Something that happened, as people and streams are told. */
export const EventItem = z.object({
  /** Where to resume after it; opaque to clients. */
  cursor: z.string(),
  at: z.iso.datetime(),
  /** As in "cell.state" or "tenant.created". */
  kind: z.string(),
  /** As in "cell/eu-1". */
  subject: z.string(),
  data: z.record(z.string(), z.json()),
}).meta({ id: "Event" });
export type EventItem = z.infer<typeof EventItem>;

/**
 * A place in the event log. Rows are ordered by the transaction that wrote them, then by their number: transaction ids
 * are given out in order and a reader waits for the oldest that runs, so nothing can appear behind a cursor.
 */
export interface Cursor {
  /** PostgreSQL's 64-bit transaction id, in decimal. */
  xid: string;
  id: number;
}

export const formatCursor = ({ xid, id }: Cursor): string => `${xid}.${id}`;

/** null when the text is no cursor. */
export function parseCursor(text: string): Cursor | null {
  const match = /^(\d{1,20})\.(\d{1,16})$/.exec(text);
  return match?.[1] && match[2] && BigInt(match[1]) < 2n ** 63n ? { xid: match[1], id: Number(match[2]) } : null;
}

/** Negative when a is before b. */
export function compareCursors(a: Cursor, b: Cursor): number {
  const [x, y] = [BigInt(a.xid), BigInt(b.xid)];
  return x === y ? a.id - b.id : x < y ? -1 : 1;
}

export interface EventFilter {
  /** Beginnings of kinds, as in "cell."; empty: all. */
  kinds: string[];
  /** Exactly this one, or with a "/" at its end all below it; null: all. */
  subject: string | null;
}

export function wants({ kinds, subject }: EventFilter, event: { kind: string; subject: string }): boolean {
  if (kinds.length > 0 && !kinds.some((kind) => event.kind.startsWith(kind))) return false;
  return subject === null || event.subject === subject || (subject.endsWith("/") && event.subject.startsWith(subject));
}
