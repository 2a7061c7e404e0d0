-- Schedules: declared, changed, and their ticks taken one after the other, each under its schedule's lock.

-- fragment: schedule_columns
-- What is known of a schedule, in the order in which `store.schedules` reads it.
s.name, s.workflow, s.cron, s.every, s.anchor, s.timezone, s.overlap, s.jitter, s.catch_up, s.input, s.queue, s.options,
s.paused, s.note, s.next, s.pending, s.last, s.skipped, s.missed, s.created, s.changed

-- name: declared_schedules
-- What the code said last of these schedules: where it says the same again, nothing is to be done.
select name, declared from {schema}.schedules where name = any(%(names)s::text[])

-- name: lock_schedules
-- Lock schedules, in the order of their names, before deciding what becomes of them.
select {schedule_columns}, s.declared, {schema}.clock() as now
from {schema}.schedules s where s.name = any(%(names)s::text[]) order by s.name for update

-- name: clock
-- The time.
select {schema}.clock()

-- name: put_schedules
-- Declare schedules: new ones, and those of which the code says something else than before. Of two that declare the same
-- at a time the second waits, and finds nothing to change. A pause stays, unless the code itself says another.
insert into {schema}.schedules as s (name, workflow, cron, every, anchor, timezone, overlap, jitter, catch_up, input, queue,
                                     options, declared, paused, next)
select t.name, t.workflow, t.cron, t.every, t.anchor, t.timezone, t.overlap, t.jitter, t.catch_up, t.input, t.queue,
       t.options::jsonb, t.declared::jsonb, t.paused, t.next
from unnest(%(name)s::text[], %(workflow)s::text[], %(cron)s::text[], %(every)s::interval[], %(anchor)s::timestamptz[],
            %(timezone)s::text[], %(overlap)s::text[], %(jitter)s::interval[], %(catch_up)s::interval[],
            %(input)s::bytea[], %(queue)s::text[], %(options)s::text[], %(declared)s::text[], %(paused)s::boolean[],
            %(next)s::timestamptz[])
     as t (name, workflow, cron, every, anchor, timezone, overlap, jitter, catch_up, input, queue, options, declared, paused,
           next)
on conflict (name) do update
set workflow = excluded.workflow, cron = excluded.cron, every = excluded.every, anchor = excluded.anchor,
    timezone = excluded.timezone, overlap = excluded.overlap, jitter = excluded.jitter, catch_up = excluded.catch_up,
    input = excluded.input, queue = excluded.queue, options = excluded.options, declared = excluded.declared,
    paused = case when s.declared -> 'paused' = excluded.declared -> 'paused' then s.paused else excluded.paused end,
    next = excluded.next, changed = {schema}.clock()
where s.declared <> excluded.declared
returning s.name

-- name: edit_schedule
-- Change a schedule that is locked; what the code said of it stays as it was.
update {schema}.schedules s
set workflow = %(workflow)s, cron = %(cron)s, every = %(every)s, anchor = %(anchor)s, timezone = %(timezone)s,
    overlap = %(overlap)s, jitter = %(jitter)s, catch_up = %(catch_up)s, input = %(input)s::bytea, queue = %(queue)s,
    options = %(options)s::text::jsonb, paused = %(paused)s, note = %(note)s, next = %(next)s::timestamptz,
    changed = {schema}.clock()
where s.name = %(name)s

-- name: delete_schedules
-- Delete schedules; runs of theirs go on.
delete from {schema}.schedules where name = any(%(names)s::text[]) returning name

-- name: audit_schedule
-- Note what was done to a schedule, by whom and why, in the transaction that does it; it is no run's, and has its name.
insert into {schema}.audit (who, verb, run, id, reason, detail, command)
values (%(who)s, %(verb)s, 0, %(name)s, %(reason)s, %(detail)s::text::jsonb, %(command)s)
on conflict do nothing

-- name: list_schedules
-- Schedules by name, a page at a time.
select {schedule_columns}
from {schema}.schedules s
where (%(names)s::text[] is null or s.name = any(%(names)s::text[]))
  and (%(workflow)s::text is null or s.workflow = %(workflow)s)
  and (%(paused)s::boolean is null or s.paused = %(paused)s)
  and (%(after)s::text is null or s.name > %(after)s collate "C")
order by s.name limit %(limit)s

-- name: runs_of_schedule
-- The unfinished runs for which a schedule's next ticks wait, oldest first.
select r.id from {schema}.live l join {schema}.runs r on r.key = l.key
where l.schedule = %(name)s order by r.created, r.key limit %(limit)s

-- name: look_at_schedules
-- When the next tick is due, whether any tick waits for a run, and whether one of those may begin or has others to stop:
-- all that a worker asks while nothing happens. `put_off` are those that failed here a moment ago.
select (select extract(epoch from s.next - {schema}.clock())::double precision from {schema}.schedules s
        where not s.paused and s.next is not null and s.name <> all(%(put_off)s::text[])
        order by s.next limit 1) as due_in,
       exists (select 1 from {schema}.schedules s where not s.paused and s.pending <> '{}') as waits,
       exists (select 1 from {schema}.schedules s
               where not s.paused and s.pending <> '{}' and s.name <> all(%(put_off)s::text[])
                 and ((select l.key from {schema}.live l where l.schedule = s.name limit 1) is null
                      or (s.overlap in ('cancel_other', 'terminate_other')
                          and (select l.key from {schema}.live l
                               where l.schedule = s.name and l.cancel <> 2
                                 and (l.cancel = 0 or s.overlap = 'terminate_other') limit 1) is not null))) as ready

-- name: take_due_schedules
-- Lock schedules that are due and that nobody else decides on. The condition is looked at again once a row is locked, so
-- that one which another worker has just moved on is left alone.
select {schedule_columns}, {schema}.clock() as now
from {schema}.schedules s
where not s.paused and s.next is not null and s.next <= {schema}.clock() and s.name <> all(%(put_off)s::text[])
order by s.next limit %(limit)s
for update skip locked

-- name: take_waiting_schedules
-- Lock schedules of which a tick waits for a run that seems to have ended, or to have to be told to stop; whether it is so
-- is asked in a later statement, since what this one sees of other tables may be older than the lock.
select {schedule_columns}, {schema}.clock() as now
from {schema}.schedules s
where not s.paused and s.pending <> '{}' and s.name <> all(%(put_off)s::text[])
  and (s.overlap in ('cancel_other', 'terminate_other')
       or (select l.key from {schema}.live l where l.schedule = s.name limit 1) is null)
order by s.name limit %(limit)s
for update skip locked

-- name: busy_schedules
-- Which of these schedules, which are locked, have a run that has not ended.
select n.name from unnest(%(names)s::text[]) as n (name)
where exists (select 1 from {schema}.live l where l.schedule = n.name)

-- name: start_ticks
-- Start the runs of ticks, queued or, where jitter delays them, scheduled, in the transaction that moves their schedules on.
-- A tick whose id is taken has its run already. Sorted by id, as every start is.
with t as materialized (
    select t.key, t.id, t.schedule, t.counts, t.workflow, t.input, t.tick, t.ready, t.options::jsonb as o
    from unnest(%(key)s::bigint[], %(id)s::text[], %(schedule)s::text[], %(counts)s::boolean[], %(workflow)s::text[],
                %(input)s::bytea[], %(tick)s::timestamptz[], %(ready)s::timestamptz[], %(options)s::text[])
         as t (key, id, schedule, counts, workflow, input, tick, ready, options)),
born as (
    insert into {schema}.runs (key, id, workflow, input, queue, queue_key, version, tags, context, worker, schedule,
                               scheduled_at)
    select t.key, t.id, t.workflow, t.input, coalesce(t.o ->> 'queue', 'default'), t.o ->> 'key', t.o ->> 'version',
           t.o -> 'tags', t.o -> 'context', %(worker)s::bigint, t.schedule, t.tick
    from t
    on conflict do nothing
    returning key)
insert into {schema}.live (key, workflow, status, queue, queue_key, priority, arrival, ready, deadline, expires, version,
                           schedule)
select t.key, t.workflow, case when t.ready > {schema}.clock() then 1 else 2 end, coalesce(t.o ->> 'queue', 'default'),
       coalesce(t.o ->> 'key', ''), coalesce((t.o ->> 'priority')::integer, 0), nextval('{schema}.arrivals'),
       case when t.ready > {schema}.clock() then t.ready end,
       greatest(t.ready, {schema}.clock()) + (t.o ->> 'timeout')::double precision * interval '1 second',
       greatest(t.ready, {schema}.clock()) + (t.o ->> 'expires')::double precision * interval '1 second',
       t.o ->> 'version', case when t.counts then t.schedule end
from t join born using (key)
returning key

-- name: advance_schedules
-- Move locked schedules on, beyond the ticks that are decided. `next` only grows, whatever the clock does.
update {schema}.schedules s
set next = t.next, pending = array(select p::timestamptz from jsonb_array_elements_text(t.pending::jsonb) as p),
    last = greatest(s.last, t.last), skipped = s.skipped + t.skipped, missed = s.missed + t.missed
from unnest(%(name)s::text[], %(next)s::timestamptz[], %(pending)s::text[], %(last)s::timestamptz[], %(skipped)s::bigint[],
            %(missed)s::bigint[]) as t (name, next, pending, last, skipped, missed)
where s.name = t.name

-- name: others_of_schedule
-- Runs that are to stop for a schedule's next tick, those that were not told yet.
select key from {schema}.live
where schedule = %(name)s and cancel <> 2 and (cancel = 0 or %(at_once)s) limit %(limit)s
