-- What a run can say and hear: messages, events, streams, progress; and whose end ends it.
--
--   messages  sent to a run, numbered in the order in which they were committed; a step names the one it consumed
--   events    what a run has made known, every value of it; also the answers to updates
--   streams   what a run writes on and on, by offset
--
-- All three are only ever inserted into. Messages live as long as their run does: a sender that repeats itself
-- meets its own key.

create table {schema}.messages (
    run   bigint not null,
    topic text not null,
    seq   bigint not null,
    key   text not null,
    value bytea not null,
    sent  timestamptz not null default {schema}.clock(),
    primary key (run, topic, seq)
);
create unique index messages_key on {schema}.messages (run, topic, key);

create table {schema}.events (
    run      bigint not null,
    key      text not null,
    seq      bigint not null,
    failed   boolean not null,
    value    bytea not null,
    recorded timestamptz not null default {schema}.clock(),
    primary key (run, key, seq)
);

-- kind: 0 an item, 1 items from the offset in `value` on are of a failed attempt, 2 the end.
create table {schema}.streams (
    run      bigint not null,
    key      text not null,
    place    bigint not null,
    kind     smallint not null,
    value    bytea not null,
    position text,
    primary key (run, key, place)
);

-- Which message a step consumed.
alter table {schema}.steps add column message bigint;

-- What is waited for: with a target its event of this name, without one a message of this topic.
alter table {schema}.waits add column topic text;

-- What travels with a run, for middleware.
alter table {schema}.runs add column context jsonb;

-- The run whose end ends this one (`parent_close="cancel"`).
alter table {schema}.live add column parent bigint;
create index live_parent on {schema}.live (parent) where parent is not null;

-- What the body that has begun last said of its progress.
alter table {schema}.intents add column detail bytea;

-- Send a message from any language, in the caller's own transaction; returns false if the key was sent before.
create function {schema}.send(id text, topic text, payload jsonb, key text default null) returns boolean
language plpgsql as $$
#variable_conflict use_column
declare
    target bigint;
    known  boolean;
begin
    -- The lock comes first: a run that is being put away then shows as waiting in the statements after it.
    select l.key into target from {schema}.runs r join {schema}.live l on l.key = r.key
    where r.id = send.id and not r.superseded for no key update of l;
    if not found then
        select l.key into target from {schema}.runs r join {schema}.live l on l.key = r.key
        where r.id = send.id and not r.superseded for no key update of l;  -- it went on as new meanwhile
    end if;
    if target is null then
        select true into known from {schema}.runs r where r.id = send.id and not r.superseded;
        if known then
            raise exception 'run % has ended', send.id using errcode = 'PD004';
        end if;
        raise exception 'no run has the id %', send.id using errcode = 'PD003';
    end if;
    insert into {schema}.messages (run, topic, seq, key, value)
    values (target, send.topic, nextval('{schema}.arrivals'), coalesce(send.key, gen_random_uuid()::text),
            convert_to(payload::text, 'UTF8'))
    on conflict do nothing;
    if not found then
        return false;
    end if;
    update {schema}.live l set status = 2, ready = null
    where l.key = target and l.status = 4
      and exists (select 1 from {schema}.waits w where w.run = l.key and w.topic = send.topic and w.target is null);
    return true;
end $$;
