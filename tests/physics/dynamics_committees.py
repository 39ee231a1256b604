"""Committees with known physics, for tests of the dynamics: pair laws and GFN2-xTB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from tblite.interface import Calculator as Tblite
from torch import Tensor

from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

Law = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Distances to energies and energy derivatives over distance, u(r) and u'(r) / r."""


@dataclass(frozen=True)
class Evaluation:
    """As :class:`alloop.potentials.evaluation.Evaluation`."""

    energies: Tensor
    forces: Tensor | None
    member_forces: Tensor | None


def spring(k: float, length: float) -> Law:
    return lambda r: (0.5 * k * (r - length) ** 2, k * (r - length) / r)


def free_spring(k: float) -> Law:
    """Harmonic in Cartesian coordinates: no rest length."""
    return lambda r: (0.5 * k * r**2, torch.full_like(r, k))


def morse(depth: float, alpha: float, length: float) -> Law:
    def law(r):
        decay = torch.exp(-alpha * (r - length))
        return depth * (1.0 - decay) ** 2, 2.0 * depth * alpha * (1.0 - decay) * decay / r

    return law


def lennard_jones(depth: float, sigma: float, cutoff: float) -> Law:
    """Truncated, and shifted so that the energy is continuous."""
    edge = (sigma / cutoff) ** 6

    def law(r):
        inside = r < cutoff
        six = (sigma / r) ** 6
        energy = 4.0 * depth * (six**2 - six - edge**2 + edge)
        slope = -24.0 * depth * (2.0 * six**2 - six) / r**2
        return torch.where(inside, energy, 0.0), torch.where(inside, slope, 0.0)

    return law


class PairCommittee:
    """Each member is one law for each of some pairs of atoms."""

    def __init__(self, members: Sequence[dict[tuple[int, int], Law]]) -> None:
        self.members = members
        self.n_members = len(members)
        self.calls: list[str] = []

    def evaluate(self, numbers, positions, *, forces, cell=None):
        self.calls.append(forces)
        said = [self._one(member, positions, cell) for member in self.members]
        members = torch.stack([force for _, force in said])
        return Evaluation(
            torch.stack([energy for energy, _ in said]),
            None if forces == "none" else members.mean(dim=0),
            members if forces == "members" else None,
        )

    def _one(self, member, positions, cell):
        energy, force = torch.zeros(len(positions)).double(), torch.zeros_like(positions)
        for law in set(member.values()):
            pairs = [pair for pair, its in member.items() if its is law]
            first, second = torch.tensor(pairs).T
            between = positions[:, first] - positions[:, second]
            if cell is not None:
                scaled = between @ torch.linalg.inv(cell)
                between = (scaled - scaled.round()) @ cell
            terms, slopes = law((between**2).sum(dim=2).sqrt())
            pull = slopes[:, :, None] * between
            energy = energy + terms.sum(dim=1)
            force.index_add_(1, first, -pull).index_add_(1, second, pull)
        return energy, force


class Gfn2:
    """A committee of one: GFN2-xTB itself, open shells with spin polarisation."""

    n_members = 1

    def __init__(self, charge: int = 0, unpaired: int = 0) -> None:
        self.charge, self.unpaired = charge, unpaired

    def evaluate(self, numbers, positions, *, forces, cell=None):
        said = [self._one(np.asarray(numbers), x) for x in positions.numpy() / ANGSTROM_PER_BOHR]
        energies = torch.tensor([[energy for energy, _ in said]])
        mean = torch.tensor(np.stack([force for _, force in said]))
        return Evaluation(energies, mean, mean[None] if forces == "members" else None)

    def _one(self, numbers, bohr):
        engine = Tblite("GFN2-xTB", numbers, bohr, charge=self.charge, uhf=self.unpaired)
        engine.set("verbosity", 0)
        if self.unpaired:
            engine.add("spin-polarization", 1.0)
        result = engine.singlepoint()
        gradient = result.get("gradient") * EV_PER_HARTREE / ANGSTROM_PER_BOHR
        return float(result.get("energy")) * EV_PER_HARTREE, -gradient


class AseCalculator(Calculator):
    """The mean of a committee, for the integrators of ASE."""

    implemented_properties = ("energy", "forces")

    def __init__(self, committee) -> None:
        super().__init__()
        self.committee = committee

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        said = self.committee.evaluate(
            atoms.numbers, torch.tensor(atoms.positions[None]), forces="mean"
        )
        self.results = {
            "energy": float(said.energies.mean()),
            "forces": said.forces[0].numpy(),
        }


WATER = np.array([8, 1, 1])
WATER_MASSES = np.array([15.999, 1.008, 1.008])
WATER_AT = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def morse_water(n_members: int = 3) -> PairCommittee:
    """Members that differ by a few per cent in depth and stiffness."""
    members = []
    for m in range(n_members):
        bond = morse(4.6 + 0.1 * m, 2.2 + 0.02 * m, 0.96)
        members.append({(0, 1): bond, (0, 2): bond, (1, 2): spring(6.0 + 0.2 * m, 1.51)})
    return PairCommittee(members)


def network(n_atoms: int, k: float) -> PairCommittee:
    """Every pair joined by the same spring without rest length: harmonic, translation-free."""
    return PairCommittee([dict.fromkeys(combinations(range(n_atoms), 2), free_spring(k))])
