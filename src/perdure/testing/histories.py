"""Recorded histories in tests: what was exported once has to agree with the code for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.client import replaying
from perdure.core.middleware import Middleware
from perdure.models import Duration, ReplayInfo, seconds_of


def replay(
    document: bytes | str | Path,
    *,
    instances: Mapping[str, object] | None = None,
    exceptions: Sequence[type[BaseException]] = (),
    middleware: Sequence[Middleware] = (),
    within: Duration = 10.0,
) -> tuple[ReplayInfo, ...]:
    """Run today's code over exported histories; needs no database.

    Args:
        document: what `app.runs.export` gave, or the file in which it is kept.
        instances: objects whose methods are workflows, by name, as for `Perdure`.
        exceptions: further classes of errors to restore, as for `Perdure`.
        middleware: as for `Perdure`.
        within: seconds for each run, after which code that waits for something else is given up.

    Raises:
        ValueError: it is no export, or of a newer format.

    Example:
        @pytest.mark.parametrize("history", sorted(Path(__file__).with_name("histories").glob("*.json")), ids=str)
        def test_running_orders_can_go_on(history):
            for found in perdure.testing.replay(history):
                assert found.agrees, found.text
    """
    text = document.read_bytes() if isinstance(document, Path) else document
    settings = replaying.Settings(
        tuple(exceptions), tuple(middleware), dict(instances or {}), seconds_of(within, "within=")
    )
    return replaying.replay_document(text, settings)
