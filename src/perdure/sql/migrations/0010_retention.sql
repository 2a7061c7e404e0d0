-- Retention: what has ended goes again, whole trees at a time.

-- Pruning walks births, the oldest first. Those of present lives have an index in that order; past lives get one here, in
-- which an entry is made when an id is given to a newer life, never at a start or an end.
create index runs_lives on {schema}.runs (created, key) where superseded;

-- How far the workers of a schema are, one row for each set of rules: who moves `due` on looks at the next page. `kept` are
-- the births of this walk that stay, `walks` how many came to their end.
create table {schema}.pruning (
    rules   text primary key,
    due     timestamptz not null default {schema}.clock(),
    created timestamptz not null default '-infinity',
    key     bigint not null default -9223372036854775808,
    kept    bigint not null default 0,
    walks   bigint not null default 0
);
