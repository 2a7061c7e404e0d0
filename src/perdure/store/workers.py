"""Incarnations in the database: how a worker begins to live, stays alive, is declared dead.

The lease is judged by the database's clock alone. Declaring dead is one DELETE of the worker's row and of
its fence rows; it waits for every transaction that holds one of them, and where that takes too long, the
backends that hold them are ended: a stopped process must not keep its runs, nor its table locks.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg

from perdure.models import WorkerInfo
from perdure.store.arrays import Bigints
from perdure.store.connection import Connection
from perdure.store.database import Database

logger = logging.getLogger("perdure.workers")

CORE_SLOT: Final = 0
CONTESTED_SLOT: Final = 1
CLAIM_SLOT: Final = 2
COMMAND_SLOT: Final = 3
SCHEDULE_SLOT: Final = 4
FIRST_TRANSACTION_SLOT: Final = 5
SESSIONS: Final = 32
"""Transaction steps of one worker that can be under way at a time, in each colour half of them."""

FUNERAL_LOCK_TIMEOUT: Final = 0.5
"""Seconds that the reaper waits for the dead one's transactions before it ends their backends."""
FUNERAL_TRIES: Final = 20
RETIRE_LOCK_TIMEOUT: Final = 5.0
RETIRE_PATIENCE: Final = 0.2
"""Seconds that an orderly stop waits for commits that are under way, before it ends their backends."""
ORPHANS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker registers itself with."""

    name: str
    version: str | None
    queues: tuple[str, ...]
    lease: float
    slots: int
    paused: bool = False


def next_incarnation(database: Database, answer_within: float = 30.0) -> tuple[int, datetime, str]:
    """Take a number that no process ever had; return it, the database's time, and which database it is."""
    number, now, realm = database.run("next_incarnation", {}, answer_within)[0]
    return int(number), now, realm.replace("-", "")[-12:]


def register(database: Database, worker: int, registration: Registration) -> None:
    """Write the worker's row and its fences."""
    parameters = {
        "worker": worker,
        "name": registration.name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": registration.version,
        "queues": list(registration.queues),
        "paused": registration.paused,
        "lease": registration.lease,
        "slots": registration.slots,
    }
    try:
        database.run("register_worker", parameters, registration.lease)
    except psycopg.errors.UniqueViolation:
        return  # an earlier try of ours, whose answer was lost


def renew(connection: Connection, database: Database, worker: int) -> datetime | None:
    """Renew the lease; None means that the worker was declared dead."""
    rows = database.fetch(connection, "renew_lease", {"worker": worker})
    return rows[0][0] if rows else None


def retire(connection: Connection, database: Database, worker: int) -> None:
    """Hand over what the worker still owns, and end its life in order.

    A transaction step that is still under way is ended: its function runs in a thread that nothing interrupts, and
    what it writes would be void.
    """
    parameters = {"worker": worker}
    with connection.transaction():
        timeout = {"lock_timeout": f"{int(RETIRE_LOCK_TIMEOUT * 1000)}ms", "plans": "auto"}
        connection.execute(database.statements["begin_client_batch"], timeout)
        connection.execute(database.statements["hand_over_all"], parameters)
        with _ending_blockers(connection, database, after=RETIRE_PATIENCE, spare_reapers=True):
            connection.execute(database.statements["retire_worker"], parameters)


def bury(connection: Connection, database: Database) -> list[int]:
    """Declare dead every worker whose lease has run out; return their numbers."""
    statements = database.statements
    for attempt in range(FUNERAL_TRIES):
        try:
            with connection.transaction():
                timeout = {"lock_timeout": f"{int(FUNERAL_LOCK_TIMEOUT * 1000)}ms", "plans": "auto"}
                connection.execute(statements["begin_client_batch"], timeout)
                return [worker for (worker,) in connection.execute(statements["bury_workers"], ()).fetchall()]
        except psycopg.errors.LockNotAvailable:
            logger.warning("a dead worker's transactions are still open; ending them (try %d)", attempt + 1)
            _bury_forcibly(connection, database, spare_reapers=attempt < 3)
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            continue
    return []


def _bury_forcibly(connection: Connection, database: Database, *, spare_reapers: bool) -> None:
    """Try the funeral once more, while a second connection ends whoever blocks it.

    Another reaper at the same grave is spared, unless it stays there: its process may have been stopped.
    """
    statements = database.statements
    try:
        with connection.transaction():
            timeout = {"lock_timeout": f"{int(FUNERAL_LOCK_TIMEOUT * 4000)}ms", "plans": "auto"}
            connection.execute(statements["begin_client_batch"], timeout)
            with _ending_blockers(connection, database, after=0.0, spare_reapers=spare_reapers):
                connection.execute(statements["bury_workers"], ())
    except psycopg.errors.LockNotAvailable:
        return


@contextmanager
def _ending_blockers(
    connection: Connection, database: Database, *, after: float, spare_reapers: bool
) -> Iterator[None]:
    """While this lasts, and some seconds in, a second connection ends the backends that block this one."""
    statements = database.statements
    (pid,) = connection.execute(statements["backend"], ()).fetchone() or (0,)
    done = threading.Event()

    def end_them() -> None:
        if done.wait(after):
            return
        with database.connect("funeral") as second:
            while not done.wait(FUNERAL_LOCK_TIMEOUT / 10):
                parameters = {"pid": pid, "spare": spare_reapers}
                for (blocker,) in second.execute(statements["blockers"], parameters).fetchall():
                    second.execute(statements["terminate"], {"pid": blocker})

    thread = threading.Thread(target=end_them, name="perdure-funeral", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)


def has_work(
    database: Database,
    queues: Sequence[str],
    workflows: Sequence[str],
    versions: Sequence[str] | None,
    due_within: float,
) -> bool:
    """Whether a worker of these queues, workflows and versions has something to do, or will within so many seconds."""
    given = {
        "queues": list(queues),
        "workflows": list(workflows),
        "versions": None if versions is None else list(versions),
        "seconds": due_within,
    }
    return bool(database.run("find_work", given))


def requeue_orphans(connection: Connection, database: Database) -> list[int]:
    """Give the runs of dead workers back to the queue; return their keys."""
    dead = [worker for (worker,) in database.fetch(connection, "find_orphans", {})]
    requeued: list[int] = []
    while dead:
        parameters = {"workers": Bigints(dead), "limit": ORPHANS_AT_ONCE}
        keys = [key for (key,) in database.fetch(connection, "requeue_orphans", parameters)]
        requeued += keys
        if len(keys) < ORPHANS_AT_ONCE:
            break
    return requeued


def names(database: Database, workers: Sequence[int]) -> dict[int, str]:
    """Who these workers are or were: name, host and process id."""
    rows = database.run("worker_names", {"ids": Bigints(sorted(set(workers)))})
    return {id: name for id, name, _, _ in rows}


def pause(database: Database, worker: int, *, paused: bool) -> bool:
    """Have a worker take no more runs, or take some again; whether there is one of this number."""
    return bool(database.run("pause_worker", {"worker": worker, "paused": paused}))


def list_workers(database: Database, gone: int) -> list[WorkerInfo]:
    """Workers that live, oldest first, and the last so many that are gone, newest first."""
    return [
        WorkerInfo(number, name, host, pid, version, tuple(queues), *times)
        for number, name, host, pid, version, queues, *times in database.run("list_workers", {"gone": gone})
    ]
