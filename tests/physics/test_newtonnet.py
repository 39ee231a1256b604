"""NewtonNet: its equations written out atom by atom, its latent forces, its published size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from alloop.errors import ModelError
from alloop.potentials.architectures import architecture
from alloop.potentials.newtonnet import NEWTONNET, NewtonNet, NewtonNetSettings
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

PAPER = NewtonNetSettings(features=16, basis=8)
V1 = replace(PAPER, variant="v1")
BOTH = pytest.mark.parametrize("shape", [PAPER, V1], ids=["paper", "v1"])


def network_of(shape, seed=0):
    torch.manual_seed(seed)
    network = NewtonNet(shape, len(ELEMENTS)).double()
    with torch.no_grad():
        # First weights are so small that directions hardly matter.
        for parameter in network.layers.parameters():
            parameter.mul_(1.5)
        # Frequencies are stored in single precision.
        orders = torch.arange(1, shape.basis + 1, dtype=torch.float64)
        network.basis.frequencies.copy_(orders * (np.pi / shape.cutoff))
    return network


@pytest.mark.parametrize(("size", "count"), [("paper", 527_617), ("v1", 528_385)])
def test_published_sizes_have_the_parameters_of_the_equations(size, count):
    """128 features, 20 functions, 3 layers and 4 elements; the paper says "500k"."""
    n, basis = 128, 20
    dense = n * n
    layer = (basis + 1) * n + 3 * 2 * (dense + n) + n + 2 * 2 * dense
    layer += 2 * n if size == "v1" else 0
    readout = (dense + n) + (n * n // 2 + n // 2) + (n // 2 + 1)
    assert 4 * n + 3 * layer + readout == count
    network = NewtonNet(NEWTONNET.sizes[size], 4)
    # Scale and shift of each element come on top.
    assert sum(p.numel() for p in network.parameters()) == count + 2 * 4
    assert NEWTONNET.sizes[size].cutoff == 5.0


def written_out(network, shape, atoms):
    """Return the energy and the latent forces by equations 4 to 21, atom by atom."""
    p = {"paper": 7, "v1": 9}[shape.variant]
    pairs = neighbor_list("ijD", atoms, shape.cutoff)
    pairs = [(int(i), int(j), torch.tensor(d)) for i, j, d in zip(*pairs, strict=True)]
    atoms_range, n = range(len(atoms)), shape.features
    a = [network.embedding[ELEMENTS.index(z)] for z in atoms.numbers]
    f, dr = ([torch.zeros(n, 3, dtype=torch.float64) for _ in atoms_range] for _ in range(2))
    latent = [torch.zeros(3, dtype=torch.float64) for _ in atoms_range]
    for layer in network.layers:
        weight, bias = layer.radial.weight[:, :-1], layer.radial.weight[:, -1]
        phi = [layer.atom(features) for features in a]
        gain = [torch.zeros_like(part) for part in f]
        received = [torch.zeros(n, dtype=torch.float64) for _ in atoms_range]
        carried = [torch.zeros_like(part) for part in f]
        for i, j, d in pairs:
            r = d.norm()
            k = torch.arange(1, shape.basis + 1, dtype=torch.float64)
            e = np.sqrt(2.0 / shape.cutoff) * torch.sin(k * np.pi * r / shape.cutoff) / r
            x = r / shape.cutoff
            cut = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1)
            cut = cut - p * (p + 1) / 2 * x ** (p + 2)
            message = phi[i] * phi[j] * (weight @ e + bias) * cut
            received[i] = received[i] + message
            pull = layer.strength(message) * d / r
            latent[i] = latent[i] + pull
            gain[i] = gain[i] + layer.force(message)[:, None] * pull
            carried[i] = carried[i] + layer.carry(message)[:, None] * dr[j]
        for i in atoms_range:
            a[i] = a[i] + received[i]
            f[i] = f[i] + gain[i]
            along = f[i] if shape.variant == "paper" else gain[i]
            kept = 0.0 if shape.variant == "paper" else dr[i]
            dr[i] = kept + carried[i] + layer.step(a[i])[:, None] * along
            a[i] = a[i] - layer.energy(a[i]) * (f[i] * dr[i]).sum(1)
    return sum(network.readout(features) for features in a), torch.stack(latent)


@BOTH
@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "small cell"])
def test_it_is_the_equations_written_out(shape, atoms):
    shape = replace(shape, cutoff=4.0)
    network = network_of(shape)
    energy, latent = written_out(network, shape, atoms)
    output = network(graph_of(atoms, cutoff=4.0))
    assert torch.allclose(output.energies, energy, rtol=0, atol=1e-10)
    assert torch.allclose(output.latent_forces, latent, rtol=0, atol=1e-10)
    # What the paper and the code of its authors differ in must matter here.
    other = replace(shape, variant="v1" if shape.variant == "paper" else "paper")
    assert abs(float((written_out(network, other, atoms)[0] - energy).detach())) > 1e-6


def test_only_v1_has_a_bias_in_the_step_and_none_has_one_where_messages_fade():
    for shape in (PAPER, V1):
        names = {name for name, _ in network_of(shape).layers[0].named_parameters()}
        assert ("step.0.bias" in names) == (shape.variant == "v1")
        assert not names & {"carry.0.bias", "carry.2.bias", "strength.bias"}


@BOTH
def test_latent_forces_turn_with_the_molecule_and_cancel(shape):
    network, atoms = network_of(shape), ethanol()
    latent = network(graph_of(atoms)).latent_forces.detach()
    assert float(latent.abs().max()) > 1e-3
    assert float(latent.sum(0).abs().max()) < 1e-12
    turn = -Rotation.random(rng=3).as_matrix()
    order = np.random.default_rng(1).permutation(len(atoms))
    turned = atoms[order]
    turned.positions = turned.positions @ turn.T + [3.0, -1.0, 0.5]
    output = network(graph_of(turned))
    expected = latent[order] @ torch.tensor(turn.T)
    assert torch.allclose(output.latent_forces, expected, rtol=0, atol=1e-12)
    assert torch.allclose(output.energies, network(graph_of(atoms)).energies, rtol=0, atol=1e-12)


@BOTH
def test_forces_and_virials_are_slopes_of_the_energy(shape):
    network = network_of(shape)
    # Measured 2e-8 at most.
    assert worst_slope(network, ethanol()) < 1e-6
    assert worst_slope(network, small_cell()) < 1e-6


@BOTH
def test_energy_force_and_curvature_fade_at_the_cutoff(shape):
    energy, force, curvature = jumps_at_cutoff(network_of(shape), shape.cutoff)
    assert energy < 1e-12
    assert force < 1e-9
    assert curvature < 1e-3


@BOTH
def test_a_batch_of_different_structures_is_what_each_is_alone(shape):
    network = network_of(shape)
    structures = [ethanol(), lone_atom(), small_cell(), ethanol(1)]
    together = energies_of(network, *structures)
    alone = [energies_of(network, atoms)[0] for atoms in structures]
    assert np.allclose(together, alone, rtol=0, atol=1e-12)
    apart = forces_of(network, *structures)
    assert np.allclose(apart[10:13], forces_of(network, small_cell()), rtol=0, atol=1e-12)
    assert np.ptp(alone) > 1e-3


def test_atoms_on_top_of_each_other_give_finite_numbers():
    network = network_of(PAPER)
    atoms = Atoms([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert np.isfinite(energies_of(network, atoms)).all()
    assert np.isfinite(forces_of(network, atoms)).all()


def test_an_unknown_variant_is_a_model_error():
    plain = architecture("newtonnet").settings("small", ELEMENTS) | {"variant": "v3"}
    with pytest.raises(ModelError, match="v3"):
        architecture("newtonnet").trainable(
            [], ELEMENTS, plain, dict.fromkeys(ELEMENTS, 0.0), scale=1.0, seed=0, start=None
        )
