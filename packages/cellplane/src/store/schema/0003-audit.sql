-- Who may call, what was called, and what a repeated call is answered with.

create table token (
  name        text primary key,
  role        text not null check (role in ('viewer', 'operator', 'admin', 'router')),
  hash        bytea not null unique,     -- SHA-256 of the secret: 256 random bits need no salt and no slow hash
  created_at  timestamptz not null default now(),
  created_by  text not null,
  expires_at  timestamptz,               -- null: does not expire
  revoked_at  timestamptz                -- null: valid. Rows stay, so that a name in the audit log means one token for ever.
);

create table idempotency (
  caller       text not null,
  key          text not null,
  fingerprint  bytea not null,           -- SHA-256 of method, path, query, body and If-Match
  answer       text,                     -- JSON; null while the transaction that wrote the row runs, so nobody ever reads null
  at           timestamptz not null default now(),
  primary key (caller, key)
);
create index idempotency_by_age on idempotency (at);

-- Append-only and chained: hash = SHA-256(previous hash ‖ seq as 8 bytes, big-endian ‖ digest), where digest is the
-- SHA-256 of the entry's canonical JSON. An entry that is changed, removed, inserted or moved breaks the chain from there on.
create table audit (
  seq      bigint primary key,           -- 1, 2, 3 … without a gap
  at       timestamptz not null,
  actor    text not null,                -- the token's name
  role     text not null,
  action   text not null,                -- the endpoint's id, as in createCell
  subject  text not null,                -- as in "cell/eu-1"
  reason   text,
  trace    text not null,
  request  jsonb,                        -- secrets blacked out
  result   jsonb,                        -- null when it was large: see audit/model.ts
  digest   bytea not null,
  hash     bytea not null
);
create index audit_by_subject on audit (subject, seq);
create index audit_by_actor on audit (actor, seq);

create table audit_head (
  only_row  boolean primary key default true check (only_row),
  seq       bigint not null,
  hash      bytea not null
);
insert into audit_head (seq, hash) values (0, sha256(''));

create function audit_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger audit_append_only before update or delete or truncate on audit for each statement execute function audit_refuse();

-- One round trip for any number of entries, since the head's row is locked from here to the commit.
create function audit_append(entries jsonb) returns void language plpgsql as $$
declare
  head audit_head;
  entry record;
begin
  select * into strict head from audit_head for update;
  for entry in
    select * from jsonb_to_recordset(entries)
      as e (at timestamptz, actor text, role text, action text, subject text, reason text, trace text, request jsonb, result jsonb, digest text)
  loop
    head.seq := head.seq + 1;
    head.hash := sha256(head.hash || int8send(head.seq) || decode(entry.digest, 'hex'));
    insert into audit values (head.seq, entry.at, entry.actor, entry.role, entry.action, entry.subject, entry.reason, entry.trace,
      entry.request, entry.result, decode(entry.digest, 'hex'), head.hash);
  end loop;
  update audit_head set seq = head.seq, hash = head.hash;
end $$;

-- The last event that retention has removed: whoever resumes from before it has missed something and is told so.
create table event_horizon (
  only_row  boolean primary key default true check (only_row),
  xid       xid8 not null,
  id        bigint not null
);
insert into event_horizon (xid, id) values ('0', 0);
