"""`@scheduled` and `Schedule`: when a workflow is to run by itself, checked where it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, TypeVar, Unpack

from perdure.client.operations import arguments_of, options_of
from perdure.core.registry import ScheduleDefinition, WorkflowDefinition, register_schedule, workflows
from perdure.declare.workflows import Startable
from perdure.errors import DefinitionError, SerializationError
from perdure.models import Duration, seconds_of
from perdure.schedules import LONGEST_NAME, OVERLAPS, Overlap, Plan
from perdure.serial import Signature, check_size, check_text
from perdure.ticks import EPOCH, Timing

W = TypeVar("W", bound=Startable[Any, Any])
_OPTIONS: Final = ("key", "priority", "expires", "timeout", "version", "tags")


class Planned(TypedDict, total=False):
    """What `@scheduled` takes besides a cron expression; see there."""

    name: str | None
    every: Duration | None
    anchor: datetime
    timezone: str
    overlap: Overlap
    jitter: Duration
    catch_up: Duration | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    queue: str | None
    key: str | None
    priority: int
    expires: Duration | None
    timeout: Duration | None
    version: str | None
    tags: Mapping[str, Any] | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule for `app.schedules.apply`, where it cannot stand above its workflow.

    Args:
        workflow: the workflow, or its stored name, where its code is not here.
        cron: as for `@scheduled`, and so are the others.
        name: of the schedule; the workflow's by default.
        every: seconds or a `timedelta` from one tick to the next.
        anchor: a tick of the interval.
        timezone: in which the expression is read.
        overlap: what becomes of a tick while a run has not ended.
        jitter: the most that a run begins after its tick.
        catch_up: how old a missed tick may be to be made up.
        args: arguments of the workflow.
        kwargs: the same, named.
        queue: in which its runs wait.
        key: of its runs in the queue, which may limit each key and gives keys fair turns.
        priority: in the queue.
        expires: a run that has not begun so long after its tick, and jitter, is given up.
        timeout: of each run.
        version: only workers of this version take its runs.
        tags: of each run.
        paused: whether it rests at first.

    Raises:
        ValueError: something has a value that it cannot have.
        TypeError: the workflow does not take these arguments.
        SerializationError: the arguments are not of its types.
    """

    workflow: Startable[Any, Any] | str
    cron: str | None = None
    name: str | None = None
    every: Duration | None = None
    anchor: datetime = EPOCH
    timezone: str = "UTC"
    overlap: Overlap = "skip"
    jitter: Duration = 0
    catch_up: Duration | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    expires: Duration | None = None
    timeout: Duration | None = None
    version: str | None = None
    tags: Mapping[str, Any] | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.workflow, str):
            check_text(self.workflow, "name of the workflow")
        elif not isinstance(self.workflow, Startable):
            raise TypeError(f"a schedule is of a workflow or the name of one, not of {self.workflow!r}")
        check_text(self.scheduled_name, "name of the schedule", longest=LONGEST_NAME)
        self._plan(b"{}")
        if (definition := self.definition) is not None:
            definition.signature.bind(self.args, self.kwargs)

    @property
    def scheduled_name(self) -> str:
        """Its name: the one given, or the workflow's."""
        return self.workflow_name if self.name is None else self.name

    @property
    def workflow_name(self) -> str:
        """The stored name of its workflow."""
        return self.workflow if isinstance(self.workflow, str) else self.workflow.definition.name

    @property
    def definition(self) -> WorkflowDefinition | None:
        """Of its workflow, if its code is here."""
        return workflows.get(self.workflow) if isinstance(self.workflow, str) else self.workflow.definition

    def plan(self, receiver: Callable[[object], str] | None = None) -> Plan:
        """What is stored of it.

        Args:
            receiver: tells the name of the instance whose method the workflow is.

        Raises:
            SerializationError: the arguments are not of the workflow's types.
            DefinitionError: the workflow is a method of an instance that is not known.
        """
        definition = self.definition
        if definition is None or definition.method != "instance":
            return self._plan(arguments_of(definition, self.args, self.kwargs))
        if isinstance(self.workflow, str) or not self.workflow.receiver or receiver is None:
            raise DefinitionError(
                f"{self.workflow_name} is a method of instances: schedule it of one, by "
                "app.schedules.apply(Schedule(instance.method, ...))"
            )
        named = receiver(self.workflow.receiver[0])
        return self._plan(definition.signature.encode_call(self.args, self.kwargs, named))

    def _plan(self, input: bytes) -> Plan:
        given = {name: getattr(self, name) for name in CHECKED}
        if self.timeout is None and self.definition is not None:
            given["timeout"] = self.definition.timeout  # whoever starts the runs need not have the code
        return Plan(
            self.scheduled_name,
            self.workflow_name,
            timing_of(self.cron, self.every, self.anchor, self.timezone),
            check_size(input, what="the arguments"),
            **checked(given),
            paused=self.paused,
        )


CHECKED: Final = ("overlap", "jitter", "catch_up", "queue", *_OPTIONS)
"""Fields of a schedule that are checked one by one."""


def timing_of(cron: str | None, every: Duration | None, anchor: datetime, timezone: str) -> Timing:
    """When a schedule is due, as the user has written it.

    Raises:
        ValueError: it cannot be.
    """
    interval = None if every is None else timedelta(seconds=seconds_of(every, "every="))
    return Timing(None if cron is None else cron.strip(), interval, anchor, timezone)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a plan by those of `CHECKED` that are given.

    Raises:
        ValueError: one has a value that it cannot have.
    """
    fields: dict[str, Any] = {}
    if "overlap" in given:
        if given["overlap"] not in OVERLAPS:
            raise ValueError(f"overlap= is one of {', '.join(OVERLAPS)}, not {given['overlap']!r}")
        fields["overlap"] = given["overlap"]
    if "jitter" in given:
        fields["jitter"] = timedelta(seconds=seconds_of(given["jitter"], "jitter="))
    if "catch_up" in given:
        window = given["catch_up"]
        fields["catch_up"] = None if window is None else timedelta(seconds=seconds_of(window, "catch_up="))
    options = options_of({name: value for name, value in given.items() if name in ("queue", *_OPTIONS)})
    if "queue" in given:
        fields["queue"] = options.queue
    if any(name in given for name in _OPTIONS):
        values = {name: getattr(options, name) for name in _OPTIONS if name in given}
        usual = {"priority": 0}
        fields["options"] = {name: value for name, value in values.items() if value != usual.get(name)}
    return fields


def scheduled(cron: str | None = None, **how: Unpack[Planned]) -> Callable[[W], W]:
    """Run a workflow by itself, at times; stands above `@workflow`, which it leaves as it is.

    Every worker that has the code declares the schedule when it is opened; each tick has one run, whatever number of
    workers. The run reads its tick as `perdure.info().scheduled_at`, and its id is `name@tick`. What is changed live
    (`app.schedules`) stays until the declaration changes.

    Args:
        cron: minute, hour, day of month, month, day of week; with six fields, seconds come first. Names (`MON`, `JAN`),
            `L` (last), `LW`, `MON#2` and `5L` (last Friday) are known. None: see `every`.
        how: further arguments:

            - `name`: of the schedule; the workflow's by default.
            - `every`: seconds or a `timedelta` from one tick to the next, instead of `cron`.
            - `anchor`: an aware `datetime` that is a tick of the interval; the others follow from it, the past ones too.
              By default intervals count from 1970-01-01 00:00 UTC.
            - `timezone`: name of the zone in which the expression is read, such as `"Europe/Berlin"`; `"UTC"` by default.
            - `overlap`: what becomes of a tick while a run of the schedule has not ended: `"skip"` (the default),
              `"buffer_one"`, `"buffer_all"`, `"allow"`, `"cancel_other"` or `"terminate_other"`.
            - `jitter`: a run begins up to so many seconds (or a `timedelta`) after its tick, before the next; always the same
              for one tick.
            - `catch_up`: how old a tick may be, in seconds or as a `timedelta`, to be made up when all workers were down. By
              default a day, and the newest tick whatever its age.
            - `args`, `kwargs`: arguments of the workflow.
            - `queue`, `key`, `priority`, `expires`, `timeout`, `version`, `tags`: as for `.options(...)`, counted from the
              tick and its jitter.
            - `paused`: True declares it resting.

    Raises:
        DefinitionError: something has a value that it cannot have, the workflow does not take these arguments, or another
            schedule has the name.

    Example:
        @scheduled("0 2 * * *", timezone="Europe/Berlin", args=("all",))
        @workflow
        async def sync(scope: str) -> int: ...
    """

    def decorate(workflow: W) -> W:
        if not isinstance(workflow, Startable):
            raise DefinitionError(f"@scheduled stands above @workflow, not above {workflow!r}")
        definition = workflow.definition
        if definition.method == "instance":
            raise DefinitionError(
                f"@scheduled: {definition.name} is a method of instances: schedule it of one, by "
                "app.schedules.apply(Schedule(instance.method, ...))"
            )
        try:
            schedule = Schedule(workflow, cron, **how)
            _encodes(definition, schedule)
        except (ValueError, TypeError, SerializationError) as error:
            raise DefinitionError(f"@scheduled of {definition.name}: {error}") from error
        register_schedule(ScheduleDefinition(schedule.scheduled_name, definition, schedule.plan))
        return workflow

    return decorate


def _encodes(definition: WorkflowDefinition, schedule: Schedule) -> None:
    """Have wrong arguments fail here; but what an annotation names may be defined further down, and is asked for later."""
    try:
        fresh = Signature(definition.function, definition.signature.skip)
        fresh.encode_call(schedule.args, schedule.kwargs)
    except SerializationError as error:
        if "cannot be resolved" not in str(error):
            raise
