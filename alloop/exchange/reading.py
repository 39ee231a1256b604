"""Labels that come back from another program, in eV and eV/Å, with what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alloop.datafiles import without_padding
from alloop.datasets import Dataset, load_dataset
from alloop.datasources import HDF5_SUFFIXES, Keys, RawFrame, read_raw
from alloop.errors import ArtifactError, DataError
from alloop.exchange.units import EXAMPLES, OURS, LabelUnits

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN_NUMBERS = (".xyz", ".extxyz", ".npz", *HDF5_SUFFIXES)
"""Files whose units only a person knows; from all others ASE reads eV and Å."""


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """Labels of a file.

    Attributes
    ----------
    labels : energies in eV, forces in eV/Å or None; positions as in the file.
    faults : what is wrong with each frame that cannot be used, by its place in the file.
    units : of the file.

    """

    labels: tuple[RawFrame, ...]
    faults: dict[str, str]
    units: LabelUnits

    @property
    def n_frames(self) -> int:
        """Number of frames in the file."""
        return len(self.labels) + len(self.faults)


def read_returned(
    path: Path,
    keys: Keys,
    units: LabelUnits | None,
    *,
    level_of_theory: str,
    charge: int | None = None,
    multiplicity: int | None = None,
) -> Returned:
    """Read labels made elsewhere; forces may be missing.

    ``units`` may be None where the file settles them: a ``Dataset`` of alloop, or a format that
    ASE turns into eV and Å itself. ``charge`` and ``multiplicity`` are those of all frames, over
    what the file says.

    Raises
    ------
    DataError
        The file cannot be read (see ``read_raw``), or its units are not known, or are settled
        and others were declared.

    """
    raw, settled = _raw_frames(path, keys)
    if settled is not None and units not in (None, OURS):
        raise DataError(f"{path} is read in {settled}: leave --units out")
    units = units or (OURS if settled else None)
    if units is None:
        raise DataError(f"{path} does not say its units: say them with --units {EXAMPLES}")
    labels, faults = [], {}
    for one in raw:
        fault = _fault(one, level_of_theory)
        if fault is None:
            labels.append(_converted(without_padding(one), units, charge, multiplicity))
        else:
            faults[one.place] = fault
    return Returned(tuple(labels), faults, units)


def _raw_frames(path: Path, keys: Keys) -> tuple[list[RawFrame], str | None]:
    """Return the frames, and the units if the file settles them, in words."""
    if path.suffix == ".npz" and keys == Keys():
        try:
            return _from_dataset(load_dataset(path)), "eV and Å, as every dataset of alloop"
        except ArtifactError:
            pass  # arrays of others, or no archive at all: read_raw says which
    raw = read_raw(path, keys, returned=True)
    if path.suffix.lower() in PLAIN_NUMBERS:
        return raw, None
    return raw, "eV and Å, into which ASE turns this format"


def _from_dataset(data: Dataset) -> list[RawFrame]:
    return [
        RawFrame(
            place=str(i),
            numbers=frame.numbers,
            positions=frame.positions,
            energy=float(data.energies[i]),
            forces=None if np.isnan(data.forces[i]).all() else data.forces[i],
            cell=frame.cell,
            pbc=frame.pbc,
            charge=frame.charge,
            multiplicity=frame.multiplicity,
            group=None,
            level_of_theory=data.level_of_theory,
        )
        for i, frame in enumerate(data.frames)
    ]


def _fault(raw: RawFrame, level_of_theory: str) -> str | None:
    if raw.level_of_theory not in (None, level_of_theory):
        return f"the file says that it was made at {raw.level_of_theory}"
    if raw.energy is None:
        return "no energy"
    if not _finite(raw.energy, raw.forces):
        return "a label is not finite"
    if not np.isfinite(raw.positions).all():
        return "a position is not finite"
    return None


def _finite(energy: float, forces: NDArray[np.float64] | None) -> bool:
    return bool(np.isfinite(energy)) and (forces is None or bool(np.isfinite(forces).all()))


def _converted(
    raw: RawFrame, units: LabelUnits, charge: int | None, multiplicity: int | None
) -> RawFrame:
    return replace(
        raw,
        energy=None if raw.energy is None else raw.energy * units.ev,
        forces=None if raw.forces is None else raw.forces * units.ev_per_angstrom,
        charge=raw.charge if charge is None else charge,
        multiplicity=raw.multiplicity if multiplicity is None else multiplicity,
    )
