"""Sagas: what undoes a block of workflow code, registered as it goes, and run newest first if the block fails."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, ParamSpec, Self

from perdure.client import where
from perdure.context.branch import branch_of
from perdure.core.branch import Branch, current
from perdure.core.drive import drive, drive_blocking
from perdure.core.registry import Compensation
from perdure.core.run import Run
from perdure.core.undo import called
from perdure.declare import AsyncStep, BlockingStep
from perdure.errors import Cancelled, WrongColour

P = ParamSpec("P")


class Saga:
    """What `saga()` gives: call it to register what undoes the last step."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._undo: list[Compensation] = []
        self._leaving = False

    def __call__(
        self, step: AsyncStep[P, Any] | BlockingStep[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Register a step, with its arguments, that undoes what was just done."""
        if not isinstance(step, AsyncStep | BlockingStep):
            raise TypeError(f"a saga takes a @step or a @transaction that undoes, not {step!r}")
        step.definition.signature.bind(args, kwargs)
        self._undo.append(Compensation(step.definition, step.received(args), kwargs))

    def all(self) -> Any:
        """Undo everything now, newest first: `await undo.all()`, or `undo.all()` in a blocking workflow.

        Raises:
            Exception: the first error of one that failed after all its attempts; all the others are undone.
        """
        return self._all_async() if self._run.definition.colour else self._all_blocking()

    async def _all_async(self) -> None:
        errors: list[Exception] = []
        stopped: asyncio.CancelledError | None = None
        while self._undo:
            try:
                await drive(called(_branch(), self._undo[-1]), self._run.runtime, self._run.host)
            except asyncio.CancelledError as error:
                if self._run.leaves_the_stack or not self._leaving:
                    raise  # by hand: the block is left by it, and goes on with this one
                stopped = error
                continue  # a branch that is no longer wanted undoes all the same; nobody knows whether this one is done
            except Exception as error:
                errors.append(error)
            self._undo.pop()
        if stopped is not None:
            raise stopped
        _raise_first(errors)

    def _all_blocking(self) -> None:
        errors: list[Exception] = []
        while self._undo:
            try:
                drive_blocking(called(_branch(), self._undo[-1]), self._run.runtime, self._run.host)
            except Exception as error:
                errors.append(error)
            self._undo.pop()  # not before: whoever is told to stop here goes on with it when the block is left
        _raise_first(errors)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if not self._undoes(kind):
            return
        self._leaving = True
        self._run.shields += 1  # a cancel that comes now does not interrupt it
        try:
            await self._all_async()
        except Exception as failed:
            _note(error, failed)
        finally:
            self._run.shields -= 1

    def __enter__(self) -> Self:
        if self._run.definition.colour:
            raise WrongColour(f"in an async workflow write `async with perdure.saga()` ({where()})")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if not self._undoes(kind):
            return
        self._run.shields += 1
        try:
            self._all_blocking()
        except Exception as failed:
            _note(error, failed)
        finally:
            self._run.shields -= 1

    def _undoes(self, kind: type[BaseException] | None) -> bool:
        """Whether the block was left by its own error or a cancel; not by a run that leaves the stack here."""
        return (
            kind is not None
            and issubclass(kind, Exception | asyncio.CancelledError | Cancelled)
            and not self._run.leaves_the_stack
        )


def saga() -> Saga:
    """Undo a block of workflow code if it is left by an exception, or a cancel.

    Within the block, `undo(cancel_flight, flight.id)` registers a step that undoes what was just done. Leaving by an
    exception runs them, newest first, each once remembered; leaving in order forgets them.

    Raises:
        NotInWorkflow: outside of a workflow's own code.

    Example:
        async with perdure.saga() as undo:
            flight = await book_flight(trip)
            undo(cancel_flight, flight.id)
            hotel = await book_hotel(trip)
            undo(cancel_hotel, hotel.id)
            await charge(trip)
    """
    return Saga(branch_of("perdure.saga").run)


def _branch() -> Branch:
    branch = current.get()
    assert branch is not None
    return branch


def _raise_first(errors: list[Exception]) -> None:
    if errors:
        raise errors[0]


def _note(error: BaseException | None, failed: Exception) -> None:
    if error is not None:
        error.add_note(f"not undone: {failed!r}")
