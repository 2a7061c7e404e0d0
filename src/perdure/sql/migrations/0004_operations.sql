-- What people do to runs: who did what to which run, when and why; and which run another was forked from.

create table {schema}.audit (
    number bigint generated always as identity primary key,
    at     timestamptz not null default {schema}.clock(),
    who    text not null,
    verb   text not null,
    run    bigint not null,
    id     text not null,
    reason text,
    detail jsonb,
    command uuid not null default gen_random_uuid()
);
-- A command that is sent again, because its answer was lost, meets its own row.
create unique index audit_run on {schema}.audit (run, command);
create index audit_at on {schema}.audit (at);

-- The run whose history this one began with.
alter table {schema}.runs add column forked bigint;

-- What the randomness of a run is seeded with, where that is not its own key: a fork, and a run that was brought here from
-- another database, have to see on a replay the chance that the kept part of their history saw.
alter table {schema}.runs add column seed text;
