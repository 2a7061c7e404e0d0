-- Finding runs among a million, and what SQL may rely on: the views.

-- In the order of bytes a prefix is a range of the index, whatever the database's language; comparing is cheaper too.
alter table {schema}.runs alter column id type text collate "C";

-- Pages go by birth and key. Many runs can be of one moment (a batch, a statement that starts a million): with the
-- key in the index a page is a range of it even then. Without the past lives, counts need not look at the rows.
drop index {schema}.runs_created;
create index runs_created on {schema}.runs (created, key) where not superseded;
create index runs_workflow on {schema}.runs (workflow, created, key) where not superseded;

-- Earlier lives of an id, whose children name them as their parent.
create index runs_past on {schema}.runs (id) where superseded;

-- Runs without tags, which most are, are not in it.
create index runs_tags on {schema}.runs using gin (tags jsonb_path_ops) where tags is not null;

-- Ends come in the order of time, so a summary for each few pages finds a span of it, and costs an end nothing.
create index ends_finished on {schema}.ends using brin (finished) with (pages_per_range = 32, autosummarize = on);

-- The number of a run's status, by its rows in `live` and `ends`: who is told to stop is cancelling (5).
create function {schema}.status_code(live smallint, cancel smallint, ended smallint) returns smallint
language sql immutable parallel safe
return coalesce(ended, case when cancel > 0 and live in (2, 3, 4) then 5::smallint else live end);

-- The text of a status, as perdure.models.Status has it.
create function {schema}.status_name(code smallint) returns text language sql immutable parallel safe
return (array['scheduled', 'queued', 'running', 'waiting', 'cancelling', 'parked',
              'succeeded', 'failed', 'cancelled', 'continued'])[code];

-- What a row of the journal is a record of, as perdure.models.Kind has it.
create function {schema}.kind_name(code smallint) returns text language sql immutable parallel safe
return (array['step', 'transaction', 'sleep', 'start', 'result', 'clock', 'cancel', 'message', 'send', 'set_event',
              'event', 'stream', 'patch', 'command', 'set_tags'])[code];

-- A payload as JSON that SQL can search; null where it is none (encrypted, or text that jsonb does not take).
create function {schema}.as_json(payload bytea) returns jsonb language plpgsql immutable strict as $$
begin
    return pg_catalog.convert_from(payload, 'UTF8')::jsonb;
exception when others then
    return null;
end $$;

-- The class of a stored error, with its module unless it is built in.
create function {schema}.error_type(error jsonb) returns text language sql immutable parallel safe
return pg_catalog.concat_ws('.', nullif(nullif(error ->> 'module', 'builtins'), ''), error ->> 'name');

-- The views. Names of others (a parent, a worker) are looked up for each row that is shown, never joined: a plan for
-- few rows so stays one for few rows.

create view {schema}.run_list as
select r.id, r.key, r.workflow,
       {schema}.status_name({schema}.status_code(l.status, l.cancel, e.status)) as status,
       coalesce(l.queue, r.queue) as queue, l.priority, coalesce(l.version, r.version) as version, r.tags,
       coalesce(l.worker, e.worker) as worker,
       (select n.name from (select id, name from {schema}.workers union all
                            select id, name from {schema}.workers_gone) n
        where n.id = coalesce(l.worker, e.worker) limit 1) as worker_name,
       (select p.id from {schema}.runs p where p.key = r.parent) as parent_id,
       r.created, e.finished, l.ready as wakes, l.deadline, coalesce(l.recoveries, 0) as recoveries, l.reason,
       case when e.status in (8, 9) then {schema}.error_type({schema}.as_json(e.value)) end as error_type,
       case when e.status in (8, 9) then {schema}.as_json(e.value) ->> 'message' end as error_message,
       {schema}.as_json(r.input) as input,
       case when e.status = 7 then {schema}.as_json(e.value) end as output
from {schema}.runs r
left join {schema}.live l on l.key = r.key
left join {schema}.ends e on e.key = r.key
where not r.superseded;

create view {schema}.step_list as
select r.id, r.key, r.workflow, s.position, s.grp as group_number, s.ord as place, {schema}.kind_name(s.kind) as kind,
       s.name, s.failed, case when not s.failed then {schema}.as_json(s.value) end as value,
       case when s.failed then {schema}.error_type({schema}.as_json(s.value)) end as error_type,
       case when s.failed then {schema}.as_json(s.value) ->> 'message' end as error_message,
       s.attempts, s.seconds, s.worker, s.message, s.recorded
from {schema}.runs r join {schema}.steps s on s.run = r.key
where not r.superseded;

create view {schema}.message_list as
select r.id, r.key, r.workflow, m.topic, m.seq as number, m.key as message_key, {schema}.as_json(m.value) as value,
       m.sent,
       (select s.position from {schema}.steps s where s.run = m.run and s.message = m.seq limit 1) as consumed_at
from {schema}.runs r join {schema}.messages m on m.run = r.key
where not r.superseded;

-- Answers to updates are events too, under names that begin with `!`: not shown, as in `handle.events()`.
create view {schema}.event_list as
select r.id, r.key, r.workflow, v.key as event, v.seq as number, {schema}.as_json(v.value) as value, v.recorded
from {schema}.runs r join {schema}.events v on v.run = r.key
where not r.superseded and pg_catalog.left(v.key, 1) <> '!';

create view {schema}.stream_list as
select r.id, r.key, r.workflow, i.key as stream, i.place as "offset",
       (array['item', 'discarded', 'end'])[i.kind + 1] as kind,
       case when i.kind = 0 then {schema}.as_json(i.value) end as value,
       case when i.kind = 1 then ({schema}.as_json(i.value) #>> '{}')::bigint end as from_offset
from {schema}.runs r join {schema}.streams i on i.run = r.key
where not r.superseded;

create view {schema}.worker_list as
select w.id, w.name, w.host, w.pid, w.version, w.queues, w.expires > {schema}.clock() as alive, w.started,
       w.expires, null::timestamptz as ended, null::text as reason
from {schema}.workers w
union all
select g.id, g.name, g.host, g.pid, null, null, false, g.started, null, g.ended, g.reason
from {schema}.workers_gone g;

create view {schema}.command_list as
select c.type, c.key, c.version, c.id, c.command, {schema}.as_json(c.args) as args,
       {schema}.as_json(c.value) as value, (select r.id from {schema}.runs r where r.key = c.run) as run_id, c.done
from {schema}.commands c;
