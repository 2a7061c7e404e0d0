-- Schedules: what is to run when, what it has come to, and which run belongs to which tick.
--
-- A row is changed only under its own lock, and a tick's run is born in the transaction that moves `next` beyond it. So
-- each tick has one run, whatever number of workers looks for those that are due; a second start of it would meet the
-- run's id besides, which is made of the schedule's name and the tick.

create table {schema}.schedules (
    name     text collate "C" primary key,
    workflow text not null,
    cron     text,
    every    interval,
    anchor   timestamptz not null,
    timezone text not null,
    overlap  text not null,
    jitter   interval not null,
    catch_up interval,
    input    bytea not null,
    queue    text,
    options  jsonb not null,
    -- What the code said last: what has not changed there since does not undo what was changed here.
    declared jsonb not null,
    paused   boolean not null,
    note     text,
    -- The next tick that is not decided yet; null if there is none any more.
    next     timestamptz,
    -- Ticks that wait until the run before them has ended, oldest first.
    pending  timestamptz[] not null default '{}',
    last     timestamptz,
    skipped  bigint not null default 0,
    missed   bigint not null default 0,
    created  timestamptz not null default {schema}.clock(),
    changed  timestamptz not null default {schema}.clock()
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index schedules_next on {schema}.schedules (next) where not paused and next is not null;
create index schedules_pending on {schema}.schedules (name) where not paused and pending <> '{}';

-- The tick that a run is for: the same in all its lives, since its code may have asked for it.
alter table {schema}.runs add column schedule text, add column scheduled_at timestamptz;

-- The schedule whose next ticks wait for this run.
alter table {schema}.live add column schedule text;
create index live_schedule on {schema}.live (schedule) where schedule is not null;

create view {schema}.schedule_list as
select s.name, s.workflow, s.cron, s.every, s.timezone, s.overlap, s.queue, s.paused, s.note,
       case when not s.paused then s.next end as next, cardinality(s.pending) as pending, s.last, s.skipped, s.missed,
       {schema}.as_json(s.input) as input, s.created, s.changed
from {schema}.schedules s;
