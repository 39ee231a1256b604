"""The file as YAML: what reads, what is refused, and where."""

from __future__ import annotations

import pytest

from alloop.config.document import parse
from alloop.config.problems import Mark, report


def complaints(text: str) -> list[str]:
    document = parse(text)
    return list(report("c.yaml", document.problems, document.marks))


def test_words_stay_words_and_numbers_are_numbers() -> None:
    document = parse(
        "no: yes\nNO: on\ndate: 2026-01-01\ntime: 12:30\na: 1e-3\nb: .5\nc: 010\nd: ~\ne: true"
    )
    assert document.data == {
        "no": "yes", "NO": "on", "date": "2026-01-01", "time": "12:30",
        "a": 0.001, "b": 0.5, "c": 10, "d": None, "e": True,
    }  # fmt: skip
    assert isinstance(document.data["c"], int)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e999"])
def test_what_is_not_finite_stays_a_word(text: str) -> None:
    assert parse(f"a: {text}").data == {"a": text}


def test_marks_are_lines_and_columns_from_one_and_items_go_by_id() -> None:
    document = parse("a:\n  b: 1\nlist:\n  - {id: x, k: 2}\n  - 5\n")
    assert document.marks == {
        (): Mark(1, 1),
        ("a",): Mark(1, 1),
        ("a", "b"): Mark(2, 3),
        ("list",): Mark(3, 1),
        ("list", "x"): Mark(4, 5),
        ("list", "x", "id"): Mark(4, 6),
        ("list", "x", "k"): Mark(4, 13),
        ("list", 1): Mark(5, 5),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a:\n\tb: 1", "c.yaml:2:1  a tab; YAML wants spaces here"),
        ("a: 1\nb: [1, 2\nc: 3", "c.yaml:3:2  the bracket opened on line 2 is not closed"),
        ("a:\n  b: 1\n c: 2", "c.yaml:3:2  the indentation does not match"),
        ("a: b: c", "c.yaml:1:5  a ':' does not belong here"),
        ("a: 1\nb: 'x", "c.yaml:2:6  the quote opened on line 2 is not closed"),
        ("a: 1\nrubbish\n", "c.yaml:3:1  this line is neither 'key: value' nor a list item"),
        ("a: @x", "c.yaml:1:4  found character '@' that cannot start any token: put the value in"),
        ("a: 1\n---\nb: 2", "c.yaml:2:1  a second document starts here"),
        ("a: &x 1\nb: *x", "c.yaml:1:4  anchors and aliases (& and *) are not supported"),
        ("a: *x", "c.yaml:1:4  anchors and aliases (& and *) are not supported"),
        ("a: 1\nb: 2\na: 3", "c.yaml:3:1  a: the key is here twice, first on line 1"),
        ("r:\n- id: x\n- id: x", "c.yaml:3:3  r.x: this id is used twice, first on line 2"),
        ("a: 1\n? [1]\n: 2", "c.yaml:2:3  a key must be a word"),
        ("a: b\x00c", "c.yaml:1:5  not a text file: it has the control character 0x00"),
        ("[" * 1000, "c.yaml:1:1  nested too deeply"),
        ("a: -\nb", "c.yaml:1:4  not valid YAML: "),
    ],
)  # fmt: skip
def test_faults_are_one_line_at_their_place(text: str, complaint: str) -> None:
    (line,) = complaints(text)
    assert line.startswith(complaint)
    assert "\n" not in line


def test_of_two_equal_keys_the_first_holds() -> None:
    assert parse("a: 1\na: 2").data == {"a": 1}


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.abort []", "!!python/name:os.abort ''", "!mine 1", "!!set {a}"],
)
def test_tags_are_refused_and_nothing_is_executed(tag: str) -> None:
    (line,) = complaints(f"a: {tag}")
    assert line.startswith("c.yaml:1:1  a: the tag ")


def test_an_anchor_bomb_costs_nothing() -> None:
    bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60))
    (line,) = complaints(f"a0: &a0 lol\n{bomb}")
    assert "anchors" in line


def test_keys_cannot_forge_lines_or_colours() -> None:
    (line,) = complaints('"a\\nb\\e[31m": 1\n"a\\nb\\e[31m": 2')
    assert line.isprintable()
    assert "a\\nb\\x1b[31m: the key is here twice" in line
