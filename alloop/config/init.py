"""Write a campaign file for a molecule: commented, and ready to run as it stands."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Final, Literal

from alloop.config.load import load_text
from alloop.config.structures import Geometry, from_smiles, read_structure, split_index
from alloop.errors import ConfigError, FrameError, StructureError
from alloop.frames import Frame

Preset = Literal["quick", "production"]

_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Written:
    """The campaign file, the structure it refers to, and where charge and spin come from."""

    path: Path
    structure: Path
    notes: tuple[str, ...]


def write_config(
    structure: str,
    output: Path,
    preset: Preset = "quick",
    charge: int | None = None,
    multiplicity: int | None = None,
    force: bool = False,
) -> Written:
    """Write a campaign file for a structure file (``file.xyz@2`` for one of several) or SMILES.

    A geometry made from SMILES goes into a file of its own beside the campaign file, so that the
    campaign does not depend on the version of RDKit. Existing files are kept unless ``force``.

    Raises
    ------
    StructureError
        The structure cannot be read or built.
    ConfigError
        Charge and multiplicity are impossible, or a file exists or cannot be written.

    """
    _refuse_existing(output, force)
    if not output.absolute().parent.is_dir():
        raise ConfigError((f"{output}  cannot be written: its folder does not exist",))
    geometry, is_file = read_geometry(structure)
    frame, charge_note, multiplicity_note = settle_electrons(geometry, charge, multiplicity)
    source = split_index(structure, Path())[0]
    name = _name(source.stem if is_file else frame.formula)
    made = None if is_file else output.with_name(f"{name}.xyz")
    if made is not None:
        _refuse_existing(made, force)
    template = Template((_TEMPLATES / f"{preset}.yaml").read_text(encoding="utf-8"))
    words = {
        "name": name,
        "file": output.name,
        "system": _id(name),
        "charge": frame.charge,
        "charge_note": charge_note,
        "multiplicity": frame.multiplicity,
        "multiplicity_note": multiplicity_note,
    }
    with TemporaryDirectory() as scratch:
        draft = Path(scratch) / "structure.xyz"
        draft.write_text(_extxyz(frame, geometry.source), encoding="utf-8")
        load_text(template.substitute(words, structure=_quoted(str(draft))), output)
    relative = _relative(structure, output) if made is None else made.name
    try:
        if made is not None:
            _write(made, _extxyz(frame, geometry.source))
        _write(output, template.substitute(words, structure=_quoted(relative)))
    except OSError as error:
        raise ConfigError((f"{output}  cannot be written: {error.strerror or error}",)) from None
    notes = (
        f"charge {frame.charge}: {charge_note}",
        f"multiplicity {frame.multiplicity}: {multiplicity_note}",
    )
    return Written(output, made or source, notes)


def read_geometry(structure: str) -> tuple[Geometry, bool]:
    """Return the geometry, and whether it came from a file."""
    if split_index(structure, Path())[0].exists():
        return read_structure(structure, Path()), True
    try:
        return from_smiles(structure), False
    except StructureError as error:
        raise StructureError(
            f"there is no file {structure!r}, and read as SMILES: {error}"
        ) from None


def settle_electrons(
    geometry: Geometry, charge: int | None, multiplicity: int | None
) -> tuple[Frame, str, str]:
    """Return the frame with charge and multiplicity, and where each of them comes from."""
    said = f"from {geometry.source}"
    charge_note = "as given" if charge is not None else said
    if charge is None:
        charge = geometry.charge
    if charge is None:
        charge, charge_note = 0, "assumed: the file does not say"
    multiplicity_note = "as given" if multiplicity is not None else said
    if multiplicity is None:
        multiplicity = geometry.multiplicity
    if multiplicity is None:
        electrons = int(geometry.numbers.sum()) - charge
        multiplicity = 1 + electrons % 2
        parity = "an odd number of electrons" if electrons % 2 else "an even number of electrons"
        multiplicity_note = f"assumed: the lowest for {parity}"
    try:
        return geometry.frame(charge, multiplicity), charge_note, multiplicity_note
    except FrameError as error:
        raise ConfigError((f"{geometry.source}: {error}",)) from None


def _relative(structure: str, output: Path) -> str:
    """Return the structure as the campaign file, which lies elsewhere, must call it."""
    path, index = split_index(structure, Path())
    relative = Path(os.path.relpath(path.absolute(), output.absolute().parent)).as_posix()
    return relative if index is None else f"{relative}@{index}"


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:80] or "molecule"


def _id(name: str) -> str:
    word = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:38]
    return word if word[0].isalpha() else f"m_{word}"


def _quoted(text: str) -> str:
    """Return text as a YAML value: bare where nothing in it can be misread."""
    bare = re.fullmatch(r"[A-Za-z./][A-Za-z0-9._/@-]*", text)
    return text if bare else json.dumps(text, ensure_ascii=False)


def _extxyz(frame: Frame, source: str) -> str:
    """Return a frame as extended XYZ, with charge and multiplicity."""
    cell = ""
    if frame.cell is not None:
        flags = " ".join("T" if flag else "F" for flag in frame.pbc)
        cell = f'Lattice="{" ".join(f"{x:.8f}" for x in frame.cell.ravel())}" pbc="{flags}" '
    lines = [
        str(frame.n_atoms),
        f"{cell}Properties=species:S:1:pos:R:3 charge={frame.charge}"
        f' multiplicity={frame.multiplicity} source="{source.replace(chr(34), "")}"',
    ]
    for symbol, position in zip(frame.to_atoms().symbols, frame.positions, strict=True):
        lines.append(f"{symbol:2} " + " ".join(f"{x:14.8f}" for x in position))
    return "\n".join(lines) + "\n"


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError((f"{path}  exists and is kept: remove it or choose another name",))


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
