"""YAML text as plain data plus the line and column of every key.

Only what JSON knows is read (YAML 1.2 core schema: ``no`` is a word, ``1e-3`` a number): tags,
anchors and several documents are refused, so nothing in a file is executed or expanded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from alloop.config.problems import Mark, Path, Problem

_TAG: Final = "tag:yaml.org,2002:"
_FLAWS: Final = (
    ("cannot start any token", "'\\t'", "a tab; YAML wants spaces here"),
    ("cannot start any token", "", "{problem}: put the value in quotes"),
    ("mapping values are not allowed", "", "a ':' does not belong here: is this line indented too"
     " far, is a ':' missing on the line before, or does a value with a ':' lack its quotes?"),
    ("could not find expected ':'", "", "this line is neither 'key: value' nor a list item: is a"
     " ':' missing?"),
    ("expected ',' or", "", "the bracket opened on line {opened} is not closed, or a comma is"
     " missing"),
    ("expected <block end>", "", "the indentation does not match the lines above"),
    ("while scanning a quoted scalar", "", "the quote opened on line {opened} is not closed"),
    ("anchors and aliases", "", "{problem}"),
    ("expected a single document", "", "a second document starts here; one file is one campaign"),
)  # fmt: skip


@dataclass(slots=True)
class Document:
    """A campaign file as read.

    Attributes
    ----------
    data : dict, list, str, int, float, bool and None.
    marks : line and column of each key and list item, by path (list items by id).
    problems : what the file does that a campaign file must not.

    """

    data: Any = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 core schema; anchors are refused, because each may stand for a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # missing in the stubs
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (& and *) are not supported: write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}  # none of the rules of YAML 1.1
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]{1,300}", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
     [*"-+0123456789."]),
):  # fmt: skip
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


def parse(text: str) -> Document:
    """Read YAML text; never raises, faults are in ``problems`` with their marks."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = _mark(error.problem_mark or error.context_mark)
        document.problems.append(Problem((), _explain(error), mark=mark))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        what = f"not a text file: it has the control character {ord(text[error.position]):#04x}"
        document.problems.append(Problem((), what, mark=mark))
    except RecursionError:
        document.problems.append(Problem((), "nested too deeply for a campaign file"))
    else:
        if node is not None:
            document.data = _build(node, (), document)
    return document


def _build(node: yaml.Node, path: Path, document: Document) -> Any:
    document.marks.setdefault(path, _mark(node.start_mark))
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _build_mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return _build_list(node, path, document)
    if isinstance(node, yaml.ScalarNode):
        try:
            return _scalar(node.tag.removeprefix(_TAG), node.value)
        except ValueError:
            pass
    document.problems.append(
        Problem(path, f"the tag {node.tag.replace(_TAG, '!!')!r} is not allowed: plain values only")
    )
    return None


def _build_mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = _mark(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(path, "a key must be a word", mark=mark))
            continue
        where = (*path, str(key_node.value))
        if where in document.marks:
            what = f"the key is here twice, first on line {document.marks[where].line}"
            document.problems.append(Problem(where, what, mark=mark))
            continue
        document.marks[where] = mark
        mapping[str(key_node.value)] = _build(value_node, where, document)
    return mapping


def _build_list(node: yaml.SequenceNode, path: Path, document: Document) -> list[Any]:
    items = []
    for number, item in enumerate(node.value):
        where = (*path, _item_id(item, number))
        if where in document.marks:
            what = f"this id is used twice, first on line {document.marks[where].line}"
            document.problems.append(Problem(where, what, mark=_mark(item.start_mark)))
            where = (*path, number)
        items.append(_build(item, where, document))
    return items


def _item_id(node: yaml.Node, number: int) -> str | int:
    """Return the id of a list item, or its place in the list if it has none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "id" and value.tag == _TAG + "str" and value.value:
                return str(value.value)
    return number


def _scalar(tag: str, text: str) -> str | int | float | bool | None:
    """Return the value of a scalar; raise ValueError for a tag that is none of JSON's."""
    match tag:
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text) if math.isfinite(float(text)) else text
    raise ValueError(tag)


def _explain(error: yaml.MarkedYAMLError) -> str:
    """Return one line in plain words for a YAML syntax error."""
    problem, context = error.problem or "", error.context or ""
    opened = error.context_mark.line + 1 if error.context_mark else 0
    for sign, detail, words in _FLAWS:
        if sign in f"{context} {problem}" and detail in problem:
            return words.format(problem=problem, opened=opened)
    return f"not valid YAML: {problem or context}"


def _mark(mark: yaml.Mark | None) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
