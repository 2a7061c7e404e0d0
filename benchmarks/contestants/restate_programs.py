"""What Restate runs in the benchmark: handlers that do nothing but be durable, and the app that serves them."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import Any, Final

import restate

from benchmarks.protocol import Tally

tally: Final = Tally()
"""What this process has run."""
played: Final = itertools.count()
"""Attempts of `ping` in this process: a second one would replay what the first one timed."""

bench: Final = restate.Service("Bench")
answering: Final = restate.Workflow("Answering", inactivity_timeout=timedelta(minutes=10))


async def add(number: int) -> int:
    """Add one."""
    return number + 1


@bench.handler()
async def chain(context: restate.Context, steps: int) -> int:
    """Call a step so many times, one after another."""
    number = 0
    for _ in range(steps):
        number = await context.run_typed("add", add, number=number)
    return number


def hit(number: int) -> int:
    """Count, and add one."""
    tally.hit()
    return number + 1


async def hit_in_a_step(number: int) -> int:
    """The same as a coroutine: what is none goes through threads."""
    return hit(number)


@bench.handler()
async def one_step(context: restate.Context, number: int) -> int:
    """A job of one step."""
    return await context.run_typed("hit", hit_in_a_step, number=number)


@bench.handler()
async def bare(_: restate.Context, number: int) -> int:
    """A job without steps."""
    return hit(number)


@bench.handler()
async def stamped(_: restate.Context, number: int) -> int:
    """Say at once when it began."""
    tally.stamp()
    return number


@bench.handler()
async def pong(context: restate.Context, times: int) -> int:
    """Answer each signal by one."""
    other = await context.signal("begin", type_hint=str)
    for number in range(times):
        ball = await context.signal(f"ping-{number}", type_hint=int)
        context.resolve_signal(other, f"pong-{number}", ball)
    return times


@bench.handler()
async def ping(context: restate.Context, game: dict[str, Any]) -> list[float]:
    """Send a signal and wait for the answer, so many times; return the attempt and the milliseconds of each."""
    took = [float(next(played))]
    context.resolve_signal(game["other"], "begin", context.request().id)
    for number in range(game["times"]):
        began = time.perf_counter()
        context.resolve_signal(game["other"], f"ping-{number}", number)
        if await context.signal(f"pong-{number}", type_hint=int) != number:
            raise restate.TerminalError(f"the answer to {number} was another one")
        took.append((time.perf_counter() - began) * 1000)
    return took


@answering.main()
async def run(context: restate.WorkflowContext, times: int) -> int:
    """Await a question, and resolve its answer; so many times."""
    for number in range(times):
        question = await context.promise(f"question-{number}", type_hint=int)
        await context.promise(f"answer-{number}", type_hint=int).resolve(question)
    return times


@answering.handler()
async def ask(context: restate.WorkflowSharedContext, number: int) -> int:
    """Hand a question to the workflow, and await the answer."""
    await context.promise(f"question-{number}", type_hint=int).resolve(number)
    return await context.promise(f"answer-{number}", type_hint=int)


app: Final = restate.app([bench, answering])
