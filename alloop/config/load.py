"""Read a campaign file: everything that is wrong with it at once, or a campaign that can run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alloop.config import problems as at
from alloop.config.checks import Whole, check, warn
from alloop.config.document import Document, parse
from alloop.config.problems import Mark, Problem
from alloop.config.structures import Geometry, from_smiles, read_structure
from alloop.config.validation import unknown_references, validate
from alloop.errors import ConfigError, StructureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alloop.config.model import Campaign
    from alloop.frames import Frame

MAX_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCampaign:
    """A campaign that can run.

    Attributes
    ----------
    config : the validated file, quantities in internal units.
    path : the file; relative paths in it start from its folder.
    text : its text as read.
    structures : geometry of each system, by id, with its charge and multiplicity.
    warnings : what is allowed but perhaps not meant, one line each.
    marks : line and column of each key, for messages about this file.

    """

    config: Campaign
    path: Path
    text: str
    structures: dict[str, Frame]
    warnings: tuple[str, ...]
    marks: dict[at.Path, Mark]

    @property
    def folder(self) -> Path:
        """Folder of the file, from which its relative paths start."""
        return self.path.parent

    @property
    def directory(self) -> Path:
        """Folder of the ledger and all files of the campaign."""
        # Not resolve(): a link in the path is the user's choice and stays.
        return Path(os.path.normpath(self.folder / self.config.campaign.directory))


def load(path: Path, overrides: Mapping[str, object] | None = None) -> LoadedCampaign:
    """Read a campaign file.

    ``overrides`` maps dotted keys (``explore.routes.warm.replicas``, ids for list items) to values
    that replace those of the file; a text value is read as YAML.

    Raises
    ------
    ConfigError
        With every problem, one line each: ``file:line:column  key: what is wrong``.

    """
    return load_text(read_text(path), path, overrides)


def load_text(
    text: str, path: Path, overrides: Mapping[str, object] | None = None
) -> LoadedCampaign:
    """Read campaign text as if it were the file ``path``; raises as :func:`load`."""
    document = parse(text)
    problems = document.problems
    if document.data is None and not problems:
        raise ConfigError(
            (f"{path}:1:1  the file is empty: 'alloop init' writes one to begin with",)
        )
    if not isinstance(document.data, dict):
        what = "want 'key: value' lines: 'alloop init' writes a file to begin with"
        raise ConfigError(at.report(str(path), problems or [Problem((), what)], document.marks))
    for key, value in (overrides or {}).items():
        problems += _override(document, key, value)
    campaign, faults, cuts = validate(document.data)
    problems += faults + unknown_references(document.data)
    folder = path.absolute().parent
    geometries: dict[str, Geometry] = {}
    if campaign is not None:
        geometries, unread = _read_geometries(campaign, folder)
        whole = Whole(campaign, geometries, folder)
        found = [*unread, *check(whole)]
        problems += [one for one in found if not any(one.concerns(cut) for cut in cuts)]
    if problems or campaign is None:
        raise ConfigError(at.report(str(path), problems, document.marks))
    return LoadedCampaign(
        config=campaign,
        path=path.absolute(),
        text=text,
        structures={
            name: geometries[name].frame(system.charge, system.multiplicity)
            for name, system in campaign.systems.items()
        },
        warnings=at.report(str(path), warn(whole), document.marks),
        marks=document.marks,
    )


def read_text(path: Path) -> str:
    """Return the text of a file; raise ConfigError if it cannot be one of ours."""
    if path.is_dir():
        raise ConfigError((f"{path}  is a folder, want a campaign file",))
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError((f"{path}  cannot be read: {error.strerror or error}",)) from None
    if len(data) > MAX_BYTES:
        raise ConfigError((f"{path}  is over {MAX_BYTES} bytes: this is no campaign file",))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        what = f"not a text file: byte {data[error.start]:#04x} is not UTF-8"
        raise ConfigError((f"{path}:{line}:{column}  {what}",)) from None


def _override(document: Document, key: str, value: object) -> list[Problem]:
    """Replace one value of the document; return what is wrong with the override."""
    if isinstance(value, str):
        parsed = parse(value)
        if parsed.problems:
            return [Problem((key,), parsed.problems[0].message, mark=Mark(0, 0))]
        value = parsed.data
    path = tuple(key.split("."))
    for depth in range(1, len(path)):
        document.marks.setdefault(path[:depth], Mark(0, 0))
    document.marks[path] = Mark(0, 0)
    here: Any = document.data
    for part in path[:-1]:
        here = _enter(here, part)
        if here is None:
            return [Problem(path, f"there is nothing called {part!r} to override")]
    if not isinstance(here, dict):
        return [Problem(path, "only keys can be overridden")]
    here[path[-1]] = value
    return []


def _enter(here: Any, part: str) -> Any:
    """Return what a key or id leads to; a missing section of a section is made."""
    if isinstance(here, list):
        named = (item for item in here if isinstance(item, dict) and item.get("id") == part)
        return next(named, None)
    if not isinstance(here, dict):
        return None
    if here.get(part) is None:
        here[part] = {}
    return here[part]


def _read_geometries(campaign: Campaign, folder: Path) -> tuple[dict[str, Geometry], list[Problem]]:
    geometries: dict[str, Geometry] = {}
    problems = []
    for name, system in campaign.systems.items():
        key, source = ("structure", system.structure) if system.structure else ("smiles", "")
        try:
            geometries[name] = (
                read_structure(source, folder) if source else from_smiles(system.smiles or "")
            )
        except StructureError as error:
            problems.append(Problem(("systems", name, key), str(error)))
    return geometries, problems
