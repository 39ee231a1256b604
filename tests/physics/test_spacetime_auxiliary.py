"""The auxiliary potential against a surface that is known in closed form."""

import pytest
import torch

from alloop.errors import SpacetimeError
from alloop.spacetime.auxiliary import fit_auxiliary
from alloop.spacetime.coordinates.internal import to_cartesian, to_internal
from alloop.spacetime.coordinates.zmatrix import ZMatrix

CHAIN = ZMatrix(((0,), (1, 0), (2, 0, 1), (3, 1, 0, 2)))


def peroxide(n, seed):
    """Geometries all around the torsion, and their energies: springs and a twofold barrier."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, 6, generator=generator).double() - 0.5
    centre = torch.tensor([1.45, 0.97, 0.97, 1.75, 1.75, 0.0]).double()
    q = centre + noise * torch.tensor([0.2, 0.2, 0.2, 0.4, 0.4, 6.28]).double()
    positions, _ = to_cartesian(CHAIN, q, torch.zeros_like(q))
    return positions, energy(positions)


def energy(positions):
    q, _ = to_internal(CHAIN, positions, torch.zeros_like(positions))
    stretch = 20 * (q[..., :3] - 1.0).square().sum(-1)
    bend = 3 * (q[..., 3:5] - 1.75).square().sum(-1)
    return -150.0 + stretch + bend + 0.3 * torch.cos(2 * q[..., 5])


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    return fit_auxiliary(CHAIN, *peroxide(4000, 1), 7, hidden=(64, 64), steps=1500)


def test_energies_of_unseen_geometries(fitted):
    positions, true = peroxide(1000, 2)
    error = (fitted.energies(positions) - true).square().mean().sqrt()
    assert error < 0.06 * true.std()  # measured: 0.034


def test_forces_are_minus_the_slopes_of_energies(fitted):
    positions, _ = peroxide(3, 3)
    energies, forces = fitted.with_forces(positions)
    assert torch.equal(energies, fitted.energies(positions).detach())
    moved, step = torch.zeros_like(positions), 1e-3
    moved[:, 2, 1] = step
    slope = (fitted.energies(positions + moved) - fitted.energies(positions - moved)) / (2 * step)
    assert torch.allclose(forces[:, 2, 1], -slope.detach(), rtol=2e-3, atol=2e-3)
    true = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(true).sum(), true)
    assert (forces + gradient).abs().max() < 0.15 * gradient.abs().max()


def test_energies_know_neither_place_nor_attitude(fitted):
    positions, _ = peroxide(5, 4)
    turn, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).double()
    )
    turn = turn * torch.linalg.det(turn)
    moved = fitted.energies(positions @ turn.T + 3.0)
    assert torch.allclose(moved, fitted.energies(positions), atol=1e-5)


def test_same_seed_same_surface_and_bad_data_is_refused():
    data = peroxide(50, 5)
    one, two, other = (
        fit_auxiliary(CHAIN, *data, seed, hidden=(8,), steps=20) for seed in (1, 1, 2)
    )
    assert torch.equal(one.weights[0], two.weights[0])
    assert not torch.equal(one.weights[0], other.weights[0])
    with pytest.raises(SpacetimeError, match="50 geometries and 49 energies"):
        fit_auxiliary(CHAIN, data[0], data[1][1:], 1)
    data[1][3] = float("nan")
    with pytest.raises(SpacetimeError, match="not finite"):
        fit_auxiliary(CHAIN, *data, 1)
