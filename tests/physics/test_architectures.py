"""Laws that every architecture must obey, in float64, with random weights: no training involved.

Whatever is registered in ``ARCHITECTURES`` is tested here, asked as a user asks it: in a committee.
"""

from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from alloop.errors import ModelError
from alloop.potentials.architectures import ARCHITECTURES
from alloop.potentials.committee import build_committee
from alloop.potentials.files import load_member, save_member
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.graphs.graph import GraphStore
from alloop.potentials.member import Member

ELEMENTS = (1, 6, 8)
LEVELS = {1: -10.7, 6: -48.9, 8: -108.3}
N_MEMBERS = 2
NEEDS_MACE = pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed")

pytestmark = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=NEEDS_MACE if name == "mace" else ()) for name in ARCHITECTURES],
)


def frames_of(*structures):
    """Return structures as groups for a fit, each a group of its own."""
    return [
        FrameGroup(
            tuple(atoms.numbers.tolist()),
            torch.tensor(atoms.positions)[None],
            torch.tensor(atoms.cell.array)[None] if atoms.pbc.any() else None,
            torch.ones(1, dtype=torch.bool),
            torch.tensor([index]),
        )
        for index, atoms in enumerate(structures)
    ]


@lru_cache
def make_member(name, seed):
    """Return a member with the weights that a fit would start from."""
    kind = ARCHITECTURES[name]
    settings = kind.settings("small", ELEMENTS)
    sample = frames_of(*(ethanol(k) for k in range(9)), crystal(), molecule("H2O"), molecule("O2"))
    fit = kind.trainable(sample, ELEMENTS, settings, LEVELS, scale=1.0, seed=seed, start=None)
    generator = torch.Generator().manual_seed(seed)
    # Layers that start from zero would make every law hold for nothing.
    weights = {
        key: 0.01 * torch.randn(w.shape, generator=generator)
        if key in fit.layout and not w.any()
        else w
        for key, w in fit.export(fit.start).items()
    }
    return Member(name, ELEMENTS, settings, weights, LEVELS, "test", {})


@lru_cache
def members(name):
    return [make_member(name, seed) for seed in range(N_MEMBERS)]


@lru_cache
def committee(name):
    return build_committee(members(name), dtype=torch.float64)


def ask(name, atoms, forces="members", **options):
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None
    positions = torch.tensor(atoms.positions)[None]
    return committee(name).evaluate(atoms.numbers, positions, forces=forces, cell=cell, **options)


def shaken(formula, seed):
    atoms = molecule(formula)
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.08, (len(atoms), 3))
    return atoms


def ethanol(seed=0):
    return shaken("CH3CH2OH", seed)


def crystal():
    """Return a skewed cell, smaller than the cutoff, that holds all three elements."""
    cell = [[4.9, 0.0, 0.0], [0.4, 4.2, 0.0], [-0.3, 0.5, 4.6]]
    scaled = [[0, 0, 0], [0.3, 0.4, 0.2], [0.7, 0.6, 0.3], [0.2, 0.5, 0.7], [0.6, 0.1, 0.8]]
    return Atoms([6, 1, 8, 1, 6], scaled_positions=scaled, cell=cell, pbc=True)


def close(one, other, atol=1e-9):
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=0.0, atol=atol)


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
def test_energy_is_invariant_and_forces_turn_with_the_molecule(name, improper):
    atoms = ethanol()
    turn = Rotation.random(rng=3).as_matrix() * (-1.0 if improper else 1.0)
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T + [3.0, -1.0, 0.5]
    before, after = ask(name, atoms, virials=True), ask(name, turned, virials=True)
    assert close(before.energies, after.energies)
    assert close(after.member_forces, before.member_forces.numpy() @ turn.T)
    assert close(after.virials, turn @ before.virials.numpy() @ turn.T)
    # Otherwise this file would prove nothing; and the members must differ.
    assert float(before.member_forces.abs().amax((1, 2, 3)).min()) > 1e-3
    assert float((before.member_forces[0] - before.member_forces[1]).abs().max()) > 1e-4


def test_like_atoms_can_be_exchanged_and_the_order_does_not_matter(name):
    atoms = ethanol()
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = ask(name, atoms), ask(name, atoms[order])
    assert close(before.energies, after.energies)
    assert close(before.member_forces[:, :, order], after.member_forces)


@pytest.mark.parametrize("atoms", [ethanol(), crystal()], ids=["molecule", "small skewed cell"])
def test_forces_are_the_slope_of_the_energy_of_each_member(name, atoms):
    forces = ask(name, atoms).member_forces[:, 0].numpy()
    places = [(0, 0), (1, 2), (len(atoms) - 1, 1)]
    moved = torch.tensor(atoms.positions).repeat(2 * len(places), 1, 1)
    step = 1e-4
    for index, (atom, axis) in enumerate(places):
        moved[2 * index, atom, axis] += step
        moved[2 * index + 1, atom, axis] -= step
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None
    energies = committee(name).evaluate(atoms.numbers, moved, forces="none", cell=cell).energies
    slopes = (energies[:, ::2] - energies[:, 1::2]).numpy() / (2.0 * step)
    expected = np.stack([-forces[:, atom, axis] for atom, axis in places], axis=1)
    # Third derivatives of random networks reach 1e2 eV/Å³.
    assert np.allclose(slopes, expected, rtol=1e-5, atol=1e-5)


def test_virials_are_the_slope_of_the_energy_by_strain(name):
    atoms, step = crystal(), 1e-4
    virials = ask(name, atoms, "none", virials=True).virials[:, 0]
    assert close(virials, virials.mT)
    assert float(virials.abs().max()) > 1e-3
    for row, column in [(0, 0), (1, 2), (2, 0)]:
        energies = []
        for sign in (1.0, -1.0):
            strain = np.eye(3)
            strain[row, column] += sign * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(ask(name, strained, "none").energies[:, 0])
        slope = (energies[0] - energies[1]) / (2.0 * step)
        assert torch.allclose(virials[:, row, column], slope, rtol=1e-5, atol=1e-4)


def test_two_far_copies_have_twice_the_energy(name):
    atoms = ethanol()
    far = atoms.copy()
    far.translate([40.0, 0.0, 0.0])
    one, two = ask(name, atoms), ask(name, atoms + far)
    assert close(two.energies, 2.0 * one.energies)
    assert close(two.member_forces[:, :, : len(atoms)], one.member_forces)


def test_a_supercell_has_its_energy_in_proportion(name):
    cell = crystal()
    one, two = ask(name, cell, virials=True), ask(name, cell.repeat((2, 1, 1)), virials=True)
    assert close(two.energies, 2.0 * one.energies, 1e-8)
    assert close(two.virials, 2.0 * one.virials, 1e-7)
    assert close(two.member_forces[:, :, : len(cell)], one.member_forces, 1e-8)


def test_energy_and_forces_fade_at_the_cutoff(name):
    cutoff = ARCHITECTURES[name].cutoff(members(name)[0])

    def at(distance):
        answer = ask(name, Atoms("OHC", [[0, 0, 0], [-0.3, 0.9, 0], [distance, 0, 0]]))
        return answer.energies[:, 0], answer.member_forces[:, 0]

    (energy, force), (energy_outside, force_outside) = at(cutoff - 1e-4), at(cutoff + 1e-4)
    (energy_near, force_near), (energy_far, force_far) = at(0.7 * cutoff), at(2.0 * cutoff)
    assert close(energy_outside, energy_far)
    assert close(force_outside, force_far)
    # A force without an envelope would jump by about what it is.
    reach = (force_near - force_far).abs().amax((1, 2))
    assert bool((reach > 1e-6).all())
    assert bool(((force - force_outside).abs().amax((1, 2)) < 1e-3 * reach).all())
    assert bool(((energy - energy_outside).abs() < 1e-4 * (energy_near - energy_far).abs()).all())


def test_a_batch_gives_what_single_molecules_give(name):
    frames = [shaken("H2O", seed) for seed in range(210)]  # more than one chunk
    numbers = frames[0].numbers
    positions = torch.tensor(np.array([atoms.positions for atoms in frames]))
    batch = committee(name).evaluate(numbers, positions, forces="members", virials=True)
    for index in (0, 199, 200, 209):
        single = ask(name, frames[index], virials=True)
        assert close(batch.energies[:, index], single.energies[:, 0])
        assert close(batch.member_forces[:, index], single.member_forces[:, 0])
        assert close(batch.virials[:, index], single.virials[:, 0])
    mean = committee(name).evaluate(numbers, positions[:3], forces="mean")
    assert close(mean.forces, batch.member_forces[:, :3].mean(0))
    assert mean.member_forces is None
    assert mean.virials is None
    nothing = committee(name).evaluate(numbers, positions[:0], forces="members")
    assert nothing.energies.shape == (N_MEMBERS, 0)
    assert nothing.member_forces.shape == (N_MEMBERS, 0, 3, 3)


def test_a_lone_atom_has_an_energy_and_feels_nothing(name):
    alone = [ask(name, Atoms([z], [[1.0, 2.0, 3.0]]), virials=True) for z in (1, 8)]
    for answer in alone:
        assert bool(torch.isfinite(answer.energies).all())
        assert not answer.member_forces.any()
        assert not answer.virials.any()
    apart = ask(name, Atoms("HO", [[0, 0, 0], [0, 50.0, 0]]))
    assert close(apart.energies, alone[0].energies + alone[1].energies)
    assert not apart.member_forces.any()


def test_a_mixed_batch_gives_what_single_structures_give(name):
    structures = [ethanol(1), crystal(), molecule("H2O"), Atoms("O"), ethanol(2)]
    kind, member = ARCHITECTURES[name], members(name)[0]
    network = kind.network(member, torch.float64)
    store = GraphStore(frames_of(*structures), ELEMENTS, kind.cutoff(member))
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        energies = network(store.graph(order, torch.float64)).energies
    for index, energy in zip(order.tolist(), energies.tolist(), strict=True):
        atoms = structures[index]
        expected = float(ask(name, atoms, "none").energies[0, 0])
        assert energy + sum(LEVELS[z] for z in atoms.numbers) == pytest.approx(expected, abs=1e-8)


def test_broken_replicas_are_nan_and_the_others_are_not(name):
    atoms = ethanol()
    positions = torch.tensor(atoms.positions).repeat(4, 1, 1)
    sound = committee(name).evaluate(atoms.numbers, positions, forces="members", virials=True)
    positions[1, 0, 2] = torch.inf
    positions[2, 4] = positions[2, 7] + 5e-4
    answer = committee(name).evaluate(atoms.numbers, positions, forces="members", virials=True)
    for before, after in [
        (sound.energies, answer.energies),
        (sound.member_forces, answer.member_forces),
        (sound.virials, answer.virials),
    ]:
        assert bool(after[:, 1:3].isnan().all())
        assert close(after[:, [0, 3]], before[:, [0, 3]])


def test_an_element_it_does_not_know_is_named(name):
    with pytest.raises(ModelError, match="describes H, C, O and was given N"):
        ask(name, molecule("NH3"))


def test_a_member_file_gives_the_member_back(name, tmp_path):
    paths = [tmp_path / f"{index}.pt" for index in range(N_MEMBERS)]
    for path, member in zip(paths, members(name), strict=True):
        save_member(path, member)
    atoms = ethanol()
    back = build_committee([load_member(path) for path in paths], dtype=torch.float64)
    answer = back.evaluate(atoms.numbers, torch.tensor(atoms.positions)[None], forces="members")
    assert torch.equal(answer.energies, ask(name, atoms).energies)
    assert torch.equal(answer.member_forces, ask(name, atoms).member_forces)


def test_a_member_whose_content_does_not_fit_is_refused_in_one_line(name, tmp_path):
    member = members(name)[0]
    some = next(key for key, w in member.weights.items() if w.dim() == 2)
    weights, settings = dict(member.weights), dict(member.settings)
    wrong = [
        {"weights": {key: w for key, w in weights.items() if key != some}},
        {"weights": weights | {some: weights[some][:, 1:]}},
        {"weights": weights | {"another": torch.zeros(2)}},
        {"elements": (1, 6)},
        {"settings": dict(list(settings.items())[1:])},
        {"settings": settings | {"another": 3}},
        {"settings": settings | {next(iter(settings)): "three"}},
    ]
    if "cutoff" in settings:
        wrong += [{"settings": settings | {"cutoff": value}} for value in (0.0, -4.0, np.nan)]
    for changes in wrong:
        save_member(tmp_path / "bad.pt", replace(member, **changes))
        with pytest.raises(ModelError, match=r"bad\.pt cannot be used") as error:
            load_member(tmp_path / "bad.pt")
        assert "\n" not in str(error.value)
