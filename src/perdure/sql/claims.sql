-- What an owner reads: due work, histories, timers, ends.

-- name: look_for_work
-- One look of a worker, in one statement: wake what is due, report cancels of our own runs and whether we are to take no
-- more, and find in which queues, priorities and keys there is work, with what was woken just now. From group to group it
-- goes by the index (a loose scan), so what it costs depends on the groups it finds, not on their rows. It begins at the
-- places given, of which a queue can have several, and follows each for so many groups. Where nothing may begin, because
-- the queue is paused, only what has begun counts. A quick look is given no places, and wakes only what became due within
-- the last `ready_within` seconds: it passes none of the dead entries that are in the way of a full one.
with recursive woken as (
    update {schema}.live set status = 2, ready = null, arrival = case when begun then arrival else nextval('{schema}.arrivals') end
    where key in (select key from {schema}.live
                  where status in (1, 4) and ready <= {schema}.clock()
                    and ready > {schema}.clock() - %(ready_within)s * interval '1 second'
                  order by ready limit %(wake_limit)s for update skip locked)
    returning queue, priority, queue_key, arrival),
places as materialized (
    select p.queue, p.priority, p.queue_key, coalesce(q.paused, false) as paused
    from unnest(%(queue)s::text[], %(priority)s::integer[], %(queue_key)s::text[]) as p (queue, priority, queue_key)
    left join {schema}.queues q on q.name = p.queue),
groups (queue, paused, priority, queue_key, arrival, place) as (
    select p.queue, p.paused, f.priority, f.queue_key, f.arrival, 1
    from places p cross join lateral (
        (select l.priority, l.queue_key, l.arrival from {schema}.live l
         where l.status = 2 and l.queue = p.queue and not p.paused
           and (l.priority, l.queue_key) >= (p.priority, p.queue_key collate "C")
         order by l.priority, l.queue_key, l.arrival limit 1)
        union all
        (select l.priority, l.queue_key, l.arrival from {schema}.live l
         where l.status = 2 and l.begun and l.queue = p.queue and p.paused
           and (l.priority, l.queue_key) >= (p.priority, p.queue_key collate "C")
         order by l.priority, l.queue_key, l.arrival limit 1)) f
    union all
    select g.queue, g.paused, f.priority, f.queue_key, f.arrival, g.place + 1
    from groups g cross join lateral (
        (select l.priority, l.queue_key, l.arrival from {schema}.live l
         where l.status = 2 and l.queue = g.queue and not g.paused
           and (l.priority, l.queue_key) > (g.priority, g.queue_key)
         order by l.priority, l.queue_key, l.arrival limit 1)
        union all
        (select l.priority, l.queue_key, l.arrival from {schema}.live l
         where l.status = 2 and l.begun and l.queue = g.queue and g.paused
           and (l.priority, l.queue_key) > (g.priority, g.queue_key)
         order by l.priority, l.queue_key, l.arrival limit 1)) f
    where g.place < %(groups)s)
select {schema}.clock() as now, (select count(*) from woken) as woken,
       (select extract(epoch from min(x.ready) - {schema}.clock())::double precision
        from {schema}.live x
        where x.status in (1, 4) and x.ready > {schema}.clock() - %(ready_within)s * interval '1 second') as next_due,
       (select array_agg(x.key || ':' || x.cancel) from {schema}.live x
        where x.worker = %(worker)s::bigint and x.cancel between 1 and 3) as cancels,
       coalesce((select w.paused from {schema}.workers w where w.id = %(worker)s::bigint), false) as paused,
       exists (select 1 from {schema}.live x
               where x.status = 2 and x.recoveries >= 2 and x.queue = any(%(listen)s::text[])) as suspects,
       (select jsonb_agg(q) from {schema}.queues q where q.name = any(%(listen)s::text[])) as queues,
       (select jsonb_agg(jsonb_build_array(g.queue, g.priority, g.queue_key, g.arrival)
                         order by g.queue, g.priority, g.queue_key)
        from (select a.queue, a.priority, a.queue_key, min(a.arrival) as arrival
              from (select g.queue, g.priority, g.queue_key, g.arrival from groups g
                    union all
                    select w.queue, w.priority, w.queue_key, w.arrival from woken w
                    where w.queue = any(%(listen)s::text[])) a
              group by a.queue, a.priority, a.queue_key) g) as groups

-- name: claim_runs
-- Claim from groups what they have, at most the quota of each, in the order of arrival. The claim is fenced. Of a
-- paused queue, and where `mode` is 1, only what has begun before; where it is 2, only what has not. Of a queue with
-- limits, which the caller may not have heard of, nothing unless they are `counted`. What arrived before `since` is not
-- looked at (the caller took it a moment ago, and its dead rows are in the index still). A run that has seen two workers
-- die in a row is suspected to kill them: those are claimed alone, by themselves. The update takes its keys from an array,
-- so that it is planned for a few: a quota that is not known to the planner looks like a tenth of all.
with fence as materialized (
    select 1 from {schema}.fences where worker = %(worker)s and slot = %(slot)s::smallint for key share),
groups as materialized (
    select g.queue, g.priority, g.queue_key collate "C" as queue_key, g.quota, g.since, g.mode, q.paused is true as paused,
           q.rate is not null or q.key_rate is not null as rated
    from fence, unnest(%(queue)s::text[], %(priority)s::integer[], %(queue_key)s::text[], %(quota)s::integer[],
                       %(since)s::bigint[], %(mode)s::smallint[])
                as g (queue, priority, queue_key, quota, since, mode)
    left join {schema}.queues q on q.name = g.queue
    where %(counted)s or coalesce(q.concurrency, q.worker_concurrency, q.key_concurrency, q.rate, q.key_rate) is null),
fresh as materialized (
    select c.key, c.begun, g.rated from groups g cross join lateral (
        select l.key, l.begun from {schema}.live l
        where g.mode <> 1 and not g.paused
          and l.status = 2 and l.queue = g.queue and l.priority = g.priority and l.queue_key = g.queue_key
          and l.arrival >= g.since and l.workflow = any(%(workflows)s::text[])
          and (g.mode = 0 or not l.begun)
          and (l.recoveries >= 2) = %(suspects)s
          and (%(versions)s::text[] is null or l.version is null or l.version = any(%(versions)s::text[]))
          and (l.expires is null or l.begun or l.expires > {schema}.clock())
        order by l.arrival limit g.quota
        for update skip locked) c),
onward as materialized (
    select c.key, c.begun, g.rated from groups g cross join lateral (
        select l.key, l.begun from {schema}.live l
        where (g.mode = 1 or (g.paused and g.mode = 0))
          and l.status = 2 and l.begun and l.queue = g.queue and l.priority = g.priority and l.queue_key = g.queue_key
          and l.arrival >= g.since and l.workflow = any(%(workflows)s::text[])
          and (l.recoveries >= 2) = %(suspects)s
          and (%(versions)s::text[] is null or l.version is null or l.version = any(%(versions)s::text[]))
        order by l.arrival limit g.quota
        for update skip locked) c),
chosen as materialized (select * from fresh union all select * from onward),
claimed as (
    update {schema}.live l
    set status = 3, worker = %(worker)s::bigint, begun = true, ready = null, claims = l.claims + 1,
        slot = case when l.arrival > 0 then nextval('{schema}.slots') end,
        version = coalesce(l.version, %(version)s),
        dedup = case when starts_with(l.dedup, '!') then null else l.dedup end
    where l.key = any(array(select c.key from chosen c))
    returning l.key, l.workflow, l.recoveries, l.cancel, l.claims, l.queue, l.priority, l.queue_key,
              l.arrival, l.deadline - {schema}.clock() as remaining),
noted as (
    insert into {schema}.begun (queue, queue_key, at, runs)
    select c.queue, c.queue_key, {schema}.clock(), count(*) from claimed c join chosen x using (key)
    where x.rated and not x.begun
    group by c.queue, c.queue_key)
select c.key, x.begun, c.workflow, c.recoveries, c.cancel, c.claims, r.id, r.input, r.context, r.seed, r.scheduled_at,
       extract(epoch from c.remaining)::double precision as remaining, c.queue, c.priority, c.queue_key, c.arrival
from claimed c join chosen x using (key) join {schema}.runs r on r.key = c.key
order by c.arrival

-- name: owned_runs
-- What this worker owns, by the database: after a claim whose answer was lost.
select key from {schema}.live where worker = %(worker)s and status = 3

-- name: look_at_runs
-- Runs to be looked at, not claimed: what a claim would tell of them, and how they ended.
select r.key, r.id, r.workflow, r.input, coalesce(l.begun, true) as begun, coalesce(l.recoveries, 0) as recoveries,
       coalesce(l.cancel, 0) as cancel, coalesce(l.claims, 0) as claims, r.context, r.seed, e.status, r.scheduled_at
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
where w.target = any(%(keys)s::bigint[] || %(news)s::bigint[])
  and (w.topic is not null or w.target = any(%(keys)s::bigint[]))
limit 1

-- name: lock_waiters
-- Lock the runs that wait for these, in a statement of its own: a run that is being put away right now shows as
-- waiting only once its lock is free.
select l.key from {schema}.live l
where l.key = any(array(select w.run from {schema}.waits w
                        where w.target = any(%(keys)s::bigint[] || %(news)s::bigint[])
                          and (w.topic is not null or w.target = any(%(keys)s::bigint[]))))
order by l.key for update

-- name: wake_waiters
-- Wake those of the locked runs that wait. (`+ 0`: journal.sql says why.)
update {schema}.live set status = 2, ready = null
where status + 0 = 4
  and key = any(array(select w.run from {schema}.waits w
                      where w.target = any(%(keys)s::bigint[] || %(news)s::bigint[])
                        and (w.topic is not null or w.target = any(%(keys)s::bigint[]))))
returning key

-- name: find_bereaved
-- Unfinished children of these runs, which have ended, that are to end with them.
select key from {schema}.live where parent = any(%(keys)s::bigint[]) and cancel = 0

-- name: sweep
-- What a crash between two transactions can have left: a run waiting for another that has ended, is parked or has
-- set the event, a run whose parent's end is to end it; and what nobody announces: deadlines, and that the run that
-- another waits for was deleted; runs that were to be given up if not begun by now; and when runs began, once no
-- rate asks for it any more. Bounded; the next sweep goes on. It also looks for what the reaper does next: told commands
-- left behind, workers whose lease has run out, in how many seconds the next one does, runs whose owner does not live.
with answered as (
    update {schema}.live set status = 2, ready = null
    where key in (select l.key from {schema}.waits w
                  join {schema}.live l on l.key = w.run and l.status = 4
                  where w.target is not null
                    and ((select e.key from {schema}.ends e where e.key = w.target) is not null
                         or (w.topic is null and (select r.key from {schema}.runs r where r.key = w.target) is null)
                         or (w.topic is null
                             and (select p.key from {schema}.live p where p.key = w.target and p.status = 6) is not null)
                         or (select v.run from {schema}.events v
                             where v.run = w.target and v.key = w.topic limit 1) is not null)
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
stale as (
    delete from {schema}.live
    where key in (select key from {schema}.live
                  where expires <= {schema}.clock() and not begun and status in (1, 2)
                    and (deadline is null or deadline > {schema}.clock())
                  limit 1000 for update skip locked)
    returning key),
given_up as (
    insert into {schema}.ends (key, status, value) select key, 8, %(expired)s::bytea from stale returning 1),
forgotten as (
    delete from {schema}.begun b using {schema}.queues q
    where q.name = b.queue
      and b.at < {schema}.clock() - greatest(q.rate_per, q.key_rate_per, 1) * interval '1 second'),
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
       + (select count(*) from given_up)
       + (select count(*) from bereaved) as changed,
       exists (select 1 from {schema}.told where error is null and told < {schema}.clock() - %(left)s * interval '1 second'
               and type = any(%(types)s::text[])) as left_behind,
       exists (select 1 from {schema}.workers where expires < {schema}.clock()) as dead,
       (select extract(epoch from min(expires) - {schema}.clock())::double precision from {schema}.workers
        where expires >= {schema}.clock()) as lease_ends,
       exists (select 1 from {schema}.live l where l.status = 3
               and not exists (select 1 from {schema}.workers w where w.id = l.worker)) as orphaned
