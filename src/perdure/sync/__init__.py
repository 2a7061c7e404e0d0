"""Everything of `perdure` for blocking code: the same names, without `await`."""

from perdure.app import BlockingPerdure as Perdure
from perdure.app import BlockingRuns as Runs
from perdure.client import BlockingHandle as Handle
from perdure.context import deprecate_patch, info, now, patched, random, saga, shield, uuid4
from perdure.sync.calls import run_step, start
from perdure.sync.change import continue_as_new
from perdure.sync.clock import sleep, sleep_until
from perdure.sync.concurrency import gather, map_steps, race, wait_any
from perdure.sync.entities import call, get, history, when
from perdure.sync.events import get_event, set_event
from perdure.sync.messages import Request, receive, send, send_many, updates
from perdure.sync.streams import close_stream, heartbeat, read_stream, write_stream
from perdure.sync.tags import set_tags

__all__ = [
    "Handle",
    "Perdure",
    "Request",
    "Runs",
    "call",
    "close_stream",
    "continue_as_new",
    "deprecate_patch",
    "gather",
    "get",
    "get_event",
    "heartbeat",
    "history",
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
    "updates",
    "uuid4",
    "wait_any",
    "when",
    "write_stream",
]
