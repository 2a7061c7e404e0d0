"""Middleware: around every start, run and step, in both colours; what a start says travels with the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

import perdure
from perdure import Info, Middleware, Perdure, StartInfo, step, workflow
from perdure.testing import Clock
from tests.api_tools import on_loop

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
seen: list[str] = []


class Tenants(Middleware):
    """Carries the tenant of whoever starts a run to its code and its steps; some may start nothing."""

    def start(self, start: StartInfo) -> None:
        if tenant.get() == "stranger":
            raise PermissionError(f"a stranger may not start {start.workflow}")
        start.context.setdefault("tenant", tenant.get())

    @contextmanager
    def run(self, info: Info, context: Mapping[str, Any]) -> Iterator[None]:
        seen.append(f"run {info.workflow.rpartition('.')[2]}" if info.step is None else "step")
        token = tenant.set(context["tenant"])
        try:
            yield
        finally:
            tenant.reset(token)

    step = run


class Doubling(Middleware):
    """A second one, inside the first."""

    @contextmanager
    def run(self, info: Info, context: Mapping[str, Any]) -> Iterator[None]:
        token = tenant.set(tenant.get() * 2)
        yield
        tenant.reset(token)


@step
async def who() -> str:
    return tenant.get()


@step
def who_blocking() -> str:
    return tenant.get()


@workflow
async def child() -> list[str]:
    return [tenant.get(), await who()]


@workflow
async def parent() -> list[str]:
    return [tenant.get(), await perdure.run_step(who_blocking), *(await child())]


@workflow
def blocking() -> list[str]:
    return [tenant.get(), who_blocking()]


@workflow
async def sleeper() -> str:
    before = tenant.get()
    await perdure.sleep(30)
    return before + tenant.get()


@on_loop
async def test_the_context_travels_with_the_run_and_its_children(database_url: str) -> None:
    """Code, steps of both colours and children see the tenant of the start; also when claimed from a queue."""
    async with Perdure(database_url, middleware=[Tenants()]):
        tenant.set("acme")
        assert await parent() == ["acme"] * 4
        queued = await perdure.start(blocking.options(queue="default"))
        assert await queued.result(timeout=20) == ["acme"] * 2


@on_loop
async def test_the_first_is_outermost(database_url: str) -> None:
    """The second of two sees what the first has set up."""
    async with Perdure(database_url, middleware=[Tenants(), Doubling()]):
        tenant.set("ab")
        assert await child() == ["abab", "ab"]


@on_loop
async def test_a_start_can_be_refused(database_url: str) -> None:
    """What `start` raises comes out where the run was to be started, and nothing is."""
    async with Perdure(database_url, middleware=[Tenants()]) as app:
        tenant.set("stranger")
        with pytest.raises(PermissionError, match="may not start"):
            await parent.start()
        with pytest.raises(PermissionError):
            await app.start(f"{__name__}.parent")
        assert await app.runs.count() == 0


@on_loop
async def test_a_replay_sees_the_same_context(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on in another app, started by nobody in particular, has the context of its start."""
    monkeypatch.setattr("perdure.policy.LONG_WAIT", 1000)
    seen.clear()
    async with Perdure(database_url, middleware=[Tenants()], grace=0) as app:
        tenant.set("acme")
        handle = await sleeper.start()
        await app.runs.get(handle.id)
    tenant.set("somebody else")
    async with Perdure(database_url, middleware=[Tenants()]) as app:
        with Clock(database_url) as clock:
            clock.advance(60)
            assert await app.handle(handle.id).result(timeout=20) == "acmeacme"
