-- What an owner reads: due work, histories, timers, ends.

-- name: claim_runs
-- One poll of a worker in one statement: wake what is due, claim what is queued and has code here, and
-- report cancels of our own runs. The claim is fenced. What this wakes is claimed by the next poll. A run
-- that has seen two workers die in a row is suspected to kill them, and is claimed alone.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
woken as (
    update {schema}.live set status = 2, ready = null
    where key in (select key from {schema}.live
                  where status in (1, 4) and ready <= {schema}.clock()
                  order by ready limit %(wake_limit)s for update skip locked)
    returning 1),
healthy as materialized (
    select c.key, c.begun from fence, unnest(%(queues)s::text[]) as q (queue)
    cross join lateral (
        select l.key, l.begun from {schema}.live l
        where l.status = 2 and l.queue = q.queue and l.workflow = any(%(workflows)s::text[])
          and l.recoveries < 2
          and (%(versions)s::text[] is null or l.version is null or l.version = any(%(versions)s::text[]))
        order by l.priority, l.arrival limit %(claim_limit)s
        for update skip locked) c
    limit %(claim_limit)s),
suspect as materialized (
    select c.key, c.begun from fence, unnest(%(queues)s::text[]) as q (queue)
    cross join lateral (
        select l.key, l.begun from {schema}.live l
        where %(suspects)s and not exists (select 1 from healthy)
          and l.status = 2 and l.queue = q.queue and l.workflow = any(%(workflows)s::text[])
          and l.recoveries >= 2
          and (%(versions)s::text[] is null or l.version is null or l.version = any(%(versions)s::text[]))
        order by l.priority, l.arrival limit 1
        for update skip locked) c
    limit 1),
chosen as materialized (select key, begun from healthy union all select key, begun from suspect),
claimed as (
    update {schema}.live l
    set status = 3, worker = %(worker)s::bigint, begun = true, ready = null, claims = l.claims + 1,
        version = coalesce(l.version, %(version)s)
    from chosen c
    where l.key = c.key
    returning l.key, c.begun, l.workflow, l.recoveries, l.cancel, l.claims,
              l.deadline - {schema}.clock() as remaining)
select {schema}.clock() as now, (select count(*) from woken) as woken,
       (select extract(epoch from min(x.ready) - {schema}.clock())::double precision
        from {schema}.live x where x.status in (1, 4)) as next_due,
       (select array_agg(x.key || ':' || x.cancel) from {schema}.live x
        where x.worker = %(worker)s::bigint and x.cancel between 1 and 3) as cancels,
       c.key, c.begun, c.workflow, c.recoveries, c.cancel, c.claims, r.id, r.input, r.context, r.seed,
       extract(epoch from c.remaining)::double precision as remaining
from (select 1) as always (one)
left join claimed c on true
left join {schema}.runs r on r.key = c.key

-- name: owned_runs
-- What this worker owns, by the database: after a claim whose answer was lost.
select key from {schema}.live where worker = %(worker)s and status = 3

-- name: look_at_runs
-- Runs to be looked at, not claimed: what a claim would tell of them, and how they ended.
select r.key, r.id, r.workflow, r.input, coalesce(l.begun, true) as begun, coalesce(l.recoveries, 0) as recoveries,
       coalesce(l.cancel, 0) as cancel, coalesce(l.claims, 0) as claims, r.context, r.seed, e.status
from {schema}.runs r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
where r.key = any(%(keys)s::bigint[])

-- name: load_steps
-- The history of runs just claimed, a page at a time: a statement after the claim, so that it sees
-- everything the last owner committed.
select run, position, grp, ord, kind, name, failed, value, attempts, message
from {schema}.steps
where run = any(%(keys)s::bigint[]) and (run, position) > (%(run)s::bigint, %(position)s)
order by run, position limit %(limit)s

-- name: load_waits
-- What claimed runs were waiting for, and how long still.
select run, position, target, extract(epoch from due - {schema}.clock())::double precision as remaining
from {schema}.waits where run = any(%(keys)s::bigint[])

-- name: load_intents
-- Which bodies of claimed runs had begun, and what they said of their progress.
select run, position, detail from {schema}.intents where run = any(%(keys)s::bigint[])

-- name: due_waits
-- Which of these waits are over, and how long the others still take, by the clock of the database.
select w.run, w.position, extract(epoch from w.due - {schema}.clock())::double precision as remaining,
       {schema}.clock() as now
from unnest(%(run)s::bigint[], %(position)s::text[]) as t (run, position)
join {schema}.waits w on w.run = t.run and w.position = t.position

-- name: find_ended
-- How these runs ended, of those that have.
select key, status, value from {schema}.ends where key = any(%(keys)s::bigint[])

-- name: find_silent
-- Which of these runs say no more by themselves: those that are parked, with the reason, and those that were deleted,
-- without one. Whoever waits for a run knows it from a commit, so one that is not there is not there any more.
select key, coalesce(reason, '') as reason from {schema}.live where key = any(%(keys)s::bigint[]) and status = 6
union all
select k.key, null from unnest(%(keys)s::bigint[]) as k (key)
where not exists (select 1 from {schema}.runs r where r.key = k.key)

-- name: has_waiters
-- Whether any run waits for the end of one of these, or for an event of one that has news: asked after each commit
-- that ends runs or sets events.
select 1 from {schema}.waits w
where w.target = any(%(keys)s::bigint[]) or (w.target = any(%(news)s::bigint[]) and w.topic is not null) limit 1

-- name: lock_waiters
-- Lock the runs that wait for these, in a statement of its own: a run that is being put away right now shows as
-- waiting only once its lock is free.
select l.key from {schema}.live l
where l.key in (select w.run from {schema}.waits w
                where w.target = any(%(keys)s::bigint[]) or (w.target = any(%(news)s::bigint[]) and w.topic is not null))
order by l.key for update

-- name: wake_waiters
-- Wake those of the locked runs that wait.
update {schema}.live set status = 2, ready = null
where status = 4
  and key in (select w.run from {schema}.waits w
              where w.target = any(%(keys)s::bigint[]) or (w.target = any(%(news)s::bigint[]) and w.topic is not null))
returning key

-- name: find_bereaved
-- Unfinished children of these runs, which have ended, that are to end with them.
select key from {schema}.live where parent = any(%(keys)s::bigint[]) and cancel = 0

-- name: sweep
-- What a crash between two transactions can have left: a run waiting for another that has ended, is parked or has
-- set the event, a run whose parent's end is to end it; and what nobody announces: deadlines, and that the run that
-- another waits for was deleted. Bounded; the next sweep goes on.
with answered as (
    update {schema}.live set status = 2, ready = null
    where key in (select l.key from {schema}.waits w
                  join {schema}.live l on l.key = w.run and l.status = 4
                  where w.target is not null
                    and (exists (select 1 from {schema}.ends e where e.key = w.target)
                         or (w.topic is null
                             and not exists (select 1 from {schema}.runs r where r.key = w.target))
                         or (w.topic is null
                             and exists (select 1 from {schema}.live p where p.key = w.target and p.status = 6))
                         or exists (select 1 from {schema}.events v where v.run = w.target and v.key = w.topic))
                  limit 1000 for update of l skip locked)
    returning 1),
unbegun as (
    delete from {schema}.live
    where key in (select key from {schema}.live
                  where deadline <= {schema}.clock() and not begun and status in (1, 2, 6)
                  limit 1000 for update skip locked)
    returning key),
expired as (
    insert into {schema}.ends (key, status, value) select key, 8, %(timeout)s::bytea from unbegun returning 1),
bereaved as (
    update {schema}.live set cancel = 1, status = case when status = 3 then 3 else 2 end, ready = null
    where key in (select l.key from {schema}.live l join {schema}.ends e on e.key = l.parent
                  where l.parent is not null and l.cancel = 0 and l.status <> 6
                  limit 1000 for update of l skip locked)
    returning 1),
late as (
    update {schema}.live set cancel = 3, status = case when status = 3 then 3 else 2 end, ready = null
    where key in (select key from {schema}.live
                  where deadline <= {schema}.clock() and begun and status in (1, 2, 3, 4) and cancel = 0
                  limit 1000 for update skip locked)
    returning 1)
select (select count(*) from answered) + (select count(*) from expired) + (select count(*) from late)
       + (select count(*) from bereaved) as changed,
       exists (select 1 from {schema}.told where error is null and told < {schema}.clock() - %(left)s * interval '1 second'
               and type = any(%(types)s::text[])) as left_behind
