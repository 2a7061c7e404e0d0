-- Looking: lists, counts, one run, its steps, the workers.

-- name: list_runs
-- Runs by filter, newest first, a page at a time: the cursor is the last row's birth and key.
select r.key, r.id, r.workflow, coalesce(e.status, case when l.cancel > 0 and l.status in (2, 3, 4) then 5 else l.status end) as status, coalesce(l.queue, r.queue) as queue,
       coalesce(l.version, r.version) as version, r.tags, coalesce(l.worker, e.worker) as worker, r.created, e.finished, l.ready, l.deadline,
       l.recoveries, l.reason, l.cancel, p.id as parent,
       (select count(*) from {schema}.takeovers t where t.run = r.key) as takeovers
from {schema}.runs r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
left join {schema}.runs p on p.key = r.parent
where not r.superseded
  and (%(ids)s::text[] is null or r.id = any(%(ids)s::text[]))
  and (%(prefix)s::text is null or starts_with(r.id, %(prefix)s::text))
  and (%(status)s::smallint[] is null or coalesce(e.status, case when l.cancel > 0 and l.status in (2, 3, 4) then 5 else l.status end)
                                         = any(%(status)s::smallint[]))
  and (%(workflow)s::text[] is null or r.workflow = any(%(workflow)s::text[]))
  and (%(queue)s::text[] is null or coalesce(l.queue, r.queue) = any(%(queue)s::text[]))
  and (%(version)s::text[] is null or coalesce(l.version, r.version) = any(%(version)s::text[]))
  and (%(worker)s::bigint[] is null or coalesce(l.worker, e.worker) = any(%(worker)s::bigint[]))
  and (%(tags)s::jsonb is null or r.tags @> %(tags)s::jsonb)
  and (%(parent)s::text is null or p.id = %(parent)s::text)
  and (%(created_after)s::timestamptz is null or r.created >= %(created_after)s::timestamptz)
  and (%(created_before)s::timestamptz is null or r.created < %(created_before)s::timestamptz)
  and (%(error)s::text is null
       or (e.status = 8 and strpos(convert_from(e.value, 'UTF8'), %(error)s::text) > 0)
       or strpos(l.reason, %(error)s::text) > 0)
  and (%(cursor_created)s::timestamptz is null
       or (r.created, r.key) < (%(cursor_created)s::timestamptz, %(cursor_key)s::bigint))
order by r.created desc, r.key desc
limit %(limit)s

-- name: count_runs
-- How many runs a filter finds.
select count(*) as count
from {schema}.runs r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
left join {schema}.runs p on p.key = r.parent
where not r.superseded
  and (%(ids)s::text[] is null or r.id = any(%(ids)s::text[]))
  and (%(prefix)s::text is null or starts_with(r.id, %(prefix)s::text))
  and (%(status)s::smallint[] is null or coalesce(e.status, case when l.cancel > 0 and l.status in (2, 3, 4) then 5 else l.status end)
                                         = any(%(status)s::smallint[]))
  and (%(workflow)s::text[] is null or r.workflow = any(%(workflow)s::text[]))
  and (%(queue)s::text[] is null or coalesce(l.queue, r.queue) = any(%(queue)s::text[]))
  and (%(version)s::text[] is null or coalesce(l.version, r.version) = any(%(version)s::text[]))
  and (%(worker)s::bigint[] is null or coalesce(l.worker, e.worker) = any(%(worker)s::bigint[]))
  and (%(tags)s::jsonb is null or r.tags @> %(tags)s::jsonb)
  and (%(parent)s::text is null or p.id = %(parent)s::text)
  and (%(created_after)s::timestamptz is null or r.created >= %(created_after)s::timestamptz)
  and (%(created_before)s::timestamptz is null or r.created < %(created_before)s::timestamptz)
  and (%(error)s::text is null
       or (e.status = 8 and strpos(convert_from(e.value, 'UTF8'), %(error)s::text) > 0)
       or strpos(l.reason, %(error)s::text) > 0)

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
