"""Is a replica still physics? Checks with reason codes, written so that NaN is never healthy.

Every comparison reads ``not (value <= limit)``: NaN and infinity fail it. Bonds are legal and atoms
differ, so contacts are judged against covalent radii and never by one number in Å.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import covalent_radii
from ase.geometry import complete_cell
from scipy.special import gammainccinv
from torch import Tensor

from alloop.dynamics.integrators import degrees_of_freedom, kinetic_energy
from alloop.errors import DynamicsError
from alloop.units import KB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from alloop.dynamics.integrators import State

BONDED = 1.3
"""Atoms closer than this many times the sum of their covalent radii are bonded in a reference."""
RARE = 1e-9
"""Chance that a canonical replica's kinetic energy passes the limit before its safety factor."""
COLDEST_REFERENCE = 300.0
"""A start at rest warms up by itself; spikes are judged against no less than this, K."""
PAIRS_AT_ONCE = 2_000_000
"""Distances held in memory together."""


class Reason(StrEnum):
    """Why a replica was stopped; when several apply, the first of this list is given."""

    NOT_FINITE = "not_finite"
    FORCE = "force"
    TEMPERATURE_SPIKE = "temperature_spike"
    ENERGY_FLOOR = "energy_floor"
    ENERGY_DRIFT = "energy_drift"
    CONTACT = "contact"
    FRAGMENTATION = "fragmentation"
    UNCERTAINTY = "uncertainty"


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """What a replica may do before it counts as broken.

    Attributes
    ----------
    max_force : largest force on one atom, eV/Å.
    spike_factor : safety factor on the kinetic energy that a canonical replica never passes.
    max_drift : change of the total energy at constant energy, eV per atom.
    min_contact : smallest distance of two atoms over the sum of their covalent radii.
    max_stretch : largest length of a bond over its length in the reference geometry; None lets
        bonds break.
    energy_floor : lowest potential energy that can be true, eV; None if nothing is known.
    max_force_spread : largest committee spread of the force on one atom, eV/Å; a replica that
        passes it is stopped, but not broken. None lets it run on.
    pre_failure : how long before its end a stopped trajectory is suspect, fs.

    Raises
    ------
    DynamicsError
        A limit is not a positive number.

    """

    max_force: float = 100.0
    spike_factor: float = 2.0
    max_drift: float = 0.05
    min_contact: float = 0.5
    max_stretch: float | None = None
    energy_floor: float | None = None
    max_force_spread: float | None = None
    pre_failure: float = 20.0

    def __post_init__(self) -> None:
        for name in ("max_force", "spike_factor", "max_drift", "min_contact", "pre_failure"):
            _check_positive(name, getattr(self, name))
        for name in ("max_stretch", "max_force_spread"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        if self.energy_floor is not None and not np.isfinite(self.energy_floor):
            raise DynamicsError(f"health limit energy_floor is {self.energy_floor}, want a number")


class Health:
    """The health of a batch of replicas, judged against where each of them began.

    Parameters
    ----------
    limits : what counts as broken.
    numbers : (n_atoms,) atomic numbers.
    masses : (n_atoms,) float64, amu.
    velocities : (n_replicas, n_atoms, 3) float64, Å/fs, at the start.
    targets : (n_replicas,) float64, K, temperatures the replicas are meant to have.
    cell : (3, 3) float64, lattice vectors as rows, Å, a row of zeros where there is no periodicity;
        None for a molecule.
    reference : (n_atoms, 3), Å, a geometry whose bonds must hold; needed with ``max_stretch``.

    Raises
    ------
    DynamicsError
        Bonds must hold and no reference says which there are, or the lattice has no volume.

    """

    def __init__(
        self,
        limits: HealthLimits,
        numbers: NDArray[np.int64],
        masses: Tensor,
        velocities: Tensor,
        targets: Tensor,
        *,
        cell: Tensor | None = None,
        reference: NDArray[np.float64] | None = None,
    ) -> None:
        self._limits = limits
        self._masses = masses
        self._kinetic_limit = _kinetic_limit(limits, masses, velocities, targets)
        self._start_energy: Tensor | None = None
        self._geometry = Geometry(limits, numbers, cell, reference, masses.device)

    def conserve(self, state: State) -> None:
        """From here on the total energy must stay what it is in this state."""
        kinetic = kinetic_energy(state.velocities, self._masses)
        self._start_energy = kinetic + state.response.energies.mean(dim=0)

    def keep(self, chosen: Tensor) -> None:
        """Go on with only the replicas that a (n_replicas,) bool mask chooses."""
        self._kinetic_limit = self._kinetic_limit[chosen]
        if self._start_energy is not None:
            self._start_energy = self._start_energy[chosen]

    def memory(self) -> dict[str, Any]:
        """Return what the replicas are judged against."""
        return {"kinetic_limit": self._kinetic_limit, "start_energy": self._start_energy}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on with the replicas of this memory, judged against what they were judged against."""
        device, energy = self._kinetic_limit.device, memory["start_energy"]
        self._kinetic_limit = memory["kinetic_limit"].to(device)
        self._start_energy = None if energy is None else energy.to(device)

    def check_start(self, positions: Tensor, velocities: Tensor) -> list[Reason | None]:
        """Judge replicas before any field has seen them: one reason, or None, each."""
        found = {
            Reason.NOT_FINITE: ~(_finite(positions) & _finite(velocities)),
            **self._geometry.faults(positions),
        }
        return _first(found)

    def check_motion(self, state: State) -> list[Reason | None]:
        """Judge numbers, forces and energies; cheap enough for every step."""
        return _first(self._motion_faults(state))

    def check(self, state: State) -> list[Reason | None]:
        """Judge everything: motion, geometry and, where the state tells it, uncertainty."""
        found = self._motion_faults(state) | self._geometry.faults(state.positions)
        spread = state.response.spread
        if spread is not None:
            found[Reason.NOT_FINITE] = found[Reason.NOT_FINITE] | ~_finite(spread)
            if self._limits.max_force_spread is not None:
                largest = spread.amax(dim=1)
                found[Reason.UNCERTAINTY] = ~(largest <= self._limits.max_force_spread)
        return _first(found)

    def _motion_faults(self, state: State) -> dict[Reason, Tensor]:
        limits, response = self._limits, state.response
        kinetic = kinetic_energy(state.velocities, self._masses)
        potential = response.energies.mean(dim=0)
        # Units aside, the sum is finite where all terms are: one test instead of three.
        finite = _finite(state.positions + state.velocities + response.forces)
        strongest = torch.linalg.vector_norm(response.forces, dim=2).amax(dim=1)
        found = {
            Reason.NOT_FINITE: ~(finite & _finite(response.energies.T)),
            Reason.FORCE: ~(strongest <= limits.max_force),
            Reason.TEMPERATURE_SPIKE: ~(kinetic <= self._kinetic_limit),
        }
        if limits.energy_floor is not None:
            found[Reason.ENERGY_FLOOR] = ~(potential >= limits.energy_floor)
        if self._start_energy is not None:
            drift = (kinetic + potential - self._start_energy).abs() / len(self._masses)
            found[Reason.ENERGY_DRIFT] = ~(drift <= limits.max_drift)
        return found


class Geometry:
    """Contacts and bonds of one system, through the minimum image where there is a cell.

    The minimum image is exact for distances below half the smallest width of the cell, which is far
    beyond any contact or bond.
    """

    def __init__(
        self,
        limits: HealthLimits,
        numbers: NDArray[np.int64],
        cell: Tensor | None,
        reference: NDArray[np.float64] | None,
        device: torch.device,
    ) -> None:
        self._lattice = None if cell is None else _lattice(cell)
        pairs = list(combinations(range(len(numbers)), 2))
        self._first, self._second = torch.tensor(pairs, device=device).T
        radii = torch.from_numpy(covalent_radii[numbers]).to(device)
        touching = radii[self._first] + radii[self._second]
        self._shortest = limits.min_contact * touching
        self._longest: Tensor | None = None
        if limits.max_stretch is not None:
            if reference is None:
                raise DynamicsError(
                    "health limit max_stretch is set but no reference geometry is given;"
                    " give the optimised structure, or set max_stretch to None"
                )
            at = torch.tensor(reference, dtype=torch.float64, device=device)
            lengths = self._distances(at[None])[0]
            bonded = lengths <= BONDED * touching
            self._longest = torch.where(bonded, limits.max_stretch * lengths, torch.inf)

    def faults(self, positions: Tensor) -> dict[Reason, Tensor]:
        """Return for each fault a (n_replicas,) bool mask of the replicas that have it."""
        chunk = max(1, PAIRS_AT_ONCE // len(self._first))
        contact, stretched = [], []
        for some in torch.split(positions, chunk):
            distances = self._distances(some)
            contact.append(~(distances >= self._shortest).all(dim=1))
            if self._longest is not None:
                stretched.append(~(distances <= self._longest).all(dim=1))
        found = {Reason.CONTACT: torch.cat(contact)}
        if stretched:
            found[Reason.FRAGMENTATION] = torch.cat(stretched)
        return found

    def _distances(self, positions: Tensor) -> Tensor:
        between = positions[:, self._first] - positions[:, self._second]
        if self._lattice is not None:
            cell, to_fractional = self._lattice
            between = between - (between @ to_fractional).round() @ cell
        distances: Tensor = torch.linalg.vector_norm(between, dim=2)
        return distances


def _lattice(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lattice vectors and the matrix to fractional coordinates.

    Where there is no lattice vector its row is zero, and so is every shift along it.
    """
    rows = cell.cpu().numpy()
    whole = complete_cell(rows)
    if not abs(np.linalg.det(whole)) > 1e-6:
        raise DynamicsError(f"the lattice vectors {rows.tolist()} span no volume")
    return cell, torch.from_numpy(np.linalg.inv(whole)).to(cell.device)


def _kinetic_limit(
    limits: HealthLimits, masses: Tensor, velocities: Tensor, targets: Tensor
) -> Tensor:
    """Return the kinetic energy (n_replicas,), eV, that no healthy replica passes.

    The kinetic energy of a canonical replica is kT/2 times a chi-squared number of its degrees of
    freedom; a fixed multiple of T would stop healthy small molecules or let boxes boil.
    """
    freedom = degrees_of_freedom(len(masses))
    quantile = float(2.0 * gammainccinv(freedom / 2.0, RARE))
    canonical = (targets.clamp(min=COLDEST_REFERENCE) * KB / 2.0) * quantile
    started = kinetic_energy(velocities, masses) * (quantile / freedom)
    return limits.spike_factor * torch.maximum(canonical, started)


def _finite(values: Tensor) -> Tensor:
    return torch.isfinite(values.flatten(start_dim=1)).all(dim=1)


def _first(found: dict[Reason, Tensor]) -> list[Reason | None]:
    """Return the first reason of each replica in the order of :class:`Reason`."""
    reasons: list[Reason | None] = [None] * len(found[Reason.NOT_FINITE])
    if not bool(torch.stack(list(found.values())).any()):
        return reasons
    for reason in Reason:
        if reason in found:
            for i in torch.nonzero(found[reason]).flatten().tolist():
                reasons[i] = reasons[i] or reason
    return reasons


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < np.inf:
        raise DynamicsError(f"health limit {name} is {value}, want a positive number")
