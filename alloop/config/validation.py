"""Pydantic's findings in the words of the campaign file, and what is sound in a file with faults.

A file with one wrong key must still hear about its impossible multiplicity in the same run. So
faulty values are cut out until the rest is a valid campaign; the checks that need a whole campaign
run on that rest, and those of their findings that touch a cut are dropped.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from alloop.config.model import Campaign
from alloop.config.problems import Path, Problem, did_you_mean
from alloop.config.section import Section
from alloop.config.wording import explain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_STAND_IN: Final[dict[str, Any]] = {
    "schema": 1,
    "campaign": {"name": "unnamed"},
    "systems": {"unnamed": {"structure": "unnamed"}},
    "tiers": [{"id": "unnamed", "method": {"engine": "tblite"}}],
}

Root = TypeVar("Root", bound=Section)


def validate(data: Any) -> tuple[Campaign | None, list[Problem], list[Path]]:
    """Return a campaign (of what is sound, if not all is), the problems, and what was cut out."""
    return validate_as(Campaign, data, _STAND_IN)


def validate_as(
    root: type[Root], data: Any, stand_in: dict[str, Any]
) -> tuple[Root | None, list[Problem], list[Path]]:
    """Do the same for another kind of file; ``stand_in`` holds its required sections."""
    try:
        return root.model_validate(data), [], []
    except ValidationError as error:
        problems = [_translate(found, data, root) for found in _errors(error)]
    if not isinstance(data, dict):
        return None, problems, [()]
    rest = copy.deepcopy(data)
    cuts: list[Path] = []
    for key, value in stand_in.items():
        if key not in rest:
            cuts.append((key,))
            rest[key] = value
    return _prune(root, rest, cuts, stand_in), problems, cuts


def _prune(
    root: type[Root], rest: dict[str, Any], cuts: list[Path], stand_in: dict[str, Any]
) -> Root | None:
    """Cut faulty values out of ``rest`` until it is valid; give up when nothing can be cut."""
    while True:
        try:
            return root.model_validate(rest)
        except ValidationError as error:
            places = {_place(found, rest) for found in _errors(error)}
        before = len(cuts)
        # Last places first: removing an item of a list must not move those still to be removed.
        for place in sorted(places, key=_order, reverse=True):
            cut = place
            while cut and not _remove(rest, cut, stand_in):
                cut = cut[:-1]
            if cut:
                cuts.append(cut)
        if len(cuts) == before:
            return None


def _order(path: Path) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]


def _remove(data: dict[str, Any], path: Path, stand_in: dict[str, Any]) -> bool:
    """Remove the value at ``path``; a required section is replaced by a stand-in."""
    holder = _follow(data, path[:-1])
    if len(path) == 1 and path[0] in stand_in:
        data[str(path[0])] = copy.deepcopy(stand_in[str(path[0])])
        return True
    if isinstance(holder, dict) and path[-1] in holder:
        del holder[path[-1]]
        return True
    if isinstance(holder, list) and (number := _number(holder, path[-1])) is not None:
        del holder[number]
        return True
    return False


def _errors(error: ValidationError) -> list[ErrorDetails]:
    """Return the errors, without those that only follow from another one."""
    return [
        found
        for found in error.errors(include_url=False)
        if found["type"] != "default_factory_not_called"
        and not (found["type"] == "too_short" and found["input"])  # all its items are faulty
    ]


def _translate(found: ErrorDetails, data: Any, root: type[Section]) -> Problem:
    return Problem(_place(found, data), explain(found, root))


def _place(found: ErrorDetails, data: Any) -> Path:
    """Return where in the file an error is: pydantic's own steps (union tags) are left out."""
    path: Path = ()
    here = data
    loc = [part for part in found["loc"] if part != "[key]"]
    for place, part in enumerate(loc):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
            path = (*path, _id_of(here, part))
        elif isinstance(here, dict) and part in here:
            here = here[part]
            path = (*path, part)
        elif isinstance(here, dict) and place == len(loc) - 1:
            path = (*path, part)
    if found["type"].startswith("union_tag"):
        path = (*path, str(found["ctx"]["discriminator"]).strip("'"))
    return path


def _id_of(item: Any, number: int) -> str | int:
    name = item.get("id") if isinstance(item, dict) else None
    return name if isinstance(name, str) and name else number


def _number(items: list[Any], part: str | int) -> int | None:
    """Return the index of the list item with this id or number."""
    for number, item in enumerate(items):
        if _id_of(item, number) == part:
            return number
    return None


def _follow(data: Any, path: Path) -> Any:
    """Return the value at a path; None if there is none."""
    for part in path:
        if isinstance(data, list):
            number = _number(data, part)
            data = None if number is None else data[number]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def unknown_references(data: Any) -> list[Problem]:
    """Return the routes that name a system that is not there; needs no valid campaign."""
    systems = _follow(data, ("systems",))
    routes = _follow(data, ("explore", "routes"))
    if not isinstance(systems, dict) or not isinstance(routes, list):
        return []
    problems = []
    for number, route in enumerate(routes):
        named = route.get("systems") if isinstance(route, dict) else None
        for place, name in enumerate(named if isinstance(named, list) else ()):
            if isinstance(name, str) and name not in systems:
                path = ("explore", "routes", _id_of(route, number), "systems", place)
                hint = did_you_mean(name, systems) or f"; known here: {', '.join(systems)}"
                problems.append(Problem(path, f"no system is called {name!r}{hint}"))
    return problems
