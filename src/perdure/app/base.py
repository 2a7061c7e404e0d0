"""What both colours of app are: settings, opening and closing, and the operations behind `runs` and `start`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Self

from perdure import client
from perdure.app.settings import at_least_one, setting, truth
from perdure.client import Operation, read, replaying
from perdure.client.choosing import Command, check_fields
from perdure.core.branch import current
from perdure.core.middleware import Middleware
from perdure.core.registry import schedules as declared
from perdure.core.runtime import Runtime
from perdure.errors import PerdureError
from perdure.models import CancelReason, Duration, RunFilter, seconds_of
from perdure.queues import Queue
from perdure.retention import Retention, checked_retention
from perdure.serial import Payload, check_text
from perdure.sql import quote_identifier
from perdure.store import queues as stored_queues
from perdure.store import runs as stored
from perdure.store.database import Database, check_url
from perdure.store.migrate import migrate as migrate_schema
from perdure.store.operations import Note
from perdure.store.schedules import declare
from perdure.worker.engine import Engine, Settings


class BaseApp:
    """What both colours of app are.

    Args:
        database: URL or conninfo. Without it `PERDURE_DATABASE_URL`; without that an embedded Postgres in `.perdure/`.
        schema: name of perdure's schema in it.
        name: of this worker, for people; host and process id by default.
        version: of the code; a worker with one takes only runs of it, of `accepts`, and of none.
        accepts: further versions of which it takes runs.
        worker: False makes it a client, which runs nothing.
        queues: queues with limits. What is changed live (`app.queues`) stays changed until code declares something else.
        listen: queues that it serves; by default `default` and those declared.
        concurrency: runs in memory at a time; beyond it a start here waits in the queue.
        threads: threads for blocking code that work at a time; 40 by default.
        lease: seconds (or `timedelta`) after which a silent worker is declared dead, and its runs go on elsewhere.
        grace: seconds (or `timedelta`) that closing waits for runs to finish before it hands them over.
        migrate: bring the schema up to this version of perdure; False refuses an older one.
        transaction_pooler: connections go through a pooler in transaction mode, such as PgBouncer's.
        configure: called with every new connection, to set roles or search paths.
        exceptions: classes of errors to restore besides those that are found by their name.
        instances: objects whose methods are workflows, by names: a run stores the name, and any worker finds its own
            object by it.
        middleware: what is to be around every start, run and step, outermost first; see `perdure.Middleware`.
        retention: how long runs that have ended are kept; for ever by default. See `perdure.Retention`.

    Raises:
        ValueError: a setting has a value that it cannot have.
        TypeError: `retention` is no `Retention`.
    """

    blocking: bool

    def __init__(
        self,
        database: str | None = None,
        *,
        schema: str | None = None,
        name: str | None = None,
        version: str | None = None,
        accepts: Sequence[str] = (),
        worker: bool | None = None,
        queues: Sequence[Queue] = (),
        listen: Sequence[str] | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        lease: Duration | None = None,
        grace: Duration | None = None,
        migrate: bool | None = None,
        transaction_pooler: bool | None = None,
        configure: Callable[[Any], None] | None = None,
        exceptions: Sequence[type[BaseException]] = (),
        instances: Mapping[str, object] | None = None,
        middleware: Sequence[Middleware] = (),
        retention: Retention | None = None,
    ) -> None:
        check_url(database or os.environ.get("PERDURE_DATABASE_URL"))
        self._url = database
        self._schema = setting("schema", schema, "perdure", str)
        quote_identifier(self._schema)
        self._migrate = setting("migrate", migrate, True, truth)
        self._pooler = setting("transaction_pooler", transaction_pooler, False, truth)
        self.name = setting("name", name, f"{socket.gethostname()}:{os.getpid()}", str)
        self._settings = Settings(
            name=self.name,
            worker=setting("worker", worker, True, truth),
            version=setting("version", version, None, str),
            accepts=tuple(accepts),
            declared=checked_queues(queues),
            listen=None if listen is None else tuple(listen),
            concurrency=at_least_one("concurrency", setting("concurrency", concurrency, 1000, int)),
            threads=at_least_one("threads", setting("threads", threads, 40, int)),
            lease=seconds_of(setting("lease", lease, 15.0, float), "lease="),
            grace=seconds_of(setting("grace", grace, 30.0, float), "grace="),
            exceptions=tuple(exceptions),
            instances=dict(instances or {}),
            middleware=tuple(middleware),
            configure=configure,
            retention=checked_retention(retention),
        )
        if self._settings.lease < 0.5:
            raise ValueError("lease= must be at least half a second: workers renew it three times in between")
        self.pid = os.getpid()
        self._engine: Engine | None = None
        self._database: Database | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {'open' if self._engine else 'closed'}>"

    # -- what operations need --------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine of the open app.

        Raises:
            PerdureError: the app is not open, or was opened in another process.
        """
        if self._engine is None:
            raise PerdureError(f"app {self.name!r} is not open")
        client.check_process(self)
        return self._engine

    @property
    def runtime(self) -> Runtime:
        """The owner of new runs."""
        return self.engine.incarnation

    @property
    def database(self) -> Database:
        """The app's database."""
        return self.engine.database

    @property
    def url(self) -> str | None:
        """URL of its database: the one given, else `PERDURE_DATABASE_URL`; None means the embedded server."""
        return self._url or os.environ.get("PERDURE_DATABASE_URL")

    @property
    def retention(self) -> Retention | None:
        """How long runs that have ended are kept; None for ever."""
        return self._settings.retention

    @property
    def schema(self) -> str:
        """Name of perdure's schema in it."""
        return self._schema

    def for_code(self) -> dict[str, Any]:
        """Those of its settings that code of workflows needs, wherever that is run."""
        settings = self._settings
        return {
            "exceptions": settings.exceptions,
            "middleware": settings.middleware,
            "instances": settings.instances,
        }

    def adjust(
        self,
        *,
        listen: Sequence[str] | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        grace: Duration | None = None,
    ) -> None:
        """Change settings of an app that is not open yet: what whoever runs it knows better than its code.

        Args:
            listen: queues that it serves.
            concurrency: runs in memory at a time.
            threads: threads for blocking code.
            grace: seconds (or `timedelta`) that closing waits for runs to finish.

        Raises:
            PerdureError: the app is open.
            ValueError: a setting has a value that it cannot have.
        """
        if self._engine is not None:
            raise PerdureError(f"app {self.name!r} is open already: its settings stand")
        old = self._settings
        self._settings = replace(
            old,
            listen=old.listen if listen is None else tuple(listen),
            concurrency=at_least_one("concurrency", old.concurrency if concurrency is None else concurrency),
            threads=at_least_one("threads", old.threads if threads is None else threads),
            grace=old.grace if grace is None else seconds_of(grace, "grace="),
        )

    def hurry(self) -> None:
        """While the app is being closed: wait for no run any longer, hand them over now."""
        if self._engine is not None:
            self._engine.hurry()

    def cancel_runs(self, keys: Sequence[int], reason: CancelReason, note: Note | None = None) -> list[int]:
        """Cancel runs; return the keys of those reached."""
        return self.engine.cancel(keys, reason, note)

    def changed(self) -> None:
        """Runs were changed by hand: there may be work, and ends."""
        self.engine.changed()

    def rescheduled(self) -> None:
        """Schedules were changed, or triggered: there may be ticks, and work."""
        self.engine.rescheduled()

    def on_its_loop(self) -> bool:
        """Whether this thread is the one of the loop on which the app's async code runs."""
        return self._engine is not None and self._engine.loops.is_here()

    def unwatch(self, key: int, signal: Any) -> None:
        """Nobody waits for the end of this run with this signal any more."""
        if self._engine is not None:
            self._engine.watcher.unwatch(key, signal)

    @contextmanager
    def bind(self) -> Iterator[Self]:
        """Within the block, calls are made with this app, whatever others are open."""
        token = client.bound_app.set(self)
        try:
            yield self
        finally:
            client.bound_app.reset(token)

    # -- life ------------------------------------------------------------------------------------

    def _open(self, loop: tuple[asyncio.AbstractEventLoop, int] | None) -> None:
        if self._engine is not None:
            raise PerdureError(f"app {self.name!r} is open already")
        self.pid = os.getpid()
        database = Database(self._url, self._schema, pooler=self._pooler, configure=self._settings.configure)
        database.open()
        try:
            migrate_schema(database, apply=self._migrate)
            if self._settings.worker and declared:
                declare(database, [definition.plan() for definition in declared.values()])
            engine = Engine(database, self._settings)
            context = copy_context()
            context.run(client.bound_app.set, self)
            context.run(current.set, None)
            engine.start(context, loop)
        except BaseException:
            database.close()
            raise
        self._engine, self._database = engine, database
        client.open_apps.append(self)

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if self in client.open_apps:
            client.open_apps.remove(self)
        if self.pid == os.getpid():
            engine.abandon()
            engine.database.close()

    def list_operation(self, where: RunFilter) -> Operation:
        """The operation that lists runs."""
        return read("runs.list", lambda: stored.list_runs(self.database, where))

    def count_operation(self, where: RunFilter) -> Operation:
        """The operation that counts runs."""
        return read("runs.count", lambda: stored.count_runs(self.database, where), Payload.of(int))

    def get_operation(self, id: str) -> Operation:
        """The operation that describes one run."""
        return read("runs.get", lambda: client.detail(self, id))

    def queues_operation(self, names: Sequence[str] | None) -> Operation:
        """The operation that lists queues."""
        return read("queues.list", lambda: stored_queues.listed(self.database, names))

    def queue_operation(self, name: str, changes: Mapping[str, Any]) -> Operation:
        """The operation that changes a queue."""

        def change() -> None:
            stored_queues.change(self.database, check_text(name, "name"), changes)
            self.engine.sizes.read()
            self.engine.hints.work()

        return read("queues.set", change)

    def forget_queue_operation(self, name: str) -> Operation:
        """The operation that takes all limits from a queue."""

        def forget() -> bool:
            known = stored_queues.forget(self.database, check_text(name, "name"))
            self.engine.hints.work()
            return known

        return read("queues.delete", forget)

    def replay_operation(self, command: Command, within: float) -> Operation:
        """The operation that replays runs."""
        return replaying.replaying(self, command, replaying.Settings(**self.for_code(), within=within))


def checked_queues(queues: Sequence[Queue]) -> tuple[Queue, ...]:
    """Refuse what is no queue, and two of one name.

    Raises:
        TypeError: one is no `Queue`.
        ValueError: a name is declared twice.
    """
    for queue in queues:
        if not isinstance(queue, Queue):
            raise TypeError(f"queues= takes Queue(...) objects, not {queue!r}; listen= takes names")
    if len({queue.name for queue in queues}) < len(queues):
        raise ValueError("queues= declares a name twice")
    return tuple(queues)


def filter_of(where: RunFilter | None, filters: Mapping[str, Any]) -> RunFilter:
    """The filter given, or made of keywords.

    Raises:
        TypeError: both, what is no filter, or a keyword that is none.
        ValueError: a field has a value that it cannot have.
    """
    if where is not None and not isinstance(where, RunFilter):
        raise TypeError(f"give a RunFilter or its fields as keywords, not {where!r}")
    if where is not None and filters:
        raise TypeError("give a RunFilter or its fields as keywords, not both")
    check_fields(filters)
    return where if where is not None else RunFilter(**filters)
