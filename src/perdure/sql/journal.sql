-- The batch: what one journal writes in one transaction, in this order. Every row here is under a key
-- that the writer made itself, so only its own earlier try can stand in the way.
--
-- Plans are kept, and are made while tables are empty (tests/integration/test_kept_plans.py): what is looked for in an
-- expression is a scalar subquery, since of `exists` such a plan reads the whole table first (a send then took 0.2 ms,
-- and 1.5 behind 3,000 messages), and `status + 0` is never looked for in an index on the status.

-- name: begin_batch
-- First statement of every batch of a worker: bound the wait for locks, say how to plan, then take the fence or abort.
select set_config('lock_timeout', %(lock_timeout)s, true), set_config('plan_cache_mode', %(plans)s, true),
       {schema}.fence(%(worker)s::bigint, %(slot)s::smallint)

-- name: begin_client_batch
-- First statement of a batch of a client, which owns no runs and needs no fence.
select set_config('lock_timeout', %(lock_timeout)s, true), set_config('plan_cache_mode', %(plans)s, true)

-- name: lock_runs
-- Lock the runs that the batch ends, puts away or hands over, by key, before the statements that look at
-- what they wait for: a look in the statement that takes the lock would be older than the lock.
select key from {schema}.live where key = any(%(keys)s::bigint[]) order by key for no key update

-- name: record_steps
-- Record what the code has been told. First writer wins; what is not inserted is looked up afterwards.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker, message)
select t.run, t.position, t.grp, t.ord, t.kind, t.name, t.failed, t.value, t.attempts, t.seconds, %(worker)s::bigint,
       t.message
from unnest(%(run)s::bigint[], %(position)s::text[], %(grp)s::integer[], %(ord)s::integer[], %(kind)s::smallint[],
            %(name)s::text[], %(failed)s::boolean[], %(value)s::bytea[], %(attempts)s::integer[], %(seconds)s::real[],
            %(message)s::bigint[])
     as t (run, position, grp, ord, kind, name, failed, value, attempts, seconds, message)
on conflict do nothing

-- name: record_step
-- A batch of one step: the same insert as one statement with the fence inside. No row means: fenced, or
-- recorded before; the general form then tells which.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share)
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker, message)
select %(run)s::bigint, %(position)s, %(grp)s::integer, %(ord)s::integer, %(kind)s::smallint, %(name)s, %(failed)s,
       %(value)s::bytea, %(attempts)s::integer, %(seconds)s::real, %(worker)s, %(message)s::bigint from fence
on conflict do nothing

-- name: find_steps
-- Who recorded these positions: the writer's own earlier try, or somebody else.
select s.run, s.position, s.worker
from unnest(%(run)s::bigint[], %(position)s::text[]) as t (run, position)
join {schema}.steps s on s.run = t.run and s.position = t.position

-- name: supersede_failed
-- `on_conflict="restart_if_failed"`: free the id of a run that failed or was cancelled, never of our own. The end is
-- locked first: a run that is being revived just now has none any more, and keeps its id.
with failed as materialized (
    select e.key from {schema}.runs r join {schema}.ends e on e.key = r.key
    where r.id = any(%(id)s::text[]) and not r.superseded and r.key <> all(%(key)s::bigint[]) and e.status + 0 <> 7
    order by e.key for update of e)
update {schema}.runs r set superseded = true from failed where r.key = failed.key and not r.superseded

-- name: start_runs
-- Start runs: owned by this worker, or queued, or scheduled. A child is started only if the step that
-- starts it is recorded by this same worker, in this transaction or an earlier try of it (the scalar
-- subquery cannot become a scan of the whole journal, as `exists` could). Of those with one `dedup` the first is
-- started, and that only if no unfinished run of the queue has it; of those on a queue with a size as many as it has room.
with t as materialized (
    select t.key, t.id, t.workflow, t.input, t.options::jsonb as o
    from unnest(%(key)s::bigint[], %(id)s::text[], %(workflow)s::text[], %(input)s::bytea[], %(options)s::text[])
         as t (key, id, workflow, input, options)),
barred as materialized (
    select t.key from (
        select t.key, t.o ->> 'queue' as queue, t.o ->> 'dedup' as dedup, t.o -> 'sized' as sized,
               row_number() over (partition by t.o ->> 'queue', t.o ->> 'dedup' order by t.key) as nth,
               row_number() over (partition by t.o ->> 'queue', t.o -> 'sized' order by t.key) as place
        from t where t.o ?| '{dedup,sized}') t
    where t.dedup is not null and (t.nth > 1 or (select d.key from {schema}.live d
                                                  where d.queue = t.queue and d.dedup = t.dedup) is not null)
       or t.sized is not null and t.place > (
           select q.size - (select count(*) from (
               select 1 from {schema}.live l where l.queue = q.name and l.status = 2 and not l.begun
               union all
               select 1 from {schema}.live l where l.queue = q.name and l.status = 1 and not l.begun
               limit q.size) x)
           from {schema}.queues q where q.name = t.queue and q.size is not null)),
born as (
    insert into {schema}.runs (key, id, workflow, input, parent, position, queue, queue_key, version, tags, context, worker)
    select t.key, t.id, t.workflow, t.input, (t.o ->> 'parent')::bigint, t.o ->> 'position',
           coalesce(t.o ->> 'queue', t.o ->> 'home'), t.o ->> 'key',
           t.o ->> 'version', t.o -> 'tags', t.o -> 'context', %(worker)s::bigint
    from t
    where t.key not in (select key from barred)
      and (t.o is null or t.o ->> 'parent' is null
       or (select s.worker from {schema}.steps s
           where s.run = (t.o ->> 'parent')::bigint and s.position = t.o ->> 'position' limit 1) = %(worker)s::bigint)
    on conflict do nothing
    returning key)
insert into {schema}.live (key, workflow, status, worker, queue, queue_key, dedup, priority, arrival, ready, deadline, expires,
                           begun, version, parent)
select t.key, t.workflow,
       case when t.o ->> 'queue' is null then 3 when t.o ->> 'delay' is null then 2 else 1 end,
       case when t.o ->> 'queue' is null then %(worker)s::bigint end,
       coalesce(t.o ->> 'queue', t.o ->> 'home', 'default'), coalesce(t.o ->> 'key', ''), t.o ->> 'dedup',
       coalesce((t.o ->> 'priority')::integer, 0),
       case when t.o ->> 'queue' is null then 0 else nextval('{schema}.arrivals') end,
       {schema}.clock() + (t.o ->> 'delay')::double precision * interval '1 second',
       {schema}.clock() + (t.o ->> 'timeout')::double precision * interval '1 second',
       {schema}.clock() + (t.o ->> 'expires')::double precision * interval '1 second',
       t.o ->> 'queue' is null,
       t.o ->> 'version',
       case when t.o ->> 'close' = 'cancel' then (t.o ->> 'parent')::bigint end
from t join born using (key)

-- name: lock_dedups
-- Of those who start runs with the same `dedup` at a time one looks after the other, so that the second sees the first.
select pg_advisory_xact_lock(hashtextextended({schema_literal} || ' ' || t.queue || ' ' || t.dedup, 0))
from (select distinct queue, dedup from unnest(%(queue)s::text[], %(dedup)s::text[]) as t (queue, dedup)
      order by queue, dedup) t

-- name: find_dedups
-- Which unfinished runs have these.
select l.queue, l.dedup, l.key, r.id from unnest(%(queue)s::text[], %(dedup)s::text[]) as t (queue, dedup)
join {schema}.live l on l.queue = t.queue and l.dedup = t.dedup join {schema}.runs r on r.key = l.key

-- name: start_run
-- A batch of one plain start, owned by this worker: one statement with the fence inside.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
born as (
    insert into {schema}.runs (key, id, workflow, input, worker)
    select %(key)s::bigint, %(id)s, %(workflow)s, %(input)s::bytea, %(worker)s from fence
    on conflict do nothing
    returning key)
insert into {schema}.live (key, workflow, status, worker, begun)
select key, %(workflow)s, 3, %(worker)s, true from born

-- name: start_with_options
-- A batch of one start from outside that nothing can bar but its id, queued or not: the same inserts as one statement,
-- with the fence inside, where the writer has one. A client has none.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
t as materialized (select %(options)s::text::jsonb as o where %(worker)s::bigint is null or exists (select 1 from fence)),
born as (
    insert into {schema}.runs (key, id, workflow, input, queue, queue_key, version, tags, context, worker)
    select %(key)s::bigint, %(id)s, %(workflow)s, %(input)s::bytea, coalesce(t.o ->> 'queue', t.o ->> 'home'),
           t.o ->> 'key', t.o ->> 'version', t.o -> 'tags', t.o -> 'context', %(worker)s
    from t
    on conflict do nothing
    returning key)
insert into {schema}.live (key, workflow, status, worker, queue, queue_key, priority, arrival, ready, deadline, expires,
                           begun, version)
select born.key, %(workflow)s,
       case when t.o ->> 'queue' is null then 3 when t.o ->> 'delay' is null then 2 else 1 end,
       case when t.o ->> 'queue' is null then %(worker)s end,
       coalesce(t.o ->> 'queue', t.o ->> 'home', 'default'), coalesce(t.o ->> 'key', ''),
       coalesce((t.o ->> 'priority')::integer, 0),
       case when t.o ->> 'queue' is null then 0 else nextval('{schema}.arrivals') end,
       {schema}.clock() + (t.o ->> 'delay')::double precision * interval '1 second',
       {schema}.clock() + (t.o ->> 'timeout')::double precision * interval '1 second',
       {schema}.clock() + (t.o ->> 'expires')::double precision * interval '1 second',
       t.o ->> 'queue' is null, t.o ->> 'version'
from t cross join born

-- name: find_runs
-- Which runs have these ids now: the writer's own, or others to attach to.
select id, key, workflow from {schema}.runs where id = any(%(id)s::text[]) and not superseded

-- name: find_children
-- Whether the steps that start these children are recorded by this worker.
select s.run, s.position, s.worker
from unnest(%(run)s::bigint[], %(position)s::text[]) as t (run, position)
join {schema}.steps s on s.run = t.run and s.position = t.position

-- name: add_waits
-- Note what a call waits for, once: a replay finds the time that was fixed first.
insert into {schema}.waits (run, position, due, target, topic)
select t.run, t.position,
       coalesce(t.at, {schema}.clock() + t.seconds * interval '1 second'), t.target, t.topic
from unnest(%(run)s::bigint[], %(position)s::text[], %(seconds)s::double precision[], %(at)s::timestamptz[],
            %(target)s::bigint[], %(topic)s::text[]) as t (run, position, seconds, at, target, topic)
on conflict do nothing

-- name: drop_waits
-- Forget waits that were answered, or whose branch was cancelled.
delete from {schema}.waits w
using unnest(%(run)s::bigint[], %(position)s::text[]) as t (run, position)
where w.run = t.run and w.position = t.position

-- name: add_intents
-- Note that bodies are about to begin which must not be begun twice.
insert into {schema}.intents (run, position, name, worker)
select t.run, t.position, t.name, %(worker)s::bigint
from unnest(%(run)s::bigint[], %(position)s::text[], %(name)s::text[]) as t (run, position, name)
on conflict do nothing

-- name: note_progress
-- What the bodies of steps last said of their progress, for their next attempts.
insert into {schema}.intents (run, position, name, worker, detail)
select t.run, t.position, t.name, %(worker)s::bigint, t.detail
from unnest(%(run)s::bigint[], %(position)s::text[], %(name)s::text[], %(detail)s::bytea[])
     as t (run, position, name, detail)
on conflict (run, position) do update set detail = excluded.detail

-- name: end_runs
-- End runs that this worker owns. An end stands only if nobody asked for a cancel before (or the end is
-- the answer to that); the lock on the live row decides between the two. The delete names no row of `t`: a
-- join there compares each with each (50 us a row at 500, against 2).
with t as materialized (
    select * from unnest(%(key)s::bigint[], %(status)s::smallint[], %(value)s::bytea[]) as t (key, status, value)),
gone as (
    delete from {schema}.live l
    where l.key = any(%(key)s::bigint[]) and l.worker = %(worker)s::bigint
      and (l.cancel = 0 or l.key = any(%(regardless)s::bigint[]))
    returning l.key)
insert into {schema}.ends (key, status, value, worker)
select t.key, t.status, t.value, %(worker)s::bigint from t join gone using (key)

-- name: continue_runs
-- End this life of runs that go on as new, and give each a new one under its id, in the same queue; not if a cancel was
-- asked for before. Each part takes its rows from the one before, so that the id is free when it is given again.
with t as materialized (
    select * from unnest(%(keys)s::bigint[], %(next)s::bigint[], %(input)s::bytea[]) as t (key, next, input)),
gone as (
    delete from {schema}.live l
    where l.key = any(%(keys)s::bigint[]) and l.worker = %(worker)s::bigint and l.cancel = 0
    returning l.key, l.workflow, l.queue, l.queue_key, l.priority, l.deadline, l.version, l.parent, l.schedule),
past as (
    update {schema}.runs r set superseded = true from gone where r.key = gone.key
    returning r.key, r.id, r.workflow, r.parent, r.position, r.queue, r.queue_key, r.tags, r.context, r.schedule,
              r.scheduled_at),
born as (
    insert into {schema}.runs (key, id, workflow, input, parent, position, queue, queue_key, version, tags, context, worker,
                               schedule, scheduled_at)
    select t.next, p.id, p.workflow, t.input, p.parent, p.position, p.queue, p.queue_key, gone.version, p.tags, p.context,
           %(worker)s::bigint, p.schedule, p.scheduled_at
    from t join past p on p.key = t.key join gone on gone.key = t.key
    returning key),
living as (
    insert into {schema}.live (key, workflow, status, queue, queue_key, priority, arrival, deadline, version, parent,
                               schedule)
    select t.next, gone.workflow, 2, gone.queue, gone.queue_key, gone.priority, nextval('{schema}.arrivals'), gone.deadline,
           gone.version, gone.parent, gone.schedule
    from t join born on born.key = t.next join gone on gone.key = t.key)
insert into {schema}.ends (key, status, value, worker)
select t.key, 10, convert_to(t.next::text, 'UTF8'), %(worker)s::bigint from t join gone on gone.key = t.key

-- name: move_messages
-- Messages that the life that has ended did not consume are the next one's.
update {schema}.messages m set run = t.next
from unnest(%(keys)s::bigint[], %(next)s::bigint[]) as t (key, next)
where m.run = t.key and (select l.key from {schema}.live l where l.key = t.next) is not null
  and not exists (select 1 from {schema}.steps s where s.run = m.run and s.message = m.seq)

-- name: move_children
-- Children that were to end with it are the next one's too.
update {schema}.live l set parent = t.next
from unnest(%(keys)s::bigint[], %(next)s::bigint[]) as t (key, next)
where l.parent = any(%(keys)s::bigint[]) and l.parent = t.key
  and (select n.key from {schema}.live n where n.key = t.next) is not null

-- name: move_waiters
-- Whoever waits for its end waits for that of the next one.
update {schema}.waits w set target = t.next
from unnest(%(keys)s::bigint[], %(next)s::bigint[]) as t (key, next)
where w.target = any(%(keys)s::bigint[]) and w.target = t.key
  and (select n.key from {schema}.live n where n.key = t.next) is not null

-- name: record_step_and_end
-- A batch of a last step and its run's end: one statement with the fence inside.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
step as (
    insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker, message)
    select %(run)s::bigint, %(position)s, %(grp)s::integer, %(ord)s::integer, %(kind)s::smallint, %(name)s, %(failed)s,
           %(value)s::bytea, %(attempts)s::integer, %(seconds)s::real, %(worker)s, %(message)s::bigint from fence
    on conflict do nothing
    returning 1),
gone as (
    delete from {schema}.live l using step
    where l.key = %(run)s and l.worker = %(worker)s and (l.cancel = 0 or %(regardless)s)
    returning l.key)
insert into {schema}.ends (key, status, value, worker)
select key, %(status)s::smallint, %(end_value)s::bytea, %(worker)s from gone

-- name: end_run
-- A batch of one end: one statement with the fence inside.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
gone as (
    delete from {schema}.live l using fence
    where l.key = %(run)s and l.worker = %(worker)s and (l.cancel = 0 or %(regardless)s)
    returning l.key)
insert into {schema}.ends (key, status, value, worker)
select key, %(status)s::smallint, %(end_value)s::bytea, %(worker)s from gone

-- name: find_ends
-- Why an end did not stand: it had before, a cancel came first, or the run is no longer ours.
select t.key, e.worker as ended_by, l.worker as owner, l.cancel
from unnest(%(key)s::bigint[]) as t (key)
left join {schema}.ends e on e.key = t.key
left join {schema}.live l on l.key = t.key

-- name: drop_waits_of_runs
-- Ended runs wait for nothing.
delete from {schema}.waits where run = any(%(keys)s::bigint[])

-- name: follow_waits
-- Before a run is put away: where what it waits for has gone on as new, it waits for that run's present life. One that
-- goes on just now is seen by the put-away's look, or by the sweep, and comes here again.
with recursive life (run, position, target) as (
    select w.run, w.position, convert_from(e.value, 'UTF8')::bigint
    from {schema}.waits w cross join lateral (
        select value from {schema}.ends where key = w.target and status + 0 = 10 limit 1) e
    where w.run = any(%(keys)s::bigint[])
    union all
    select l.run, l.position, convert_from(e.value, 'UTF8')::bigint
    from life l cross join lateral (
        select value from {schema}.ends where key = l.target and status + 0 = 10 limit 1) e)
update {schema}.waits w set target = l.target from life l
where w.run = l.run and w.position = l.position
  and (select e.key from {schema}.ends e where e.key = l.target and e.status + 0 = 10) is null

-- name: trim_waits
-- Before a run is put away, forget the waits of branches that no longer wait. Only of the life that asks: a
-- run that was claimed again since, after an answer was lost, has waits of its own.
delete from {schema}.waits w
using unnest(%(keys)s::bigint[], %(claims)s::integer[]) as t (key, claim)
      cross join lateral (select worker, claims from {schema}.live where key = t.key limit 1) l
where w.run = t.key and l.worker = %(worker)s::bigint and l.claims = t.claim
  and not exists (select 1 from unnest(%(run)s::bigint[], %(position)s::text[]) as k (run, position)
                  where k.run = w.run and k.position = w.position)

-- name: put_away
-- Put runs away to wait without memory or slot, unless what they wait for has already come: a time, the end of a
-- run, its event, or a message after those that the run has seen. The run's row is locked by an earlier
-- statement, so whoever brings what it waits for either is seen here or finds it waiting.
update {schema}.live l set status = 4, worker = null, ready = w.due
from (select w.run, min(w.due) as due,
             bool_or(coalesce(w.due <= {schema}.clock(), false) or e.key is not null
                     or (w.topic is null and p.key is not null)
                     or case when w.target is null
                             then exists (select 1 from {schema}.messages m
                                          where m.run = w.run and m.topic = w.topic and m.seq > k.seen)
                             else (select v.run from {schema}.events v where v.run = w.target and v.key = w.topic limit 1) is not null
                        end) as answered
      from unnest(%(run)s::bigint[], %(position)s::text[], %(seen)s::bigint[]) as k (run, position, seen)
      join {schema}.waits w on w.run = k.run and w.position = k.position
      left join {schema}.ends e on e.key = w.target
      left join {schema}.live p on p.key = w.target and p.status = 6
      group by w.run) w,
     unnest(%(keys)s::bigint[], %(claims)s::integer[]) as t (key, claim)
where l.key = any(%(keys)s::bigint[]) and l.key = w.run and l.key = t.key and l.claims = t.claim
  and l.worker = %(worker)s::bigint and l.cancel = 0 and not w.answered
returning l.key

-- name: begin_undoing
-- Runs that have failed and undo what they did: a cancel from now on changes nothing.
update {schema}.live set cancel = 4
where key = any(%(keys)s::bigint[]) and worker = %(worker)s::bigint and cancel = 0

-- name: hand_over
-- Give runs back to the queue, for another worker to go on with at once. Where a claim is named, only that life.
update {schema}.live l set status = 2, worker = null, ready = null
from unnest(%(keys)s::bigint[], %(claims)s::integer[]) as t (key, claim)
where l.key = any(%(keys)s::bigint[]) and l.key = t.key and l.worker = %(worker)s::bigint
  and l.claims = coalesce(t.claim, l.claims)

-- name: park_runs
-- Park runs: they stay as they are, with the reason, until somebody resumes them.
update {schema}.live l set status = 6, worker = null, reason = t.reason
from unnest(%(keys)s::bigint[], %(claims)s::integer[], %(reason)s::text[]) as t (key, claim, reason)
where l.key = any(%(keys)s::bigint[]) and l.key = t.key and l.worker = %(worker)s::bigint and l.claims = t.claim
