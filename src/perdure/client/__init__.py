"""Outside of a workflow: which app, what can be done with it, and handles of runs, in both colours."""

from perdure.client import managing as managing
from perdure.client import replaying as replaying
from perdure.client.blocking_handles import BlockingHandle
from perdure.client.colours import blocking, on_loop, where
from perdure.client.current import App, bound_app, check_process, current_app, open_apps
from perdure.client.handles import Handle, asked_handle, many_handles, started_handle
from perdure.client.operations import (
    Operation,
    call_to_start,
    check_tags,
    detail,
    new_id,
    options_of,
    read,
    result_of,
    result_payload,
    starting,
    wait_for_result,
)

__all__ = [
    "App",
    "BlockingHandle",
    "Handle",
    "Operation",
    "asked_handle",
    "blocking",
    "bound_app",
    "call_to_start",
    "check_process",
    "check_tags",
    "current_app",
    "detail",
    "many_handles",
    "new_id",
    "on_loop",
    "open_apps",
    "options_of",
    "read",
    "result_of",
    "result_payload",
    "started_handle",
    "starting",
    "wait_for_result",
    "where",
]
