-- Looking: lists, counts, one run, its steps, the workers.

-- fragment: run_tables
-- What a filter of runs asks; a table that the given filter does not ask is left out of the plan, being joined by its
-- primary key and named nowhere else.
{schema}.runs r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key

-- fragment: run_filter
-- The conditions of a `RunFilter`. Each is for a plan that is made for these very values (`store.runs` sends what
-- has it unprepared): what is not given is null, and its condition is gone before the planner looks. The others
-- are written so that a strict condition on `l` or `e` makes the outer join an inner one, and begins with the
-- few: `stored` and `living` where all statuses asked for are of unfinished runs, `ended` where all are of ended
-- ones, `unhappy` where the index of those that did not succeed will do. An error is looked for among those first.
not r.superseded
and (%(ids)s::text[] is null or r.id = any(%(ids)s::text[]))
and (%(prefix)s::text is null or (r.id >= %(prefix)s::text and starts_with(r.id, %(prefix)s::text)))
and (%(prefix_end)s::text is null or r.id < %(prefix_end)s::text)
and (%(status)s::smallint[] is null
     or {schema}.status_code(l.status, l.cancel, e.status) = any(%(status)s::smallint[]))
and (%(stored)s::smallint[] is null or l.status = any(%(stored)s::smallint[]))
and (%(living)s::smallint[] is null
     or {schema}.status_code(l.status, l.cancel, null) = any(%(living)s::smallint[]))
and (%(ended)s::smallint[] is null or e.status = any(%(ended)s::smallint[]))
and (not %(unhappy)s::boolean or e.status <> 7)
and (%(workflow)s::text[] is null or r.workflow = any(%(workflow)s::text[]))
and (%(queue)s::text[] is null or coalesce(l.queue, r.queue) = any(%(queue)s::text[]))
and (%(version)s::text[] is null or coalesce(l.version, r.version) = any(%(version)s::text[]))
and (%(worker)s::bigint[] is null or coalesce(l.worker, e.worker) = any(%(worker)s::bigint[]))
and (%(tags)s::jsonb is null or r.tags @> %(tags)s::jsonb)
and (%(parents)s::bigint[] is null or r.parent = any(%(parents)s::bigint[]))
and (%(created_after)s::timestamptz is null or r.created >= %(created_after)s::timestamptz)
and (%(created_before)s::timestamptz is null or r.created < %(created_before)s::timestamptz)
and (%(finished_after)s::timestamptz is null or e.finished >= %(finished_after)s::timestamptz)
and (%(finished_before)s::timestamptz is null or e.finished < %(finished_before)s::timestamptz)
and (%(error)s::bytea is null
     or r.key = any(array(
         select u.key from {schema}.ends u
         where u.status <> 7 and u.status = 8 and position(%(error)s::bytea in u.value) > 0
         union all
         select q.key from {schema}.live q where strpos(q.reason, %(reason)s::text) > 0)))

-- name: list_runs
-- Runs by filter, newest first, a page at a time: the cursor is the last row's birth and key. The page is found
-- first, and only its rows are looked up in the other tables.
select r.key, r.id, r.workflow, {schema}.status_code(l.status, l.cancel, e.status) as status,
       coalesce(l.queue, r.queue) as queue, coalesce(l.version, r.version) as version, r.tags,
       coalesce(l.worker, e.worker) as worker, r.created, e.finished, l.ready, l.deadline, l.recoveries, l.reason,
       l.cancel, (select p.id from {schema}.runs p where p.key = r.parent) as parent,
       (select count(*) from {schema}.takeovers t where t.run = r.key) as takeovers
from (select r.key, r.id, r.workflow, r.queue, r.version, r.tags, r.created, r.parent
      from {run_tables}
      where {run_filter}
        and (%(cursor_created)s::timestamptz is null
             or (r.created, r.key) < (%(cursor_created)s::timestamptz, %(cursor_key)s::bigint))
      order by r.created desc, r.key desc
      limit %(limit)s) r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
order by r.created desc, r.key desc

-- name: count_runs
-- How many runs a filter finds.
select count(*) as count from {run_tables} where {run_filter}

-- name: keys_of_id
-- Every life that an id has had: children name the one that started them.
select key from {schema}.runs where id = %(id)s::text and not superseded
union all
select key from {schema}.runs where id = %(id)s::text and superseded

-- name: list_steps
-- What one run's code has been told, in order.
select position, grp, ord, kind, name, failed, value, attempts, seconds, worker, recorded
from {schema}.steps where run = %(key)s
order by grp nulls last, ord, position

-- name: input_of
-- A run's input and, if it has ended, what it ended with.
select r.input, e.value from {schema}.runs r left join {schema}.ends e on e.key = r.key where r.key = %(key)s

-- name: worker_names
-- Who these workers are or were.
select id, name, host, pid from {schema}.workers where id = any(%(ids)s::bigint[])
union all
select id, name, host, pid from {schema}.workers_gone where id = any(%(ids)s::bigint[])

-- name: list_versions
-- What still lives on each version of the code: unfinished runs by status, and workers.
select version, status, count(*) as runs, 0 as workers from {schema}.live group by version, status
union all
select version, null, 0, count(*) from {schema}.workers group by version
