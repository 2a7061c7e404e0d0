"""The SQL loader: names, sections, and schemas of any name.

That a hostile name is quoted rightly is decided by reading the text back as Postgres would: what stands
between the quotes must be the name again, whole, and nothing of it may stand outside them.
"""

from __future__ import annotations

import re

import pytest

from perdure import sql

HOSTILE = [
    "perdure",
    'we"ird; drop schema public cascade; --',
    "it's",
    "100%",
    "%s",
    "%(run)s",
    "a$$b",
    "$perdure$",
    "$perdure_$ $perdure$",
    "line\nbreak",
    "back\\slash",
    "{schema}",
    "{schema_literal}",
    "-- name: other",
    "/* open",
    "naïve 数据 🐘",
    " ",
]


@pytest.mark.parametrize("schema", HOSTILE)
def test_an_identifier_reads_back_as_the_name(schema: str) -> None:
    """A schema of any name, quoted, is one identifier that means that name."""
    quoted = sql.quote_identifier(schema)
    assert re.fullmatch(r'"(?:[^"]|"")+"', quoted)
    assert quoted[1:-1].replace('""', '"') == schema


@pytest.mark.parametrize("schema", HOSTILE)
def test_a_filled_script_holds_the_name_as_identifier_and_as_string(schema: str) -> None:
    """Both tokens become the name, quoted, and the rest of the text stays as it was."""
    filled = sql.fill("select {schema}.f({schema_literal}) where 1 = 1", schema, percent="%")
    match = re.fullmatch(r"select (\".*\")\.f\((?:'(.*)'| E'(.*)')\) where 1 = 1", filled, re.DOTALL)
    assert match is not None
    assert match[1] == sql.quote_identifier(schema)
    string = match[2] if match[2] is not None else match[3].replace("\\\\", "\\")
    assert string.replace("''", "'") == schema


@pytest.mark.parametrize("schema", HOSTILE)
def test_the_name_cannot_close_a_function_body(schema: str) -> None:
    """The tag around a body stands in the text twice, and not in the name."""
    filled = sql.fill("as $$ begin perform {schema}.f(); end $$ language plpgsql", schema, percent="%")
    tag = filled.split()[1]
    assert re.fullmatch(r"\$[a-z_]*\$", tag)
    assert filled.count(tag) == 2
    assert filled.endswith(f"end {tag} language plpgsql")


def test_a_percent_sign_in_the_name_is_doubled_for_parameters_only() -> None:
    """`%` in a schema is no placeholder in a statement, and is left alone in a script."""
    assert sql.fill("select {schema}.f(%(run)s)", "a%s") == 'select "a%%s".f(%(run)s)'
    assert sql.fill("select {schema}.f()", "a%s", percent="%") == 'select "a%s".f()'


def test_plain_undoes_the_doubling() -> None:
    """A statement without parameters can be had for a call without any."""
    statements = sql.Statements("100%", {"peek": 'select "100%%".f(), 7 %% 2'})
    assert statements.plain("peek") == 'select "100%".f(), 7 % 2'


def test_plain_refuses_a_statement_with_parameters() -> None:
    """Sent without parameters, a placeholder would be a syntax error on the server."""
    statements = sql.Statements("a", {"claim": "select %(run)s"})
    with pytest.raises(ValueError, match="claim has parameters"):
        statements.plain("claim")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("", "needs a name"),
        ("a\0b", "NUL"),
        ("x" * 64, "63 bytes"),
        ("ü" * 32, "64"),
        ("\ud800", "surrogate"),
    ],
)
def test_a_name_that_postgres_cannot_hold_is_refused(schema: str, reason: str) -> None:
    """Empty, cut off, or unsendable names raise ValueError and say why."""
    with pytest.raises(ValueError, match=reason):
        sql.load(schema)


def test_the_longest_name_is_taken() -> None:
    """63 bytes fit, quotes and doubling do not count."""
    assert sql.quote_identifier('"' * 63) == '"' * 128


def test_sections_are_split_named_and_explained() -> None:
    """A file gives its statements by name, with the sentence, without comments."""
    first, second = sql.parse(
        "runs.sql",
        "-- Preface.\n"
        "-- name: claim_runs\n-- Takes runs.\n-- Safe: skip locked.\n"
        "select '-- kept' /* gone */ from {schema}.runs -- it's 100%\nwhere true\n\n"
        "--name:end_run\n-- Ends it.\ndelete from {schema}.runs",
    )
    assert (first.name, first.file) == ("claim_runs", "runs.sql")
    assert first.sentence == "Takes runs. Safe: skip locked."
    assert first.text == "select '-- kept'   from {schema}.runs\nwhere true"
    assert (second.name, second.sentence) == ("end_run", "Ends it.")
    assert second.text == "delete from {schema}.runs"


def test_a_fragment_is_put_into_the_statements_that_name_it() -> None:
    """Once written, in each of them; strings and quoted names are left alone, and it is no statement."""
    found = sql.parse(
        "runs.sql",
        "-- fragment: of_run\n-- Whose.\nrun = %(run)s and {schema}.f()\n"
        "-- name: count\n-- Counts.\nselect count(*) from a where {of_run} and b <> '{of_run}{}'\n"
        '-- name: list\n-- Lists.\nselect "{of_run}" from a where ({of_run})\n',
    )
    assert [(section.name, section.text) for section in sql.assemble(found)] == [
        ("count", "select count(*) from a where run = %(run)s and {schema}.f() and b <> '{of_run}{}'"),
        ("list", 'select "{of_run}" from a where (run = %(run)s and {schema}.f())'),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-- name: a\n-- S.\nselect {missing}", "a has {missing}"),
        ("-- name: a\n-- S.\nselect {}", "a has {}"),
        ("-- name: b\n-- S.\nselect 1\n-- name: a\n-- S.\nselect {b}", "a has {b}"),
        ("-- fragment: b\n-- S.\n1\n-- name: a\n-- S.\nselect 1", "no statement uses the fragment b"),
        ("-- fragment: b\n-- S.\n1\n-- fragment: c\n-- S.\n{b}\n-- name: a\n-- S.\nselect {c}", "c has {b}"),
        ("-- fragment: schema\n-- S.\n1", "no name"),
        ("-- fragment: b\n1", "needs a comment"),
    ],
)
def test_a_fragment_that_breaks_the_form_is_refused(text: str, reason: str) -> None:
    """Unknown ones, statements in place of them, unused ones, and fragments in fragments."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        sql.assemble(sql.parse("bad.sql", text))


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "-- name: lonely\nselect 1",
        "-- name: hollow\n-- Says much, does nothing.",
        "-- name: Bad-Name\n-- Sentence.\nselect 1",
        "-- name:\n-- Sentence.\nselect 1",
    ],
)
def test_a_file_that_breaks_the_form_is_refused(text: str) -> None:
    """SQL without a name, a name without a sentence or SQL, and odd names raise ValueError."""
    with pytest.raises(ValueError, match=r"bad\.sql"):
        sql.parse("bad.sql", text)


@pytest.mark.parametrize("schema", HOSTILE)
def test_a_schema_inside_a_string_reads_back(schema: str) -> None:
    """`'{schema}.runs'`, as a sequence's or table's name, is one string with the quoted name in it."""
    filled = sql.fill("nextval('{schema}.keys') + 1", schema, percent="%")
    match = re.fullmatch(r"nextval\((?:'((?:[^'\\]|'')*)'| E'((?:[^'\\]|''|\\\\)*)')\) \+ 1", filled)
    assert match is not None
    string = match[1] if match[1] is not None else match[2].replace("\\\\", "\\")
    assert string.replace("''", "'") == sql.quote_identifier(schema) + ".keys"


@pytest.mark.parametrize("quoted", ['"{schema}"', '"a {schema_literal}"', "'it''s {schema_literal}'"])
def test_a_token_inside_further_quotes_is_refused(quoted: str) -> None:
    """A name that is quoted twice would mean another one, or leave its quotes."""
    with pytest.raises(ValueError, match="brings its own quotes"):
        sql.parse("bad.sql", f"-- name: bad\n-- Sentence.\nselect {quoted}")


def test_every_file_of_the_package_loads_for_a_hostile_schema() -> None:
    """No statement and no migration keeps a token, and the name is in them only quoted."""
    schema = 'we"ird %s; drop'
    texts = [*sql.load(schema).values(), *(migration.sql for migration in sql.migrations(schema))]
    for text in texts:
        assert "{schema" not in text
        rest = re.sub(r'"we""ird %%?s; drop"|\'we"ird %%?s; drop\'', "", text)
        assert "; drop" not in rest


def test_no_file_uses_a_tagged_body() -> None:
    """`$$` is made safe against the schema's name; a tag written by hand would not be."""
    texts = [section.text for section in sql.sections()]
    texts += [migration.sql.replace("$perdure$", "$$") for migration in sql.migrations("perdure")]
    assert [tag for text in texts for tag in re.findall(r"\$[A-Za-z_]\w*\$", text)] == []


def test_a_schema_is_loaded_once() -> None:
    """Two apps on one schema share the texts."""
    assert sql.load("twice") is sql.load("twice")


def test_a_missing_statement_is_a_key_error() -> None:
    """A wrong name fails at once, not on the server."""
    with pytest.raises(KeyError):
        sql.load("perdure")["no_such_statement"]
