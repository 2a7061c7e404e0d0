"""Rules: which names bring something into a workflow that is not in its record, and what to use instead.

Names are dotted and public, as the documentation of their libraries has them; a rule also holds for whatever
lies beneath its name, unless a longer name has a rule of its own or is excepted.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from perdure.lint.findings import Code
from perdure.lint.networks import NETWORKS


def _always(_call: ast.Call) -> bool:
    return True


def _bare(call: ast.Call) -> bool:
    """Whether it is called without arguments: with some, it is a plain function of them."""
    return not call.args and not call.keywords


def _given(call: ast.Call, position: int | None, name: str, harmless: object) -> bool:
    """Whether an argument is there, and is not the constant that does no harm."""
    values = [keyword.value for keyword in call.keywords if keyword.arg == name]
    if position is not None and len(call.args) > position:
        values.append(call.args[position])
    return any(not (isinstance(value, ast.Constant) and value.value == harmless) for value in values)


def _pauses(call: ast.Call) -> bool:
    return _given(call, 0, "delay", 0)


def _runs_out(call: ast.Call) -> bool:
    return any(_given(call, 0, name, None) for name in ("delay", "when"))


def _waits_for_a_time(call: ast.Call) -> bool:
    return _given(call, 1, "timeout", None)


def _has_timeout(call: ast.Call) -> bool:
    return _given(call, None, "timeout", None)


def _has_one_argument(call: ast.Call) -> bool:
    return len(call.args) == 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What is wrong with calling a name.

    Attributes:
        code: what kind of thing it is.
        text: what it does and what to use instead, to stand after the name; what differs with the workflow's
            colour is in braces (`WORDS`).
        applies: whether a call with these arguments does it.
        beneath: whether it also holds for what lies beneath the name.
    """

    code: Code
    text: str
    applies: Callable[[ast.Call], bool] = _always
    beneath: bool = True


WORDS: Final = {
    True: {"perdure": "perdure", "threads": "a `def` step, and call that by perdure.run_step"},
    False: {"perdure": "perdure.sync", "threads": "a step; perdure.sync.gather runs several at a time"},
}
"""What stands in the braces of a rule's text, by whether the workflow is `async def`."""

_CLOCK = "reads a clock, and a replay reads another time: use perdure.now()"
_RANDOM = "is drawn anew by every replay: use perdure.random()"
_UUID = "is drawn anew by every replay: use perdure.uuid4()"
_OUTSIDE = "reaches outside, and every replay does it again: put it into a step"
_SETTING = "may differ where the run goes on: read it in a step, or hand it over as an argument"
_FILES = "looks at or changes files, and every replay does it again: put it into a step"
_PAUSE = "pauses this process, and every replay pauses again: use {perdure}.sleep"
_THREAD = "runs code of which the record knows nothing: put it into {threads}"
_TIMEOUT = "is decided by the clock of this process: use perdure.timeout, or `timeout=` of what is awaited"
_FIRST = "is decided by the clock of this process: use perdure.timeout or perdure.race"
_TIMER = "is decided by the clock of this process: use a task that awaits perdure.sleep"
_LOOP = "runs a loop of which the record knows nothing: call steps by {perdure}.run_step"
_ADDRESS = "differs from process to process: use a value that is part of the payload"

CLOCK: Final = Rule("clock", _CLOCK)
RANDOM: Final = Rule("random", _RANDOM)
OUTSIDE: Final = Rule("io", _OUTSIDE)
SETTING: Final = Rule("io", _SETTING)
FILES: Final = Rule("io", _FILES)
THREAD: Final = Rule("thread", _THREAD)
AWAITS_OUTSIDE: Final = Rule("asyncio", _OUTSIDE)

_FILE_FUNCTIONS: Final = (
    "access chdir chmod chown close copy_file_range dup dup2 fdopen fstat fsync ftruncate getcwd lchown link listdir"
    " listxattr lstat makedirs mkdir mkfifo open openpty pipe pread pwrite read readlink remove removedirs rename"
    " renames replace rmdir scandir sendfile stat statvfs symlink sync truncate umask unlink utime walk fwalk write"
    " path.abspath path.exists path.expanduser path.getatime path.getctime path.getmtime path.getsize path.isdir"
    " path.isfile path.islink path.ismount path.lexists path.realpath path.samefile"
)
_PATH_METHODS: Final = (
    "absolute chmod copy copy_into cwd exists expanduser glob group hardlink_to home is_block_device is_char_device"
    " is_dir is_fifo is_file is_mount is_socket is_symlink iterdir lchmod lstat mkdir move move_into open owner"
    " read_bytes read_text readlink rename replace resolve rglob rmdir samefile stat symlink_to touch unlink walk"
    " write_bytes write_text"
)
_LOOPS: Final = ("asyncio.AbstractEventLoop", "asyncio.BaseEventLoop", "uvloop.Loop")


def _under(prefix: str, names: str, rule: Rule | None) -> dict[str, Rule | None]:
    return {f"{prefix}.{name}": rule for name in names.split()}


def _clocks() -> dict[str, Rule | None]:
    readings = (
        "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time"
        " thread_time_ns clock_gettime clock_gettime_ns"
    )
    return {
        **_under("time", readings, CLOCK),
        **_under("time", "localtime gmtime ctime asctime", Rule("clock", _CLOCK, _bare)),
        "time.strftime": Rule("clock", _CLOCK, _has_one_argument),
        "time.sleep": Rule("clock", _PAUSE),
        **_under("datetime.datetime", "now utcnow today", CLOCK),
        "datetime.date.today": CLOCK,
        **_under("django.utils.timezone", "now localdate localtime", Rule("clock", _CLOCK, _bare)),
        "django.utils.timezone.now": CLOCK,
        **_under("arrow", "now utcnow", CLOCK),
        **_under("pendulum", "now today tomorrow yesterday", CLOCK),
        **_under("pandas.Timestamp", "now today utcnow", CLOCK),
    }


def _chance() -> dict[str, Rule | None]:
    unseeded = Rule("random", _RANDOM, _bare, beneath=False)
    return {
        **dict.fromkeys(("random", "secrets", "os.urandom", "os.getrandom", "numpy.random"), RANDOM),
        "random.Random": unseeded,
        **_under(
            "numpy.random",
            "Generator MT19937 PCG64 Philox RandomState SFC64 SeedSequence default_rng",
            unseeded,
        ),
        "secrets.compare_digest": None,
        **_under("uuid", "uuid1 uuid4 uuid6 uuid7 uuid8", Rule("random", _UUID)),
        "uuid.getnode": SETTING,
        **_under("builtins", "id hash", Rule("hash", _ADDRESS)),
    }


def _outside() -> dict[str, Rule | None]:
    processes = (
        "abort execv execve execvp fork forkpty kill killpg popen posix_spawn spawnv system wait waitpid"
    )
    settings = "cpu_count getenv getenvb getloadavg getlogin getpid getppid getuid path.expandvars uname"
    return {
        **_under("builtins", "open input", OUTSIDE),
        **_under("io", "open open_code FileIO", OUTSIDE),
        **_under("os", _FILE_FUNCTIONS, FILES),
        **_under("os", processes, OUTSIDE),
        **_under("os", settings, SETTING),
        **_under("os", "putenv unsetenv", OUTSIDE),
        **_under("pathlib.Path", _PATH_METHODS, FILES),
        **dict.fromkeys(("shutil", "tempfile", "fileinput", "glob.glob", "glob.iglob"), FILES),
        **dict.fromkeys(("platform", "getpass"), SETTING),
        **dict.fromkeys(("subprocess", "socket", "select", "selectors"), OUTSIDE),
        **_under("subprocess", "list2cmdline CompletedProcess", None),
        **_under("socket", "htonl htons ntohl ntohs inet_aton inet_ntoa inet_ntop inet_pton", None),
        **{f"{package}.{name}": OUTSIDE for package, names in NETWORKS.items() for name in names.split()},
        "urllib.request": OUTSIDE,
        "urllib.request.Request": None,
    }


def _threads() -> dict[str, Rule | None]:
    packages = (
        "multiprocessing",
        "concurrent.futures",
        "threading.Thread",
        "threading.Timer",
        "threading.start_new_thread",
    )
    calls = (
        "asyncio.to_thread",
        "asyncio.run_coroutine_threadsafe",
        "anyio.to_thread.run_sync",
        "thread.start_new_thread",
    )
    return {
        **dict.fromkeys((*packages, *calls), THREAD),
        **{f"{loop}.run_in_executor": THREAD for loop in _LOOPS},
        "concurrent.futures.Future": None,
    }


def _loops() -> dict[str, Rule | None]:
    foreign = (
        "connect_accepted_socket connect_read_pipe connect_write_pipe create_connection create_datagram_endpoint"
        " create_server create_unix_connection create_unix_server getaddrinfo getnameinfo sendfile sock_accept"
        " sock_connect sock_recv sock_recvfrom sock_sendall sock_sendto subprocess_exec subprocess_shell"
        " add_reader add_writer start_tls"
    )
    streams = "open_connection open_unix_connection start_server start_unix_server create_subprocess_exec"
    found: dict[str, Rule | None] = {
        "asyncio.sleep": Rule("asyncio", _PAUSE, _pauses),
        **_under("asyncio", "timeout timeout_at", Rule("asyncio", _TIMEOUT, _runs_out)),
        "asyncio.wait_for": Rule("asyncio", _FIRST, _waits_for_a_time),
        **_under("asyncio", "wait as_completed", Rule("asyncio", _FIRST, _has_timeout)),
        **_under("asyncio", f"{streams} create_subprocess_shell", AWAITS_OUTSIDE),
        **_under("asyncio", "run Runner", Rule("asyncio", _LOOP)),
        "anyio.sleep": Rule("asyncio", _PAUSE, _pauses),
        **_under("anyio", "fail_after move_on_after", Rule("asyncio", _TIMEOUT, _runs_out)),
        **_under("anyio", "connect_tcp open_file open_process run_process", AWAITS_OUTSIDE),
        "anyio.run": Rule("asyncio", _LOOP),
    }
    for loop in _LOOPS:
        found |= _under(loop, "call_later call_at", Rule("asyncio", _TIMER))
        found |= _under(loop, "run_until_complete run_forever", Rule("asyncio", _LOOP))
        found |= _under(loop, foreign, AWAITS_OUTSIDE)
        found[f"{loop}.time"] = Rule("asyncio", _CLOCK)
    return found


_RULES: Final = {**_clocks(), **_chance(), **_outside(), **_threads(), **_loops()}

UNSAFE_ORDER: Final = (
    "makes tasks of bare coroutines, in an order that changes from replay to replay: hand it tasks, as in"
    " as_completed([asyncio.create_task(...), ...]), or use perdure.race"
)
"""What is wrong with `as_completed` of coroutines; whether they are is not to be seen from its name."""


def rule_of(names: Iterable[str]) -> tuple[str, Rule] | None:
    """Return the rule for what is known by these names, with the name that it is known by there."""
    for name in names:
        part = name
        while part:
            rule = _RULES.get(part)
            if rule is None and part in _RULES:
                return None
            if rule is not None and (rule.beneath or part == name):
                return name.removeprefix("builtins.").replace("random.Random.", "random."), rule
            part = part.rpartition(".")[0]
    return None
