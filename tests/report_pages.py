"""The report taken to pieces, ledgers changed on purpose, and what the verbs say of them."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alloop.cli.main import app
from alloop.report.html import write_report
from alloop_db.ledger import open_ledger

VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """A page in pieces; refuses tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        self.addresses += [
            given[name] for name in ("src", "href", "data", "srcset") if name in given
        ]
        assert not any(name.startswith("on") for name in given)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] == "caption":
            self.captions[-1] += data

    def table(self, *heads: str) -> list[dict[str, str]]:
        """Return the rows of the one table that has all of these columns."""
        (found,) = [rows for rows in self.tables if set(heads) <= set(rows[0])]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]

    def pictures(self) -> list[bytes]:
        start = "data:image/png;base64,"
        found = [a.removeprefix(start) for a in self.addresses if a.startswith(start)]
        return [base64.b64decode(data, validate=True) for data in found]


def number(text: str) -> float | None:
    return None if text == "–" else float(text)


def close(value: float | None):
    """Return what equals a number that was shown with four digits."""
    return value if value is None else pytest.approx(value, rel=5.1e-4)


OPEN = ("DROP TRIGGER IF EXISTS spacetime_model_update", ())
"""What lets a test write other 4D models into the sample."""
UNTESTED = (OPEN, ("UPDATE spacetime_model SET metrics = '{}'", ()))
"""4D models that no trajectory was left to test on."""


def change(directory: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    engine = open_ledger(directory, create=False)
    with engine.begin() as connection:
        for sql, values in statements:
            connection.exec_driver_sql(sql, values)
    engine.dispose()


def read(directory: Path) -> Page:
    return Page(write_report(directory).read_text(encoding="utf-8"))


def alloop_says(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])
