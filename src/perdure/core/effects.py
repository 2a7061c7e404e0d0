"""What an operation can ask of its driver. Besides these it may yield a `Signal`, to wait for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.core.body import Body
from perdure.core.gate import Call
from perdure.models import Info
from perdure.store.session import Use
from perdure.store.signal import Signal


@dataclass(slots=True, eq=False)
class Invoke:
    """Run the user's function outside of the run: a body knows the step, but is no workflow code."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_async: bool
    info: Callable[[], Info] | None = None
    body: Body | None = None
    timeout: float | None = None
    late: Signal | None = None
    """Settled when a thread that ran out of time has ended after all."""


@dataclass(slots=True, frozen=True)
class Pause:
    """Wait some seconds in memory; nothing durable is meant."""

    seconds: float


@dataclass(slots=True, frozen=True)
class Await:
    """Wait for a signal, at most so many seconds; answered with whether it came."""

    signal: Signal
    timeout: float | None


@dataclass(slots=True, frozen=True)
class AtGate:
    """Wait at the gate for the answer to a call; its body is run when the gate says so."""

    call: Call


@dataclass(slots=True, frozen=True)
class TakeGate:
    """Wait until a body may have the gate for itself; answered with the number of its group."""

    call: Call


@dataclass(slots=True, frozen=True)
class StopHere:
    """Tell the code to stop: `CancelledError` where it is, or `Cancelled`."""


@dataclass(slots=True, frozen=True)
class DurableWait:
    """Wait for a signal for as long as it takes; the run may be put away meanwhile."""

    signal: Signal


__all__ = ["AtGate", "Await", "DurableWait", "Invoke", "Pause", "StopHere", "TakeGate", "Use"]
