-- A worker that was told, by whomever, to take no more runs; it reads this at each look.

alter table {schema}.workers add column paused boolean not null default false;

create or replace view {schema}.worker_list as
select w.id, w.name, w.host, w.pid, w.version, w.queues, w.expires > {schema}.clock() as alive, w.started,
       w.expires, null::timestamptz as ended, null::text as reason, w.paused
from {schema}.workers w
union all
select g.id, g.name, g.host, g.pid, null, null, false, g.started, null, g.ended, g.reason, false
from {schema}.workers_gone g;
