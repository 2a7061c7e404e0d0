"""Where `async def` code runs: the loop on which the app was opened, or one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from perdure.core.branch import current
from perdure.core.outbox import Outbox
from perdure.core.tasks import install_task_factory

Work = Callable[[asyncio.AbstractEventLoop, Outbox], None]


class Loops:
    """The one event loop of an app's runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._place: tuple[asyncio.AbstractEventLoop, Outbox] | None = None
        self._thread: threading.Thread | None = None
        self._loop_thread: int | None = None
        self._works: deque[Work] = deque()
        self._woken = False

    def use(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        """Use the loop on which the app is opened, which runs in this thread."""
        with self._lock:
            self._loop_thread = thread
            self._adopt(loop)

    def is_here(self) -> bool:
        """Whether this thread runs the loop."""
        return self._place is not None and threading.get_ident() == self._loop_thread

    def submit(self, work: Work) -> None:
        """Have `work` done on the loop; at once, where this is the loop's thread."""
        loop, outbox = self._ensure()
        if threading.get_ident() == self._loop_thread:
            work(loop, outbox)
        else:
            self._later(work)

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have `work` done on the loop soon; a loop that has closed does nothing more."""
        self._later(lambda _loop, _outbox: work())

    def _later(self, work: Work) -> None:
        """Have `work` done on the loop soon.

        Many works of one moment, such as the runs of one claim, wake the loop once: each time that a thread wakes it, it
        gives up the interpreter, and a busy loop has it back only after some milliseconds.
        """
        loop, outbox = self._ensure()
        self._works.append(work)
        if not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._do_works, loop, outbox)
            except RuntimeError:
                self._works.clear()
                self._woken = False

    def _do_works(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._woken = False  # before the first is taken: whoever comes after that wakes the loop again
        while self._works:
            work = self._works.popleft()
            try:
                work(loop, outbox)
            except Exception as error:
                loop.call_exception_handler({"message": f"{work} failed", "exception": error})

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call an `async def` function from a thread and wait for its result."""
        loop, _ = self._ensure()
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError("a blocking call on the event loop's own thread would wait for ever")
        # In a context without a run: what is created there is no branch of the workflow that calls.
        context = copy_context()
        context.run(current.set, None)
        return context.run(asyncio.run_coroutine_threadsafe, _awaited(function, args, kwargs), loop).result()

    def close(self) -> None:
        """Stop the loop's thread, if there is one."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and self._place is not None:
            loop, _ = self._place
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)

    def _ensure(self) -> tuple[asyncio.AbstractEventLoop, Outbox]:
        return self._place or self._begin()

    def _begin(self) -> tuple[asyncio.AbstractEventLoop, Outbox]:
        """Start a loop in a thread of its own, unless somebody has just done so."""
        with self._lock:
            if self._place is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._run, args=(loop,), name="perdure-loop", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no more
                    loop.close()
                    raise
                self._thread = thread
                self._loop_thread = self._thread.ident
                self._adopt(loop)
            assert self._place is not None
            return self._place

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        install_task_factory(loop)
        self._place = loop, Outbox(loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _awaited(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return await function(*args, **kwargs)
