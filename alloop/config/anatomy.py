"""What keys a file has, read off its models: for hints, tables and places of errors.

The file is a campaign file unless another root section is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from alloop.config.model import Campaign
from alloop.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the format, such as ``explore.routes[].timestep`` or ``systems.<id>.charge``."""

    path: str
    info: FieldInfo
    section: type[Section]

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path.rpartition(".")[2]

    @property
    def home(self) -> str:
        """Where the key belongs."""
        return self.path.rpartition(".")[0] or "the top level"

    @property
    def engines(self) -> tuple[str, ...]:
        """The values of the discriminator beside which the key is known; empty: of all."""
        return tags(self.section)


def type_at(loc: Sequence[str | int], root: type[Section] = Campaign) -> Any:
    """Return the type that the model has at a place of pydantic's."""
    here: Any = root
    for part in loc:
        here = _step(here, part)
    return here


def _step(annotation: Any, part: str | int) -> Any:
    """Return the type one step further: a key, a list item or the tag of a union."""
    annotation = bare(annotation)
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) in (Union, UnionType):
        tagged = [one for one in get_args(annotation) if part in tags(one)]
        return tagged[0] if tagged else None
    section = section_of(annotation)
    if section is None or field_of(section, part) not in section.model_fields:
        return None
    return section.model_fields[field_of(section, part)].annotation


def bare(annotation: Any) -> Any:
    """Return a type without Annotated and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            rest = [one for one in get_args(annotation) if one is not type(None)]
            if len(rest) > 1:
                return annotation
            annotation = rest[0]
        else:
            return annotation


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a type is or optionally is; None for anything else."""
    section = bare(annotation)
    return section if isinstance(section, type) and issubclass(section, Section) else None


def tags(section: Any) -> tuple[Any, ...]:
    """Return the values of the discriminator that choose this section."""
    if not (isinstance(section, type) and issubclass(section, Section)):
        return ()
    engine = section.model_fields.get(section.discriminator)
    if engine is None or get_origin(engine.annotation) is not Literal:
        return ()
    return get_args(engine.annotation)


def field_of(section: type[Section], key: str | int) -> str:
    """Return the attribute that a key of the file is stored under."""
    for name, info in section.model_fields.items():
        if (info.alias or name) == key:
            return name
    return ""


def keys_of(annotation: Any) -> list[str]:
    """Return the keys of a section as the file writes them; none for anything else."""
    section = section_of(annotation)
    if section is None:
        return []
    return [info.alias or name for name, info in section.model_fields.items()]


def all_keys(root: type[Section] = Campaign) -> list[Key]:
    """Return every key of the format, a section before what is in it."""
    return list(_keys_below(root, ""))


def _keys_below(annotation: Any, path: str) -> Iterator[Key]:
    annotation = bare(annotation)
    if (section := section_of(annotation)) is not None:
        for name, info in section.model_fields.items():
            below = f"{path}.{info.alias or name}" if path else info.alias or name
            yield Key(below, info, section)
            yield from _keys_below(info.annotation, below)
    elif get_origin(annotation) is dict:
        yield from _keys_below(get_args(annotation)[1], f"{path}.<id>")
    elif get_origin(annotation) is tuple:
        yield from _keys_below(get_args(annotation)[0], f"{path}[]")
    elif get_origin(annotation) is not Literal:
        for one in get_args(annotation):
            yield from _keys_below(one, path)
