"""The app: puts a database, an engine and the user's settings together, in two colours."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Self, TypeVar, Unpack, cast

from perdure import client
from perdure.client import (
    BlockingHandle,
    Handle,
    act,
    blocking,
    call_to_start,
    on_loop,
    options_of,
    read,
    result_payload,
    starting,
)
from perdure.core.registry import workflows
from perdure.core.run import Runtime, current
from perdure.declare.workflows import Options
from perdure.errors import PerdureError
from perdure.models import CancelReason, Duration, RunDetail, RunFilter, RunInfo, seconds_of
from perdure.store import runs as stored
from perdure.store.database import Database
from perdure.store.migrate import migrate as migrate_schema
from perdure.worker.engine import Engine, Settings

T = TypeVar("T")


class _App:
    """What both colours of app are.

    Args:
        database: URL or conninfo. Without it `PERDURE_DATABASE_URL`; without that an embedded Postgres in `.perdure/`.
        schema: name of perdure's schema in it.
        name: of this worker, for people; host and process id by default.
        version: of the code; a worker with one takes only runs of it, of `accepts`, and of none.
        accepts: further versions of which it takes runs.
        worker: False makes it a client, which runs nothing.
        listen: queues that it serves; `default` by default.
        concurrency: runs in memory at a time.
        threads: threads for blocking code that work at a time; 40 by default.
        lease: seconds (or `timedelta`) after which a silent worker is declared dead, and its runs go on elsewhere.
        grace: seconds (or `timedelta`) that closing waits for runs to finish before it hands them over.
        migrate: bring the schema up to this version of perdure; False refuses an older one.
        transaction_pooler: connections go through a pooler in transaction mode, such as PgBouncer's.
        configure: called with every new connection, to set roles or search paths.
        exceptions: classes of errors to restore besides those that are found by their name.

    Raises:
        ValueError: a setting has a value that it cannot have.
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
        listen: Sequence[str] | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        lease: Duration | None = None,
        grace: Duration | None = None,
        migrate: bool | None = None,
        transaction_pooler: bool | None = None,
        configure: Callable[[Any], None] | None = None,
        exceptions: Sequence[type[BaseException]] = (),
    ) -> None:
        self._url = database
        self._schema = _setting("schema", schema, "perdure", str)
        self._migrate = _setting("migrate", migrate, True, _truth)
        self._pooler = _setting("transaction_pooler", transaction_pooler, False, _truth)
        self.name = _setting("name", name, f"{socket.gethostname()}:{os.getpid()}", str)
        self._settings = Settings(
            name=self.name,
            worker=_setting("worker", worker, True, _truth),
            version=_setting("version", version, None, str),
            accepts=tuple(accepts),
            listen=None if listen is None else tuple(listen),
            concurrency=_at_least_one("concurrency", _setting("concurrency", concurrency, 1000, int)),
            threads=_at_least_one("threads", _setting("threads", threads, 40, int)),
            lease=seconds_of(_setting("lease", lease, 15.0, float), "lease="),
            grace=seconds_of(_setting("grace", grace, 30.0, float), "grace="),
            exceptions=tuple(exceptions),
            configure=configure,
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

    def cancel_runs(self, keys: Sequence[int], reason: CancelReason) -> list[int]:
        """Cancel runs; return the keys of those reached."""
        return self.engine.cancel(keys, reason)

    def resume_runs(self, keys: Sequence[int]) -> list[int]:
        """Resume runs; return the keys of those resumed."""
        return self.engine.resume(keys)

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

    def _open(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if self._engine is not None:
            raise PerdureError(f"app {self.name!r} is open already")
        self.pid = os.getpid()
        database = Database(self._url, self._schema, pooler=self._pooler, configure=self._settings.configure)
        database.open()
        try:
            migrate_schema(database, apply=self._migrate)
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

    def _list(self, where: RunFilter | None, filters: Mapping[str, Any]) -> Any:
        return read("runs.list", lambda: stored.list_runs(self.database, _filter(where, filters)))

    def _count(self, where: RunFilter | None, filters: Mapping[str, Any]) -> Any:
        return read("runs.count", lambda: stored.count_runs(self.database, _filter(where, filters)))

    def _get(self, id: str) -> Any:
        return read("runs.get", lambda: client.detail(self, id))

    def _act(
        self, which: str | Sequence[str] | RunFilter, action: Callable[[Sequence[int]], list[int]], name: str
    ) -> Any:
        return read(name, lambda: act(self, which, action))

    def _start(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Any:
        with self.bind():
            return starting(call_to_start(name, args, kwargs or {}, options_of(options)))[0]


class Runs:
    """The runs in the app's database."""

    def __init__(self, app: Perdure) -> None:
        self._app = app

    async def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first.

        Example:
            await app.runs.list(status="failed", workflow="shop.checkout", limit=20)
        """
        return cast("list[RunInfo]", await on_loop(self._app._list(where, filters), self._app))

    async def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        return cast("int", await on_loop(self._app._count(where, filters), self._app))

    async def get(self, id: str) -> RunDetail:
        """One run with its steps.

        Raises:
            WorkflowNotFound: no run has this id.
        """
        return cast("RunDetail", await on_loop(self._app._get(id), self._app))

    async def cancel(self, which: str | Sequence[str] | RunFilter) -> int:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        cancel = self._app.cancel_runs
        operation = self._app._act(which, lambda keys: cancel(keys, CancelReason.ASKED), "runs.cancel")
        return cast("int", await on_loop(operation, self._app))

    async def resume(self, which: str | Sequence[str] | RunFilter) -> int:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return cast(
            "int", await on_loop(self._app._act(which, self._app.resume_runs, "runs.resume"), self._app)
        )


class BlockingRuns:
    """The runs in the app's database, for blocking code; see `Runs`."""

    def __init__(self, app: BlockingPerdure) -> None:
        self._app = app

    def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first."""
        return cast("list[RunInfo]", blocking(self._app._list(where, filters), self._app))

    def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        return cast("int", blocking(self._app._count(where, filters), self._app))

    def get(self, id: str) -> RunDetail:
        """One run with its steps; raises `WorkflowNotFound`."""
        return cast("RunDetail", blocking(self._app._get(id), self._app))

    def cancel(self, which: str | Sequence[str] | RunFilter) -> int:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        cancel = self._app.cancel_runs
        operation = self._app._act(which, lambda keys: cancel(keys, CancelReason.ASKED), "runs.cancel")
        return cast("int", blocking(operation, self._app))

    def resume(self, which: str | Sequence[str] | RunFilter) -> int:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return cast("int", blocking(self._app._act(which, self._app.resume_runs, "runs.resume"), self._app))


class Perdure(_App):
    __doc__ = (
        f"An app for async code: `async with Perdure(...) as app:`.\n{(_App.__doc__ or '').partition('.')[2]}"
    )
    blocking = False

    @property
    def runs(self) -> Runs:
        """The runs in the app's database."""
        return Runs(self)

    async def open(self) -> Self:
        """Connect, migrate, and begin to work; `async with` does it.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
            SchemaMismatch: the schema does not fit this version of perdure.
        """
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open, loop)
        assert self._engine is not None
        self._engine.loops.use(loop)
        return self

    async def close(self) -> None:
        """Finish what can be finished within `grace`, hand the rest over, and stop; `async with` does it."""
        if self._engine is None:
            return
        engine = self._engine
        await asyncio.to_thread(engine.drain)
        await engine.pools.close_async()
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Handle[Any]:
        """Start a workflow by its stored name, whose code need not be here; see `AsyncWorkflow.options`."""
        started = await on_loop(self._start(name, args, kwargs, options), self)
        return Handle(self, started.id, result_payload(workflows.get(name)), started)

    def handle(self, id: str) -> Handle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return Handle(self, id, result_payload(None))


class BlockingPerdure(_App):
    __doc__ = (
        f"An app for blocking code: `with Perdure(...) as app:`.\n{(_App.__doc__ or '').partition('.')[2]}"
    )
    blocking = True

    @property
    def runs(self) -> BlockingRuns:
        """The runs in the app's database."""
        return BlockingRuns(self)

    def open(self) -> Self:
        """Connect, migrate, and begin to work; `with` does it. Raises as `perdure.Perdure.open` does."""
        self._open(None)
        return self

    def close(self) -> None:
        """Finish what can be finished within `grace`, hand the rest over, and stop; `with` does it."""
        if self._engine is None:
            return
        engine = self._engine
        engine.drain()
        if engine.pools.has_async():
            engine.loops.call(engine.pools.close_async, (), {})
        self._close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> BlockingHandle[Any]:
        """Start a workflow by its stored name, whose code need not be here; see `AsyncWorkflow.options`."""
        started = blocking(self._start(name, args, kwargs, options), self)
        return BlockingHandle(self, started.id, result_payload(workflows.get(name)), started)

    def handle(self, id: str) -> BlockingHandle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return BlockingHandle(self, id, result_payload(None))


def _filter(where: RunFilter | None, filters: Mapping[str, Any]) -> RunFilter:
    if where is not None and filters:
        raise TypeError("give a RunFilter or its fields as keywords, not both")
    return where if where is not None else RunFilter(**filters)


def _setting(name: str, given: T | None, default: T, read: Callable[[str], Any]) -> T:
    """A setting: the argument, else its environment variable, else the default."""
    if given is not None:
        return given
    text = os.environ.get(f"PERDURE_{name.upper()}")
    if text is None:
        return default
    try:
        return cast("T", read(text))
    except ValueError:
        raise ValueError(f"PERDURE_{name.upper()} is {text!r}, which is no value for {name}=") from None


def _truth(text: str) -> bool:
    value = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in value:
        raise ValueError(text)
    return value[text.lower()]


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name}= must be at least 1, not {value}")
    return value
