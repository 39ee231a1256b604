"""Known, wanted, broken: every frame is exactly one of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from alloop.acquisition.bands import Band, choose_band
from alloop.acquisition.calibration import Calibration
from alloop.errors import AcquisitionError

CALIBRATION = Calibration(
    measure="max_force_spread",
    estimator="summary",
    n_members=None,
    n=40,
    n_groups=5,
    alpha=0.5,
    alpha_low=0.4,
    alpha_high=0.7,
    confidence=0.95,
    quantile=1.2,
    level=0.9,
)
AWKWARD = np.array([0.0, 0.1, 0.2, 0.3, 5.0, 1e300, np.nan, np.inf, -np.inf])


@pytest.fixture
def spreads():
    return np.exp(0.8 * np.random.default_rng(2).normal(size=500)) * 0.2


@pytest.mark.parametrize(
    ("lower", "upper"), [(0.1, 0.3), (0.0, np.inf), (0.5, 0.2), (np.inf, 1.0), (0.0, 0.0)]
)
def test_the_parts_cover_all_frames_exactly_once(spreads, lower, upper):
    band, frames = Band(lower, upper), np.concatenate([spreads, AWKWARD])
    parts = np.stack([band.is_broken(frames), band.is_accurate(frames), band.is_candidate(frames)])
    assert (parts.sum(axis=0) == 1).all()


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limits", [(0.1, 0.3), (0.0, np.inf), (np.inf, np.inf)])
def test_an_unknown_spread_is_broken_never_accurate(unknown, limits):
    band, frame = Band(*limits), np.array([unknown])
    assert band.is_broken(frame)[0]
    assert not band.is_accurate(frame)[0]


def test_limits_belong_to_the_quieter_side():
    band, limits = Band(0.1, 0.3), np.array([0.1, 0.3])
    assert band.is_accurate(limits).tolist() == [True, False]
    assert band.is_candidate(limits).tolist() == [False, True]


def test_a_tighter_target_never_loses_a_candidate(spreads):
    before = np.zeros(len(spreads), dtype=bool)
    for target in np.geomspace(10.0, 1e-4, 60):
        now = choose_band(spreads, target, CALIBRATION).is_candidate(spreads)
        assert (now | ~before).all()
        before = now
    assert before.sum() > 490


def test_the_calibration_sets_the_lower_limit(spreads):
    band = choose_band(spreads, 0.1, CALIBRATION, upper_floor=7.0)
    assert band == Band(0.2, 7.0, "calibrated")
    band = choose_band(spreads, 0.1, CALIBRATION)
    assert band.upper == pytest.approx(10.0 * np.median(spreads))


@pytest.mark.parametrize(
    "poor", [{"n": 29}, {"n_groups": 1}, {"alpha": math.inf}, {"alpha": math.nan}, None]
)
@pytest.mark.parametrize("top_fraction", [0.1, 0.5, 1.0])
def test_without_a_sound_calibration_the_top_of_the_pool_is_taken(spreads, poor, top_fraction):
    calibration = None if poor is None else replace(CALIBRATION, **poor)
    band = choose_band(spreads, 0.1, calibration, top_fraction=top_fraction)
    assert band.rule == "pool_quantile"
    candidates = band.is_candidate(spreads)
    assert candidates.sum() == pytest.approx(top_fraction * len(spreads), abs=8)
    sound = ~band.is_broken(spreads)
    assert spreads[candidates].min() >= np.quantile(spreads[sound], 1.0 - top_fraction) - 0.01


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_poor_first_committee_still_finds_candidates(spreads, scale):
    pool = np.concatenate([spreads * scale, AWKWARD, np.full(30, np.nan), np.full(30, 1e290)])
    band = choose_band(pool, 0.1, None)
    assert band.is_candidate(pool).sum() >= 200
    assert not band.is_candidate(pool[-60:]).any()


def test_outliers_do_not_use_up_the_top_of_the_pool(spreads):
    pool = np.concatenate([spreads, np.full(100, 1e4)])
    band = choose_band(pool, 0.1, None, top_fraction=0.1)
    assert 40 < band.is_candidate(spreads).sum() < 60


def test_frames_uncertain_alike_are_all_candidates():
    pool = np.full(20, 0.3)
    assert choose_band(pool, 0.1, None).is_candidate(pool).all()


def test_an_exploded_pool_has_no_candidates():
    pool = np.full(20, np.nan)
    band = choose_band(pool, 0.1, None)
    assert band.is_broken(pool).all()
    assert band == Band(0.0, 0.0, "pool_quantile")


def test_nonsense_is_refused(spreads):
    for limits in ((np.nan, 1.0), (0.0, np.nan)):
        with pytest.raises(AcquisitionError, match="two numbers"):
            Band(*limits)
    for fraction in (0.0, 1.5, math.nan):
        with pytest.raises(AcquisitionError, match="top fraction"):
            choose_band(spreads, 0.1, None, top_fraction=fraction)
