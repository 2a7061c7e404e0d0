"""A worker: runs the shop's workflows until it is killed, or until whoever started it closes its input.

The code is imported, the app is opened, and that is all: the database is the one of the working folder,
and what there is to do is on the queue. Run as many as you like: `python worker.py NAME`.
"""

from __future__ import annotations

import asyncio
import sys

import shop  # noqa: F401 - the workflows that this worker can run

from perdure import Perdure


async def work(name: str) -> None:
    """Work under this name, which is for people."""
    async with Perdure(name=name, concurrency=100, lease=3, grace=5):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
