-- What is done to runs from outside: looked up by id, cancelled, resumed.

-- name: lock_runs_for_cancel
-- Lock the runs to be cancelled, by key, before deciding what cancelling means for each.
select key from {schema}.live where key = any(%(keys)s::bigint[]) order by key for no key update

-- name: cancel_unbegun
-- Runs that never began, or are parked, end at once: no code has to be told.
with gone as (
    delete from {schema}.live
    where key = any(%(keys)s::bigint[])
      and (status = 6 or (not begun and status in (1, 2)) or (%(at_once)s and status <> 3))
    returning key)
insert into {schema}.ends (key, status, value) select key, 9, %(value)s::bytea from gone returning key

-- name: ask_cancel
-- Runs whose code must be told: a waiting one is woken for it, a running one hears of it from its owner.
update {schema}.live
set cancel = case when cancel = 0 or %(cancel)s = 2 then %(cancel)s::smallint else cancel end,
    status = case when status = 3 then 3 else 2 end, ready = null
where key = any(%(keys)s::bigint[]) and (cancel <> 4 or %(cancel)s = 2)
returning key

-- name: find_cancelled
-- Which of these runs have ended as cancelled: also the answer to a cancel that was repeated.
select key from {schema}.ends where key = any(%(keys)s::bigint[]) and status = 9

-- name: unpark_runs
-- Parked runs go back to the queue, as if they had never crashed.
update {schema}.live set status = 2, reason = null, recoveries = 0, worker = null, ready = null
where key = any(%(keys)s::bigint[]) and status = 6
returning key

-- name: revive_failed
-- Failed runs become unfinished again, but for those that have undone what they did: they have nothing to go on from;
-- and for those whose id was given to another meanwhile: nobody would find them.
with gone as (
    delete from {schema}.ends e
    where e.key = any(%(keys)s::bigint[]) and e.status = 8
      and exists (select 1 from {schema}.runs r where r.key = e.key and not r.superseded)
      and not exists (select 1 from {schema}.steps u where u.run = e.key and starts_with(u.position, '!undo/'))
    returning e.key)
insert into {schema}.live (key, workflow, status, queue, queue_key, arrival, begun, version, schedule)
select r.key, r.workflow, 2, coalesce(r.queue, 'default'), coalesce(r.queue_key, ''), nextval('{schema}.arrivals'), true,
       r.version, r.schedule
from gone join {schema}.runs r using (key)
returning key

-- name: forget_last_intents
-- That the body has begun whose failure is to be forgotten: it is to run again. Not where nobody knows whether it took
-- effect (`OutcomeUnknown`): resuming the run does not make that known.
delete from {schema}.intents i
using {schema}.steps s
where i.run = any(%(keys)s::bigint[]) and s.run = i.run and s.position = i.position and s.failed
  and s.grp = (select max(x.grp) from {schema}.steps x where x.run = s.run)
  and position(convert_to('"name":"OutcomeUnknown"', 'UTF8') in s.value) = 0
  and exists (select 1 from {schema}.ends e join {schema}.runs r on r.key = e.key
              where e.key = s.run and e.status = 8 and not r.superseded)
  and not exists (select 1 from {schema}.steps u where u.run = s.run and starts_with(u.position, '!undo/'))

-- name: forget_last_failure
-- What ended a run that is to be revived: its last recorded group, where that failed, so that the step runs
-- again; and the word to stop that a timeout gave it, with all that it did after.
delete from {schema}.steps s
where s.run = any(%(keys)s::bigint[])
  and exists (select 1 from {schema}.ends e join {schema}.runs r on r.key = e.key
              where e.key = s.run and e.status = 8 and not r.superseded)
  and not exists (select 1 from {schema}.steps u where u.run = s.run and starts_with(u.position, '!undo/'))
  and ((s.failed and s.grp = (select max(x.grp) from {schema}.steps x where x.run = s.run))
       or s.grp >= (select min(x.grp) from {schema}.steps x where x.run = s.run and x.kind = 7))

-- name: forget_last_events
-- What a run that is to be revived made known after the word to stop: its steps are forgotten, and other steps will have
-- their numbers, by which events are numbered.
delete from {schema}.events v
where v.run = any(%(keys)s::bigint[])
  and exists (select 1 from {schema}.ends e join {schema}.runs r on r.key = e.key
              where e.key = v.run and e.status = 8 and not r.superseded)
  and not exists (select 1 from {schema}.steps u where u.run = v.run and starts_with(u.position, '!undo/'))
  and v.seq >= (select min(x.grp)::bigint << 20 from {schema}.steps x where x.run = v.run and x.kind = 7)

-- name: key_of
-- The run that has this id now.
select key, workflow from {schema}.runs where id = %(id)s and not superseded
