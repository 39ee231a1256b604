"""ANI as a network on graphs, and the virials of its committee, in float64 with random weights."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.ani.terms import AevSettings
from alloop.potentials.architectures import architecture
from alloop.potentials.committee import build_committee
from alloop.potentials.graphs.graph import Graph
from alloop.potentials.graphs.network import differentiate
from alloop.potentials.member import Member
from alloop.potentials.neighbours import find_pairs

ELEMENTS = (1, 6, 8)
ANI = architecture("ani")


def make_member(seed, activation="silu", hidden=(10, 8, 6), aev=None):
    settings = AniSettings((hidden,) * 3, activation, aev or AevSettings())
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * 0.6
        for name, shape in settings.shapes(ELEMENTS).items()
    }
    energies = {1: -10.7, 6: -48.9, 8: -108.3}
    return Member("ani", ELEMENTS, settings.to_plain(), weights, energies, "test", {})


def shaken(atoms, seed=0):
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.08, atoms.positions.shape)
    return atoms


def crystal():
    """Return a skewed cell, smaller than the cutoff."""
    cell = [[3.9, 0.0, 0.0], [0.4, 4.2, 0.0], [-0.3, 0.5, 4.6]]
    scaled = np.random.default_rng(5).uniform(size=(6, 3))
    return Atoms([1, 1, 6, 6, 8, 1], scaled_positions=scaled, cell=cell, pbc=True)


def graph_of(*structures, dtype=torch.float64):
    """Return structures as one batch whose vectors can be differentiated by."""
    species, structure, centre, other, vectors, first = [], [], [], [], [], 0
    for number, atoms in enumerate(structures):
        cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None
        pairs = find_pairs(torch.tensor(atoms.positions)[None], 5.2, cell)
        species += [ELEMENTS.index(z) for z in atoms.numbers]
        structure += [number] * len(atoms)
        centre.append(pairs.centre + first)
        other.append(pairs.other + first)
        vectors.append(pairs.vectors)
        first += len(atoms)
    return Graph(
        torch.tensor(species),
        torch.tensor(structure),
        len(structures),
        torch.cat(centre),
        torch.cat(other),
        torch.cat(vectors).to(dtype).requires_grad_(),
    )


def ask(committee, atoms, kind="members", **wanted):
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.any() else None
    positions = torch.tensor(atoms.positions)[None]
    return committee.evaluate(atoms.numbers, positions, forces=kind, cell=cell, **wanted)


@pytest.mark.parametrize("activation", ["silu", "gelu", "celu"])
@pytest.mark.parametrize(
    "atoms", [shaken(molecule("CH3CH2OH")), crystal()], ids=["molecule", "cell"]
)
def test_automatic_slopes_are_the_written_ones(activation, atoms):
    member = make_member(1, activation)
    graph = graph_of(atoms)
    energies = ANI.network(member, torch.float64)(graph).energies
    slopes = differentiate(energies, graph, create_graph=False)
    answer = ask(build_committee([member], dtype=torch.float64), atoms, virials=True)
    free = sum(member.atom_energies[z] for z in atoms.numbers)
    assert abs(float(energies.detach()[0]) + free - float(answer.energies[0, 0])) < 1e-10
    assert float(answer.forces.abs().max()) > 1.0
    assert torch.allclose(slopes.forces, answer.member_forces[0, 0], rtol=0, atol=1e-10)
    assert torch.allclose(slopes.virials(graph), answer.virials[0], rtol=0, atol=1e-10)


def test_a_power_that_is_no_integer_has_right_slopes():
    """ANI-2x raises to 14.1."""
    member = make_member(1, aev=replace(AevSettings(), angular_zeta=14.1))
    atoms = shaken(molecule("CH3CH2OH"))
    graph = graph_of(atoms)
    energies = ANI.network(member, torch.float64)(graph).energies
    slopes = differentiate(energies, graph, create_graph=False)
    answer = ask(build_committee([member], dtype=torch.float64), atoms)
    assert torch.allclose(slopes.forces, answer.member_forces[0, 0], rtol=0, atol=1e-10)
    whole = build_committee([make_member(1)], dtype=torch.float64)
    assert not torch.allclose(ask(whole, atoms).forces, answer.forces, atol=1e-2)


def test_parameters_have_the_names_of_the_weights():
    member = make_member(2)
    network = ANI.network(member, torch.float64)
    assert list(dict(network.named_parameters())) == list(member.weights)
    state = network.state_dict()
    assert all(torch.equal(state.pop(name), weight) for name, weight in member.weights.items())
    assert not state
    assert ANI.cutoff(member) == 5.2


def test_what_a_transfer_keeps_are_linear_layers_0_and_2():
    names = make_member(2).weights
    kept = {name for name in names if any(re.search(pattern, name) for pattern in ANI.frozen)}
    assert kept == {name for name in names if name.split(".")[1] in "02"}
    assert 0 < len(kept) < len(names)


def test_a_batch_in_any_order_of_its_pairs_gives_what_single_structures_give():
    structures = [shaken(molecule("CH3OH"), 3), Atoms("O"), crystal(), shaken(molecule("H2O"), 4)]
    network = ANI.network(make_member(3), torch.float64)
    graph = graph_of(*structures)
    order = torch.randperm(len(graph.centre), generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        graph,
        centre=graph.centre[order],
        other=graph.other[order],
        vectors=graph.vectors.detach()[order].requires_grad_(),
    )
    energies = network(shuffled).energies
    forces = differentiate(energies, shuffled, create_graph=False).forces
    first = 0
    for index, atoms in enumerate(structures):
        lone = graph_of(atoms)
        alone = network(lone).energies
        slopes = differentiate(alone, lone, create_graph=False)
        assert torch.allclose(energies[index], alone[0], rtol=0, atol=1e-10)
        assert torch.allclose(forces[first : first + len(atoms)], slopes.forces, atol=1e-10)
        first += len(atoms)
    assert (forces[structures[0].get_global_number_of_atoms()] == 0).all()  # the lone atom


def test_single_precision_is_close():
    network = ANI.network(make_member(1), torch.float32)
    exact = ANI.network(make_member(1), torch.float64)
    atoms = shaken(molecule("CH3CH2OH"))
    rounded = network(graph_of(atoms, dtype=torch.float32)).energies
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded.double(), exact(graph_of(atoms)).energies, atol=1e-4)


@pytest.mark.parametrize("activation", ["silu", "celu"])
def test_gradients_flow_through_a_step_of_dynamics(activation):
    """Forces move the atoms, and the loss is of the forces where they went: against differences."""
    network = ANI.network(make_member(4, activation), torch.float64)
    start = graph_of(shaken(molecule("CH3OH"), 5))

    def loss():
        here = differentiate(network(start).energies, start, create_graph=True).forces
        moved = 0.002 * here
        vectors = start.vectors + moved[start.other] - moved[start.centre]
        there = replace(start, vectors=vectors)
        return (
            differentiate(network(there).energies, there, create_graph=True).forces.square().sum()
        )

    weights = [network.get_parameter(name) for name in ("C.0.weight", "H.2.weight", "O.3.bias")]
    found = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
    step = 1e-5
    for weight, slope in zip(weights[:2], found, strict=False):
        entry = int(slope.abs().argmax())
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                weight.view(-1)[entry] += sign * step
            values.append(float(loss().detach()))
            with torch.no_grad():
                weight.view(-1)[entry] -= sign * step
        expected = (values[0] - values[1]) / (2.0 * step)
        assert abs(expected) > 1.0
        assert float(slope.view(-1)[entry]) == pytest.approx(expected, rel=1e-6)
    assert (found[2] == 0).all()  # forces know no constant


@pytest.mark.parametrize("atoms", [shaken(molecule("CH3OH")), crystal()], ids=["molecule", "cell"])
def test_virials_are_the_slope_of_the_energy_by_strain(atoms):
    committee = build_committee([make_member(6), make_member(7)], dtype=torch.float64)
    virials = ask(committee, atoms, virials=True).virials[:, 0].numpy()
    step = 1e-5
    for row, column in ((0, 0), (0, 1), (2, 1)):
        energies = []
        for sign in (1.0, -1.0):
            strain = np.eye(3)
            strain[row, column] += sign * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain)
            strained.positions = atoms.positions @ strain
            energies.append(ask(committee, strained, "none").energies[:, 0].numpy())
        slope = (energies[0] - energies[1]) / (2.0 * step)
        assert np.abs(slope).max() > 0.1
        assert np.allclose(virials[:, row, column], slope, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["none", "mean", "members"])
def test_virials_of_each_member_come_with_any_kind_of_forces(kind):
    committee = build_committee([make_member(6), make_member(7)], dtype=torch.float64)
    frames = [shaken(molecule("CH3OH"), seed) for seed in range(120)]  # more than one chunk
    positions = torch.tensor(np.array([atoms.positions for atoms in frames]))
    numbers = frames[0].numbers
    answer = committee.evaluate(numbers, positions, forces=kind, virials=True)
    assert answer.virials.shape == (2, 120, 3, 3)
    for index in (0, 99, 119):
        alone = ask(committee, frames[index], virials=True)
        assert torch.allclose(answer.virials[:, index], alone.virials[:, 0], atol=1e-10)
        if kind != "none":
            assert torch.allclose(answer.forces[index], alone.forces[0], atol=1e-10)
    assert (answer.forces is None) == (kind == "none")
    assert (answer.member_forces is None) == (kind != "members")
    assert committee.evaluate(numbers, positions[:3], forces=kind).virials is None


def test_atoms_on_one_spot_have_no_energy_and_spoil_nobody_elses():
    committee = build_committee([make_member(6), make_member(7)])
    positions = torch.tensor(
        np.array([shaken(molecule("H2O"), seed).positions for seed in range(3)])
    )
    sound = committee.evaluate(molecule("H2O").numbers, positions, forces="members", virials=True)
    positions[1, 2] = positions[1, 1] + 1e-4
    answer = committee.evaluate(molecule("H2O").numbers, positions, forces="members", virials=True)
    for name in ("energies", "member_forces", "virials"):
        mine, theirs = getattr(answer, name), getattr(sound, name)
        assert torch.isnan(mine[:, 1]).all()
        assert torch.equal(mine[:, [0, 2]], theirs[:, [0, 2]])
    assert torch.isnan(answer.forces[1]).all()
