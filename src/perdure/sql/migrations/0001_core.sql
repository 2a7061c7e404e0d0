-- The durable core: what runs, what was recorded, who works.
--
-- The shape was chosen by measurement (docs/explanation/storage.md): `runs`, `steps` and `ends` are only
-- ever inserted into, so history makes no dead rows and takes no second write; the one table whose rows
-- change is `live`, which holds nothing but unfinished runs and stays small.
--
--   id (the user's) ──> runs.key ──┬─> live    while unfinished: status, owner, queue, next wake
--                                  ├─> steps   what the code has been told, in order
--                                  ├─> waits   what the run is waiting for
--                                  ├─> intents bodies begun that must not be begun twice
--                                  └─> ends    how it ended
--
-- There are no foreign keys from these tables: a share lock on a hot parent row for every insert is what
-- made others slow (law 13). The fence in every owner's transaction does the protecting.

-- The one clock. Every comparison with time goes through it, so that a test can own the time; `now()` is
-- the start of the transaction, which errs on the late side for leases and costs no system call.
create function {schema}.clock() returns timestamptz language sql stable parallel safe
    as 'select pg_catalog.now()';

-- Which database this is: part of idempotency keys and of seeds, since keys of runs begin anew in each.
create table {schema}.identity (id uuid not null default gen_random_uuid());
insert into {schema}.identity default values;

-- Incarnation numbers: of worker processes and of clients. A run's key is number << 32 | counter, so
-- keys are made without asking anybody, before the first try of a write.
create sequence {schema}.incarnations as integer;

-- Order of arrival in queues.
create sequence {schema}.arrivals as bigint;

-- Living workers: one row each, renewed by heartbeat, deleted when its lease has run out.
create table {schema}.workers (
    id        bigint primary key,
    name      text not null,
    host      text not null,
    pid       integer not null,
    version   text,
    queues    text[] not null,
    lease     interval not null,
    started   timestamptz not null default {schema}.clock(),
    expires   timestamptz not null
) with (fillfactor = 50);

-- One row for each connection with which a worker writes as an owner. Every such transaction holds a
-- share lock on its row; the reaper deletes them all together with the worker.
create table {schema}.fences (
    worker bigint not null,
    slot   smallint not null,
    primary key (worker, slot)
);

-- What is left of a worker that stopped or died.
create table {schema}.workers_gone (
    id      bigint primary key,
    name    text not null,
    host    text not null,
    pid     integer not null,
    started timestamptz not null,
    ended   timestamptz not null default {schema}.clock(),
    reason  text not null
);

-- Births: one row for each run, never changed but for `superseded` (the id was given to a newer run).
create table {schema}.runs (
    key        bigint primary key,
    id         text not null,
    workflow   text not null,
    input      bytea not null,
    parent     bigint,
    position   text,
    queue      text,
    version    text,
    tags       jsonb,
    worker     bigint,
    created    timestamptz not null default {schema}.clock(),
    superseded boolean not null default false
);
create unique index runs_id on {schema}.runs (id) where not superseded;
create index runs_created on {schema}.runs (created);
create index runs_parent on {schema}.runs (parent) where parent is not null;

-- Unfinished runs. status: 1 scheduled, 2 queued, 3 running, 4 waiting, 5 cancelling, 6 parked.
-- cancel: 0 no, 1 asked for, 2 asked for without compensation, 3 out of time.
create table {schema}.live (
    key        bigint primary key,
    workflow   text not null,
    status     smallint not null,
    worker     bigint,
    queue      text not null default 'default',
    priority   integer not null default 0,
    arrival    bigint not null default 0,
    ready      timestamptz,
    deadline   timestamptz,
    cancel     smallint not null default 0,
    begun      boolean not null default false,
    recoveries integer not null default 0,
    claims     integer not null default 0,
    version    text,
    reason     text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index live_running on {schema}.live (worker) where status = 3;
create index live_queued on {schema}.live (queue, priority, arrival) where status = 2;
create index live_ready on {schema}.live (ready) where status in (1, 4);
create index live_deadline on {schema}.live (deadline) where deadline is not null;
create index live_cancel on {schema}.live (worker) where cancel > 0;

-- The journal: one row for each thing the code of a run has been told. `grp` and `ord` are the order in
-- which it was told; rows of one group were handed out together. Rows without a group (clock readings)
-- are found by position alone. kind: see models.Kind.
create table {schema}.steps (
    run      bigint not null,
    position text not null,
    grp      integer,
    ord      integer,
    kind     smallint not null,
    name     text not null,
    failed   boolean not null,
    value    bytea not null,
    attempts integer not null,
    seconds  real not null,
    worker   bigint not null,
    recorded timestamptz not null default {schema}.clock(),
    primary key (run, position)
);

-- What a run waits for: a time (`due`), the end of another run (`target`), or both.
create table {schema}.waits (
    run      bigint not null,
    position text not null,
    due      timestamptz,
    target   bigint,
    primary key (run, position)
);
create index waits_target on {schema}.waits (target) where target is not null;

-- Bodies begun that must be known of even if their result never is (`at_most_once`).
create table {schema}.intents (
    run      bigint not null,
    position text not null,
    name     text not null,
    worker   bigint not null,
    begun    timestamptz not null default {schema}.clock(),
    primary key (run, position)
);

-- How runs ended. status: 7 succeeded, 8 failed, 9 cancelled.
create table {schema}.ends (
    key      bigint primary key,
    status   smallint not null,
    value    bytea not null,
    worker   bigint,
    finished timestamptz not null default {schema}.clock()
);
create index ends_unhappy on {schema}.ends (finished) where status <> 7;

-- Takeovers: which run went from which worker to the queue, when. The journal says who went on with it.
create table {schema}.takeovers (
    run    bigint not null,
    worker bigint not null,
    taken  timestamptz not null default {schema}.clock(),
    primary key (run, worker)
);

-- The fence: holds a share lock on the writer's own row until the transaction ends, or aborts it.
-- A function, because inside a pipeline only an error can stop the statements behind it.
create function {schema}.fence(of_worker bigint, of_slot smallint) returns void language plpgsql as $$
begin
    perform 1 from {schema}.fences where worker = of_worker and slot = of_slot for key share;
    if not found then
        raise exception 'worker % is no longer alive', of_worker using errcode = 'PD001';
    end if;
end $$;

-- The fence of a transaction step: besides, the transaction must still be the one that perdure began.
create function {schema}.fence(of_worker bigint, of_slot smallint, began timestamptz) returns void language plpgsql as $$
begin
    if began <> pg_catalog.transaction_timestamp() then
        raise exception 'the transaction was ended inside the step' using errcode = 'PD002';
    end if;
    perform {schema}.fence(of_worker, of_slot);
end $$;
