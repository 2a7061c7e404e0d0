"""`perdure export`, `load` and `replay`: out of one database, into another, and the gate before a deploy."""

from __future__ import annotations

import json
from pathlib import Path

from perdure import sync
from tests.api_tools import until
from tests.cli_tools import perdure
from tests.servers import TestServer

OLD = """
import perdure

app = perdure.sync.Perdure()

@perdure.step
def add(number: int) -> int:
    return number + 1

@perdure.workflow
def order(number: int) -> int:
    number = add(number)
    return perdure.sync.receive("paid", type=int) + number
"""
NEW = OLD.replace("number = add(number)", "perdure.sync.sleep(1)")


def shop(folder: Path, code: str) -> None:
    (folder / "shop.py").write_text(code)


def work(folder: Path, url: str) -> str:
    """Run one order until it waits, by the code that is in the folder."""
    with sync.Perdure(url) as app:
        handle = app.start("shop.order", [1], id="o-1")
        worker = perdure_worker(folder, url)
        try:
            until(lambda: handle.status() == "waiting")
        finally:
            worker.terminate()
            worker.wait(30)
    return "o-1"


def perdure_worker(folder: Path, url: str):  # type: ignore[no-untyped-def]
    import subprocess
    import sys

    from tests.cli_tools import environment

    return subprocess.Popen(
        [sys.executable, "-m", "perdure", "worker", "shop:app"],
        cwd=folder,
        env=environment(url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_the_gate_is_green_for_the_old_code_and_red_for_the_new(database_url: str, tmp_path: Path) -> None:
    shop(tmp_path, OLD)
    work(tmp_path, database_url)
    good = perdure("replay", "shop:app", url=database_url, cwd=tmp_path)
    assert (good.returncode, good.stdout.split("\t")[:2]) == (0, ["ok", "o-1"]), good.stderr
    assert "replayed: 1; agree: 1; do not: 0" in good.stderr
    shop(tmp_path, NEW)
    bad = perdure("replay", "shop:app", "-o", "json", url=database_url, cwd=tmp_path)
    assert bad.returncode == 1
    (found,) = json.loads(bad.stdout)
    assert (found["id"], found["agrees"]) == ("o-1", False)
    assert "position 1" in found["text"]
    assert perdure("replay", "shop", "--id", "o-1", url=database_url, cwd=tmp_path).returncode == 1
    assert perdure("replay", "shop", "-s", "failed", url=database_url, cwd=tmp_path).returncode == 0
    assert perdure("replay", "nowhere", url=database_url, cwd=tmp_path).returncode == 2


def test_out_of_one_database_and_into_another(server: TestServer, database_url: str, tmp_path: Path) -> None:
    shop(tmp_path, OLD)
    work(tmp_path, database_url)
    other = server.create_database()
    sync.Perdure(other, worker=False).open().close()
    written = perdure("export", "o-1", url=database_url)
    file = tmp_path / "o-1.json"
    file.write_text(written.stdout)
    assert perdure("replay", "shop:app", str(file), cwd=tmp_path).returncode == 0
    loaded = perdure("load", str(file), "--reason", "to look at", url=other)
    assert (loaded.returncode, loaded.stdout) == (0, "o-1\n")
    again = perdure("load", str(file), url=other)
    assert (again.returncode, "o-1" in again.stderr) == (4, True)
    assert perdure("load", str(file), "--prefix", "x-", url=other).stdout == "x-o-1\n"
    assert perdure("export", "nobody", url=other).returncode == 3
    file.write_text("{}")
    assert perdure("load", str(file), url=other).returncode == 2
    assert perdure("replay", "shop:app", str(file), cwd=tmp_path).returncode == 2
    with sync.Perdure(other, worker=False) as app:
        assert app.handle("o-1").status() == "parked"
