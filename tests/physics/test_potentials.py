"""Laws that every committee must obey, in float64, with random weights: no training involved."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from alloop.potentials.ani.interop import to_torchani
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.calculator import CommitteeCalculator
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.units import EV_PER_HARTREE

ELEMENTS = (1, 6, 8)
LEVELS = {1: -10.7, 6: -48.9, 8: -108.3}


def make_member(seed, elements=ELEMENTS, hidden=(24, 16), activation="silu"):
    settings = AniSettings(tuple(hidden for _ in elements), activation)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.6
        for name, shape in settings.shapes(elements).items()
    }
    energies = {z: LEVELS.get(z, -300.0) for z in elements}
    return Member("ani", elements, settings.to_plain(), weights, energies, "test", {})


MEMBERS = [make_member(seed) for seed in range(3)]
COMMITTEE = build_committee(MEMBERS, dtype=torch.float64)


def shaken(atoms, seed, amplitude=0.08):
    atoms = atoms.copy()
    noise = np.random.default_rng(seed).normal(0.0, amplitude, (len(atoms), 3))
    atoms.set_positions(atoms.positions + noise)
    return atoms


def ethanol(seed=0):
    return shaken(molecule("CH3CH2OH"), seed)


def ask(atoms, kind="members", committee=COMMITTEE):
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None
    positions = torch.tensor(atoms.positions)[None]
    return committee.evaluate(atoms.numbers, positions, forces=kind, cell=cell)


def crystal():
    """Return a skewed cell, smaller than the cutoff, that holds all three elements."""
    cell = [[3.9, 0.0, 0.0], [0.4, 4.2, 0.0], [-0.3, 0.5, 4.6]]
    scaled = np.random.default_rng(5).uniform(size=(6, 3))
    return Atoms([1, 1, 6, 6, 8, 1], scaled_positions=scaled, cell=cell, pbc=True)


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
def test_energy_is_invariant_and_forces_turn_with_the_molecule(improper):
    atoms = ethanol()
    turn = Rotation.random(rng=3).as_matrix() * (-1.0 if improper else 1.0)
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T + [3.0, -1.0, 0.5]
    before, after = ask(atoms), ask(turned)
    assert torch.allclose(before.energies, after.energies, rtol=0, atol=1e-9)
    expected = before.member_forces.numpy() @ turn.T
    assert np.allclose(after.member_forces.numpy(), expected, atol=1e-9)


def test_like_atoms_can_be_exchanged_and_the_order_does_not_matter():
    atoms = ethanol()
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = ask(atoms), ask(atoms[order])
    assert torch.allclose(before.energies, after.energies, rtol=0, atol=1e-9)
    assert torch.allclose(before.member_forces[:, :, order], after.member_forces, atol=1e-9)


@pytest.mark.parametrize(
    "atoms",
    [ethanol(), crystal(), shaken(bulk("C", cubic=True), 2), molecule("O2"), molecule("CO2")],
    ids=["ethanol", "small skewed cell", "diamond", "open-shell O2", "linear CO2"],
)
def test_forces_are_the_slope_of_the_energy_of_each_member(atoms):
    forces = ask(atoms).member_forces[:, 0].numpy()
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (len(atoms) - 1, 1)]:
        energies = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(ask(moved, "none").energies[:, 0].numpy())
        slope = (energies[0] - energies[1]) / (2.0 * step)
        # Random weights make third derivatives of 1e3 eV/Å³.
        assert np.allclose(forces[:, atom, axis], -slope, rtol=1e-6, atol=2e-5)


def test_a_molecule_feels_no_net_force_and_no_torque():
    atoms = ethanol()
    forces = ask(atoms).member_forces[:, 0].numpy()
    assert np.abs(forces).max() > 1.0
    assert np.abs(forces.sum(axis=1)).max() < 1e-9
    assert np.abs(np.cross(atoms.positions, forces).sum(axis=1)).max() < 1e-9


def test_two_far_copies_have_twice_the_energy():
    atoms = ethanol()
    far = atoms.copy()
    far.translate([40.0, 0.0, 0.0])
    one, two = ask(atoms), ask(atoms + far)
    assert torch.allclose(two.energies, 2.0 * one.energies, rtol=0, atol=1e-9)
    assert torch.allclose(two.forces[:, : len(atoms)], one.forces, atol=1e-9)


def test_a_supercell_has_its_energy_in_proportion():
    cell = crystal()
    one, four = ask(cell), ask(cell.repeat((2, 1, 2)))
    assert torch.allclose(four.energies, 4.0 * one.energies, rtol=0, atol=1e-8)
    assert torch.allclose(four.forces[:, : len(cell)], one.forces, atol=1e-8)


def test_atoms_that_left_the_cell_are_found_again():
    inside = crystal()
    outside = inside.copy()
    outside.positions += inside.cell.array[[0, 1, 2, 0, 1, 2]] * [[7], [-3], [1], [0], [2], [-9]]
    assert torch.allclose(ask(inside).energies, ask(outside).energies, rtol=0, atol=1e-8)
    assert torch.allclose(ask(inside).forces, ask(outside).forces, atol=1e-7)


def test_a_direction_that_is_not_periodic_has_no_images():
    slab = crystal()
    slab.pbc = (True, True, False)
    cell = torch.tensor(slab.cell.array * np.array([[1], [1], [0]]))
    positions = torch.tensor(slab.positions)[None]
    flat = COMMITTEE.evaluate(slab.numbers, positions, forces="mean", cell=cell)
    roomy = slab.copy()
    roomy.pbc = True
    roomy.cell[2] = [0.0, 0.0, 30.0]
    assert torch.allclose(flat.energies, ask(roomy).energies, rtol=0, atol=1e-9)
    assert not torch.allclose(flat.energies, ask(crystal()).energies, rtol=0, atol=1e-3)


def test_a_batch_gives_what_single_molecules_give():
    frames = [ethanol(seed) for seed in range(70)]  # more than one chunk
    positions = torch.tensor(np.array([atoms.positions for atoms in frames]))
    batch = COMMITTEE.evaluate(frames[0].numbers, positions, forces="members")
    for index in (0, 1, 65, 69):
        single = ask(frames[index])
        assert torch.allclose(batch.energies[:, index], single.energies[:, 0], rtol=0, atol=1e-9)
        assert torch.allclose(batch.member_forces[:, index], single.member_forces[:, 0], atol=1e-9)


def test_mean_forces_are_the_mean_of_member_forces_and_of_lone_members():
    atoms = ethanol()
    members, mean = ask(atoms), ask(atoms, "mean")
    assert mean.member_forces is None
    assert torch.allclose(members.forces, members.member_forces.mean(0), atol=1e-12)
    assert torch.allclose(mean.forces, members.forces, atol=1e-10)
    for index, member in enumerate(MEMBERS):
        alone = ask(atoms, committee=build_committee([member], dtype=torch.float64))
        assert torch.allclose(alone.energies[0], members.energies[index], rtol=0, atol=1e-9)
        assert torch.allclose(alone.forces, members.member_forces[index], atol=1e-9)


@pytest.mark.parametrize("cutoff", [5.2, 3.5], ids=["radial", "angular"])
def test_energy_and_forces_fade_smoothly_at_the_cutoff(cutoff):
    """An atom that crosses a cutoff meets no step: forces change in proportion to the path."""

    def carbon_at(distance):
        return Atoms("OHC", [[0, 0, 0], [-0.3, 0.9, 0], [distance, 0, 0]])

    def forces(distance):
        return ask(carbon_at(distance)).member_forces

    across = [forces(cutoff + offset) for offset in (-2e-4, -1e-4, 1e-4, 2e-4)]
    changes = [float((b - a).abs().max()) for a, b in pairwise(across)]
    inside = float((forces(cutoff - 0.05) - forces(cutoff - 0.0501)).abs().max())
    assert max(changes) < max(5.0 * inside, 1e-4)
    if cutoff == 5.2:
        apart = ask(carbon_at(9.0)).energies - ask(carbon_at(cutoff + 1e-9)).energies
        assert float(apart.abs().max()) < 1e-9
        assert float(forces(cutoff - 0.3)[:, 0, 2].abs().max()) > 1e-4


@pytest.mark.parametrize("activation", ["silu", "gelu", "celu"])
@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "cell"])
def test_agrees_with_torchani_for_the_same_weights(activation, periodic):
    members = [make_member(seed, activation=activation) for seed in (11, 12)]
    atoms = crystal() if periodic else ethanol()
    model = to_torchani(members)
    positions = torch.tensor(atoms.positions)[None].requires_grad_()
    lattice = {"cell": torch.tensor(atoms.cell.array), "pbc": torch.tensor(atoms.pbc)}
    energies = model(
        (torch.tensor(atoms.numbers)[None], positions),
        ensemble_values=True,
        **(lattice if periodic else {}),
    ).energies
    answer = ask(atoms, committee=build_committee(members, dtype=torch.float64))
    for index in range(2):
        (slope,) = torch.autograd.grad(energies[index, 0], positions, retain_graph=True)
        energy = energies[index, 0].detach() * EV_PER_HARTREE
        assert abs(float(energy - answer.energies[index, 0])) < 1e-8
        assert torch.allclose(-slope * EV_PER_HARTREE, answer.member_forces[index], atol=1e-8)


def test_single_precision_is_close_enough_for_dynamics():
    single = build_committee(MEMBERS, dtype=torch.float32)
    atoms = ethanol()
    exact, rounded = ask(atoms), ask(atoms, committee=single)
    assert rounded.energies.dtype == rounded.member_forces.dtype == torch.float64
    scale = float(exact.member_forces.abs().max())
    # Measured 3e-6 of the largest force.
    assert float((rounded.member_forces - exact.member_forces).abs().max()) < 2e-5 * scale
    assert float((rounded.energies - exact.energies).abs().max()) < 1e-4


def test_calculator_gives_the_committee_and_its_spread():
    atoms = ethanol()
    atoms.calc = CommitteeCalculator(COMMITTEE, energy_calibration=2.0, force_calibration=3.0)
    answer = ask(atoms)
    energies, forces = answer.energies[:, 0].numpy(), answer.member_forces[:, 0].numpy()
    assert atoms.get_potential_energy() == pytest.approx(energies.mean(), abs=1e-9)
    assert np.allclose(atoms.get_forces(), forces.mean(0), atol=1e-9)
    results = atoms.calc.results
    assert results["energy_std"] == pytest.approx(np.std(energies, ddof=1))
    assert results["energy_std_per_sqrt_atom"] == pytest.approx(results["energy_std"] / 3.0)
    deviations = forces - forces.mean(0)
    spread = np.sqrt((deviations**2).sum(axis=(0, 2)) / 2)
    assert np.allclose(results["forces_std"], spread)
    assert results["forces_std_max"] == pytest.approx(spread.max())
    assert results["energy_std_calibrated"] == pytest.approx(2.0 * results["energy_std"])
    assert np.allclose(results["forces_std_calibrated"], 3.0 * spread)
    assert results["forces_std_max_calibrated"] == pytest.approx(3.0 * spread.max())
    assert np.allclose(results["forces_comm"], forces)
    periodic = crystal()
    periodic.calc = atoms.calc
    assert periodic.get_potential_energy() == pytest.approx(float(ask(periodic).energies.mean()))


def test_mixed_shapes_answer_in_the_order_they_were_given():
    small, large = make_member(1), make_member(2, hidden=(20, 12, 8))
    other = make_member(3, elements=(1, 6, 7, 8))
    members = [small, large, other, make_member(4)]
    mixed = build_committee(members, dtype=torch.float64)
    assert mixed.n_members == 4
    assert mixed.elements == (1, 6, 8)
    atoms = ethanol()
    answer = ask(atoms, committee=mixed)
    for index, member in enumerate(members):
        alone = ask(atoms, committee=build_committee([member], dtype=torch.float64))
        assert torch.allclose(answer.energies[index], alone.energies[0], rtol=0, atol=1e-9)
        assert torch.allclose(answer.member_forces[index], alone.forces, atol=1e-9)
    assert torch.allclose(ask(atoms, "mean", mixed).forces, answer.forces, atol=1e-9)
    assert ask(atoms, "none", mixed).forces is None
