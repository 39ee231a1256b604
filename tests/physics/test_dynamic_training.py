"""Dynamic training against what is known: the integrator, finite differences, conserved energy."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase.build import bulk

from alloop.dynamics.health import HealthLimits
from alloop.dynamics.initial import maxwell_boltzmann
from alloop.dynamics.md import MdSettings, run_md
from alloop.potentials.architectures import ARCHITECTURES, architecture
from alloop.potentials.committee import build_committee
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.graphs.trainable import GraphTrainable
from alloop.training.dynamic import DynamicSettings, refine
from alloop.training.rollouts import SegmentLoss, follow, mepa, rollout_errors
from alloop.training.segments import NveTrajectory, Segments, groups_of
from alloop.units import KINETIC
from tests.physics.dynamics_committees import WATER, WATER_AT, WATER_MASSES, morse_water
from tests.physics.motion_samples import ATOMS, member_of, member_with_forces, water_trajectories

NEEDS_MACE = pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed")
EVERY = [pytest.param(k, marks=NEEDS_MACE if k == "mace" else ()) for k in ARCHITECTURES]
STARTS = torch.tensor([3, 11, 30])


def water_member(kind):
    return member_with_forces(kind, 1.0, WATER, WATER_AT)


def loss_of(kind, trajectories, gradient="bptt", dtype=torch.float64):
    """Return the loss of a member with random weights, and its parameters."""
    member, model = water_member(kind), architecture(kind)
    trainable = GraphTrainable(
        model.network(member, dtype), groups_of(trajectories), member.elements, model.cutoff(member)
    )
    loss = loss_on(trainable, trajectories, detached=gradient == "detached")
    return loss, trainable.start.to(dtype).requires_grad_()


def loss_on(trainable, trajectories, detached=False):
    segments = Segments.of(trajectories, ATOMS)
    return SegmentLoss(trainable, segments, detached=detached, first_weight=2.0, energy_weight=1.0)


def value(loss, parameters, length, starts=STARTS):
    return float(sum(part.detach() for part in loss.parts(parameters, starts, length)))


@pytest.mark.parametrize("kind", EVERY)
def test_gradient_through_time_is_the_slope_of_the_loss(kind):
    """Against central differences in float64; the loss has corners, but none so close."""
    loss, parameters = loss_of(kind, water_trajectories())
    found, gradient = loss.slope(parameters, STARTS, 3)
    assert found == pytest.approx(value(loss, parameters, 3), rel=1e-12)
    rng = torch.Generator().manual_seed(0)
    for scale in (1e-5, 1e-6):
        direction = torch.randn(gradient.shape, generator=rng, dtype=torch.float64)
        direction += 5.0 * gradient / gradient.norm()
        step = scale * direction / direction.norm()
        up = value(loss, (parameters + step).detach(), 3)
        down = value(loss, (parameters - step).detach(), 3)
        assert up - down == pytest.approx(float(2.0 * step @ gradient), rel=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_detached_gradient_is_the_sum_over_frames_taken_as_given(kind):
    """The frames that the potential arrives at are fixed; each is then fitted on its own."""
    trajectories = water_trajectories()
    detached, parameters = loss_of(kind, trajectories, "detached")
    through, _ = loss_of(kind, trajectories, "bptt")
    loss, gradient = detached.slope(parameters, STARTS, 4)
    loss_through, gradient_through = through.slope(parameters, STARTS, 4)
    assert loss == pytest.approx(loss_through, rel=1e-12)
    by_hand = torch.stack(list(single_frame_gradients(kind, parameters, trajectories[0], 4)))
    by_hand[0] *= 2.0  # first_weight
    torch.testing.assert_close(gradient, by_hand.sum(0), rtol=1e-6, atol=1e-9)
    difference = float((gradient - gradient_through).norm() / gradient.norm())
    assert difference > 1e-7


def single_frame_gradients(kind, parameters, trajectory, length):
    """Yield the gradient of the error of each frame, with the textbook form of the integrator."""
    member, model = water_member(kind), architecture(kind)
    network, cutoff = model.network(member, torch.float64), model.cutoff(member)
    frames, flags = torch.arange(len(STARTS)), torch.ones(len(STARTS), dtype=torch.bool)
    x = torch.tensor(trajectory.positions[STARTS])
    v = torch.tensor(trajectory.velocities[STARTS])
    half_kick, dt = torch.tensor(trajectory.half_kick), trajectory.timestep
    last_kick = None
    for k in range(length):
        group = FrameGroup((8, 1, 1), x, None, flags, frames)
        theta = parameters.detach().clone().requires_grad_()
        fit = GraphTrainable(network, [group], member.elements, cutoff)
        forces = fit.predict(theta, frames).forces.view(x.shape)
        error = (forces - torch.tensor(trajectory.forces[STARTS + k]).float()).abs()
        # Oxygen counts as much as both hydrogens together.
        loss = (error[:, 0].mean(1) + error[:, 1:].mean((1, 2))).mean()
        yield torch.autograd.grad(loss, theta)[0]
        kick = half_kick * forces.detach()
        v = v if last_kick is None else v + last_kick + kick
        x, last_kick = x + dt * v + dt * kick, kick


@pytest.mark.parametrize("kind", EVERY)
def test_one_frame_has_no_time_to_go_through(kind):
    trajectories = water_trajectories()
    answers = []
    for gradient in ("bptt", "detached"):
        loss, parameters = loss_of(kind, trajectories, gradient, torch.float32)
        answers.append(loss.slope(parameters, STARTS, 1))
    assert answers[0][0] == answers[1][0]
    assert torch.equal(answers[0][1], answers[1][1])
    assert float(answers[0][1].norm()) > 0.01


def test_the_loss_of_one_frame_has_the_energy_and_that_of_more_has_not():
    trajectories = water_trajectories()
    loss, parameters = loss_of("schnet", trajectories)
    shifted, _ = loss_of("schnet", [replace(t, energies=t.energies + 0.3) for t in trajectories])
    lifted, _ = loss_of("schnet", [replace(t, energies=t.energies + 100) for t in trajectories])
    # Far from the energies the mean absolute error per atom grows as the energies do.
    assert value(lifted, parameters, 1) - value(loss, parameters, 1) == pytest.approx(
        100.0 / 3.0, rel=0.05
    )
    assert value(shifted, parameters, 2) == value(loss, parameters, 2)


def test_the_integrator_is_that_of_the_dynamics():
    committee = morse_water(1)
    trajectory = water_trajectories(1, committee=committee)[0]
    visited = []

    def field(_, positions):
        visited.append(positions)
        answer = committee.evaluate(WATER, positions[None], forces="mean")
        return answer.energies[0], answer.forces[0]

    motion = follow(
        field,
        torch.tensor(trajectory.positions[0]),
        torch.tensor(trajectory.velocities[0]),
        trajectory.timestep,
        torch.tensor(trajectory.half_kick),
        trajectory.n_frames,
        detached=False,
    )
    forces = np.array([force.numpy() for _, force in motion])
    np.testing.assert_allclose(forces, trajectory.forces, atol=1e-5)
    np.testing.assert_allclose(torch.stack(visited), trajectory.positions, atol=1e-12)
    # Energy is conserved, to the order of the time step.
    errors = []
    for timestep in (0.5, 0.25):
        visited.clear()
        n = int(20 / timestep)
        start = (torch.tensor(trajectory.positions[0]), torch.tensor(trajectory.velocities[0]))
        kick = torch.tensor(trajectory.half_kick) * timestep / 0.5
        energies = torch.cat(
            [e for e, _ in follow(field, *start, timestep, kick, n, detached=True)]
        )
        path = torch.stack(visited)
        velocities = (path[2:] - path[:-2]) / (2.0 * timestep)
        kinetic = (velocities.square().sum(2) @ torch.tensor(WATER_MASSES)) * 0.5 * KINETIC
        errors.append(float((kinetic + energies[1:-1]).std() / kinetic.std()))
    assert errors[0] < 0.03
    assert errors[1] == pytest.approx(errors[0] / 4.0, rel=0.1)


def strong(kind, seed=7):
    """Return a member whose forces in the crystal are of some 0.5 eV/Å."""
    atoms = bulk("C", "diamond", a=3.4)
    atoms.rattle(0.25, seed=1)
    return member_with_forces(
        kind, 0.5, atoms.numbers, atoms.positions, atoms.cell.array, seed=seed
    )


def crystal(member, n_frames=10, seed=2):
    """Return a motion of two atoms in a cell smaller than the cutoff, far from its origin."""
    atoms = bulk("C", "diamond", a=3.4)
    atoms.rattle(0.1, seed=1)
    start = atoms.positions[None] + 20.0
    start[0, 1] += [2, -1, 3] @ atoms.cell.array
    masses = atoms.get_masses()
    settings = MdSettings("nve", 1.0, n_frames - 1, 1, (1500.0,), (1,))
    runs = run_md(
        build_committee([member], dtype=torch.float64),
        atoms.numbers,
        start,
        maxwell_boltzmann(masses, 1500.0, 1, np.random.default_rng(seed)),
        masses,
        settings,
        HealthLimits(spike_factor=100.0, max_drift=100.0, min_contact=0.2),
        cell=atoms.cell.array,
    )
    return NveTrajectory.of(runs[0], f"crystal {seed}")


@pytest.mark.parametrize("kind", EVERY)
def test_a_potential_follows_its_own_trajectory_in_a_small_cell(kind):
    """Nothing but the start is given: recorded pairs and images lead along the whole way."""
    member = strong(kind)
    trajectory = crystal(member)
    typical = np.sqrt(np.square(trajectory.forces).mean())
    assert typical > 0.1
    assert np.abs(trajectory.positions[-1] - trajectory.positions[0]).max() > 0.05
    model = architecture(kind)
    trainable = GraphTrainable(
        model.network(member, torch.float64),
        groups_of([trajectory]),
        member.elements,
        model.cutoff(member),
    )
    loss = loss_on(trainable, [trajectory])
    with torch.no_grad():
        parts = torch.stack(list(loss.parts(trainable.start.double(), torch.tensor([0]), 10)))
    assert float(parts.max()) < 1e-5 * typical
    assert mepa(member, [trajectory], 10).max() < 1e-3 * typical


@pytest.mark.parametrize("kind", EVERY)
def test_recorded_pairs_say_the_same_as_pairs_of_its_own(kind):
    """Along another potential's trajectory, where pairs come and go at the cutoff."""
    trajectory = crystal(strong(kind, seed=8))
    stranger = strong(kind)
    free = rollout_errors(stranger, [trajectory], 10)[0]
    model = architecture(kind)
    trainable = GraphTrainable(
        model.network(stranger, torch.float32),
        groups_of([trajectory]),
        stranger.elements,
        model.cutoff(stranger),
    )
    loss = loss_on(trainable, [trajectory])
    with torch.no_grad():
        parts = torch.stack(list(loss.parts(trainable.start, torch.tensor([0]), 10)))
    assert free[0] > 0.01
    parts[0] /= 2.0  # first_weight
    np.testing.assert_allclose(parts.numpy(), free, rtol=5e-3)


def test_mepa_counts_elements_alike():
    trajectories = water_trajectories()
    member = member_of("schnet")
    positions = torch.tensor(trajectories[0].positions)
    forces = build_committee([member]).evaluate(WATER, positions, forces="mean").forces.numpy()
    error = np.abs(forces - trajectories[0].forces)
    by_hand = error[:, 0].mean(1) + error[:, 1:].mean((1, 2))
    every_frame = rollout_errors(member, trajectories[:1], 1)[:, 0]
    np.testing.assert_allclose(every_frame, by_hand, rtol=1e-4)
    assert mepa(member, trajectories[:1], 1) == pytest.approx(by_hand.mean(), rel=1e-4)


@pytest.mark.parametrize("kind", EVERY)
def test_every_architecture_learns_to_follow(kind):
    """Weights that were disturbed find back towards the motion of those before."""
    teacher = strong(kind)
    runs = [crystal(teacher, seed=seed) for seed in (2, 3, 4)]
    noise = torch.Generator().manual_seed(1)
    weights = {
        name: w * (1.0 + 0.03 * torch.randn(w.shape, generator=noise))
        for name, w in teacher.weights.items()
    }
    settings = DynamicSettings(
        lengths=(1, 3), epochs_per_stage=4, batch_size=4, learning_rate=3e-4, validation_frames=10
    )
    pupil = replace(teacher, weights=weights)
    refined, report = refine(pupil, runs[:2], runs[2:], settings, seed=1)
    assert mepa(refined, runs[2:], 10).mean() == pytest.approx(report.best)
    assert report.best < 0.7 * report.before


def test_compositions_and_time_steps_mix():
    water = water_trajectories(1)
    coarse = [replace(t, name="coarse") for t in water_trajectories(1, timestep=0.25)]
    cell = crystal(strong("schnet"))
    both, parameters = loss_of("schnet", [*water, *coarse, cell])
    starts = torch.tensor([2, 41 + 5, 82 + 1])
    together = value(both, parameters, 4, starts)
    alone = [
        value(loss_of("schnet", [one])[0], parameters, 4, torch.tensor([start]))
        for one, start in ((water[0], 2), (coarse[0], 5), (cell, 1))
    ]
    assert together == pytest.approx(np.mean(alone), rel=1e-10)
    member = member_of("schnet")
    errors = rollout_errors(member, [*water, *coarse, cell], 10)
    separate = [rollout_errors(member, [one], 10) for one in (*water, *coarse, cell)]
    np.testing.assert_allclose(errors, np.concatenate(separate), rtol=1e-4)
