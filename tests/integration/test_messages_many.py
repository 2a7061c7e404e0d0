"""Ten thousand messages: in order, each once, and a receive costs the same for the last as for the first.

Costs are counted in statements and rows, which do not depend on the machine.
"""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import Perdure, workflow
from perdure.store import messages as stored
from perdure.store.records import MessageRecord
from tests.api_tools import on_loop, rows
from tests.message_tools import asked, waiting
from tests.protocol_tools import RawWorker

MANY = 10_000


@workflow(name="many.count")
async def count(number: int) -> bool:
    """Whether they came in order."""
    return all([await perdure.receive("t") == expected for expected in range(number)])


@on_loop
async def test_ten_thousand_messages_come_in_order_at_the_same_price(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page of messages is read once, and each message is in one page; a receive is one row of the journal."""
    pages: list[int] = []
    find = stored.find_messages

    def counting(*arguments: Any) -> Any:
        found = find(*arguments)
        pages.extend(map(len, found.values()))
        return found

    monkeypatch.setattr(stored, "find_messages", counting)
    async with Perdure(database_url, grace=0):
        handle = await count.options(id="c", delay=3600).start(MANY)
        for first in range(0, MANY, 2000):
            await perdure.send_many([("c", "t", number) for number in range(first, first + 2000)])
        await asked(database_url, "update perdure.live set status = 2, ready = null")
        assert await handle.result(60)
    assert sum(pages) == MANY
    assert len(pages) == MANY // stored.PAGE_MESSAGES
    consumed = "select count(*), count(distinct message) from perdure.steps"
    assert await asked(database_url, consumed) == [(MANY, MANY)]


@on_loop
async def test_a_new_owner_reads_what_was_consumed_page_by_page(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a hand-over in the middle the other half comes, in order, and nothing twice."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    async with Perdure(database_url, grace=0):
        await count.options(id="c").start(2000)
        await perdure.send_many([("c", "t", number) for number in range(1200)])
        await waiting(database_url)
    async with Perdure(database_url, grace=0):
        await perdure.send_many([("c", "t", number) for number in range(1200, 2000)])
        assert await count.handle("c").result(60)


def test_a_look_costs_the_same_however_many_were_seen(database_url: str) -> None:
    """By the index: a look at the end of ten thousand touches a few pages of the database."""
    with RawWorker(database_url, single=False) as owner:
        run = owner.start("c")
        owner.write(*[MessageRecord(owner.key(), "c", "t", b"1", f"k{number}") for number in range(MANY)])
        owner.connection.execute("analyze")
        ((last,),) = rows(database_url, "select max(seq) from perdure.messages")
        parameters = {"run": [run], "topic": ["t"], "seen": [last - 3], "limit": 500}
        explained = "explain (analyze, buffers, format json) " + owner.database.statements["find_messages"]
        ((plan,),) = owner.connection.execute(explained.encode(), parameters).fetchall()
    touched = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    assert touched < 40
