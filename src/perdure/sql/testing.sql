-- A clock of the tests' own, in place of the database's.

-- name: own_clock
-- From now on the schema's time is a row, which starts at the present.
create table if not exists {schema}.owned_clock (moment timestamptz not null);
delete from {schema}.owned_clock;
insert into {schema}.owned_clock values (now());
create or replace function {schema}.clock() returns timestamptz language sql stable parallel safe
    as 'select moment from {schema}.owned_clock';

-- name: advance_clock
-- Time passes.
update {schema}.owned_clock set moment = moment + %(seconds)s * interval '1 second' returning moment

-- name: set_clock
-- It is this time now.
update {schema}.owned_clock set moment = %(moment)s returning moment

-- name: tell_clock
-- Workers that sleep until something is due look again: by their own clocks it is not yet.
select {schema}.hint('work schedule')

-- name: give_back_clock
-- The database's own time again.
create or replace function {schema}.clock() returns timestamptz language sql stable parallel safe
    as 'select pg_catalog.now()';
drop table if exists {schema}.owned_clock;
