"""The coordinates of GICnet, for comparison: a Z-matrix that stands on three dummy atoms.

Ge, Zhang, Hou, Chen, Ullah and Dral 2023 (doi:10.1021/acs.jpclett.3c01592): dummy atoms at the
three unit vectors, fixed in space, place the first three atoms, whose centre of mass is at the
origin. All 3N coordinates are then bonds, angles and dihedrals, and tell the orientation too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.internal import fold_angles, to_cartesian, to_internal, unwrap
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.motion.rigid import centred

_TRIANGLE = (math.sqrt(2.0), math.sqrt(2.0), math.pi / 3)
"""Distances and angle between the dummy atoms."""


@dataclass(frozen=True, slots=True, eq=False)
class DummyZMatrix:
    """All 3N coordinates in the order bonds, angles, dihedrals.

    Attributes
    ----------
    inner : the Z-matrix of the atoms among themselves.
    masses : (n_atoms,) float64, amu, which say where the centre is.

    Raises
    ------
    SpacetimeError
        There are not as many masses as atoms.

    """

    inner: ZMatrix
    masses: Tensor

    def __post_init__(self) -> None:
        if tuple(self.masses.shape) != (self.n_atoms,):
            raise SpacetimeError(
                f"dummy coordinates of {self.n_atoms} atoms have masses of shape"
                f" {tuple(self.masses.shape)}, want one mass for each atom"
            )

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self.inner.n_atoms

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates, 3N."""
        return 3 * self.n_atoms

    @property
    def kinds(self) -> dict[str, slice]:
        """N bonds, N angles and N dihedrals."""
        n = self.n_atoms
        names = ("bond", "angle", "dihedral")
        return {name: slice(i * n, i * n + n) for i, name in enumerate(names)}

    @property
    def angular(self) -> slice:
        """Where the dihedrals lie."""
        return self.kinds["dihedral"]

    @property
    def oriented(self) -> bool:
        """The dummies are fixed in space."""
        return True

    @property
    def axial(self) -> bool:
        """All turns are among the coordinates, not those about z alone."""
        return False

    @property
    def full(self) -> ZMatrix:
        """The Z-matrix of the atoms and, before them, the dummies, numbered n_atoms and on."""
        p, q, r = (self.n_atoms + i for i in range(3))
        more = (p, q, r), (p, q), (p,)
        rows = [(*row, *more[i]) if i < 3 else row for i, row in enumerate(self.inner.rows)]
        return ZMatrix(((p,), (q, p), (r, q, p), *rows))

    def describe(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return coordinates (..., 3 n_atoms), Å and rad, and their rates per fs.

        Both arguments are (..., n_atoms, 3), Å and Å/fs; the centre of mass is taken off.
        """
        x, v = centred(self.masses, positions), centred(self.masses, velocities)
        dummies = torch.eye(3, dtype=x.dtype).expand(*x.shape[:-2], 3, 3)
        x, v = torch.cat([x, dummies], dim=-2), torch.cat([v, torch.zeros_like(dummies)], dim=-2)
        values, rates = to_internal(self.full, x, v)
        return values[..., self._own()], rates[..., self._own()]

    def place(self, coordinates: Tensor, rates: Tensor) -> Dual:
        """Return positions (..., n_atoms, 3), Å, as they are in space, and velocities, Å/fs."""
        full, n = self.full, self.n_atoms
        shape = (*coordinates.shape[:-1], full.n_coordinates)
        q = coordinates.new_zeros(shape)
        q[..., [0, 1, full.n_bonds]] = q.new_tensor(_TRIANGLE)
        dq = torch.zeros_like(q)
        q[..., self._own()], dq[..., self._own()] = coordinates, rates
        x, v = to_cartesian(full, q, dq)
        axes = _axes().to(q.dtype)
        first = torch.eye(3, dtype=q.dtype)[0]
        return x[..., :n, :] @ axes + first, v[..., :n, :] @ axes

    def follow(self, positions: Tensor, velocities: Tensor) -> Dual:
        """Return coordinates and rates of consecutive frames, dihedrals without jumps."""
        values, rates = self.describe(positions, velocities)
        values[:, self.angular] = unwrap(values[:, self.angular])
        return values, rates

    def fold(self, start: Dual, motion: Dual) -> tuple[Dual, Dual]:
        """Return starts without full turns, and motion as it is."""
        return fold_angles(self.angular, start), motion

    def same_isomer(self, positions: Tensor, others: Tensor) -> bool:
        """Tell whether the centres of two sets of frames have the same handedness."""
        return self.inner.same_isomer(positions, others)

    def handedness(self, coordinates: Tensor) -> Tensor:
        """Return (..., 0): GICnet knows of no isomers."""
        return coordinates[..., :0].to(torch.complex128)

    def definition(self) -> Mapping[str, Any]:
        """Return rows and masses, plain JSON."""
        return {
            "kind": "dummies",
            "rows": [list(row) for row in self.inner.rows],
            "masses": self.masses.tolist(),
        }

    def _own(self) -> list[int]:
        """Return which coordinates of the full Z-matrix are not those of the dummies."""
        full, n = self.full, self.n_atoms
        starts = 2, full.n_bonds + 1, full.n_bonds + full.n_angles
        return [start + i for start in starts for i in range(n)]


def _axes() -> Tensor:
    """Return as rows the directions in space that x, y, z of :func:`to_cartesian` stand for.

    It puts the first dummy at the origin, the second on z and the third in the xz plane.
    """
    first, second, third = torch.eye(3, dtype=torch.float64)
    z = (second - first) / math.sqrt(2.0)
    x = (third - (first + second) / 2) / math.sqrt(1.5)
    return torch.stack([x, torch.linalg.cross(z, x), z])
