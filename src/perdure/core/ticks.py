"""The start of a tick's run: as of any start, middleware is asked, and it gets a key of its own."""

from __future__ import annotations

from datetime import datetime

from perdure.core.middleware import context_of_start
from perdure.core.runtime import Runtime
from perdure.schedules import Plan, run_id
from perdure.store.ticks import TickStart


def tick_start(
    runtime: Runtime, plan: Plan, tick: datetime, ready: datetime, *, counts: bool = True
) -> TickStart:
    """Prepare the start of a tick's run.

    Args:
        runtime: who starts it.
        plan: of its schedule.
        tick: nominal time.
        ready: when it may begin.
        counts: whether the schedule's next ticks wait for it.
    """
    context = dict(context_of_start(runtime, plan.workflow, run_id(plan.name, tick)))
    return TickStart(plan, tick, ready, runtime.new_key(), context, counts)
