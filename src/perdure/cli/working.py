"""How a worker is to work: the options of `perdure worker`, beyond which app it is."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import click

from perdure.cli.exits import Exit, Failure
from perdure.cli.family import environment_of
from perdure.cli.health import LOOPBACK, HealthServer
from perdure.cli.limits import Limits, follow_parent, keep
from perdure.cli.loading import App
from perdure.cli.options import C, span, word
from perdure.cli.signals import Stopper
from perdure.errors import PerdureError
from perdure.worker.engine import Engine
from perdure.worker.health import Health, health_of

logger = logging.getLogger("perdure.cli")

LARGEST_PORT: Final = 65_535


def worker_options(command: C) -> C:
    """Add the options that `How.of` reads."""
    options = [
        click.option(
            "--listen",
            metavar="QUEUE",
            type=word,
            multiple=True,
            help="A queue to serve, instead of the app's; once for each.",
        ),
        click.option("--concurrency", type=click.IntRange(1), help="Runs in memory at a time."),
        click.option("--threads", type=click.IntRange(1), help="Threads for blocking code."),
        click.option(
            "--grace", metavar="DURATION", type=span, help="How long runs may take to end, when told to stop."
        ),
        click.option(
            "--loop",
            type=click.Choice(("auto", "asyncio", "uvloop")),
            default="auto",
            show_default=True,
            help="Event loop of an async app; auto is uvloop where it is installed.",
        ),
        click.option("--processes", type=click.IntRange(1, 512), help="Work in so many processes."),
        click.option(
            "--max-runs",
            type=click.IntRange(1),
            help="Stop after so many runs have come into memory, to be started again.",
        ),
        click.option(
            "--max-memory",
            metavar="MB",
            type=click.IntRange(1),
            help="Stop above so much, to be started again.",
        ),
        click.option("--until-idle", is_flag=True, help="Stop where there is nothing to do."),
        click.option(
            "--due-within",
            metavar="DURATION",
            type=span,
            help="With --until-idle: a run that becomes due so soon is something to do.  [default: 0]",
        ),
        click.option(
            "--health",
            metavar="[HOST:]PORT",
            callback=_place,
            help="Answer /live and /ready there; on the loopback interface without HOST.",
        ),
        click.option("--child", is_flag=True, hidden=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _place(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > LARGEST_PORT or (colon and not host):
        raise click.BadParameter(f"{text!r} is no PORT or HOST:PORT", context, option)
    return host.strip("[]") or LOOPBACK, int(port)


@dataclass(frozen=True, slots=True)
class How:
    """How a worker is to work.

    Attributes:
        listen, concurrency, threads, grace: instead of the app's own; None leaves those.
        processes: how many processes; None is this one.
        limits: when it stops by itself.
        health: host and port for probes.
        child: whether it was started by a parent, which holds the other end of its standard input.
        loop: which event loop an async app gets.
    """

    listen: Sequence[str] | None
    concurrency: int | None
    threads: int | None
    grace: float | None
    processes: int | None
    limits: Limits
    health: tuple[str, int] | None
    child: bool
    loop: str

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """What the options of `worker_options` say.

        Raises:
            UsageError: one of them means nothing without another.
        """
        if options["due_within"] is not None and not options["until_idle"]:
            raise click.UsageError("--due-within is for --until-idle")
        limits = Limits(
            options["max_runs"], options["max_memory"], options["until_idle"], options["due_within"] or 0.0
        )
        own = {
            name: options[name]
            for name in ("concurrency", "threads", "grace", "processes", "health", "child", "loop")
        }
        return cls(listen=options["listen"] or None, limits=limits, **own)

    def command_of_child(
        self, target: str, log_level: str
    ) -> Callable[[int], tuple[list[str], dict[str, str]]]:
        """The command line and the variables of the child at a place; where it answers probes is moved on by its place."""
        numbers = {
            "--concurrency": self.concurrency,
            "--threads": self.threads,
            "--grace": self.grace,
            "--max-runs": self.limits.runs,
            "--max-memory": self.limits.memory,
            "--due-within": self.limits.due_within if self.limits.until_idle else None,
        }
        options = [f"{name}={value}" for name, value in numbers.items() if value is not None]
        options += [f"--listen={queue}" for queue in self.listen or ()]
        options += [f"--loop={self.loop}"]
        options += ["--until-idle"] if self.limits.until_idle else []

        def command(place: int) -> tuple[list[str], dict[str, str]]:
            own = list(options)
            if self.health is not None:
                host, port = self.health
                own.append(f"--health=[{host}]:{port + place if port else 0}")
            line = [sys.executable, "-m", "perdure", "worker", "--child", f"--log-level={log_level}", *own]
            return [*line, "--", target], environment_of(place)

        return command

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the event loop; None is what asyncio makes.

        Raises:
            Failure: uvloop is asked for, and is not installed.
        """
        if self.loop == "asyncio":
            return None
        try:
            import uvloop
        except ImportError:
            if self.loop == "auto":
                return None
            raise Failure(
                Exit.USAGE, "--loop uvloop: it is not installed; pip install 'perdure[uvloop]'"
            ) from None
        return uvloop.new_event_loop

    def serve_health(self, app: App) -> HealthServer | None:
        """Answer probes, if that was asked for; of the app, once it is open."""
        if self.health is None:
            return None

        def look() -> Health | None:
            try:
                return health_of(app.engine)
            except PerdureError:  # not open yet, or no longer
                return None

        server = HealthServer(*self.health, look)
        server.start()
        logger.info("health on %s:%d: /live and /ready", self.health[0], server.port)
        return server

    def watch(self, engine: Engine, stopper: Stopper) -> None:
        """See to it that the worker stops by itself when it is to."""
        keep(self.limits, engine, stopper)
        if self.child:
            follow_parent(stopper.stop)
