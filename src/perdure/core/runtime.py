"""What a run needs of the worker that owns it: the only thing of the outside that `core` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from perdure.core.mailbox import Mailbox
from perdure.core.middleware import Middleware
from perdure.core.registry import WorkflowDefinition
from perdure.models import Status
from perdure.store.records import Ticket
from perdure.store.session import Session
from perdure.store.signal import Signal

if TYPE_CHECKING:
    from perdure.core.run import Run


class Runtime(Protocol):
    """What a run needs of the worker that owns it."""

    worker: int
    realm: str
    """Which database this is: keys of runs begin anew in each."""
    version: str | None
    """Version of the code, which runs that begin here get."""
    home_queue: str
    """Queue in which a run that began here without one waits when it has to."""
    exceptions: tuple[type[BaseException], ...]
    middleware: tuple[Middleware, ...]
    instances: Mapping[str, object]
    """Objects whose methods are workflows, by the names under which they are stored."""

    def alive(self) -> bool:
        """Whether the worker may still act as an owner, as far as it knows."""
        ...

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        """Queue a ticket in the journal, in the second lane if a stranger could block it."""
        ...

    def is_sized(self, queue: str | None) -> bool:
        """Whether a queue may refuse runs, being full."""
        ...

    def submit_many(self, tickets: list[Ticket]) -> None:
        """Queue tickets in the first lane."""
        ...

    def send(self, tickets: list[Ticket]) -> None:
        """The same for what an event loop has gathered in one of its turns; what is alone is sent at once."""
        ...

    def lend_hand(self, ticket: Ticket) -> None:
        """Write it in this thread, which would only wait for it, if nothing is being written."""
        ...

    def expect(self, key: int) -> None:
        """A run is being started here: it is ours, though not yet running."""
        ...

    def new_key(self) -> int:
        """A key for a new run."""
        ...

    def now(self) -> datetime:
        """The database's time, as far as known."""
        ...

    def timer(self, run: Run, position: str, seconds: float) -> Signal:
        """Settled once the wait at this position is over by the database's clock."""
        ...

    def stayed(self, run: Run) -> None:
        """The run was not put away, since something that it waits for has come: look for it."""
        ...

    def end_of(self, key: int) -> Signal:
        """Settled with (status, value) once that run has ended, or with a reason once it is parked."""
        ...

    def unwatch(self, key: int, signal: Signal) -> None:
        """Nobody waits for the end of that run with this signal any more."""
        ...

    def expect_mail(self, mailbox: Mailbox, topic: str) -> None:
        """Somebody waits for a message of this topic: look for it, as long as the mailbox wants it."""
        ...

    def event_of(self, key: int, name: str) -> Signal:
        """Settled with (failed, value) once that run has set the event, or how it ended if it never did."""
        ...

    def command(self, ticket: Ticket) -> None:
        """Queue a command on a durable object."""
        ...

    def find_entity(self, type: str, key: str) -> tuple[int, bytes | None]:
        """Version and state of a durable object; 0 and None of one that is not there."""
        ...

    def entity_after(self, type: str, key: str, version: int) -> Signal:
        """Settled with version and state once an object has changed since this version."""
        ...

    def unwatch_entity(self, type: str, key: str, version: int, signal: Signal) -> None:
        """Nobody waits for that change with this signal any more."""
        ...

    def rows_of(self, key: int, name: str, place: int) -> Signal:
        """Settled with rows of that run's stream from this place on; with none once it has ended."""
        ...

    def unwatch_rows(self, key: int, name: str, place: int, signal: Signal) -> None:
        """Nobody waits for those rows with this signal any more."""
        ...

    def last_event(self, key: int, name: str) -> Any:
        """That event, if it is set: whether it is an error, and its value."""
        ...

    def how_ended(self, key: int) -> Any:
        """How that run ended (status and value), or why it is parked; None if it goes on."""
        ...

    def unwatch_event(self, key: int, name: str, signal: Signal) -> None:
        """Nobody waits for that event with this signal any more."""
        ...

    def can_run(self, definition: WorkflowDefinition, version: str | None) -> bool:
        """Whether runs of it, of this version, may run in this process."""
        ...

    def launch(self, run: Run, ticket: Ticket) -> None:
        """Run a child here once its ticket is committed."""
        ...

    def execute(self, run: Run) -> None:
        """Run the code of a blocking run in this thread, to its end."""
        ...

    def request_cancel(self, key: int) -> None:
        """Cancel another run, without waiting."""
        ...

    def begun_waiting(self, run: Run, seconds: float | None = None) -> None:
        """The run has begun to wait, so many seconds if that is known; see later whether it can be put away."""
        ...

    def ended(self, run: Run, status: Status, value: bytes) -> None:
        """A run of this worker has ended, and its end is committed."""
        ...

    def let_go_of(self, key: int) -> None:
        """A run that was expected here is not to run here."""
        ...

    def let_go(self, run: Run) -> None:
        """A run is no longer in memory here: put away, parked, handed over or lost."""
        ...

    def in_thread(self, work: Callable[[], Any]) -> Signal:
        """Call something that blocks in a thread; the signal has its value or error."""
        ...

    def call_async(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call an `async def` function from a blocking one, on the app's loop, and return its result."""
        ...

    def blocked(self) -> AbstractContextManager[None]:
        """While this lasts the thread only waits, and its place is free for another."""
        ...

    def session(self, *, is_async: bool) -> Session:
        """A session for one attempt of a transaction step."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward, to measure how long something took."""
        ...

    def name_of_instance(self, instance: object) -> str:
        """The name under which an object is stored.

        Raises:
            DefinitionError: it has none.
        """
        ...

    def find(self, id: str) -> tuple[int, str] | None:
        """Key and workflow of a run by its id."""
        ...

    def was_sent(self, id: str, topic: str, key: str) -> bool:
        """Whether a run of this id was sent the message with this key."""
        ...

    def fenced(self) -> None:
        """This worker was found to be dead."""
        ...
