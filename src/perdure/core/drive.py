"""The two drivers: they answer what an operation asks for, one awaiting, the other blocking.

A body of the user's runs in a context of its own in which there is no run: a step inside a step is a plain
call, and what a body does to context variables does not reach the workflow, as it would not on a replay.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar

from perdure.core.body import running
from perdure.core.branch import Unwind, current, step_info
from perdure.core.effects import AtGate, Await, DurableWait, Invoke, Pause, StopHere, TakeGate, Use
from perdure.core.gate import Call
from perdure.core.run import Run
from perdure.core.runtime import Runtime
from perdure.errors import Cancelled, StepTimeout
from perdure.store.records import Ticket
from perdure.store.signal import Signal

Operation = Generator[Any, Any, Any]
T = TypeVar("T")


class AsyncHost(Protocol):
    """Runs the code of a run on an event loop."""

    run: Run

    async def at_gate(self, call: Call) -> Any:
        """Wait for the answer to a call."""
        ...

    async def take_gate(self, call: Call) -> int:
        """Wait for the gate; return the group's number."""
        ...


class BlockingHost(Protocol):
    """Runs the code of a run in threads."""

    def at_gate(self, call: Call) -> Any:
        """Wait for the answer to a call."""
        ...

    def take_gate(self, call: Call) -> int:
        """Wait for the gate; return the group's number."""
        ...


async def drive(operation: Operation, runtime: Runtime | None = None, host: AsyncHost | None = None) -> Any:
    """Run an operation on the event loop and return what it returns."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = operation.send(value) if error is None else operation.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            if isinstance(effect, Signal):
                await effect.wait()  # by far the most frequent
            else:
                value = await _answer(effect, runtime, host)
        except asyncio.CancelledError as raised:
            # Taken off the stack while a body ran here: the code around it is not to take that for a cancel.
            error = Unwind() if host is not None and host.run.leaves_the_stack else raised
        except BaseException as raised:
            error = raised


async def _answer(effect: Any, runtime: Runtime | None, host: AsyncHost | None) -> Any:
    match effect:
        case Invoke():
            return await invoke(effect, runtime)
        case Use():
            branch = current.get()
            if branch is None or branch.run.alone or branch.run.host is None:
                return await _use(effect, runtime)
            branch.run.looking += 1
            try:
                return await _use(effect, runtime)
            finally:
                branch.run.looking -= 1
                if branch.run.host is not None:
                    branch.run.host.pump()
        case AtGate(call):
            return await _needed(host).at_gate(call)
        case TakeGate(call):
            return await _needed(host).take_gate(call)
        case DurableWait(signal):
            return await signal.wait()
        case Await():
            return await _within(effect)
        case Pause(seconds):
            return await asyncio.sleep(seconds)
        case StopHere():
            return await _stop_here()
    raise TypeError(f"an operation yielded {effect!r}")


def drive_blocking(
    operation: Operation, runtime: Runtime | None = None, host: BlockingHost | None = None
) -> Any:
    """Run an operation in this thread and return what it returns."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = operation.send(value) if error is None else operation.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            if isinstance(effect, Signal):
                if runtime is not None and isinstance(effect, Ticket) and not effect.done:
                    runtime.lend_hand(effect)
                effect.wait_blocking()
            else:
                value = _answer_blocking(effect, runtime, host)
        except BaseException as raised:
            error = raised


def _answer_blocking(effect: Any, runtime: Runtime | None, host: BlockingHost | None) -> Any:
    match effect:
        case Invoke():
            return invoke_blocking(effect, runtime)
        case Use():
            return _use_blocking(effect, runtime)
        case AtGate(call):
            return _needed(host).at_gate(call)
        case TakeGate(call):
            return _needed(host).take_gate(call)
        case DurableWait(signal):
            with _needed(runtime).blocked():
                return signal.wait_blocking()
        case Await(signal, timeout):
            return signal.wait_blocking(timeout)
        case Pause(seconds):
            return threading.Event().wait(seconds)
        case StopHere():
            raise Cancelled
    raise TypeError(f"an operation yielded {effect!r}")


def _needed(what: T | None) -> T:
    if what is None:
        raise RuntimeError("this operation belongs into a workflow")
    return what


async def invoke(effect: Invoke, runtime: Runtime | None) -> Any:
    """Call the user's function from the event loop."""
    context = body_context(effect)
    if not effect.is_async:
        return await _invoke_in_thread(effect, context, runtime)
    body = InContext(context.run(effect.function, *effect.args, **effect.kwargs), context)
    if effect.timeout is None:
        return await body
    return await _bounded(body, effect)


def invoke_blocking(effect: Invoke, runtime: Runtime | None) -> Any:
    """Call the user's function from a thread."""
    context = body_context(effect)
    if effect.is_async:
        assert runtime is not None
        call = InContext(effect.function(*effect.args, **effect.kwargs), context)
        return runtime.call_async(_bounded, (call, effect), {})
    if effect.timeout is None:
        return context.run(effect.function, *effect.args, **effect.kwargs)
    assert runtime is not None
    signal = runtime.in_thread(lambda: context.run(effect.function, *effect.args, **effect.kwargs))
    if not signal.wait_blocking(effect.timeout):
        effect.late = signal
        raise _timed_out(effect)
    if signal.error is not None:
        raise signal.error
    return signal.value


async def _invoke_in_thread(effect: Invoke, context: Context, runtime: Runtime | None) -> Any:
    signal = _needed(runtime).in_thread(lambda: context.run(effect.function, *effect.args, **effect.kwargs))
    try:
        if not await _within(Await(signal, effect.timeout)):
            raise _timed_out(effect)
    finally:
        if not signal.done:
            effect.late = signal
    if signal.error is not None:
        raise signal.error
    return signal.value


async def _bounded(body: InContext, effect: Invoke) -> Any:
    scope = asyncio.timeout(effect.timeout)
    try:
        async with scope:
            return await body
    except TimeoutError as error:
        if scope.expired():
            raise _timed_out(effect) from error
        raise


def _timed_out(effect: Invoke) -> StepTimeout:
    name = effect.info().step if effect.info else effect.function.__qualname__
    return StepTimeout(f"{name} took longer than its timeout of {effect.timeout:g} s")


def body_context(effect: Invoke) -> Context:
    """The context of a body: no run, but the step."""
    context = copy_context()
    context.run(_enter_body, effect)
    return context


def _enter_body(effect: Invoke) -> None:
    current.set(None)
    step_info.set(effect.info)
    running.set(effect.body)


async def _use(effect: Use, runtime: Runtime | None) -> Any:
    if effect.is_async:
        # Outside of the run: tasks that a connection pool creates here are no branches of the workflow.
        context = copy_context()
        context.run(current.set, None)
        effect.value = await InContext(context.run(effect.function, *effect.args, **effect.kwargs), context)
        return effect.value
    signal = _needed(runtime).in_thread(lambda: effect.function(*effect.args, **effect.kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not signal.done:  # the engine's own calls are bounded, and what they return must not be lost
        try:
            await signal.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    effect.value = signal.value
    if cancelled is not None:
        raise cancelled
    if signal.error is not None:
        raise signal.error
    return signal.value


def _use_blocking(effect: Use, runtime: Runtime | None) -> Any:
    if effect.is_async:
        effect.value = _needed(runtime).call_async(effect.function, effect.args, effect.kwargs)
    else:
        effect.value = effect.function(*effect.args, **effect.kwargs)
    return effect.value


async def _within(effect: Await) -> bool:
    if effect.timeout is None:
        await effect.signal.wait()
        return True
    try:
        async with asyncio.timeout(effect.timeout):
            await effect.signal.wait()
    except TimeoutError:
        return effect.signal.done
    return True


async def _stop_here() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


class InContext(Awaitable[Any]):
    """A coroutine that is stepped in a context of its own by whatever task awaits it."""

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        self._coroutine, self._context = coroutine, context

    def __await__(self) -> Generator[Any, Any, Any]:
        run, coroutine = self._context.run, self._coroutine
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                yielded = run(coroutine.send, value) if error is None else run(coroutine.throw, error)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                value = yield yielded
            except BaseException as raised:
                error = raised
