"""The campaign file's format, for editors (JSON schema) and for people (a table of every key)."""

from __future__ import annotations

import json
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from alloop.config.anatomy import Key, all_keys, bare, section_of
from alloop.config.model import Campaign
from alloop.config.quantities import WITH_UNITS, Quantity

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from alloop.config.section import Section

BEGIN: Final = "<!-- generated: alloop.config.schema.refresh -->\n"
END: Final = "<!-- end of generated -->\n"
_PLAIN: Final = {int: "integer", float: "number", str: "text", bool: "true or false"}


def json_schema(root: type[Section] = Campaign, title: str = "alloop campaign") -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the campaign file, or of another kind of file."""
    schema = root.model_json_schema(by_alias=True)
    for key in all_keys(root):
        home = schema if key.section is root else schema["$defs"][key.section.__name__]
        entry = home["properties"][key.name]
        if "default" in entry:
            entry["default"] = _written(key.info)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    return schema


def markdown_table(root: type[Section] = Campaign) -> str:
    """Return a Markdown table of every key: what it holds, unit, default, meaning."""
    # One key can mean something else beside another engine: a row for each meaning.
    rows: dict[tuple[str, str | None], list[Key]] = {}
    for key in all_keys(root):
        rows.setdefault((key.path, key.info.description), []).append(key)
    lines = ["| key | holds | unit | default | meaning |", "|---|---|---|---|---|"]
    for (path, _), keys in rows.items():
        info = keys[0].info
        holds = ", ".join(dict.fromkeys(_holds(key.info) for key in keys))
        engines = dict.fromkeys(f"`{engine}`" for key in keys for engine in key.engines)
        chosen_by = keys[0].section.discriminator
        one_of_many = engines and keys[0].name != chosen_by and keys[0].section is not root
        only = f"{chosen_by.capitalize()} {', '.join(engines)}: " if one_of_many else ""
        cells = (f"`{path}`", holds, _unit(info), _default(info), f"{only}{info.description}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def refresh(page: Path, root: type[Section] = Campaign) -> bool:
    """Put the present table between the marks of a Markdown page; say whether it was out of date.

    Raises ValueError if the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    new = f"{text[:begin]}{markdown_table(root)}{text[end:]}"
    page.write_text(new, encoding="utf-8")
    return new != text


def _written(info: FieldInfo) -> Any:
    """Return a default as the file would write it: quantities with their units."""
    value, quantity = info.default, _quantity(info.annotation, info.metadata)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, context=WITH_UNITS)
    if isinstance(value, tuple):
        return [
            item.model_dump(mode="json", by_alias=True, context=WITH_UNITS)
            if isinstance(item, BaseModel)
            else quantity.show(item)
            if quantity
            else item
            for item in value
        ]
    if quantity is None or value is None or value is PydanticUndefined:
        return value
    return quantity.show(value)


def _quantity(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> Quantity | None:
    """Return the quantity that a type holds, alone, in a list or optionally."""
    own = [one for one in metadata if isinstance(one, Quantity)]
    if own:
        return own[0]
    if get_origin(annotation) is Annotated:
        return _quantity(get_args(annotation)[0], get_args(annotation)[1:])
    if get_origin(annotation) is Literal:
        return None
    found = (_quantity(one) for one in get_args(annotation))
    return next((quantity for quantity in found if quantity is not None), None)


def _unit(info: FieldInfo) -> str:
    quantity = _quantity(info.annotation, info.metadata)
    return ", ".join(f"`{unit}`" for unit in quantity.dimension.factors) if quantity else ""


def _holds(info: FieldInfo) -> str:
    quantity = _quantity(info.annotation, info.metadata)
    if quantity is None:
        return _kind(info.annotation)
    listed = get_origin(bare(info.annotation)) is tuple
    return f"{quantity.dimension.name} or a list of them" if listed else quantity.dimension.name


def _kind(annotation: Any) -> str:
    annotation = bare(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        kind = _kind(get_args(annotation)[0])
        return "list of sections" if kind == "section" else f"list of {kind}"
    if get_origin(annotation) is dict:
        return _kind_of_mapping(get_args(annotation)[1])
    if get_origin(annotation) in (Union, UnionType):
        kinds = (_kind(one) for one in get_args(annotation) if one is not type(None))
        return ", ".join(dict.fromkeys(kinds))
    return "section"


def _kind_of_mapping(value: Any) -> str:
    value = bare(value)
    if get_origin(value) is tuple:
        return f"{_kind(value)} by id"
    sections = [section_of(one) for one in (value, *get_args(value))]
    return "sections by id" if any(sections) else "any keys"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = _written(info)
    if value is PydanticUndefined or value == []:
        return "" if section_of(info.annotation) else "see meaning"
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"`[{', '.join(_flow(item) for item in value)}]`"
    return "" if isinstance(value, dict) else f"`{_flow(value)}`"


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    refresh(Path("docs/config.md"))
