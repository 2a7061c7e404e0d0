-- Commands that commands of durable objects have told others to carry out: written with the one that tells, gone with the
-- one that is told. One that raises stays, with its error, since nobody waits for it.

create table {schema}.told (
    id      text primary key,
    type    text not null,
    key     text not null,
    command text not null,
    args    bytea not null,
    told    timestamptz not null default {schema}.clock(),
    error   bytea
);
create index told_open on {schema}.told (told) where error is null;
