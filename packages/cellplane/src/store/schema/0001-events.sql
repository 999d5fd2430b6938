-- What happened, for people and for streams. Readers resume by (xid, id) and see only rows below the oldest running
-- transaction, so a row that commits late is never skipped.
create table event (
  id      bigint generated always as identity primary key,
  xid     xid8 not null default pg_current_xact_id(),
  at      timestamptz not null default clock_timestamp(),
  kind    text not null,      -- "cell.state", "tenant.created", …
  subject text not null,      -- "cell/eu-1"
  data    jsonb not null
);
create index event_by_xid on event (xid, id);
create index event_by_subject on event (subject, id);
