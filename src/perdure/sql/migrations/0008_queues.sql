-- Queues with limits: what is known of them, and what a claim has to see of a run to keep them.

-- One row for each queue that was declared or changed; one without a row has no limits. null: no limit. `declared` is
-- what code said of it last: only another declaration overrides what was changed by hand since.
create table {schema}.queues (
    name               text primary key,
    paused             boolean not null default false,
    concurrency        integer,
    worker_concurrency integer,
    key_concurrency    integer,
    rate               integer,
    rate_per           double precision,
    key_rate           integer,
    key_rate_per       double precision,
    size               integer,
    weights            jsonb not null default '{}',
    declared           jsonb,
    changed            timestamptz not null default {schema}.clock()
);

-- When how many runs of a queue with a rate began, a row for each claim; older ones than its window go with the sweep.
create table {schema}.begun (
    queue     text not null,
    queue_key text not null,
    at        timestamptz not null,
    runs      integer not null
);
create index begun_at on {schema}.begun (queue, at);

alter table {schema}.runs add column queue_key text;
-- Which starts were gathered in it (`batch`): one that is sent again, because its answer was lost, finds itself.
alter table {schema}.runs add column parts text[];
-- In the order of bytes, which is cheap to compare: claims go from key to key.
alter table {schema}.live add column queue_key text collate "C" not null default '',
                          add column dedup text,
                          add column expires timestamptz;

-- Claims go by it from key to key, and in a key by arrival.
drop index {schema}.live_queued;
create index live_queued on {schema}.live (queue, priority, queue_key, arrival) where status = 2;
-- What goes on in a queue that begins nothing, which may have a million rows that wait to begin.
create index live_onward on {schema}.live (queue, priority, queue_key, arrival) where status = 2 and begun;
create index live_suspects on {schema}.live (queue) where status = 2 and recoveries >= 2;
-- Who holds a slot: what was started on no queue has no arrival, counts for none, and costs this index nothing.
create index live_slots on {schema}.live (queue, queue_key) where status = 3 and arrival > 0;
create unique index live_dedup on {schema}.live (queue, dedup) where dedup is not null;
create index live_expires on {schema}.live (expires) where expires is not null;

-- What one integer per queue tells who scales workers, such as KEDA: runs that wait for a worker, and those that have one.
create view {schema}.queue_depth as
select l.queue, count(*) filter (where l.status = 2 and (l.begun or q.paused is not true))::integer as depth,
       count(*) filter (where l.status = 3)::integer as running
from {schema}.live l left join {schema}.queues q on q.name = l.queue
where l.status in (2, 3)
group by l.queue;

-- From SQL: the same options as from Python.

-- The options of a start that were given a value, once all of them are known and have values that they can have.
create or replace function {schema}.checked_options(options jsonb) returns jsonb language plpgsql as $$
declare
    types constant jsonb := '{"id": "string", "on_conflict": "string", "queue": "string", "priority": "number",
        "delay": "number", "timeout": "number", "version": "string", "tags": "object", "send": "object",
        "key": "string", "dedup": "string", "expires": "number"}';
    given jsonb := '{}';
    each  record;
    wrong text;
begin
    if jsonb_typeof(options) <> 'object' then
        raise exception 'options must be an object, such as {"id": "order-1"}, not %', left(options::text, 100)
            using errcode = 'PD005';
    end if;
    for each in select o.key, o.value, types ->> o.key as type, jsonb_typeof(o.value) as kind from jsonb_each(options) o
    loop
        wrong := case
            when each.type is null then 'is not known'
            when each.kind = 'null' then null
            when each.kind <> each.type then format('must be a JSON %s', each.type)
            when each.key in ('id', 'queue', 'version', 'key', 'dedup') and char_length(options ->> each.key) not between 1 and 512
                then 'must have between 1 and 512 characters'
            when each.key = 'on_conflict' and options ->> 'on_conflict' not in ('attach', 'reject', 'restart_if_failed')
                then 'is "attach", "reject" or "restart_if_failed"'
            when each.key = 'priority' and not (each.value::text ~ '^-?[0-9]{1,10}$'
                 and (each.value::text)::numeric between -2147483648 and 2147483647)
                then 'must be a whole number of 32 bits'
            when each.key = 'dedup' and starts_with(options ->> each.key, '!')
                then 'does not begin with "!"'
            when each.key in ('delay', 'timeout', 'expires') and (each.value::text)::numeric not between 0 and 3200000000
                then 'must be between 0 seconds and a century'
            when each.key = 'send' and not (each.value ? 'payload' and jsonb_typeof(each.value -> 'topic') = 'string'
                 and each.value - 'topic' - 'payload' = '{}')
                then 'must be {"topic": "...", "payload": ...}'
        end;
        if wrong is not null then
            raise exception 'option % %', quote_ident(each.key), wrong using errcode = 'PD005',
                detail = format('It was given as %s.', left(each.value::text, 200)),
                hint = 'Options are id, on_conflict, queue, priority, delay, timeout, version, tags, send, key, dedup, expires.';
        end if;
        if each.kind <> 'null' then
            given := given || jsonb_build_object(each.key, each.value);
        end if;
    end loop;
    if given ? 'send' then
        perform {schema}.check_topic(given #>> '{send,topic}');
    end if;
    return given;
end $$;

-- Start a run, queued or scheduled, from encoded arguments and checked options. It returns the run that has the id
-- then, whatever workflow that is of, and whether it was made here: what that means is the caller's to say. Of two
-- that start one id at a time the second waits for the first one's end, and then finds its run, or makes its own.
-- Where a `realm` is named and this is another database, nothing is started, and null returned. An unfinished run of the
-- queue with the same `dedup`, and a queue that is full, are errors: PD007, PD008.
create or replace function {schema}.start_encoded(
    workflow text, input bytea, options jsonb, topic text, message bytea, realm text,
    out run bigint, out run_id text, out run_workflow text, out born boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    taken constant text := coalesce(options ->> 'on_conflict', 'attach');
    line  constant text := coalesce(options ->> 'queue', 'default');
    holder text;
    most   integer;
begin
    if realm is not null and realm <> (select right(replace(i.id::text, '-', ''), 12) from {schema}.identity i) then
        return;
    end if;
    run_id := coalesce(options ->> 'id', {schema}.new_id());
    if options ? 'dedup' then
        perform pg_advisory_xact_lock(hashtextextended({schema_literal} || ' ' || line || ' ' || (options ->> 'dedup'), 0));
        select r.id into holder from {schema}.live l join {schema}.runs r on r.key = l.key
        where l.queue = line and l.dedup = options ->> 'dedup' and r.id <> run_id;
        if found then
            raise exception 'an unfinished run of queue %, %, has the dedup %',
                quote_literal(line), quote_literal(holder), quote_literal(options ->> 'dedup') using errcode = 'PD007';
        end if;
    end if;
    select q.size into most from {schema}.queues q where q.name = line and q.size is not null;
    if found then
        perform pg_advisory_xact_lock(hashtextextended({schema_literal} || ' size of ' || line, 0));
    end if;
    if most is not null and not exists (select 1 from {schema}.runs r where r.id = run_id and not r.superseded)
       and most <= (select count(*) from (select 1 from {schema}.live l
                                          where l.queue = line and l.status in (1, 2) and not l.begun limit most) x) then
        raise exception 'queue % is full: % runs wait to begin', quote_literal(line), most using errcode = 'PD008';
    end if;
    for attempt in 1..20 loop
        if taken = 'restart_if_failed' then
            -- Locked first, in a statement of its own: a run that is being revived just now has no end after that.
            perform 1 from {schema}.runs r where r.id = run_id and not r.superseded for no key update;
            update {schema}.runs r set superseded = true from {schema}.ends e
            where r.id = run_id and not r.superseded and e.key = r.key and e.status <> 7;
        end if;
        insert into {schema}.runs (key, id, workflow, input, queue, queue_key, version, tags, context)
        values (-nextval('{schema}.strangers'), run_id, start_encoded.workflow, start_encoded.input,
                line, options ->> 'key', options ->> 'version', options -> 'tags', options -> 'context')
        on conflict do nothing
        returning key into run;
        born := found;
        run_workflow := start_encoded.workflow;
        exit when born;
        select r.key, r.workflow into run, run_workflow from {schema}.runs r where r.id = run_id and not r.superseded;
        exit when found;  -- else it has been restarted in between, or deleted
    end loop;
    if run is null then
        raise exception 'run % comes and goes: try again', run_id using errcode = '40001';
    end if;
    if born then
        insert into {schema}.live (key, workflow, status, queue, queue_key, dedup, priority, arrival, ready, deadline,
                                   expires, version)
        values (run, start_encoded.workflow, case when options ->> 'delay' is null then 2 else 1 end,
                line, coalesce(options ->> 'key', ''), options ->> 'dedup', coalesce((options ->> 'priority')::integer, 0),
                nextval('{schema}.arrivals'),
                {schema}.clock() + (options ->> 'delay')::double precision * interval '1 second',
                {schema}.clock() + (options ->> 'timeout')::double precision * interval '1 second',
                {schema}.clock() + (options ->> 'expires')::double precision * interval '1 second',
                options ->> 'version');
    end if;
    if topic is not null and run_workflow = start_encoded.workflow and (born or taken <> 'reject') then
        perform {schema}.send_encoded(run_id, topic, message, null);
    elsif born then
        perform {schema}.hint('work');
    end if;
end $$;

-- Merge a start into a run of the same workflow, queue and `merge ->> 'key'` that has not begun, or start one. Without a
-- size its arguments become these, and it begins so long after this; with one, the only argument of both being a list,
-- the items are added to its own (as text: jsonb would write numbers and names otherwise), and it begins when it has so
-- many, or so long after its first start. While it may still be merged into, `dedup` marks it, until it is claimed.
create function {schema}.start_merged(
    workflow text, input bytea, options jsonb, merge jsonb, part text, out run bigint, out run_id text, out born boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    line  constant text := coalesce(options ->> 'queue', 'default');
    mark  constant text := '!' || workflow || ' ' || coalesce(merge ->> 'key', '');
    most  constant integer := (merge ->> 'size')::integer;
    wait  constant interval := (merge ->> 'wait')::double precision * interval '1 second';
    whole bytea := input;
    since timestamptz;
    known text[];
begin
    perform pg_advisory_xact_lock(hashtextextended({schema_literal} || ' ' || line || ' ' || mark, 0));
    select l.key, r.id, r.input, r.created, r.parts into run, run_id, whole, since, known
    from {schema}.live l join {schema}.runs r on r.key = l.key
    where l.queue = line and l.dedup = mark and not l.begun for no key update of l;
    born := not found;
    if born then
        select s.run, s.run_id into run, run_id from {schema}.start_encoded(
            workflow, input, options || jsonb_build_object('dedup', mark, 'delay', merge -> 'wait'), null, null, null) s;
        whole := input;
        update {schema}.runs r set parts = array[part] where most is not null and r.key = run;
    elsif most is null then
        update {schema}.runs r set input = start_merged.input where r.key = run;
        update {schema}.live l
        set status = 1,
            ready = least({schema}.clock() + wait, since + (merge ->> 'max')::double precision * interval '1 second')
        where l.key = run;
    elsif part <> all (known) then
        whole := convert_to('{"args":[[' || (
            select string_agg(item.value::text, ',' order by side.place, item.place)
            from (values (1, whole), (2, input)) as side (place, text)
            cross join lateral json_array_elements(convert_from(side.text, 'UTF8')::json #> '{args,0}')
                               with ordinality as item (value, place)) || ']]}', 'UTF8');
        update {schema}.runs r set input = whole, parts = r.parts || part where r.key = run;
    end if;
    if (case when most is not null
             then most <= json_array_length(convert_from(whole, 'UTF8')::json #> '{args,0}') end) then
        update {schema}.live l set status = 2, ready = null, dedup = null where l.key = run;
    end if;
    perform {schema}.hint('work');
end $$;
