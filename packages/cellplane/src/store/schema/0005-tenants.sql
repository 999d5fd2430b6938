-- Tenants, what names them, where they live and lived, and what they alone may hold.

create table tenant (
  name        text collate "C" primary key,
  tier        text not null,
  region      text,                       -- a pin; null: none
  dedicated   boolean not null,
  labels      jsonb not null,
  state       text not null check (state in ('pending', 'active', 'suspended', 'deleting')),
  cell        text,                       -- home; null while pending
  awaits      text,                       -- the cell that is being made for it: nobody else is placed there
  epoch       bigint not null,
  generation  bigint not null default 1,
  operation   text,

  -- what it takes of its cell, as counted there
  connections          numeric not null default 0,
  requests_per_second  numeric not null default 0,
  disk_bytes           numeric not null default 0,

  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),

  check ((cell is null) = (epoch = 0)),
  check (state <> 'pending' or cell is null),
  check (state not in ('active', 'suspended') or cell is not null)
);
-- Lists are in the order of names and resume by name, so each filter has its index with the name behind it.
create index tenant_by_cell on tenant (cell, name);
create index tenant_by_tier on tenant (tier, name);
create index tenant_by_state on tenant (state, name) where state <> 'active';
create index tenant_by_labels on tenant using gin (labels jsonb_path_ops);
create unique index tenant_by_awaits on tenant (awaits) where awaits is not null;

-- Names that were used and are free again. A fence set for the former bearer must stay behind the new one, so counting goes on.
create table tenant_gone (
  name     text collate "C" primary key,
  epoch    bigint not null,
  gone_at  timestamptz not null default clock_timestamp()
);

-- host and alias are looked up in the same place, so they share a space.
create table tenant_key (
  space   text not null generated always as (case kind when 'alias' then 'host' else kind end) stored,
  value   text collate "C" not null,
  kind    text not null check (kind in ('host', 'alias', 'header', 'path', 'apikey')),
  tenant  text collate "C" not null references tenant (name) on delete cascade,
  primary key (space, value)
);
create index tenant_key_by_tenant on tenant_key (tenant);

create table placement (
  tenant   text collate "C" not null references tenant (name) on delete cascade,
  epoch    bigint not null,
  role     text not null default 'home' check (role in ('home', 'standby', 'arriving', 'leaving')),
  cell     text not null,
  since    timestamptz not null default clock_timestamp(),
  until    timestamptz,                   -- null: still there
  because  text[] not null,
  primary key (tenant, epoch, role)
);

create table claim (
  kind        text not null,
  value       text collate "C" not null,  -- normalised; for a hashed kind a digest keyed with claim_pepper
  tenant      text collate "C" not null,  -- no reference: a reservation may come before its tenant
  state       text not null check (state in ('reserved', 'confirmed')),
  owner       text,                       -- the operation that reserved it
  expires_at  timestamptz,
  since       timestamptz not null default now(),   -- when the transaction began that took it, which knows it again by that
  primary key (kind, value),
  check ((state = 'reserved') = (owner is not null)),
  check ((state = 'reserved') = (expires_at is not null))
);
create index claim_by_tenant on claim (tenant, kind, value);
create index claim_by_expiry on claim (expires_at) where state = 'reserved';

-- Without it the digests of hashed claims could be found by trying addresses.
create table claim_pepper (
  only_row  boolean primary key default true check (only_row),
  pepper    bytea not null
);
insert into claim_pepper (pepper) values (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
