"""The command line: `perdure worker | check | migrate | ls | show | start | cancel | ...`.

One file for each command, which asks the same app that users open and nothing beneath it. What the user did
wrong, or what is not there, ends as one line on stderr and an exit code that scripts can rely on (`exits`);
a traceback means a bug.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import psycopg

from perdure._version import __version__
from perdure.cli.audit import audit
from perdure.cli.cancel import cancel
from perdure.cli.check import check
from perdure.cli.delete import delete
from perdure.cli.exits import EXPLAINED, Exit, Failure, failure_of, failure_of_output
from perdure.cli.export import export, load
from perdure.cli.fork import fork
from perdure.cli.ls import ls
from perdure.cli.migrate import migrate
from perdure.cli.prune import prune
from perdure.cli.queues import queues
from perdure.cli.replay import replay
from perdure.cli.restart import restart
from perdure.cli.result import result
from perdure.cli.resume import resume
from perdure.cli.schedules import schedules
from perdure.cli.send import send
from perdure.cli.set_output import set_output
from perdure.cli.set_timeout import set_timeout
from perdure.cli.show import show
from perdure.cli.start import start
from perdure.cli.versions import versions
from perdure.cli.worker import worker
from perdure.cli.workers import workers
from perdure.cli.writing import safe
from perdure.errors import PerdureError


class _Commands(click.Group):
    """The commands, in the order in which they are needed, with errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # click's own type
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except OSError as error:
            unwritten = failure_of_output(error)
            if unwritten is None:
                raise
            if unwritten.code is not Exit.UNREAD:
                click.echo(f"perdure: {unwritten}", err=True)
            raise click.exceptions.Exit(unwritten.code) from None
        except (Failure, PerdureError, psycopg.Error, ValueError) as error:
            failure = error if isinstance(error, Failure) else failure_of(error)
            if failure is None:
                raise
            click.echo(f"perdure: {safe(str(failure))}", err=True)
            raise click.exceptions.Exit(failure.code) from None
        except (KeyboardInterrupt, click.Abort):  # click's own at a question
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None


@click.group(
    cls=_Commands,
    epilog=EXPLAINED,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="perdure", message="%(prog)s %(version)s")
def commands() -> None:
    """Durable workflows on Postgres: run workers, look at runs, act on them."""


_IN_ORDER = (
    worker, check, migrate, ls, show, start, result, send, cancel, resume, restart, fork, delete, prune, set_output,
    set_timeout, audit, versions, workers, queues, schedules, export, load, replay,
)  # fmt: skip
for _command in _IN_ORDER:
    commands.add_command(_command)


def main() -> None:
    """Run the command that the arguments of the process name, and exit with its code."""
    commands(prog_name="perdure")
