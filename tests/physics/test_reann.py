"""REANN and EquiREANN: what they see, and that they are the equations of their papers."""

from math import factorial

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch.func import functional_call

from alloop.potentials.architectures import architecture
from alloop.potentials.graphs.network import differentiate
from alloop.potentials.reann import ElementNetworks, Reann, ReannSettings
from tests.physics.graph_samples import (
    energies_of,
    ethanol,
    graph_of,
    jumps_at_cutoff,
    lone_atom,
    small_cell,
    worst_slope,
)

BOTH = pytest.mark.parametrize("equivariant", [False, True], ids=["reann", "equireann"])


def network(equivariant, seed=0, sample=None, n_elements=3, **changes):
    """Return a network in float64 whose elements differ and which does something."""
    torch.manual_seed(seed)
    result = Reann(ReannSettings(**changes), n_elements, equivariant=equivariant)
    for networks, size in ((result.updates, 0.02), (result.readouts, 0.1)):
        for perceptron in networks:
            torch.nn.init.normal_(perceptron.weights[-1], std=size)
    for start in (result.centres, result.exponents, result.coefficients):
        start.data *= 1.0 + 0.1 * torch.randn(start.shape)
    result.double()
    if sample is not None:
        result.calibrate(graph_of(*sample, cutoff=ReannSettings(**changes).cutoff))
    return result


def seen(*seeds):
    return [ethanol(seed) for seed in seeds or range(4)]


def cumulene(n_carbon, dihedral):
    """Return C_nH4 with straight bonds of 1.30 and 1.09 Å; the dihedral is in degrees."""
    carbons = [[0.0, 0.0, 1.30 * k] for k in range(n_carbon)]
    out, along = 1.09 * np.sin(np.pi / 3.0), 1.09 * np.cos(np.pi / 3.0)
    hydrogens = []
    for z, angle in ((-along, 0.0), (carbons[-1][2] + along, np.deg2rad(dihedral))):
        across = out * np.array([np.cos(angle), np.sin(angle), 0.0])
        hydrogens += [[*across[:2], z], [*-across[:2], z]]
    return Atoms([6] * n_carbon + [1] * 4, carbons + hydrogens)


@pytest.mark.parametrize(("n_carbon", "cutoff"), [(5, 3.0), (9, 5.5)])
@pytest.mark.parametrize(
    ("equivariant", "l_max", "iterations", "sees"),
    [
        (False, 2, 0, False),
        (False, 2, 1, False),
        (False, 2, 2, False),
        (True, 2, 0, False),
        (True, 2, 1, True),
        (True, 2, 2, True),
        # The two hydrogens of an end cancel in a vector: l = 1 knows no plane.
        (True, 1, 1, False),
        (True, 1, 2, False),
    ],
)
def test_who_sees_ends_turn_that_no_atom_has_both_in_reach(
    n_carbon, cutoff, equivariant, l_max, iterations, sees
):
    """No training: what a network cannot see it cannot see with any weights."""
    turned = [cumulene(n_carbon, angle) for angle in range(0, 181, 15)]
    model = network(
        equivariant,
        cutoff=cutoff,
        l_max=l_max,
        iterations=iterations,
        coefficient=1.0,
        sample=[ethanol(), *turned],
    )
    spread = np.ptp(energies_of(model, *turned, cutoff=cutoff))  # eV; atoms have up to 0.1
    assert spread > 1e-6 if sees else spread < 1e-13


def test_published_sizes_have_the_published_parameters():
    """Counted by hand for two elements, 108 orbitals, T = 2 and 16 x 16 networks."""
    elements = (1, 6)
    counts = {}
    for name, equivariant in (("reann", False), ("equireann", True)):
        settings = architecture(name).settings("paper", elements)
        model = Reann(ReannSettings(**settings), len(elements), equivariant=equivariant)
        counts[name] = sum(p.numel() for p in model.parameters()) - 2 * len(elements)
    update = 108 * 16 + 16 + 16 * 16 + 16 + 16 * 8 + 8
    readout = 108 * 16 + 16 + 16 * 16 + 16 + 16 + 1
    orbitals = 3 * 2 * 8
    contraction = 3 * 8 * 108
    assert counts["reann"] == 2 * (2 * update + readout) + orbitals + contraction == 15_314
    assert counts["equireann"] == counts["reann"] + 2 * contraction == 20_498


@pytest.mark.parametrize(("envelope", "readout"), [("cosine", "last"), ("polynomial", "all")])
@BOTH
def test_energy_is_that_of_the_equations_written_as_loops(equivariant, envelope, readout):
    shape = {"envelope": envelope, "readout": readout, "orbitals": 5, "width": 6}
    model = network(equivariant, seed=4, sample=seen(), **shape)
    atoms = ethanol()
    expected = _by_loops(model, atoms, equivariant, envelope)
    assert energies_of(model, atoms, cutoff=4.0)[0] == pytest.approx(expected, abs=1e-10)


def _by_loops(model, atoms, equivariant, envelope, cutoff=4.0):
    """Return the energy by equations 1 to 6 with the program's reading of them."""
    species = [(1, 6, 8).index(z) for z in atoms.numbers]
    n, n_gaussians = len(atoms), model.centres.shape[1]
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    powers = [p for p in np.ndindex(3, 3, 3) if sum(p) <= 2]
    vectors = atoms.positions[None] - atoms.positions[:, None]
    r = np.linalg.norm(vectors, axis=2)
    x = r / cutoff
    if envelope == "cosine":
        f_c = (0.5 * (1.0 + np.cos(np.pi * x))) ** 2
    else:
        f_c = 1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8
    f_c = np.where(r < cutoff, f_c, 0.0)
    c = weights["coefficients"][species]
    c_0 = ReannSettings().coefficient
    psis, energy = [], 0.0
    for t in range(3):
        rho = np.zeros((n, weights["contractions"].shape[-1]))
        psi = {power: np.zeros((n, n_gaussians)) for power in powers}
        for power in powers:
            for i in range(n):
                for j in set(range(n)) - {i}:
                    gauss = weights["exponents"][species[j]], weights["centres"][species[j]]
                    phi = np.prod(vectors[i, j] ** power) * np.exp(
                        -gauss[0] * (r[i, j] - gauss[1]) ** 2
                    )
                    if equivariant:
                        phi = phi + sum(earlier[power][j] for earlier in psis)
                    psi[power][i] += c_0 * c[j] * phi * f_c[i, j]
            weight = factorial(sum(power)) / np.prod([factorial(k) for k in power])
            d = weights["contractions"][t if equivariant else 0, sum(power)]
            rho += weight * (psi[power] @ d) ** 2
        psis.append(psi)
        reader = t - 3 + len(model.readouts)
        if reader >= 0:
            name = f"readouts.{reader}"
            energy += sum(_perceptron(weights, name, species[i], rho[i])[0] for i in range(n))
        if t < 2:
            name = f"updates.{t}"
            c = c + np.tanh([_perceptron(weights, name, species[i], rho[i]) for i in range(n)])
    return energy


def _perceptron(weights, name, element, x):
    h = (x - weights[f"{name}.mean"][element, 0]) @ weights[f"{name}.whitening"][element]
    for layer in range(3):
        h = h @ weights[f"{name}.weights.{layer}"][element]
        h = h + weights[f"{name}.biases.{layer}"][element, 0]
        if layer < 2:
            h = h / (1.0 + np.exp(-h))
    return h


@BOTH
def test_without_iterations_both_are_the_same_local_model(equivariant):
    model = network(equivariant, iterations=0, sample=seen())
    local = network(False, iterations=0, sample=seen())
    assert (energies_of(model, *seen()) == energies_of(local, *seen())).all()
    # And orbitals that travel do change something where there are iterations.
    deep = [energies_of(network(kind, sample=seen()), ethanol(9))[0] for kind in (False, True)]
    assert abs(deep[0] - deep[1]) > 1e-3


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
@BOTH
def test_travelling_orbitals_turn_with_the_molecule(equivariant, improper):
    turn = Rotation.random(rng=3).as_matrix() * (-1.0 if improper else 1.0)
    atoms, turned = ethanol(), ethanol()
    turned.positions = atoms.positions @ turn.T + [3.0, -1.0, 0.5]
    model = network(equivariant, coefficient=0.5, sample=seen())
    before, after = energies_of(model, atoms, turned)
    assert after == pytest.approx(before, abs=1e-10)
    assert abs(before - energies_of(model, ethanol(1))[0]) > 1e-2


@pytest.mark.parametrize("atoms", [ethanol(), small_cell()], ids=["molecule", "small cell"])
@BOTH
def test_forces_and_virial_are_slopes_of_the_energy(equivariant, atoms):
    cells = [small_cell() for _ in range(4)]
    for seed, cell in enumerate(cells):
        cell.rattle(0.1, seed=seed)
    model = network(equivariant, cutoff=5.0, sample=[*seen(), *cells])
    # Forces are of the order of 1 eV/Å, third derivatives of 1e4.
    assert worst_slope(model, atoms, step=1e-5) < 1e-5


@BOTH
def test_a_batch_is_as_good_as_one_after_the_other(equivariant):
    model = network(equivariant, sample=seen())
    structures = [ethanol(), lone_atom(), small_cell(), ethanol(1)]
    alone = np.concatenate([energies_of(model, atoms) for atoms in structures])
    assert np.allclose(energies_of(model, *structures), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("envelope", ["cosine", "polynomial"])
@BOTH
def test_energy_is_smooth_at_the_cutoff(equivariant, envelope):
    model = network(equivariant, cutoff=3.0, envelope=envelope, sample=seen())
    energy, force, curvature = jumps_at_cutoff(model, 3.0)
    assert energy < 1e-12
    assert force < 1e-9
    # Over the 1e-3 Å of the difference the polynomial, whose third derivative jumps, is left.
    assert curvature < (1e-3 if envelope == "cosine" else 0.1)


def test_networks_see_their_sample_centred_and_on_a_like_scale():
    sample = [ethanol(seed) for seed in range(30)]
    model = network(True, sample=sample)
    inputs = []
    hook = model.readouts[-1].register_forward_hook(lambda *call: inputs.append(call[1]))
    energies_of(model, *sample, cutoff=4.0)
    hook.remove()
    rho, belongs = inputs[0][0].detach(), inputs[0][1]
    for element in range(3):
        rows = rho[belongs[element, :, 0] == 1.0] - model.readouts[-1].mean[element]
        white = rows @ model.readouts[-1].whitening[element]
        assert float(white.mean(0).abs().max()) < 1e-6
        spreads = torch.linalg.eigvalsh(white.T @ white / len(white)).sqrt()
        # The largest is 1; REANN's own descriptors span eight orders of magnitude.
        assert float(spreads[-1]) == pytest.approx(1.0, abs=1e-2)
        assert int((spreads > 0.5).sum()) >= 8


def test_elements_that_the_sample_lacks_keep_their_scale():
    networks = ElementNetworks(2, (3, 4, 1)).double()
    belongs = torch.tensor([1.0, 0.0]).double()[:, None, None].expand(2, 5, 1)
    networks.adapt(torch.randn(5, 3, dtype=torch.float64), belongs)
    assert not torch.equal(networks.whitening[0], torch.eye(3, dtype=torch.float64))
    assert torch.equal(networks.whitening[1], torch.eye(3, dtype=torch.float64))


@BOTH
def test_energies_far_from_the_sample_stay_of_a_finite_size(equivariant):
    """A network must be able to meet crowded atoms without answering millions of eV."""
    model = network(equivariant, coefficient=1.0, sample=seen())
    crowded = ethanol()
    crowded.positions *= 0.6
    assert abs(energies_of(model, crowded, cutoff=4.0)[0]) < 1e4


@BOTH
def test_a_fit_moves_every_parameter(equivariant):
    """Weights that are wrapped anew on the way are constants to a fit, and nothing else tells."""
    model = network(equivariant, sample=seen())
    graph = graph_of(*seen(), cutoff=4.0)
    values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    energies = functional_call(model, values, (graph,)).energies
    forces = differentiate(energies, graph, create_graph=True).forces
    loss = energies.square().sum() + forces.square().sum()
    gradients = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
    pairs = zip(values, gradients, strict=True)
    assert [name for name, slope in pairs if slope is None or not slope.any()] == []
