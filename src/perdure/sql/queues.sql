-- Queues: their limits, what is used of them, and how they are changed.

-- name: lock_queues
-- Whoever claims from queues with limits has them for himself until he commits: what is counted in a later statement
-- then cannot be raised by anybody else. It waits for nobody: a queue that another worker is claiming from is left to it.
select name, paused, concurrency, worker_concurrency, key_concurrency, rate, rate_per, key_rate, key_rate_per, weights
from {schema}.queues where name = any(%(names)s::text[]) order by name for no key update skip locked

-- name: slots_taken
-- Which runs of queues that limit what is owned have taken a slot since the last count, and the last slot of all. Slots of
-- such a queue are given only to who has its row locked: whoever has it now sees all up to that one, and counts on from
-- there next. A queue in which none was taken has a row without a run. (`offset 0`: each is looked up by itself. A planner
-- that takes all for the few that run now would go through the whole index, in which lie the dead.)
select p.queue, n.last_value as last, l.key, l.slot, l.queue_key, l.worker
from (select last_value from {schema}.slots) n
cross join unnest(%(queue)s::text[], %(since)s::bigint[]) as p (queue, since)
join {schema}.queues q on q.name = p.queue
    and coalesce(q.concurrency, q.worker_concurrency, q.key_concurrency) is not null
left join lateral (select l.key, l.slot, l.queue_key, l.worker from {schema}.live l
                   where l.status = 3 and l.arrival > 0 and l.queue = p.queue and l.slot > p.since offset 0) l on true

-- name: slots_left
-- Which of these runs no longer hold the slot that they had: by key, so that what else has died is not
-- passed. The status is compared outside: inside, it would lead to the index of all that run, dead entries and all.
select k.key from unnest(%(key)s::bigint[], %(slot)s::bigint[]) as k (key, slot)
left join lateral (select l.slot, l.status from {schema}.live l where l.key = k.key offset 0) l on true
where (l.status = 3 and l.slot = k.slot) is not true

-- name: count_begun
-- Of queues with a rate, and of these keys of queues with a rate by key (the queue itself has none: null): how many runs
-- began within its window, and how long until the first of them leaves it.
select k.queue, k.queue_key, b.runs, extract(epoch from b.first + r.per * interval '1 second' - {schema}.clock())::double precision as free_in
from unnest(%(queue)s::text[], %(queue_key)s::text[]) as k (queue, queue_key)
join {schema}.queues q on q.name = k.queue
cross join lateral (select case when k.queue_key is null then q.rate_per else q.key_rate_per end as per) r
cross join lateral (select coalesce(sum(b.runs), 0)::bigint as runs, min(b.at) as first from {schema}.begun b
                    where b.queue = k.queue and (k.queue_key is null or b.queue_key = k.queue_key)
                      and b.at > {schema}.clock() - r.per * interval '1 second') b
where r.per is not null

-- name: declare_queue
-- What code says of a queue. It overrides what is there only if code said something else before.
insert into {schema}.queues (name, concurrency, worker_concurrency, key_concurrency, rate, rate_per, key_rate, key_rate_per,
                             size, weights, declared)
values (%(name)s, %(concurrency)s, %(worker_concurrency)s, %(key_concurrency)s, %(rate)s, %(rate_per)s, %(key_rate)s,
        %(key_rate_per)s, %(size)s, %(weights)s::jsonb, %(declared)s::jsonb)
on conflict (name) do update
set concurrency = excluded.concurrency, worker_concurrency = excluded.worker_concurrency,
    key_concurrency = excluded.key_concurrency, rate = excluded.rate, rate_per = excluded.rate_per,
    key_rate = excluded.key_rate, key_rate_per = excluded.key_rate_per, size = excluded.size, weights = excluded.weights,
    declared = excluded.declared, changed = {schema}.clock()
where queues.declared is distinct from excluded.declared

-- name: change_queue
-- Change what is given of a queue's limits, for all workers, from their next claim on; a queue that has no row gets one.
insert into {schema}.queues as q (name, paused, concurrency, worker_concurrency, key_concurrency, rate, rate_per, key_rate,
                                  key_rate_per, size, weights)
select %(name)s, coalesce(c.paused, false), c.concurrency, c.worker_concurrency, c.key_concurrency, c.rate, c.rate_per,
       c.key_rate, c.key_rate_per, c.size, coalesce(c.weights, '{}')
from jsonb_populate_record(null::{schema}.queues, %(changes)s::jsonb) c
on conflict (name) do update
set (paused, concurrency, worker_concurrency, key_concurrency, rate, rate_per, key_rate, key_rate_per, size, weights) =
    (select c.paused, c.concurrency, c.worker_concurrency, c.key_concurrency, c.rate, c.rate_per, c.key_rate,
            c.key_rate_per, c.size, c.weights
     from jsonb_populate_record(q, %(changes)s::jsonb) c),
    changed = {schema}.clock()

-- name: forget_queue
-- Forget a queue's limits; its runs stay, and any worker that serves it takes them.
delete from {schema}.queues where name = %(name)s returning name

-- name: list_queues
-- Queues that have limits, that a worker serves, or that have unfinished runs; and how many those are, by status.
with counted as (
    select l.queue, count(*) filter (where l.status = 1) as scheduled, count(*) filter (where l.status = 2) as queued,
           count(*) filter (where l.status = 3) as running, count(*) filter (where l.status = 4) as waiting,
           count(*) filter (where l.status = 6) as parked,
           extract(epoch from {schema}.clock() - min(r.created) filter (where l.status = 2))::double precision as oldest
    from {schema}.live l join {schema}.runs r on r.key = l.key
    where %(names)s::text[] is null or l.queue = any(%(names)s::text[])
    group by l.queue),
served as (
    select s.queue, count(*) as workers from {schema}.workers w cross join unnest(w.queues) as s (queue)
    where w.expires >= {schema}.clock() group by s.queue),
known as (
    select name from {schema}.queues union select queue from counted union select queue from served)
select k.name, coalesce(q.paused, false), q.concurrency, q.worker_concurrency, q.key_concurrency, q.rate, q.rate_per, q.key_rate,
       q.key_rate_per, q.size, coalesce(q.weights, '{}'), coalesce(s.workers, 0), coalesce(c.scheduled, 0),
       coalesce(c.queued, 0), coalesce(c.running, 0), coalesce(c.waiting, 0), coalesce(c.parked, 0), c.oldest
from known k
left join {schema}.queues q on q.name = k.name
left join counted c on c.queue = k.name
left join served s on s.queue = k.name
where %(names)s::text[] is null or k.name = any(%(names)s::text[])
order by k.name

-- name: sized_queues
-- Which queues have a size, for whoever starts runs on them.
select name from {schema}.queues where size is not null

-- name: lock_sized_queues
-- Of those who start runs on a queue with a size at a time one looks after the other, so that the count holds. Not by the
-- queue's row: a start in a stranger's transaction, which is open for an hour, must not keep workers from claiming.
select pg_advisory_xact_lock(hashtextextended({schema_literal} || ' size of ' || t.name, 0))
from (select distinct name from unnest(%(names)s::text[]) as t (name) order by name) t

-- name: full_queues
-- Which of these queues have no room for another run that waits to begin.
select q.name from {schema}.queues q
where q.name = any(%(names)s::text[])
  and q.size <= (select count(*) from (
      select 1 from {schema}.live l where l.queue = q.name and l.status = 2 and not l.begun
      union all
      select 1 from {schema}.live l where l.queue = q.name and l.status = 1 and not l.begun
      limit q.size) x)

-- name: why_queue
-- What of its queue a run may wait for.
select q.paused and not l.begun, q.concurrency,
       (select count(*) from {schema}.live o where o.status = 3 and o.arrival > 0 and o.queue = l.queue),
       l.queue_key, q.key_concurrency,
       (select count(*) from {schema}.live o
        where o.status = 3 and o.arrival > 0 and o.queue = l.queue and o.queue_key = l.queue_key),
       case when not l.begun then q.rate end, q.rate_per,
       (select coalesce(sum(b.runs), 0)::bigint from {schema}.begun b
        where b.queue = l.queue and b.at > {schema}.clock() - q.rate_per * interval '1 second'),
       case when not l.begun then q.key_rate end, q.key_rate_per,
       (select coalesce(sum(b.runs), 0)::bigint from {schema}.begun b
        where b.queue = l.queue and b.queue_key = l.queue_key
          and b.at > {schema}.clock() - q.key_rate_per * interval '1 second')
from {schema}.live l join {schema}.queues q on q.name = l.queue
where l.key = %(key)s::bigint
