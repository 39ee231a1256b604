"""Spreads and their calibration on committees whose true errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from alloop.acquisition.calibration import (
    calibrate,
    conformal_quantile,
    imbalzano_factor,
    second_moment_factor,
)
from alloop.acquisition.intervals import rmse_interval
from alloop.acquisition.uncertainty import (
    energy_spread,
    energy_spread_per_sqrt_atom,
    max_force_spread,
)

PLANTED = 2.5


def committee(n_members, n, rng, width=0.5):
    """Members about their centre with a frame's own scatter s, the truth with PLANTED times it."""
    scatter = np.exp(width * rng.normal(size=n))
    members = rng.normal(size=(n_members, n)) * scatter
    truth = PLANTED * rng.normal(size=n) * scatter
    return np.abs(truth - members.mean(axis=0)), members.std(axis=0, ddof=1)


@pytest.mark.parametrize("n_members", [4, 8])
def test_the_planted_factor_is_recovered_and_the_naive_ratio_is_not(n_members):
    errors, spreads = committee(n_members, 400_000, np.random.default_rng(n_members))
    # At M = 4 the mean of 1/spread² converges slower than 1/sqrt(n); 1 % at this size.
    assert imbalzano_factor(errors, spreads, n_members) == pytest.approx(PLANTED, rel=0.03)
    assert second_moment_factor(errors, spreads, n_members) == pytest.approx(PLANTED, rel=0.02)
    naive = np.sqrt(np.mean((errors / spreads) ** 2))
    assert naive > PLANTED * {4: 1.6, 8: 1.15}[n_members]


@pytest.mark.parametrize("n_members", [2, 3])
def test_second_moments_serve_the_smallest_committees(n_members):
    errors, spreads = committee(n_members, 100_000, np.random.default_rng(7))
    assert second_moment_factor(errors, spreads, n_members) == pytest.approx(PLANTED, rel=0.03)


def test_second_moments_scatter_less_for_four_members():
    """Why calibrate() does not use the mean of 1/spread² there: 90 % ranges over 300 samples."""
    rng = np.random.default_rng(1)
    samples = [committee(4, 100, rng, width=0.0) for _ in range(300)]
    width = {
        formula: np.ptp(np.quantile([formula(e, s, 4) for e, s in samples], [0.05, 0.95]))
        for formula in (imbalzano_factor, second_moment_factor)
    }
    assert width[second_moment_factor] < 0.6 * width[imbalzano_factor]


def test_a_summary_of_forces_predicts_the_force_error():
    """Nine atoms: the expected error of a frame at its largest spread has the true RMSE."""
    rng = np.random.default_rng(3)
    scatter = np.exp(0.5 * rng.normal(size=(4000, 1, 1))) * rng.uniform(0.3, 1.5, size=(1, 9, 1))
    members = rng.normal(size=(4, 4000, 9, 3)) * scatter
    errors = PLANTED * rng.normal(size=(4000, 9, 3)) * scatter - members.mean(axis=0)
    rmse = np.sqrt(np.mean(errors**2, axis=(1, 2)))
    spread, groups = max_force_spread(members), np.arange(4000) // 100
    half = slice(0, 2000), slice(2000, 4000)
    fitted = calibrate(rmse[half[0]], spread[half[0]], groups[half[0]], measure="max_force_spread")
    expected = np.sqrt(np.mean(fitted.expected_error(spread[half[1]]) ** 2))
    assert expected == pytest.approx(np.sqrt(np.mean(rmse[half[1]] ** 2)), rel=0.05)
    assert np.mean(rmse[half[1]] <= fitted.bound(spread[half[1]])) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(("n", "level"), [(20, 0.9), (50, 0.8), (200, 0.95)])
def test_conformal_bounds_cover_as_promised(n, level):
    """Mean coverage lies in [level, level + 1/(n+1)]; 2000 draws and 4 standard errors of it."""
    rng = np.random.default_rng(n)
    repeats = 2000
    hits = np.empty(repeats)
    for repeat in range(repeats):
        errors, spreads = committee(4, n + 1, rng)
        scores = errors / spreads
        hits[repeat] = scores[-1] <= conformal_quantile(scores[:-1], level)
    slack = 4.0 * np.sqrt(level * (1.0 - level) / repeats)
    assert level - slack < hits.mean() < level + 1.0 / (n + 1) + slack


@pytest.mark.parametrize(("n_trajectories", "percentile"), [(3, 0.85), (8, 0.93)])
def test_rmse_intervals_hold_the_truth_with_few_trajectories(n_trajectories, percentile):
    """Nominal 95 %: measured 94.5 %; a percentile bootstrap gets 72 % and 86 %."""
    rng = np.random.default_rng(n_trajectories)
    groups = np.repeat(np.arange(n_trajectories), 5)
    hits, plain = 0, 0
    for _ in range(1000):
        squares = rng.normal(size=len(groups)) ** 2
        interval = rmse_interval(squares, groups)
        hits += interval.low <= 1.0 <= interval.high
        means = squares.reshape(n_trajectories, 5).mean(axis=1)
        resampled = means[rng.integers(n_trajectories, size=(200, n_trajectories))].mean(axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        plain += low <= 1.0 <= high
    # Standard error of a share of 0.95 in 1000 is 0.007.
    assert 0.92 < hits / 1000 < 0.98
    assert plain / 1000 < percentile


def test_doubling_the_system_leaves_the_ani_criterion_unchanged():
    """Two copies that do not see each other: independent errors add in squares."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 40_000)) * 0.01
    single = energy_spread_per_sqrt_atom(one, 9)
    double = energy_spread_per_sqrt_atom(one + other, 18)
    quantiles = [0.1, 0.5, 0.9, 0.99]
    # 40000 frames fix each quantile within 1 %.
    np.testing.assert_allclose(
        np.quantile(double, quantiles), np.quantile(single, quantiles), rtol=0.03
    )
    plain = np.median(energy_spread(one + other)) / np.median(energy_spread(one))
    assert plain == pytest.approx(np.sqrt(2.0), rel=0.02)


def test_spreads_do_not_depend_on_the_axes():
    rng = np.random.default_rng(4)
    forces = rng.normal(size=(4, 10, 9, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    np.testing.assert_allclose(max_force_spread(forces @ turn), max_force_spread(forces))
