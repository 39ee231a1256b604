"""The campaign with all its defaults, as canonical text: what the ledger stores and compares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from alloop.config.model import Campaign
from alloop.config.problems import Path, Problem, dotted, report
from alloop.config.quantities import WITH_UNITS
from alloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alloop.config.load import LoadedCampaign

IMMUTABLE: Final = (
    "campaign.name", "campaign.seed", "systems", "tiers.*.id", "tiers.*.method", "committee",
)  # fmt: skip
"""Keys on which finished work depends (``*`` is any id): they stay as they were at the start."""

ADJUSTABLE: Final = ("tiers.*.method.memory", "tiers.*.method.max_time")
"""Keys among them that no label depends on."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs between two configurations; None where one has no such key."""

    path: Path
    old: Any
    new: Any

    @property
    def immutable(self) -> bool:
        """Whether a running campaign cannot take this change; it can take another tier."""
        if self.old is None and len(self.path) == 2 and self.path[0] == "tiers":
            return False
        if len(self.path) == 4 and any(_matches(self.path, p.split(".")) for p in ADJUSTABLE):
            return False
        return any(_matches(self.path, pattern.split(".")) for pattern in IMMUTABLE)

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {_shown(self.old)} -> {_shown(self.new)}"


def resolved(config: Campaign) -> str:
    """Return the whole campaign as canonical JSON, which :func:`restore` reads back.

    Keys are sorted, every default is filled in, quantities carry their units.
    """
    data = config.model_dump(mode="json", by_alias=True, context=WITH_UNITS)
    return json.dumps(
        data, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def restore(text: str) -> Campaign:
    """Return the campaign that :func:`resolved` wrote."""
    return Campaign.model_validate_json(text)


def digest(text: str) -> str:
    """Return the sha256 of a resolved configuration: equal for files that mean the same."""
    return hashlib.sha256(text.encode()).hexdigest()


def diff(old: str, new: str) -> list[Change]:
    """Return what differs between two resolved configurations, in the order of their keys."""
    return list(_diff(json.loads(old), json.loads(new), ()))


def check_changes(old: str, loaded: LoadedCampaign) -> list[Change]:
    """Return what a file changes in a running campaign.

    ``old`` is the resolved configuration in the ledger. Raises ConfigError, with the place in the
    file, for every key that must stay as it was.
    """
    changes = diff(old, resolved(loaded.config))
    problems = [
        Problem(
            change.path,
            f"cannot change in a campaign that has begun (was {_shown(change.old)}, is"
            f" {_shown(change.new)}): set it back, or give another campaign.directory",
        )
        for change in changes
        if change.immutable
    ]
    problems += _moved_tiers(json.loads(old)["tiers"], loaded.config)
    if problems:
        raise ConfigError(report(str(loaded.path), problems, loaded.marks))
    return changes


def _moved_tiers(old: list[dict[str, Any]], config: Campaign) -> list[Problem]:
    """Return the first tier that is not where it was: a new one comes after all others."""
    before, after = [tier["id"] for tier in old], [tier.id for tier in config.tiers]
    if not set(before) <= set(after):  # the change itself says so
        return []
    for place, (one, other) in enumerate(zip(before, after, strict=False)):
        if one != other:
            what = (
                f"stands where {one} was (tier {place + 1} of {', '.join(before)}): tiers keep"
                " their order, and a new one comes last"
            )
            return [Problem(("tiers", other), what)]
    return []


def _diff(old: Any, new: Any, path: Path) -> Iterator[Change]:
    one, other = _keyed(old), _keyed(new)
    if one is None or other is None:
        if old != new:
            yield Change(path, old, new)
        return
    for key in dict.fromkeys([*one, *other]):
        if key not in one or key not in other:
            yield Change((*path, key), one.get(key), other.get(key))
        else:
            yield from _diff(one[key], other[key], (*path, key))


def _keyed(value: Any) -> dict[str, Any] | None:
    """Return a section, or a list of items with ids, by key; None for a value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(v, dict) and "id" in v for v in value):
        return {str(item["id"]): item for item in value}
    return None


def _matches(path: Path, pattern: list[str]) -> bool:
    """Say whether a change at ``path`` touches a place of the pattern."""
    return all(want in ("*", part) for part, want in zip(path, pattern, strict=False))


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
