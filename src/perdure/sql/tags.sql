-- Tags: what runs are found by. They stand in the row of the birth, since most runs have none and few change them.

-- fragment: merged_tags
-- A run's tags with those of `given` over them, without those of `gone`; null, and out of the index, where none is left.
nullif((coalesce(r.tags, '{}') || coalesce(c.given, '{}')) - coalesce(c.gone, '{}'::text[]), '{}')

-- name: merge_tags
-- Give runs the tags that their steps set, with those steps: only where this very transaction recorded the step, so that
-- a batch that is sent again, whose first try was committed, does not put back what somebody has changed since. Of
-- several steps of a run the last says what becomes of a tag. Each run is its owner's; the rows are locked by key,
-- as in `lock_runs_for_tags`, because others change tags too.
with word as (
    select distinct on (t.run, e.name) t.run, e.name, e.value
    from unnest(%(run)s::bigint[], %(position)s::text[], %(tags)s::text[]) with ordinality
         as t (run, position, tags, number)
    join {schema}.steps s on s.run = t.run and s.position = t.position
    cross join lateral jsonb_each(t.tags::jsonb) as e (name, value)
    where s.worker = %(worker)s::bigint and s.xmin = pg_current_xact_id()::xid
    order by t.run, e.name, t.number desc),
change as (
    select run as key, jsonb_object_agg(name, value) filter (where value <> 'null') as given,
           array_agg(name) filter (where value = 'null') as gone
    from word group by run),
locked as materialized (
    select key from {schema}.runs where key = any(array(select key from change)) order by key for no key update)
update {schema}.runs r set tags = {merged_tags}
from change c join locked using (key)
where r.key = any(array(select key from change)) and r.key = c.key

-- name: lock_runs_for_tags
-- The rows of runs whose tags are about to change, by key: of two that change the same, one waits.
select key from {schema}.runs where key = any(%(keys)s::bigint[]) and not superseded order by key for no key update

-- name: set_tags
-- Give runs tags, and take tags away; in a statement after the one that locked them, so that it goes by what they are.
update {schema}.runs r set tags = {merged_tags}
from (select %(given)s::jsonb as given, %(gone)s::text[] as gone) c
where r.key = any(%(keys)s::bigint[]) and not r.superseded
returning r.key
