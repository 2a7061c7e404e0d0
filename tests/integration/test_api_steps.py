"""Steps: tried again as their Retry says, timed out, at most once, remembered through a change of worker."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import perdure
from perdure import DoNotRetry, OutcomeUnknown, Perdure, Retry, RetryAfter, StepTimeout, step, workflow
from tests.api_tools import on_loop, until_true

bodies: list[str] = []
entered = threading.Event()
door = threading.Event()

FAST = Retry(max_attempts=5, delay=0.01, jitter=0)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bodies.clear()
    entered.clear()
    door.clear()


class Busy(Exception):
    pass


class Declined(Exception):
    pass


def attempt(text: str) -> int:
    bodies.append(text)
    return perdure.info().attempt


@step(retry=FAST)
async def third_time(text: str) -> int:
    if (number := attempt(text)) < 3:
        raise Busy(text)
    return number


@step(retry=FAST)
def third_time_blocking(text: str) -> int:
    if (number := attempt(text)) < 3:
        raise Busy(text)
    return number


@step(retry=FAST)
async def never() -> None:
    raise Busy(str(attempt("never")))


@step
async def once() -> None:
    attempt("once")
    raise Busy("once")


@step(retry=Retry(max_attempts=5, delay=0.01, unless=(Declined,)))
async def declined() -> None:
    attempt("declined")
    raise Declined("card")


@step(retry=Retry(max_attempts=5, delay=0.01, on=(Busy,)))
async def other_error() -> None:
    attempt("other")
    raise KeyError("other")


@step(retry=Retry(max_attempts=5, delay=0.01, when=lambda error: "again" in str(error)))
async def when_said() -> None:
    number = attempt("when")
    raise Busy("again" if number < 2 else "enough")


@step(retry=FAST)
async def final() -> None:
    try:
        raise Declined("card")
    except Declined as error:
        attempt("final")
        raise DoNotRetry("no use") from error


@step(retry=Retry(max_attempts=2, delay=100))
async def asks_for_time() -> float:
    now = time.monotonic()
    if attempt(str(now)) == 1:
        raise RetryAfter(0.2)
    return now


@step(timeout=0.05)
async def slow() -> None:
    await asyncio.sleep(60)


@step(timeout=0.05, retry=FAST)
async def slow_at_first() -> int:
    number = attempt("slow")
    if number < 2:
        await asyncio.sleep(60)
    return number


@step(timeout=0.05)
def slow_blocking() -> None:
    door.wait(10)


@step(timeout=0.1, retry=Retry(max_attempts=2, delay=0, jitter=0))
def slow_thread() -> int:
    number = attempt("begin")
    if number == 1:
        entered.set()
        door.wait(20)
        bodies.append("end")
    return number


@step(at_most_once=True)
async def fragile() -> str:
    attempt("fragile")
    entered.set()
    await asyncio.to_thread(door.wait, 20)
    return "done"


@step
async def remembered(text: str) -> str:
    bodies.append(text)
    return text


@workflow
async def calling(which: str) -> float:
    steps = {
        "third_time": lambda: third_time("x"),
        "never": never,
        "once": once,
        "declined": declined,
        "other_error": other_error,
        "when_said": when_said,
        "final": final,
        "asks_for_time": asks_for_time,
        "slow": slow,
        "slow_at_first": slow_at_first,
    }
    return await steps[which]()  # type: ignore[operator,no-any-return]


@workflow
def calling_blocking(which: str) -> int:
    if which == "slow":
        slow_blocking()
    return third_time_blocking("x") if which == "third_time" else slow_thread()


@workflow
async def careful() -> str:
    await remembered("before")
    try:
        return await fragile()
    except OutcomeUnknown as error:
        return f"unknown: {type(error).__name__}"


@on_loop
async def test_a_step_is_tried_until_it_succeeds(database_url: str) -> None:
    """Attempts count from one, and the record says how many there were."""
    async with Perdure(database_url):
        handle = await calling.start("third_time")
        assert await handle.result(timeout=20) == 3
        [told] = await handle.steps()
        assert told.attempts == 3


def test_a_blocking_step_is_tried_until_it_succeeds(database_url: str) -> None:
    """The same for a `def` step in a `def` workflow."""
    with perdure.sync.Perdure(database_url):
        assert calling_blocking("third_time") == 3
        assert bodies == ["x", "x", "x"]


@on_loop
async def test_the_last_error_says_which_attempt_it_was(database_url: str) -> None:
    """After the last attempt the step's own exception is raised, with a note `attempt 5 of 5`."""
    async with Perdure(database_url):
        with pytest.raises(Busy, match="5") as caught:
            await calling("never")
        assert "attempt 5 of 5" in caught.value.__notes__
        assert len(bodies) == 5


@on_loop
async def test_without_a_retry_a_step_runs_once(database_url: str) -> None:
    """A step that says nothing is not tried again, and its error carries no note of attempts."""
    async with Perdure(database_url):
        with pytest.raises(Busy) as caught:
            await calling("once")
        assert bodies == ["once"]
        assert not [note for note in caught.value.__notes__ if note.startswith("attempt")]


@pytest.mark.parametrize(
    ("which", "error", "attempts"),
    [
        ("declined", Declined, 1),
        ("other_error", KeyError, 1),
        ("when_said", Busy, 2),
        ("final", DoNotRetry, 1),
    ],
)
def test_what_is_final_is_not_tried_again(
    which: str, error: type[Exception], attempts: int, database_url: str
) -> None:
    """`unless`, `on`, `when` and DoNotRetry end the attempts early."""

    async def main() -> None:
        async with Perdure(database_url):
            with pytest.raises(error):
                await calling(which)

    asyncio.run(main())
    assert len(bodies) == attempts


@on_loop
async def test_do_not_retry_keeps_its_cause(database_url: str) -> None:
    """`raise DoNotRetry(...) from error` arrives with that error as its cause."""
    async with Perdure(database_url):
        with pytest.raises(DoNotRetry, match="no use") as caught:
            await calling("final")
        assert isinstance(caught.value.__cause__, Declined)
        assert str(caught.value.__cause__) == "card"


@on_loop
async def test_a_step_may_ask_for_time(database_url: str) -> None:
    """RetryAfter(0.2) makes the next attempt 0.2 seconds later, whatever the policy's delay."""
    async with Perdure(database_url):
        second = await calling("asks_for_time")
        assert 0.2 <= second - float(bodies[0]) < 10


@on_loop
async def test_an_async_step_is_interrupted_by_its_timeout(database_url: str) -> None:
    """An attempt that takes too long is cancelled and fails with StepTimeout, which is a TimeoutError."""
    async with Perdure(database_url):
        with pytest.raises(StepTimeout, match=r"slow.*0\.05"):
            await calling("slow")
        with pytest.raises(TimeoutError):
            await calling("slow")


@on_loop
async def test_an_attempt_that_timed_out_is_tried_again(database_url: str) -> None:
    """A timeout is a failure like others for Retry."""
    async with Perdure(database_url):
        assert await calling("slow_at_first") == 2


def test_a_blocking_step_fails_at_its_timeout(database_url: str) -> None:
    """A `def` step cannot be interrupted, but its caller goes on after the timeout."""
    with perdure.sync.Perdure(database_url):
        began = time.monotonic()
        with pytest.raises(StepTimeout, match="slow_blocking"):
            calling_blocking("slow")
        assert time.monotonic() - began < 5
        door.set()


def test_a_blocking_step_is_not_retried_while_its_thread_runs(database_url: str) -> None:
    """The next attempt of a `def` step begins only after the thread of the last one has ended."""
    with perdure.sync.Perdure(database_url):
        handle = calling_blocking.start("slow_thread")
        assert entered.wait(20)
        with pytest.raises(perdure.WaitTimeout):
            handle.result(timeout=0.4)
        assert bodies == ["begin"]
        door.set()
        assert handle.result(timeout=20) == 2
        assert bodies == ["begin", "end", "begin"]


@on_loop
async def test_a_step_at_most_once_does_not_run_again(database_url: str) -> None:
    """After its worker stopped inside it the step raises OutcomeUnknown; a recorded step is not run again."""
    async with Perdure(database_url, grace=0):
        await careful.options(id="careful").start()
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
    async with Perdure(database_url):
        assert await careful.handle("careful").result(timeout=20) == "unknown: OutcomeUnknown"
    door.set()
    assert bodies == ["before", "fragile"]


@on_loop
async def test_a_step_at_most_once_that_ends_is_a_step(database_url: str) -> None:
    """Without a crash an `at_most_once` step returns its result."""
    door.set()
    async with Perdure(database_url):
        assert await careful() == "done"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retry(max_attempts=0), "max_attempts"),
        (lambda: Retry(jitter=2), "jitter"),
        (lambda: Retry(backoff=0.5), "backoff"),
        (lambda: Retry(delay=-1), "delay"),
        (lambda: step(timeout=-1)(lambda: None), "timeout"),
    ],
)
def test_wrong_policies_are_refused(make: object, text: str) -> None:
    """A number out of its range is a ValueError that names it, where it is written."""
    assert callable(make)
    with pytest.raises(ValueError, match=text):
        make()


def test_a_timed_out_step_leaves_no_thread_waiting_for_it(database_url: str) -> None:
    """Closing the app does not hang on a `def` step that timed out and whose thread still runs."""
    with perdure.sync.Perdure(database_url, grace=1):
        with pytest.raises(StepTimeout):
            calling_blocking("slow")
        began = time.monotonic()
    assert time.monotonic() - began < 8
    door.set()
