-- The fleet file that was applied last: what is wanted. What is there stands in the tables of the nouns.
create table fleet (
  only_row        boolean primary key default true check (only_row),
  generation      integer not null,
  document        jsonb not null,
  file            text not null,           -- its name, for messages
  base_directory  text not null,           -- what relative paths in it start from
  applied_at      timestamptz not null default clock_timestamp()
);
