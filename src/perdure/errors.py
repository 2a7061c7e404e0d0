"""Every error that perdure raises, drawn as one tree.

    PerdureError
    ├── DefinitionError            a decorator or an app was given something that cannot work
    ├── WrongColour                a blocking call inside `async def` code, or the other way round
    ├── NoCurrentApp               no open app, or several, where one is needed
    ├── NotInWorkflow              a call that only means something inside a run
    ├── DatabaseUnavailable        the database cannot be reached, or stopped answering
    ├── SchemaMismatch             the schema is newer than this code, or not migrated
    ├── SerializationError         a value that cannot be written or read as its type
    │   └── PayloadTooLarge
    ├── WorkflowNotFound           no run has this id
    ├── WorkflowConflict           the id belongs to another workflow, or is taken
    ├── ScheduleNotFound           no schedule has this name
    ├── Deduplicated               another unfinished run of the queue has this dedup key
    ├── QueueFull
    ├── WaitTimeout                (TimeoutError) a wait with `timeout=` ended without an answer
    ├── StepFailed                 a step's own exception class could not be restored here
    ├── StepTimeout                (TimeoutError) a step's attempt took longer than its `timeout=`
    ├── TransactionBroken          a transaction step broke or ended its transaction
    ├── OutcomeUnknown             an `at_most_once` step was interrupted: done or not, nobody knows
    ├── NonDeterminismError        a replay met another step than the one recorded
    ├── RetryAfter                 raised by a step: try again, but not before so many seconds
    ├── DoNotRetry                 raised by a step: this failure is final
    └── RunEnded                   the run awaited ended otherwise than with a result
        ├── WorkflowFailed         its own exception class could not be restored here
        ├── WorkflowCancelled
        ├── WorkflowTimeout        (TimeoutError)
        ├── WorkflowExpired
        └── WorkflowParked         perdure gave up on it; somebody must look and resume it

    Cancelled (BaseException)      arrives in a blocking workflow whose run was cancelled

One root lets a caller catch all of them. `Cancelled` stands outside, as `asyncio.CancelledError` does,
so that an `except Exception` in user code does not swallow it.
"""

from __future__ import annotations


class PerdureError(Exception):
    """Catch this to catch every error that perdure itself raises."""


class DefinitionError(PerdureError):
    """A workflow, step or app is declared in a way that cannot work."""


class WrongColour(PerdureError):
    """A blocking operation was called in async code, or an async one in blocking code."""


class NoCurrentApp(PerdureError):
    """The call needs an app, and none or several are open in this process."""


class NotInWorkflow(PerdureError):
    """The call only means something inside a running workflow."""


class DatabaseUnavailable(PerdureError):
    """The database cannot be reached or stopped answering; nothing acknowledged is lost."""


class SchemaMismatch(PerdureError):
    """The schema in the database is newer than this code, or has not been migrated."""


class SerializationError(PerdureError):
    """A value cannot be written as JSON of its declared type, or cannot be read back as it."""


class PayloadTooLarge(SerializationError):
    """An encoded value is larger than the limit of the app."""


class WorkflowNotFound(PerdureError):
    """No run has this id."""


class WorkflowConflict(PerdureError):
    """The id is taken: by another workflow, or by a run that `on_conflict` does not attach to."""


class ScheduleNotFound(PerdureError):
    """No schedule has this name."""


class Deduplicated(PerdureError):
    """Another unfinished run of the same queue has the same `dedup` key."""


class QueueFull(PerdureError):
    """The queue has reached its size limit."""


class WaitTimeout(PerdureError, TimeoutError):
    """A wait with `timeout=` ended without an answer; what was waited for goes on."""


class StepFailed(PerdureError):
    """A step failed with an exception whose class is not known in this process.

    Attributes:
        type: module and qualified name of the original exception's class.
        message: its text.
        traceback: its traceback as text, or an empty string.
    """

    def __init__(self, message: str = "", *, type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type, self.message, self.traceback = type, message, traceback


class StepTimeout(PerdureError, TimeoutError):
    """One attempt of a step took longer than its `timeout=`."""


class TransactionBroken(PerdureError):
    """A transaction step's function left its transaction in a state that perdure cannot commit."""


class OutcomeUnknown(PerdureError):
    """An `at_most_once` step was interrupted by a crash: whether it took effect is not known."""


class NonDeterminismError(PerdureError):
    """A replay met another step than the one recorded.

    The text says which step was expected, which came, where, and what to do.
    """


class RetryAfter(PerdureError):
    """Raise this in a step to have the next attempt made no sooner than in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class DoNotRetry(PerdureError):
    """Raise this in a step (`raise DoNotRetry(...) from error`) to make the failure final."""


class RunEnded(PerdureError):
    """The run that was awaited ended, or stopped, without a result."""


class WorkflowFailed(RunEnded):
    """A run failed with an exception whose class is not known in this process.

    Attributes:
        type: module and qualified name of the original exception's class.
        message: its text.
        traceback: its traceback as text, or an empty string.
    """

    def __init__(self, message: str = "", *, type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type, self.message, self.traceback = type, message, traceback


class WorkflowCancelled(RunEnded):
    """The run that was awaited was cancelled."""


class WorkflowTimeout(RunEnded, TimeoutError):
    """The run did not finish within its `timeout=`."""


class WorkflowExpired(RunEnded):
    """The run had not begun before its `expires=` passed."""


class WorkflowParked(RunEnded):
    """perdure gave up on the run; its text is the reason. `resume` it once that is mended."""


class Cancelled(BaseException):
    """Arrives at the next durable call of a blocking workflow whose run was cancelled."""
