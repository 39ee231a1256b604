"""Ranks, limits and missing evidence in the calibration of spreads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alloop.acquisition.calibration import (
    calibrate,
    conformal_quantile,
    imbalzano_factor,
    second_moment_factor,
    threshold_for_target,
)
from alloop.acquisition.intervals import rmse_interval
from alloop.errors import AcquisitionError

TRAJECTORIES = np.repeat(np.arange(10), 8)


@pytest.fixture
def blind():
    """Errors and spreads of 80 frames of 10 trajectories, error about twice the spread."""
    rng = np.random.default_rng(11)
    spreads = np.exp(0.5 * rng.normal(size=80))
    return np.abs(2.0 * spreads * rng.normal(size=80)), spreads


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.95, 19), (24, 0.56, 14)]
)
def test_the_quantile_is_the_score_of_the_conformal_rank(n, level, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1.0))
    assert conformal_quantile(scores, level) == rank


@pytest.mark.parametrize(("n", "level"), [(0, 0.5), (8, 0.9), (18, 0.95)])
def test_too_few_scores_bound_nothing(n, level):
    assert conformal_quantile(np.ones(n), level) == math.inf


def test_a_score_that_is_no_number_counts_as_the_worst():
    scores = np.arange(1.0, 12.0)
    scores[0] = np.nan
    assert conformal_quantile(scores, 0.8) == 11.0
    scores[1] = np.nan
    assert conformal_quantile(scores, 0.8) == math.inf


def test_formulas_on_numbers_done_by_hand():
    errors, spreads = np.array([3.0, 4.0]), np.array([1.0, 2.0])
    # <error²/spread²> = (9 + 4) / 2 and <error²>/<spread²> = 25 / 5
    assert imbalzano_factor(errors, spreads, 8) == pytest.approx(math.sqrt(6.5 * 5 / 7 - 1 / 8))
    assert second_moment_factor(errors, spreads, 8) == pytest.approx(math.sqrt(5 - 1 / 8))


def test_the_estimator_fits_the_committee(blind):
    errors, spreads = blind
    of = {m: calibrate(errors, spreads, TRAJECTORIES, measure="e", n_members=m) for m in (3, 5, 6)}
    assert [c.estimator for c in of.values()] == ["second_moments", "second_moments", "imbalzano"]
    assert of[3].alpha == pytest.approx(second_moment_factor(errors, spreads, 3))
    assert of[6].alpha == pytest.approx(imbalzano_factor(errors, spreads, 6))
    summary = calibrate(errors, spreads, TRAJECTORIES, measure="max_force_spread")
    assert summary.estimator == "summary"
    assert summary.alpha == pytest.approx(np.sqrt((errors**2).sum() / (spreads**2).sum()))


def test_three_members_have_no_moment_formula(blind):
    with pytest.raises(AcquisitionError, match="second_moment_factor"):
        imbalzano_factor(*blind, 3)
    for n_members in (0, 1):
        with pytest.raises(AcquisitionError, match="at least 2 members"):
            calibrate(*blind, TRAJECTORIES, measure="e", n_members=n_members)


@pytest.mark.parametrize("n_members", [None, 3, 8])
def test_the_threshold_is_where_the_expected_error_meets_the_target(blind, n_members):
    calibration = calibrate(*blind, TRAJECTORIES, measure="e", n_members=n_members)
    threshold = threshold_for_target(0.05, calibration)
    assert calibration.expected_error(np.array([threshold]))[0] == pytest.approx(0.05)
    assert calibration.alpha_low < calibration.alpha < calibration.alpha_high


def test_expected_error_is_the_error_of_the_mean_of_the_members():
    rng = np.random.default_rng(3)
    members = rng.normal(size=(4, 20000))
    truth = 1.5 * rng.normal(size=20000)
    errors, spreads = np.abs(truth - members.mean(axis=0)), members.std(axis=0, ddof=1)
    groups = np.arange(20000) // 100
    calibration = calibrate(errors, spreads, groups, measure="e", n_members=4)
    assert calibration.alpha == pytest.approx(1.5, rel=0.03)
    expected = np.sqrt(np.mean(calibration.expected_error(spreads) ** 2))
    assert expected == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 1e200])
def test_frames_without_a_spread_are_left_out(blind, unknown):
    errors, spreads = blind
    expected = calibrate(errors[5:], spreads[5:], TRAJECTORIES[5:], measure="e")
    spreads[:5] = unknown
    assert calibrate(errors, spreads, TRAJECTORIES, measure="e") == expected


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("n_members", [None, 4, 8])
def test_an_unknown_error_makes_every_spread_unsafe(blind, unknown, n_members):
    errors, spreads = blind
    errors[7] = unknown
    calibration = calibrate(errors, spreads, TRAJECTORIES, measure="e", n_members=n_members)
    assert calibration.alpha == calibration.alpha_high == math.inf
    assert threshold_for_target(0.1, calibration) == 0.0
    assert calibration.expected_error(np.zeros(1))[0] == math.inf


def test_no_spread_vouches_for_no_error(blind):
    errors, spreads = blind
    spreads[3], errors[3] = 0.0, 0.0
    calibration = calibrate(errors, spreads, TRAJECTORIES, measure="e", n_members=8, level=0.999)
    assert calibration.alpha == math.inf
    assert calibration.quantile == math.inf
    empty = calibrate(np.zeros(0), np.zeros(0), np.zeros(0, int), measure="e")
    assert (empty.alpha, empty.quantile, empty.n) == (math.inf, math.inf, 0)


def test_bounds_of_unknown_spreads_are_infinite(blind):
    calibration = calibrate(*blind, TRAJECTORIES, measure="e")
    spreads = np.array([0.5, np.nan, np.inf])
    assert calibration.bound(spreads).tolist() == [0.5 * calibration.quantile, np.inf, np.inf]
    assert calibration.expected_error(spreads)[1:].tolist() == [np.inf, np.inf]


def test_members_that_agree_less_than_they_err_have_no_negative_variance():
    calibration = calibrate(
        np.full(40, 0.1), np.ones(40), np.arange(40) // 4, measure="e", n_members=4
    )
    assert calibration.alpha == 0.0
    assert calibration.error_per_spread == 0.5


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_a_target_is_a_positive_number(blind, target):
    with pytest.raises(AcquisitionError, match="positive number"):
        threshold_for_target(target, calibrate(*blind, TRAJECTORIES, measure="e"))


def test_shapes_and_levels_are_checked(blind):
    errors, spreads = blind
    with pytest.raises(AcquisitionError, match="one error, spread and trajectory"):
        calibrate(errors[1:], spreads, TRAJECTORIES, measure="e")
    with pytest.raises(AcquisitionError, match="between 0 and 1"):
        calibrate(errors, spreads, TRAJECTORIES, measure="e", level=1.0)
    with pytest.raises(AcquisitionError, match="between 0 and 1"):
        rmse_interval(errors**2, TRAJECTORIES, confidence=95.0)
    with pytest.raises(AcquisitionError, match="got shapes"):
        rmse_interval(errors**2, TRAJECTORIES[1:])


def test_rmse_and_its_interval(blind):
    errors, _ = blind
    interval = rmse_interval(errors**2, TRAJECTORIES)
    assert interval.value == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert interval.low < interval.value < interval.high
    assert (interval.n, interval.n_groups) == (80, 10)
    wider = rmse_interval(errors**2, TRAJECTORIES, confidence=0.99)
    assert wider.low < interval.low
    assert wider.high > interval.high


def test_an_interval_done_by_hand():
    """Leaving out either of two trajectories: ln 9 apart, standard error ln 9 / 2; t is 12.706."""
    interval = rmse_interval(np.array([1.0, 9.0]), np.array([4, 2]))
    assert interval.value == pytest.approx(math.sqrt(5.0))
    factor = 9.0 ** (12.706 / 4)
    assert interval.high == pytest.approx(math.sqrt(5.0) * factor, rel=1e-3)
    assert interval.low == pytest.approx(math.sqrt(5.0) / factor, rel=1e-3)


def test_copies_of_a_frame_are_no_evidence(blind):
    errors, _ = blind
    once = rmse_interval(errors[::8] ** 2, np.arange(10))
    copied = rmse_interval(np.repeat(errors[::8] ** 2, 50), np.repeat(np.arange(10), 50))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize(
    ("squares", "groups", "value"),
    [
        ([], [], math.inf),
        ([1.0, math.nan], [0, 1], math.inf),
        ([1.0, math.inf], [0, 1], math.inf),
        ([4.0, 4.0], [7, 7], 2.0),
        ([0.0, 0.0], [0, 1], 0.0),
        ([0.0, 4.0], [0, 1], math.sqrt(2.0)),
    ],
)
def test_missing_evidence_leaves_the_error_unbounded(squares, groups, value):
    interval = rmse_interval(np.array(squares), np.array(groups, dtype=np.int64))
    assert interval.value == pytest.approx(value)
    assert (interval.low, interval.high) == (0.0, math.inf)
