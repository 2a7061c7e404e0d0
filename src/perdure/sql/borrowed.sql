-- What is done on a connection that is the user's, in the transaction that is open on it.

-- name: start_on_connection
-- Start a run with the caller's transaction. The arguments are encoded and the options checked by this process.
select run, run_id, run_workflow, born
from {schema}.start_encoded(%(workflow)s, %(input)s::bytea, %(options)s::jsonb, %(topic)s, %(message)s::bytea, %(realm)s)

-- name: run_exists
-- Whether a run that was started in a transaction of the user's has been committed.
select 1 from {schema}.runs where key = %(key)s::bigint

-- name: start_merged
-- Merge a start into a run that has not begun, or start one that others can be merged into.
select run, run_id, born
from {schema}.start_merged(%(workflow)s, %(input)s::bytea, %(options)s::jsonb, %(merge)s::jsonb, %(part)s)
