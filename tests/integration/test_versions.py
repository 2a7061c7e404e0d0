"""`app.versions` shows what still lives on each version of the code."""

from __future__ import annotations

import perdure
from perdure import Perdure, Status, workflow
from tests.api_tools import on_loop, until_true


@workflow
async def waiting() -> None:
    await perdure.receive("go")


@on_loop
async def test_versions_tell_runs_and_workers(database_url: str) -> None:
    """Runs of an old version that is nobody's, of a new one with its worker, and of none."""
    async with Perdure(database_url, worker=False) as app:
        await waiting.options(version="1", queue="default").start()
        async with Perdure(database_url, version="2", name="new") as new:
            with new.bind():
                handle = await waiting.start()

            async def runs() -> bool:
                return await app.runs.count(status="running") == 1

            await until_true(runs)
            with app.bind():
                await waiting.options(queue="elsewhere").start()
            old, none, current = sorted(await app.versions.list(), key=lambda v: v.version or "1.5")
            assert (old.version, dict(old.runs), old.workers) == ("1", {Status.QUEUED: 1}, 0)
            assert (none.version, dict(none.runs), none.workers) == (None, {Status.QUEUED: 1}, 0)
            assert (current.version, dict(current.runs), current.workers) == ("2", {Status.RUNNING: 1}, 1)
            await app.handle(handle.id).cancel()


def test_versions_in_blocking_code(database_url: str) -> None:
    """The blocking app tells the same."""
    with perdure.sync.Perdure(database_url, version="7") as app:
        assert [(v.version, dict(v.runs), v.workers) for v in app.versions.list()] == [("7", {}, 1)]
