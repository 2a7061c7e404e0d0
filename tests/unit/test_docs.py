"""The documents hold, and the check that says so finds what is wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tools import check_docs

ROOT = Path(__file__).resolve().parents[2]


def problems(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "src" / "perdure").mkdir(parents=True)
    (tmp_path / "src" / "perdure" / "__init__.py").write_text('__all__ = ["workflow", "sleep"]\n')
    (tmp_path / "other.md").write_text("# A `first` Heading!\n\n## Twice\n\n## Twice\n")
    (tmp_path / "README.md").write_text(textwrap.dedent(text))
    return check_docs.check(tmp_path / "README.md", tmp_path)


@pytest.mark.parametrize("path", check_docs.documents(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_document_holds(path: Path) -> None:
    """Every Python block compiles, every name exists, every relative link leads somewhere."""
    assert check_docs.check(path, ROOT) == []


def test_good_code_and_links_pass(tmp_path: Path) -> None:
    """Top-level await, indented blocks, other languages, anchors and other sites are no problems."""
    text = """
    [a](other.md) [b](other.md#a-first-heading) [c](other.md#twice-1) [d](https://example.org/x#y)

    ```python
    import perdure
    await perdure.sleep(1)
    ```

    1. `[not a link](nowhere)`

       ```py
       from perdure import workflow
       ```

    ```sh
    this is not ( python
    ```
    """
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nx = (\n```", "README.md:2: does not compile"),
        ("\n- a\n\n  ```python\n  x = 1\n  y = = 2\n  ```", "README.md:6: does not compile"),
        ("```python\nimport perdure\nperdure.slep(1)\n```", "README.md:3: perdure has no slep"),
        ("```python\nfrom perdure import worklfow\n```", "README.md:2: perdure has no worklfow"),
        ("[a](gone.md)", "README.md:1: gone.md does not exist"),
        ("\n\n![a](gone.png)", "README.md:3: gone.png does not exist"),
        ("[a]\n\n[a]: gone.md", "README.md:3: gone.md does not exist"),
        ("[a](other.md#second)", "README.md:1: other.md#second: no such heading"),
        ("[a](#nothing)", "README.md:1: #nothing: no such heading"),
        ("[a](../outside.md)", "README.md:1: ../outside.md leads out of the project"),
        ("```python\nx = 1\n", "README.md:2: a fenced block that is never closed"),
    ],
)
def test_a_fault_is_found_where_it_stands(tmp_path: Path, text: str, problem: str) -> None:
    """Each kind of fault is reported once, with its line."""
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(problem)
