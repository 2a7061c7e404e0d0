-- Durable objects: commands lock their rows, are run by the one who holds the lock, and are written with it.

-- name: make_entities
-- Make the objects of a batch that are not there yet, in the order of their keys, so that there is a row to lock.
insert into {schema}.entities (type, key)
select t.type, t.key from unnest(%(type)s::text[], %(key)s::text[]) as t (type, key) order by t.type, t.key
on conflict do nothing

-- name: lock_entities
-- Lock the objects of a batch, in the same order everywhere, and read them as they are under the lock. One look at the
-- index for each, however many objects there are.
select e.type, e.key, e.version, convert_to(e.state::text, 'UTF8') as state
from unnest(%(type)s::text[], %(key)s::text[]) as t (type, key)
cross join lateral (
    select * from {schema}.entities e where e.type = t.type and e.key = t.key limit 1 for update) e

-- name: find_commands
-- Which of these commands are done already: by an earlier try, or by the same id.
select t.type, t.key, t.id, c.value
from unnest(%(type)s::text[], %(key)s::text[], %(id)s::text[]) as t (type, key, id)
cross join lateral (
    select c.value from {schema}.commands c where c.type = t.type and c.key = t.key and c.id = t.id limit 1) c

-- name: save_entities
-- The objects as the batch leaves them; they are there and locked, so each conflict finds its row by the index.
insert into {schema}.entities (type, key, state, version)
select t.type, t.key, convert_from(t.state, 'UTF8')::jsonb, t.version
from unnest(%(type)s::text[], %(key)s::text[], %(state)s::bytea[], %(version)s::bigint[]) as t (type, key, state, version)
on conflict (type, key) do update
set state = excluded.state, version = excluded.version, changed = {schema}.clock()

-- name: add_commands
-- What was done, each at its version. Meeting an earlier one is an error that rolls everything back.
insert into {schema}.commands (type, key, version, id, command, args, value, run)
select * from unnest(%(type)s::text[], %(key)s::text[], %(version)s::bigint[], %(id)s::text[], %(command)s::text[],
                     %(args)s::bytea[], %(value)s::bytea[], %(run)s::bigint[])

-- name: record_command_steps
-- The steps that gave the commands: as for transactions, meeting an earlier record rolls everything back.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
select t.run, t.position, t.grp, t.ord, t.kind, t.name, t.failed, t.value, 1, 0, %(worker)s::bigint
from unnest(%(run)s::bigint[], %(position)s::text[], %(grp)s::integer[], %(ord)s::integer[], %(kind)s::smallint[],
            %(name)s::text[], %(failed)s::boolean[], %(value)s::bytea[])
     as t (run, position, grp, ord, kind, name, failed, value)

-- name: find_entities
-- Objects as they are, of those that have changed since these versions.
select t.type, t.key, t.version as seen, e.version, convert_to(e.state::text, 'UTF8') as state
from unnest(%(type)s::text[], %(key)s::text[], %(version)s::bigint[]) as t (type, key, version)
cross join lateral (
    select * from {schema}.entities e where e.type = t.type and e.key = t.key and e.version > t.version limit 1) e

-- name: list_commands
-- What was done to one object, newest first.
select version, id, command, args, value, done from {schema}.commands
where type = %(type)s and key = %(key)s order by version desc limit %(limit)s

-- name: add_told
-- What the commands of the batch have told other objects to do, in the transaction that carries them out.
insert into {schema}.told (id, type, key, command, args)
select * from unnest(%(id)s::text[], %(type)s::text[], %(key)s::text[], %(command)s::text[], %(args)s::bytea[])
on conflict do nothing

-- name: end_told
-- Told commands that are done: in the transaction that carries them out.
delete from {schema}.told where id = any(%(ids)s::text[])

-- name: fail_told
-- Told commands that have raised: nobody waits for them, so the error is kept where it can be found.
update {schema}.told t set error = f.error
from unnest(%(ids)s::text[], %(errors)s::bytea[]) as f (id, error) where t.id = f.id

-- name: find_told
-- Told commands that nobody has carried out for some seconds, on objects whose code is here: whoever told them has died.
select id, type, key, command, args from {schema}.told
where error is null and told < {schema}.clock() - %(seconds)s * interval '1 second' and type = any(%(types)s::text[])
order by told, id limit %(limit)s
