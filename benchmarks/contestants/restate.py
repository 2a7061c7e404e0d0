"""Restate: the Python SDK served by hypercorn, beside one server with its own store.

The server is as it comes: 24 partitions, its log written through to the disk. hypercorn has the settings that
Restate's documentation gives for production, and runs on uvloop where it is installed; handlers are coroutines
of a plain service, the cheapest kind, which keeps a run until it has ended and no result for a key. A client is
what posts HTTP/1.1 over connections that are kept, with no more parsing than that needs: the SDK's own client
takes the way through httpx and HTTP/2 in Python, which would count as Restate's time. In `one`, `many` and `messages`, client and service share a process
and an event loop. Column `async` is the only colour: blocking handlers would be threads around the same.

Jobs of a queue are calls that are sent, not awaited, and durable once they are accepted. As a service has work
pushed to it, a backlog is made of calls that all become due at one later moment; those that are to be enqueued
only are due in an hour. Two workers are two processes that listen on the port of one deployment.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import hypercorn.asyncio
import hypercorn.config
import restate.server

from benchmarks.contestants import restate_programs as programs
from benchmarks.contestants.shared import cold_process, each_group, serving
from benchmarks.protocol import (
    Job,
    Worker,
    at_once_async,
    drain,
    import_time,
    latencies,
    one_at_a_time_async,
    say_ready,
    start_latency,
    timed,
    wait_for_end,
)

MODULE: Final = "benchmarks.contestants.restate"
PORTS: Final = "BENCH_RESTATE"
"""Environment variable: the ports of ingress, admin interface and service, for worker processes too."""
EXPECTED: Final = 500
"""Runs a second, to choose how large a backlog is."""
BOOT: Final = 5.0
"""Seconds that a worker process may take until it listens."""
LONGEST: Final = 120.0
"""Seconds after which what is measured on one event loop is given up."""
SETTLED: Final = 2.0
"""Seconds before and within the window of `many-*`, at least."""
MESSAGES: Final = 210
ENDLESS: Final = 2**31 - 1


# -- server ------------------------------------------------------------------------------------------------


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """Start a server with a store of its own; yield its process id, and end it whatever happens."""
    folder.mkdir()
    ingress, admin, fabric, service = free_ports(4)
    binaries = list(Path(sys.prefix).glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not binaries:
        raise RuntimeError(f"there is no restate-server below {sys.prefix}/node_modules")
    command = [str(binaries[0]), "--base-dir", str(folder), "--node-name", "bench", "--no-logo"]
    command += ["--listen-mode", "tcp", "--bind-ip", "127.0.0.1", "--bind-port", str(fabric)]
    settings = {
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RUST_LOG": "off",
    }
    with serving(command, **settings) as process:
        os.environ[PORTS] = f"{ingress},{admin},{service}"
        run(register(process))
        yield process.pid


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with ExitStack() as sockets:
        taken = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one_of_them in taken:
            one_of_them.bind(("127.0.0.1", 0))
        return [one_of_them.getsockname()[1] for one_of_them in taken]


async def register(process: subprocess.Popen[bytes]) -> None:
    """Make our service known to the server, once it is up."""
    until = time.monotonic() + 60
    uri = f"http://127.0.0.1:{ports()[2]}"
    async with handlers():
        while True:
            try:
                await asyncio.to_thread(administer, "deployments", {"uri": uri})
                await Ingress().chain(1)  # the first one was seen to take a second
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)


def administer(path: str, payload: object) -> Any:
    """Ask the server for something that is not measured."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{ports()[1]}/{path}", json.dumps(payload).encode(), headers
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def ports() -> tuple[int, ...]:
    """The ports of ingress, admin interface and service."""
    return tuple(map(int, os.environ[PORTS].split(",")))


# -- service and client ------------------------------------------------------------------------------------


@asynccontextmanager
async def handlers() -> AsyncIterator[None]:
    """Serve the handlers on the running event loop; other processes may do so on the same port."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", ports()[2]))
    listening.listen(1000)  # who comes before hypercorn is ready waits
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.h2_max_concurrent_streams = ENDLESS
    config.keep_alive_max_requests = ENDLESS
    config.keep_alive_timeout = ENDLESS
    config.graceful_timeout = 0.1
    config.loglevel = "CRITICAL"
    over = asyncio.Event()
    # The SDK takes SIGTERM for itself, and only tells its handlers. The server dies with us.
    restate.server.install_shutdown_hook(asyncio.get_running_loop(), partial(os._exit, 1))
    served = asyncio.create_task(
        hypercorn.asyncio.serve(programs.app, config, shutdown_trigger=over.wait)  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        over.set()
        await asyncio.wait({served}, timeout=5)


class Ingress:
    """A client: posts JSON to the server, over as many connections as it is used at once."""

    def __init__(self) -> None:
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._port = ports()[0]

    async def post(self, path: str, payload: object) -> Any:
        """Return what is answered.

        Raises:
            RuntimeError: the answer tells of an error.
        """
        body = json.dumps(payload).encode()
        reader, writer = (
            self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        )
        writer.write(
            b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (path.encode(), len(body), body)
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        answer = await reader.readexactly(int(length))
        self._idle.append((reader, writer))
        if not head.startswith(b"http/1.1 20"):
            raise RuntimeError(answer.decode())
        return json.loads(answer)

    async def chain(self, steps: int) -> None:
        """One run, with its result checked."""
        result = await self.post("Bench/chain", steps)
        if result != steps:
            raise RuntimeError(f"{steps} steps returned {result}")

    async def send(self, handler: str, delay: float = 0) -> str:
        """Start a run that nobody waits for, so many seconds later; return its id."""
        late = f"?delay={int(delay * 1000)}ms" if delay > 0 else ""
        answer = await self.post(f"Bench/{handler}/send{late}", 1)
        return str(answer["invocationId"])


def run(work: Any) -> None:
    """Run it on the event loop that serves best."""
    with runner() as loop:
        loop.run(work)


def runner() -> asyncio.Runner:
    """A runner with uvloop, where it is installed."""
    try:
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        return asyncio.Runner()


# -- in one process ----------------------------------------------------------------------------------------


async def one(job: Job) -> None:
    """Runs one after another."""
    ingress = Ingress()
    async with handlers():
        for steps in (1, 3, 10):
            await one_at_a_time_async(job, f"one-{steps}", partial(ingress.chain, steps))


async def many(job: Job) -> None:
    """Many runs at once, for a few times as long as one of them takes."""
    ingress = Ingress()
    settling = replace(job, seconds=max(job.seconds, SETTLED))
    async with handlers():
        await ingress.chain(1)  # two hundred as the very first were seen to block each other
        for steps in (1, 3):
            await at_once_async(settling, f"many-{steps}", partial(ingress.chain, steps), warm=SETTLED)


async def messages(_: Job) -> None:
    """Ping-pong of two runs by signals, and questions of a client to a workflow by durable promises."""
    ingress = Ingress()
    async with handlers():
        pong = await ingress.post("Bench/pong/send", MESSAGES)
        game = {"other": pong["invocationId"], "times": MESSAGES}
        attempt, *took = await ingress.post("Bench/ping", game)
        if attempt or len(took) != MESSAGES:
            raise RuntimeError("the players were replayed")
        latencies("send", took[10:], "async")
        await ingress.post("Answering/one/run/send", MESSAGES)
        took = []
        for number in range(MESSAGES):
            began = time.perf_counter()
            answer = await ingress.post("Answering/one/ask", number)
            took.append((time.perf_counter() - began) * 1000)
            if answer != number:
                raise RuntimeError(f"the answer to {number} was {answer}")
        latencies("event", took[10:], "async")


# -- between processes -------------------------------------------------------------------------------------


async def enqueue(job: Job) -> None:
    """Send calls that are due in an hour: one at a time, and a hundred at once, as there is no call for many."""
    ingress = Ingress()
    call = partial(ingress.send, "bare", 3600)
    await asyncio.gather(*(call() for _ in range(100)))
    await at_once_async(job, "enqueue-one", call, "", lanes=1)
    done, until = 0, time.perf_counter() + job.seconds
    with timed(job, "enqueue-bulk", lambda: done, "", rate=True):
        while time.perf_counter() < until:
            await asyncio.gather(*(call() for _ in range(100)))
            done += 100


def drains(job: Job) -> None:
    """A backlog of runs with and without a step, all due at once."""
    count = int(2 * EXPECTED * job.seconds)

    async def fill(handler: str) -> None:
        due = time.monotonic() + BOOT + count / EXPECTED
        ingress = Ingress()
        for first in range(0, count, 100):
            calls = range(min(100, count - first))
            await asyncio.gather(*(ingress.send(handler, due - time.monotonic()) for _ in calls))

    def left() -> int:
        query = "select count(*) as number from sys_invocation where status <> 'completed'"
        return int(administer("query", {"query": query})["rows"][0]["number"])

    for workers in (1, 2):
        for row, handler in (("drain", "one_step"), ("bare", "bare")):
            run(fill(handler))
            if left() != count:
                raise RuntimeError(f"{row}-{workers}: {left()} of {count} calls are waiting")
            drain(job, f"{row}-{workers}", MODULE, workers, count, left)


def starts(job: Job) -> None:
    """Send calls to an idle worker process, from a client."""
    helper = Worker(MODULE, job)
    try:
        helper.wait_ready()
        ingress = Ingress()
        with runner() as loop:
            start_latency(job, "start", helper, lambda: loop.run(ingress.send("stamped")))
    finally:
        helper.kill()


def cold(_: Job) -> None:
    """A process that serves one run and ends its life."""
    import_time("import restate")
    cold_process(MODULE)


async def be_a_worker() -> None:
    """Serve until our input is closed, then say what was run."""
    async with handlers():
        await Ingress().chain(1)  # so that nothing is done for the first time while it is measured
        say_ready()
        await asyncio.to_thread(wait_for_end)
        programs.tally.say()


async def be_cold() -> None:
    """Serve one run and say when it had ended."""
    async with handlers():
        await Ingress().chain(1)
        print(time.monotonic(), flush=True)


ROLES: Final[dict[str, Callable[[], Awaitable[None]]]] = {"worker": be_a_worker, "cold": be_cold}
WORK: Final[tuple[tuple[str, Callable[[Job], Any]], ...]] = (
    ("one", one),
    ("many", many),
    ("queue", enqueue),
    ("queue", drains),
    ("start", starts),
    ("messages", messages),
    ("cold", cold),
)


def measure(job: Job, number: int, work: Callable[[Job], Any]) -> None:
    """Measure one thing beside a server of its own."""
    with server(job.folder / str(number)) as pid:
        waited_for = work(replace(job, servers=(pid,)))
        if waited_for is not None:
            run(asyncio.wait_for(waited_for, LONGEST))


def main() -> None:
    """Measure what is wanted, or be another process."""
    if sys.argv[2:]:
        run(ROLES[sys.argv[2]]())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that server and workers end with us
    job = Job.read()
    each_group(job, [(group, partial(measure, job, n, work)) for n, (group, work) in enumerate(WORK)])


if __name__ == "__main__":
    main()
