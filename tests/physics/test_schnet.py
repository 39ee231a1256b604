"""SchNet: its convolution written out atom by atom, its size, and how it fades at the cutoff."""

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from alloop.potentials.schnet import SCHNET, SchNet, SchNetSettings
from tests.physics.graph_samples import (
    ELEMENTS,
    energies_of,
    ethanol,
    graph_of,
    jumps_at_cutoff,
    lone_atom,
    small_cell,
    worst_slope,
)

SHAPE = SchNetSettings(features=12, interactions=2, basis=10, cutoff=4.0)


def network_of(shape, seed=0):
    torch.manual_seed(seed)
    network = SchNet(shape, len(ELEMENTS)).double()
    # The grid is stored in single precision.
    grid = torch.linspace(0.0, shape.cutoff, shape.basis, dtype=torch.float64)
    network.basis.centres.copy_(grid)
    return network


def test_paper_has_the_parameters_of_its_figure():
    """128 features in all of 5 interactions, 50 Gaussians, 4 elements."""
    n, basis = 128, 50
    block = (basis * n + n) + (n * n + n) + n * n + 2 * (n * n + n)
    count = 4 * n + 5 * block + (n * n // 2 + n // 2) + (n // 2 + 1)
    network = SchNet(SCHNET.sizes["paper"], 4)
    assert sum(p.numel() for p in network.parameters()) == count + 2 * 4


def written_out(network, shape, atoms):
    def ssp(x):
        return torch.log(0.5 * torch.exp(x) + 0.5)

    def dense(layer, x):
        return layer.weight @ x + (0.0 if layer.bias is None else layer.bias)

    x = [network.embedding[ELEMENTS.index(z)] for z in atoms.numbers]
    spacing = shape.cutoff / (shape.basis - 1)
    for block in network.interactions:
        inward = [dense(block.inward, features) for features in x]
        total = [torch.zeros(shape.features, dtype=torch.float64) for _ in x]
        for i, j, r in zip(*neighbor_list("ijd", atoms, shape.cutoff), strict=True):
            gaussians = torch.exp(-0.5 * ((r - network.basis.centres) / spacing) ** 2)
            weights = ssp(dense(block.filter[2], ssp(dense(block.filter[0], gaussians))))
            fade = 0.5 * (1.0 + np.cos(np.pi * r / shape.cutoff))
            total[i] = total[i] + inward[j] * weights * fade
        x = [
            features + dense(block.outward[2], ssp(dense(block.outward[0], sums)))
            for features, sums in zip(x, total, strict=True)
        ]
    return sum(dense(network.readout[2], ssp(dense(network.readout[0], part))) for part in x)


@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "small cell"])
def test_it_is_the_equations_written_out(atoms):
    network = network_of(SHAPE)
    energies = network(graph_of(atoms, cutoff=SHAPE.cutoff)).energies
    assert torch.allclose(energies, written_out(network, SHAPE, atoms), rtol=0, atol=1e-10)
    assert network(graph_of(atoms)).latent_forces is None


def test_forces_and_virials_are_slopes_of_the_energy():
    network = network_of(SchNetSettings(features=12))
    assert worst_slope(network, ethanol()) < 1e-6
    assert worst_slope(network, small_cell()) < 1e-6


def test_energy_and_force_fade_at_the_cutoff():
    energy, force, _ = jumps_at_cutoff(network_of(SHAPE), SHAPE.cutoff)
    assert energy < 1e-12
    assert force < 1e-8


def test_a_batch_of_different_structures_is_what_each_is_alone():
    network = network_of(SchNetSettings(features=12))
    structures = [small_cell(), lone_atom(), ethanol()]
    together = energies_of(network, *structures)
    alone = [energies_of(network, atoms)[0] for atoms in structures]
    assert np.allclose(together, alone, rtol=0, atol=1e-12)
    assert np.ptp(alone) > 1e-3
