"""`@workflow`, and the start of runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import psycopg

from perdure.client import (
    BlockingHandle,
    Handle,
    Operation,
    asked_handle,
    blocking,
    current_app,
    on_loop,
    options_of,
    started_handle,
    where,
)
from perdure.client.topics import Topic, written
from perdure.core.branch import current
from perdure.core.drive import drive, drive_blocking
from perdure.core.middleware import context_of_start
from perdure.core.registry import WorkflowDefinition, name_of, register
from perdure.core.starting import Start
from perdure.declare.calls import called, called_blocking, child_call
from perdure.declare.function import Decorated, unwrapped
from perdure.errors import DefinitionError, PerdureError, WrongColour
from perdure.models import Duration, ParentClose, seconds_of
from perdure.options import Batch, Debounce, OnConflict, StartOptions
from perdure.serial import Signature, check_size, check_text

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Options(TypedDict, total=False):
    """What `.options(...)` takes; see `AsyncWorkflow.options`."""

    id: str | None
    on_conflict: OnConflict
    queue: str | None
    priority: int
    delay: Duration | None
    timeout: Duration | None
    version: str | None
    tags: Mapping[str, Any] | None
    send: tuple[Topic[Any] | str, Any] | None
    parent_close: ParentClose
    key: str | None
    dedup: str | None
    expires: Duration | None
    debounce: Debounce | None
    batch: Batch | None
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None


@dataclass(frozen=True, slots=True)
class Bound(Generic[R]):
    """A workflow with its options and arguments; see `bind`."""

    what: Start


class Startable(Decorated[P, R]):
    """A workflow with options for its start."""

    definition: WorkflowDefinition

    def __init__(
        self, definition: WorkflowDefinition, options: StartOptions, receiver: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(definition)
        self.chosen, self.receiver = options, receiver

    def what_to_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
        """What a direct call starts, and waits for.

        Raises:
            PerdureError: it is to be started on a connection, whose transaction would have to be committed in between,
                or merged with other starts.
        """
        if self.chosen.connection is not None:
            raise PerdureError(
                f"connection= is for `.start(...)`: a call of {self.__qualname__} would wait for its own transaction"
            )
        if self.chosen.merge is not None:
            raise PerdureError(
                f"debounce= and batch= are for `.start(...)`: a call of {self.__qualname__} would be one of several"
            )
        return self.what(args, kwargs)

    def what(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
        """What a call with these arguments starts; wrong ones raise here, in the caller."""
        signature = self.definition.signature
        signature.bind(args, kwargs)
        name, runtime, receiver = self.definition.name, current_app().runtime, None
        if self.definition.method == "instance":
            receiver = runtime.name_of_instance(*self.received(()))
        stored = check_size(signature.encode_call(args, kwargs, receiver), what="the arguments")
        context = context_of_start(runtime, name, self.chosen.id)
        return Start(name, stored, self.chosen, self.definition, context)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The workflow with its options and arguments, to be started with others by `app.start_many`.

        Wrong arguments raise here.
        """
        return Bound(self.what(args, kwargs))

    def starts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], kind: Any) -> Callable[[], Operation]:
        """What makes the operation that starts a run and returns its handle; wrong arguments raise here."""
        what, app = self.what(args, kwargs), current_app()
        return lambda: started_handle(app, what, kind)


class _WithUpdate(Startable[P, R]):
    """A workflow that is asked for an update as it is started."""

    def __init__(
        self, workflow: Startable[P, R], topic: Topic[Any] | str, payload: Any, update_id: str | None
    ) -> None:
        super().__init__(workflow.definition, workflow.chosen, workflow.receiver)
        if self.chosen.connection is not None:
            raise ValueError(
                "start_with_update(...) and options(connection=...) exclude each other: the answer comes after the commit"
            )
        if self.chosen.send is not None:
            raise ValueError(
                "start_with_update(...) and options(send=...) exclude each other: a start takes one message with it; "
                "send the other by handle.send(...)"
            )
        self._request = written(topic, payload)
        self._update_id = None if update_id is None else check_text(update_id, "update_id=")

    def starts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], kind: Any) -> Callable[[], Operation]:
        """What makes the operation that starts a run with its update, and returns its handle."""
        what, app = self.what(args, kwargs), current_app()
        return lambda: asked_handle(app, what, self._request, self._update_id, kind)


class AsyncWithUpdate(_WithUpdate[P, R]):
    """An `async def` workflow with the update it is started with; see `AsyncStartable.start_with_update`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, Handle[R]]:
        """Start a run in the background and return its handle, once start and update are durable."""
        return on_loop(self.starts(args, kwargs, Handle), current_app(), "perdure.sync.start")


class BlockingWithUpdate(_WithUpdate[P, R]):
    """A `def` workflow with the update it is started with; see `AsyncStartable.start_with_update`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> BlockingHandle[R]:
        """Start a run in the background and return its handle, once start and update are durable."""
        instead = f"`await perdure.start({self.__qualname__}.options(...).start_with_update(...), ...)`"
        starts = self.starts(args, kwargs, BlockingHandle)
        return cast("BlockingHandle[R]", blocking(starts, current_app(), instead))


class AsyncStartable(Startable[P, R]):
    """An `async def` workflow, with options."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Start a run and wait for its result. The run goes on if whoever waits is cancelled outside of a workflow."""
        branch = current.get()
        if branch is not None and not branch.run.definition.colour:
            raise WrongColour(
                f"{self.__qualname__} is async: in a blocking workflow write `perdure.sync.start({self.__qualname__}, "
                f"...).result()` ({where()})"
            )
        return cast("Coroutine[object, None, R]", self.named(self._call(self.what_to_call(args, kwargs))))

    async def _call(self, what: Start) -> R:
        branch = current.get()
        if branch is not None:
            return cast("R", await drive(child_call(branch, what), branch.run.runtime, branch.run.host))
        return cast("R", await called(what))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, Handle[R]]:
        """Start a run in the background and return its handle, once the start is durable."""
        return on_loop(self.starts(args, kwargs, Handle), current_app(), "perdure.sync.start")

    @overload
    def start_with_update(
        self, topic: Topic[S], payload: S, *, update_id: str | None = None
    ) -> AsyncWithUpdate[P, R]: ...
    @overload
    def start_with_update(
        self, topic: str, payload: Any, *, update_id: str | None = None
    ) -> AsyncWithUpdate[P, R]: ...
    def start_with_update(
        self, topic: Topic[Any] | str, payload: Any, *, update_id: str | None = None
    ) -> AsyncWithUpdate[P, R]:
        """Return what starts a run and asks it for an update in one commit: call it with the workflow's arguments.

        The handle's `answer()` waits for the answer. If there is a run with this id already (`options(id=...)`), it is
        just asked, once for each update id; if it has ended, `answer()` has what it answered to this id before.

        Args:
            topic: name of the update, or a `Topic`.
            payload: what is asked.
            update_id: idempotency key of the update; each call is an update of its own, by default.

        Raises:
            ValueError: the options have `send=`, or the name or the id is none.
            SerializationError: the payload is no value of the topic's type.

        Example:
            handle = await cart.options(id="cart-7").start_with_update("add", item, update_id="click-1")("anna")
            total = await handle.answer(Decimal)
        """
        return AsyncWithUpdate(self, topic, payload, update_id)


class BlockingStartable(Startable[P, R]):
    """A `def` workflow, with options."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start a run and wait for its result."""
        what, branch = self.what_to_call(args, kwargs), current.get()
        if branch is not None:
            if branch.run.definition.colour:
                raise WrongColour(
                    f"{self.__qualname__} is blocking: in an async workflow write `await (await perdure.start("
                    f"{self.__qualname__}, ...)).result()` ({where()})"
                )
            return cast("R", drive_blocking(child_call(branch, what), branch.run.runtime, branch.run.host))
        return cast("R", called_blocking(what))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> BlockingHandle[R]:
        """Start a run in the background and return its handle, once the start is durable."""
        starts = self.starts(args, kwargs, BlockingHandle)
        instead = f"`await perdure.start({self.__qualname__}, ...)`"
        return cast("BlockingHandle[R]", blocking(starts, current_app(), instead))

    @overload
    def start_with_update(
        self, topic: Topic[S], payload: S, *, update_id: str | None = None
    ) -> BlockingWithUpdate[P, R]: ...
    @overload
    def start_with_update(
        self, topic: str, payload: Any, *, update_id: str | None = None
    ) -> BlockingWithUpdate[P, R]: ...
    def start_with_update(
        self, topic: Topic[Any] | str, payload: Any, *, update_id: str | None = None
    ) -> BlockingWithUpdate[P, R]:
        """Return what starts a run and asks it for an update in one commit; see `AsyncStartable.start_with_update`."""
        return BlockingWithUpdate(self, topic, payload, update_id)


class AsyncWorkflow(AsyncStartable[P, R]):
    """An `async def` workflow: call it, or `start` it."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: AsyncWorkflow[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> AsyncWorkflow[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The workflow as a method of an instance or a class."""
        return self.bound_to(instance, owner)

    def options(self, **options: Unpack[Options]) -> AsyncStartable[P, R]:
        """Return the workflow with options for its start.

        Args:
            id: idempotency key: starting it again attaches to the run that is there.
            on_conflict: what to do if there is one: "attach", "reject", or "restart_if_failed".
            queue: run it from this queue, on any worker that serves it.
            priority: in the queue; lower first, 0 by default.
            delay: do not begin before so many seconds (or a `timedelta`) have passed.
            timeout: from start to finish; then it fails with `WorkflowTimeout`.
            version: only workers of this version take it.
            tags: to find it by.
            send: a topic and a payload: a message that is sent with the start, in one commit; to a run that is there
                already it is just sent.
            parent_close: of a child: what the end of the workflow that starts it means for it. "cancel" it, which is
                the default, "abandon" it, so that it goes on, or "wait" for it: the parent ends after it.
            key: whose run it is, such as a tenant: queues share their room fairly among keys, and can limit each.
            dedup: unique among the unfinished runs of the queue: while one has it, a start raises `Deduplicated`.
            expires: seconds or `timedelta` after which it fails with `WorkflowExpired` if it has not begun.
            debounce: merge starts that come close to each other into one run, with the arguments of the last.
            batch: gather the items of several starts for one run; its only argument is a list.
            connection: of psycopg, to the app's database: start it, queued, in the transaction that is open on it. It
                is committed or rolled back with that; `.start` only, and its handle is used after the commit.

        Raises:
            ValueError: an option has a value that it cannot have.
            TypeError: `connection` is no connection of psycopg.
        """
        return AsyncStartable(self.definition, options_of(options), self.receiver)

    def handle(self, id: str) -> Handle[R]:
        """A handle of the run with this id, whether or not it is there."""
        return Handle(current_app(), check_text(id, "id of a run"), self.definition.signature.result)


class BlockingWorkflow(BlockingStartable[P, R]):
    """A `def` workflow: call it, or `start` it."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: BlockingWorkflow[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> BlockingWorkflow[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The workflow as a method of an instance or a class."""
        return self.bound_to(instance, owner)

    def options(self, **options: Unpack[Options]) -> BlockingStartable[P, R]:
        """Return the workflow with options for its start; see `AsyncWorkflow.options`."""
        return BlockingStartable(self.definition, options_of(options), self.receiver)

    def handle(self, id: str) -> BlockingHandle[R]:
        """A handle of the run with this id, whether or not it is there."""
        return BlockingHandle(current_app(), check_text(id, "id of a run"), self.definition.signature.result)


class _WorkflowDecorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> BlockingWorkflow[P, R]: ...


@overload
def workflow(function: classmethod[Any, P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
@overload
def workflow(function: classmethod[Any, P, R], /) -> BlockingWorkflow[P, R]: ...
@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
@overload
def workflow(function: Callable[P, R], /) -> BlockingWorkflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, timeout: Duration | None = None, max_recoveries: int = 20
) -> _WorkflowDecorator: ...
def workflow(
    function: Any = None,  # a function, a classmethod or a staticmethod
    /,
    *,
    name: str | None = None,
    timeout: Duration | None = None,
    max_recoveries: int = 20,
) -> Any:
    """Make a function a workflow: durable, it goes on after crashes where its record ends.

    Its code must do the same whenever it is run with the same record: everything else, I/O, clocks and
    randomness, belongs into steps, or comes from `perdure.now()`, `perdure.random()` and `perdure.uuid4()`.

    Args:
        function: what is decorated.
        name: stored name; module and qualified name by default.
        timeout: seconds or `timedelta` from start to finish, for every run that does not say otherwise.
        max_recoveries: after so many crashes in a row without a newly recorded step the run is parked.

    Raises:
        DefinitionError: it is no plain function, or its name is taken.
    """

    def decorate(function: Any) -> Any:
        function, method = unwrapped(function, "@workflow")
        if max_recoveries < 0:
            raise DefinitionError("@workflow(max_recoveries=...) cannot be negative")
        seconds = None if timeout is None else seconds_of(timeout, "@workflow(timeout=...)")
        definition = WorkflowDefinition(
            name_of(function, name),
            function,
            Signature(function, skip=1 if method else 0),
            method=method,
            timeout=seconds,
            max_recoveries=max_recoveries,
        )
        register(definition)
        kind: Any = AsyncWorkflow if definition.colour else BlockingWorkflow
        return kind(definition, StartOptions())

    return decorate if function is None else decorate(function)
