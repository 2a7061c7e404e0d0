"""`perdure worker` finds the app that it is told of, and says in one line why it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_tools import perdure, worker

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.postgres
def test_a_module_alone_means_its_only_app(database_url: str, tmp_path: Path) -> None:
    """Two names of one app, and a module in a package in the working folder, are no obstacle."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "orders.py").write_text("import perdure\napp = main = perdure.Perdure()\n")
    with worker("shop.orders", url=database_url, cwd=tmp_path) as process:
        process.wait_for("worker ready")
        process.wait_for("no workflow is known here")


@pytest.mark.postgres
def test_options_reach_an_app_that_leaves_them_open(database_url: str, tmp_path: Path) -> None:
    """`--database` and `--schema` beat the environment, and PERDURE_WORKER=0 is for the others."""
    (tmp_path / "shop.py").write_text("import perdure\napp = perdure.Perdure()\n")
    options = ("shop:app", "-d", database_url, "--schema", "Kassel")
    with worker(*options, url="postgresql://127.0.0.1:1/none", cwd=tmp_path, PERDURE_WORKER="0") as process:
        assert "schema=Kassel" in process.wait_for("worker ready")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere:app"], "there is no module 'nowhere' in "),
        (["cli_shop.orders:app"], "there is no module 'cli_shop.orders' in "),
        (
            ["cli_shop.py:app"],
            "'cli_shop.py' is a file: name the module, as in `perdure worker cli_shop:app`",
        ),
        (["cli_shop:shop"], "module 'cli_shop' has no 'shop'; it has cli_shop:app, cli_shop:blocking_app"),
        (["cli_shop:not_an_app"], "'cli_shop:not_an_app' is a str, not an app"),
        (["cli_shop:perdure.Perdure"], "'cli_shop:perdure.Perdure' is a class, Perdure, not an app"),
        (["cli_shop"], "module 'cli_shop' has several apps: say which of cli_shop:app, "),
        (["cli_tools"], "module 'cli_tools' has no app"),
        (["cli_shop:foreign_app", "-d", "postgresql:///x"], "names its database itself"),
        (["cli_shop:foreign_app", "--schema", "x"], "names its schema itself"),
        ([":app"], "names no module"),
        (["cli_shop:"], "names no app"),
    ],
)
def test_a_wrong_target_is_one_line(arguments: list[str], line: str) -> None:
    """It says what is wrong, and what there is instead; the exit code is 2."""
    ended = perdure("worker", *arguments, cwd=TESTS)
    assert ended.returncode == 2
    assert line in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.postgres
def test_a_client_is_refused(database_url: str) -> None:
    """An app declared with worker=False runs nothing, so a worker of it would wait for ever."""
    ended = perdure("worker", "cli_shop:client_app", url=database_url, cwd=TESTS)
    assert ended.returncode == 2
    assert "is declared with worker=False: it runs nothing" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.postgres
def test_an_app_that_is_open_already_is_refused(database_url: str, tmp_path: Path) -> None:
    """The worker opens it, in its own way, or not at all."""
    (tmp_path / "shop.py").write_text("import perdure\napp = perdure.sync.Perdure().open()\n")
    ended = perdure("worker", "shop", url=database_url, cwd=tmp_path)
    assert ended.returncode == 2
    assert "'shop' is open already" in ended.stderr


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import nowhere", "importing 'shop' failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("def wrong(:", "importing 'shop' failed: SyntaxError: invalid syntax"),
        ("1 / 0", "importing 'shop' failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "importing 'shop' ends the program"),
    ],
)
def test_an_error_of_the_users_module_is_shown_as_theirs(tmp_path: Path, source: str, line: str) -> None:
    """Their own lines are in the traceback, perdure's and importlib's are not; the exit code is 1."""
    (tmp_path / "shop.py").write_text(f"\n{source}\n")
    ended = perdure("worker", "shop:app", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"perdure: {line}")
    assert 'shop.py", line 2' in ended.stderr
    assert "loading.py" not in ended.stderr
    assert "importlib" not in ended.stderr


def test_a_setting_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    """A wrong environment variable is reported with its name, as the user's module meets it."""
    (tmp_path / "shop.py").write_text("import perdure\napp = perdure.Perdure()\n")
    ended = perdure("worker", "shop", cwd=tmp_path, PERDURE_LEASE="long")
    assert ended.returncode == 1
    assert "PERDURE_LEASE is 'long'" in ended.stderr.splitlines()[-1]


def test_a_database_that_lets_nobody_in_is_one_line_in_the_log(tmp_path: Path) -> None:
    """While the worker still tries, its log says why the database does not answer, without the password."""
    (tmp_path / "shop.py").write_text("import perdure\napp = perdure.Perdure()\n")
    with worker("shop", url="postgresql://me:geheim@127.0.0.1:1/x", cwd=tmp_path) as process:
        line = process.wait_for("the database does not answer")
    assert "WARNING" in line
    assert "geheim" not in line
