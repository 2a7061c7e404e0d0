"""`perdure queues`: looked at and changed from a shell."""

from __future__ import annotations

import json

import pytest

from perdure import Queue, Rate, sync, workflow
from tests.cli_tools import perdure


@workflow(name="cli_queues.job")
def job() -> None: ...


def test_queues_are_listed_and_changed(database_url: str) -> None:
    """Limits, counts and a pause, as the library has them; `none` takes a limit away."""
    with sync.Perdure(database_url, worker=False, queues=[Queue("mail", concurrency=3)]) as app:
        sync.start(job.options(queue="mail"))
        assert (
            perdure(
                "queues", "set", "mail", "--rate", "100/1m", "--concurrency", "none", url=database_url
            ).returncode
            == 0
        )
        assert perdure("queues", "pause", "mail", url=database_url).returncode == 0
        told = json.loads(perdure("queues", "ls", "-o", "json", url=database_url).stdout)
        assert [(each["name"], each["paused"], each["queued"], each["rate"]) for each in told] == [
            ("mail", True, 1, {"limit": 100, "per": 60.0})
        ]
        info = app.queues.get("mail")
        assert info is not None
        assert (info.concurrency, info.rate) == (None, Rate(100, 60.0))
        assert perdure("queues", "drain", "mail", url=database_url).returncode == 0
        assert perdure("queues", "resume", "mail", url=database_url).returncode == 0
        assert not (app.queues.get("mail") or info).paused


@pytest.mark.parametrize("wrong", [["--rate", "100"], ["--concurrency", "0"], ["--size", "many"], []])
def test_wrong_limits_are_refused(database_url: str, wrong: list[str]) -> None:
    with sync.Perdure(database_url, worker=False):
        ended = perdure("queues", "set", "mail", *wrong, url=database_url)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "Traceback" not in ended.stderr
