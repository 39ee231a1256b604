"""HIP-NN against its equations written out atom by atom, and against the authors' program."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from alloop.errors import ModelError
from alloop.potentials.graphs.network import differentiate
from alloop.potentials.graphs.rows import Product, ProductOfTransposed, ProductWithTransposed, Rows
from alloop.potentials.hipnn import HIPNN, Hipnn, HipnnSettings, Sensitivities, Surroundings
from tests.physics.graph_samples import (
    ELEMENTS,
    energies_of,
    ethanol,
    forces_of,
    graph_of,
    jumps_at_cutoff,
    lone_atom,
    small_cell,
    worst_slope,
)

SMALL, PAPER = HIPNN.sizes["small"], HIPNN.sizes["paper"]
ORDERS = pytest.mark.parametrize("order", [0, 1])
TINY = HipnnSettings(features=5, interactions=3, onsite=1, sensitivities=4, cutoff=4.0)


def network_of(shape, seed=0):
    torch.manual_seed(seed)
    network = Hipnn(shape, len(ELEMENTS)).double()
    with torch.no_grad():
        # So that it matters which element and which layer each of them belongs to.
        network.scale.copy_(torch.tensor([1.0, 0.8, 1.2]))
        network.shift.copy_(torch.tensor([0.1, -0.2, 0.3]))
        for block in network.blocks:
            widths = block.interaction.sensitivities.widths
            widths.mul_(0.8 + 0.4 * torch.rand_like(widths))
    return network


def terms_written_out(network, shape, graph):
    """Return E_i^n, (n_atoms, interactions), from loops over atoms, pairs and sensitivities."""
    w = {name: value.detach().numpy() for name, value in network.state_dict().items()}

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)

    def residual(name, x, z):
        kept = linear(f"{name}.adjust", x) if f"{name}.adjust.weight" in w else x
        return linear(f"{name}.outward", np.log1p(np.exp(z))) + kept

    x = list(np.eye(len(ELEMENTS))[graph.species])
    terms = []
    for n in range(shape.interactions):
        v = w[f"blocks.{n}.interaction.weights"]
        mu = w[f"blocks.{n}.interaction.sensitivities.centres"]
        sigma = w[f"blocks.{n}.interaction.sensitivities.widths"]
        scalars = np.zeros((len(x), shape.features))
        vectors = np.zeros((len(x), 3, shape.features))
        for i, j, vector in zip(graph.centre, graph.other, graph.vectors.detach(), strict=True):
            r = np.linalg.norm(vector)
            for nu in range(shape.sensitivities):
                s = math.exp(-0.5 * (sigma[nu] * (1.0 / r - 1.0 / mu[nu])) ** 2)
                s *= math.cos(0.5 * math.pi * r / shape.cutoff) ** 2
                scalars[i] += s * (x[j] @ v[:, nu])
                vectors[i] += s * np.outer(vector.numpy() / r, x[j] @ v[:, nu])
        for i, before in enumerate(list(x)):
            z = scalars[i] + linear(f"blocks.{n}.interaction.itself", before)
            if shape.tensor_order:
                norm = np.sqrt((vectors[i] ** 2).sum(0) + 1e-6)
                z += w[f"blocks.{n}.interaction.norms"] * norm
            x[i] = residual(f"blocks.{n}.residuals.0", before, z)
            for k in range(shape.onsite):
                z = linear(f"blocks.{n}.onsite.{k}", x[i])
                x[i] = residual(f"blocks.{n}.residuals.{k + 1}", x[i], z)
        terms.append([linear(f"readout.{n}", row)[0] for row in x])
    return np.array(terms).T


def test_sensitivities_by_hand():
    """Of two functions with maxima at 1 and 2 Å, at 1.5 Å of a cutoff of 3 Å."""
    shape = replace(TINY, sensitivities=2, shortest=1.0, longest=2.0, cutoff=3.0)
    functions = Sensitivities(shape).double()
    assert functions.centres.tolist() == [2.0, 1.0]
    assert functions.widths.tolist() == [2.0, 2.0]
    graph = graph_of(Atoms([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]), cutoff=3.0)
    # 1/1.5 - 1/2 = 1/6 and 1/1.5 - 1 = -1/3; halfway to the cutoff half is left.
    expected = [0.5 * math.exp(-0.5 * (2 / 6) ** 2), 0.5 * math.exp(-0.5 * (2 / 3) ** 2)]
    around = Surroundings(graph, shape, len(ELEMENTS))
    for radial in (around.sent, around.received):
        assert functions(*radial).tolist() == [[pytest.approx(expected)]] * 2


@ORDERS
@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "cell"])
def test_energy_terms_are_the_equations_written_out(order, atoms):
    shape = replace(TINY, tensor_order=order)
    network, graph = network_of(shape), graph_of(atoms, cutoff=shape.cutoff)
    expected = terms_written_out(network, shape, graph)
    assert np.allclose(network.terms(graph).detach(), expected, rtol=0.0, atol=1e-10)
    # The directions matter where they should, and only there.
    assert order == 0 or not np.allclose(
        expected, terms_written_out(network, replace(shape, tensor_order=0), graph)
    )


def test_hierarchical_terms_sum_to_the_energy():
    network, graph = network_of(TINY), graph_of(ethanol(), lone_atom(), cutoff=TINY.cutoff)
    terms = network.terms(graph).sum(1) * network.scale[graph.species]
    atomic = (terms + network.shift[graph.species]).detach()
    expected = [float(atomic[:9].sum()), float(atomic[9:].sum())]
    assert network(graph).energies.tolist() == pytest.approx(expected)


def test_penalty_is_the_non_hierarchicality():
    network, graph = network_of(TINY), graph_of(ethanol(), lone_atom(), cutoff=TINY.cutoff)
    expected = []
    for atoms in (range(9), range(9, 10)):
        squares = (network.terms(graph)[list(atoms)].detach().numpy()) ** 2
        expected.append(
            sum(e[n] / (e[n] + e[n - 1]) for e in squares for n in range(1, TINY.interactions))
        )
    assert network(graph).penalty.tolist() == pytest.approx(expected)
    # Each of the two ratios of an atom lies between 0 and 1, and a silent layer counts nothing.
    assert 0.0 < expected[0] < 18.0
    with torch.no_grad():
        for readout in network.readout[1:]:
            readout.weight.zero_()
            readout.bias.zero_()
    assert network(graph).penalty.tolist() == [0.0, 0.0]
    assert all(torch.isfinite(p.grad).all() for p in gradients_of_penalty(network, graph))


def gradients_of_penalty(network, graph):
    network(graph).penalty.sum().backward()
    return [p for p in network.parameters() if p.grad is not None]


@ORDERS
@pytest.mark.parametrize("interactions", [1, 2])
def test_number_of_parameters(order, interactions):
    """Counted from the equations; two blocks of 80 features with 3 elements have 230,805 of order 0
    in the authors' program, where E⁰ stands for our shift; widths and places are learned."""
    shape = replace(
        PAPER, sensitivities=20, tensor_order=order, interactions=interactions, features=80
    )
    first = 3 * 20 * 80 + 3 * 80 + 80 + 80 * 80 + 80 + 3 * 80
    later = 80 * 20 * 80 + 2 * (80 * 80 + 80)
    onsite = 3 * 2 * (80 * 80 + 80)
    each = onsite + 2 * 20 + 80 + 1 + 80 * order
    expected = first + (interactions - 1) * later + interactions * each + 2 * 3
    network = network_of(shape)
    assert sum(p.numel() for p in network.parameters()) == expected
    if (order, interactions) == (0, 2):
        assert expected - 2 * 3 == 230_805 - 3


@ORDERS
@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "cell"])
def test_forces_and_virial_are_slopes(order, atoms):
    assert worst_slope(network_of(replace(SMALL, tensor_order=order)), atoms) < 2e-5


@ORDERS
def test_energy_does_not_depend_on_orientation_or_order(order):
    network, atoms = network_of(replace(SMALL, tensor_order=order)), ethanol()
    turned = atoms[np.random.default_rng(0).permutation(len(atoms))]
    turned.positions = turned.positions @ Rotation.random(rng=1).as_matrix() + 2.0
    mirrored = atoms.copy()
    mirrored.positions *= -1.0
    energies = energies_of(network, atoms, turned, mirrored)
    assert energies == pytest.approx([energies[0]] * 3, abs=1e-10)


@ORDERS
def test_structures_in_a_batch_do_not_see_each_other(order):
    network = network_of(replace(SMALL, tensor_order=order))
    all_of_them = ethanol(), lone_atom(), small_cell(), ethanol(1)
    alone = [energies_of(network, atoms)[0] for atoms in all_of_them]
    assert np.allclose(energies_of(network, *all_of_them), alone, rtol=0.0, atol=1e-10)
    together = forces_of(network, *all_of_them)
    assert np.allclose(together[:9], forces_of(network, ethanol()), rtol=0.0, atol=1e-10)
    assert np.allclose(forces_of(network, lone_atom()), 0.0)


@ORDERS
def test_nothing_jumps_at_the_cutoff(order):
    shape = replace(SMALL, tensor_order=order)
    energy, force, curvature = jumps_at_cutoff(network_of(shape), shape.cutoff)
    assert energy < 1e-12
    assert force < 1e-7
    # The cosine has a curvature of π²/(2 r_c²) where it ends: HIP-NN's second derivative jumps.
    assert curvature < 1.0


def test_only_tensor_orders_0_and_1():
    with pytest.raises(ModelError, match="tensor_order of a HIP-NN is 2, want 0 or 1"):
        replace(SMALL, tensor_order=2)


@pytest.mark.parametrize("function", [Product, ProductWithTransposed, ProductOfTransposed])
def test_products_have_slopes_of_first_and_second_order(function):
    shapes = {
        Product: ((2, 3, 4), (2, 4, 5)),
        ProductWithTransposed: ((2, 3, 4), (2, 5, 4)),
        ProductOfTransposed: ((2, 4, 3), (2, 4, 5)),
    }
    a, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes[function])
    assert torch.autograd.gradcheck(function.apply, (a, b))
    assert torch.autograd.gradgradcheck(function.apply, (a, b))
    plain = {Product: "nij,njk->nik", ProductWithTransposed: "nij,nkj->nik"}
    expected = torch.einsum(plain.get(function, "nji,njk->nik"), a, b)
    assert torch.allclose(function.apply(a, b), expected)


def test_rows_hold_every_pair_once_beside_zeros():
    atom = torch.tensor([2, 0, 2, 2, 3])
    rows = Rows(atom, 5)
    spread = rows.spread(torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]))[:, :, 0]
    expected = [[2, 0, 0], [0, 0, 0], [1, 3, 4], [5, 0, 0], [0, 0, 0]]
    assert spread.tolist() == expected
    assert Rows(atom[:0], 2).spread(torch.zeros(0, 4)).shape == (2, 0, 4)


def copied_from(theirs, energy, shape):
    """Return our network with the weights of one of hippynn."""
    network = Hipnn(shape, len(ELEMENTS)).double()
    with torch.no_grad():
        for n, (block, ours) in enumerate(zip(theirs.blocks, network.blocks, strict=True)):
            layer = block[0].base_layer
            ours.interaction.weights.copy_(layer.int_weights.permute(2, 0, 1))
            ours.interaction.itself.load_state_dict(layer.selfint.state_dict())
            if shape.tensor_order:
                ours.interaction.norms.copy_(layer.vecscales)
            ours.interaction.sensitivities.centres.copy_(layer.sensitivity.mu[0])
            ours.interaction.sensitivities.widths.copy_(layer.sensitivity.sigma[0])
            for k, residual in enumerate(block):
                ours.residuals[k].outward.load_state_dict(residual.res_layer.state_dict())
                if residual.needs_size_adjust:
                    ours.residuals[k].adjust.load_state_dict(residual.adjust_layer.state_dict())
                if k:
                    ours.onsite[k - 1].load_state_dict(residual.base_layer.state_dict())
            network.readout[n].load_state_dict(energy.layers[n].state_dict())
    return network


@ORDERS
def test_same_weights_give_what_hippynn_gives(order):
    """Energies, forces and hierarchicality of the authors' program."""
    hippynn = pytest.importorskip("hippynn", reason="hippynn is not installed")
    from hippynn.layers.targets import HEnergy
    from hippynn.networks.hipnn import HipnnVec

    torch.manual_seed(2)
    shape = replace(PAPER, features=12, sensitivities=7, cutoff=5.0, tensor_order=order)
    theirs = (HipnnVec if order else hippynn.networks.hipnn.Hipnn)(
        n_features=12,
        n_sensitivities=7,
        dist_soft_min=shape.shortest,
        dist_soft_max=shape.longest,
        dist_hard_max=shape.cutoff,
        n_atom_layers=shape.onsite,
        n_interaction_layers=shape.interactions,
        possible_species=[0, *ELEMENTS],
    ).double()
    # Without E⁰, which we keep apart.
    energy = HEnergy(theirs.feature_sizes, first_is_interacting=True).double()
    graph = graph_of(ethanol(), small_cell(), cutoff=shape.cutoff)
    one_hot = torch.eye(len(ELEMENTS), dtype=torch.float64)[graph.species]
    r = graph.vectors.norm(dim=1)
    geometry = (r, graph.vectors) if order else (r,)
    # Else it would compile its sums, for a minute.
    with torch.compiler.set_stance("force_eager"):
        features = theirs(one_hot, graph.centre, graph.other, *geometry)
        energies, _, _, hierarchicality, *_ = energy(features, graph.structure, 2)
        forces = differentiate(energies, graph, create_graph=False).forces

    ours = copied_from(theirs, energy, shape)
    output = ours(graph)
    same = {"rtol": 0.0, "atol": 1e-9}
    assert torch.allclose(output.energies, energies[:, 0], **same)
    assert torch.allclose(output.penalty, hierarchicality[:, 0], **same)
    assert torch.allclose(
        differentiate(output.energies, graph, create_graph=False).forces, forces, **same
    )
