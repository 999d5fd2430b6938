-- Cells as they were asked for and decided on. What is used stands in the same row as the state and the capacity, so that
-- placing a tenant is one conditional update and can never meet a cell that fills up or retires meanwhile.
create table cell (
  name        text primary key,
  index       integer not null unique check (index between 1 and 65535),
  region      text not null,
  blueprint   text not null,
  class       text not null,
  driver      text not null,
  origin      text not null,
  state       text not null,
  generation  integer not null default 1,
  spec        jsonb not null,               -- the one in service; while a cell is made, the one it is made from
  overrides   jsonb not null,
  labels      jsonb not null,
  endpoint    text,                         -- host:port for routers
  operation   text,                         -- id of the run that works on it, for people; what excludes others is the run's lock

  -- null: not limited
  tenants_capacity             bigint,
  connections_capacity         numeric,
  requests_per_second_capacity numeric,
  disk_bytes_capacity          numeric,
  tenants_used                 bigint  not null default 0 check (tenants_used >= 0),
  connections_used             numeric not null default 0 check (connections_used >= 0),
  requests_per_second_used     numeric not null default 0 check (requests_per_second_used >= 0),
  disk_bytes_used              numeric not null default 0 check (disk_bytes_used >= 0),

  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),

  -- The statement that retires a cell also says so; this is what holds if a statement is ever written wrongly.
  check (state not in ('retired', 'destroyed') or tenants_used = 0)
) with (fillfactor = 50);                   -- the counters change often: room for them on the same page

-- Cells whose data are gone too. Their numbers are never used again: a router that slept through it all must not send
-- their requests to another cell.
create table cell_gone (
  index   integer primary key,
  name    text not null,
  gone_at timestamptz not null default clock_timestamp()
);

-- What was seen, apart from the row above because it changes with every look and nothing is decided by its generation.
create table cell_observed (
  cell         text primary key references cell (name) on delete cascade,
  ok           boolean,
  checks       jsonb not null default '[]',
  drift        jsonb not null default '[]',
  observed_at  timestamptz
);
