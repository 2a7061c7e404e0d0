"""Races in both colours: who wins, what becomes of the losers, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import (
    AsyncConnection,
    Cancelled,
    Connection,
    NotInWorkflow,
    Perdure,
    WorkflowCancelled,
    WrongColour,
    step,
    sync,
    transaction,
    workflow,
)
from tests.api_tools import on_loop, rows, until, until_true

events: list[str] = []
entered = threading.Event()
inside = threading.Event()
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    events.clear()
    for signal in (entered, inside, door):
        signal.clear()


@step
async def quick(text: str) -> str:
    return text


@step
def quick_blocking(text: str) -> str:
    return text


@step
async def after_entered(text: str) -> str:
    await until_true(lambda: asyncio.to_thread(entered.wait, 0.05))
    return text


@step
def after_entered_blocking(text: str) -> str:
    assert entered.wait(20)
    return text


@step
async def endless() -> str:
    entered.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append("body cancelled")
        raise
    return "never"


@step
def held() -> str:
    entered.set()
    door.wait(20)
    events.append("body ended")
    return "held"


@step
async def fails() -> str:
    raise LookupError("nothing there")


@step
def fails_blocking() -> str:
    raise LookupError("nothing there")


@workflow
async def sleeper() -> str:
    entered.set()
    await perdure.sleep(60)
    return "slept"


@workflow
def sleeper_blocking() -> str:
    entered.set()
    sync.sleep(60)
    return "slept"


@workflow
async def first_of(names: list[str]) -> list[Any]:
    contestants: dict[str, Callable[[], Any]] = {
        "quick": lambda: quick("quick"),
        "endless": endless,
        "sleep": lambda: perdure.sleep(60),
        "fails": fails,
        "held": lambda: perdure.run_step(held),
        "later": lambda: after_entered("later"),
        "child": sleeper.options(id="the child"),
        "message": lambda: perdure.receive("news"),
    }
    which, value = await perdure.race(*(contestants[name]() for name in names))
    return [names[which], value]


@workflow
def first_of_blocking(names: list[str]) -> list[Any]:
    contestants: dict[str, Callable[[], Any]] = {
        "quick": lambda: quick_blocking("quick"),
        "endless": lambda: sync.run_step(endless),
        "sleep": lambda: sync.sleep(60),
        "fails": fails_blocking,
        "held": held,
        "later": lambda: after_entered_blocking("later"),
        "child": sleeper_blocking.options(id="the child"),
        "message": lambda: sync.receive("news"),
    }
    which, value = sync.race(*(contestants[name] for name in names))
    return [names[which], value]


both = pytest.mark.parametrize("target", [first_of, first_of_blocking], ids=["async", "blocking"])


def ran(target: Any, names: list[str]) -> Any:
    """The result of a race."""
    return sync.start(target, names).result(timeout=20)


@both
@pytest.mark.parametrize("loser", ["sleep", "message"])
def test_the_first_wins_and_waits_are_over(target: Any, loser: str, database_url: str) -> None:
    """Place and result of the first are returned; losers that wait are stopped where they wait, at once."""
    with sync.Perdure(database_url):
        assert ran(target, [loser, "quick", loser]) == ["quick", "quick"]
        assert ran(target, ["quick"]) == ["quick", "quick"]


@both
def test_the_error_of_the_first_is_raised(target: Any, database_url: str) -> None:
    """A first one that fails has won: its error is the race's, whatever the others would bring."""
    with sync.Perdure(database_url), pytest.raises(LookupError, match="nothing there"):
        ran(target, ["sleep", "fails"])


@both
def test_a_race_of_none_is_refused(target: Any, database_url: str) -> None:
    """It would never end."""
    with sync.Perdure(database_url), pytest.raises(ValueError, match="at least one"):
        ran(target, [])


def test_an_async_body_that_loses_is_cancelled(database_url: str) -> None:
    """CancelledError arrives in the body of an `async def` step, once."""
    with sync.Perdure(database_url):
        assert ran(first_of, ["endless", "later"]) == ["later", "later"]
        until(lambda: events)
    assert events == ["body cancelled"]


def test_a_def_body_that_loses_is_not_waited_for_by_async_code(database_url: str) -> None:
    """Its thread runs to its end; nobody waits for that."""
    with sync.Perdure(database_url):
        assert ran(first_of, ["held", "later"]) == ["later", "later"]
        assert events == []
        door.set()
        until(lambda: events == ["body ended"])


def test_a_body_that_loses_is_waited_for_by_blocking_code(database_url: str) -> None:
    """A thread cannot be interrupted: the race is over once the body has ended."""
    with sync.Perdure(database_url):
        handle = sync.start(first_of_blocking, ["held", "later"])
        assert entered.wait(20)
        assert handle.status() == "running"
        door.set()
        assert handle.result(timeout=20) == ["later", "later"]
    assert events == ["body ended"]


@both
def test_a_child_that_was_called_is_cancelled_with_its_branch(target: Any, database_url: str) -> None:
    """A loser that waits for a child by calling it takes the child with it."""
    with sync.Perdure(database_url) as app:
        assert ran(target, ["child", "later"]) == ["later", "later"]
        with pytest.raises(WorkflowCancelled):
            app.handle("the child").result(timeout=20)


@workflow
async def waits_for_started() -> list[Any]:
    handle = await sleeper.options(id="started", parent_close="abandon").start()
    return list(await perdure.race(handle.result(), after_entered("later")))


@workflow
def waits_for_started_blocking() -> list[Any]:
    handle = sleeper_blocking.options(id="started", parent_close="abandon").start()
    return list(sync.race(handle.result, lambda: after_entered_blocking("later")))


@pytest.mark.parametrize("target", [waits_for_started, waits_for_started_blocking], ids=["async", "blocking"])
def test_a_child_that_was_started_goes_on(target: Any, database_url: str) -> None:
    """A loser that only waits by a handle leaves the run alone."""
    with sync.Perdure(database_url) as app:
        assert sync.start(target).result(timeout=20) == [1, "later"]
        info = app.handle("started").describe()
        assert (info.status in ("running", "waiting"), info.cancel_requested) == (True, False)


@workflow
async def winner_of(ids: list[str]) -> str:
    return (await perdure.wait_any([sleeper.handle(id) for id in ids])).id


@workflow
def winner_of_blocking(ids: list[str]) -> str:
    return sync.wait_any([sleeper_blocking.handle(id) for id in ids]).id


@pytest.mark.parametrize("target", [winner_of, winner_of_blocking], ids=["async", "blocking"])
def test_wait_any_returns_the_first_handle_however_its_run_ends(target: Any, database_url: str) -> None:
    """A run that was cancelled has ended; the others are left alone."""
    with sync.Perdure(database_url) as app:
        kind = sleeper if target is winner_of else sleeper_blocking
        for id in "ab":
            sync.start(kind.options(id=id))
        waiting = sync.start(target, ["a", "b"])
        app.handle("b").cancel()
        assert waiting.result(timeout=20) == "b"
        assert app.handle("a").status() in ("running", "waiting")
        with pytest.raises(ValueError, match=r"wait_any.* needs at least one handle"):
            sync.start(target, []).result(timeout=20)


@transaction
async def put(conn: AsyncConnection, text: str) -> str:
    await conn.execute("insert into puts values (%s)", (text,))
    entered.set()
    if text == "loser":
        await asyncio.sleep(60)
    return text


@transaction
def put_blocking(conn: Connection, text: str) -> str:
    conn.execute("insert into puts values (%s)", (text,))
    if text == "loser":
        entered.set()
        door.wait(20)
    return text


@workflow
async def transactions_race() -> list[Any]:
    return list(await perdure.race(put("loser"), after_entered("winner")))


@workflow
def transactions_race_blocking() -> list[Any]:
    def last() -> str:
        after_entered_blocking("winner")
        door.set()
        return "winner"

    return list(sync.race(lambda: put_blocking("loser"), last))


@pytest.mark.parametrize("target", [transactions_race, transactions_race_blocking], ids=["async", "blocking"])
def test_a_transaction_that_loses_is_rolled_back(target: Any, database_url: str) -> None:
    """What it wrote is gone, it has no record, and its connection can be used again."""
    rows(database_url, "create table puts (text text)")
    with sync.Perdure(database_url):
        for _ in range(3):
            for signal in (entered, door):
                signal.clear()
            assert sync.start(target).result(timeout=20) == [1, "winner"]
    assert rows(database_url, "select * from puts") == []
    assert rows(database_url, "select name from perdure.steps where name like '%%put%%'") == []


@workflow
def transactions_wait_for_the_gate() -> list[Any]:
    """The winner's code goes on while the loser's function is done and waits for its place in the order."""

    def winner() -> str:
        after_entered_blocking("first")
        door.set()
        inside.wait(1)  # code of the workflow: while it goes on nobody gets the gate
        return "winner"

    return list(sync.race(lambda: put_blocking("loser"), winner))


def test_a_transaction_that_waits_for_the_gate_is_rolled_back(database_url: str) -> None:
    """Its function has returned, but it has not committed when the race is decided: then it does not."""
    rows(database_url, "create table puts (text text)")
    with sync.Perdure(database_url):
        assert transactions_wait_for_the_gate.start().result(timeout=20) == [1, "winner"]
    assert rows(database_url, "select * from puts") == []


@workflow
def loser_cleans_up() -> list[Any]:
    def loser() -> str:
        try:
            sync.gather(lambda: sync.sleep(60), lambda: sync.race(lambda: sync.sleep(60), held))
        except Cancelled:
            events.append(quick_blocking("cleaned up"))
            raise
        return "never"

    def winner() -> str:
        after_entered_blocking("winner")
        door.set()
        return "winner"

    return list(sync.race(loser, winner))


def test_branches_of_a_loser_are_stopped_and_it_may_clean_up(database_url: str) -> None:
    """A loser that waits for branches of its own is told once these have ended, and may call steps then."""
    with sync.Perdure(database_url):
        assert loser_cleans_up.start().result(timeout=20) == [1, "winner"]
    assert events == ["body ended", "cleaned up"]


@workflow
async def loser_cleans_up_async() -> list[Any]:
    async def loser() -> str:
        try:
            await asyncio.gather(perdure.sleep(60), perdure.race(perdure.sleep(60), endless()))
        except asyncio.CancelledError:
            events.append(await quick("cleaned up"))
            raise
        return "never"

    return list(await perdure.race(loser(), after_entered("winner")))


def test_branches_of_an_async_loser_are_cancelled_and_it_may_clean_up(database_url: str) -> None:
    """The same in async code, where the bodies are cancelled too."""
    with sync.Perdure(database_url):
        assert sync.start(loser_cleans_up_async).result(timeout=20) == [1, "winner"]
        until(lambda: len(events) == 2)
    assert set(events) == {"body cancelled", "cleaned up"}


@step
async def races_inside() -> list[Any]:
    return list(await perdure.race(asyncio.sleep(60, "slow"), asyncio.sleep(0, "fast")))


@workflow
async def step_that_races() -> list[Any]:
    return await races_inside()


@on_loop
async def test_outside_of_a_workflow_an_async_race_is_plain(database_url: str) -> None:
    """In a step, and outside, `race` and `wait_any` only do what their names say."""
    assert tuple(await perdure.race(asyncio.sleep(60, "slow"), asyncio.sleep(0, "fast"))) == (1, "fast")
    async with Perdure(database_url):
        assert await step_that_races() == [1, "fast"]
        handles = [await sleeper.start(), await first_of.start(["quick"])]
        assert await perdure.wait_any(handles) is handles[1]


def test_outside_of_a_workflow_a_blocking_race_is_refused() -> None:
    """Branches of blocking code are threads of a run: outside there is none."""
    for call in (
        lambda: sync.race(lambda: 1),
        lambda: sync.gather(lambda: 1),
        lambda: sync.map_steps(quick_blocking, ["a"]),
    ):
        with pytest.raises(NotInWorkflow, match="workflow"):
            call()


@workflow
async def wrong_race() -> None:
    sync.race(lambda: 1)


@workflow
def wrong_timeout() -> None:
    perdure.timeout(1)


def test_the_other_colour_says_what_to_write(database_url: str) -> None:
    """The error names something that exists."""
    with sync.Perdure(database_url):
        with pytest.raises(WrongColour, match=r"perdure\.race"):
            sync.start(wrong_race).result(timeout=20)
        with pytest.raises(WrongColour, match=r"perdure\.sync\.(race|sleep)"):
            wrong_timeout.start().result(timeout=20)
