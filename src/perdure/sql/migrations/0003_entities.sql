-- Durable objects: a row for each, with its state as JSON that SQL can read and search, and the commands that made it.

create table {schema}.entities (
    type    text not null,
    key     text not null,
    version bigint not null default 0,
    state   jsonb,
    changed timestamptz not null default {schema}.clock(),
    primary key (type, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- What was done to each object, in order. `id` names the command: the caller's own, or the step's that it was.
create table {schema}.commands (
    type    text not null,
    key     text not null,
    version bigint not null,
    id      text not null,
    command text not null,
    args    bytea not null,
    value   bytea not null,
    run     bigint,
    done    timestamptz not null default {schema}.clock(),
    primary key (type, key, version)
);
create unique index commands_id on {schema}.commands (type, key, id);
