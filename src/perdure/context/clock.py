"""Time, chance, and who the code is that is running."""

from __future__ import annotations

import random as _random
import uuid
from collections.abc import Coroutine
from datetime import datetime

from perdure.client import current_app
from perdure.context.branch import async_branch, branch_of
from perdure.core.branch import Branch, current, step_info
from perdure.core.drive import drive
from perdure.core.steps import clock_reading
from perdure.core.waits import sleep as sleep_operation
from perdure.errors import NotInWorkflow
from perdure.models import Duration, Info, seconds_of


def sleep(duration: Duration) -> Coroutine[object, None, None]:
    """Sleep, for as long as it takes: through crashes and deploys, without holding memory.

    Args:
        duration: seconds or `timedelta`, counted by the database's clock from the first time this call is made.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    seconds = seconds_of(duration, "sleep(...)")
    branch = async_branch("perdure.sleep")
    return _sleep(branch, seconds, None)


def sleep_until(moment: datetime) -> Coroutine[object, None, None]:
    """Sleep until a time (an aware `datetime`); one that has passed does not sleep."""
    check_moment(moment)
    branch = async_branch("perdure.sleep_until")
    return _sleep(branch, None, moment)


def check_moment(moment: datetime) -> None:
    """Refuse a time without a zone."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(
            f"sleep_until(...) takes an aware datetime, such as perdure.now() + timedelta(days=1), not {moment!r}"
        )


async def _sleep(caller: Branch, seconds: float | None, until: datetime | None) -> None:
    branch = current.get() or caller
    await drive(sleep_operation(branch, seconds=seconds, until=until), branch.run.runtime, branch.run.host)


def now() -> datetime:
    """The time (UTC) by the database's clock, the same on every replay; never earlier than before in the run.

    Outside of a workflow it is the app's idea of the database's time.
    """
    branch = current.get()
    return clock_reading(branch) if branch is not None else current_app().runtime.now()


def random() -> _random.Random:
    """Randomness that is the same on every replay: a `random.Random` seeded for the run and its branch.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return branch_of("perdure.random").random


def uuid4() -> uuid.UUID:
    """A random UUID that is the same on every replay.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return branch_of("perdure.uuid4").uuid4()


def info() -> Info:
    """What the code that is running can know of itself: run, workflow, step, attempt, idempotency key.

    Raises:
        NotInWorkflow: neither a workflow nor a step is running here.
    """
    step = step_info.get()
    branch = current.get()
    if branch is not None:
        return branch.run.info()
    if step is None:
        raise NotInWorkflow("perdure.info() only means something in a workflow or in a step that it called")
    return step()
