"""Integrated gradients of a 4D model: closed forms, completeness, the shorter way round."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.internal import to_cartesian
from alloop.spacetime.judging.attribution import (
    attribute,
    coordinate_names,
    input_names,
    resting_baselines,
)
from alloop.spacetime.motion.orientation import predict
from tests.physics.test_spacetime_motion import CHAIN, PEROXIDE, Case, rigid

FIELD, NUMBERS, MASSES = PEROXIDE
TORSION = 5
NAMES = (
    "bond O1-O0", "bond H2-O0", "bond H3-O1", "angle H2-O0-O1", "angle H3-O1-O0",
    "dihedral H3-O1-O0-H2",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def peroxide():
    return Case(PEROXIDE, 20, 400)


@pytest.fixture(scope="module")
def model(peroxide):
    return peroxide.fitted.model


@pytest.fixture(scope="module")
def start(peroxide):
    return tuple(part[-1, 60] for part in peroxide.motion)


@pytest.fixture(scope="module")
def baselines(peroxide, model, start):
    frames = peroxide.motion[0][:4, ::5].flatten(0, 1)
    return resting_baselines(model, start[0], frames, 4)


def state(torsion, rate, bond=1.45):
    q = torch.tensor([bond, 0.97, 0.97, 1.75, 1.75, torsion], dtype=torch.float64)
    return to_cartesian(CHAIN, q, torch.tensor([0.0, 0, 0, 0, 0, rate], dtype=torch.float64))


def many(*states):
    return tuple(torch.stack(part) for part in zip(*states, strict=True))


def test_uniform_motion_is_shared_out_in_closed_form():
    """F = q + q' t: at fixed time (q - q0) and (q' - q0') t; along time a product of two inputs."""
    idle = rigid(CHAIN, NUMBERS, MASSES)
    far = many(state(1.0, 0.0), state(0.8, 0.004))
    found = attribute(idle, state(1.5, 0.01), far, TORSION, 12.0)
    wanted = torch.zeros(1, 2, 12, dtype=torch.float64)
    wanted[0, :, 5] = torch.tensor([0.5, 0.7], dtype=torch.float64)
    wanted[0, :, 11] = torch.tensor([0.12, 0.072], dtype=torch.float64)
    assert found.values.shape == wanted.shape
    assert (found.values - wanted).abs().max() < 1e-9
    along = attribute(idle, state(1.5, 0.01), far, TORSION, 12.0, along_time=True)
    assert along.names == (*found.names, "time")
    # From (q0', 0) to (q', t): d(q' t) = t dq' + q' dt along a straight line.
    assert along.values[0, :, 11] == pytest.approx([0.06, 0.036], abs=1e-9)
    assert along.values[0, :, 12] == pytest.approx([0.06, 0.084], abs=1e-9)
    assert along.changes[0] == pytest.approx([0.62, 0.82], abs=1e-9)


def test_dihedrals_go_the_shorter_way_round():
    """Measured: without it 350 degrees are shared out instead of 10."""
    idle = rigid(CHAIN, NUMBERS, MASSES)
    found = attribute(
        idle,
        state(math.radians(175.0), 0.0),
        many(state(math.radians(-175.0), 0.0), state(math.radians(165.0), 0.0)),
        TORSION,
        10.0,
    )
    assert found.values[0, :, 5].rad2deg() == pytest.approx([-10.0, 10.0], abs=1e-6)
    assert found.changes[0].rad2deg() == pytest.approx([-10.0, 10.0], abs=1e-6)


@pytest.mark.parametrize("along_time", [False, True])
@pytest.mark.parametrize("target", [0, TORSION])
def test_values_sum_up_to_the_change_the_better_the_more_nodes(
    model, start, baselines, along_time, target
):
    """Measured with 4 and 24 nodes: 4e-5 and 3e-8 at most (networks of single precision)."""
    errors = [
        attribute(model, start, baselines, target, 10.0, along_time=along_time, n_nodes=n)
        .completeness_error.max()
        .item()
        for n in (1, 4, 24)
    ]
    assert errors[2] < 1e-6
    assert errors[0] > 4 * errors[1] > 40 * errors[2]


def test_what_is_explained_is_what_the_model_predicts(model, start, baselines):
    """The change is between two predictions in space, read as coordinates again."""
    found = attribute(model, start, baselines, TORSION, 7.0)
    time = torch.tensor([7.0], dtype=torch.float64)
    seen = []
    for x, v in ((part[None] for part in start), baselines):
        there, moving = predict(model, x, v, time)
        seen.append(model.internal.describe(there[:, 0], moving[:, 0])[0][:, TORSION])
    turns = (seen[0] - seen[1] - found.changes.mean(dim=0)) / (2 * math.pi)
    assert (turns - turns.round()).abs().max() < 1e-6
    assert found.changes.abs().min() > 1e-3


def test_a_small_step_is_explained_by_the_gradient(model, start):
    """Of one coordinate at a time, by finite differences of the prediction itself."""
    (q,), (rates,) = (part[None] for part in model.internal.describe(*start))
    time = torch.tensor([10.0], dtype=torch.float64)

    def ahead(q, rates):
        coefficients = model.coefficients(q[None], rates[None])
        return torch.stack(
            [model.motion(q[None], rates[None], c, time)[0][0, 0, TORSION] for c in coefficients]
        )

    for i, step in ((1, 0.01), (4, 0.02), (TORSION, 0.03)):
        nearby = q.clone()
        nearby[i] -= step
        found = attribute(model, start, many(model.internal.place(nearby, rates)), TORSION, 10.0)
        change = ahead(q, rates) - ahead(nearby, rates)
        assert torch.allclose(found.values[:, 0, i], change, rtol=1e-3, atol=2e-6)
        rest = found.values[:, 0].abs().sum(dim=1) - found.values[:, 0, i].abs()
        assert rest.max() < 1e-9


def test_a_torsion_goes_where_its_own_rate_takes_it(model, start, baselines):
    """Over 10 fs a slow torsion moves nearly uniformly; here its barrier takes a fifth."""
    found = attribute(model, start, baselines, TORSION, 10.0)
    assert {found.names[i] for i in found.largest(2)} == {
        NAMES[TORSION], f"rate of {NAMES[TORSION]}",
    }  # fmt: skip
    rate = model.internal.describe(*start)[1][TORSION]
    assert float(found.mean[11]) == pytest.approx(float(10 * rate), rel=0.3)


def test_spreads_are_over_members_and_over_baselines(model, start, baselines):
    found = attribute(model, start, baselines, TORSION, 10.0)
    first, second = found.values.mean(dim=1)
    assert torch.allclose(found.member_spread, (first - second).abs() / 2)
    assert found.member_spread.max() > 0
    each = found.values.mean(dim=0)
    assert torch.allclose(found.baseline_spread, each.std(dim=0, correction=0))
    assert torch.allclose(found.mean, each.mean(dim=0))
    alone = [
        dataclasses.replace(
            model,
            weights=tuple(w[i : i + 1] for w in model.weights),
            biases=tuple(b[i : i + 1] for b in model.biases),
        )
        for i in range(2)
    ]
    for i, member in enumerate(alone):
        own = attribute(member, start, baselines, TORSION, 10.0)
        assert torch.allclose(own.values[0], found.values[i], atol=1e-6)


def test_inputs_have_names(model):
    assert coordinate_names(CHAIN, (8, 8, 1, 1)) == NAMES
    rates = tuple(f"rate of {name}" for name in NAMES)
    assert input_names(CHAIN, (8, 8, 1, 1)) == (*NAMES, *rates, "time")


def test_baselines_rest_in_the_basin_of_the_start(model):
    angles = np.radians([170.0, -170.0, 178.0, 100.0, -100.0, 0.0])
    frames = torch.stack([state(angle, 0.02)[0] for angle in angles])
    positions, velocities = resting_baselines(model, state(math.radians(175.0), 0.0)[0], frames, 9)
    assert velocities.abs().max() == 0.0
    q, _ = model.internal.describe(positions, velocities)
    found = q[:, TORSION].rad2deg() % 360
    # The mean of 170, 190 and 178 degrees, not of -170; then these frames themselves.
    assert found == pytest.approx([538 / 3, 170.0, 190.0, 178.0], abs=1e-6)
    few, _ = resting_baselines(model, state(math.radians(175.0), 0.0)[0], frames, 1)
    assert torch.allclose(few, positions[:1])
    with pytest.raises(SpacetimeError, match=r"of 1 frames none is within 60 degrees"):
        resting_baselines(model, state(1.5, 0.0)[0], frames[-1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinate": 6}, "no coordinate 6, want one of 0 to 5"),
        ({"time": 10.1}, "the time is 10.1 fs, want one from 0 to the cutoff 10.0"),
        ({"time": math.nan}, "the time is nan fs"),
        ({"baselines": (torch.zeros(4, 3), torch.zeros(4, 3))}, "baselines have shapes"),
        ({"start": (torch.zeros(4, 3), torch.zeros(3, 3))}, "start have shapes"),
    ],
)
def test_wrong_questions_are_refused(model, start, baselines, changes, message):
    asked = {"start": start, "baselines": baselines, "coordinate": 0, "time": 5.0} | changes
    with pytest.raises(SpacetimeError, match=message):
        attribute(model, **asked)
