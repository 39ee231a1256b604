"""Which known frame a foreign one is: by its atoms and coordinates, turned or moved if need be.

Programs print few digits, in their own unit of length, and some turn a molecule into an
orientation of their own. A frame counts as known if every coordinate agrees to ``TOLERANCE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from alloop.datasources import RawFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-5
"""Å; the label of a frame moved by this is off by less than 1e-4 eV."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownFrames:
    """All known frames of one system.

    Attributes
    ----------
    name : of the system.
    numbers : (n_atoms,) int64, atomic numbers.
    charge, multiplicity : of the system.
    pbc : which lattice vectors are periodic.
    frame_ids : of each frame.
    positions : (n_frames, n_atoms, 3) float64, Å.
    cells : (n_frames, 3, 3) float64, Å; None for a molecule.

    """

    name: str
    numbers: NDArray[np.int64]
    charge: int
    multiplicity: int
    pbc: tuple[bool, bool, bool]
    frame_ids: tuple[int, ...]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A foreign frame that is known.

    Attributes
    ----------
    frame_id, system : which one it is, and of which system.
    positions : (n_atoms, 3) float64, as known, Å.
    rotation : (3, 3) float64, turns row vectors of the foreign frame into ours; None if it is not
        turned or moved.
    scale : unit of the foreign positions, Å.

    """

    frame_id: int
    system: str
    positions: NDArray[np.float64]
    rotation: NDArray[np.float64] | None
    scale: float


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A foreign frame that is not known, or could be several, and why."""

    reason: str


class Matcher:
    """Finds foreign frames among those of several systems.

    Parameters
    ----------
    systems : the known frames.
    scales : units that foreign positions may have, Å; the first that fits counts.

    """

    def __init__(self, systems: Sequence[KnownFrames], scales: Sequence[float]) -> None:
        self._systems, self._scales = systems, scales
        self._by_place = {one.name: cKDTree(_flat(one.positions)) for one in systems}
        self._by_shape = {
            one.name: cKDTree(_radii(one.positions)) for one in systems if not any(one.pbc)
        }

    def find(self, raw: RawFrame) -> Match | Unmatched:
        """Return which known frame a foreign one is."""
        same = [one for one in self._systems if np.array_equal(one.numbers, raw.numbers)]
        if not same:
            return Unmatched("its atoms, in this order, are those of no system")
        systems = [one for one in same if _same_electrons(one, raw)]
        if not systems:
            known = ", ".join(f"{one.charge} and {one.multiplicity}" for one in same)
            return Unmatched(f"of another charge or multiplicity than its system ({known})")
        for scale in self._scales:
            found = [match for one in systems if (match := self._within(one, raw, scale))]
            if len(found) > 1:
                names = ", ".join(match.system for match in found)
                return Unmatched(
                    f"could be of {names}: say --charge and --multiplicity, or put them in the file"
                )
            if found:
                return found[0]
        return Unmatched("not in the ledger, and only labels are imported, no frames")

    def nearest(self, raw: RawFrame) -> float:
        """Return how far the nearest known frame of the same atoms is, largest coordinate, Å."""
        apart = (
            self._by_place[one.name].query((raw.positions * scale).ravel(), p=np.inf)[0]
            for one in self._systems
            for scale in self._scales
            if np.array_equal(one.numbers, raw.numbers)
        )
        return float(min(apart, default=np.inf))

    def _within(self, known: KnownFrames, raw: RawFrame, scale: float) -> Match | None:
        positions = raw.positions * scale
        if any(known.pbc) and raw.pbc != known.pbc:
            return None
        apart, row = self._by_place[known.name].query(
            positions.ravel(), p=np.inf, distance_upper_bound=2 * TOLERANCE
        )
        if apart <= TOLERANCE and _same_cell(known, int(row), raw, scale):
            return self._match(known, int(row), None, scale)
        if any(known.pbc):
            return None
        near = self._by_shape[known.name].query_ball_point(
            _radii(positions[None])[0], 2 * TOLERANCE, p=np.inf
        )
        turned = [(*superpose(positions, known.positions[row]), int(row)) for row in near]
        best = min(turned, key=lambda item: item[0], default=None)
        if best is None or not best[0] <= TOLERANCE:
            return None
        return self._match(known, best[2], best[1], scale)

    def _match(
        self, known: KnownFrames, row: int, rotation: NDArray[np.float64] | None, scale: float
    ) -> Match:
        return Match(known.frame_ids[row], known.name, known.positions[row], rotation, scale)


def superpose(
    moving: NDArray[np.float64], fixed: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Return the largest coordinate difference, Å, after the best rotation, and that rotation.

    Row vectors of ``moving`` times the (3, 3) rotation are in the frame of ``fixed``; mirror
    images are not superposed (Kabsch, DOI 10.1107/S0567739478001680).
    """
    a, b = moving - moving.mean(0), fixed - fixed.mean(0)
    left, _, right = np.linalg.svd(a.T @ b)
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    rotation = left @ right
    return float(np.abs(a @ rotation - b).max()), rotation


def _flat(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return positions.reshape(len(positions), 3 * positions.shape[1])


def _radii(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of every atom from the centre, which no rotation changes."""
    return np.asarray(np.linalg.norm(positions - positions.mean(1, keepdims=True), axis=2))


def _same_electrons(known: KnownFrames, raw: RawFrame) -> bool:
    return raw.charge in (None, known.charge) and raw.multiplicity in (None, known.multiplicity)


def _same_cell(known: KnownFrames, row: int, raw: RawFrame, scale: float) -> bool:
    if known.cells is None or raw.cell is None:
        return known.cells is None
    return bool(np.abs(raw.cell * scale - known.cells[row]).max() <= TOLERANCE)
