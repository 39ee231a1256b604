"""Harmonic normal modes: from a Hessian to frequencies and mass-weighted mode vectors.

Rigid motions are taken out by diagonalising in their orthogonal complement, so that what remains is
exactly 3N - 6 vibrations (3N - 5 if linear, none for an atom, 3N - 3 in a periodic cell) and no
near-zero rotation is ever mistaken for a soft vibration. Wilson, Decius, Cross, *Molecular
Vibrations* (1955), chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses

from alloop.errors import DynamicsError
from alloop.units import ACCELERATION, CM1_PER_RAD_FS, HBAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Frame

LINEAR = 1e-4
"""A molecule is linear if its smallest moment of inertia is below this share of the largest.

CO2 passes with its carbon 0.02 Å off the axis, what is left of a bend after an optimisation; to be
taken for linear by mistake, a chain with methyl ends would need more than 40 carbons.
"""
SOFTEST = 20.0
"""Modes below this wavenumber, cm⁻¹, or imaginary are not sampled: the harmonic amplitude of a
motion that soft leads out of the region where the potential is harmonic."""


@dataclass(frozen=True, slots=True, eq=False)
class NormalModes:
    """Vibrations about a stationary point.

    Attributes
    ----------
    positions : (n_atoms, 3) float64, the stationary geometry, Å.
    masses : (n_atoms,) float64, amu.
    frequencies : (n_modes,) float64, angular, rad/fs, ascending; an imaginary one is negative.
    vectors : (n_modes, n_atoms, 3) float64, orthonormal in mass-weighted coordinates.
    rotates : whether the system can rotate as a whole, false in a periodic cell.

    """

    positions: NDArray[np.float64]
    masses: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    vectors: NDArray[np.float64]
    rotates: bool

    def __post_init__(self) -> None:
        for name in ("positions", "masses", "frequencies", "vectors"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def n_modes(self) -> int:
        """Number of vibrations, real and imaginary."""
        return len(self.frequencies)

    @property
    def wavenumbers(self) -> NDArray[np.float64]:
        """(n_modes,) wavenumbers, cm⁻¹; imaginary ones negative."""
        return self.frequencies * CM1_PER_RAD_FS

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """(n_modes,) which modes a sampler excites: real, and stiffer than :data:`SOFTEST`."""
        return self.wavenumbers >= SOFTEST

    @property
    def dropped(self) -> NDArray[np.float64]:
        """Wavenumbers of the modes that a sampler leaves at rest, cm⁻¹."""
        return self.wavenumbers[~self.sampled]

    @property
    def zero_point_energy(self) -> float:
        """Harmonic zero-point energy of the sampled modes, eV."""
        return float(0.5 * HBAR * self.frequencies[self.sampled].sum())


def normal_modes(frame: Frame, hessian: NDArray[np.float64]) -> NormalModes:
    """Return the vibrations of a stationary frame.

    Parameters
    ----------
    frame : the stationary point; standard atomic masses are used.
    hessian : (3 n_atoms, 3 n_atoms) second derivatives of the energy, eV/Å².

    Raises
    ------
    DynamicsError
        The Hessian has another shape or is not finite.

    """
    size = 3 * frame.n_atoms
    if hessian.shape != (size, size) or not np.isfinite(hessian).all():
        raise DynamicsError(
            f"the Hessian of {frame.formula} has shape {hessian.shape} and"
            f" {np.sum(~np.isfinite(hessian))} entries that are not finite,"
            f" want ({size}, {size}) finite numbers"
        )
    masses = atomic_masses[frame.numbers]
    rotates = not any(frame.pbc)
    basis = _vibrations(frame.positions, masses, rotates)
    weights = np.repeat(1.0 / np.sqrt(masses), 3)
    weighted = weights[:, None] * (hessian + hessian.T) / 2.0 * weights * ACCELERATION
    squares, mixing = np.linalg.eigh(basis.T @ weighted @ basis)
    return NormalModes(
        positions=frame.positions,
        masses=masses,
        frequencies=np.sign(squares) * np.sqrt(np.abs(squares)),
        vectors=(basis @ mixing).T.reshape(-1, frame.n_atoms, 3),
        rotates=rotates,
    )


def _vibrations(
    positions: NDArray[np.float64], masses: NDArray[np.float64], rotates: bool
) -> NDArray[np.float64]:
    """Return an orthonormal basis (3 n_atoms, n_modes) of all that is not rigid motion."""
    rigid = _translations(masses)
    if rotates:
        rigid = np.concatenate([rigid, _rotations(positions, masses)])
    complete: NDArray[np.float64] = np.linalg.qr(rigid.T, mode="complete").Q
    return complete[:, len(rigid) :]


def _translations(masses: NDArray[np.float64]) -> NDArray[np.float64]:
    roots = np.sqrt(masses / masses.sum())
    vectors: NDArray[np.float64] = np.kron(roots, np.eye(3))
    return vectors


def _rotations(positions: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (0, 2 or 3) mass-weighted unit vectors of rotations about the principal axes."""
    arms = positions - masses @ positions / masses.sum()
    inertia = np.einsum("a,aij->ij", masses, np.sum(arms**2, axis=1)[:, None, None] * np.eye(3))
    inertia -= np.einsum("a,ai,aj->ij", masses, arms, arms)
    moments, axes = np.linalg.eigh(inertia)
    turning = moments > LINEAR * moments[-1]
    sweeps = np.cross(axes.T[turning, None, :], arms) * np.sqrt(masses)[:, None]
    vectors: NDArray[np.float64] = sweeps / np.sqrt(moments[turning])[:, None, None]
    return vectors.reshape(len(vectors), positions.size)
