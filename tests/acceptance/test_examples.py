"""Every example does what it says, as a program of its own; the killed ones go on where they were.

They share a folder, and so an embedded server, as they do for a reader who tries one after the other.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.sync import Perdure
from tests.process_tools import ROOT, Process, Processes, processes

EXAMPLES = ROOT / "examples"
KEY_LINES = {
    "agent": ["browser: First I look at .* on Sunday.$"],
    "data_sync": [
        "^1,400 customers copied in 7 nights$",
        "^the books have all 1,400 customers where they live now$",
    ],
    "expense_approval": [
        "^to ada: a train ticket is approved by grace",
        "^to manager: bob still waits",
        "^to bob: a chair is rejected by grace",
        "^to carol: a lunch is rejected by the clock",
    ],
    "fan_out": ["^9,980 parcels, 1,027,937 g", "^scale 2 is broken: 6 parcels left out"],
    "flaky_service": [
        "^the daily report$",
        "^no secret report: there is none$",
        "^no yearly report within 1 s$",
    ],
    "human_in_the_loop": [
        "^editor: rejected, that would be 83 characters",
        "^published: We are happy to announce a concert.$",
    ],
    "money_transfer": ["^30 went from ada to bob$", "^refused: account carol", "^ada has 70, bob has 50"],
    "order_saga_blocking": [
        "^  done: parcel-one",
        "^  failed: no carrier",
        "^  cancelled",
        "^8 globes are left",
    ],
    "retention": [
        "^on the second 100 runs would go, all of them retention.poll_prices$",
        "^after 31 days 8 went: {'invoice': 5, 'order': 1, 'parcel': 1}$",
    ],
    "shipment_tracking": ["^customer: delivered in Oslo, by way of Lisbon, Paris, Oslo$"],
    "tenants": [
        "^443 documents are queued",
        "^never more than 4 at a time of one tenant, nor 6 of all; every document is billed once$",
    ],
    "subscription": ["January 2031: invoice 13", "^ada cancelled after 15 invoices: I have read everything"],
}
EVERY = sorted(path.stem for path in EXAMPLES.glob("*.py"))

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose server runs for as long as this module's tests, whatever is killed meanwhile."""
    place = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place):
        patch.delenv("PERDURE_DATABASE_URL", raising=False)
        with Perdure(worker=False):
            yield place


@pytest.fixture
def family() -> Iterator[Processes]:
    """Processes that do not outlive the test."""
    with processes() as several:
        yield several


def begin(family: Processes, name: str, folder: Path, database: str = "") -> Process:
    """Start an example in a folder, as its docstring says, or with a database of its own."""
    environment = {"PERDURE_DATABASE_URL": database} if database else {}
    return family.run([sys.executable, str(EXAMPLES / f"{name}.py")], folder=folder, environment=environment)


@pytest.mark.parametrize("name", EVERY)
def test_an_example_tells_its_story(name: str, folder: Path, family: Processes) -> None:
    """It ends with exit code 0, its own assertions hold, and the lines that matter are there."""
    process = begin(family, name, folder)
    assert process.wait() == 0, process.text()
    for line in KEY_LINES.get(name, []):
        process.wait_for(line)


def test_every_example_is_listed() -> None:
    """A file that is added to the folder is in its README."""
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    assert [name for name in EVERY if f"]({name}.py)" not in listed] == []


@pytest.mark.parametrize("line", ["^check the transfer of 30", "^put 50 back"])
def test_a_killed_transfer_moves_the_money_once(
    line: str, folder: Path, family: Processes, database_url: str
) -> None:
    """Killed between its halves, or while it is undone, it goes on there: nothing happens twice, nothing is lost."""
    killed = begin(family, "money_transfer", folder, database_url)
    last = killed.wait_for(line)
    killed.kill()
    again = begin(family, "money_transfer", folder, database_url)
    assert again.wait() == 0, again.text()
    again.wait_for("^ada has 70, bob has 50, carol has 0$")
    answered = {said for said in before(killed, last) if said.startswith(("withdraw", "check", "deposit"))}
    assert answered
    assert answered.isdisjoint(again.lines)


@pytest.mark.parametrize("line", ["^browser: First I look at the ... ", "^model is asked: rain"])
def test_a_killed_agent_asks_nothing_twice_that_was_answered(
    line: str, folder: Path, family: Processes, database_url: str
) -> None:
    """Killed while the model talks, it goes on with that call, and who reads along gets each word once."""
    killed = begin(family, "agent", folder, database_url)
    last = killed.wait_for(line)
    killed.kill()
    again = begin(family, "agent", folder, database_url)
    assert again.wait() == 0, again.text()
    again.wait_for(
        "^browser: First I look at the weather in Lisbon. It rains on Saturday: let me see what is open. "
        "See the tiles on Saturday, and go to the beach on Sunday.$"
    )
    assert set(calls(killed.lines)) | set(calls(again.lines)) == {
        "model is asked: What can I do in Lisbon?",
        "tool is used: weather in Lisbon",
        "model is asked: rain on Saturday, sun on Sunday",
        "tool is used: museums in Lisbon",
        "model is asked: the museum of tiles",
    }
    answered = calls([*before(killed, last), last])[:-1]
    assert set(answered).isdisjoint(again.lines)


def test_a_killed_sync_goes_on_with_its_page(folder: Path, family: Processes, database_url: str) -> None:
    """Killed while it copies: of each night only the page that it was at is read again, and none is written twice."""
    killed = begin(family, "data_sync", folder, database_url)
    killed.wait_for("^read", times=16)
    killed.kill()
    again = begin(family, "data_sync", folder, database_url)
    assert again.wait() == 0, again.text()
    again.wait_for("^0 nights had no run yet$")
    again.wait_for("^the books have all 1,400 customers where they live now$")
    nights: dict[str, list[str]] = {}
    for line in killed.lines:
        if line.startswith("read "):
            nights.setdefault(line.split()[1], []).append(line)
    # A page is read only after the one before it was written.
    written = {line for lines in nights.values() for line in set(lines) - {lines[-1]}}
    assert written
    assert written.isdisjoint(again.lines)


def test_a_copy_finishes_what_a_killed_one_was_rendering(
    folder: Path, family: Processes, database_url: str
) -> None:
    """Two copies share the queue, and one is killed: each document is billed once, and the last tenant does not starve."""
    killed = begin(family, "tenants", folder, database_url)
    killed.wait_for("documents are queued")
    other = begin(family, "tenants", folder, database_url)
    killed.kill()
    assert other.wait() == 0, other.text()
    other.wait_for("every document is billed once$")
    place = int(other.wait_for("^initech: 3 documents").split()[-3])
    assert place < 100


def before(process: Process, line: str) -> list[str]:
    """What a process had said before a line."""
    return process.lines[: process.lines.index(line)]


def calls(lines: list[str]) -> list[str]:
    """What an agent has asked for."""
    return [line for line in lines if line.startswith(("model is asked", "tool is used"))]
