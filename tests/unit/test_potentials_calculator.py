"""The ASE calculator: stress, its spread, and what it refuses; several architectures at once."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress

from alloop.errors import ModelError
from alloop.potentials.architectures import ARCHITECTURES
from alloop.potentials.calculator import CommitteeCalculator
from alloop.potentials.committee import build_committee
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.member import Member

ELEMENTS = (1, 6)


def make_member(name, seed):
    settings = ARCHITECTURES[name].settings("small", ELEMENTS)
    levels = dict.fromkeys(ELEMENTS, -3.0)
    methane = molecule("CH4")
    positions = torch.tensor(methane.positions)[None]
    index = torch.zeros(1, dtype=torch.int64)
    group = FrameGroup(tuple(methane.numbers.tolist()), positions, None, index == 0, index)
    fit = ARCHITECTURES[name].trainable(
        [group], ELEMENTS, settings, levels, scale=20.0, seed=seed, start=None
    )
    return Member(name, ELEMENTS, settings, fit.export(fit.start), levels, "test", {})


MEMBERS = [make_member("schnet", 1), make_member("ani", 2), make_member("schnet", 3)]
COMMITTEE = build_committee(MEMBERS, dtype=torch.float64)


def diamond():
    atoms = bulk("C")
    atoms.rattle(0.1, seed=4)
    atoms.set_cell(atoms.cell.array @ np.diag([1.1, 0.95, 1.0]), scale_atoms=True)
    atoms.calc = CommitteeCalculator(COMMITTEE)
    return atoms


@pytest.mark.parametrize("pbc", [True, (True, False, True)])
def test_stress_is_the_slope_of_the_energy_by_strain(pbc):
    atoms = diamond()
    atoms.pbc = pbc
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(atoms.get_stress(), expected, rtol=0, atol=1e-8)
    alone = []
    for member in MEMBERS:
        copy = atoms.copy()
        copy.calc = CommitteeCalculator(build_committee([member, member], dtype=torch.float64))
        alone.append(copy.get_stress())
    assert np.allclose(atoms.get_stress(), np.mean(alone, axis=0), rtol=0, atol=1e-12)
    assert np.allclose(atoms.calc.results["stress_std"], np.std(alone, axis=0, ddof=1))


def test_a_molecule_has_no_stress():
    atoms = molecule("CH4")
    atoms.calc = CommitteeCalculator(COMMITTEE)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()


def test_a_mixed_committee_gives_virials_in_the_order_of_its_members():
    atoms = diamond()
    positions, cell = torch.tensor(atoms.positions)[None], torch.tensor(atoms.cell.array)
    options = {"forces": "none", "cell": cell, "virials": True}
    answer = COMMITTEE.evaluate(atoms.numbers, positions, **options)
    assert answer.forces is None
    assert answer.member_forces is None
    for index, member in enumerate(MEMBERS):
        alone = build_committee([member], dtype=torch.float64)
        expected = alone.evaluate(atoms.numbers, positions, **options).virials[0]
        assert torch.allclose(answer.virials[index], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("periodic", [False, True])
def test_atoms_on_one_spot_are_named(periodic):
    atoms = Atoms("CH2C", [[0, 0, 0], [0, 0, 1.1], [5.0, 1.1, 0], [0, 1.1, 5e-4]])
    atoms.calc = CommitteeCalculator(COMMITTEE)
    if periodic:
        atoms.set_cell([5.0, 6.0, 7.0])
        atoms.pbc = True
        complaint = r"atoms 2 \(H\) and 3 \(C\) lie 5\.0e-04 Å apart, want at least 0\.001 Å"
        with pytest.raises(ModelError, match=complaint):
            atoms.get_potential_energy()
    else:
        assert np.isfinite(atoms.get_potential_energy())
