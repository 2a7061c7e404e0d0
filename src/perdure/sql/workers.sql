-- Incarnations: their leases, their fences, their end.

-- name: next_incarnation
-- A number that no process ever had: half of every key this process makes. And which database this is.
select nextval('{schema}.incarnations') as id, {schema}.clock() as now, (select i.id::text from {schema}.identity i) as realm

-- name: register_worker
-- A worker begins to live: its row, and a fence row for each connection that will write as its owner.
with worker as (
    insert into {schema}.workers (id, name, host, pid, version, queues, paused, lease, expires)
    values (%(worker)s, %(name)s, %(host)s, %(pid)s, %(version)s, %(queues)s, %(paused)s,
            %(lease)s * interval '1 second', {schema}.clock() + %(lease)s * interval '1 second')
    returning id)
insert into {schema}.fences (worker, slot) select worker.id, slot from worker, generate_series(0, %(slots)s - 1) slot

-- name: renew_lease
-- The heartbeat. Matching no row means that the worker was declared dead: it must stop at once.
update {schema}.workers set expires = {schema}.clock() + lease where id = %(worker)s returning {schema}.clock() as now

-- name: bury_workers
-- Declare dead every worker whose lease has run out: delete it and its fences, in one statement, which
-- waits for every transaction that holds one of them. Only after this commits are its runs claimed.
with dead as (
    delete from {schema}.workers where expires < {schema}.clock() returning *),
unfenced as (
    delete from {schema}.fences f using dead where f.worker = dead.id returning 1)
insert into {schema}.workers_gone (id, name, host, pid, started, reason)
select id, name, host, pid, started, 'lease ran out' from dead
on conflict do nothing
returning id

-- name: blockers
-- Which backends keep this backend waiting; other reapers, who wait for the same zombie, are spared at first.
select a.pid from unnest(pg_blocking_pids(%(pid)s)) as b (pid) join pg_stat_activity a on a.pid = b.pid
where not (%(spare)s and a.application_name = 'perdure reaper')

-- name: backend
-- The server's own number for this backend; what the client was told may be a pooler's.
select pg_backend_pid()

-- name: terminate
-- End a backend that holds the fence of a dead worker (and with it every lock it has).
select pg_terminate_backend(%(pid)s)

-- name: retire_worker
-- A worker stops in order: no run is its own any more, and its row and fences go.
with gone as (
    delete from {schema}.workers where id = %(worker)s returning *),
unfenced as (
    delete from {schema}.fences f using gone where f.worker = gone.id returning 1)
insert into {schema}.workers_gone (id, name, host, pid, started, reason)
select id, name, host, pid, started, 'stopped' from gone
on conflict do nothing

-- name: hand_over_all
-- The runs of a worker that stops in order go back to the queue; this is no crash and counts as none.
update {schema}.live set status = 2, worker = null, ready = null where worker = %(worker)s and status = 3

-- name: find_orphans
-- Workers that own running runs but do not live: dead for certain, since an owner registers first and a
-- number never comes back.
select distinct l.worker from {schema}.live l
where l.status = 3 and not exists (select 1 from {schema}.workers w where w.id = l.worker)

-- name: requeue_orphans
-- The runs of dead workers go back to the queue. Equality with a dead number is all that is asked, so a
-- run that somebody else took over meanwhile is left alone. A step recorded by the dead owner is
-- progress and resets the count of crashes to this one.
with lost as materialized (
    select l.key, l.worker from {schema}.live l
    where l.status = 3 and l.worker = any(%(workers)s::bigint[])
    order by l.key limit %(limit)s for update skip locked),
noted as (
    insert into {schema}.takeovers (run, worker) select key, worker from lost on conflict do nothing)
update {schema}.live l
set status = 2, worker = null, ready = null,
    recoveries = case when exists (select 1 from {schema}.steps s where s.run = lost.key and s.worker = lost.worker)
                      then 1 else l.recoveries + 1 end
from lost where l.key = lost.key
returning l.key

-- name: find_work
-- Whether a run is queued that such a worker could take, or becomes due soon: not one that waits for a message or for
-- another run, and is put away until that comes; nor one that a paused queue keeps from beginning.
select 1 from {schema}.live l
where (l.status = 2 or (l.status in (1, 4) and l.ready <= {schema}.clock() + %(seconds)s * interval '1 second'))
  and l.queue = any(%(queues)s::text[]) and l.workflow = any(%(workflows)s::text[])
  and (%(versions)s::text[] is null or l.version is null or l.version = any(%(versions)s::text[]))
  and (l.begun or not exists (select 1 from {schema}.queues q where q.name = l.queue and q.paused))
limit 1

-- name: list_workers
-- Workers that live, oldest first, and the last so many that are gone.
(select w.id, w.name, w.host, w.pid, w.version, w.queues, w.expires >= {schema}.clock() as alive, w.started, w.expires,
        (select count(*) from {schema}.live l where l.worker = w.id and l.status = 3) as running,
        null::timestamptz as ended, null::text as reason, w.paused
 from {schema}.workers w order by w.id)
union all
(select g.id, g.name, g.host, g.pid, null, array[]::text[], false, g.started, null,
        (select count(*) from {schema}.live l where l.worker = g.id and l.status = 3), g.ended, g.reason, false
 from {schema}.workers_gone g order by g.ended desc, g.id desc limit %(gone)s)

-- name: pause_worker
-- Have a worker take no more runs, or take some again.
update {schema}.workers set paused = %(paused)s where id = %(worker)s returning id

-- name: hint
-- Tell listeners that there may be something to do; lost hints cost only time, so nobody waits for the disk.
select pg_notify(%(channel)s, %(payload)s) from (select set_config('synchronous_commit', 'off', true)) as setting
