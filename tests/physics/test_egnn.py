"""EGNN: its size as published, and what the forms that a campaign uses have that it has not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from alloop.errors import ModelError
from alloop.potentials.egnn import EGNN, Egnn, EgnnSettings
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

SMALL, SMOOTH, PAPER = (EGNN.sizes[size] for size in ("small", "smooth", "paper"))


def network_of(shape, seed=0):
    torch.manual_seed(seed)
    return Egnn(shape, len(ELEMENTS)).double()


def test_paper_has_the_published_number_of_parameters():
    """513,281 for H, C and Pd, page 10; scale and shift of the elements are ours."""
    network = network_of(PAPER)
    names = dict(network.named_parameters())
    assert sum(p.numel() for name, p in names.items() if name not in ("scale", "shift")) == 513_281
    assert "waves.frequencies" not in names


def test_fourier_features_are_sines_and_cosines_of_stored_frequencies():
    shape = replace(SMALL, frequencies=2000)
    waves = network_of(shape).waves
    b = waves.frequencies
    assert float(b.std()) == pytest.approx(shape.sigma, rel=0.1)
    r = torch.tensor([0.7, 2.1], dtype=torch.float64)
    expected = torch.cat([torch.sin(b * 0.7), torch.cos(b * 0.7)])
    assert torch.allclose(waves(r)[0], expected, atol=1e-12)
    assert torch.equal(network_of(shape).waves.frequencies, b)
    assert not torch.equal(network_of(shape, seed=1).waves.frequencies, b)
    assert "waves.frequencies" in network_of(shape).state_dict()


def test_one_layer_is_the_equations_of_the_paper():
    """Messages of every pair written out, with the first linear map on all three inputs at once."""
    network = network_of(replace(SMALL, features=6, layers=1, frequencies=3))
    atoms, layer = ethanol(), network.layers[0]
    graph = graph_of(atoms)
    weight = torch.cat([layer.to_centre.weight, layer.to_other.weight, layer.to_pair.weight], 1)
    h = network.embedding(torch.eye(3, dtype=torch.float64)[graph.species])
    received = torch.zeros_like(h)
    for i, j, vector in zip(graph.centre, graph.other, graph.vectors.detach(), strict=True):
        r = float(vector.norm())
        phase = network.waves.frequencies * r
        pair = torch.cat([h[i], h[j], torch.sin(phase), torch.cos(phase)])
        x = r / 5.0
        fade = 1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8
        received[i] += layer.message(weight @ pair + layer.to_centre.bias) * fade
    h = h + layer.update(torch.cat([h, received], 1))
    assert energies_of(network, atoms) == pytest.approx(float(network.readout(h).sum().detach()))


@pytest.mark.parametrize("shape", [SMALL, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "cell"])
def test_forces_and_virial_are_slopes(shape, atoms):
    assert worst_slope(network_of(shape), atoms) < 2e-5


@pytest.mark.parametrize("shape", [SMALL, PAPER], ids=["small", "paper"])
def test_energy_does_not_depend_on_orientation_or_order(shape):
    network, atoms = network_of(shape), ethanol()
    turned = atoms[np.random.default_rng(0).permutation(len(atoms))]
    turned.positions = turned.positions @ Rotation.random(rng=1).as_matrix() + 2.0
    energies = energies_of(network, atoms, turned)
    assert energies[0] == pytest.approx(energies[1], abs=1e-10)


@pytest.mark.parametrize("shape", [SMALL, PAPER], ids=["small", "paper"])
def test_structures_in_a_batch_do_not_see_each_other(shape):
    network, all_of_them = network_of(shape), (ethanol(), lone_atom(), small_cell(), ethanol(1))
    alone = [energies_of(network, atoms)[0] for atoms in all_of_them]
    assert np.allclose(energies_of(network, *all_of_them), alone, rtol=0.0, atol=1e-10)
    assert np.allclose(forces_of(network, lone_atom()), 0.0)


def test_scale_and_shift_act_on_a_common_readout_as_on_an_atomic_one():
    network, atoms = network_of(PAPER), ethanol()
    before = energies_of(network, atoms)[0]
    with torch.no_grad():
        network.scale.fill_(3.0)
        network.shift.copy_(torch.tensor([1.0, 10.0, 100.0]))
    after = 3.0 * before + 6 * 1.0 + 2 * 10.0 + 100.0
    assert energies_of(network, atoms)[0] == pytest.approx(after)


@pytest.mark.parametrize("shape", [SMALL, SMOOTH], ids=["small", "smooth"])
def test_smooth_forms_do_not_jump_at_the_cutoff(shape):
    energy, force, curvature = jumps_at_cutoff(network_of(shape), shape.cutoff)
    assert shape.smooth
    assert energy < 1e-12
    assert force < 1e-7
    # The envelope's second derivative vanishes with x - 1.
    assert curvature < 0.02


def test_published_form_jumps_at_the_cutoff():
    energy, _, _ = jumps_at_cutoff(network_of(PAPER), PAPER.cutoff)
    assert not PAPER.smooth
    assert energy > 1e-3


@pytest.mark.parametrize(("shape", "has_kinks"), [(SMALL, False), (PAPER, True)])
def test_published_readout_is_made_of_straight_pieces(shape, has_kinks):
    """Without biases such a function of 2 x is twice that of x."""
    readout = network_of(shape).readout
    with torch.no_grad():
        readout[0].bias.zero_()
        readout[2].bias.zero_()
    x = torch.randn(4, shape.features, dtype=torch.float64)
    assert torch.allclose(readout(2.0 * x), 2.0 * readout(x), rtol=1e-9) == has_kinks


@pytest.mark.parametrize("shape", [SMALL, PAPER], ids=["atomic", "sum of features"])
def test_extensive_is_what_the_settings_say(shape):
    network, atoms = network_of(shape), ethanol()
    both = ethanol(1)
    both.positions += [50.0, 0.0, 0.0]
    apart = energies_of(network, atoms)[0] + energies_of(network, ethanol(1))[0]
    together = energies_of(network, atoms + both)[0]
    assert (abs(together - apart) < 1e-9) == shape.extensive


def test_unknown_readout_or_activation_is_one_clear_error():
    with pytest.raises(ModelError, match="readout of an EGNN is 'sum', want 'sum_of_features' or"):
        EgnnSettings(readout="sum")
    with pytest.raises(ModelError, match="activation of an EGNN is 'tanh', want 'relu' or 'silu'"):
        EgnnSettings(activation="tanh")
