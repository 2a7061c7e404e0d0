-- Messages, events and streams. A sender locks the target's live row, inserts, then wakes it; a run that is put away
-- locks its row, then looks. Each look is in a statement after its lock, so one of the two always sees the other.

-- name: send_messages
-- Send messages from outside of any run. The lock on the targets decides their order, which the sequence then
-- counts, so that of one run's messages a later number is never committed first. A sender that repeats itself
-- meets its key. One that goes with a start that may be refused goes only to that run (`born`), or to one of that
-- workflow. Returned: by number the target's key, whether it lives, whether it was locked, whether it is sent.
with t as materialized (
    select t.number, t.id, t.topic, t.value, t.key,
           (select r.key from {schema}.runs r
            where r.id = t.id and not r.superseded and r.key = coalesce(t.born, r.key)
              and r.workflow = coalesce(t.workflow, r.workflow)) as run
    from unnest(%(id)s::text[], %(topic)s::text[], %(value)s::bytea[], %(key)s::text[], %(born)s::bigint[],
                %(workflow)s::text[]) with ordinality as t (id, topic, value, key, born, workflow, number)),
locked as materialized (
    select l.key from {schema}.live l where l.key = any(array(select run from t)) order by l.key for no key update),
sent as (
    insert into {schema}.messages (run, topic, seq, key, value)
    select o.run, o.topic, nextval('{schema}.arrivals'), o.key, o.value
    from (select t.* from t join locked on locked.key = t.run order by t.number) o
    on conflict do nothing)
select t.number, t.run, (select l.key from {schema}.live l where l.key = t.run) is not null as lives,
       locked.key is not null as locked,
       (select m.run from {schema}.messages m where m.run = t.run and m.topic = t.topic and m.key = t.key) is not null as sent
from t left join locked on locked.key = t.run

-- name: record_sends
-- Send messages from a run, with the step that sends them: all of a step's messages or, where a target is unknown
-- or has ended, none, and the step is recorded as failed with the text prepared for that. The database decides,
-- since only its lock knows. A step whose target moved on meanwhile (`continue_as_new`) is not recorded at all, and
-- is tried again.
with m as materialized (
    select m.number, m.step, m.id, m.topic, m.value, m.key, m.unknown, m.ended,
           (select r.key from {schema}.runs r where r.id = m.id and not r.superseded) as target
    from unnest(%(step)s::integer[], %(id)s::text[], %(topic)s::text[], %(message)s::bytea[], %(key)s::text[],
                %(unknown)s::bytea[], %(ended)s::bytea[]) with ordinality
         as m (step, id, topic, value, key, unknown, ended, number)),
locked as materialized (
    select l.key from {schema}.live l where l.key = any(array(select target from m)) order by l.key for no key update),
verdict as materialized (
    select m.step,
           bool_or(locked.key is null and (select l.key from {schema}.live l where l.key = m.target) is not null) as moved,
           (array_agg(case when m.target is null then m.unknown else m.ended end order by m.number)
               filter (where locked.key is null))[1] as failure
    from m left join locked on locked.key = m.target group by m.step),
step as (
    insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
    select s.run, s.position, s.grp, s.ord, s.kind, s.name, v.failure is not null, coalesce(v.failure, s.value), 1, 0,
           %(worker)s::bigint
    from unnest(%(run)s::bigint[], %(position)s::text[], %(grp)s::integer[], %(ord)s::integer[], %(kind)s::smallint[],
                %(name)s::text[], %(value)s::bytea[]) with ordinality as s (run, position, grp, ord, kind, name, value, number)
    join verdict v on v.step = s.number and not v.moved
    on conflict do nothing
    returning run, position, failed, value),
sent as (
    insert into {schema}.messages (run, topic, seq, key, value)
    select o.target, o.topic, nextval('{schema}.arrivals'), o.key, o.value
    from (select m.* from m
          join unnest(%(run)s::bigint[], %(position)s::text[]) with ordinality as s (run, position, number)
               on s.number = m.step
          join step on step.run = s.run and step.position = s.position and not step.failed
          order by m.number) o
    on conflict do nothing)
select run, position, failed, value from step

-- name: find_sends
-- What stands at these positions: after an answer was lost, the writer's own.
select s.run, s.position, s.failed, s.value, s.worker
from unnest(%(run)s::bigint[], %(position)s::text[]) as t (run, position)
join {schema}.steps s on s.run = t.run and s.position = t.position

-- name: wake_receivers
-- Wake those of the targets that wait for such a message: in a statement after the one that took their locks. (`+ 0`:
-- journal.sql says why.)
update {schema}.live set status = 2, ready = null
where status + 0 = 4 and key = any(array(
    select t.run
    from (select (select r.key from {schema}.runs r where r.id = t.id and not r.superseded) as run, t.topic
          from unnest(%(id)s::text[], %(topic)s::text[]) as t (id, topic)) t
    where (select w.run from {schema}.waits w
           where w.run = t.run and w.topic = t.topic and w.target is null limit 1) is not null))

-- name: find_messages
-- The next messages of these topics, after those that their owners have seen.
select t.run, t.topic, m.seq, m.value
from unnest(%(run)s::bigint[], %(topic)s::text[], %(seen)s::bigint[]) as t (run, topic, seen)
cross join lateral (
    select m.seq, m.value from {schema}.messages m
    where m.run = t.run and m.topic = t.topic and m.seq > t.seen order by m.seq limit %(limit)s) m

-- name: was_sent
-- Whether a run of this id, in any of its lives, was sent the message with this key.
select 1 from {schema}.runs r join {schema}.messages m on m.run = r.key
where r.id = %(id)s and m.topic = %(topic)s and m.key = %(key)s limit 1

-- name: list_unread
-- The messages that a run has been sent and has not received yet, in the order in which they were committed.
select m.topic, m.key, m.value, m.sent from {schema}.messages m
where m.run = %(run)s and not exists (
    select 1 from {schema}.steps s where s.run = m.run and s.message = m.seq)
order by m.seq limit %(limit)s

-- name: add_events
-- Make events known, with the steps that set them: only where this worker recorded that step, and numbered by its
-- place in the order of what the run was told, so that a repeated batch meets its own rows.
insert into {schema}.events (run, key, seq, failed, value)
select t.run, t.key, t.seq, t.failed, t.value
from (select t.*, (select (s.grp::bigint << 20) + s.ord from {schema}.steps s
                   where s.run = t.run and s.position = t.position and s.worker = %(worker)s::bigint) as seq
      from unnest(%(run)s::bigint[], %(position)s::text[], %(key)s::text[], %(failed)s::boolean[], %(value)s::bytea[])
           as t (run, position, key, failed, value)) t
where t.seq is not null
on conflict do nothing

-- name: find_events
-- The last value of each of these events, of those that were set.
select t.run, t.key, e.failed, e.value
from unnest(%(run)s::bigint[], %(key)s::text[]) as t (run, key)
cross join lateral (
    select e.failed, e.value from {schema}.events e
    where e.run = t.run and e.key = t.key order by e.seq desc limit 1) e

-- name: list_events
-- Every value of every event of one run, oldest first.
select key, value, recorded from {schema}.events where run = %(run)s and left(key, 1) <> '!' order by seq
