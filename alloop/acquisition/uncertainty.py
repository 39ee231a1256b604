"""How far the members of a committee disagree on a frame; a frame one member cannot do is inf.

Standard deviations divide by ``n_members - 1``. Infinity is the honest spread of a frame on which
a member returned NaN: every later comparison then takes the frame for uncertain, never for known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alloop.errors import AcquisitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def energy_spread(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of the members' total energies.

    energies: (n_members, n_frames), eV. Returns (n_frames,), eV.
    """
    _check_members(energies, 2, "energies", "(n_members, n_frames)")
    with np.errstate(over="ignore", invalid="ignore"):
        spread = energies.std(axis=0, ddof=1)
    return _unknown_to_inf(spread)


def energy_spread_per_sqrt_atom(energies: NDArray[np.float64], n_atoms: int) -> NDArray[np.float64]:
    """Return the ANI criterion, the energy spread over the square root of the number of atoms.

    Atomic energies err independently, so total energies err as sqrt(n_atoms) and this number does
    not grow with the system (rho of doi:10.1063/1.5023802).

    energies: (n_members, n_frames), eV. Returns (n_frames,), eV.
    """
    if n_atoms < 1:
        raise AcquisitionError(f"the spread per atom needs atoms, got n_atoms = {n_atoms}")
    spread: NDArray[np.float64] = energy_spread(energies) / np.sqrt(n_atoms)
    return spread


def force_spread(member_forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the members' force vectors on each atom lie from their mean.

    sigma_i = sqrt(sum_m |F_mi - <F_i>|² / (n_members - 1)), with the norm over x, y and z.

    member_forces: (n_members, n_frames, n_atoms, 3), eV/Å. Returns (n_frames, n_atoms), eV/Å.
    """
    _check_members(member_forces, 4, "member forces", "(n_members, n_frames, n_atoms, 3)")
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.sqrt(member_forces.var(axis=0, ddof=1).sum(axis=-1))
    return _unknown_to_inf(spread)


def max_force_spread(member_forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the force spread of each frame's most uncertain atom, (n_frames,), eV/Å."""
    largest: NDArray[np.float64] = force_spread(member_forces).max(axis=1)
    return largest


def mean_force_spread(member_forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the force spread of each frame averaged over its atoms, (n_frames,), eV/Å."""
    average: NDArray[np.float64] = force_spread(member_forces).mean(axis=1)
    return average


def _check_members(values: NDArray[np.float64], ndim: int, what: str, shape: str) -> None:
    if values.ndim != ndim:
        raise AcquisitionError(f"{what} have shape {values.shape}, want {shape}")
    if len(values) < 2:
        raise AcquisitionError(f"a spread needs at least 2 members, {what} have {len(values)}")


def _unknown_to_inf(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(spread), spread, np.inf)
