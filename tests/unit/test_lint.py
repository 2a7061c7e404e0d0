"""The lint finds what is marked in the programs that it is tried on, nothing else, and says what to use instead."""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from perdure.core.registry import Definition, StepDefinition, WorkflowDefinition, workflows
from perdure.lint import Finding, findings_of
from perdure.lint.rules import rule_of
from perdure.lint.survey import DEEPEST
from tests import lint_callers, lint_programs

Check = Callable[..., list[Finding]]
MARK = re.compile(r"# finds: ([\w, ]+)")


def workflows_in(module: ModuleType) -> list[WorkflowDefinition]:
    return [found for found in workflows.values() if found.function.__module__ == module.__name__]


def marked(module: ModuleType) -> Counter[tuple[int, str]]:
    lines = enumerate(Path(str(module.__file__)).read_text("utf-8").splitlines(), 1)
    marks = ((number, MARK.search(line)) for number, line in lines)
    return Counter((number, code) for number, mark in marks if mark for code in mark[1].split(", "))


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    """Write a module, import it, and look at the workflows in it."""
    names: list[str] = []

    def run(text: str, *, file: str = "shop.py", name: str = "lint_shop") -> list[Finding]:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "import perdure\nfrom perdure import step, workflow\n" + textwrap.dedent(text), "utf-8"
        )
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        names.append(name)
        spec.loader.exec_module(module)
        return findings_of(workflows_in(module))

    yield run
    for name in names:
        for definition in workflows_in(sys.modules.pop(name)):
            del workflows[definition.name]


@pytest.mark.parametrize("module", [lint_programs, lint_callers], ids=lambda module: module.__name__)
def test_what_is_marked_is_found_and_nothing_else(module: ModuleType) -> None:
    """Each mark of a program is found where it stands, once, and there is no false alarm."""
    found = [one for one in findings_of(workflows_in(module)) if one.file == module.__file__]
    assert Counter((one.line, one.code) for one in found) == marked(module)


def test_each_kind_of_thing_is_tried() -> None:
    """No code but `source`, which has a test of its own, is without a mark."""
    codes = {code for module in (lint_programs, lint_callers) for _, code in marked(module)}
    assert codes == {"clock", "random", "io", "thread", "asyncio", "await", "order", "hash", "global"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("time.time()", "time.time reads a clock, and a replay reads another time: use perdure.now()"),
        ("time.sleep(1)", "time.sleep pauses this process, and every replay pauses again: use perdure.sleep"),
        ("random.choice('ab')", "random.choice is drawn anew by every replay: use perdure.random()"),
        ("uuid.uuid4()", "uuid.uuid4 is drawn anew by every replay: use perdure.uuid4()"),
        ("open('a')", "open reaches outside, and every replay does it again: put it into a step"),
        (
            "asyncio.timeout(1)",
            "asyncio.timeout is decided by the clock of this process: use perdure.timeout, ",
        ),
        (
            "asyncio.wait_for(1, 1)",
            "asyncio.wait_for is decided by the clock of this process: use perdure.timeout or",
        ),
        ("asyncio.to_thread(print)", "put it into a `def` step, and call that by perdure.run_step"),
        (
            "perdure.sleep(1)",
            "perdure.sleep(...) does nothing before it is awaited: write await perdure.sleep(...)",
        ),
    ],
)
def test_the_message_says_what_to_use(check: Check, line: str, message: str) -> None:
    """It names what was called as its library does, and what to use instead."""
    [found] = check(f"import asyncio, random, time, uuid\n@workflow\nasync def sell() -> None:\n    {line}\n")
    assert message in found.message
    assert (found.line, found.column, found.workflow) == (6, 5, "lint_shop.sell")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("time.sleep(1)", "use perdure.sync.sleep"),
        ("threading.Thread()", "put it into a step; perdure.sync.gather runs several at a time"),
    ],
)
def test_a_blocking_workflow_is_told_of_what_blocks(check: Check, line: str, message: str) -> None:
    """What to use has the colour of the workflow."""
    [found] = check(f"import threading, time\n@workflow\ndef sell() -> None:\n    {line}\n")
    assert message in found.message


def test_a_place_is_told_of_once(check: Check) -> None:
    """Of several workflows that reach it, the nearest is named."""
    [found] = check(
        """
        import time
        def stamp() -> float: return time.time()
        def deeper() -> float: return stamp()
        @workflow
        def far() -> float: return deeper()
        @workflow
        def near() -> float: return stamp()
        """
    )
    assert found.workflow == "lint_shop.near"


def test_columns_are_counted_in_characters(check: Check) -> None:
    """A letter that takes several bytes is one column."""
    [found] = check('import time\n@workflow\ndef sell() -> None:\n    "größer", time.time()\n')
    assert found.column == 15


def test_a_workflow_without_source_is_told_of() -> None:
    """What cannot be looked at does not pass as good."""
    space: dict[str, object] = {}
    exec("def sell() -> None: ...", space)
    function = space["sell"]
    assert callable(function)
    [found] = findings_of([WorkflowDefinition("sell", function, signature=None)])  # type: ignore[arg-type]
    assert (found.file, found.line, found.code) == ("<string>", 1, "source")


def test_changed_source_is_not_mistaken_for_another(check: Check, tmp_path: Path) -> None:
    """If another function stands where it stood, nothing is said of that."""
    check("@workflow\ndef sell() -> None: ...\n")
    [sell] = workflows_in(sys.modules["lint_shop"])
    (tmp_path / "shop.py").write_text("# a line more\n" + (tmp_path / "shop.py").read_text())
    [found] = findings_of([sell])
    assert found.code == "source"


@pytest.mark.parametrize(
    ("name", "codes"), [("lint_wares.shop", ["clock"]), ("lint_shop", [])], ids=["its own", "another's"]
)
def test_libraries_are_left_out_but_the_workflows_own(
    check: Check, monkeypatch: pytest.MonkeyPatch, name: str, codes: list[str]
) -> None:
    """What is installed is another's, unless it is the package in which the workflow lies."""
    check("import time\ndef stamp(): time.time()\n", file="site-packages/wares.py", name="lint_wares.stamps")
    source = "import sys\nstamps = sys.modules['lint_wares.stamps']\n@workflow\ndef sell(): stamps.stamp()\n"
    assert [found.code for found in check(source, name=name)] == codes


def test_nothing_of_the_users_is_run(check: Check) -> None:
    """Proxies that would go and get what they stand for, properties and lazy modules are not asked."""
    found = check(
        """
        import sys, types
        class Proxy:
            __slots__ = ()
            def __getattribute__(self, name): raise RuntimeError(name)
            def __eq__(self, other): raise RuntimeError
            __hash__ = None
        class Lazy(types.ModuleType):
            def __getattr__(self, name): raise RuntimeError(name)
        class Shop:
            @property
            def client(self): raise RuntimeError
        request, lazy, shop = Proxy(), Lazy("lazy"), Shop()
        @workflow
        async def sell(order: "Unknown[") -> None:
            request.user.name
            request(lazy.settings, request, key=request)
            request["a"], lazy.settings.debug()
            shop.client.get()
            for name in request:
                await name
            mine = request if lazy else request
            mine.get(), mine + lazy, order.get()
        """
    )
    assert found == []


def test_endless_programs_end(check: Check) -> None:
    """Names that are made of themselves, functions that call each other, and chains that double at each link."""
    links = "\n".join(f"    if x: a{number + 1} = a{number}.b(a{number})\n    else: a{number + 1} = a{number} - a{number}"
                      for number in range(60))  # fmt: skip
    chain = "x" + ".filter(x).order()" * 20
    found = check(
        f"def one(): two()\ndef two(): one()\none.__wrapped__ = one\n"
        f"@workflow\ndef sell(x, a0):\n    one()\n    x = x.y\n    y, z = z, y\n    {chain}\n{links}\n    a60.c()\n"
    )
    assert found == []


def test_what_is_too_deep_is_told_of(check: Check) -> None:
    """An expression that cannot be walked through does not end the check, and does not pass as good."""
    [found, other] = check(
        f"import time\n@workflow\ndef sell(x):\n    {'x' + '.a()' * 500}\n@workflow\ndef buy(): time.time()\n"
    )
    assert (found.line, found.code, other.code) == (4, "source", "clock")


def test_calls_are_followed_so_deep(check: Check) -> None:
    """Everything has a bound; what lies deeper is not found."""
    for deep in (DEEPEST, DEEPEST + 1):
        links = "\n".join(f"def f{number}(): f{number + 1}()" for number in range(1, deep))
        text = f"import time\n{links}\ndef f{deep}(): time.time()\n@workflow\ndef sell(): f1()\n"
        found = check(text, name=f"lint_shop_{deep}")
        assert len(found) == (deep == DEEPEST)


def test_steps_are_known_by_their_definition() -> None:
    """What the lint takes for a step is what the decorators make of one."""
    assert isinstance(lint_programs.look.definition, Definition)
    assert isinstance(lint_programs.measure.definition, StepDefinition)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("time.time", "clock"),
        ("httpx.AsyncClient.get", "io"),
        ("random.Random.choice", "random"),
        ("random.Random.__init__", "random"),
        ("os.path.join", None),
        ("httpx.Timeout", None),
        ("subprocess.list2cmdline", None),
        ("timeit.timeit", None),
        ("", None),
    ],
)
def test_the_longest_name_decides(name: str, code: str | None) -> None:
    """A rule holds for what lies beneath its name, unless a longer name says otherwise."""
    found = rule_of([name])
    assert (found[1].code if found else None) == code
