"""Which runs are meant, by filter: the options that `ls` and whatever acts on many runs share.

They are the fields of `RunFilter`, each declared once, so that the words that list some runs are the words that
cancel the same ones. An empty text is refused: as a prefix it would mean every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from perdure.cli.exits import refused_as_usage
from perdure.cli.options import C, moment, tags_of, word
from perdure.models import RunFilter, Status

_NAMED: Final = (
    ("--workflow", "-w", "NAME", "Stored name of the workflow; repeatable."),
    ("--queue", "-q", "NAME", "Queue; repeatable."),
    ("--version", None, "VERSION", "Version of the code that the run is of; repeatable."),
)
_MOMENTS: Final = (
    ("created-after", "Born at or after"),
    ("created-before", "Born before"),
    ("finished-after", "Ended at or after"),
    ("finished-before", "Ended before"),
)
FIELDS: Final = (
    "status", "workflow", "queue", "version", "worker", "tag", "parent", "prefix", "created_after",
    "created_before", "finished_after", "finished_before", "error",
)  # fmt: skip
"""Names of the options in what click hands to a command."""


def filter_options(command: C) -> C:
    """Add the options that say which runs."""
    options = [
        click.option(
            "--status",
            "-s",
            type=click.Choice([str(status) for status in Status if status is not Status.CONTINUED]),
            multiple=True,
            help="Where the run stands; repeatable.",
        ),
        *(
            click.option(*filter(None, (long, short)), metavar=name, type=word, multiple=True, help=text)
            for long, short, name, text in _NAMED
        ),
        click.option(
            "--worker",
            metavar="NUMBER",
            type=click.IntRange(0, 2**63 - 1),
            multiple=True,
            help="Number of the worker; repeatable.",
        ),
        click.option(
            "--tag",
            metavar="NAME=VALUE",
            multiple=True,
            help="Tag that the run has; repeatable, all must match.",
        ),
        click.option("--parent", metavar="ID", type=word, help="Run that started it."),
        click.option("--prefix", metavar="TEXT", type=word, help="Beginning of the id."),
        *(
            click.option(
                f"--{moved}", metavar="TIME", callback=moment, help=f"{text}: ISO 8601, or 2h (ago)."
            )
            for moved, text in _MOMENTS
        ),
        click.option(
            "--error", metavar="TEXT", type=word, help="Text in the error, or in the reason for parking."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the filters that were given, as fields of a `RunFilter`.

    Raises:
        UsageError: a tag is no pair.
    """
    fields = {name: options[name] for name in FIELDS if options[name] not in (None, ())}
    if tags := tags_of(fields.pop("tag", ())):
        fields["tags"] = tags
    return fields


def filter_of(fields: Mapping[str, Any], **more: Any) -> RunFilter:
    """The filter of these fields.

    Raises:
        UsageError: a field has a value that it cannot have.
    """
    with refused_as_usage():
        return RunFilter(**fields, **more)
