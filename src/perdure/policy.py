"""Pure decisions: whether and when a step is tried again, when a run waits in memory, when one is given up.

Nothing here touches a clock, a thread or the database, so each rule is a table in a unit test.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from perdure.errors import DoNotRetry, RetryAfter
from perdure.models import Duration, seconds_of

PUT_AWAY_AFTER: Final = 1.0
"""Seconds that a run may wait in memory: below, replaying it would cost more than keeping it."""

LONG_WAIT: Final = 5.0
"""Seconds from which a wait is long: a run that begins one is put away as soon as it is quiet, so that ten
thousand sleepers never need memory at the same time (measured: 70 MB stayed with the process, else 10)."""

SUSPECT_AFTER: Final = 2
"""Crashes in a row after which a run is suspected to cause them, and is run alone."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a step that raises is tried again.

    The wait before attempt n is `delay * backoff ** (n - 2)`, at most `max_delay`, and by up to the
    share `jitter` longer or shorter, so that many runs do not return at the same moment.

    Args:
        max_attempts: attempts in all, the first included.
        delay: wait before the second attempt, in seconds or as a `timedelta`.
        backoff: factor from one wait to the next, at least 1.
        max_delay: longest wait, in seconds or as a `timedelta`.
        jitter: share of the wait that is random, between 0 and 1.
        on: exceptions that are tried again.
        unless: exceptions that are not, even if `on` has them.
        when: a last word: called with the exception, says whether to try again.

    Raises:
        ValueError: a number is out of its range.
    """

    max_attempts: int = 3
    delay: Duration = 1
    backoff: float = 2
    max_delay: Duration = 60
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)
    unless: tuple[type[Exception], ...] = ()
    when: Callable[[Exception], bool] | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("Retry(max_attempts=...) counts the first attempt too: at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError("Retry(jitter=...) is a share: between 0 and 1")
        if self.backoff < 1:
            raise ValueError("Retry(backoff=...) is a factor: at least 1")
        seconds_of(self.delay, "Retry(delay=...)")
        seconds_of(self.max_delay, "Retry(max_delay=...)")


def next_attempt(
    retry: Retry | None, attempt: int, error: BaseException, chance: float | None = None
) -> float | None:
    """Decide about a failed attempt: seconds to wait before the next, or None if the failure is final.

    Args:
        retry: the step's policy; None never tries again, but for `RetryAfter` up to three attempts.
        attempt: number of the attempt that failed, from 1.
        error: what it raised.
        chance: a number in [0, 1) in place of a random one.
    """
    policy = retry or Retry()
    if isinstance(error, DoNotRetry) or attempt >= policy.max_attempts or not isinstance(error, Exception):
        return None
    if isinstance(error, RetryAfter):
        return max(0.0, error.seconds)
    if retry is None or isinstance(error, policy.unless) or not isinstance(error, policy.on):
        return None
    if policy.when is not None and not policy.when(error):
        return None
    longest = seconds_of(policy.max_delay, "max_delay")
    wait = min(seconds_of(policy.delay, "delay") * policy.backoff ** (attempt - 1), longest)
    spread = (2 * (random.random() if chance is None else chance) - 1) * policy.jitter
    return min(wait * (1 + spread), longest)


def put_away_after(seconds: float | None) -> float | None:
    """Seconds after which to look whether a run that waits so long (None: who knows) can be put away.

    None: not at all, since it would be back almost at once.
    """
    if seconds is None:
        return PUT_AWAY_AFTER
    if seconds >= LONG_WAIT:
        return 0.02
    return PUT_AWAY_AFTER if seconds >= 2.5 * PUT_AWAY_AFTER else None


def backoff(failures: int, longest: float = 5.0) -> float:
    """Seconds to wait before the next try of a loop that has failed so often in a row."""
    return float(min(longest, 0.05 * 2 ** min(failures, 10)))


def given_up(recoveries: int, max_recoveries: int) -> bool:
    """Whether a run that was taken over so often without recording a step is to be parked."""
    return recoveries > max_recoveries
