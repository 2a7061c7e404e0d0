"""What the workers of the command line's tests run: one workflow in each colour, whose step can be held up.

SHOP_HOLD says how: `code` waits for ever in code that can be interrupted, `thread` in a thread that cannot,
and a path waits until somebody writes into that pipe.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import perdure
from perdure import step, workflow

HOLD = os.environ.get("SHOP_HOLD")

app = perdure.Perdure()
blocking_app = perdure.sync.Perdure()
client_app = perdure.Perdure(worker=False)
foreign_app = perdure.Perdure("postgresql://127.0.0.1:1/elsewhere", schema="elsewhere")
not_an_app = "text"


def _wait_in_thread() -> None:
    if HOLD == "thread":
        threading.Event().wait()
    elif HOLD:
        Path(HOLD).read_text()


@step
async def pack(order: int) -> int:
    """Return who packed the order."""
    print(f"packing {order}", flush=True)
    if HOLD == "code":
        await asyncio.Event().wait()
    await asyncio.to_thread(_wait_in_thread)
    return os.getpid()


@step
def pack_blocking(order: int) -> int:
    """Return who packed the order."""
    print(f"packing {order}", flush=True)
    if HOLD == "code":
        threading.Event().wait()
    _wait_in_thread()
    return os.getpid()


@workflow(name="shop.deliver")
async def deliver(order: int) -> int:
    """Return who packed the order."""
    return await pack(order)


@workflow(name="shop.deliver_blocking")
def deliver_blocking(order: int) -> int:
    """Return who packed the order."""
    return pack_blocking(order)


@workflow(name="shop.fork")
def fork() -> int:
    """Return the signal that ended a child process."""
    return end_a_child()


@step
def end_a_child() -> int:
    """Fork, end the child by SIGTERM, and return what ended it."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@workflow(name="shop.listen")
async def listen() -> str:
    """Have the event loop listen to a signal, as programs of users do, and say whose loop it is."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    return type(loop).__module__


@workflow(name="shop.await")
async def await_message() -> str:
    """Wait for a message that nobody sends."""
    return await perdure.receive("news", type=str)


@workflow(name="shop.parent")
async def parent() -> str:
    """Leave a child behind in the queue."""
    await deliver.options(queue="default", parent_close="abandon").start(100)
    return "done"
