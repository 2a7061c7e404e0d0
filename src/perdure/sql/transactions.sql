-- The transaction step: the user's writes and the step's record in one transaction.

-- name: begin_step
-- First statement of a transaction step: take the fence, and make this commit durable whatever the session's setting. No row
-- means: fenced.
with held as materialized (
    select 1 from {schema}.fences where worker = %(worker)s::bigint and slot = %(slot)s::smallint for key share)
select pg_catalog.transaction_timestamp() as began, set_config('synchronous_commit', 'on', true) from held

-- name: find_record
-- With it where a COMMIT had no answer, or met a record: what that attempt has left. (What is committed after this statement
-- began is not read; the step is then done in vain, and fails at its record.)
select failed, value, grp, kind, name from {schema}.steps where run = %(run)s::bigint and position = %(position)s

-- name: move_record
-- In the transaction that has found a record of another life of the run, late: it is handed out now, so this is its place
-- in the order. The one statement that changes what is in `steps`, and only before the code has seen it.
update {schema}.steps set grp = %(grp)s, ord = 0 where run = %(run)s::bigint and position = %(position)s

-- name: begin_plain
-- The beginning of a transaction outside of any run, which has neither fence nor record.
select pg_catalog.transaction_timestamp() as began, set_config('synchronous_commit', 'on', true)

-- name: record_transaction
-- Last before COMMIT, after the user's statements: the same transaction still, with the fence that it took at its beginning,
-- which nothing but its end lets go; then the record.
-- A plain insert: meeting an earlier one is an error that rolls everything back, after waiting for a backend that may
-- still be committing it.
insert into {schema}.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
values (%(run)s, %(position)s, %(grp)s, %(ord)s, %(kind)s, %(name)s, %(failed)s, %(value)s, %(attempts)s, %(seconds)s,
        case when pg_catalog.transaction_timestamp() = %(began)s::timestamptz then %(worker)s::bigint
             else {schema}.ended_inside() end)

-- name: same_transaction
-- Whether a transaction outside of any run is still the one that perdure began.
select pg_catalog.transaction_timestamp() = %(began)s::timestamptz
