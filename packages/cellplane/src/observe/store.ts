import type { Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { type Cursor, type EventFilter, type EventItem, formatCursor } from "./model.ts";

/** Woken once per transaction that has something to tell. */
const channel = "cellplane_event";

export interface NewEvent {
  kind: string;
  subject: string;
  data: Record<string, unknown>;
}

/** Writes all events of a transaction at once and wakes the readers when it commits. */
export async function insertEvents(tx: Tx, events: NewEvent[]): Promise<void> {
  await tx.query(
    `with written as (
       insert into event (kind, subject, data)
       select kind, subject, data::jsonb from unnest($1::text[], $2::text[], $3::text[]) with ordinality as e (kind, subject, data, place) order by place)
     select pg_notify('${channel}', '')`,
    [events.map((e) => e.kind), events.map((e) => e.subject), events.map((e) => JSON.stringify(e.data))],
  );
}

interface EventRow {
  xid: string;
  id: number;
  at: Date;
  kind: string;
  subject: string;
  data: EventItem["data"];
}

const asEvent = (row: EventRow): EventItem => ({ cursor: formatCursor(row), at: row.at.toISOString(), kind: row.kind, subject: row.subject, data: row.data });

const matches = `($3::text[] = '{}' or kind like any ($3)) and ($4::text is null or subject = $4 or subject like $5)`;
const escaped = (text: string): string => `${text.replaceAll(/[\\%_]/g, "\\$&")}%`;
const matchParams = ({ kinds, subject }: EventFilter): unknown[] => [kinds.map(escaped), subject, subject?.endsWith("/") ? escaped(subject) : null];

export function openEventStore(db: Store) {
  return {
    onNew: (call: () => void) => db.listen(channel, call),

    /**
     * What follows a cursor, oldest first: only rows of transactions below the oldest one still running, since a row
     * that commits later could otherwise stand before one already read. `unsettled`: there is more that is not yet safe.
     */
    async after(cursor: Cursor, filter: EventFilter, limit: number): Promise<{ events: EventItem[]; unsettled: boolean }> {
      const rows = await db.query<EventRow & { settled: boolean }>(
        `select xid::text, id, at, kind, subject, data, xid < pg_snapshot_xmin(pg_current_snapshot()) as settled
         from event where (xid, id) > ($1::xid8, $2::bigint) and ${matches} order by event.xid, id limit $6`,
        [cursor.xid, cursor.id, ...matchParams(filter), limit],
      );
      const end = rows.findIndex((row) => !row.settled);
      return { events: (end < 0 ? rows : rows.slice(0, end)).map(asEvent), unsettled: end >= 0 };
    },

    /** The newest first, below a cursor. */
    async before(cursor: Cursor | null, filter: EventFilter, limit: number): Promise<EventItem[]> {
      const rows = await db.query<EventRow>(
        `select xid::text, id, at, kind, subject, data from event
         where ($1::text is null or (xid, id) < ($1::text::xid8, $2::bigint)) and ${matches} order by event.xid desc, id desc limit $6`,
        [cursor?.xid ?? null, cursor?.id ?? null, ...matchParams(filter), limit],
      );
      return rows.map(asEvent);
    },

    /** The cursor before everything that is not settled yet, and the last event that retention removed. */
    async position(): Promise<{ now: Cursor; horizon: Cursor }> {
      const [row] = await db.query<{ now: string; xid: string; id: number }>("select pg_snapshot_xmin(pg_current_snapshot())::text as now, xid::text, id from event_horizon");
      return { now: { xid: row?.now ?? "0", id: 0 }, horizon: { xid: row?.xid ?? "0", id: row?.id ?? 0 } };
    },

    /** Removes a batch of events older than this. @returns how many; call again while it is `batch` */
    async trim(olderThanMs: number, batch = 10_000): Promise<number> {
      const [row] = await db.query<{ n: number }>(
        `with head as (select xid, id, at from event where xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid, id limit $2),
              old as (select xid, id from head where at < now() - $1::float8 * interval '1 ms'),
              gone as (delete from event using old where event.id = old.id),
              last as (select xid, id from old order by xid desc, id desc limit 1),
              moved as (update event_horizon h set xid = last.xid, id = last.id from last where (h.xid, h.id) < (last.xid, last.id))
         select count(*)::int as n from old`,
        [olderThanMs, batch],
      );
      return row?.n ?? 0;
    },
  };
}
export type EventStore = ReturnType<typeof openEventStore>;
