"""A process of the benchmark: a worker that serves the queue, or the victim that starts runs and is killed.

Each says on a line of its own when it is ready, and then lives until it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

import perdure
from benchmarks import programs


async def serve(url: str, lease: float) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with perdure.Perdure(url, lease=lease):
        await programs.chain(1, 1)  # so that nothing is done for the first time while it is measured
        print("ready", flush=True)
        await stop.wait()


async def be_the_victim(url: str, lease: float, count: int) -> None:
    """Start runs that all get stuck behind a committed step, then wait to be killed."""
    async with perdure.Perdure(url, lease=lease, concurrency=count + 10):
        await asyncio.gather(*[programs.hostage.start(number) for number in range(count)])
        for _ in range(count):
            await programs.reached.get()
        print("ready", flush=True)
        await asyncio.Event().wait()


def follow_parent() -> None:
    """End with the process that started this one: its end closes our input."""
    sys.stdin.read()
    os._exit(0)


def main(arguments: list[str]) -> None:
    """`serve URL LEASE`, or `victim URL LEASE COUNT`."""
    logging.getLogger("perdure").setLevel(logging.ERROR)  # that a worker died is what was asked for
    threading.Thread(target=follow_parent, daemon=True).start()
    role, url, lease, *rest = arguments
    if role == "serve":
        asyncio.run(serve(url, float(lease)))
    else:
        asyncio.run(be_the_victim(url, float(lease), int(rest[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
