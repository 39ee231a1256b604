"""Propagation of 4D models: rotation, energy and chains of segments against mechanics."""

import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.dummies import DummyZMatrix
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.motion.orientation import endpoints, forecast, predict, predict_members
from alloop.spacetime.motion.rigid import centred, inverse_inertia, momenta, rigid_part
from alloop.spacetime.propagation import reversible
from alloop.spacetime.propagation.courses import DYNAMICS, MEAN
from alloop.spacetime.propagation.energy_rules import (
    SHELL_TIME,
    PropagationSettings,
    check_times,
    kinetic_energy,
    onto_shell,
    total_energy,
)
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.rescue import run_dynamics
from alloop.spacetime.propagation.reversible import follow_reversibly
from alloop.spacetime.propagation.schedule import Regular
from alloop.units import ACCELERATION, EV_PER_KCAL_MOL
from tests.physics.test_spacetime_motion import CHAIN, PEROXIDE, rigid, trajectory_set

FIELD, NUMBERS, MASSES = PEROXIDE
POOR = FitSettings(members=4, hidden=(32,), windows=3000, batch=64, steps=100)
"""Members that disagree by tenths of a kcal/mol in 10 fs."""


class Surface:
    """The potential of hydrogen peroxide, counting how many geometries it was asked for."""

    def __init__(self):
        self.asked = 0

    def energies(self, positions):
        flat = positions.flatten(end_dim=-3)
        self.asked += len(flat)
        return FIELD.energy(flat).view(positions.shape[:-2])

    def with_forces(self, positions):
        flat = positions.flatten(end_dim=-3)
        return self.energies(positions), FIELD.forces(flat).view(positions.shape)


class NoSurface(Surface):
    """A potential that knows no energies."""

    def energies(self, positions):
        return torch.full(positions.shape[:-2], math.nan, dtype=torch.float64)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def motion():
    return FIELD.run(np.array(MASSES), 20, 200)


@pytest.fixture(scope="module")
def model(motion):
    return fit(trajectory_set(NUMBERS, np.array(MASSES), motion), POOR, 3).model


@pytest.fixture
def start(motion):
    return tuple(part[-4:, 30] for part in motion)


@pytest.fixture
def surface():
    return Surface()


def turning(model, positions, velocities, spin=(0.03, -0.05, 0.08)):
    arms = centred(model.masses, positions)
    return velocities + torch.linalg.cross(torch.tensor(spin).double().expand_as(arms), arms)


def energies(model, surface, frames):
    return total_energy(surface, model.masses, *frames) / EV_PER_KCAL_MOL


def test_rotation_is_that_of_a_tight_integration(model, start):
    """A hundred times in one batch, against dA/dt = A [w] step by step; 0.1 rad/fs."""
    x, v = start[0][:1], turning(model, start[0][:1], start[1][:1])
    times = torch.linspace(0.0, 10.0, 101, dtype=torch.float64)
    told = forecast(model, x, v)
    _, total = momenta(model.masses, x, v)

    def shape(at):
        placed = model.internal.place(*model.motion(*told.start, told.coefficients, at))
        return [centred(model.masses, part[0]) for part in placed]

    def slope(now, state):
        attitude = torch.as_tensor(state.reshape(3, 3))
        ((arms,), (swings,)) = shape(torch.tensor([now], dtype=torch.float64))
        products = (model.masses[:, None] * arms).T @ arms
        own = (model.masses[:, None] * torch.linalg.cross(arms, swings)).sum(0)
        w = inverse_inertia(products) @ (attitude.T @ total[0] - own)
        skew = torch.linalg.cross(w.expand(3, 3), torch.eye(3).double())
        return (attitude @ skew.T).numpy().ravel()

    begin = told.attitude[0].numpy().ravel()
    exact = solve_ivp(slope, (0, 10), begin, t_eval=times, method="DOP853", rtol=1e-10, atol=1e-12)
    attitudes = torch.as_tensor(exact.y.T.reshape(-1, 3, 3))
    middle = (model.masses[:, None] * x[0]).sum(0) / model.masses.sum()
    wanted = middle + shape(times)[0] @ attitudes.transpose(1, 2)
    positions, _ = told.at(times)
    assert (attitudes[-1] - attitudes[0]).abs().max() > 0.5
    assert (positions[0] - wanted).abs().max() < 1e-8  # measured 4e-10


def test_rotation_over_several_stretches_is_smooth():
    """Cutoff 20 fs, two polynomials: the motion of a rigid top has no kink between them."""
    model = rigid(CHAIN, NUMBERS, MASSES)
    x = FIELD.minimum()[None]
    v = turning(model, x, torch.zeros_like(x))
    step = 1e-3
    near = torch.tensor([10.0 - step, 10.0, 10.0 + step], dtype=torch.float64)
    positions, velocities = predict(model, x, v, torch.cat([near, near.new_tensor([20.0])]))
    slope = (positions[0, 2] - positions[0, 0]) / (2 * step)
    assert (slope - velocities[0, 1]).abs().max() < 1e-8


def test_velocities_are_the_derivative_of_positions_and_start_is_exact(model, start):
    x, v = start[0], turning(model, *start)
    step = 1e-4
    times = torch.tensor([7.0 + step, 0.0, 7.0 - step, 7.0], dtype=torch.float64)  # any order
    positions, velocities = predict(model, x, v, times)
    slope = (positions[:, 0] - positions[:, 2]) / (2 * step)
    assert (slope - velocities[:, 3]).abs().max() < 1e-7
    assert (positions[:, 1] - x).abs().max() < 1e-12
    assert (velocities[:, 1] - v).abs().max() < 1e-12


def test_members_are_what_each_network_says_and_keep_momenta(model, start):
    x, v = start[0], turning(model, *start) + 0.01
    times = torch.tensor([0.0, 4.0, 10.0], dtype=torch.float64)
    positions, velocities = predict_members(model, x, v, times)
    assert positions.shape == (4, 4, 3, 4, 3)
    alone = dataclasses.replace(
        model,
        weights=tuple(w[2:3] for w in model.weights),
        biases=tuple(b[2:3] for b in model.biases),
    )
    for mine, yours in zip((positions, velocities), predict(alone, x, v, times), strict=True):
        assert (mine[2] - yours).abs().max() < 1e-5  # float32 networks
    assert (positions[0] - positions[1]).abs().max() > 1e-4
    for now, then in zip(
        momenta(model.masses, positions, velocities), momenta(model.masses, x, v), strict=True
    ):
        assert (now - then[:, None]).abs().max() < 1e-10 * then.abs().max()
    ends = endpoints(model, x, v, members=True)
    assert (ends[0] - positions[:, :, 2]).abs().max() < 1e-8
    one = forecast(model, x, v, members=True).only(torch.tensor([3, 0]), torch.tensor([1, 2]))
    assert (one.at(times)[0] - positions[[1, 2], [3, 0]]).abs().max() < 1e-12


def test_oriented_coordinates_say_how_the_molecule_stands(start):
    """Dummy atoms: positions are what they place, velocities are given the right momenta."""
    model = rigid(DummyZMatrix(CHAIN, torch.tensor(MASSES, dtype=torch.float64)), NUMBERS, MASSES)
    shift = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
    drift = torch.tensor([0.01, 0.0, -0.02], dtype=torch.float64)
    x, v = start[0] + shift, start[1] + drift
    times = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)
    told = forecast(model, x, v)
    assert told.turning is None
    positions, velocities = told.at(times)
    assert (positions[:, 0] - x).abs().max() < 1e-10
    assert (velocities[:, 0] - v).abs().max() < 1e-10
    placed, _ = model.internal.place(*model.motion(*told.start, told.coefficients, times))
    middle = x.new_tensor(MASSES)[:, None] / sum(MASSES)
    centre = (middle * x).sum(1)[:, None] + times[:, None] * (middle * v).sum(1)[:, None]
    wanted = centred(model.masses, placed) + centre[:, :, None]
    assert (positions - wanted).abs().max() < 1e-10
    for now, then in zip(
        momenta(model.masses, positions, velocities), momenta(model.masses, x, v), strict=True
    ):
        assert (now - then[:, None]).abs().max() < 1e-10


def test_the_step_onto_the_shell_is_the_least_and_keeps_momenta(model, start, surface):
    x, v = start[0], turning(model, *start)
    masses, weights = model.masses, model.masses[:, None]
    _, forces = surface.with_forces(x)
    before = total_energy(surface, masses, x, v)
    excess = torch.tensor([0.004, -0.004, 0.0, 0.001], dtype=torch.float64)
    moved, later = onto_shell(masses, x, v, forces, excess)
    assert (
        total_energy(surface, masses, moved, later) - before + excess
    ).abs().max() < 1e-4  # measured 5e-5, second order
    for now, then in zip(momenta(masses, moved, later), momenta(masses, x, v), strict=True):
        assert (now - then).abs().max() < 1e-12
    assert (centred(masses, moved) - moved - centred(masses, x) + x).abs().max() < 1e-12
    assert (moved[2] - x[2]).abs().max() < 1e-12
    # Least: along the gradient, (force / mass) T^2 for positions, - vibration for velocities.
    v = start[1]
    moved, later = onto_shell(masses, x, v, forces, excess)
    push = ACCELERATION * forces / weights
    swing = v - rigid_part(masses, x, v)
    gain = SHELL_TIME**2 * (forces * push).sum((1, 2)) + 2 * kinetic_energy(masses, swing)
    share = (excess / gain)[:, None, None]
    assert (moved - x - share * SHELL_TIME**2 * push).abs().max() < 1e-12
    change = later - rigid_part(masses, moved, later) - swing
    assert (change + share * swing).abs().max() < 0.05 * (share * swing).abs().max()


def test_a_step_onto_the_shell_works_at_a_turning_point(model, start, surface):
    """Hardly any kinetic energy to take: the positions give it."""
    x, v = start[0] + 0.0, 1e-3 * start[1]
    stretched = x + 0.05 * (x - x.mean(1, keepdim=True))
    _, forces = surface.with_forces(stretched)
    before = total_energy(surface, model.masses, stretched, v)
    excess = torch.full((4,), 0.05, dtype=torch.float64)
    moved, later = onto_shell(model.masses, stretched, v, forces, excess)
    now = total_energy(surface, model.masses, moved, later)
    assert kinetic_energy(model.masses, v).max() < 1e-4
    assert ((now - before + excess).abs() < 0.1 * excess).all()


def test_a_molecule_that_cannot_give_energy_is_left_alone(model):
    x = FIELD.minimum()[None]
    still = onto_shell(
        model.masses, x, torch.zeros_like(x), FIELD.forces(x), torch.tensor([0.1]).double()
    )
    assert torch.equal(still[0], x)
    assert torch.equal(still[1], torch.zeros_like(x))


def test_shell_keeps_the_energy_and_says_what_it_was_before(model, start, surface):
    settings = PropagationSettings(rule="shell", checks_inside=1, reversible=False)
    run = propagate(model, *start, Regular(300.0, 2.5), surface=surface, settings=settings)
    free = propagate(model, *start, Regular(300.0, 2.5))
    assert run.reasons == (None,) * 4
    assert all((course.members == MEAN).all() for course in run.courses)
    kept, lost = (energies(model, surface, (r.positions, r.velocities)) for r in (run, free))
    kept, lost = kept - kept[:, :1], lost - lost[:, :1]
    assert kept[:, ::4].abs().max() < 0.02  # kcal/mol at the ends of segments; measured 0.004
    assert lost[:, ::4].square().mean() > 100 * kept[:, ::4].square().mean()
    # The first segment is the same: what was found at 5 and 10 fs is what is recorded.
    worst = lost[:, [2, 4]].gather(1, lost[:, [2, 4]].abs().argmax(1, keepdim=True))[:, 0]
    noted = torch.stack([course.errors[0] for course in run.courses]) / EV_PER_KCAL_MOL
    assert (noted - worst).abs().max() < 1e-6
    for now, then in zip(
        momenta(model.masses, run.positions, run.velocities),
        momenta(model.masses, *start),
        strict=True,
    ):
        assert (now - then[:, None]).abs().max() < 1e-9


def test_reversible_segments_lead_back_nearer_to_where_they_came_from(model, start, surface):
    """Correction of the energy included: there, velocities turned round, and back again."""

    def missed(reversible):
        settings = PropagationSettings(rule="shell", reversible=reversible)
        state = start
        for _ in range(2):
            run = propagate(model, *state, Regular(10.0, 10.0), surface=surface, settings=settings)
            state = run.positions[:, -1], -run.velocities[:, -1]
        return float((state[0] - start[0]).square().mean().sqrt())

    assert missed(True) < 0.3 * missed(False)


def test_the_second_half_begins_where_it_is_put_right(model, start, surface, monkeypatch):
    """Up to the middle it is the model's own motion; centre of mass and momenta stay throughout."""
    targets = total_energy(surface, model.masses, *start)
    times = torch.tensor([10.0, 0.0, 3.0, 5.0, 5.5], dtype=torch.float64)  # any order
    run = follow_reversibly(model, start, 10.0, times, surface, targets)
    for now, then in zip(
        momenta(model.masses, run.positions, run.velocities),
        momenta(model.masses, *start),
        strict=True,
    ):
        assert (now - then[:, None]).abs().max() < 1e-10
    known, _ = predict(model, *start, times)
    gaps = (run.positions - known).abs().amax((0, 2, 3))
    assert gaps[1:4].max() < 1e-7  # orientation by half the length
    assert gaps[[0, 4]].min() > 1e-4
    assert torch.equal(run.taken != 0, torch.tensor([True, False, False, False, True]).expand(4, 5))
    # What is noted is the change without any correction, in the middle or at the end.
    left = total_energy(surface, model.masses, run.positions[:, 0], run.velocities[:, 0]) - targets
    settings = PropagationSettings(rule="shell", checks_inside=0)
    whole = propagate(model, *start, Regular(10.0, 10.0), surface=surface, settings=settings)
    noted = torch.stack([course.errors[0] for course in whole.courses])
    assert (noted - run.taken[:, 0] - left).abs().max() < 1e-6
    # A middle that there is not: nothing comes after it.
    finite = reversible._finite
    calls = []

    def broken(state, instead):
        calls.append(state)
        state, sound = finite(state, instead)
        return state, sound & (torch.arange(4) != 1) if len(calls) == 1 else sound

    monkeypatch.setattr(reversible, "_finite", broken)
    run = follow_reversibly(model, start, 10.0, times, surface, targets)
    lost = torch.isnan(run.positions).all(-1).all(-1)
    assert torch.nonzero(lost).tolist() == [[1, 0], [1, 4]]
    assert torch.isfinite(run.positions[~lost]).all()


def test_shell_is_reversible_unless_told_otherwise(model, start, surface):
    runs = [
        propagate(
            model, *start, Regular(10.0, 10.0), surface=surface,
            settings=PropagationSettings(rule="shell", reversible=reversible),
        )
        for reversible in (True, False)
    ]  # fmt: skip
    for run in runs:
        assert (run.positions[:, 0] - start[0]).abs().max() < 1e-12
        assert (run.velocities[:, 0] - start[1]).abs().max() < 1e-12
    assert not torch.allclose(runs[0].positions[:, 1], runs[1].positions[:, 1], atol=1e-6)


def test_beyond_the_limit_the_best_network_is_asked(model, start, surface):
    """The limit lies between the error of the mean and that of the best member, by construction."""
    checks = check_times(10.0, 1)
    begun = total_energy(surface, model.masses, *start)
    both = [told(model, *start, checks) for told in (predict, predict_members)]
    mean, each = (
        (total_energy(surface, model.masses, *frames) - begun[:, None]).abs().amax(-1)
        for frames in both
    )
    best, who = each.min(dim=0)
    row = int((mean / best).argmax())
    assert mean[row] > 1.02 * best[row]
    one = tuple(part[row : row + 1] for part in start)
    limit = float((mean[row] + best[row]) / 2)
    settings = PropagationSettings(rule="shell", limit=limit, reversible=False)
    run = propagate(model, *one, Regular(10.0, 5.0), surface=surface, settings=settings)
    assert run.courses[0].members.tolist() == [int(who[row])]
    assert float(run.courses[0].errors.abs()) == pytest.approx(float(best[row]), rel=1e-3)
    saved = dataclasses.replace(settings, rescue=True)
    again = propagate(model, *one, Regular(10.0, 5.0), surface=surface, settings=saved)
    assert again.courses[0].members.tolist() == [DYNAMICS]
    inside = both[1][0][who[row], row, 0]
    assert (run.positions[0, 1] - inside).abs().max() < 1e-8
    settings = dataclasses.replace(settings, limit=float(best[row]) * 0.99)
    run = propagate(model, *one, Regular(10.0, 5.0), surface=surface, settings=settings)
    assert run.reasons == ("energy",)
    assert run.n_frames.tolist() == [0]
    assert torch.isnan(run.positions).all()


def test_select_takes_the_network_that_changes_the_energy_least(model, start, surface):
    settings = PropagationSettings(rule="select", checks_inside=1)
    run = propagate(model, *start, Regular(10.0, 2.0), surface=surface, settings=settings)
    frames = predict_members(model, *start, check_times(10.0, 1))
    begun = total_energy(surface, model.masses, *start)
    errors = (total_energy(surface, model.masses, *frames) - begun[:, None]).abs().amax(-1)
    chosen = [int(course.members[0]) for course in run.courses]
    assert chosen == errors.argmin(0).tolist()
    assert len(set(chosen)) > 1
    wanted, moving = predict_members(model, *start, run.times)
    for replica, member in enumerate(chosen):
        assert (run.positions[replica] - wanted[member, replica]).abs().max() < 1e-9
        assert (run.velocities[replica] - moving[member, replica]).abs().max() < 1e-9


def test_select_goes_back_and_ends_within_its_threshold(model, start, surface):
    """30 segments, tight: every accepted one is within the threshold, or within a doubled one."""
    threshold = 0.3 * EV_PER_KCAL_MOL
    settings = PropagationSettings(
        rule="select", threshold=threshold, largest_threshold=4 * threshold, largest_rollbacks=8
    )
    run = propagate(model, *start, Regular(300.0, 2.5), surface=surface, settings=settings)
    assert sum(course.rollbacks for course in run.courses) > 0
    for replica, course in enumerate(run.courses):
        limit = threshold if course.doublings == 0 else 4 * threshold
        assert (course.errors <= limit).all()
        times, positions, velocities = run.frames(replica)
        assert course.n_segments == (len(times) - 1) // 4
        assert course.reason in (None, "energy")
        # One unbroken motion, whatever was taken back: no frame is far from where it was heading.
        ahead = positions[:-1] + 1.25 * (velocities[:-1] + velocities[1:])
        assert (positions[1:] - ahead).abs().max() < 0.1
        now = energies(model, surface, (positions, velocities))
        marks = (now[::4] - now[0]).abs() * EV_PER_KCAL_MOL
        assert (marks <= limit * (1 + 1e-6)).all()


@pytest.mark.parametrize("rule", ["mean", "shell", "select"])
def test_replicas_do_not_know_of_each_other(model, start, surface, rule):
    settings = PropagationSettings(rule=rule, threshold=0.3 * EV_PER_KCAL_MOL, largest_rollbacks=4)
    together = propagate(model, *start, Regular(60.0, 4.0), surface=surface, settings=settings)
    for replica in range(4):
        one = tuple(part[replica : replica + 1] for part in start)
        alone = propagate(model, *one, Regular(60.0, 4.0), surface=surface, settings=settings)
        assert alone.reasons == (together.reasons[replica],)
        assert torch.equal(alone.courses[0].members, together.courses[replica].members)
        mine, yours = alone.frames(0)[1], together.frames(replica)[1]
        assert (mine - yours).abs().max() < 1e-3  # float32 networks, 6 segments; measured 4e-6


def test_what_cannot_be_done_is_run_as_ordinary_dynamics(model, start, surface):
    """No network is good enough: all of it is velocity Verlet on the true potential."""
    settings = PropagationSettings(rule="shell", limit=0.001, rescue=True)
    run = propagate(model, *start, Regular(20.0, 0.1), surface=surface, settings=settings)
    assert run.reasons == (None,) * 4
    rescued = [course.n_rescues for course in run.courses]
    assert len(run.stretches) == sum(rescued) > 4
    exact = run_dynamics(surface, model.masses, *start, 20.0)
    for replica, course in enumerate(run.courses):
        if course.n_rescues == 2:
            assert (run.positions[replica, ::5] - exact.positions[replica, ::2]).abs().max() < 1e-9
    first = run.stretches[0]
    assert first.positions.shape == (41, 4, 3)
    assert first.timestep == 0.25
    assert first.start == 0.0
    assert (first.energies - FIELD.energy(first.positions)).abs().max() < 1e-12
    assert (first.forces - FIELD.forces(first.positions)).abs().max() < 1e-12


def test_with_a_rescue_less_is_believed(model, start, surface):
    """The limit lies below the change of energy of one replica's segment and above another's."""
    free = PropagationSettings(rule="shell")
    run = propagate(model, *start, Regular(10.0, 5.0), surface=surface, settings=free)
    changes = torch.stack([course.errors[0].abs() for course in run.courses])
    least, most = float(changes.min()), float(changes.max())
    limit = (least + most) / 2
    settings = dataclasses.replace(free, rescue_limit=limit)
    assert settings.largest_change == free.limit
    settings = dataclasses.replace(settings, rescue=True)
    assert settings.largest_change == limit
    again = propagate(model, *start, Regular(10.0, 5.0), surface=surface, settings=settings)
    members = torch.stack([course.members[0] for course in again.courses])
    assert torch.equal(members == DYNAMICS, changes > limit)
    assert torch.equal(members == MEAN, changes <= limit)
    exact = run_dynamics(surface, model.masses, *start, 10.0)
    worst = int(changes.argmax())
    assert (again.positions[worst, 2] - exact.positions[worst, -1]).abs().max() < 1e-12


def test_dynamics_between_its_steps_is_that_of_finer_steps(model, start, surface, monkeypatch):
    coarse = run_dynamics(surface, model.masses, *start, 10.0)
    monkeypatch.setattr("alloop.spacetime.propagation.rescue.TIMESTEP", 0.025)
    fine = run_dynamics(surface, model.masses, *start, 10.0)
    positions, velocities = coarse.at(torch.arange(0, 401).double() * 0.025)
    assert (positions - fine.positions).abs().max() < 2e-3  # Verlet's own, measured 7e-4
    assert (velocities - fine.velocities).abs().max() < 1e-3
    arrivals = coarse.at(torch.arange(1, 41).double() * 0.25 - 1e-9)
    assert (arrivals[0] - coarse.positions[:, 1:]).abs().max() < 1e-8
    assert (arrivals[1] - coarse.velocities[:, 1:]).abs().max() < 1e-8
    between = torch.arange(0, 40).double() * 0.25 + 0.125
    x, _ = coarse.at(between - 1e-4)
    y, _ = coarse.at(between + 1e-4)
    assert ((y - x) / 2e-4 - coarse.at(between)[1]).abs().max() < 1e-6


def test_rescue_under_select_goes_on_from_where_no_network_would_do(model, start, surface):
    settings = PropagationSettings(
        rule="select", threshold=0.002, largest_threshold=0.004, largest_rollbacks=3, rescue=True
    )
    run = propagate(model, *start, Regular(60.0, 0.5), surface=surface, settings=settings)
    assert run.reasons == (None,) * 4
    assert run.n_frames.tolist() == [121] * 4
    members = torch.cat([course.members for course in run.courses])
    assert (members == DYNAMICS).any()
    assert (members >= 0).any()
    for replica in range(4):
        _, positions, velocities = run.frames(replica)
        ahead = positions[:-1] + 0.25 * (velocities[:-1] + velocities[1:])
        assert (positions[1:] - ahead).abs().max() < 5e-3


@pytest.mark.parametrize("rule", ["shell", "select"])
def test_without_an_energy_nothing_goes_on(model, start, rule):
    settings = PropagationSettings(rule=rule, rescue=True)
    run = propagate(model, *start, Regular(40.0, 1.0), surface=NoSurface(), settings=settings)
    assert run.reasons == ("energy",) * 4
    assert run.n_frames.tolist() == [0] * 4
    assert run.stretches == ()


@pytest.mark.parametrize("rule", ["mean", "shell", "select"])
def test_frames_come_once_and_in_order_whatever_the_interval(model, start, surface, rule):
    """Intervals of 3 fs against segments of 10: a sink sees what is otherwise collected."""
    settings = PropagationSettings(rule=rule, threshold=0.3 * EV_PER_KCAL_MOL, largest_rollbacks=4)
    seen = {replica: [] for replica in range(4)}
    times = torch.arange(0, 131, 3).double()
    kept = propagate(model, *start, times, surface=surface, settings=settings)
    given = propagate(
        model,
        *start,
        Regular(130.0, 3.0),
        surface=surface,
        settings=settings,
        sink=lambda block: seen[block.replica].append(block),
    )
    assert given.positions.numel() == 0
    assert given.n_frames.tolist() == kept.n_frames.tolist()
    for replica, blocks in seen.items():
        assert len(blocks) > 4
        assert [b.first for b in blocks] == np.cumsum([0, *(len(b.times) for b in blocks)])[
            :-1
        ].tolist()
        when, positions, velocities = kept.frames(replica)
        assert (torch.cat([b.times for b in blocks]) - when).abs().max() < 1e-9
        assert torch.equal(torch.cat([b.positions for b in blocks]), positions)
        assert torch.equal(torch.cat([b.velocities for b in blocks]), velocities)


def test_shorter_segments_ask_less_of_the_model(model, start, surface):
    settings = PropagationSettings(rule="shell", segment=5.0)
    run = propagate(model, *start, Regular(50.0, 5.0), surface=surface, settings=settings)
    assert [course.n_segments for course in run.courses] == [10] * 4
    now = energies(model, surface, (run.positions, run.velocities))
    assert (now - now[:, :1]).abs().max() < 0.1  # measured 0.05 where 2 kcal/mol were taken away
    with pytest.raises(SpacetimeError, match="cutoff"):
        propagate(model, *start, Regular(50.0, 5.0), settings=PropagationSettings(segment=11.0))


@pytest.mark.parametrize("rule", ["shell", "select"])
def test_deadline_and_progress(model, start, surface, rule):
    settings = PropagationSettings(rule=rule, threshold=1.0, largest_threshold=1.0)
    news = []
    late = propagate(
        model, *start, Regular(50.0, 1.0), surface=surface, settings=settings,
        deadline=time.monotonic() - 1.0,
    )  # fmt: skip
    assert late.reasons == ("deadline",) * 4
    assert late.n_frames.tolist() == [0] * 4
    propagate(
        model, *start, Regular(50.0, 1.0), surface=surface, settings=settings,
        on_progress=lambda *told: news.append(told),
    )  # fmt: skip
    assert [told[:2] for told in news] == [(10.0 * k, 50.0) for k in range(1, 6)]
    assert news[0][2] == 4


def test_a_deadline_on_the_way_leaves_what_is_settled(model, start, surface):
    """Segments that could still have been taken back are handed out then."""
    settings = PropagationSettings(rule="select", threshold=1.0, largest_threshold=1.0)
    clock = []

    class Slow(Surface):
        def energies(self, positions):
            clock.append(len(positions))
            if len(clock) > 4:
                time.sleep(0.6)
            return super().energies(positions)

    run = propagate(
        model, *start, Regular(200.0, 1.0), surface=Slow(), settings=settings,
        deadline=time.monotonic() + 0.5,
    )  # fmt: skip
    assert run.reasons == ("deadline",) * 4
    assert run.n_frames.tolist() == [41] * 4
    assert torch.isfinite(run.positions[:, :41]).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rule": "hope"}, "hope"),
        ({"segment": 0.0}, "segment"),
        ({"limit": math.nan}, "limit"),
        ({"rescue_limit": 0.0}, "rescue_limit"),
        ({"threshold": 1.0, "largest_threshold": 0.5}, "largest_threshold"),
        ({"buffer": -1}, "buffer"),
    ],
)
def test_senseless_settings_are_refused(changes, match):
    with pytest.raises(SpacetimeError, match=match):
        PropagationSettings(**changes)


def test_rules_that_need_energies_say_so(model, start):
    for settings in (PropagationSettings(rule="shell"), PropagationSettings(rescue=True)):
        with pytest.raises(SpacetimeError, match="surface"):
            propagate(model, *start, Regular(10.0, 1.0), settings=settings)
    with pytest.raises(SpacetimeError, match="positive"):
        Regular(10.0, 0.0)
