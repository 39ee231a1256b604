"""Pydantic's errors in the words of the file: what is wrong, and what would be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from alloop.config.anatomy import Key, all_keys, field_of, keys_of, section_of, type_at
from alloop.config.model import Campaign
from alloop.config.problems import did_you_mean
from alloop.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails


def explain(found: ErrorDetails, root: type[Section] = Campaign) -> str:
    """Return what one of pydantic's errors means for the writer of the file."""
    if found["type"] in _WORDS_OF_KEYS:
        return _WORDS_OF_KEYS[found["type"]](found, root)
    word = _WORDS.get(found["type"])
    return word(found) if word else found["msg"]


def _unknown(found: ErrorDetails, root: type[Section]) -> str:
    *around, key = found["loc"]
    known = keys_of(type_at(around, root))
    homes = [_home(one) for one in all_keys(root) if one.name == key]
    if homes:
        return f"unknown key here; '{key}' belongs to {' or '.join(dict.fromkeys(homes))}"
    hint = did_you_mean(str(key), known)
    return f"unknown key{hint}" if hint else f"unknown key; known here: {', '.join(known)}"


def _home(key: Key) -> str:
    """Return where a key belongs, and beside which kind of section if there are several."""
    section = key.section
    if section.discriminator == Section.discriminator or not key.engines:
        return key.home
    return f"{key.home} of {section.discriminator} {', '.join(map(str, key.engines))}"


def _missing(found: ErrorDetails, root: type[Section]) -> str:
    *around, key = found["loc"]
    section = section_of(type_at(around, root))
    text = section.model_fields[field_of(section, key)].description if section else None
    return f"this key is required: {text}" if text else "this key is required"


def _untagged(found: ErrorDetails, root: type[Section]) -> str:
    tag = str(found["ctx"]["discriminator"]).strip("'")
    meaning = next(one.info.description for one in all_keys(root) if one.name == tag)
    what = f"this key is required: {meaning}"
    near = [key for key in found["input"] if did_you_mean(str(key), [tag])]
    return f"{what} Is '{near[0]}' meant to be it?" if near else what


def _choice(found: ErrorDetails) -> str:
    expected = str(found["ctx"].get("expected") or found["ctx"].get("expected_tags"))
    known = re.findall(r"'([^']*)'", expected) or [expected]
    given = found["ctx"].get("tag", found["input"])
    hint = did_you_mean(given, known) if isinstance(given, str) else ""
    return f"{given!r} is not one of {', '.join(known)}{hint}"


def _type(wanted: str) -> Callable[[ErrorDetails], str]:
    def say(found: ErrorDetails) -> str:
        given = found["input"]
        if given is None:
            return f"empty: want {wanted} here, or leave the key out"
        return f"want {wanted}, got {_shown(given)}"

    return say


def _bound(relation: str, key: str) -> Callable[[ErrorDetails], str]:
    return lambda found: f"must be {relation} {found['ctx'][key]:g}, got {_shown(found['input'])}"


def _shown(given: Any) -> str:
    match given:
        case dict():
            return "a section with keys"
        case list() | tuple():
            return "a list"
        case bool():
            return str(given).lower()
    text = repr(given)
    return text if len(text) < 60 else f"{text[:56]}..."


_PATTERNS: Final = (
    (":", "want package.module:Class"),
    (r"\s", "may hold no white space, quotes, or other characters that a shell takes apart"),
    ("9_]*", "may hold letters, digits and '_' only, and not begin with a digit"),
    ("", "may hold letters, digits, '_' and '-' only, and begin with a letter"),
)


def _pattern(found: ErrorDetails) -> str:
    words = next(words for sign, words in _PATTERNS if sign in found["ctx"]["pattern"])
    return f"{_shown(found['input'])}: {words}"


_WORDS_OF_KEYS: Final[dict[str, Callable[[ErrorDetails, type[Section]], str]]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "union_tag_not_found": _untagged,
}
_WORDS: Final[dict[str, Callable[[ErrorDetails], str]]] = {
    "literal_error": _choice,
    "union_tag_invalid": _choice,
    "int_type": _type("an integer"),
    "int_from_float": _type("an integer"),
    "float_type": _type("a number"),
    "finite_number": _type("a finite number"),
    "bool_type": _type("true or false"),
    "string_type": _type("text"),
    "model_type": _type("a section with keys"),
    "model_attributes_type": _type("a section with keys"),
    "dict_type": _type("a section with keys"),
    "tuple_type": _type("a list"),
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "too_short": lambda _: "must not be empty",
    "string_too_short": lambda _: "must not be empty",
    "string_too_long": _bound("at most this many characters:", "max_length"),
    "string_pattern_mismatch": _pattern,
}
