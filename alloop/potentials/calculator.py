"""A committee as an ASE calculator: energy, forces and how far the members disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from alloop.errors import ModelError
from alloop.potentials.committee import Committee, load_committee
from alloop.potentials.evaluation import CLASH
from alloop.potentials.neighbours import Pairs, find_pairs


class CommitteeCalculator(Calculator):
    """Energy and forces of a committee, with its spread, for ASE.

    After a calculation ``results`` holds, in eV and eV/Å,

    - ``energy``, ``free_energy``, ``forces``: means over the members;
    - ``energy_std``: standard deviation of the members' energies;
    - ``energy_std_per_sqrt_atom``: the same by the square root of the number of atoms, the
      criterion of DOI 10.1063/1.5023802;
    - ``forces_std`` (n_atoms,): standard deviation of the members' force vectors on each atom;
      ``forces_std_max``: its largest;
    - ``energy_std_calibrated``, ``forces_std_calibrated``, ``forces_std_max_calibrated``: times
      the factor that makes spreads as large as errors;
    - ``energies_comm`` (n_members,), ``forces_comm`` (n_members, n_atoms, 3): of each member;
    - ``stress`` (6,), ``stress_std`` (6,): mean and standard deviation, eV/Å³, in the order and
      with the sign of ASE; only where there is a period and the cell has a volume.

    Standard deviations divide by n_members - 1. A spread that is not finite is infinite: what a
    member cannot do is never certain.

    Parameters
    ----------
    models : a committee, member files, or a folder, of which all ``*.pt`` files are taken.
    energy_calibration, force_calibration : factors from a campaign's calibration.
    dtype : working precision, see ``load_committee``; not for a committee that is built already.

    Raises
    ------
    ModelError
        Fewer than two members, a file that cannot be used, or a factor that is not positive.

    """

    implemented_properties = [  # noqa: RUF012  (ASE declares it so)
        "energy",
        "free_energy",
        "forces",
        "energy_std",
        "energy_std_per_sqrt_atom",
        "forces_std",
        "forces_std_max",
        "energy_std_calibrated",
        "forces_std_calibrated",
        "forces_std_max_calibrated",
        "energies_comm",
        "forces_comm",
        "stress",
        "stress_std",
    ]

    def __init__(
        self,
        models: Committee | str | Path | Sequence[str | Path],
        *,
        energy_calibration: float = 1.0,
        force_calibration: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        factors = {"energy_calibration": energy_calibration, "force_calibration": force_calibration}
        for name, factor in factors.items():
            if not 0.0 < factor < math.inf:
                raise ModelError(f"{name} is {factor}, want a positive number")
        self.committee = _committee(models, dtype)
        if self.committee.n_members < 2:
            raise ModelError("a spread needs at least two members, got one")
        self._energy_factor, self._force_factor = energy_calibration, force_calibration

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate all members at once; every property is computed whichever is asked for.

        Raises ModelError if two atoms lie on one spot, or if an element is not known.
        """
        super().calculate(  # type: ignore[no-untyped-call]
            atoms, properties, system_changes
        )
        if self.atoms is None:
            raise ModelError("the calculator was given no atoms")
        numbers, positions = self.atoms.numbers, torch.tensor(self.atoms.positions)[None]
        periodic = np.asarray(self.atoms.pbc)
        cell = torch.tensor(np.where(periodic[:, None], self.atoms.cell.array, 0.0))
        lattice = cell if periodic.any() else None
        stressed = lattice is not None and self.atoms.cell.rank == 3
        answer = self.committee.evaluate(
            numbers, positions, forces="members", cell=lattice, virials=stressed
        )
        if answer.forces is None or answer.member_forces is None:
            raise ModelError("the committee gave no forces although it was asked for them")
        if bool(answer.energies.isnan().all()):
            _refuse_clash(self.atoms, find_pairs(positions, 2.0 * CLASH, lattice))
        energies = answer.energies[:, 0].numpy()
        member_forces = answer.member_forces[:, 0].numpy()
        energy_std = _finite(energies.std(ddof=1))
        forces_std = _finite(np.sqrt(member_forces.var(axis=0, ddof=1).sum(axis=-1)))
        self.results = {
            "energy": float(energies.mean()),
            "free_energy": float(energies.mean()),
            "forces": answer.forces[0].numpy(),
            "energy_std": float(energy_std),
            "energy_std_per_sqrt_atom": float(energy_std) / math.sqrt(len(self.atoms)),
            "forces_std": forces_std,
            "forces_std_max": float(forces_std.max()),
            "energy_std_calibrated": float(energy_std) * self._energy_factor,
            "forces_std_calibrated": forces_std * self._force_factor,
            "forces_std_max_calibrated": float(forces_std.max()) * self._force_factor,
            "energies_comm": energies,
            "forces_comm": member_forces,
        }
        if answer.virials is not None:
            stresses = answer.virials[:, 0].numpy() / self.atoms.get_volume()
            voigt = full_3x3_to_voigt_6_stress(stresses)
            self.results["stress"] = voigt.mean(axis=0)
            self.results["stress_std"] = _finite(voigt.std(axis=0, ddof=1))


def _refuse_clash(atoms: Atoms, pairs: Pairs) -> None:
    """Raise ModelError if two atoms lie on one spot."""
    lengths = pairs.vectors.norm(dim=1)
    clashes = (lengths < CLASH).nonzero()[:, 0].tolist()
    if not clashes:
        return
    first, second = (
        f"{index} ({chemical_symbols[atoms.numbers[index]]})"
        for index in (int(pairs.centre[clashes[0]]), int(pairs.other[clashes[0]]))
    )
    raise ModelError(
        f"atoms {first} and {second} lie {float(lengths[clashes[0]]):.1e} Å apart, want at least"
        f" {CLASH:g} Å; move them apart"
    )


def _committee(
    models: Committee | str | Path | Sequence[str | Path], dtype: torch.dtype
) -> Committee:
    if isinstance(models, str | Path):
        folder = Path(models)
        paths = sorted(folder.glob("*.pt")) if folder.is_dir() else [folder]
        if not paths:
            raise ModelError(f"the folder {folder} holds no member files (*.pt)")
        return load_committee(paths, dtype=dtype)
    if isinstance(models, Sequence):
        return load_committee([Path(path) for path in models], dtype=dtype)
    return models


def _finite(spread: Any) -> Any:
    return np.where(np.isfinite(spread), spread, np.inf)
