-- The transaction step: the user's writes and the step's record in one transaction.

-- name: begin_step
-- First statement of a transaction step: take the fence, make this commit durable whatever the session's setting, and read
-- the record, which an attempt whose answer was lost may have left. (One that is committed after this statement began is
-- not read; the step is then done in vain, and fails at its record.)
select set_config('synchronous_commit', 'on', true), pg_catalog.transaction_timestamp() as began,
       s.failed, s.value, s.worker
from (select {schema}.fence(%(worker)s::bigint, %(slot)s::smallint)) as held
left join {schema}.steps s on s.run = %(run)s::bigint and s.position = %(position)s

-- name: begin_plain
-- The same of a transaction outside of any run, which has neither.
select set_config('synchronous_commit', 'on', true), pg_catalog.transaction_timestamp() as began,
       null::boolean as failed, null::bytea as value, null::bigint as worker

-- name: record_transaction
-- Last before COMMIT, after the user's statements: the same transaction still, and the worker still alive; then the record.
-- A plain insert: meeting an earlier one is an error that rolls everything back, after waiting for a backend that may
-- still be committing it.
with held as materialized (select {schema}.fence(%(worker)s::bigint, %(slot)s::smallint, %(began)s::timestamptz))
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
select %(run)s, %(position)s, %(grp)s, %(ord)s, %(kind)s, %(name)s, %(failed)s, %(value)s, %(attempts)s,
       %(seconds)s, %(worker)s::bigint
from held

-- name: same_transaction
-- Whether a transaction outside of any run is still the one that perdure began.
select pg_catalog.transaction_timestamp() = %(began)s::timestamptz
