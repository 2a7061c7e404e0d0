-- Slots of queues with limits are numbered as they are taken, so that a count goes on where the last one ended and does
-- not pass again what has died since (docs/explanation/storage.md).

create sequence {schema}.slots;
select nextval('{schema}.slots');  -- from now on all that were given are at most its last value
-- The number of the slot that a run holds, or held last; null where it was started on no queue, and counts for none.
alter table {schema}.live add column slot bigint;
update {schema}.live set slot = nextval('{schema}.slots') where status = 3 and arrival > 0;
drop index {schema}.live_slots;
create index live_slots on {schema}.live (queue, slot) where status = 3 and arrival > 0;
