"""How long runs that have ended are kept: rules by status and workflow, and what pruning says it did.

Nothing is deleted unless somebody asks for it, so a duration that is not given keeps for ever. What is decided here is
only which rule is a run's; whether it is over the database says, by its own clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple

from perdure.models import Duration, Status, seconds_of

LEAST_SECONDS: Final = 60.0
"""A run that has ended is kept at least so long: whoever waits for it outside of the database learns of its end by asking."""
_STATUSES: Final = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class Rule(NamedTuple):
    """How long ended runs of some workflows are kept.

    Attributes:
        pattern: name of the workflow, or what it begins with; "" is the beginning of all.
        exact: whether it is the whole name.
        status: of the runs.
        seconds: None keeps them for ever.
    """

    pattern: str
    exact: bool
    status: Status
    seconds: float | None

    def fits(self, workflow: str) -> bool:
        """Whether it speaks of this workflow."""
        return workflow == self.pattern if self.exact else workflow.startswith(self.pattern)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long runs are kept after they have ended, by status; None, which is the default, keeps them for ever.

    What goes is whole trees: a run with all that it started, directly or not, once each of them has ended and is kept no
    longer by its own rule. A past life of a run that went on as new counts as succeeded, from when it went on.

    Args:
        succeeded: seconds or `timedelta` that runs are kept that succeeded; at least a minute.
        failed: the same for those that failed.
        cancelled: the same for those that were cancelled.
        workflows: other rules for some workflows, by stored name or by its beginning and a `*`: a `Retention` of their
            own (what it leaves out is kept for ever), a duration for every status, or None for ever. A whole name goes
            before a beginning, a longer beginning before a shorter.

    Raises:
        ValueError: a duration is shorter than a minute, negative or not finite, or a name cannot be one.
        TypeError: something is neither a duration nor None.

    Example:
        Perdure(retention=Retention(
            succeeded=timedelta(days=7), failed=timedelta(days=30),
            workflows={"shop.audit*": None, "shop.poll": timedelta(hours=1)},
        ))
    """

    succeeded: Duration | None = None
    failed: Duration | None = None
    cancelled: Duration | None = None
    workflows: Mapping[str, Retention | Duration | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for status in _STATUSES:
            _seconds(getattr(self, status.value), f"Retention({status}=...)")
        if not isinstance(self.workflows, Mapping):
            raise TypeError(f"Retention(workflows=...) must be a mapping of names, not {self.workflows!r}")
        for name, kept in self.workflows.items():
            _check_name(name)
            if not isinstance(kept, Retention):
                _seconds(kept, f"Retention(workflows={{{name!r}: ...}})")
            elif kept.workflows:
                raise ValueError(f"the Retention for {name!r} cannot have workflows= of its own")

    def __hash__(self) -> int:
        return hash(self.rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules, each before those that are less particular."""
        named = (rule for name, kept in self.workflows.items() for rule in _rules_of(name, kept))
        every = [*named, *_rules_of("*", Retention(self.succeeded, self.failed, self.cancelled))]
        return tuple(sorted(every, key=lambda rule: (not rule.exact, -len(rule.pattern), rule.pattern)))

    @property
    def least(self) -> float | None:
        """The shortest time that any rule keeps a run, in seconds; None if all keep for ever."""
        return min((rule.seconds for rule in self.rules if rule.seconds is not None), default=None)

    @property
    def longest(self) -> float:
        """The longest time that ends, in seconds; 0 if there is none."""
        return max((rule.seconds for rule in self.rules if rule.seconds is not None), default=0.0)

    def kept(self, workflow: str, status: Status) -> float | None:
        """Seconds that a run of this workflow is kept after it ended so; None for ever."""
        counted = Status.SUCCEEDED if status is Status.CONTINUED else status
        for rule in self.rules:
            if rule.status is counted and rule.fits(workflow):
                return rule.seconds
        return None


def checked_retention(given: object) -> Retention | None:
    """What is given as `retention=`.

    Raises:
        TypeError: it is no `Retention`.
    """
    if given is None or isinstance(given, Retention):
        return given
    raise TypeError(
        f"retention= must be a perdure.Retention, such as Retention(succeeded=86400), not {given!r}"
    )


def _rules_of(name: str, kept: Retention | Duration | None) -> Iterator[Rule]:
    exact, pattern = not name.endswith("*"), name.removesuffix("*")
    for status in _STATUSES:
        duration = getattr(kept, status.value) if isinstance(kept, Retention) else kept
        yield Rule(pattern, exact, status, _seconds(duration, name))


def _seconds(duration: Duration | None, what: str) -> float | None:
    if duration is None:
        return None
    if isinstance(duration, bool) or not isinstance(duration, int | float | timedelta):
        raise TypeError(f"{what} must be seconds, a timedelta, or None for ever, not {duration!r}")
    seconds = seconds_of(duration, what)
    if seconds < LEAST_SECONDS:
        raise ValueError(
            f"{what} must be at least {LEAST_SECONDS:g} s, not {duration!r}: whoever waits for a run has to see its end"
        )
    return seconds


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"Retention(workflows=...) has names of workflows, not {name!r}")
    if not name or "*" in name[:-1] or "\0" in name:
        raise ValueError(
            f"Retention(workflows=...) has names of workflows, or their beginning and a *, not {name!r}"
        )
    if name == "*":
        raise ValueError("for all workflows say Retention(succeeded=, failed=, cancelled=), not '*'")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was pruned, or what would be.

    Attributes:
        runs: how many runs, their past lives included.
        trees: how many trees they were.
        workflows: how many of each workflow, by status.
        rows: how many rows of each table.
        complete: whether that was all; False if a limit was reached.
        dry_run: whether nothing was deleted.
    """

    runs: int = 0
    trees: int = 0
    workflows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
    dry_run: bool = False

    def __add__(self, other: Pruned) -> Pruned:
        workflows = {name: dict(counts) for name, counts in self.workflows.items()}
        for name, counts in other.workflows.items():
            mine = workflows.setdefault(name, {})
            for status, count in counts.items():
                mine[status] = mine.get(status, 0) + count
        rows = {table: self.rows.get(table, 0) + count for table, count in other.rows.items()}
        return Pruned(
            self.runs + other.runs,
            self.trees + other.trees,
            workflows,
            {**self.rows, **rows},
            self.complete and other.complete,
            self.dry_run or other.dry_run,
        )
