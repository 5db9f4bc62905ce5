from __future__ import annotations

import tomllib
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st

from harvest.settings.positions import Key, key_lines

if TYPE_CHECKING:
    from collections.abc import Iterator


def paths_of(values: Any, prefix: Key = ()) -> Iterator[Key]:
    """Every key that tomllib sees, those in arrays without an index."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*prefix, key)
            yield from paths_of(value, (*prefix, key))
    elif isinstance(values, list):
        for value in values:
            yield from paths_of(value, prefix)


def test_keys_of_tables_have_their_lines() -> None:
    document = dedent("""\
        top = 1
        # comment = 2

        [streams]  # [not.this]
        idle_s = 120  # trailing = 3
        ping_interval_s=20
          [ health ]
        interval_s = 25""")
    assert key_lines(document) == {
        ("top",): 1,
        ("streams",): 4,
        ("streams", "idle_s"): 5,
        ("streams", "ping_interval_s"): 6,
        ("health",): 7,
        ("health", "interval_s"): 8,
    }


def test_quoted_and_dotted_keys_are_unquoted_paths() -> None:
    document = dedent("""\
        "a b".'c.d'.e = 1
        ["x\\u0041\\"]"]
        '[' = 2
        1.5 = 3""")
    assert key_lines(document) == {
        ("a b",): 1,
        ("a b", "c.d"): 1,
        ("a b", "c.d", "e"): 1,
        ('xA"]',): 2,
        ('xA"]', "["): 3,
        ('xA"]', "1"): 4,
        ('xA"]', "1", "5"): 4,
    }


def test_what_looks_like_keys_inside_strings_and_arrays_is_none() -> None:
    document = dedent('''\
        text = """
        fake = 1
        [fake]
        \\""" still = 2 """""
        raw = \'\'\'
        fake = "
        \'\'\'\'
        list = [
          "x = 1", # ] y = 2
          [ 'z' ],
          1.5, 2026-11-22 07:32:00,
        ]
        last = "a # b"''')
    assert key_lines(document) == {("text",): 1, ("raw",): 5, ("list",): 8, ("last",): 13}


def test_keys_of_inline_tables_and_of_arrays_of_tables_are_found() -> None:
    document = dedent("""\
        streams = {idle_s = 3, "deep" = {x.y = [{z = 1}, {}], w = 2}}
        [[many]]
        one = [
          {two = 2},
          {three = {}, four = 4}]
        [[many]]
        five = 5""")
    assert key_lines(document) == {
        ("streams",): 1,
        ("streams", "idle_s"): 1,
        ("streams", "deep"): 1,
        ("streams", "deep", "x"): 1,
        ("streams", "deep", "x", "y"): 1,
        ("streams", "deep", "x", "y", "z"): 1,
        ("streams", "deep", "w"): 1,
        ("many",): 2,
        ("many", "one"): 3,
        ("many", "one", "two"): 4,
        ("many", "one", "three"): 5,
        ("many", "one", "four"): 5,
        ("many", "five"): 7,
    }


def test_windows_line_ends_count_once() -> None:
    assert key_lines('a = """\r\nx\r\n"""\r\nb = 2\r\n') == {("a",): 1, ("b",): 4}


def test_an_empty_document_has_no_keys() -> None:
    assert key_lines("") == {}


texts = st.text(st.characters(codec="utf-8"), max_size=8)
#: Text that is likely to end a string, a comment or a bracket too early.
tricky = st.text("=[]{}#,.'\"\\ \n\tax", max_size=10)
blanks = st.sampled_from(["", " ", "\t", "  "])
comments = st.sampled_from(["", "# plain", "# x = 1 ] } [", "# \"\"\" '''"])


def basic(text: str) -> str:
    escape = {char: f"\\U{ord(char):08x}" for char in text if not char.isprintable() or char in '"\\'}
    return '"' + "".join(escape.get(char, char) for char in text) + '"'


def literal(text: str) -> str:
    """Single quotes, or double ones where the text cannot stand in single ones."""
    return f"'{text}'" if text.isprintable() and "'" not in text else basic(text)


def bare(text: str) -> str:
    is_bare = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if is_bare else literal(text)


def over_lines(text: str, quote: str) -> str:
    """A string over several lines, with up to two quotes of its own at its end."""
    kept = "".join(char for char in text if char in "\n\t" or (char.isprintable() and char not in "\\'\""))
    return quote * 3 + kept + quote * (3 + len(text) % 3)


strings = st.one_of(
    st.builds(basic, texts | tricky),
    st.builds(literal, texts | tricky),
    st.builds(over_lines, texts | tricky, st.sampled_from("'\"")),
)
scalars = strings | st.sampled_from(
    ["1", "-1.5e3", "true", "inf", "1979-05-27 07:32:00", "07:32:00.9", "0xf"]
)


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    gaps = st.builds(lambda comment: f" {comment}\n" if comment else " ", comments)
    inner = "".join(f"{draw(gaps)}{item}{draw(gaps)}," for item in draw(st.lists(items, max_size=3)))
    return f"[{inner}{draw(gaps)}]"


@st.composite
def inline_tables(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(st.text("abc", min_size=1, max_size=3), max_size=3, unique=True))
    return "{" + ", ".join(f"{name} = {draw(items)}" for name in names) + "}"


values = st.recursive(scalars, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Key, int]]:
    """A document, and the line of each of its statements as its writer knows it."""
    document = ""
    expected: dict[Key, int] = {}
    table: Key = ()
    for number in range(draw(st.integers(0, 8))):
        # The number makes each key new, so that TOML never refuses it as given twice.
        names = tuple(f"{text}{number}" for text in draw(st.lists(texts | tricky, min_size=1, max_size=3)))
        dot = f"{draw(blanks)}.{draw(blanks)}"
        key = dot.join(draw(st.sampled_from([basic, literal, bare]))(name) for name in names)
        line = document.count("\n") + 1
        if draw(st.booleans()):
            table = names
            expected[table] = line
            statement = f"{draw(blanks)}[{draw(blanks)}{key}{draw(blanks)}]"
        else:
            expected[(*table, *names)] = line
            statement = f"{draw(blanks)}{key}{draw(blanks)}={draw(blanks)}{draw(values)}"
        gap = draw(st.sampled_from(["", "\n", "# later = 1\n"]))
        document += f"{statement} {draw(comments)}\n{gap}"
    return document, expected


@given(documents(), st.sampled_from(["\n", "\r\n"]))
def test_every_key_of_any_document_is_found_on_its_line(
    written: tuple[str, dict[Key, int]], line_end: str
) -> None:
    document, expected = written
    found = key_lines(document.replace("\n", line_end))
    assert {key: found.get(key) for key in expected} == expected
    assert set(found) == set(paths_of(tomllib.loads(document)))


@given(tricky)
@example("'''")
def test_a_scalar_of_any_text_hides_no_key(text: str) -> None:
    document = f"a = {basic(text)}\nb = {literal(text)}\nc = 1"
    assert key_lines(document) == {("a",): 1, ("b",): 2, ("c",): 3}
