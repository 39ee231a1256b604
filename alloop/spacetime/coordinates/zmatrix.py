"""A Z-matrix: which distances, angles and dihedrals describe a molecule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.internal import fold, follow, to_cartesian, to_internal
from alloop.spacetime.coordinates.protocol import Dual


@dataclass(frozen=True, slots=True)
class ZMatrix:
    """Internal coordinates in the order bonds, angles, dihedrals.

    Attributes
    ----------
    rows : row i has min(i, 3) + 1 atoms (a, b, c, d): atom a is placed by its distance to b, the
        angle a-b-c and the dihedral a-b-c-d, all of which earlier rows have placed.

    Raises
    ------
    SpacetimeError
        Fewer than two atoms, an atom placed twice or by an atom that is not placed yet.

    """

    rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        rows = tuple(tuple(int(atom) for atom in row) for row in self.rows)
        if len(rows) < 2:
            raise SpacetimeError("a single atom has no internal motion; a 4D model needs two atoms")
        placed: set[int] = set()
        for i, row in enumerate(rows):
            references = row[1:]
            if (
                len(row) != min(i, 3) + 1
                or row[0] in placed
                or not placed.issuperset(references)
                or len(set(references)) != len(references)
            ):
                raise SpacetimeError(
                    f"Z-matrix row {i} {row} does not place one new atom by old ones"
                )
            placed.add(row[0])
        if placed != set(range(len(rows))):
            raise SpacetimeError(f"Z-matrix places atoms {sorted(placed)}, want 0..{len(rows) - 1}")
        object.__setattr__(self, "rows", rows)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.rows)

    @property
    def n_bonds(self) -> int:
        """Number of distances."""
        return self.n_atoms - 1

    @property
    def n_angles(self) -> int:
        """Number of angles."""
        return self.n_atoms - 2

    @property
    def n_dihedrals(self) -> int:
        """Number of dihedrals."""
        return max(self.n_atoms - 3, 0)

    @property
    def n_coordinates(self) -> int:
        """Number of internal coordinates, 3N - 6 (1 for two atoms)."""
        return self.n_bonds + self.n_angles + self.n_dihedrals

    @property
    def kinds(self) -> dict[str, slice]:
        """Where the coordinates of each kind lie; a kind without members is left out."""
        ends = (0, self.n_bonds, self.n_bonds + self.n_angles, self.n_coordinates)
        names = ("bond", "angle", "dihedral")
        spans = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(names)}
        return {name: span for name, span in spans.items() if span.stop > span.start}

    @property
    def angular(self) -> slice:
        """Where the dihedrals lie."""
        return slice(self.n_bonds + self.n_angles, self.n_coordinates)

    @property
    def oriented(self) -> bool:
        """A Z-matrix describes the shape alone."""
        return False

    @property
    def axial(self) -> bool:
        """A Z-matrix knows no turns of the whole."""
        return False

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return coordinates and rates, see :func:`to_internal`."""
        return to_internal(self, positions, velocities)

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions and velocities, see :func:`to_cartesian`."""
        return to_cartesian(self, coordinates, rates)

    def follow(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return continuous coordinates and rates, see :func:`follow`."""
        return follow(self, positions, velocities)

    def fold(self, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
        """Return starts and motion without full turns, see :func:`fold`."""
        return fold(self, start, motion)

    def same_isomer(self, positions: Tensor, others: Tensor) -> bool:
        """Tell whether the centres of two sets of frames have the same handedness."""
        (here, _), (there, _) = (self.describe(x, torch.zeros_like(x)) for x in (positions, others))
        agreement = self.handedness(here).mean(dim=0) * self.handedness(there).mean(dim=0).conj()
        return bool((agreement.real >= 0).all())

    def handedness(self, coordinates: Tensor) -> Tensor:
        """Return exp(i phi) of the dihedrals between atoms that hang on the same bond."""
        bond_of = {row[0]: row[1:3] for row in self.rows[2:]}
        stiff = [row[1:3] == bond_of.get(row[3]) for row in self.rows[3:]]
        angles = coordinates[..., self.angular][..., stiff]
        return torch.polar(torch.ones_like(angles), angles)

    def definition(self) -> Mapping[str, Any]:
        """Return the rows, plain JSON."""
        return {"kind": "zmatrix", "rows": [list(row) for row in self.rows]}

    def columns(self, n_references: int) -> list[list[int]]:
        """Return (a, b, ...) as columns, of all rows with at least ``n_references`` references."""
        rows = [row[: n_references + 1] for row in self.rows if len(row) > n_references]
        return [list(column) for column in zip(*rows, strict=True)]
