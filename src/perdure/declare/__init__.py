"""The decorators, and what they make of a function: something that is called like it, and is durable.

Colour follows the function. The async-first overloads carry one ignore each: `Callable[P, R]` also matches an
`async def`, as a checker sees it, and the first overload wins.
"""

from perdure.declare.schedules import Schedule, scheduled
from perdure.declare.steps import AsyncConnection, AsyncStep, BlockingStep, Connection, step, transaction
from perdure.declare.workflows import (
    AsyncStartable,
    AsyncWorkflow,
    BlockingStartable,
    BlockingWorkflow,
    Startable,
    workflow,
)

__all__ = [
    "AsyncConnection",
    "AsyncStartable",
    "AsyncStep",
    "AsyncWorkflow",
    "BlockingStartable",
    "BlockingStep",
    "BlockingWorkflow",
    "Connection",
    "Schedule",
    "Startable",
    "scheduled",
    "step",
    "transaction",
    "workflow",
]
