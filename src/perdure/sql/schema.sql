-- The ledger of migrations.

-- name: ledger_exists
-- Whether perdure has ever been in this schema.
select to_regclass(format('%%I.migrations', {schema_literal})) is not null

-- name: create_ledger
-- The schema and its list of applied migrations.
create schema if not exists {schema};
create table {schema}.migrations (
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
