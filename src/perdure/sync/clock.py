"""Sleeping, in blocking code."""

from __future__ import annotations

from datetime import datetime

from perdure.context.branch import blocking_branch
from perdure.context.clock import check_moment
from perdure.core.drive import drive_blocking
from perdure.core.waits import sleep as sleep_operation
from perdure.models import Duration, seconds_of


def sleep(duration: Duration) -> None:
    """Sleep, for as long as it takes; see `perdure.sleep`."""
    branch = blocking_branch("perdure.sync.sleep", "perdure.sleep")
    operation = sleep_operation(branch, seconds=seconds_of(duration, "sleep(...)"))
    drive_blocking(operation, branch.run.runtime, branch.run.host)


def sleep_until(moment: datetime) -> None:
    """Sleep until a time (an aware `datetime`); see `perdure.sleep_until`."""
    check_moment(moment)
    branch = blocking_branch("perdure.sync.sleep_until", "perdure.sleep_until")
    drive_blocking(sleep_operation(branch, until=moment), branch.run.runtime, branch.run.host)
