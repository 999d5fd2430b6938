-- Durable workflows: what runs, who has it in hand, what was done. See workflow/SPEC.md.

-- One row per process that works, for as long as it beats. Beside it the process holds a session advisory lock on the
-- row's id, which PostgreSQL drops the moment the process is dead.
create table worker (
  id         bigint generated always as identity primary key,
  build      text not null,
  workflows  text[] not null,     -- what it can run, as in "cell.create@1"
  started_at timestamptz not null default clock_timestamp(),
  beat_at    timestamptz not null default clock_timestamp()
);

-- One for all runs: whoever takes a lock later also has the greater epoch.
create sequence run_epoch as bigint;

create table run (
  id           text primary key,
  seq          bigint generated always as identity unique,
  workflow     text not null,
  version      int not null,
  subject      text not null,
  key          text unique,                          -- the caller's idempotency key
  parent       text,                                 -- no foreign key: a parent may be forgotten before its children
  input        jsonb not null,
  state        text not null default 'pending',
  -- The worker that has it in hand; null: nobody. The reference keeps a worker that was just declared dead from claiming.
  owner        bigint references worker (id),
  epoch        bigint not null default 0,            -- taken anew at every claim; with `owner` and `step` the fence of all writes
  due_at       timestamptz default clock_timestamp(),-- when it may be claimed; null: not before someone wakes it
  step         text,
  begun        boolean not null default false,       -- the intent: the step may have been started
  begun_at     timestamptz,
  failures     int not null default 0,
  crashes      int not null default 0,
  awaits       text,                                 -- signal, children, lock
  awaited      text[] not null default '{}',
  waits_for    text,                                 -- why it does not move, for people
  asked        text,                                 -- pause, cancel: heard by the owner when a step ends, or by its signal
  signals      jsonb not null default '{}',
  signals_seen int not null default 0,
  locks        jsonb not null default '[]',          -- [{name, slots}], in the order in which they are taken
  locked       boolean not null default false,
  ratio        real not null default 0,
  message      text not null default '',
  error        jsonb,
  result       jsonb,
  created_at   timestamptz not null default clock_timestamp(),
  finished_at  timestamptz
) with (fillfactor = 70);

create index run_due on run (due_at) include (workflow, version) where owner is null and due_at is not null;
create index run_owned on run (owner) where owner is not null;
create index run_awaiting_lock on run ((awaited[1]), seq) where awaits = 'lock';
create index run_awaiting_children on run (id) where awaits = 'children';
create index run_by_parent on run (parent) where parent is not null;
create index run_by_subject on run (subject, seq);
create index run_by_workflow on run (workflow, seq);
create index run_by_state on run (state, seq);
create index run_finished on run (finished_at) where finished_at is not null;

-- Steps by name. No foreign keys here and in the log: both are written by the statement that holds the run's row.
create table run_step (
  run      text not null,
  name     text not null,
  ordinal  int not null,          -- 1 for the first that was done
  state    text not null,         -- done, undone
  attempts int not null,
  result   jsonb,
  at       timestamptz not null default clock_timestamp(),
  primary key (run, name)
);

-- Append-only; read by (xid, id) like the event log, so that a line that commits late is never skipped.
create table run_log (
  id      bigint generated always as identity primary key,
  xid     xid8 not null default pg_current_xact_id(),
  run     text not null,
  at      timestamptz not null default clock_timestamp(),
  step    text,
  message text not null
);
create index run_log_by_run on run_log (run, xid, id);

-- Who holds a lock (slot 1 of 1) or a place in a semaphore (slot 1…n). The key is the promise that no slot has two holders.
create table run_lock (
  name text not null,
  slot int not null,
  run  text not null references run (id),
  primary key (name, slot)
);
create unique index run_lock_by_run on run_lock (run, name);
