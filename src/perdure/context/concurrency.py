"""Concurrent branches of async code: the first of several, many with a limit, none for longer than so long."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar, overload

from perdure.client import Handle
from perdure.context.branch import async_branch, branch_of
from perdure.context.calls import run_step
from perdure.core.drive import drive
from perdure.core.waits import sleep as sleep_operation
from perdure.declare import BlockingStep
from perdure.errors import WaitTimeout
from perdure.models import Duration, MapFailure, MapResult, seconds_of

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Handle[Any])


class Winner(NamedTuple, Generic[R]):
    """Which of the contestants of a race was first, and its result."""

    which: int
    value: R


@overload
async def race(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B], /) -> Winner[A | B]: ...
@overload
async def race(
    first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B], third: Coroutine[Any, Any, C], /
) -> Winner[A | B | C]: ...
@overload
async def race(*contestants: Coroutine[Any, Any, R]) -> Winner[R]: ...
async def race(*contestants: Coroutine[Any, Any, Any]) -> Winner[Any]:
    """Run coroutines as concurrent branches until the first of them ends; cancel the others.

    Args:
        contestants: such as `charge(order)`, `perdure.sleep(60)` or `perdure.receive(topic)`.

    Returns:
        Which one was first, and its result; a replay finds the same.

    Raises:
        ValueError: there are none.
        Exception: what the first one raised.

    Example:
        which, value = await perdure.race(perdure.receive(approval), perdure.sleep(3600))
    """
    if not contestants:
        raise ValueError("race(...) needs at least one coroutine")
    tasks = [asyncio.create_task(contestant) for contestant in contestants]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(index for index, task in enumerate(tasks) if task.done())
    finally:
        await _stopped(tasks)
    return Winner(first, tasks[first].result())


async def _stopped(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is nobody's concern."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_any(handles: Iterable[H]) -> H:
    """Wait for the first of several runs to end, however it does, and return its handle.

    Args:
        handles: of runs; those that go on are left alone.

    Raises:
        ValueError: there are none.
    """
    several = list(handles)
    if not several:
        raise ValueError("wait_any(...) needs at least one handle")
    winner = await race(*(_ended(handle) for handle in several))
    return several[winner.which]


async def _ended(handle: Handle[Any]) -> None:
    try:
        await handle.result()
    except Exception:
        return


def timeout(duration: Duration) -> AbstractAsyncContextManager[object]:
    """Bound the time of a block of code, durably: `async with perdure.timeout(60): ...`.

    The time is counted from when the block is entered first, by the database's clock, through crashes and deploys.
    When it is over the block is cancelled where it waits, steps and children in it too.

    Args:
        duration: seconds or `timedelta`.

    Raises:
        WaitTimeout: the block did not end in time.
    """
    seconds = seconds_of(duration, "timeout(...)")
    async_branch("perdure.timeout", "perdure.sync.race with perdure.sync.sleep")
    return _Timeout(seconds)


class _Timeout:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._expired = False
        self._cancelling = 0

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("perdure.timeout(...) bounds one block: call it again for the next one")
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._timer = asyncio.create_task(self._expire())
        return self

    async def _expire(self) -> None:
        branch = branch_of("perdure.timeout")
        await drive(sleep_operation(branch, seconds=self._seconds), branch.run.runtime, branch.run.host)
        self._expired = True
        assert self._task is not None
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._timer is not None
        if self._expired:
            # Somebody else may have cancelled the task as well: the run's end, a race, a timeout around this one.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise WaitTimeout(f"the block took longer than {self._seconds:g} s") from error
        elif kind is None or issubclass(kind, Exception | asyncio.CancelledError):
            await _stopped([self._timer])


class _Shield:
    def __enter__(self) -> None:
        self._run = branch_of("perdure.shield").run
        self._run.shields += 1

    def __exit__(self, *_error: object) -> None:
        self._run.shields -= 1

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_error: object) -> None:
        self.__exit__()


def shield() -> _Shield:
    """Keep a block of workflow code from being told to stop: `with perdure.shield(): ...`, or `async with`.

    A cancel of the run, or its timeout, that comes meanwhile arrives at the first durable call after the block.
    """
    return _Shield()


async def map_steps(
    step: Callable[[T], Any],
    items: Iterable[T],
    *,
    limit: int = 100,
    tolerate: float = 0,
) -> MapResult[T, Any]:
    """Call a step, or a workflow, for each of many items, so many at a time.

    Args:
        step: what is called with each item; its own `retry` counts for each.
        items: the items; the order of the results is theirs.
        limit: how many are under way at the same time.
        tolerate: how many may fail: a number (`3`), or a share of all (`0.1`).

    Returns:
        The results of those that succeeded, in the order of the items, and the failures.

    Raises:
        ValueError: `limit` is below one, or `tolerate` below zero.
        Exception: the error of an item that was one too many; items under way are cancelled.
    """
    todo = list(items)
    work = MapWork(todo, limit, tolerate)

    async def worker() -> None:
        for index, item in work:
            try:
                work.done(index, await called(step, item))
            except Exception as error:
                work.failed(index, error)

    tasks = [asyncio.create_task(worker()) for _ in range(min(limit, len(todo)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _stopped(tasks)
    return work.result()


def called(step: Callable[[T], Any], item: T) -> Coroutine[Any, Any, Any]:
    """Call a step of either colour, or a workflow, from async code."""
    if isinstance(step, BlockingStep):
        return run_step(step, item)
    coroutine: Coroutine[Any, Any, Any] = step(item)
    return coroutine


class MapWork(Generic[T]):
    """The items still to be taken, and what became of the others; shared by all workers of a map."""

    def __init__(self, items: Sequence[T], limit: int, tolerate: float) -> None:
        if limit < 1:
            raise ValueError("map_steps(limit=...) is at least 1")
        if tolerate < 0 or (isinstance(tolerate, float) and tolerate > 1):
            raise ValueError("map_steps(tolerate=...) is a number of items, or a share between 0 and 1")
        self._items = items
        # Rounded first: 0.29 of 100 items are 28.999999999999996.
        self._allowed = (
            math.floor(round(tolerate * len(items), 6)) if isinstance(tolerate, float) else tolerate
        )
        self._left = iter(enumerate(items))
        self._results: dict[int, Any] = {}
        self._failures: list[MapFailure[T]] = []
        self.over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, T]:
        if self.over:
            raise StopIteration
        return next(self._left)

    def done(self, index: int, value: Any) -> None:
        """An item succeeded."""
        self._results[index] = value

    def failed(self, index: int, error: Exception) -> None:
        """An item failed; raises its error if that is one too many."""
        self._failures.append(MapFailure(index, self._items[index], error))
        if len(self._failures) > self._allowed:
            self.over = True
            error.add_note(
                f"item {index} of {len(self._items)}: {len(self._failures)} failed, {self._allowed} tolerated"
            )
            raise error

    def result(self) -> MapResult[T, Any]:
        """Everything, in the order of the items."""
        results = [self._results[index] for index in sorted(self._results)]
        return MapResult(results, sorted(self._failures, key=lambda failure: failure.index))
