-- Streams: what runs write on and on. One owner writes them, in order, so whoever reads up to a place has read all.

-- name: add_stream_items
-- Write items; what workflow code writes rides on its step, and counts only where this worker recorded that.
insert into {schema}.streams (run, key, place, kind, value, position)
select t.run, t.key, t.place, t.kind, t.value, t.position
from unnest(%(run)s::bigint[], %(key)s::text[], %(place)s::bigint[], %(kind)s::smallint[], %(value)s::bytea[],
            %(position)s::text[], %(rides)s::text[]) as t (run, key, place, kind, value, position, rides)
where t.rides is null
   or (select s.worker from {schema}.steps s where s.run = t.run and s.position = t.rides limit 1) = %(worker)s::bigint
on conflict do nothing

-- name: find_stream_items
-- The next items of these streams, from these places on.
select t.run, t.key, t.place as asked, s.place, s.kind, s.value
from unnest(%(run)s::bigint[], %(key)s::text[], %(place)s::bigint[]) as t (run, key, place)
cross join lateral (
    select s.place, s.kind, s.value from {schema}.streams s
    where s.run = t.run and s.key = t.key and s.place >= t.place order by s.place limit %(limit)s) s

-- name: load_streams
-- How far the streams of claimed runs are, and from which place on each of their steps has written last: what a body
-- wrote that was never recorded does not count.
select s.run, s.key, s.position, max(s.place) as last,
       min(s.place) filter (where s.kind = 0 and s.place > coalesce(
           (select max(d.place) from {schema}.streams d
            where d.run = s.run and d.key = s.key and d.kind = 1 and d.position = s.position), -1)) as first
from {schema}.streams s where s.run = any(%(keys)s::bigint[])
group by s.run, s.key, s.position
