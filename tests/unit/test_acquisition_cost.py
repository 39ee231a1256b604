"""What a label costs: planted laws must be found again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alloop.acquisition.cost import Attempt, fit_cost, prior_exponent
from alloop.errors import AcquisitionError


def attempts(exponent, sizes, *, scatter=0.0, seed=0, basis=20, factor=1e-6):
    rng = np.random.default_rng(seed)
    noise = np.exp(scatter * rng.normal(size=len(sizes)))
    return [
        Attempt(
            int(n), int(n) * basis if basis else None, factor * (n * (basis or 1)) ** exponent * f
        )
        for n, f in zip(sizes, noise, strict=True)
    ]


def sizes(n, seed=1):
    return np.random.default_rng(seed).integers(4, 40, n)


@pytest.mark.parametrize("planted", [2.0, 3.3, 7.0])
@pytest.mark.parametrize("basis", [20, None])
def test_recovers_a_planted_exponent_whatever_the_prior(planted, basis):
    model = fit_cost(attempts(planted, sizes(60), scatter=0.2, basis=basis), "mp2")
    assert model.exponent == pytest.approx(planted, abs=4 * model.exponent_error)
    assert model.exponent_error < 0.1
    expected = 1e-6 * (30 * (basis or 1)) ** planted
    assert model.predict(30, basis and 30 * basis).seconds == pytest.approx(expected, rel=0.15)


def test_attempts_of_one_size_leave_the_exponent_to_the_theory():
    model = fit_cost(attempts(3.0, [6] * 50), "CCSD(T)/cc-pVDZ")
    assert model.exponent == pytest.approx(7.0)
    assert model.exponent_error == pytest.approx(1.0)
    small, large = model.predict(6, 120), model.predict(12, 240)
    assert large.seconds / small.seconds == pytest.approx(2.0**7)
    # Nobody has seen twice the size: the interval must say so.
    assert math.log(large.high / large.low) > 3 * math.log(small.high / small.low)


def test_few_attempts_of_two_sizes_lie_between_prior_and_data():
    close = fit_cost(attempts(3.0, [10, 11]), "ccsd(t)")
    far = fit_cost(attempts(3.0, [5, 40]), "ccsd(t)")
    assert 6.0 < close.exponent < 7.0
    assert 3.0 < far.exponent < 3.5


def test_outliers_do_not_decide():
    clean = attempts(3.0, sizes(60), scatter=0.1)
    rng = np.random.default_rng(5)
    slow = [
        Attempt(a.n_atoms, a.n_basis, a.seconds * (50.0 if rng.random() < 0.15 else 1.0))
        for a in clean
    ]
    assert sum(a.seconds != b.seconds for a, b in zip(clean, slow, strict=True)) >= 5
    price = fit_cost(slow, "dft").predict(20, 400)
    assert price.seconds == pytest.approx(1e-6 * 400**3, rel=0.15)
    assert fit_cost(slow, "dft").exponent == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("n", [3, 10, 100])
@pytest.mark.parametrize("scatter", [0.15, 0.4])
def test_intervals_cover_nine_tenths(n, scatter):
    inside = []
    for seed in range(200):
        model = fit_cost(attempts(3.0, sizes(n, seed), scatter=scatter, seed=seed), "dft")
        price = model.predict(25, 500)
        true = 1e-6 * 500**3 * math.exp(scatter * np.random.default_rng(10_000 + seed).normal())
        inside.append(price.low <= true <= price.high)
    # Standard error of the mean 0.02; few attempts lean on the expected scatter of 0.25.
    assert 0.8 <= np.mean(inside) <= 1.0 if n < 100 else 0.85 <= np.mean(inside) <= 0.95


def test_without_attempts_there_is_no_price_but_a_relative_one():
    model = fit_cost([], "CCSD(T)")
    assert model.predict(10) is None
    assert model.relative(10) == pytest.approx(10.0**7)
    assert model.relative(6) == model.relative(6)
    assert model.attempts_per_label == 1.0


def test_failures_are_paid_by_the_labels():
    good = attempts(3.0, [10] * 80)
    failed = [Attempt(10, None, 1e-3, succeeded=False)] * 20
    without, with_ = (fit_cost(rows, "dft").predict(10, 200) for rows in (good, good + failed))
    assert with_.seconds / without.seconds == pytest.approx(100 / 80, rel=0.01)
    assert with_.high / without.high == pytest.approx(100 / 80, rel=0.01)


def test_only_failures_still_have_a_price():
    price = fit_cost([Attempt(10, None, 60.0, succeeded=False)] * 3, "dft").predict(10)
    assert price.seconds == pytest.approx(4 * 60.0)


def test_a_frame_of_unknown_basis_is_measured_by_its_atoms():
    model = fit_cost(attempts(3.0, sizes(40)), "dft")
    assert model.predict(15).seconds == pytest.approx(model.predict(15, 300).seconds)


def test_attempts_without_a_basis_ignore_that_of_the_frame():
    model = fit_cost(attempts(3.0, sizes(40), basis=None), "dft")
    assert model.predict(15, 300) == model.predict(15)


@pytest.mark.parametrize(
    ("method", "exponent"),
    [
        ("GFN2-xTB", 2.5),
        ("hf", 3.0),
        ("wB97X/6-31G*", 3.0),
        ("RI-MP2", 5.0),
        ("CCSD/cc-pVTZ", 6.0),
        ("CCSD(T)/cc-pVTZ", 7.0),
        ("DLPNO-CCSD(T)", 3.0),
        ("by hand", 3.0),
    ],
)
def test_prior_exponents(method, exponent):
    assert prior_exponent(method) == exponent


@pytest.mark.parametrize(
    "wrong", [(0, None, 1.0), (3, 0, 1.0), (3, None, 0.0), (3, None, math.nan)]
)
def test_attempts_that_cannot_be_are_refused(wrong):
    with pytest.raises(AcquisitionError, match="above 0"):
        Attempt(*wrong)
