"""`perdure worker`: open an app and work until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from typing import Any, Final

import click
from psycopg.conninfo import conninfo_to_dict

from perdure import Perdure, sync
from perdure.cli.exits import Exit, Failure, refused_as_usage
from perdure.cli.family import Family
from perdure.cli.loading import App, load
from perdure.cli.opening import knock
from perdure.cli.options import database_options
from perdure.cli.signals import Stopper
from perdure.cli.working import How, worker_options
from perdure.core.registry import workflows
from perdure.errors import DatabaseUnavailable, PerdureError

logger = logging.getLogger("perdure.cli")

LEVELS: Final = ("debug", "info", "warning", "error")
WAIT_FOR_DATABASE: Final = 30.0
"""Seconds that a worker waits at its start for a database that is away."""
KNOCK_EVERY: Final = 0.5
YOUNG_OBJECTS: Final = 50_000
"""How many more objects there are before the collector looks through the young ones; Python's own default is 700 to 2,000."""


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@worker_options
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    envvar="PERDURE_LOG_LEVEL",
    help="Least level of the lines on stderr.",
)
@database_options
def worker(target: str, log_level: str, database: str | None, schema: str | None, **options: Any) -> None:
    """Run the workflows of an app until SIGTERM or SIGINT.

    MODULE is imported from the working folder; APP is its Perdure or perdure.sync.Perdure, not opened.
    Without APP the module must have just one.

    The first signal stops in order: runs get the app's grace to end, then the rest is handed over to other
    workers. A second one hands over at once.
    """
    for name, value in (("DATABASE_URL", database), ("SCHEMA", schema), ("WORKER", "true")):
        if value is not None:
            os.environ[f"PERDURE_{name}"] = value  # before the import, in which the app reads them
    how = How.of(options)
    if how.processes is not None:
        _write_log(log_level)
        command = how.command_of_child(target, log_level)
        sys.exit(Family(how.processes, command, until_idle=how.limits.until_idle).work())
    app = load(target)
    _write_log(log_level)
    _check(app, target, database, schema)
    with refused_as_usage():
        app.adjust(listen=how.listen, concurrency=how.concurrency, threads=how.threads, grace=how.grace)
    health = how.serve_health(app)
    if app.url is not None:
        await_database(app.url)
    collect_seldom()
    if isinstance(app, Perdure):
        with asyncio.Runner(loop_factory=how.loop_factory()) as runner:
            code = runner.run(_work_async(app, how))
    else:
        code = _work_blocking(app, how)
    if health is not None:
        health.stop()
    sys.exit(code)


def collect_seldom() -> None:
    """Have the collector of cycles look less often: a run leaves none, and what was imported stays for ever.

    Measured with runs of one step: a tenth more of them a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def await_database(url: str, *, seconds: float = WAIT_FOR_DATABASE) -> None:
    """Wait until the database lets us in: a worker is often started together with it.

    Raises:
        DatabaseUnavailable: it did not within so many seconds.
    """
    until = time.monotonic() + seconds
    told = False
    while True:
        try:
            return knock(url)
        except DatabaseUnavailable as error:
            if time.monotonic() > until:
                raise
            if not told:
                logger.warning("%s; trying for %g s", " ".join(str(error).split()), seconds)
                told = True
        time.sleep(KNOCK_EVERY)


async def _work_async(app: Perdure, how: How) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    stopper = Stopper(app, lambda: loop.call_soon_threadsafe(stop.set))
    stopper.start()
    async with app:
        _announce(app)
        how.watch(app.engine, stopper)
        await stop.wait()
    return _closed(app, stopper)


def _work_blocking(app: sync.Perdure, how: How) -> int:
    stop = threading.Event()
    stopper = Stopper(app, stop.set)
    stopper.start()
    with app:
        _announce(app)
        how.watch(app.engine, stopper)
        stop.wait()
    return _closed(app, stopper)


def _closed(app: App, stopper: Stopper) -> int:
    logger.info("worker stopped name=%s", app.name)
    stopper.closed()
    return stopper.code


def _check(app: App, target: str, database: str | None, schema: str | None) -> None:
    """Refuse what would silently not do what the command says.

    Raises:
        Failure: the app names another database or schema than the options, or is open already.
    """
    if database is not None and app.url != database:
        raise Failure(
            Exit.USAGE,
            f"{target!r} names its database itself, where --database does not reach: leave one out",
        )
    if schema is not None and app.schema != schema:
        raise Failure(
            Exit.USAGE, f"{target!r} names its schema itself, where --schema does not reach: leave one out"
        )
    try:
        app.engine  # noqa: B018 - asking is the point
    except PerdureError:
        pass
    else:
        raise Failure(Exit.USAGE, f"{target!r} is open already: leave that to the worker")


def _announce(app: App) -> None:
    """Say who works on what.

    Raises:
        Failure: the app runs nothing.
    """
    engine = app.engine
    settings = engine.settings
    if not settings.worker:
        raise Failure(Exit.USAGE, f"app {app.name!r} is declared with worker=False: it runs nothing")
    logger.info(
        "worker ready name=%s number=%d version=%s queues=%s concurrency=%d grace=%gs workflows=%d database=%s schema=%s",
        app.name,
        engine.incarnation.worker,
        settings.version or "any",
        ",".join(settings.queues),
        settings.concurrency,
        settings.grace,
        len(workflows),
        _place(app),
        app.database.schema,
    )
    for name, definition in sorted(workflows.items()):
        logger.info("workflow %s (%s)", name, "async" if definition.colour else "blocking")
    if not workflows:
        logger.warning("no workflow is known here: import the modules that have them in the app's module")


def _place(app: App) -> str:
    """Where the database is, without what is secret of it."""
    if app.database.embedded is not None:
        return f"embedded:{app.database.embedded.folder}"
    parts = conninfo_to_dict(app.database.url)
    return f"{parts.get('host', '')}:{parts.get('port', '')}/{parts.get('dbname', '')}"


def _write_log(level: str) -> None:
    """Write log lines to stderr, unless the user's module has set up its own."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("perdure").setLevel(number)
    root = logging.getLogger()
    if root.handlers:
        return
    form = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    form.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    root.addHandler(handler)
    root.setLevel(max(number, logging.INFO))
