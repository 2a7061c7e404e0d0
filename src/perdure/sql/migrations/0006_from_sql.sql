-- Runs started, told and cancelled from SQL: in the caller's own transaction, by any language, from a trigger.
--
--   start(name, args, options)  ->  checked_options, start_encoded  ->  runs, live (and send_encoded)
--   send(id, topic, payload)    ->  send_encoded                    ->  messages, live
--   cancel(id, reason)                                              ->  live, ends, waits, audit
--
-- Errors of the caller's have codes of perdure's own: PD003 no such run, PD004 the run has ended, PD005 an argument or
-- option that cannot be, PD006 the id is taken. Nothing here is `security definer`: the caller needs rights of his own
-- on the tables (docs/reference/sql.md). Each statement inside sees what was committed before it, so whoever waited for
-- a lock, or for somebody else's insert, looks again in a later one.

-- Keys of runs that no process has made: negative, since a process counts from its number << 32 upwards.
create sequence {schema}.strangers as bigint;

-- The channel on which hints are sent; the same rule as in store/database.py.
create function {schema}.channel() returns text language sql immutable parallel safe as $$
    select 'perdure ' || case when octet_length(convert_to(n.name, 'UTF8')) < 56 then n.name
                              else left(encode(sha256(convert_to(n.name, 'UTF8')), 'hex'), 32) end
    from (select {schema_literal}::text as name) n
$$;

-- Tell listeners at commit that there may be something to do; the 0 says that no process speaks. NOTIFY takes a lock on
-- the whole database at commit, so whoever commits thousands of transactions a second turns it off: the polls find
-- what it would have announced.
create function {schema}.hint(kinds text) returns void language plpgsql as $$
begin
    if lower(coalesce(current_setting('perdure.hints', true), '')) not in ('off', 'false', 'no', '0') then
        perform pg_notify({schema}.channel(), '0 ' || kinds);
    end if;
end $$;

-- An id for a run that was given none: a UUIDv7, as the processes make them, so that the index on ids stays dense.
create function {schema}.new_id() returns text language sql volatile as $$
    select (lpad(to_hex(floor(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
            || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid::text
$$;

-- Refuse what cannot be a name or an id: as `check_text` does for callers in Python.
create function {schema}.check_text(value text, what text) returns void language plpgsql as $$
begin
    if coalesce(value, '') = '' then
        raise exception '% must not be empty', what using errcode = 'PD005';
    end if;
    if char_length(value) > 512 then
        raise exception '% has % characters, the most is 512', what, char_length(value) using errcode = 'PD005';
    end if;
end $$;

-- Refuse what cannot be a topic: those with a `!` are perdure's own.
create function {schema}.check_topic(topic text) returns void language plpgsql as $$
begin
    perform {schema}.check_text(topic, 'the topic');
    if starts_with(topic, '!') then
        raise exception 'a topic does not begin with "!", as % does', quote_literal(topic) using errcode = 'PD005';
    end if;
end $$;

-- The options of a start that were given a value, once all of them are known and have values that they can have.
create function {schema}.checked_options(options jsonb) returns jsonb language plpgsql as $$
declare
    types constant jsonb := '{"id": "string", "on_conflict": "string", "queue": "string", "priority": "number",
        "delay": "number", "timeout": "number", "version": "string", "tags": "object", "send": "object"}';
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
            when each.key in ('id', 'queue', 'version') and char_length(options ->> each.key) not between 1 and 512
                then 'must have between 1 and 512 characters'
            when each.key = 'on_conflict' and options ->> 'on_conflict' not in ('attach', 'reject', 'restart_if_failed')
                then 'is "attach", "reject" or "restart_if_failed"'
            when each.key = 'priority' and not (each.value::text ~ '^-?[0-9]{1,10}$'
                 and (each.value::text)::numeric between -2147483648 and 2147483647)
                then 'must be a whole number of 32 bits'
            when each.key in ('delay', 'timeout') and (each.value::text)::numeric not between 0 and 3200000000
                then 'must be between 0 seconds and a century'
            when each.key = 'send' and not (each.value ? 'payload' and jsonb_typeof(each.value -> 'topic') = 'string'
                 and each.value - 'topic' - 'payload' = '{}')
                then 'must be {"topic": "...", "payload": ...}'
        end;
        if wrong is not null then
            raise exception 'option % %', quote_ident(each.key), wrong using errcode = 'PD005',
                detail = format('It was given as %s.', left(each.value::text, 200)),
                hint = 'Options are id, on_conflict, queue, priority, delay, timeout, version, tags, send.';
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

-- Send a message whose payload is encoded, from the caller's transaction; false if the key was sent before.
create function {schema}.send_encoded(id text, topic text, payload bytea, key text) returns boolean
language plpgsql as $$
#variable_conflict use_column
declare
    target bigint;
    known  boolean;
begin
    -- The lock comes first: a run that is being put away then shows as waiting in the statements after it.
    for attempt in 1..2 loop  -- it may have gone on as new while the lock was awaited
        select l.key into target from {schema}.runs r join {schema}.live l on l.key = r.key
        where r.id = send_encoded.id and not r.superseded for no key update of l;
        exit when found;
    end loop;
    if target is null then
        select true into known from {schema}.runs r where r.id = send_encoded.id and not r.superseded;
        if known then
            raise exception 'run % has ended', send_encoded.id using errcode = 'PD004';
        end if;
        raise exception 'no run has the id %', send_encoded.id using errcode = 'PD003';
    end if;
    insert into {schema}.messages (run, topic, seq, key, value)
    values (target, send_encoded.topic, nextval('{schema}.arrivals'),
            coalesce(send_encoded.key, gen_random_uuid()::text), payload)
    on conflict do nothing;
    if not found then
        return false;
    end if;
    update {schema}.live l set status = 2, ready = null
    where l.key = target and l.status = 4
      and exists (select 1 from {schema}.waits w
                  where w.run = l.key and w.topic = send_encoded.topic and w.target is null);
    perform {schema}.hint('mail work');
    return true;
end $$;

-- Send a message from any language, in the caller's own transaction; false if the key was sent before.
create or replace function {schema}.send(id text, topic text, payload jsonb, key text default null) returns boolean
language plpgsql as $$
begin
    perform {schema}.check_topic(topic);
    if key is not null then
        perform {schema}.check_text(key, 'the key of a message');
    end if;
    return {schema}.send_encoded(id, topic, convert_to(coalesce(payload, 'null')::text, 'UTF8'), key);
end $$;

-- Start a run, queued or scheduled, from encoded arguments and checked options. It returns the run that has the id
-- then, whatever workflow that is of, and whether it was made here: what that means is the caller's to say. Of two
-- that start one id at a time the second waits for the first one's end, and then finds its run, or makes its own.
-- Where a `realm` is named and this is another database, nothing is started, and null returned.
create function {schema}.start_encoded(
    workflow text, input bytea, options jsonb, topic text, message bytea, realm text,
    out run bigint, out run_id text, out run_workflow text, out born boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    taken constant text := coalesce(options ->> 'on_conflict', 'attach');
begin
    if realm is not null and realm <> (select right(replace(i.id::text, '-', ''), 12) from {schema}.identity i) then
        return;
    end if;
    run_id := coalesce(options ->> 'id', {schema}.new_id());
    for attempt in 1..20 loop
        if taken = 'restart_if_failed' then
            -- Locked first, in a statement of its own: a run that is being revived just now has no end after that.
            perform 1 from {schema}.runs r where r.id = run_id and not r.superseded for no key update;
            update {schema}.runs r set superseded = true from {schema}.ends e
            where r.id = run_id and not r.superseded and e.key = r.key and e.status <> 7;
        end if;
        insert into {schema}.runs (key, id, workflow, input, queue, version, tags, context)
        values (-nextval('{schema}.strangers'), run_id, start_encoded.workflow, start_encoded.input,
                coalesce(options ->> 'queue', 'default'), options ->> 'version', options -> 'tags', options -> 'context')
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
        insert into {schema}.live (key, workflow, status, queue, priority, arrival, ready, deadline, version)
        values (run, start_encoded.workflow, case when options ->> 'delay' is null then 2 else 1 end,
                coalesce(options ->> 'queue', 'default'), coalesce((options ->> 'priority')::integer, 0),
                nextval('{schema}.arrivals'),
                {schema}.clock() + (options ->> 'delay')::double precision * interval '1 second',
                {schema}.clock() + (options ->> 'timeout')::double precision * interval '1 second',
                options ->> 'version');
    end if;
    if topic is not null and run_workflow = start_encoded.workflow and (born or taken <> 'reject') then
        perform {schema}.send_encoded(run_id, topic, message, null);
    elsif born then
        perform {schema}.hint('work');
    end if;
end $$;

-- Start a run from any language, in the caller's own transaction; returns its id.
create function {schema}.start(name text, args jsonb default '[]', options jsonb default '{}') returns text
language plpgsql as $$
declare
    given   jsonb;
    input   text;
    started record;
begin
    perform {schema}.check_text(name, 'the name of a workflow');
    given := {schema}.checked_options(coalesce(options, '{}'));
    input := case jsonb_typeof(coalesce(args, '[]'))
        when 'array' then '{"args":' || coalesce(args, '[]')::text || '}'
        when 'object' then '{"kwargs":' || args::text || '}'
    end;
    if input is null then
        raise exception 'args must be an array, of positional arguments, or an object, of named ones, not %',
            left(args::text, 100) using errcode = 'PD005';
    end if;
    select * into started from {schema}.start_encoded(
        name, convert_to(input, 'UTF8'), given, given #>> '{send,topic}',
        convert_to((given #> '{send,payload}')::text, 'UTF8'), null);
    if started.run_workflow <> name then
        raise exception 'the id % belongs to a run of %, not of %', quote_literal(started.run_id), started.run_workflow, name
            using errcode = 'PD006';
    end if;
    if not started.born and given ->> 'on_conflict' = 'reject' then
        raise exception 'there is a run with the id % already', quote_literal(started.run_id) using errcode = 'PD006';
    end if;
    return started.run_id;
end $$;

-- Cancel a run from any language, in the caller's own transaction; false if it was too late for that. One that has not
-- begun, or is parked, ends with the caller's commit; the code of any other is told to stop.
create function {schema}.cancel(id text, reason text default null) returns boolean
language plpgsql as $$
#variable_conflict use_column
declare
    target bigint;
    before bigint;
    why    constant text := left(reason, 1000);
    said   constant text := 'the run was cancelled before it began' || coalesce(': ' || why, '');
begin
    loop
        select r.key into target from {schema}.runs r where r.id = cancel.id and not r.superseded;
        if not found then
            raise exception 'no run has the id %', cancel.id using errcode = 'PD003';
        end if;
        if target = before then
            return false;  -- it has ended
        end if;
        perform 1 from {schema}.live l where l.key = target for no key update;
        exit when found;
        before := target;  -- ended, or gone on as new while the lock was awaited: look again
    end loop;
    with gone as (
        delete from {schema}.live l
        where l.key = target and (l.status = 6 or (not l.begun and l.status in (1, 2)))
        returning l.key)
    insert into {schema}.ends (key, status, value)
    select gone.key, 9, convert_to('{"module":"perdure.errors","name":"WorkflowCancelled","message":' || to_json(said)
                                   || ',"args":[' || to_json(said) || ']}', 'UTF8')
    from gone;
    if found then
        delete from {schema}.waits w where w.run = target;
    else
        update {schema}.live l
        set cancel = case when l.cancel = 0 then 1 else l.cancel end,
            status = case when l.status = 3 then 3 else 2 end, ready = null, reason = coalesce(why, l.reason)
        where l.key = target and l.cancel <> 4;
        if not found then
            return false;  -- it has failed, and undoes what it did
        end if;
    end if;
    insert into {schema}.audit (who, verb, run, id, reason) values (session_user || ' (SQL)', 'cancel', target, cancel.id, why);
    perform {schema}.hint('cancel ended');
    return true;
end $$;
