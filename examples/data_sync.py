"""Every night the customers that have changed in the shop are copied to the books, page by page; here seven nights.

Shows `@scheduled`: each night has one run, whatever number of workers, and the run reads its night as
`perdure.info().scheduled_at`, so that it copies what changed on that very day, also when it runs later. Nobody waits for
the night here: `backfill` gives the last seven nights their runs. Each page is a step with a retry, and is written by a
transaction step together with its own record. Kill the program and run it again: each night goes on with the page that it
was at. Run it once more: nothing is left to copy.

Run: `python examples/data_sync.py`
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import perdure
from perdure import AsyncConnection, Perdure, Retry, scheduled, step, transaction, workflow

CUSTOMERS = 1_400
NIGHTS = 7
PAGE = 50


@dataclass
class Customer:
    """A customer as the shop has it."""

    number: int
    city: str
    changed: datetime


@dataclass
class Page:
    """Some of the customers that changed, and where the next page begins, if there is one."""

    customers: list[Customer]
    next: int | None


@scheduled(
    "30 2 * * *", timezone="Europe/Lisbon", name="nightly", overlap="buffer_all", catch_up=timedelta(days=7)
)
@workflow
async def sync_customers() -> int:
    """Copy what changed on the day before this night; returns how many customers that were."""
    tick = perdure.info().scheduled_at
    assert tick is not None, "it is started by its schedule"
    day, copied = tick.date() - timedelta(days=1), 0
    place: int | None = 0
    while place is not None:
        page = await read_page(day, place)
        copied += await write_page(page.customers)
        place = page.next
    return copied


@step(retry=Retry(max_attempts=5, delay=0.02))
async def read_page(day: date, place: int) -> Page:
    """Ask the shop for some of the customers that changed on a day."""
    print(f"read {day} from {place}", flush=True)
    return await shop.changed(day, place)


@transaction
async def write_page(conn: AsyncConnection, customers: list[Customer]) -> int:
    """Write customers to the books; what is newer there already stays, since nights may come in any order."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "insert into books (number, city, changed, writes) values (%s, %s, %s, 1) on conflict (number) do update"
            " set city = case when books.changed < excluded.changed then excluded.city else books.city end,"
            " changed = greatest(books.changed, excluded.changed), writes = books.writes + 1",
            [(each.number, each.city, each.changed) for each in customers],
        )
    return len(customers)


class Shop:
    """Stands for the shop's API, which gives pages, and times out at every third one when it is asked first."""

    def __init__(self) -> None:
        self._asked: Counter[tuple[date, int]] = Counter()

    async def changed(self, day: date, place: int) -> Page:
        """Customers from this number on that changed on a day, the first so many."""
        await asyncio.sleep(0.01)
        self._asked[day, place] += 1
        if place % 3 == 2 and self._asked[day, place] == 1:
            raise TimeoutError("the shop does not answer")
        numbers = [number for number in range(place, CUSTOMERS) if changes_on(number, day)]
        some = [Customer(number, city_of(number, day), noon(day)) for number in numbers[:PAGE]]
        return Page(some, numbers[PAGE] if len(numbers) > PAGE else None)


def changes_on(number: int, day: date) -> bool:
    """Whether a customer moves house on a day: each does once a week."""
    return (number + day.toordinal()) % 7 == 0


def city_of(number: int, day: date) -> str:
    """Where a customer lives after that."""
    return ("Lisbon", "Porto", "Faro", "Braga")[(number + day.toordinal() // 7) % 4]


def noon(day: date) -> datetime:
    """When they move."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


shop = Shop()


async def main() -> None:
    """Give the last seven nights their runs, wait for them, and compare both systems."""
    # A schema of its own: whoever tries the other examples here has no code for what comes due tonight.
    async with Perdure(schema="data_sync", grace=0, lease=2) as app:
        await prepare()
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begun = await app.schedules.backfill("nightly", today - timedelta(days=NIGHTS), today)
        print(f"{begun} nights had no run yet")
        runs = await app.runs.list(prefix="nightly@", limit=1000)
        copied = [await app.handle(run.id).result(timeout=60) for run in runs]
        found = await books()
    print(f"{sum(copied):,} customers copied in {len(copied)} nights")
    newest = {number: city for number, city, _ in found}
    days = [(today - timedelta(days=back)).date() for back in range(1, NIGHTS + 2)]
    wanted = {
        number: city_of(number, day)
        for day in reversed(days[1:])
        for number in range(CUSTOMERS)
        if changes_on(number, day)
    }
    assert newest == wanted
    assert sum(writes for *_, writes in found) == sum(copied), "each page was written once"
    print(f"the books have all {len(newest):,} customers where they live now")


@transaction
async def prepare(conn: AsyncConnection) -> None:
    """Make the books, if they are not there."""
    await conn.execute(
        "create table if not exists books (number integer primary key, city text, changed timestamptz, writes integer)"
    )


@transaction
async def books(conn: AsyncConnection) -> list[tuple[int, str, int]]:
    """All that is in the books."""
    cursor = await conn.execute("select number, city, writes from books order by number")
    return [(number, city, writes) for number, city, writes in await cursor.fetchall()]


if __name__ == "__main__":
    asyncio.run(main())
