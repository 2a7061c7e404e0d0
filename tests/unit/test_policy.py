"""Decisions about retries and waits, as tables."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import DoNotRetry, Retry, RetryAfter
from perdure.policy import PUT_AWAY_AFTER, backoff, given_up, next_attempt, put_away_after

STEADY = Retry(max_attempts=4, delay=1, backoff=3, max_delay=5, jitter=0)


@pytest.mark.parametrize(("attempt", "wait"), [(1, 1.0), (2, 3.0), (3, 5.0), (4, None)])
def test_waits_grow_up_to_the_longest_and_end_with_the_last_attempt(attempt: int, wait: float | None) -> None:
    """Delay, times the factor, at most the longest; none after the last attempt."""
    assert next_attempt(STEADY, attempt, ValueError()) == wait


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 0.5), (0.5, 1.0), (0.75, 1.25)])
def test_jitter_spreads_the_wait_to_both_sides(chance: float, wait: float) -> None:
    """A share of the wait is random, in both directions."""
    assert next_attempt(Retry(jitter=0.5), 1, ValueError(), chance) == pytest.approx(wait)


def test_jitter_never_goes_over_the_longest_wait() -> None:
    """The longest wait is a promise."""
    assert next_attempt(Retry(delay=60, max_delay=60, jitter=1), 1, ValueError(), 0.99) == 60


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(on=(OSError,)), ConnectionError(), True),
        (Retry(on=(OSError,)), ValueError(), False),
        (Retry(unless=(ValueError,)), ValueError(), False),
        (Retry(when=lambda error: "yes" in str(error)), ValueError("yes"), True),
        (Retry(when=lambda error: "yes" in str(error)), ValueError("no"), False),
        (Retry(), DoNotRetry("final"), False),
        (Retry(), SystemExit(1), False),
        (None, ValueError(), False),
    ],
)
def test_which_errors_are_tried_again(retry: Retry | None, error: BaseException, again: bool) -> None:
    """`on`, `unless` and `when` decide, `DoNotRetry` overrules them."""
    assert (next_attempt(retry, 1, error) is not None) is again


def test_a_step_can_name_its_wait() -> None:
    """`RetryAfter` overrules the policy's wait, but not its number of attempts."""
    assert next_attempt(STEADY, 1, RetryAfter(99)) == 99
    assert next_attempt(None, 1, RetryAfter(7)) == 7
    assert next_attempt(STEADY, 4, RetryAfter(99)) is None


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"jitter": 2}, {"backoff": 0.5}, {"delay": -1}, {"max_delay": timedelta(days=-1)}],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """A policy that cannot work is refused where it is written."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)  # type: ignore[arg-type]


def test_long_waits_are_put_away_at_once_and_short_ones_never() -> None:
    """What will be back in a moment stays; what is long goes; what nobody knows is given a moment."""
    assert put_away_after(0.5) is None
    assert put_away_after(3) == PUT_AWAY_AFTER
    assert put_away_after(None) == PUT_AWAY_AFTER
    assert (put_away_after(3600) or 1) < 0.1


def test_loops_back_off_within_bounds() -> None:
    """Pauses grow, and stay under the bound."""
    pauses = [backoff(failures) for failures in range(1, 50)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.1
    assert pauses[-1] == 5.0


def test_a_run_is_given_up_after_its_last_recovery() -> None:
    """`max_recoveries` takeovers are allowed, not one more."""
    assert not given_up(20, 20)
    assert given_up(21, 20)
