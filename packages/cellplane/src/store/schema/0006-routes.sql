-- Where each tenant's requests go, for routers. What is true now stands in route_cell, route_tenant and route_key; the log says
-- how it came to be, numbered without holes, and may be cut off at any age: who is further behind takes a snapshot.

-- The one row that numbers versions. Taken last in a transaction and held for one commit.
create table route_head (
  one     boolean primary key default true check (one),
  version bigint  not null default 0,
  -- SHA-256 over the digest before and the lines of this version: names the whole history. A random start tells fleets apart.
  digest  bytea   not null default sha256(convert_to(gen_random_uuid()::text, 'UTF8')),
  -- IdentifyRule[] (routing/model.ts)
  rules   jsonb   not null default '[]'
);
insert into route_head default values;

-- One row per commit that changed routes.
create table route_log (
  version bigint      primary key,
  changes text        not null,     -- lines (routing/lines.ts)
  digest  bytea       not null,
  at      timestamptz not null default clock_timestamp()
);

create table route_cell (
  index    integer primary key check (index between 1 and 65535),
  cell     text    not null unique,
  endpoint text,
  state    text    not null
);

create table route_tenant (
  tenant     text    primary key,
  cell_index integer not null,
  state      text    not null,
  epoch      bigint  not null check (epoch between 1 and 4294967295)
);

create table route_key (
  space  text not null,             -- keySpaces (tenant/model.ts)
  value  text not null,
  tenant text not null,
  primary key (space, value)
);
create index route_key_by_tenant on route_key (tenant);

-- What each router has applied. Unlogged: routers say it again within seconds.
create unlogged table route_router (
  router    text        primary key,
  version   bigint      not null,
  -- requests under way for tenants on hold: name → count
  in_flight jsonb       not null,
  acked_at  timestamptz not null
);
