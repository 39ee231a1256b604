"""Who takes the place of a 4D model, and on what evidence."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.judging.accuracy import assess
from alloop.spacetime.judging.gate import BALLISTIC_FACTOR, judge
from alloop.spacetime.learning.fit import fit
from tests.unit.test_spacetime_model import QUICK, trajectories

HELD_OUT = list(range(18, 26))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return trajectories(splits=("train",) * 18 + ("test",) * 8)


@pytest.fixture(scope="module")
def model(data):
    return fit(data, QUICK, 7).model


def spoilt(model, part):
    """The same model with so much of its polynomial missing."""
    return dataclasses.replace(model, polynomial=(1 - part) * model.polynomial)


def test_the_better_model_is_promoted_and_the_worse_held_back(data, model):
    worse = spoilt(model, 0.05)
    forth, back = judge(model, worse, data, HELD_OUT), judge(worse, model, data, HELD_OUT)
    assert forth.promoted
    assert not back.promoted
    assert forth.numbers["ratio_high"] < 1 < back.numbers["ratio_low"]
    assert forth.numbers["ratio"] * back.numbers["ratio"] == pytest.approx(1)
    assert forth.reason.startswith("promoted: its error is 0.")
    assert "of that of the incumbent (95% interval" in back.reason
    assert "on 8 trajectories, the limit is 1.020" in back.reason


def test_a_model_like_the_incumbent_passes_only_with_tolerance(data, model):
    assert judge(model, model, data, HELD_OUT, tolerance=0.01).promoted
    same = judge(model, model, data, HELD_OUT, tolerance=0.0)
    assert not same.promoted
    assert same.numbers["ratio"] == same.numbers["ratio_low"] == same.numbers["ratio_high"] == 1
    ratio = judge(spoilt(model, 0.01), model, data, HELD_OUT).numbers["ratio"]
    for tolerance, promoted in ((ratio - 1.001, False), (ratio - 0.999, True)):
        gate = judge(spoilt(model, 0.01), model, data, HELD_OUT, tolerance)
        assert gate.promoted is promoted


def test_the_ratio_does_not_depend_on_units_and_has_the_jackknife_interval(data, model):
    """Against sums over trajectories and a jackknife written out here."""
    other = spoilt(model, 0.03)
    gate = judge(model, other, data, HELD_OUT)
    kinds = ("bond", "angle", "dihedral")
    squares = {
        name: np.array(
            [[assess(m, data, [i]).ensemble[kind] ** 2 for kind in kinds] for i in HELD_OUT]
        )
        for name, m in (("candidate", model), ("other", other))
    }

    def log_ratio(rows):
        sums = [squares[name][rows].sum(axis=0) for name in ("candidate", "other")]
        return float(np.mean(0.5 * np.log(sums[0] / sums[1])))

    everything = np.arange(8)
    centre = log_ratio(everything)
    parts = np.array([log_ratio(np.delete(everything, i)) for i in everything])
    error = math.sqrt(7 / 8 * np.sum((parts - parts.mean()) ** 2))
    assert gate.numbers["ratio"] == pytest.approx(math.exp(centre))
    wide = student.ppf(0.975, 7) * error
    assert gate.numbers["ratio_low"] == pytest.approx(math.exp(centre - wide))
    assert gate.numbers["ratio_high"] == pytest.approx(math.exp(centre + wide))
    for k, kind in enumerate(kinds):
        mine, theirs = (math.sqrt(squares[name][:, k].mean()) for name in ("candidate", "other"))
        assert gate.numbers[f"candidate_{kind}"] == pytest.approx(mine)
        assert gate.numbers[f"other_{kind}"] == pytest.approx(theirs)
        assert gate.numbers[f"ratio_{kind}"] == pytest.approx(mine / theirs)
    assert gate.numbers["n_segments"] == 8 * 4


def test_longer_trajectories_weigh_more(data, model):
    short = dataclasses.replace(
        data,
        positions=(*data.positions[:25], data.positions[25][:25]),
        velocities=(*data.velocities[:25], data.velocities[25][:25]),
    )
    found = judge(model, spoilt(model, 0.03), short, [24, 25]).numbers
    scores = [assess(model, short, [i]) for i in (24, 25)]
    assert [score.n_segments for score in scores] == [4, 1]
    theirs = [assess(spoilt(model, 0.03), short, [i]) for i in (24, 25)]
    wanted = [
        math.sqrt((4 * one.ensemble["bond"] ** 2 + other.ensemble["bond"] ** 2) / 5)
        for one, other in (scores, theirs)
    ]
    assert found["candidate_bond"] == pytest.approx(wanted[0])
    assert found["ratio_bond"] == pytest.approx(wanted[0] / wanted[1])


def test_a_first_model_must_beat_uniform_motion_by_far(data, model):
    gate = judge(model, None, data, HELD_OUT)
    assert gate.promoted
    assert gate.numbers["limit"] == 1 / BALLISTIC_FACTOR
    assert "of that of uniform motion" in gate.reason
    idle = dataclasses.replace(
        spoilt(model, 1.0),
        weights=tuple(torch.zeros_like(w) for w in model.weights),
        biases=tuple(torch.zeros_like(b) for b in model.biases),
    )
    still = judge(idle, None, data, HELD_OUT)
    assert not still.promoted
    assert still.numbers["ratio"] == pytest.approx(1)


def test_errors_that_are_no_numbers_hold_back(data, model):
    broken = dataclasses.replace(model, polynomial=model.polynomial * math.nan)
    for incumbent in (model, None, broken):
        gate = judge(broken, incumbent, data, HELD_OUT)
        assert not gate.promoted
        assert "held back: its error is nan" in gate.reason
        assert "ratio" not in gate.numbers
        assert all(math.isfinite(value) for value in gate.numbers.values())


@pytest.mark.parametrize("trouble", ["broken", "another cutoff"])
def test_an_incumbent_that_cannot_be_compared_does_not_stay_for_ever(data, model, trouble):
    if trouble == "broken":
        incumbent = dataclasses.replace(model, polynomial=model.polynomial * math.nan)
    else:
        basis = dataclasses.replace(model.basis, cutoff=5.0)
        incumbent = dataclasses.replace(model, basis=basis)
    gate = judge(model, incumbent, data, HELD_OUT)
    assert gate.promoted
    assert "uniform motion" in gate.reason


def test_one_trajectory_gives_no_interval(data, model):
    gate = judge(model, spoilt(model, 0.05), data, [25])
    assert gate.promoted
    assert "interval" not in gate.reason
    assert "on 1 trajectory, the limit" in gate.reason
    assert {"ratio_low", "ratio_high"}.isdisjoint(gate.numbers)


def test_models_with_other_coordinates_are_compared_in_space(data, model):
    """The chain is walked from its other end, where the same numbers mean something else."""
    ways = ((0,), (1, 0), (2, 0, 1), (3, 1, 0, 2)), ((1,), (0, 1), (3, 1, 0), (2, 0, 1, 3))
    (backwards,) = (ZMatrix(rows) for rows in ways if ZMatrix(rows) != model.internal)
    other = dataclasses.replace(model, internal=backwards)
    numbers = judge(model, other, data, HELD_OUT).numbers
    assert "ratio_bond" not in numbers
    each = [assess(model, data, [i]).ensemble["rmsd_end"] for i in HELD_OUT]
    assert numbers["candidate_rmsd_end"] == pytest.approx(math.sqrt(np.square(each).mean()))


def test_what_cannot_be_judged_is_refused(data, model):
    stranger = dataclasses.replace(model, numbers=(8, 8, 1, 9))
    with pytest.raises(SpacetimeError, match=r"candidate is for atoms \(8, 8, 1, 1\)"):
        judge(model, stranger, data, HELD_OUT)
    with pytest.raises(SpacetimeError, match="none of 0 held-out trajectories"):
        judge(model, None, data, [])
