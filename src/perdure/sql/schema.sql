-- The ledger of migrations.

-- name: ledger_exists
-- Whether perdure has ever been in this schema. Asked of the catalog's rows: `to_regclass` answers from a cache,
-- which another process's commit does not reach in the middle of a transaction.
select exists (select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where n.nspname = {schema_literal} and c.relname = 'migrations')

-- name: create_ledger
-- The schema and its list of applied migrations.
create schema if not exists {schema};
create table if not exists {schema}.migrations (
    number  integer primary key,
    name    text not null,
    applied timestamptz not null default now()
);

-- name: applied_migrations
-- What has been applied.
select number from {schema}.migrations

-- name: note_migration
-- One more has been applied.
insert into {schema}.migrations (number, name) values (%(number)s, %(name)s)

-- name: lock_migrations
-- One migrates at a time: concurrent starters wait here, then find nothing to do.
select pg_advisory_xact_lock(%(key)s::bigint)
