"""One queue for all customers of a service: one of them brings 400 documents at once, and the others hardly notice.

Shows a `Queue` with limits per key: each tenant has at most four renderings at a time, all of them together at most six,
tenants take turns, and one that pays more has two turns for each of another. `start_many` queues hundreds in one call.
The limits are rows in the database: run a second copy of the program in the same folder, and both together keep to them.
Kill it and run it again: what was rendered is not rendered again.

Run: `python examples/tenants.py`
"""

import asyncio
from collections import Counter

from perdure import AsyncConnection, Perdure, Queue, RunInfo, transaction, workflow

AT_ONCE, EACH = 6, 4
DOCUMENTS = {"globex": 400, "acme": 40, "initech": 3}
"""How many documents each tenant has, in the order in which they come."""

render_queue = Queue("render", concurrency=AT_ONCE, key_concurrency=EACH, weights={"acme": 2})

at_work: Counter[str] = Counter()
most: Counter[str] = Counter()
"""How many documents of each tenant were rendered here at the same time, now and at most."""


@workflow
async def render(tenant: str, number: int) -> int:
    """Render a document, and put it on the tenant's bill; returns its pages."""
    at_work[tenant] += 1
    most[tenant] = max(most[tenant], at_work[tenant])
    most["all"] = max(most["all"], at_work.total())
    try:
        await asyncio.sleep(0.01)  # stands for a renderer that may be asked twice; what counts is the bill
        pages = number % 7 + 1
        await bill(tenant, pages)
        return pages
    finally:
        at_work[tenant] -= 1


@transaction
async def bill(conn: AsyncConnection, tenant: str, pages: int) -> None:
    """Write the pages down."""
    await conn.execute("insert into bills (tenant, pages) values (%s, %s)", (tenant, pages))


@transaction
async def prepare(conn: AsyncConnection) -> None:
    """Make the table of bills, if it is not there."""
    await conn.execute("create table if not exists bills (tenant text, pages integer)")


@transaction
async def billed(conn: AsyncConnection) -> dict[str, tuple[int, int]]:
    """Documents and pages of each tenant."""
    cursor = await conn.execute("select tenant, count(*), sum(pages) from bills group by tenant")
    return {tenant: (documents, pages) for tenant, documents, pages in await cursor.fetchall()}


async def main() -> None:
    """Queue all documents, wait until they are rendered, and look who waited for whom."""
    async with Perdure(queues=[render_queue], schema="tenants", grace=0, lease=2) as app:
        await prepare()
        handles = await app.start_many(
            render.options(id=f"{tenant}-{number}", queue="render", key=tenant).bind(tenant, number)
            for tenant, documents in DOCUMENTS.items()
            for number in range(documents)
        )
        print(f"{len(handles)} documents are queued, {DOCUMENTS['globex']} of globex before all others")
        for handle in handles:
            await handle.result(timeout=120)
        runs = [run for tenant in DOCUMENTS for run in await app.runs.list(prefix=f"{tenant}-", limit=1000)]
        bills = await billed()
    for tenant, documents in DOCUMENTS.items():
        print(f"{tenant}: {documents} documents, the last one as number {place_of_last(tenant, runs)} of all")
    assert bills == {
        tenant: (documents, sum(number % 7 + 1 for number in range(documents)))
        for tenant, documents in DOCUMENTS.items()
    }, "each document is on the bill once"
    assert most["all"] <= AT_ONCE
    assert all(most[tenant] <= EACH for tenant in DOCUMENTS)
    print(
        f"never more than {EACH} at a time of one tenant, nor {AT_ONCE} of all; every document is billed once"
    )


def place_of_last(tenant: str, runs: list[RunInfo]) -> int:
    """How many documents were ready when the last one of a tenant was."""
    ends = {run.id: run.finished for run in runs if run.finished}
    last = max(end for id, end in ends.items() if id.startswith(f"{tenant}-"))
    return sum(end <= last for end in ends.values())


if __name__ == "__main__":
    asyncio.run(main())
