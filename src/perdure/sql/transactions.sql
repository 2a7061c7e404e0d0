-- The transaction step: the user's writes and the step's record in one transaction.

-- name: begin_step
-- First statement of a transaction step: make this commit durable whatever the session's setting, and read
-- the record, which an attempt whose answer was lost may have left.
select set_config('synchronous_commit', 'on', true), pg_catalog.transaction_timestamp() as began,
       s.failed, s.value, s.worker
from (select 1) as always (one)
left join {schema}.steps s on s.run = %(run)s::bigint and s.position = %(position)s

-- name: fence_step
-- Last but one, after the user's statements: the same transaction still, and the worker still alive.
select {schema}.fence(%(worker)s::bigint, %(slot)s::smallint, %(began)s::timestamptz)

-- name: record_transaction
-- Last before COMMIT: the record. A plain insert: meeting an earlier one is an error that rolls everything
-- back, after waiting for a backend that may still be committing it.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
values (%(run)s, %(position)s, %(grp)s, %(ord)s, %(kind)s, %(name)s, %(failed)s, %(value)s, %(attempts)s,
        %(seconds)s, %(worker)s)

-- name: same_transaction
-- Whether a transaction outside of any run is still the one that perdure began.
select pg_catalog.transaction_timestamp() = %(began)s::timestamptz
