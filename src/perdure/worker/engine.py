"""The engine: puts the services together for one app, and changes the incarnation when one dies."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from perdure.core.middleware import Middleware
from perdure.core.pool import Threads
from perdure.core.registry import workflows
from perdure.errors import DatabaseUnavailable, WorkflowCancelled
from perdure.models import DEFAULT_QUEUE, CancelReason
from perdure.policy import backoff
from perdure.queues import Queue
from perdure.retention import Retention
from perdure.serial import encode_failure
from perdure.store import operations, queues, workers
from perdure.store.batch import Batch
from perdure.store.database import Database
from perdure.store.pools import Pools
from perdure.store.records import EndRecord
from perdure.worker.executor import Executor
from perdure.worker.heartbeat import Heartbeat
from perdure.worker.hints import CANCEL, ENDED, MAIL, SCHEDULE, WORK, Hints
from perdure.worker.incarnation import Incarnation
from perdure.worker.listener import Listener
from perdure.worker.loops import Loops
from perdure.worker.mail import Mail
from perdure.worker.producer import Producer
from perdure.worker.pruner import Pruner
from perdure.worker.reaper import Reaper
from perdure.worker.scheduler import Scheduler
from perdure.worker.service import Service
from perdure.worker.sizes import Sizes
from perdure.worker.timers import Timers
from perdure.worker.watcher import Watcher, app_closed

logger = logging.getLogger("perdure.worker")

UNWIND_SECONDS: Final = 1.0
"""How long closing waits for the code of async runs to leave the stack."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine works.

    Attributes:
        name: of the worker, for people.
        worker: whether it runs anything.
        version: of the code; None takes any run.
        accepts: further versions of which it takes runs.
        declared: queues with limits, as code declares them.
        listen: queues that it serves; None serves `default` and those declared.
        concurrency: runs in memory at a time.
        threads: threads for blocking code that work at a time.
        lease: seconds after which a silent worker is declared dead.
        grace: seconds that an orderly stop waits for runs to finish.
        exceptions: classes of errors to restore besides those found by name.
        middleware: what is around starts, runs and steps, outermost first.
        instances: objects whose methods are workflows, by the names under which they are stored.
        configure: called with every new connection.
        retention: how long runs that have ended are kept; None for ever.
    """

    name: str
    worker: bool = True
    version: str | None = None
    accepts: tuple[str, ...] = ()
    declared: tuple[Queue, ...] = ()
    listen: tuple[str, ...] | None = None
    concurrency: int = 1000
    threads: int = 40
    lease: float = 15.0
    grace: float = 30.0
    exceptions: tuple[type[BaseException], ...] = ()
    middleware: tuple[Middleware, ...] = ()
    instances: Mapping[str, object] = field(default_factory=dict)
    configure: Callable[[Any], None] | None = None
    retention: Retention | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the queues that it serves."""
        return self.listen or tuple(dict.fromkeys([DEFAULT_QUEUE, *(queue.name for queue in self.declared)]))

    @property
    def versions(self) -> list[str] | None:
        """Versions of which runs are taken, or None for all."""
        return None if self.version is None else [self.version, *self.accepts]


class Engine:
    """Everything that runs for one app."""

    incarnation: Incarnation

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.threads = Threads(settings.threads)
        self.loops = Loops()
        self.pools = Pools(database, settings.configure)
        self.executor = Executor(self)
        self.timers = Timers(self)
        self.watcher = Watcher(self)
        self.mail = Mail(self)
        self.hints = Hints(self)
        self.sizes = Sizes(database, self.hints.wake)
        self.producer = Producer(self)
        self._listener = Listener(database, self.heard)
        self._heartbeat = Heartbeat(database, lambda: self.incarnation, settings.lease)
        self.reaper = Reaper(self)
        self.pruner = self._new_pruner()
        self.scheduler = Scheduler(self)
        self.accepting = settings.worker
        """Whether it is not stopping, nor a client."""
        self.paused = False
        """Whether somebody has told this worker, by its row, to take no more runs."""
        self._stopped = threading.Event()
        self._hurried = threading.Event()

    # -- life --------------------------------------------------------------------------------------

    def start(self, context: Context, loop: tuple[asyncio.AbstractEventLoop, int] | None = None) -> None:
        """Begin to live as a worker, or as a client.

        Args:
            context: the context variables that the code of every run begins with.
            loop: where `async def` code is to run, and that loop's thread; a loop of its own by default.
        """
        if loop is not None:
            self.loops.use(*loop)
        self.executor.use_context(context)
        queues.declare(self.database, self.settings.declared)
        self.sizes.read()
        self.incarnation = self._new_life()
        for service in self._services():
            service.start()

    def drain(self) -> None:
        """Take no more, and wait until the runs in memory are done, at most the grace."""
        self.accepting = False
        deadline = time.monotonic() + self.settings.grace
        while self.executor.count and time.monotonic() < deadline and not self.incarnation.dead:
            if self._hurried.wait(0.02):
                return

    def hurry(self) -> None:
        """Cut the grace of `drain` short."""
        self._hurried.set()

    def abandon(self) -> None:
        """Stop now: what still runs goes on elsewhere."""
        self.accepting = False
        self._stopped.set()
        stop_first: list[Service] = [
            self.scheduler,
            self.producer,
            self._heartbeat,
            self.reaper,
            self.timers,
            self.mail,
        ]
        if self.pruner is not None:
            stop_first.append(self.pruner)
        for service in stop_first:
            service.stop()
        if self.executor.count:
            logger.info("handing over %d runs", self.executor.count)
        self.executor.close_all()
        patience = time.monotonic() + UNWIND_SECONDS
        while self.executor.unwinding() and time.monotonic() < patience:
            time.sleep(0.002)
        self.incarnation.stop()
        if self.settings.worker and not self.incarnation.dead:
            try:
                number = self.incarnation.worker
                self.database.repeat(lambda connection: workers.retire(connection, self.database, number))
                self.hints.work()
            except (DatabaseUnavailable, psycopg.Error) as error:
                logger.warning(
                    "the database is away; runs go on elsewhere when the lease is over (%s)", error
                )
        stop_last: list[Service] = [self.watcher, self._listener, self.hints]
        for service in stop_last:
            service.stop()
        self.watcher.abandon()
        self.mail.abandon(app_closed())
        self.pools.close()
        self.loops.close()

    def accepts_runs(self) -> bool:
        """Whether runs may begin here."""
        return self.accepting and not self.paused

    def is_idle(self, due_within: float = 0.0) -> bool:
        """Whether there is nothing to do here: no run in memory, none queued that could run here, none due so soon.

        Memory is asked first: what a run that has left it has started is committed, so the look after it sees that.
        """
        if not self.executor.idle:
            return False
        queues, versions = self.settings.queues, self.settings.versions
        found = workers.has_work(self.database, queues, list(workflows), versions, due_within)
        return not found and self.executor.idle

    def incarnation_died(self, incarnation: Incarnation) -> None:
        """A life is over: its runs unwind, and another begins."""
        self.executor.close_all(incarnation)
        if not self._stopped.is_set():
            threading.Thread(target=self._be_reborn, name="perdure-reborn", daemon=True).start()

    def _be_reborn(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                self.incarnation = self._new_life()
            except Exception as error:
                failures += 1
                logger.warning("cannot register again yet: %s", error)
                self._stopped.wait(backoff(failures))
                continue
            self.producer.wake()
            self.scheduler.wake()
            self.watcher.wake()
            return

    def _new_life(self) -> Incarnation:
        number, now, realm = workers.next_incarnation(self.database, self.settings.lease)
        incarnation = Incarnation(self, number, now, realm, owns=self.settings.worker)
        if self.settings.worker:
            slots = workers.FIRST_TRANSACTION_SLOT + workers.SESSIONS
            registration = workers.Registration(
                self.settings.name,
                self.settings.version,
                self.settings.queues,
                self.settings.lease,
                slots,
                self.paused,
            )
            workers.register(self.database, number, registration)
        incarnation.start()
        logger.info(
            "%s %d lives (%s)", "worker" if self.settings.worker else "client", number, self.settings.name
        )
        return incarnation

    def _services(self) -> list[Service]:
        services: list[Service] = [self.timers, self.watcher, self.mail, self.hints]
        if not self.database.pooler:
            services.append(self._listener)
        if self.settings.worker:
            services += [self._heartbeat, self.reaper, self.producer, self.scheduler]
        if self.pruner is not None:
            services.append(self.pruner)
        return services

    def _new_pruner(self) -> Pruner | None:
        retention = self.settings.retention
        if retention is None or retention.least is None or not self.settings.worker:
            return None
        return Pruner(self, retention)

    # -- what services tell each other -----------------------------------------------------------------

    def committed(self, batch: Batch) -> None:
        """A batch was committed."""
        self.hints.committed(batch)
        if self.scheduler.waits and batch.of(EndRecord):
            self.scheduler.wake()

    def heard(self, hint: str) -> None:
        """Somebody says that there may be something to do: the number of who says it, and what kind."""
        number, *kinds = hint.split()
        if number == str(self.incarnation.worker):
            return  # our own, which was heard when it was sent
        self.told(kinds)

    def told(self, kinds: Iterable[str]) -> None:
        """There may be something to do, of these kinds."""
        if CANCEL in kinds:
            self.producer.look_again()
        if WORK in kinds:
            self.producer.hint()
        if ENDED in kinds:
            self.watcher.wake()
        if SCHEDULE in kinds or (ENDED in kinds and self.scheduler.waits):
            self.scheduler.wake()
        if (MAIL in kinds or ENDED in kinds) and self.mail.awaited:
            self.mail.wake()

    # -- commands --------------------------------------------------------------------------------------

    def cancel(
        self, keys: Sequence[int], reason: CancelReason, note: operations.Note | None = None
    ) -> list[int]:
        """Cancel runs; return the keys of those that were not too late."""
        value = encode_failure(WorkflowCancelled("the run was cancelled before it began"))
        reached = operations.cancel(self.database, keys, reason, value, note)
        if reached:
            self.hints.cancel()
            self.hints.ended()
            for key in reached:
                self.executor.cancel(key, reason)
        return reached

    def changed(self) -> None:
        """Somebody has changed runs: there may be work, and ends."""
        self.hints.work()
        self.hints.ended()

    def rescheduled(self) -> None:
        """Schedules were changed, or triggered: there may be ticks, and work."""
        self.hints.work()
        self.hints.schedule()


def worker_name() -> str:
    """A name for a worker that was given none."""
    return f"{socket.gethostname()}:{os.getpid()}"
