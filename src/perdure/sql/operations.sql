-- What people do to runs that were started long ago: each command is one transaction for some runs at a time, locks
-- what it decides on first, and leaves a row in `audit`.

-- name: audit
-- Note what was done to runs, by whom and why, in the transaction that does it.
insert into {schema}.audit (who, verb, run, id, reason, detail, command)
select %(who)s, %(verb)s, r.key, r.id, %(reason)s, %(detail)s::jsonb, %(command)s
from {schema}.runs r where r.key = any(%(keys)s::bigint[])
on conflict do nothing

-- name: list_audit
-- What was done to runs, newest first, of one id or of all.
select at, who, verb, id, reason, detail from {schema}.audit
where (%(id)s::text is null or run in (select key from {schema}.runs where id = %(id)s::text) or id = %(id)s::text)
order by number desc limit %(limit)s

-- name: set_deadlines
-- Give unfinished runs another deadline, so many seconds from now, or none.
update {schema}.live set deadline = {schema}.clock() + %(seconds)s::double precision * interval '1 second'
where key = any(%(keys)s::bigint[]) returning key

-- name: lock_ends
-- Lock the ends of runs: whoever revives, restarts or deletes them meanwhile comes after.
select key from {schema}.ends where key = any(%(keys)s::bigint[]) order by key for update

-- name: set_versions
-- Have unfinished runs go on with another version of the code.
update {schema}.live set version = %(version)s where key = any(%(keys)s::bigint[]) and status <> 3

-- name: find_queued
-- Which of these runs wait for a worker: also the answer to a command that was repeated.
select key from {schema}.live where key = any(%(keys)s::bigint[]) and status = 2

-- name: restart_runs
-- Give runs that have ended, or that nobody runs, a new life under their id, from the beginning. What the old one has
-- recorded stays, under its key; one that had not ended ends now, as one that goes on under the new key.
with t as materialized (
    select * from unnest(%(keys)s::bigint[], %(next)s::bigint[], %(timeout)s::double precision[])
         as t (key, next, timeout)),
gone as (
    delete from {schema}.live l using t where l.key = t.key and l.status <> 3
    returning l.key, l.queue, l.priority, l.deadline, l.parent),
past as (
    update {schema}.runs r set superseded = true from t
    where r.key = t.key and not r.superseded
      and (exists (select 1 from {schema}.ends e where e.key = r.key) or r.key in (select key from gone))
    returning r.key, r.id, r.workflow, r.input, r.parent, r.position, r.queue, r.queue_key, r.version, r.tags, r.context,
              r.created, r.schedule, r.scheduled_at),
archived as (
    insert into {schema}.ends (key, status, value)
    select gone.key, 10, convert_to(t.next::text, 'UTF8') from gone join t using (key)),
born as (
    insert into {schema}.runs (key, id, workflow, input, parent, position, queue, queue_key, version, tags, context, schedule,
                               scheduled_at)
    select t.next, p.id, p.workflow, p.input, p.parent, p.position, p.queue, p.queue_key, coalesce(%(version)s, p.version), p.tags,
           p.context, p.schedule, p.scheduled_at
    from past p join t using (key)
    returning key)
insert into {schema}.live (key, workflow, status, queue, queue_key, priority, arrival, deadline, version, parent,
                           schedule)
select t.next, p.workflow, 2, coalesce(gone.queue, p.queue, 'default'), coalesce(p.queue_key, ''), coalesce(gone.priority, 0),
       nextval('{schema}.arrivals'),
       {schema}.clock() + coalesce(gone.deadline - p.created, t.timeout * interval '1 second'),
       coalesce(%(version)s, p.version), gone.parent, p.schedule
from past p join t using (key) join born on born.key = t.next left join gone on gone.key = p.key
returning key

-- name: keys_of_runs
-- Which of these runs are there: after a lost answer, the new ones that the first try made.
select key from {schema}.runs where key = any(%(keys)s::bigint[])

-- name: drop_waits_of_archived
-- Lives that have ended by a restart wait for nothing.
delete from {schema}.waits w where w.run = any(%(keys)s::bigint[])
  and exists (select 1 from {schema}.ends e where e.key = w.run)

-- name: copy_messages
-- A new life is told again what the old one was told; numbers stay, so that steps that are kept name the same ones.
insert into {schema}.messages (run, topic, seq, key, value, sent)
select t.next, m.topic, m.seq, m.key, m.value, m.sent
from unnest(%(keys)s::bigint[], %(next)s::bigint[]) as t (key, next)
join {schema}.messages m on m.run = t.key
where exists (select 1 from {schema}.live l where l.key = t.next)

-- name: lock_origin
-- Keep a run from being deleted while it is copied.
select key from {schema}.runs where key = %(key)s for key share

-- name: find_cut
-- Where a history is to be cut: the group and the time of the step, of which the latest counts if only its name is given.
select position, name, grp, recorded from {schema}.steps
where run = %(key)s and (position = %(step)s or (name = %(step)s and not exists (
    select 1 from {schema}.steps s where s.run = %(key)s and s.position = %(step)s)))
order by grp desc nulls last limit 1

-- name: fork_run
-- A new run with the input, tags and context of another, queued.
with born as (
    insert into {schema}.runs (key, id, workflow, input, queue, queue_key, version, tags, context, forked, scheduled_at,
                               seed)
    select %(next)s::bigint, %(id)s, r.workflow, coalesce(%(input)s::bytea, r.input), coalesce(%(queue)s, r.queue), r.queue_key,
           coalesce(%(version)s, r.version), r.tags, r.context, r.key, r.scheduled_at,
           case when %(kept)s then coalesce(r.seed, (select right(i.id::text, 12) from {schema}.identity i) || '/' || r.key) end
    from {schema}.runs r where r.key = %(key)s
    on conflict do nothing
    returning key, workflow, queue, queue_key, version)
insert into {schema}.live (key, workflow, status, queue, queue_key, arrival, begun, deadline, version)
select key, workflow, 2, coalesce(queue, 'default'), coalesce(queue_key, ''), nextval('{schema}.arrivals'), true,
       {schema}.clock() + %(timeout)s::double precision * interval '1 second', version
from born
returning key

-- name: fork_steps
-- The part of a history that a fork keeps: groups before the cut, and clock readings (which have no group) made before
-- it, in the branch of the step that is cut by their number, in others by time. Values may be edited.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker, recorded, message)
select %(next)s::bigint, s.position, s.grp, s.ord, s.kind, s.name, s.failed and t.value is null,
       coalesce(t.value, s.value), s.attempts, s.seconds, s.worker, s.recorded, s.message
from {schema}.steps s
left join unnest(%(edited)s::text[], %(values)s::bytea[]) as t (position, value) on t.position = s.position
where s.run = %(key)s
  and case when s.grp is not null then s.grp < %(grp)s::integer
           when substring(s.position from '^(.*?)[0-9]+$') = substring(%(position)s from '^(.*?)[0-9]+$')
           then substring(s.position from '[0-9]+$')::integer < substring(%(position)s from '[0-9]+$')::integer
           else s.recorded < %(recorded)s::timestamptz end
returning position

-- name: fork_events
-- Events that the kept part had set: they are numbered by group.
insert into {schema}.events (run, key, seq, failed, value, recorded)
select %(next)s::bigint, key, seq, failed, value, recorded from {schema}.events
where run = %(key)s and seq < %(grp)s::bigint << 20

-- name: fork_streams
-- Rows of streams up to the first that the kept part did not write.
insert into {schema}.streams (run, key, place, kind, value, position)
select %(next)s::bigint, s.key, s.place, s.kind, s.value, s.position
from {schema}.streams s
where s.run = %(key)s
  and s.place < coalesce(
      (select min(x.place) from {schema}.streams x
       where x.run = s.run and x.key = s.key
         and not exists (select 1 from {schema}.steps k where k.run = %(next)s::bigint and k.position = x.position)),
      s.place + 1)

-- name: find_doomed
-- The trees of runs that are to be deleted, with every life under their ids: of each member whether it has ended, and
-- whether a run outside that has not waits for it, or would, being its parent. Each is found once: rows that were
-- loaded may go round in a circle.
with recursive lives (root, key, id, parent) as (
    select r.key, o.key, o.id, o.parent
    from {schema}.runs r cross join lateral (
        select key, id, parent from {schema}.runs where id = r.id and not superseded
        union all
        select key, id, parent from {schema}.runs where id = r.id and superseded) o  -- each has an index of its own
    where r.key = any(%(keys)s::bigint[])),
tree (root, key, parent, below) as (
    select root, key, parent, false from lives
    union
    select t.root, c.key, c.parent, true
    from tree t join {schema}.runs c on c.parent = t.key where %(children)s)
select t.root, t.key, (select l.key from {schema}.live l where l.key = t.key) is not null as lives,
       not t.below and (select l.key from {schema}.live l where l.key = t.parent) is not null
       or (select w.run from {schema}.waits w join {schema}.live l on l.key = w.run where w.target = t.key limit 1)
           is not null as needed
from tree t

-- name: delete_runs
-- Delete runs that have ended, with all that is recorded of them; how many rows of each table that were.
with doomed as materialized (
    select key from {schema}.ends where key = any(%(keys)s::bigint[])
      and not exists (select 1 from {schema}.live l where l.key = ends.key)),
a as (delete from {schema}.steps where run in (select key from doomed) returning 1),
b as (delete from {schema}.messages where run in (select key from doomed) returning 1),
c as (delete from {schema}.events where run in (select key from doomed) returning 1),
d as (delete from {schema}.streams where run in (select key from doomed) returning 1),
e as (delete from {schema}.waits where run in (select key from doomed) returning 1),
f as (delete from {schema}.intents where run in (select key from doomed) returning 1),
g as (delete from {schema}.takeovers where run in (select key from doomed) returning 1),
h as (delete from {schema}.ends where key in (select key from doomed) returning 1),
i as (delete from {schema}.runs where key in (select key from doomed) returning 1)
select (select count(*) from a) as steps, (select count(*) from b) as messages, (select count(*) from c) as events,
       (select count(*) from d) as streams, (select count(*) from e) as waits, (select count(*) from f) as intents,
       (select count(*) from g) as takeovers, (select count(*) from h) as ends, (select count(*) from i) as runs

-- name: lock_run
-- Lock one unfinished run, to see how it stands.
select status from {schema}.live where key = %(key)s for no key update

-- name: find_step
-- One recorded step, to be corrected.
select kind, name, failed, value from {schema}.steps where run = %(key)s and position = %(position)s for no key update

-- name: set_output
-- Put another result in the place of what a step was recorded with.
update {schema}.steps set failed = false, value = %(value)s::bytea where run = %(key)s and position = %(position)s

-- name: why_waits
-- What unfinished runs wait for, in the order in which they began to.
select w.run, w.position, w.due, r.id as target, w.topic
from {schema}.waits w left join {schema}.runs r on r.key = w.target
where w.run = any(%(keys)s::bigint[]) order by w.due nulls last

-- name: why_workers
-- Which workers live, what they serve, and of which version they are.
select id, name, queues, version, expires >= {schema}.clock() as lives from {schema}.workers

-- name: find_tree
-- Runs by id with every run that they started, directly or not, and earlier lives of all of them.
with recursive tree (key, id) as (
    select key, id from {schema}.runs where id = any(%(ids)s::text[]) and not superseded
    union all
    select key, id from {schema}.runs where id = any(%(ids)s::text[]) and superseded
    union
    select r.key, r.id from tree t cross join lateral (
        select key, id from {schema}.runs where %(children)s and parent = t.key
        union all
        select key, id from {schema}.runs where id = t.id and not superseded
        union all
        select key, id from {schema}.runs where id = t.id and superseded) r)
select key from tree

-- name: export_head
-- Which database an export is from, and when it was made.
select right(i.id::text, 12) as realm, {schema}.clock() as now from {schema}.identity i

-- name: export_runs
-- All that is known of runs, but for what is a list.
select r.key, r.id, r.workflow, r.input, r.parent, r.position, r.queue, r.queue_key, r.version, r.tags, r.context, r.created,
       r.superseded, coalesce(r.seed, right(i.id::text, 12) || '/' || r.key) as seed, r.schedule, r.scheduled_at, l.status,
       l.priority, l.deadline, l.cancel, l.begun, l.reason, l.version as present, l.parent is not null as bound,
       e.status as end_status, e.value, e.finished
from {schema}.runs r
cross join {schema}.identity i
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
where r.key = any(%(keys)s::bigint[]) order by r.created, r.key

-- name: export_steps
-- What the code of runs was told.
select run, position, grp as "group", ord as "order", {schema}.kind_name(kind) as kind, name, failed, value, attempts,
       seconds, recorded, message
from {schema}.steps where run = any(%(keys)s::bigint[]) order by run, grp nulls first, ord, position

-- name: export_messages
-- What runs were sent.
select run, topic, seq as number, key, value, sent
from {schema}.messages where run = any(%(keys)s::bigint[]) order by run, seq

-- name: export_events
-- What runs made known.
select run, key, seq as number, failed, value, recorded
from {schema}.events where run = any(%(keys)s::bigint[]) order by run, key, seq

-- name: export_streams
-- What runs wrote on streams.
select run, key, place, kind, value, position
from {schema}.streams where run = any(%(keys)s::bigint[]) order by run, key, place

-- name: export_waits
-- What runs wait for.
select run, position, due, target::text as target, topic
from {schema}.waits where run = any(%(keys)s::bigint[]) order by run, position

-- name: export_intents
-- Which bodies of runs had begun.
select run, position, name, detail, begun
from {schema}.intents where run = any(%(keys)s::bigint[]) order by run, position

-- name: taken_ids
-- Which of these ids runs have already.
select id from {schema}.runs where id = any(%(ids)s::text[]) and not superseded

-- name: next_numbers
-- Numbers for messages that are brought here, after all that were given.
select nextval('{schema}.arrivals') from generate_series(1, %(count)s)

-- name: load_run
-- A run as it was elsewhere; one that had not ended is parked until somebody resumes it.
with born as (
    insert into {schema}.runs (key, id, workflow, input, parent, position, queue, queue_key, version, tags, context,
                               created, superseded, seed, schedule, scheduled_at)
    values (%(key)s, %(id)s, %(workflow)s, %(input)s::bytea, %(parent)s, %(position)s, %(queue)s, %(queue_key)s,
            %(version)s, %(tags)s::jsonb, %(context)s::jsonb, %(created)s, %(superseded)s, %(seed)s, %(schedule)s,
            %(scheduled_at)s)
    returning key),
ended as (
    insert into {schema}.ends (key, status, value, finished)
    select key, %(end_status)s::smallint, %(end_value)s::bytea, %(finished)s::timestamptz from born
    where %(end_status)s::smallint is not null)
insert into {schema}.live (key, workflow, status, queue, queue_key, priority, arrival, deadline, cancel, begun, version, reason,
                           parent)
select key, %(workflow)s, 6, coalesce(%(queue)s, 'default'), coalesce(%(queue_key)s, ''), %(priority)s,
       nextval('{schema}.arrivals'), %(deadline)s::timestamptz, %(cancel)s::smallint, %(begun)s, %(version)s, %(reason)s, %(close)s::bigint
from born where %(end_status)s::smallint is null

-- name: load_step
-- What its code was told there; nobody here has recorded it.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker, recorded, message)
values (%(run)s, %(position)s, %(group)s, %(order)s, %(kind)s, %(name)s, %(failed)s, %(value)s::bytea, %(attempts)s,
        %(seconds)s, 0, %(recorded)s, %(message)s)

-- name: load_message
-- A message that it was sent there.
insert into {schema}.messages (run, topic, seq, key, value, sent)
values (%(run)s, %(topic)s, %(number)s, %(key)s, %(value)s::bytea, %(sent)s)

-- name: load_event
-- A value that it made known there.
insert into {schema}.events (run, key, seq, failed, value, recorded)
values (%(run)s, %(key)s, %(number)s, %(failed)s, %(value)s::bytea, %(recorded)s)

-- name: load_item
-- A row of a stream that it wrote there.
insert into {schema}.streams (run, key, place, kind, value, position)
values (%(run)s, %(key)s, %(place)s, %(kind)s, %(value)s::bytea, %(position)s)

-- name: load_wait
-- Something that it waited for there.
insert into {schema}.waits (run, position, due, target, topic)
values (%(run)s, %(position)s, %(due)s, %(target)s, %(topic)s)

-- name: load_intent
-- A body that had begun there.
insert into {schema}.intents (run, position, name, worker, detail, begun)
values (%(run)s, %(position)s, %(name)s, 0, %(detail)s::bytea, %(begun)s)
