"""What code can say while it runs. The async half, and what has no colour; `sync` has the other half."""

from perdure.context.calls import run_step, start
from perdure.context.change import continue_as_new, deprecate_patch, patched
from perdure.context.clock import info, now, random, sleep, sleep_until, uuid4
from perdure.context.concurrency import Winner, map_steps, race, shield, timeout, wait_any
from perdure.context.events import get_event, set_event
from perdure.context.messages import Request, receive, send, send_many, updates
from perdure.context.streams import close_stream, heartbeat, read_stream, write_stream
from perdure.context.tags import set_tags
from perdure.context.undoing import Saga, saga

__all__ = [
    "Request",
    "Saga",
    "Winner",
    "close_stream",
    "continue_as_new",
    "deprecate_patch",
    "get_event",
    "heartbeat",
    "info",
    "map_steps",
    "now",
    "patched",
    "race",
    "random",
    "read_stream",
    "receive",
    "run_step",
    "saga",
    "send",
    "send_many",
    "set_event",
    "set_tags",
    "shield",
    "sleep",
    "sleep_until",
    "start",
    "timeout",
    "updates",
    "uuid4",
    "wait_any",
    "write_stream",
]
