-- Who waits to begin in a queue with a size is counted without looking at the runs of others: those that wait for a worker by
-- the index of claims, those that wait for their time by one of their own. One statement for both could use neither, and read
-- all runs that wait for anything: 37 ms for a start beside 200,000 that slept.

create index live_delayed on {schema}.live (queue) where status = 1;

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
       and most <= (select count(*) from (
               select 1 from {schema}.live l where l.queue = line and l.status = 2 and not l.begun
               union all
               select 1 from {schema}.live l where l.queue = line and l.status = 1 and not l.begun
               limit most) x) then
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
