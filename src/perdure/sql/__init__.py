"""All the SQL of perdure, read from the files beside this module, for a schema of any name.

Statements live in `*.sql` files so that they read as prose, and are found by name: a section begins
with `-- name: claim_runs`, goes on with comment lines that say which transition it is and why it is
safe, and ends with the SQL. What several statements share is a fragment, a section that begins with
`-- fragment: run_filter`: `{run_filter}` in a statement is replaced by it. `{schema}` stands for the quoted schema, also inside a string, and
`{schema_literal}` for its bare name as a string. The schema is the user's text, so everything it could
break out of is closed here: in a string its quotes are doubled, comments are dropped (a line break in the
name would end one), `$$` becomes a tag that the name does not contain, and the name is put in last, in one
pass, so that it is never read as a token itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, LiteralString, NamedTuple, cast

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAX_IDENTIFIER_BYTES: Final = 63
"""Postgres cuts longer names silently, and two long schemas would become one."""

_SECTION: Final = re.compile(r"^--[ \t]*(name|fragment):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_MIGRATION: Final = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|\{schema\}|\{schema_literal\}|\$\$")
_INCLUDED: Final = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\{(\w*)\}""")
_PERCENT: Final = re.compile(r"%%|%")
# Strings come first, so that two dashes inside one are no comment.
_LEXEME: Final = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)


class Section(NamedTuple):
    """One named statement as it stands in its file: tokens in place, comments taken off.

    A fragment is a part of statements, and none itself.
    """

    name: str
    file: str
    sentence: str
    text: str
    fragment: bool = False


class Migration(NamedTuple):
    """One numbered change of the schema, ready to be sent as a script, without parameters."""

    number: int
    name: str
    sql: LiteralString


class Statements(Mapping[str, LiteralString]):
    """The named statements for one schema: `statements["claim_runs"]`.

    Each is in psycopg's form (`%(run)s` is a parameter, `%%` a percent sign) and must be executed with
    parameters, if only `()`: without any, psycopg leaves `%%` as it is. Use `plain` there.
    """

    __slots__ = ("_texts", "schema")

    def __init__(self, schema: str, texts: Mapping[str, LiteralString]) -> None:
        self.schema: Final = schema
        self._texts: Final = dict(texts)

    def __getitem__(self, name: str) -> LiteralString:
        return self._texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"<Statements schema={self.schema!r}: {len(self)}>"

    def plain(self, name: str) -> LiteralString:
        """Return the statement for a call without parameters (a script, or libpq itself).

        Raises:
            KeyError: there is no statement of this name.
            ValueError: the statement has parameters.
        """

        def single(match: re.Match[str]) -> str:
            if match[0] == "%":
                raise ValueError(f"the statement {name} has parameters: execute it with them")
            return "%"

        return _trusted(_PERCENT.sub(single, self._texts[name]))


@cache
def load(schema: str) -> Statements:
    """Return every named statement, with `schema` put in.

    Args:
        schema: the schema's name as the user wrote it, unquoted; any text that Postgres can hold.

    Raises:
        ValueError: the name is empty, longer than 63 bytes, or holds a NUL or a lone surrogate.
    """
    quote_identifier(schema)
    return Statements(schema, {section.name: fill(section.text, schema) for section in sections()})


def migrations(schema: str) -> list[Migration]:
    """Return the schema's changes in order, from `migrations/NNNN_name.sql`, with `schema` put in.

    Raises:
        ValueError: the schema's name cannot be used (see `load`).
    """
    return [Migration(number, name, fill(text, schema, percent="%")) for number, name, text in _scripts()]


def quote_identifier(name: str) -> str:
    """Return `name` as an SQL identifier in double quotes.

    Raises:
        ValueError: the name is empty, longer than 63 bytes, or holds a NUL or a lone surrogate.
    """
    if not name:
        raise ValueError("a schema needs a name")
    if "\0" in name:
        raise ValueError("the name of a schema cannot hold a NUL character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError("the name of a schema cannot hold a lone surrogate") from None
    if size > MAX_IDENTIFIER_BYTES:
        raise ValueError(f"the name of a schema can have {MAX_IDENTIFIER_BYTES} bytes, this one has {size}")
    return '"' + name.replace('"', '""') + '"'


@cache
def sections() -> tuple[Section, ...]:
    """Return every named statement of the package as its file has it, its fragments put in."""
    found = [
        section
        for file in sorted(_files(files(__name__)), key=lambda file: file.name)
        for section in parse(file.name, file.read_text("utf-8"))
    ]
    places: dict[str, str] = {}
    for section in found:
        if section.name in places:
            raise ValueError(f"{section.name} is in {places[section.name]} and again in {section.file}")
        places[section.name] = section.file
    return tuple(assemble(found))


def assemble(found: Iterable[Section]) -> list[Section]:
    """Return the statements among these sections, with the fragments that they name put in.

    Raises:
        ValueError: a statement names a fragment that is not there, a fragment names another, or no statement
            uses one.
    """
    every = list(found)
    fragments = {section.name: section.text for section in every if section.fragment}
    unused = set(fragments)

    def put(section: Section) -> Section:
        def one(match: re.Match[str]) -> str:
            name = match[1]
            if name is None or name in ("schema", "schema_literal"):
                return match[0]
            if name not in fragments or section.fragment:
                raise ValueError(
                    f"{section.file}: {section.name} has {{{name}}}, which stands for nothing there"
                )
            unused.discard(name)
            return fragments[name]

        return section._replace(text=_INCLUDED.sub(one, section.text))

    whole = [put(section) for section in every]
    if unused:
        raise ValueError(f"no statement uses the fragment {min(unused)}")
    return [section for section in whole if not section.fragment]


def parse(file: str, text: str) -> list[Section]:
    """Split the text of one file at its `-- name:` and `-- fragment:` lines; what stands above the first is a preface.

    Raises:
        ValueError: SQL without a name, or a name without a sentence or without SQL.
    """
    preface, *parts = _SECTION.split(text)
    if _strip_comments(preface):
        raise ValueError(f"{file}: there is SQL above the first `-- name:`")
    found: list[Section] = []
    for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        sentence, statement = _sentence(body), _strip_comments(body)
        if not _NAME.fullmatch(name) or name.startswith("schema"):
            raise ValueError(f"{file}: {name!r} is no name for a statement: use a-z, 0-9 and _")
        if not sentence or not statement:
            raise ValueError(f"{file}: {name} needs a comment that explains it, then its SQL")
        found.append(Section(name, file, sentence, statement, kind == "fragment"))
    return found


def fill(text: str, schema: str, *, percent: LiteralString = "%%") -> LiteralString:
    """Put the quoted `schema` into `text` in place of its tokens.

    Args:
        text: SQL without comments, in which `{schema}`, `{schema_literal}` and `$$` are replaced.
        schema: the schema's name, unquoted.
        percent: what becomes of a percent sign in the name: doubled where psycopg will look for
            parameters, which is the default, single where it will not.

    Raises:
        ValueError: the schema's name cannot be used (see `quote_identifier`).
    """
    identifier = quote_identifier(schema).replace("%", percent)
    bare = schema.replace("%", percent)
    tag = "$perdure$"
    while tag in schema:
        tag = tag[:-1] + "_$"

    def put(match: re.Match[str]) -> str:
        found = match[0]
        if found == "{schema}":
            return identifier
        if found == "$$":
            return tag
        if found == "{schema_literal}":
            return _string(bare.replace("'", "''"))
        if "{schema}" in found:
            return _string(found[1:-1].replace("{schema}", identifier.replace("'", "''")))
        return found

    return _trusted(_TOKEN.sub(put, text))


@cache
def _scripts() -> tuple[tuple[int, str, str], ...]:
    found: list[tuple[int, str, str]] = []
    for file in sorted(_files(files(__name__) / "migrations"), key=lambda file: file.name):
        match = _MIGRATION.fullmatch(file.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise ValueError(f"migrations/{file.name}: number {len(found) + 1:04} should come here")
        found.append((int(match[1]), match[2], _strip_comments(file.read_text("utf-8"))))
    return tuple(found)


def _files(folder: Traversable) -> list[Traversable]:
    return [file for file in folder.iterdir() if file.name.endswith(".sql")] if folder.is_dir() else []


def _sentence(body: str) -> str:
    lines: list[str] = []
    for line in body.strip().splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines).strip()


def _strip_comments(text: str) -> str:
    def keep(match: re.Match[str]) -> str:
        if match[0][0] == "'" and "{schema_literal}" not in match[0]:
            return match[0]
        if match[0][0] in "'\"":
            if "{schema" in match[0]:
                raise ValueError(f"the schema brings its own quotes: it cannot stand in {match[0]}")
            return match[0]
        return " "

    bare = _LEXEME.sub(keep, text)
    return "\n".join(line.rstrip() for line in bare.splitlines() if line.strip())


def _string(inner: str) -> str:
    if "\\" not in inner:
        return f"'{inner}'"
    # The escaping form means the same whatever standard_conforming_strings says.
    return " E'" + inner.replace("\\", "\\\\") + "'"


def _trusted(text: str) -> LiteralString:
    # The text is the package's own and the name in it is quoted, so the promise holds.
    return cast("LiteralString", text)  # type: ignore[redundant-cast]  # mypy takes LiteralString for str
