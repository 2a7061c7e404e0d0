"""Tools to attack the protocol: a worker without an engine, a proxy that loses answers, a stranger with locks.

The races of the protocol lie between two statements, so a test needs to stand there. The raw worker sends one
batch at a time and says when; the proxy knows each connection by its `application_name`, and can keep back what
the client sends, or lose the answer to a COMMIT after the server has given it; the stranger keeps a transaction
open for as long as a test likes.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg

from perdure.store import workers
from perdure.store.batch import Batch, BatchWriter
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.migrate import migrate
from perdure.store.records import Record, StartRecord, StepRecord, Ticket
from tests.servers import TestServer

PATIENCE = 30.0


class RawWorker:
    """A registered worker that does only what it is told, in the test's own thread.

    Args:
        url: the database; perdure's schema is made where it is not there.
        lease: seconds; nobody renews it.
        single: whether it writes a batch of one as a single statement, as workers do.
    """

    def __init__(self, url: str, *, lease: float = 3600, single: bool = True, slot: int = 0) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.number, _, _ = workers.next_incarnation(self.database)
        self._keys = iter(range(self.number << 32, (self.number << 32) + 100_000))
        self.registration = workers.Registration("raw", None, ("default",), lease, 40)
        workers.register(self.database, self.number, self.registration)
        self.connection: Connection = self.database.connect("raw")
        self.writer = BatchWriter(
            self.database.statements, self.number, slot, single_form=single and not self.database.pooler
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections; its rows stay."""
        self.connection.close()
        self.database.close()

    def key(self) -> int:
        """A key for a new run."""
        return next(self._keys)

    def write(self, *records: Record, lock_timeout: float = 20) -> None:
        """Write records as one batch."""
        self.write_tickets([Ticket(*records)], lock_timeout)

    def write_tickets(self, tickets: list[Ticket], lock_timeout: float = 20) -> None:
        """Write tickets as one batch."""
        self.writer.write(self.connection, Batch(tickets), lock_timeout)

    def start(self, id: str | None = None) -> int:
        """Start a run that it owns; return its key."""
        key = self.key()
        self.write(start_of(key, id or f"run-{key:x}"))
        return key

    def expire(self) -> None:
        """Let its lease have run out."""
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            connection.execute(
                "update perdure.workers set expires = perdure.clock() - interval '1 second' where id = %s",
                (self.number,),
            )

    def bury(self) -> list[int]:
        """Declare dead whose lease has run out, as any worker's reaper does."""
        with self.database.connect("reaper") as connection:
            return workers.bury(connection, self.database)

    def requeue(self) -> list[int]:
        """Give the runs of the dead back to the queue, as any worker's reaper does."""
        with self.database.connect("reaper") as connection:
            return workers.requeue_orphans(connection, self.database)


def start_of(key: int, id: str, **more: Any) -> StartRecord:
    """The record of a plain start."""
    return StartRecord(key, id, "attacked", b"[]", **more)


def step_of(run: int, position: str = "1", value: bytes = b"1", group: int = 1) -> StepRecord:
    """The record of a plain step."""
    return StepRecord(run, position, group, 0, 1, "step", False, value)


@contextmanager
def stranger(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody with an open transaction, rolled back at the end."""
    connection = psycopg.connect(url, application_name="stranger")
    try:
        yield connection
    finally:
        with suppress(psycopg.Error):
            connection.rollback()
        connection.close()


def take_id(connection: psycopg.Connection[Any], id: str) -> None:
    """Start a run with this id in the stranger's open transaction, as SQL can."""
    connection.execute(
        "insert into perdure.runs (key, id, workflow, input) values (-abs(hashtext(%s)) - 1, %s, 'strange', '[]')",
        (id, id),
    )


def in_thread(work: Callable[[], Any]) -> Background:
    """Begin `work` in a thread."""
    return Background(work)


class Background:
    """Something that goes on while the test does something else."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    @property
    def going_on(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def error(self, within: float = PATIENCE) -> BaseException | None:
        """Wait for its end; return what it raised."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"it goes on after {within:g} s"
        return self._error

    def result(self, within: float = PATIENCE) -> Any:
        """Wait for its end; return or raise what it did."""
        if (error := self.error(within)) is not None:
            raise error
        return self._value


# -- the proxy -------------------------------------------------------------------------------------


@dataclass(eq=False)
class Loss:
    """An answer that the proxy is to lose.

    Attributes:
        application: what the connection's `application_name` must match in full.
        tag: command tag of the answer, as a regular expression.
        cut: whether the connection is cut then; else nothing of it is ever answered again.
        happened: set once it is lost; the server has committed then.
    """

    application: str
    tag: str
    cut: bool
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Stands between a client and the test server."""

    def __init__(self, server: TestServer, url: str) -> None:
        self._target = (server.host, server.port)
        database = re.sub(r".*/", "", server.tcp(url))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{database}?sslmode=disable&gssencmode=disable"
        self._lock = threading.Condition()
        self._links: set[_Link] = set()
        self._losses: list[Loss] = []
        self._held: dict[str, bytes] = {}
        self._refusing: str | None = None
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def lose_answer(self, application: str, tag: str = "COMMIT", *, cut: bool = True) -> Loss:
        """Lose the next answer with this tag on a connection of this application."""
        loss = Loss(application, tag, cut)
        with self._lock:
            self._losses.append(loss)
        return loss

    def hold(self, application: str, before: bytes = b"") -> None:
        """Keep back what clients of this application send from now on, from just before these bytes if given."""
        with self._lock:
            self._held[application] = before

    def release(self) -> None:
        """Let go on what was kept back, and refuse nobody any more."""
        with self._lock:
            self._held.clear()
            self._refusing = None
            self._lock.notify_all()

    def cut(self, application: str = ".*") -> int:
        """Cut the connections of an application; return how many."""
        with self._lock:
            links = [link for link in self._links if re.fullmatch(application, link.application)]
        for link in links:
            link.close()
        return len(links)

    def refuse(self, application: str = ".*") -> None:
        """Cut the connections of an application, and every new one, until `release`."""
        with self._lock:
            self._refusing = application
        self.cut(application)

    def close(self) -> None:
        """End it."""
        self._closed = True
        self.release()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    # -- for its links -----------------------------------------------------------------------------

    def forward(self, link: _Link, data: bytes) -> None:
        """Pass on what a client sends, once nothing keeps it back."""
        with self._lock:
            if self._refusing and re.fullmatch(self._refusing, link.application):
                link.close()
                return
            while (mark := self._mark(link)) is not None and not link.closed:
                place = data.lower().find(mark) if mark else 0
                if place < 0:
                    break
                link.upstream.sendall(data[:place])
                data = data[place:]
                self._lock.wait()
        link.upstream.sendall(data)

    def loses(self, link: _Link, tag: bytes) -> Loss | None:
        """The loss that is meant for an answer with this tag, if there is one."""
        with self._lock:
            for loss in self._losses:
                if re.fullmatch(loss.application, link.application) and re.fullmatch(loss.tag, tag.decode()):
                    self._losses.remove(loss)
                    return loss
        return None

    def forget(self, link: _Link) -> bool:
        """One direction of a link has ended; tell whether it was the last."""
        with self._lock:
            self._links.discard(link)
            self._lock.notify_all()
            link.directions -= 1
            return not link.directions

    def _mark(self, link: _Link) -> bytes | None:
        for application, mark in self._held.items():
            if re.fullmatch(application, link.application):
                return mark
        return None

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
            except OSError:
                continue
            link = _Link(self, client, upstream)
            with self._lock:
                self._links.add(link)
            self._threads += link.start()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, upstream: socket.socket) -> None:
        self._proxy, self.client, self.upstream = proxy, client, upstream
        self.application, self.closed, self._silent = "", False, False
        self.directions = 2

    def start(self) -> list[threading.Thread]:
        """Begin to pass on; return the threads that do."""
        works = (self._from_client, self._from_server)
        threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        return threads

    def close(self) -> None:
        """Cut both sides."""
        self.closed = True
        for side in (self.client, self.upstream):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _guarded(self, work: Callable[[], None]) -> None:
        with suppress(OSError):
            work()
        self.close()
        if self._proxy.forget(self):
            self.client.close()
            self.upstream.close()

    def _from_client(self) -> None:
        first = True
        while data := self.client.recv(1 << 16):
            if first:
                found = re.search(rb"application_name\0([^\0]*)", data)
                self.application, first = found[1].decode() if found else "", False
            self._proxy.forward(self, data)

    def _from_server(self) -> None:
        rest = b""
        while data := self.upstream.recv(1 << 16):
            rest += data
            whole = 0
            while len(rest) - whole >= 5:
                size = 1 + int.from_bytes(rest[whole + 1 : whole + 5], "big")
                if len(rest) - whole < size:
                    break
                message = rest[whole : whole + size]
                loss = self._proxy.loses(self, message[5:-1]) if message[:1] == b"C" else None
                if loss is not None:
                    self._silent = True
                    loss.happened.set()
                    if loss.cut:
                        return
                whole += size
            if not self._silent:
                self.client.sendall(rest[:whole])
            rest = rest[whole:]
