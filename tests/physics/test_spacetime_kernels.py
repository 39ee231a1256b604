"""Trajectories learnt as functions of time, against a Morse oscillator solved in closed form."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from alloop.errors import SpacetimeError
from alloop.spacetime.kernels import (
    GaussianKernel,
    KernelTrajectory,
    PeriodicKernel,
    add_previous_period,
    estimate_period,
    fit_best,
    leave_one_out,
    propagate_by_segments,
)
from alloop.units import ACCELERATION, EV_PER_HARTREE

REDUCED_MASS = 0.504
DEPTH, STEEPNESS, BOND, START = 4.75, 1.94, 0.741, 0.5
EPSILON = (1 - np.exp(-STEEPNESS * (START - BOND))) ** 2
FREQUENCY = STEEPNESS * np.sqrt(2 * DEPTH * (1 - EPSILON) * ACCELERATION / REDUCED_MASS)
PERIOD = 2 * np.pi / FREQUENCY
STEPS = [0, 9, 29, 49, 79, 279, 484, 689, 889, 924, 944, 956, 968, 988, 1023, 1224, 1424, 1629]
FRACTIONS = np.array([*STEPS, 1833, 1863, 1883, 1903, 1913]) / 1913
"""23 parts of the period, denser where the motion turns round, as in the paper."""
TIMES = FRACTIONS * PERIOD


def morse(t):
    """Distance and rate from the inner turning point on; e^{a(r - r_e)} is a cosine in time."""
    root, angle = np.sqrt(EPSILON), FREQUENCY * np.asarray(t)
    inner = 1 - root * np.cos(angle)
    r = BOND + np.log(inner / (1 - EPSILON)) / STEEPNESS
    return r, root * FREQUENCY * np.sin(angle) / (STEEPNESS * inner)


def learnt(kernel, ridge):
    return KernelTrajectory.fit(TIMES, morse(TIMES)[0], kernel, ridge)


def periodic():
    return learnt(PeriodicKernel(0.741, PERIOD), 5.3e-7)


def gaussian():
    return learnt(GaussianKernel(2.15), 1.06e-9)


def reversible():
    both = add_previous_period(TIMES, morse(TIMES)[0], PERIOD)
    return KernelTrajectory.fit(*both, GaussianKernel(1.23), 8.87e-11)


def worst(predicted, t):
    return [np.abs(a - b).max() for a, b in zip(predicted, morse(t), strict=True)]


def test_the_closed_form_itself_obeys_newton():
    t, h = np.linspace(0.3, 9.0, 50), 1e-3
    force = -2 * DEPTH * STEEPNESS * (decay := np.exp(-STEEPNESS * (morse(t)[0] - BOND)))
    force *= 1 - decay
    acceleration = (morse(t + h)[1] - morse(t - h)[1]) / (2 * h)
    np.testing.assert_allclose(acceleration, force * ACCELERATION / REDUCED_MASS, atol=1e-6)


# Errors measured: 2.5e-4 to 7e-4 Å and up to 2.5e-3 Å/fs, of a swing of 0.77 Å and 0.5 Å/fs.
@pytest.mark.parametrize("model", [periodic, gaussian, reversible])
def test_23_points_give_the_whole_period(model):
    t = np.linspace(0, PERIOD, 701)
    distance, rate = worst(model().predict(t), t)
    assert distance < 1e-3
    assert rate < 4e-3


@pytest.mark.parametrize("period", [None, PERIOD])
def test_hyperparameters_chosen_by_leave_one_out_do_as_well(period):
    t = np.linspace(0, PERIOD, 701)
    model = fit_best(TIMES, morse(TIMES)[0], period=period)
    distance, rate = worst(model.predict(t), t)
    assert distance < 1e-3
    assert rate < 4e-3


@pytest.mark.parametrize("period", [None, PERIOD])
def test_noise_is_smoothed_and_not_followed(period):
    times = np.linspace(0, PERIOD, 120)
    noise = 0.02 * np.random.default_rng(3).standard_normal(len(times))
    model = fit_best(times, morse(times)[0] + noise, period=period)
    miss = model.predict(times)[0] - morse(times)[0]
    assert np.sqrt(np.mean(miss**2)) < 0.5 * 0.02


@pytest.mark.parametrize("model", [periodic, gaussian])
def test_rates_are_the_derivatives_of_values(model):
    t, h = np.linspace(-1.0, 11.0, 97), 1e-4
    fitted = model()
    differences = (fitted.predict(t + h)[0] - fitted.predict(t - h)[0]) / (2 * h)
    np.testing.assert_allclose(fitted.predict(t)[1], differences, atol=2e-6)


def test_the_ridge_draws_a_single_point_to_zero():
    model = KernelTrajectory.fit([2.0], [3.0], GaussianKernel(1.0), 0.5)
    value, rate = model.predict([2.0, 3.0])
    np.testing.assert_allclose(value, [2.0, 2.0 * np.exp(-0.5)])
    np.testing.assert_allclose(rate, [0.0, -2.0 * np.exp(-0.5)])


def test_several_coordinates_are_learnt_as_one_by_one():
    r, v = morse(TIMES)
    kernel = PeriodicKernel(0.741, PERIOD)
    together = KernelTrajectory.fit(TIMES, np.stack([r, v], axis=1), kernel, 1e-7)
    alone = KernelTrajectory.fit(TIMES, v, kernel, 1e-7)
    t = np.linspace(0, 20, 31)
    for both, one in zip(together.predict(t), alone.predict(t), strict=True):
        assert both.shape == (31, 2)
        np.testing.assert_allclose(both[:, 1], one, atol=1e-9)


@pytest.mark.parametrize("periods", [1, -3, 1_000_000])
def test_the_periodic_model_repeats_itself_for_ever(periods):
    t = np.linspace(0, PERIOD, 97)
    model = periodic()
    # A time of 1e7 fs is itself known to 2e-9 fs only.
    for now, then in zip(model.predict(t), model.predict(t + periods * PERIOD), strict=True):
        np.testing.assert_allclose(then, now, atol=1e-8)


def test_the_gaussian_model_is_lost_beyond_its_times_but_not_by_segments():
    t = np.linspace(0, 15, 301)
    model = gaussian()
    assert worst(model.predict(t), t)[0] > 0.3
    distance, rate = worst(propagate_by_segments(model, t, PERIOD), t)
    assert distance < 1e-3
    assert rate < 4e-3


def test_segments_reach_far_times_in_any_order():
    t = np.array([1000.3, 0.2, 1000 * PERIOD + 1.0, 500.0])
    distance, rate = worst(propagate_by_segments(gaussian(), t, PERIOD), t)
    assert distance < 1e-3
    assert rate < 4e-3


def test_the_end_of_a_segment_is_the_start_of_the_next():
    model, shift = gaussian(), 1e-9
    joints = PERIOD * np.arange(1, 5)
    before = propagate_by_segments(model, joints - shift, PERIOD)
    after = propagate_by_segments(model, joints + shift, PERIOD)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


def test_the_time_reversible_model_also_goes_back():
    t = np.linspace(-30, 30, 601)
    distance, rate = worst(propagate_by_segments(reversible(), t, PERIOD), t)
    assert distance < 1e-3
    assert rate < 4e-3


def test_points_of_the_previous_period_mirror_a_start_at_rest():
    times, values = add_previous_period(TIMES, morse(TIMES)[0], PERIOD)
    assert len(times) == 2 * len(TIMES) - 1
    assert times.min() == pytest.approx(-PERIOD)
    assert len(np.unique(times)) == len(times)
    np.testing.assert_allclose(values, morse(times)[0], atol=1e-9)


def test_a_segment_that_is_no_period_is_refused():
    with pytest.raises(SpacetimeError, match="must be a period"):
        propagate_by_segments(gaussian(), [1.0], 0.8 * PERIOD)
    # Half a period later the rate is that of the start, zero, but the distance is not.
    with pytest.raises(SpacetimeError, match="values are"):
        propagate_by_segments(gaussian(), [1.0], 0.5 * PERIOD)


def test_times_that_were_not_learnt_are_refused():
    with pytest.raises(SpacetimeError, match="learn these"):
        propagate_by_segments(gaussian(), [1.0], 1.01 * PERIOD)
    with pytest.raises(SpacetimeError, match="segment / fs must be positive"):
        propagate_by_segments(gaussian(), [1.0], -PERIOD)
    with pytest.raises(SpacetimeError, match=r"from -0\.5 to"):
        propagate_by_segments(gaussian(), [-0.5], PERIOD)


@pytest.mark.parametrize("kernel", [GaussianKernel(1.5), PeriodicKernel(0.8, PERIOD)])
def test_leave_one_out_is_what_leaving_one_out_gives(kernel):
    values = np.stack(morse(TIMES), axis=1)
    quick = leave_one_out(TIMES, values, kernel, 1e-5)
    for i in range(len(TIMES)):
        rest = np.arange(len(TIMES)) != i
        without = KernelTrajectory.fit(TIMES[rest], values[rest], kernel, 1e-5)
        miss = values[i] - without.predict(TIMES[i : i + 1])[0][0]
        np.testing.assert_allclose(quick[i], miss, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("begin", [0.0, 1.7, 7.3])
def test_the_period_is_read_off_the_trajectory(begin):
    t = begin + np.arange(0, 3.2 * PERIOD, 0.02)
    assert estimate_period(t, morse(t)[0]) == pytest.approx(PERIOD, abs=1e-5)


def test_turning_points_on_samples_count_once():
    # Here the slope changes sign on a sample, and both pieces of the spline that meet have a root.
    steps = np.arange(29)
    values = np.cos(2 * np.pi * (steps / 14))
    assert estimate_period(0.5 * steps, values) == pytest.approx(7, rel=5e-3)


def test_a_trajectory_without_a_period_is_refused():
    t = np.arange(0.5, 0.9 * PERIOD, 0.02)
    with pytest.raises(SpacetimeError, match="1 turning points"):
        estimate_period(t, morse(t)[0])
    with pytest.raises(SpacetimeError, match="rising times"):
        estimate_period(t[::-1], morse(t)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianKernel(0.0), "width of a Gaussian kernel"),
        (lambda: PeriodicKernel(np.nan, 9.5), "width of a periodic kernel"),
        (lambda: PeriodicKernel(1.0, -9.5), "period of a periodic kernel"),
        (lambda: learnt(GaussianKernel(2.0), 0.0), "ridge must be positive"),
        (lambda: learnt(GaussianKernel(50.0), 1e-18), "ridge 1e-18 is too small"),
        (lambda: fit_best([0.0, 1.0], [1.0]), r"got \(2,\) and \(1,\)"),
        (lambda: fit_best([0.0, 1.0], [1.0, np.nan]), "not finite"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(SpacetimeError, match=message):
        call()


def test_hydrogen_on_its_full_ci_curve():
    """Period and outer turning point, by energy conservation alone and from the trajectory."""
    pytest.importorskip("pyscf", reason="pyscf is not installed")
    from pyscf import fci, gto, scf

    distances = np.geomspace(0.45, 2.0, 12)
    energies = []
    for r in distances:
        mol = gto.M(atom=f"H 0 0 0; H 0 0 {r}", basis="cc-pvtz", verbose=0)
        energies.append(fci.FCI(scf.RHF(mol).run()).kernel()[0])
    curve = make_interp_spline(distances, np.array(energies) * EV_PER_HARTREE, 5)
    top = float(curve(START))
    far = brentq(lambda r: float(curve(r)) - top, 0.8, 1.9)

    def time_of_angle(angle):
        r = (START + far + (far - START) * np.sin(angle)) / 2
        speed = np.sqrt(2 * (top - float(curve(r))) * ACCELERATION / REDUCED_MASS)
        return (far - START) * np.cos(angle) / speed

    expected, _ = quad(time_of_angle, -np.pi / 2, np.pi / 2)
    motion = solve_ivp(
        lambda _, y: [y[1], -float(curve(y[0], 1)) * ACCELERATION / REDUCED_MASS],
        (0, 15),
        [START, 0.0],
        "DOP853",
        rtol=1e-9,
        atol=1e-9,
        dense_output=True,
    ).sol
    t = np.arange(0, 15, 0.01)
    period = estimate_period(t, motion(t)[0])
    assert period == pytest.approx(expected, abs=1e-4)
    assert motion(t)[0].max() == pytest.approx(far, abs=1e-5)
    assert period == pytest.approx(9.56, rel=0.01)  # of the authors, FCI/aug-cc-pV6Z
    assert far == pytest.approx(1.259, rel=0.01)
    times = FRACTIONS * period
    model = KernelTrajectory.fit(times, motion(times)[0], PeriodicKernel(0.741, period), 5.3e-7)
    distance, rate = model.predict(t)
    np.testing.assert_allclose(distance, motion(t)[0], atol=1.5e-3)
    np.testing.assert_allclose(rate, motion(t)[1], atol=5e-3)
