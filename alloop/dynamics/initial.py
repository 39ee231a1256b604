"""Initial conditions: Wigner and thermal sampling of normal modes, rattling, Maxwell-Boltzmann.

Velocities come without total momentum and, where the system can rotate, without angular momentum.
Both are removed by an orthogonal projection in mass-weighted space, so a canonical sample keeps its
temperature on the degrees of freedom that are left. The bends of a linear molecule carry angular
momentum of their own and lose it too: one momentum of each degenerate pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic

from alloop.errors import DynamicsError
from alloop.units import ACCELERATION, HBAR, KB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.dynamics.normal_modes import NormalModes
    from alloop.frames import Frame

    Sample = tuple[NDArray[np.float64], NDArray[np.float64]]

MIN_CONTACT = 0.7
"""Atoms closer than this share of the sum of their covalent radii are in contact."""
RATTLE_TRIES = 100
"""Displacements tried for each one that is asked for."""


def wigner(modes: NormalModes, temperature: float, n: int, rng: np.random.Generator) -> Sample:
    """Sample the Wigner distribution of harmonic vibrations at a temperature (K), 0 included.

    Returns positions (n, n_atoms, 3) in Å and velocities (n, n_atoms, 3) in Å/fs. In each sampled
    mode <Q²> = ħ/(2ω) coth(ħω/2kT) and <P²> = ω² <Q²>, both Gaussian and independent: Hillery et
    al., Phys. Rep. 106, 121 (1984), doi:10.1016/0370-1573(84)90160-1. Modes that are imaginary or
    too soft stay at rest, see ``modes.dropped``. Raises DynamicsError for impossible requests.
    """
    _check_request(temperature, n)
    frequencies = modes.frequencies[modes.sampled]
    action = HBAR * ACCELERATION  # amu Å²/fs
    coth = np.ones_like(frequencies)
    if temperature > 0.0:
        coth /= np.tanh(HBAR * frequencies / (2.0 * KB * temperature))
    return _excite(modes, action * coth / (2.0 * frequencies), n, rng)


def thermal(modes: NormalModes, temperature: float, n: int, rng: np.random.Generator) -> Sample:
    """Sample the classical canonical distribution of harmonic vibrations at a temperature (K).

    Returns positions (n, n_atoms, 3) in Å and velocities (n, n_atoms, 3) in Å/fs: kT/2 in the
    displacement and in the momentum of each sampled mode. Raises DynamicsError for impossible
    requests.
    """
    _check_request(temperature, n)
    frequencies = modes.frequencies[modes.sampled]
    return _excite(modes, KB * temperature * ACCELERATION / frequencies**2, n, rng)


def rattle(
    frame: Frame,
    deviation: float,
    n: int,
    rng: np.random.Generator,
    min_contact: float = MIN_CONTACT,
) -> NDArray[np.float64]:
    """Return (n, n_atoms, 3) positions, Å, each coordinate moved by a Gaussian of ``deviation`` Å.

    A displacement that brings two atoms closer than ``min_contact`` times the sum of their covalent
    radii is thrown away and drawn again. Raises DynamicsError if nearly all have to be.
    """
    if not (deviation >= 0.0 and np.isfinite(deviation)) or n < 1:
        raise DynamicsError(f"rattle asked for {n} frames with deviation {deviation} Å")
    kept: list[NDArray[np.float64]] = []
    for _ in range(RATTLE_TRIES * n):
        positions = frame.positions + rng.normal(0.0, deviation, frame.positions.shape)
        if not closest_contact(frame, positions) >= min_contact:
            continue
        kept.append(positions)
        if len(kept) == n:
            return np.stack(kept)
    raise DynamicsError(
        f"rattle found {len(kept)} of {n} frames of {frame.formula} without contacts in"
        f" {RATTLE_TRIES * n} tries: the deviation of {deviation} Å is too large, or the start"
        f" already has atoms at {closest_contact(frame, frame.positions):.2f} of the sum of their"
        f" covalent radii (want {min_contact})"
    )


def closest_contact(frame: Frame, positions: NDArray[np.float64]) -> float:
    """Return the smallest distance of two atoms over the sum of their covalent radii.

    ``positions`` (n_atoms, 3), Å, with the elements and the periodicity of ``frame``; infinite for
    a single atom.
    """
    first, second = np.triu_indices(frame.n_atoms, k=1)
    if len(first) == 0:
        return np.inf
    bonds = positions[second] - positions[first]
    if frame.cell is not None:
        bonds, _ = find_mic(bonds, frame.cell, frame.pbc)
    radii = covalent_radii[frame.numbers]
    distances = np.linalg.norm(bonds, axis=1)
    return float(np.min(distances / (radii[first] + radii[second])))


def maxwell_boltzmann(
    masses: NDArray[np.float64],
    temperature: float,
    n: int,
    rng: np.random.Generator,
    positions: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return (n, n_atoms, 3) velocities, Å/fs, of the canonical distribution at a temperature (K).

    ``masses`` (n_atoms,), amu. The total momentum is removed; with ``positions``, (n_atoms, 3) or
    (n, n_atoms, 3) in Å, the angular momentum too. On average the kinetic energy is kT/2 for each
    of the 3N - 3 or 3N - 6 degrees of freedom left. Raises DynamicsError for impossible requests.
    """
    _check_request(temperature, n)
    deviations = np.sqrt(KB * temperature * ACCELERATION / masses)
    velocities = rng.normal(size=(n, len(masses), 3)) * deviations[:, None]
    return remove_rigid_motion(velocities, masses, positions)


def remove_rigid_motion(
    velocities: NDArray[np.float64],
    masses: NDArray[np.float64],
    positions: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return velocities (n, n_atoms, 3) without total momentum and, given positions, without
    angular momentum about the centre of mass.

    Of all velocities free of both, these are the nearest in mass-weighted space.
    """
    velocities = velocities - _centre(velocities, masses)
    if positions is None:
        return velocities
    arms = np.broadcast_to(positions - _centre(positions, masses), velocities.shape)
    momenta = np.einsum("a,nai->ni", masses, np.cross(arms, velocities))
    inertia = -np.einsum("a,nai,naj->nij", masses, arms, arms)
    inertia -= np.trace(inertia, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    # The pseudo-inverse leaves out the axis of a linear molecule, about which nothing turns.
    turning = np.einsum("nij,nj->ni", np.linalg.pinv(inertia, 1e-12, hermitian=True), momenta)
    return velocities - np.cross(turning[:, None, :], arms)


def _excite(
    modes: NormalModes, variances: NDArray[np.float64], n: int, rng: np.random.Generator
) -> Sample:
    """Draw Q from N(0, variance) and P from N(0, ω² variance), and return to Cartesians.

    ``variances`` of Q for the sampled modes, amu Å².
    """
    vectors = modes.vectors[modes.sampled] / np.sqrt(modes.masses)[:, None]
    deviations = np.sqrt(variances)
    q = rng.normal(size=(n, len(variances))) * deviations
    p = rng.normal(size=(n, len(variances))) * deviations * modes.frequencies[modes.sampled]
    positions = modes.positions + np.einsum("nm,mai->nai", q, vectors)
    velocities = np.einsum("nm,mai->nai", p, vectors)
    return positions, remove_rigid_motion(
        velocities, modes.masses, positions if modes.rotates else None
    )


def _centre(vectors: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mass-weighted mean over atoms, the atom axis kept with length 1."""
    mean: NDArray[np.float64] = np.average(vectors, axis=-2, weights=masses, keepdims=True)
    return mean


def _check_request(temperature: float, n: int) -> None:
    if not (temperature >= 0.0 and np.isfinite(temperature)) or n < 1:
        raise DynamicsError(
            f"asked for {n} samples at {temperature} K, want at least 1 at 0 K or more"
        )
