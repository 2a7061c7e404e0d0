-- Pruning: which trees have ended and are kept no longer, and their end.

-- fragment: kept_for
-- How many seconds runs of workflow and status `x` are kept: the first rule for both decides, and they come with the most
-- particular first. No rule, and a rule without seconds, keeps for ever.
(select k.seconds
 from unnest(%(patterns)s::text[], %(exact)s::boolean[], %(statuses)s::smallint[], %(seconds)s::double precision[])
      with ordinality as k (pattern, exact, status, seconds, place)
 where k.status = case when x.status = 10 then 7 else x.status end
   and case when k.exact then x.workflow = k.pattern else starts_with(x.workflow, k.pattern) end
 order by k.place limit 1)

-- name: find_outdated
-- A page of births, oldest first, of present and of past lives, and which of them begin a tree, have ended and are kept no
-- longer: candidates, whose trees are still to be looked at. Nobody ends before he is born, so the walk stops at births
-- younger than the shortest time that any rule keeps.
with page as materialized (
    (select created, key, workflow, parent from {schema}.runs
     where not superseded and (created, key) > (%(created)s::timestamptz, %(key)s::bigint)
       and created < {schema}.clock() - %(least)s * interval '1 second'
     order by created, key limit %(limit)s)
    union all
    (select created, key, workflow, parent from {schema}.runs
     where superseded and (created, key) > (%(created)s::timestamptz, %(key)s::bigint)
       and created < {schema}.clock() - %(least)s * interval '1 second'
     order by created, key limit %(limit)s)
    order by created, key limit %(limit)s),
ended as materialized (
    select r.key, r.workflow, e.status, e.finished
    from page r
    cross join lateral (select status, finished from {schema}.ends where key = r.key limit 1) e
    where e.finished < {schema}.clock() - %(least)s * interval '1 second'
      and (r.parent is null or (select true from {schema}.runs p where p.key = r.parent limit 1) is null)),
rule as materialized (
    select x.workflow, x.status, interval '1 second' * {kept_for} as kept
    from (select distinct workflow, status from ended) x),
found as materialized (
    select e.key from ended e join rule on rule.workflow = e.workflow and rule.status = e.status
    where e.finished < {schema}.clock() - rule.kept)
select (select count(*) from page) as looked, last.created, last.key,
       (select array_agg(key order by key) from found) as roots
from (select 1) as always (one)
left join (select created, key from page order by created desc, key desc limit 1) last on true

-- name: find_trees
-- The trees that begin with these runs and are kept no longer: each with the past lives under its id, if it is the present
-- life, and all that these have started, directly or not. A life whose parent is there is of that one's tree. Only trees
-- of which every run has ended and is kept no longer, and for the end of none of which an unfinished run waits.
with recursive start as materialized (
    select r.key, r.id, r.superseded
    from unnest(%(keys)s::bigint[]) as k (key)
    cross join lateral (select key, id, superseded from {schema}.runs where key = k.key limit 1) r),
tree (root, key) as (
    (select key, key from start
     union all
     select s.key, o.key
     from start s
     cross join lateral (select key, parent from {schema}.runs where id = s.id and superseded offset 0) o
     left join lateral (select 1 as lives from {schema}.runs where key = o.parent limit 1) p on true
     where not s.superseded and p.lives is null)
    union
    select t.root, c.key from tree t
    cross join lateral (select key from {schema}.runs where parent = t.key offset 0) c)
select t.root, array_agg(t.key order by t.key) as keys
from tree t
left join lateral (
    select r.workflow, e.status, e.finished from {schema}.runs r
    cross join lateral (select status, finished from {schema}.ends where key = r.key limit 1) e
    where r.key = t.key limit 1) x on true
left join lateral (
    select 1 as waits from {schema}.waits w join {schema}.live l on l.key = w.run where w.target = t.key limit 1) w on true
group by t.root
having bool_and(coalesce(x.finished < {schema}.clock() - interval '1 second' * {kept_for}, false) and w.waits is null)
order by t.root

-- name: lock_outdated_ends
-- Lock ends of runs that are to go; who holds one already has something to do with it, and keeps it.
select key from {schema}.ends where key = any(%(keys)s::bigint[]) order by key for update skip locked

-- name: lock_outdated_births
-- The same for their births: somebody may just fork one, or take its id.
select key from {schema}.runs where key = any(%(keys)s::bigint[]) order by key for update skip locked

-- name: count_outdated
-- How many runs of each workflow these are, and how they ended.
select r.workflow, {schema}.status_name(e.status) as status, count(*) as runs
from unnest(%(keys)s::bigint[]) as k (key)
cross join lateral (select workflow from {schema}.runs where key = k.key limit 1) r
cross join lateral (select status from {schema}.ends where key = k.key limit 1) e
group by r.workflow, e.status

-- name: count_rows_of_runs
-- How many rows these runs have in each table.
select (select count(*) from {schema}.steps where run = any(%(keys)s::bigint[])) as steps,
       (select count(*) from {schema}.messages where run = any(%(keys)s::bigint[])) as messages,
       (select count(*) from {schema}.events where run = any(%(keys)s::bigint[])) as events,
       (select count(*) from {schema}.streams where run = any(%(keys)s::bigint[])) as streams,
       (select count(*) from {schema}.waits where run = any(%(keys)s::bigint[])) as waits,
       (select count(*) from {schema}.intents where run = any(%(keys)s::bigint[])) as intents,
       (select count(*) from {schema}.takeovers where run = any(%(keys)s::bigint[])) as takeovers,
       (select count(*) from {schema}.ends where key = any(%(keys)s::bigint[])) as ends,
       (select count(*) from {schema}.runs where key = any(%(keys)s::bigint[])) as runs

-- name: audit_pruning
-- Note that somebody has pruned: one row for all that went, under no run's key.
insert into {schema}.audit (who, verb, run, id, reason, detail, command)
values (%(who)s, 'prune', 0, '*', %(reason)s, %(detail)s::jsonb, %(command)s)
on conflict do nothing

-- name: begin_pruning
-- A place in the walk for these rules.
insert into {schema}.pruning (rules) values (%(rules)s) on conflict do nothing

-- name: take_page
-- Take the next page of the walk, if it is due: whoever comes meanwhile waits for this row, then finds it is not.
update {schema}.pruning set due = {schema}.clock() + %(within)s * interval '1 second'
where rules = %(rules)s and due <= {schema}.clock() returning nullif(created, '-infinity') as created, key, kept

-- name: end_page
-- The page is done: the next one begins behind it.
update {schema}.pruning
set created = %(created)s::timestamptz, key = %(key)s::bigint, kept = %(kept)s::bigint, due = {schema}.clock()
where rules = %(rules)s

-- name: end_walk
-- All pages are done: after a rest the walk begins again.
update {schema}.pruning
set created = default, key = default, kept = 0, walks = walks + 1,
    due = {schema}.clock() + %(rest)s * interval '1 second'
where rules = %(rules)s

-- name: forget_workers
-- Workers that are long gone, so many at a time; runs that are kept still have their numbers.
delete from {schema}.workers_gone
where id in (select id from {schema}.workers_gone
             where ended < {schema}.clock() - %(seconds)s * interval '1 second' limit %(limit)s for update skip locked)
returning id

-- name: forget_told
-- Told commands that have failed, and are kept no longer than runs that failed.
delete from {schema}.told
where id in (select id from {schema}.told
             where error is not null and told < {schema}.clock() - %(seconds)s * interval '1 second'
             limit %(limit)s for update skip locked)
returning id

-- name: forget_walks
-- Walks by rules that nobody has had for long.
delete from {schema}.pruning where due < {schema}.clock() - interval '30 days'
