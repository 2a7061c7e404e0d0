"""The current app: the run's own, the bound one, the only open one; and no app that a fork left behind."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable

import pytest

import perdure
from perdure import AsyncConnection, NoCurrentApp, Perdure, PerdureError, step, transaction, workflow
from tests.api_tools import on_loop, rows


@transaction
async def schema_of(conn: AsyncConnection) -> str:
    row = await (await conn.execute("select current_setting('application_name')")).fetchone()
    assert row
    return str(row[0])


@step
async def identity(value: str) -> str:
    return value


@workflow
async def child(value: str) -> str:
    return await identity(value)


@step
async def starts_inside_a_step() -> str:
    return (await child.options(id="from a step").start("x")).id


@workflow
async def parent() -> list[str]:
    return [await child("a"), await (await child.start("b")).result(), await starts_inside_a_step()]


@workflow
def def_parent() -> str:
    return perdure.sync.start(child, "c").result()


def ids(url: str, schema: str) -> int:
    [(count,)] = rows(url, f'select count(*) from "{schema}".runs')
    return int(count)


@on_loop
async def test_without_an_app_a_call_says_how_to_open_one() -> None:
    """No app is open: NoCurrentApp says what opens one, in every kind of call."""
    calls: list[Callable[[], object]] = [
        lambda: child("x"),
        lambda: child.start("x"),
        lambda: perdure.start(child, "x"),
        schema_of,
    ]
    for call in calls:
        with pytest.raises(NoCurrentApp, match="Perdure"):
            await call()  # type: ignore[misc]
    for blocking in (def_parent, def_parent.start, lambda: child.handle("x")):
        with pytest.raises(NoCurrentApp, match="Perdure"):
            blocking()


@on_loop
async def test_two_apps_are_named_in_the_error(database_url: str) -> None:
    """With several apps open a bare call raises NoCurrentApp with their names and the way out."""
    async with Perdure(database_url, name="left"), Perdure(database_url, name="right"):
        with pytest.raises(NoCurrentApp, match=r"left.*right.*bind"):
            await child("x")


@on_loop
async def test_bind_chooses_an_app(database_url: str) -> None:
    """Within `with app.bind():` calls go to that app, nested ones to the inner; afterwards none is chosen."""
    one = Perdure(database_url, name="one", schema="one")
    two = Perdure(database_url, name="two", schema="two")
    async with one, two:
        with one.bind():
            await child("x")
            with two.bind():
                await child("y")
                await child("z")
            await child.options(id="last")("w")
        with pytest.raises(NoCurrentApp):
            await child("v")
    assert (ids(database_url, "one"), ids(database_url, "two")) == (2, 2)


@on_loop
async def test_two_apps_live_apart_in_one_process(database_url: str) -> None:
    """Inside a run, its children and its steps, the current app is the run's own, in either schema."""
    one = Perdure(database_url, name="one", schema="one")
    two = Perdure(database_url, name="two", schema='a "strange" %s name')
    async with one, two:
        with one.bind():
            first = await parent.start()
        with two.bind():
            second = await parent.start()
            third = await perdure.start(def_parent)
        for handle in (first, second):
            assert await handle.result(timeout=20) == ["a", "b", "from a step"]
        assert await third.result(timeout=20) == "c"
        with two.bind():
            assert await child.handle("from a step").result(timeout=20) == "x"
        assert (await one.runs.count(), await two.runs.count()) == (4, 6)


def test_blocking_apps_live_apart_too(database_url: str) -> None:
    """The same with blocking apps, and `async def` runs on a loop thread of each."""
    one = perdure.sync.Perdure(database_url, name="one", schema="one")
    two = perdure.sync.Perdure(database_url, name="two", schema="two")
    with one, two:
        with one.bind():
            assert def_parent() == "c"
        with two.bind():
            assert perdure.sync.start(parent).result(timeout=20) == ["a", "b", "from a step"]
        with pytest.raises(NoCurrentApp, match=r"one.*two"):
            def_parent()
        assert (one.runs.count(), two.runs.count()) == (2, 4)


@on_loop
async def test_a_handle_keeps_its_app(database_url: str) -> None:
    """Outside of the block that bound it, a handle still asks the app that it came from."""
    async with Perdure(database_url, schema="one") as one, Perdure(database_url, schema="two") as two:
        with one.bind():
            handle = await child.start("mine")
        with two.bind():
            assert await handle.result(timeout=20) == "mine"


@on_loop
async def test_bind_is_the_tasks_own(database_url: str) -> None:
    """Binding in one task does not bind another."""
    async with Perdure(database_url, name="one", schema="one") as one, Perdure(database_url, name="two"):

        async def unbound() -> None:
            with pytest.raises(NoCurrentApp):
                await child("x")

        context = contextvars.copy_context()
        with one.bind():
            await asyncio.create_task(unbound(), context=context)
            assert await asyncio.create_task(child("y")) == "y"


def test_a_thread_finds_the_only_app(database_url: str) -> None:
    """A thread of the user's own needs no binding where one app is open."""
    results: list[str] = []
    with perdure.sync.Perdure(database_url):
        thread = threading.Thread(target=lambda: results.append(def_parent()))
        thread.start()
        thread.join(20)
    assert results == ["c"]


@on_loop
async def test_an_app_can_be_opened_again(database_url: str) -> None:
    """close() twice is fine, open() after close() lives again, open() twice is refused."""
    app = Perdure(database_url, name="again")
    for _ in range(2):
        await app.open()
        assert await child("x") == "x"
        with pytest.raises(PerdureError, match="again"):
            await app.open()
        await app.close()
        await app.close()
    with pytest.raises(PerdureError, match="again"):
        await app.runs.count()


@on_loop
async def test_an_app_that_cannot_open_leaves_nothing_behind(database_url: str) -> None:
    """A database that does not exist is said so at once, and the app is not the current one."""
    app = Perdure(database_url.replace("/test_", "/nothing_"), name="lost")
    with pytest.raises(perdure.DatabaseUnavailable, match="nothing_"):
        await asyncio.wait_for(app.open(), 10)
    with pytest.raises(NoCurrentApp):
        await child("x")


@pytest.mark.parametrize(
    "settings", [{"lease": 0.1}, {"concurrency": 0}, {"threads": 0}, {"grace": -1}, {"schema": ""}]
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, object]) -> None:
    """A setting that cannot be is a ValueError that names it, before anything is connected."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Perdure("postgresql://127.0.0.1:1/x", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("LEASE", "soon"), ("CONCURRENCY", "0"), ("WORKER", "maybe")])
def test_wrong_environment_variables_are_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that comes from the environment is refused under its variable's name."""
    monkeypatch.setenv(f"PERDURE_{name}", value)
    with pytest.raises(ValueError, match=f"(?i){name}"):
        Perdure("postgresql://127.0.0.1:1/x")


def test_the_environment_names_the_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument PERDURE_DATABASE_URL and PERDURE_SCHEMA say where; an argument beats them."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", database_url)
    monkeypatch.setenv("PERDURE_SCHEMA", "from_environment")
    with perdure.sync.Perdure():
        def_parent()
    with perdure.sync.Perdure(schema="argument"):
        def_parent()
    assert (ids(database_url, "from_environment"), ids(database_url, "argument")) == (2, 2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_app_is_refused_after_a_fork(database_url: str) -> None:
    """In a forked child every use of the parent's app raises and names the app; the parent goes on."""
    with perdure.sync.Perdure(database_url, name="before the fork") as app:
        handle = def_parent.start()
        handle.result(timeout=20)
        uses: list[Callable[[], object]] = [
            def_parent,
            def_parent.start,
            lambda: perdure.sync.start(child, "x"),
            app.runs.count,
            lambda: app.start("x"),
            lambda: handle.result(timeout=5),
            handle.status,
        ]
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            answers = []
            for use in uses:
                try:
                    use()
                    answers.append("went through")
                except PerdureError as error:
                    answers.append(
                        "ok" if "before the fork" in str(error) and "fork()" in str(error) else str(error)
                    )
                except BaseException as error:
                    answers.append(repr(error))
            os.write(writer, "\n".join(answers).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answers = pipe.read().splitlines()
        os.waitpid(pid, 0)
        assert answers == ["ok"] * len(uses)
        assert def_parent() == "c"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_open_its_own_app(database_url: str) -> None:
    """After a fork the child opens an app of its own and works with it, while the parent's goes on."""
    with perdure.sync.Perdure(database_url, name="parent"):
        def_parent()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with perdure.sync.Perdure(database_url, name="child") as mine, mine.bind():
                    status = 0 if def_parent() == "c" else 2
            finally:
                os._exit(status)
        _, code = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(code) == 0
        assert def_parent() == "c"
