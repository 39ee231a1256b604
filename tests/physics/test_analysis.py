"""Spectra of known oscillators, superposition, energy drift, and floors that mean what they say."""

import numpy as np
import pytest
from scipy.constants import speed_of_light
from scipy.spatial.transform import Rotation

from alloop.analysis.distributions import compare_distributions
from alloop.analysis.energy import energy_drift, total_energy
from alloop.analysis.geometry import rmsd_along, rmsd_map
from alloop.analysis.halves import compare_halves
from alloop.analysis.similarity import compare, similarity
from alloop.analysis.spectrum import (
    LIGHT,
    MAX_LAG,
    Spectrum,
    autocorrelation,
    half_hann,
    mean_spectrum,
    power_spectra,
)
from alloop.errors import AnalysisError
from alloop.units import ACCELERATION, KINETIC

CHAIN = np.array([1.0, 12.0, 16.0])  # amu


def chain_modes():
    """Angular frequencies, 1/fs, and mass-weighted modes of three atoms on a line of springs."""
    bonds = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    hessian = bonds.T @ np.diag([30.0, 50.0]) @ bonds  # eV/Å²
    weighted = hessian / np.sqrt(np.outer(CHAIN, CHAIN))
    squares, modes = np.linalg.eigh(weighted)
    return np.sqrt(squares[1:] * ACCELERATION), modes[:, 1:]


def chain_velocities(timestep, length, energies, phases, axis=0):
    """Exact velocities along one axis; energies are the total energies of both modes, eV."""
    frequencies, modes = chain_modes()
    times = timestep * np.arange(round(length / timestep))
    amplitudes = np.sqrt(2.0 * np.array(energies) / KINETIC)
    rates = amplitudes * np.cos(np.outer(times, frequencies) + phases)
    velocities = np.zeros((len(times), 3, 3))
    velocities[:, :, axis] = rates @ modes.T / np.sqrt(CHAIN)
    return velocities


def wavenumber(frequency):
    """Angular frequency, 1/fs, in cm⁻¹."""
    return 1e15 * frequency / (2.0 * np.pi * 100.0 * speed_of_light)


def area(spectrum, low=-np.inf, high=np.inf):
    near = (spectrum.wavenumbers > low) & (spectrum.wavenumbers < high)
    return np.trapezoid(spectrum.intensities[near], spectrum.wavenumbers[near])


def noisy_spectra(seed, count, positions=(1000.0, 3000.0)):
    """Peaks whose heights differ from trajectory to trajectory."""
    grid = np.arange(0.0, 4100.0, 1.0)
    random = np.random.default_rng(seed)
    heights = random.exponential(size=(count, len(positions)))
    peaks = [np.exp(-(((grid - position) / 20.0) ** 2)) for position in positions]
    return [Spectrum(grid, own @ peaks + 0.01) for own in heights]


# --- spectra ---


def test_normal_modes_are_peaks_at_their_wavenumbers_with_their_energies():
    energies = np.array([0.3, 0.05])
    velocities = chain_velocities(0.5, 50_000.0, energies, [0.4, 1.3])
    (spectrum,) = power_spectra([velocities], CHAIN, 0.5)

    expected = wavenumber(chain_modes()[0])
    assert expected == pytest.approx([1368.3, 2991.4], abs=0.1)
    for place, energy in zip(expected, energies, strict=True):
        near = np.abs(spectrum.wavenumbers - place) < 400.0
        peak = np.flatnonzero(near)[spectrum.intensities[near].argmax()]
        assert abs(spectrum.wavenumbers[peak] - place) <= 0.5 * spectrum.spacing * 1.01
        # Twice the mean kinetic energy of a mode is its energy; ∫ cos² over 0..T is T/2.
        assert spectrum.intensities[peak] == pytest.approx(energy * LIGHT * MAX_LAG, rel=3e-3)
        assert area(spectrum, place - 400.0, place + 400.0) == pytest.approx(energy, rel=3e-3)


def test_the_width_of_a_peak_is_that_of_the_window():
    velocities = chain_velocities(0.5, 50_000.0, [1.0, 0.0], [0.0, 0.0])
    (spectrum,) = power_spectra([velocities], CHAIN, 0.5)

    above = spectrum.wavenumbers[spectrum.intensities > spectrum.intensities.max() / 2]
    assert np.ptp(above) == pytest.approx(1.0 / (LIGHT * MAX_LAG), abs=2.0 * spectrum.spacing)


@pytest.mark.parametrize("max_lag", [None, 200.0, 37.0])
def test_the_integral_is_twice_the_mean_kinetic_energy(max_lag):
    """For any motion and any window, to rounding: also translation, which is no vibration."""
    random = np.random.default_rng(1)
    velocities = 0.01 * random.normal(size=(999, 3, 3)) + 0.02
    (spectrum,) = power_spectra([velocities], CHAIN, 0.7, max_lag)

    kinetic = 0.5 * KINETIC * np.einsum("fic,i->f", velocities**2, CHAIN)
    assert area(spectrum) == pytest.approx(2.0 * kinetic.mean(), rel=1e-12)


def test_uniform_motion_is_a_peak_at_zero():
    velocities = np.tile(0.01, (4000, 3, 3))
    (spectrum,) = power_spectra([velocities], CHAIN, 0.5)

    assert spectrum.intensities.argmax() == 0
    assert area(spectrum, high=70.0) == pytest.approx(area(spectrum), rel=2e-3)


def test_autocorrelation_is_the_mean_over_all_origins():
    random = np.random.default_rng(2)
    velocities = random.normal(size=(50, 3, 3)) + 1.0
    by_fft = autocorrelation(velocities, CHAIN, 50)

    weighted = velocities * CHAIN[:, None]
    direct = [(weighted[: 50 - k] * velocities[k:]).sum(axis=(1, 2)).mean() for k in range(50)]
    np.testing.assert_allclose(by_fft, KINETIC * np.array(direct), rtol=1e-10)


def test_the_window_falls_from_one_to_zero():
    window = half_hann(100)

    assert window[0] == 1.0
    assert window[50] == pytest.approx(0.5)
    assert window[99] == pytest.approx(0.0, abs=3e-4)
    assert (np.diff(window) < 0.0).all()


def test_the_timestep_does_not_matter():
    fine, coarse = (
        power_spectra([chain_velocities(dt, 20_000.0, [0.2, 0.1], [0.4, 1.3])], CHAIN, dt)[0]
        for dt in (0.25, 1.0)
    )

    shared = len(coarse.wavenumbers) // 2
    np.testing.assert_allclose(fine.wavenumbers[:shared], coarse.wavenumbers[:shared])
    scale = coarse.intensities.max()
    assert np.abs(fine.intensities[:shared] - coarse.intensities[:shared]).max() < 2e-3 * scale
    assert similarity(fine, coarse) > 0.9999


def test_directions_and_origins_of_time_do_not_matter():
    spectra = power_spectra(
        [
            chain_velocities(0.5, 20_000.0, [0.2, 0.1], [0.4, 1.3], axis=0),
            chain_velocities(0.5, 20_000.0, [0.2, 0.1], [0.4, 1.3], axis=2)[::-1],
        ],
        CHAIN,
        0.5,
    )

    np.testing.assert_allclose(spectra[0].intensities, spectra[1].intensities, atol=1e-12)


def test_mean_spectra_have_the_mean_energy():
    trajectories = [
        chain_velocities(0.5, 3000.0, [0.2, 0.1], [0.4, 1.3]),
        chain_velocities(0.5, 4000.0, [0.6, 0.1], [0.0, 0.3]),
    ]
    spectra = power_spectra(trajectories, CHAIN, 0.5)

    assert area(mean_spectrum(spectra)) == pytest.approx(np.mean([area(s) for s in spectra]))
    other = power_spectra(trajectories[:1], CHAIN, 0.5, 500.0)
    with pytest.raises(AnalysisError, match="wavenumbers differ"):
        mean_spectrum([*spectra, *other])
    with pytest.raises(AnalysisError, match="at least one"):
        mean_spectrum([])


def test_atoms_at_rest_have_no_spectrum():
    spectra = power_spectra([np.zeros((3000, 3, 3))], CHAIN, 0.5)

    assert not spectra[0].intensities.any()
    with pytest.raises(AnalysisError, match="is constant"):
        similarity(spectra[0], power_spectra([np.ones((3000, 3, 3))], CHAIN, 0.5)[0])


def test_a_short_trajectory_uses_all_its_lags():
    (spectrum,) = power_spectra([np.ones((100, 3, 3))], CHAIN, 0.5)

    assert spectrum.spacing == pytest.approx(1.0 / (LIGHT * 32 * 50.0))


@pytest.mark.parametrize(
    ("velocities", "arguments", "match"),
    [
        ([np.ones((1, 3, 3))], (CHAIN, 0.5), "want max_lag of at least 2 frames"),
        ([np.ones((9, 3, 3))], (CHAIN, 0.5, 5.0), "no longer than the shortest"),
        ([np.ones((9, 3, 3)), np.ones((5, 3, 3))], (CHAIN, 0.5, 4.0), "5 frames, 2.5 fs"),
        ([np.ones((9, 3, 3))], (CHAIN, 0.5, np.nan), "lags up to nan"),
        ([np.ones((9, 3, 3))], (CHAIN, 0.0), "timestep is 0.0 fs"),
        ([np.ones((9, 2, 3))], (CHAIN, 0.5), r"masses: got shape \(3,\), want \(2\)"),
        ([np.ones((9, 3, 3))], (-CHAIN, 0.5), "want positive"),
        ([np.full((9, 3, 3), np.nan)], (CHAIN, 0.5), "81 of 81 numbers are not finite"),
        ([np.ones((9, 9))], (CHAIN, 0.5), r"velocities: got shape \(9, 9\)"),
        ([np.ones((0, 3, 3))], (CHAIN, 0.5), "not empty"),
        ([], (CHAIN, 0.5), "got no trajectory"),
    ],
)
def test_unusable_velocities_are_refused_in_one_line(velocities, arguments, match):
    with pytest.raises(AnalysisError, match=match) as caught:
        power_spectra(velocities, *arguments)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grid", [[1.0, 2.0, 3.0], [0.0, 1.0, 3.0], [0.0], [0.0, -1.0, -2.0]])
def test_a_spectrum_has_even_wavenumbers_from_zero(grid):
    with pytest.raises(AnalysisError, match="even steps"):
        Spectrum(np.array(grid), np.ones(len(grid)))


# --- similarity and its floor ---


def test_similarity_is_the_correlation_of_interpolated_intensities():
    first, second = noisy_spectra(3, 2)
    grid = np.linspace(0.0, 4000.0, 8001)
    rows = [np.interp(grid, s.wavenumbers, s.intensities) for s in (first, second)]

    assert similarity(first, second) == pytest.approx(np.corrcoef(rows)[0, 1], rel=1e-12)
    scaled = Spectrum(first.wavenumbers, 3.0 * first.intensities + 2.0)
    assert similarity(first, scaled) == pytest.approx(1.0)


def test_the_reference_itself_scores_the_floor():
    """The other half of the reference stands on both sides, split by split."""
    spectra = noisy_spectra(4, 9)
    result = compare(spectra, list(spectra))

    assert (result.value, result.value_low, result.value_high) == (
        result.floor,
        result.floor_low,
        result.floor_high,
    )
    assert result.n_each == 4
    assert result.floor_low < result.floor < result.floor_high < 1.0


def test_the_floor_is_that_of_halves():
    """Two trajectories have one split: the floor is their similarity, without any spread."""
    pair, others = noisy_spectra(5, 2), noisy_spectra(6, 2)
    result = compare(pair, others)

    assert result.floor == result.floor_low == result.floor_high
    assert result.floor == pytest.approx(similarity(*pair))
    crossed = {similarity(pair[0], others[1]), similarity(pair[1], others[0])}
    assert min(crossed) < result.value < max(crossed)


@pytest.mark.parametrize("n_candidate", [40, 25])
def test_another_sample_of_the_same_motion_reaches_the_floor(n_candidate):
    """On average over many samples; a wrong design, such as all against all, is 0.03 above."""
    gaps = []
    for seed in range(30):
        reference = noisy_spectra([seed, 0], 40)
        candidate = noisy_spectra([seed, 1], n_candidate)
        result = compare(reference, candidate, n_splits=20)
        gaps.append(result.value - result.floor)

    error = np.std(gaps) / np.sqrt(len(gaps))
    assert error < 0.01
    assert abs(np.mean(gaps)) < 3.0 * error


def test_shared_starts_do_not_lift_a_candidate_above_the_floor():
    """Trajectories of equal heights by pairs: only a comparison across pairs is fair."""
    reference = noisy_spectra(7, 8)
    candidate = noisy_spectra(7, 8, positions=(1030.0, 3030.0))
    result = compare(reference, candidate)
    paired = np.mean([similarity(*both) for both in zip(reference, candidate, strict=True)])

    assert result.value < result.floor_low
    assert result.value < paired


@pytest.mark.parametrize(("n_candidate", "n_each"), [(9, 4), (3, 3), (20, 4)])
def test_every_mean_is_over_as_many_trajectories(n_candidate, n_each):
    """Rows of the identity matrix: their means tell who took part."""
    scored = []

    def score(first, second):
        scored.append((first > 0.0, second > 0.0))
        return np.zeros(len(first))

    compare_halves(np.eye(9, 30), np.eye(n_candidate, 30), score)

    (halves, others), (same_halves, other_halves) = scored
    for chosen in (halves, others, other_halves):
        assert (chosen.sum(axis=1) == n_each).all()
    assert (halves == same_halves).all()
    assert not (halves & other_halves).any()
    assert (others == other_halves).all() == (n_candidate == 9)


def test_few_candidates_get_a_floor_of_as_few():
    reference = noisy_spectra(8, 40)
    few = compare(reference, noisy_spectra(9, 3))
    many = compare(reference, noisy_spectra(9, 40))

    assert (few.n_each, many.n_each) == (3, 20)
    assert few.floor < many.floor


def test_comparisons_repeat_with_their_seed():
    reference, candidate = noisy_spectra(10, 9), noisy_spectra(11, 6)

    assert compare(reference, candidate, seed=3) == compare(reference, candidate, seed=3)
    assert compare(reference, candidate, seed=3) != compare(reference, candidate, seed=4)


def test_incomparable_spectra_are_refused():
    good = noisy_spectra(12, 3)
    short = Spectrum(np.arange(3000.0), np.arange(3000.0))
    coarse = Spectrum(2.0 * np.arange(3000.0), np.arange(3000.0))

    with pytest.raises(AnalysisError, match="ends at 2999"):
        compare(good, [short])
    with pytest.raises(AnalysisError, match="differ in resolution"):
        compare(good, [coarse])
    with pytest.raises(AnalysisError, match="got 1 reference and 3 candidate"):
        compare(good[:1], good)
    with pytest.raises(AnalysisError, match="got 3 reference and 0 candidate"):
        compare(good, [])


# --- distributions ---


def samples(seed, count, mean=1.5, spread=0.05):
    random = np.random.default_rng(seed)
    centres = mean + 0.3 * spread * random.normal(size=count)
    return [centre + spread * random.normal(size=500) for centre in centres]


def test_distributions_are_densities_that_overlap_like_their_floor():
    result = compare_distributions({"CC": samples(0, 20)}, {"CC": samples(1, 20)})["CC"]

    widths = np.diff(result.edges)
    assert result.reference @ widths == pytest.approx(1.0)
    assert result.candidate @ widths == pytest.approx(1.0 - result.outside)
    assert result.overlap.floor_low < result.overlap.value < result.overlap.floor_high
    centres = (result.edges[1:] + result.edges[:-1]) / 2
    assert (result.reference * widths) @ centres == pytest.approx(1.5, abs=0.01)


def test_the_overlap_of_shifted_distributions_is_known():
    """Two normal distributions a distance 2 s apart share 2 Φ(-1) = 0.317."""
    random = np.random.default_rng(2)
    reference = [random.normal(size=20_000) for _ in range(4)]
    candidate = [random.normal(size=20_000) + 2.0 for _ in range(4)]
    result = compare_distributions({"x": reference}, {"x": candidate})["x"]

    assert result.overlap.value == pytest.approx(0.317, abs=0.01)
    assert result.overlap.floor > 0.97


def test_a_candidate_far_out_loses_its_overlap_and_not_the_bins():
    reference, lost = samples(3, 6), samples(4, 6)
    lost = [np.where(np.arange(500) < 250, 1e6, values) for values in lost]
    result = compare_distributions({"CC": reference}, {"CC": lost})["CC"]

    assert result.edges[-1] == max(values.max() for values in reference)
    assert result.outside == pytest.approx(0.5, abs=0.01)
    assert result.overlap.value < 0.51 < result.overlap.floor_low


def test_every_trajectory_counts_alike_however_long():
    both = [np.zeros(900), np.ones(100)]
    result = compare_distributions({"x": both}, {"x": both}, n_bins=2)["x"]

    np.testing.assert_allclose(result.reference, [1.0, 1.0])
    assert result.outside == 0.0


def test_unusable_values_are_refused():
    with pytest.raises(AnalysisError, match=r"\['OH'\] are on one side only"):
        compare_distributions({"CC": samples(0, 2)}, {"CC": samples(1, 2), "OH": samples(1, 2)})
    with pytest.raises(AnalysisError, match="CC: 1 of 2 numbers are not finite"):
        compare_distributions({"CC": samples(0, 2)}, {"CC": [np.array([1.0, np.inf])]})
    with pytest.raises(AnalysisError, match="got 0 reference"):
        compare_distributions({"CC": []}, {"CC": samples(0, 2)})


# --- geometry ---


def moved(positions, seed):
    """Each frame rotated and shifted at random."""
    turns = Rotation.random(len(positions), rng=seed).as_matrix()
    shifts = np.random.default_rng(seed).normal(size=(len(positions), 1, 3))
    return positions @ turns.swapaxes(1, 2) + 10.0 * shifts


def geometries(seed, n_frames=7, n_atoms=5):
    return np.random.default_rng(seed).normal(size=(n_frames, n_atoms, 3))


@pytest.mark.parametrize("masses", [None, [1.0, 12.0, 16.0, 1.0, 2.0]])
def test_rmsd_is_the_least_of_all_proper_rotations(masses):
    """Against SciPy's alignment, which finds the rotation itself."""
    first, second = geometries(0), moved(geometries(1), 3)
    weights = np.ones(5) if masses is None else np.array(masses)
    expected = []
    for a, b in zip(first, second, strict=True):
        a, b = (x - np.average(x, axis=0, weights=weights) for x in (a, b))
        expected.append(Rotation.align_vectors(a, b, weights=weights)[1] / weights.sum() ** 0.5)

    np.testing.assert_allclose(rmsd_along(first, second, masses), expected, rtol=1e-9)


def test_moving_as_a_whole_is_no_deviation():
    positions = geometries(2)

    assert rmsd_along(positions, moved(positions, 4)).max() < 1e-6


@pytest.mark.parametrize("flat", [False, True])
def test_mirror_images_differ_unless_flat(flat):
    positions = geometries(3)
    if flat:
        positions[:, :, 2] = 0.0
    deviations = rmsd_along(positions, moved(-positions, 5))

    if flat:
        assert deviations.max() < 1e-6
    else:
        assert deviations.min() > 0.05


def test_a_known_deviation():
    """Two atoms at 1 and 1.2 Å: each is 0.1 Å off; by masses 1 and 3 the rms is 0.0866 Å."""
    first = np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    second = np.array([[[0.0, 5.0, 0.0], [0.0, 6.2, 0.0]]])

    assert rmsd_along(first, second) == pytest.approx([0.1])
    expected = np.sqrt((0.15**2 * 1.0 + 0.05**2 * 3.0) / 4.0)
    assert rmsd_along(first, second, [1.0, 3.0]) == pytest.approx([expected])


@pytest.mark.parametrize("chunk", [1, 20, 1 << 18])
def test_the_map_holds_every_pair_whatever_the_chunks(chunk, monkeypatch):
    monkeypatch.setattr("alloop.analysis.geometry.CHUNK", chunk)
    first, second = geometries(4), geometries(5, n_frames=11)
    rmsd = rmsd_map(first, second, np.arange(1.0, 6.0))

    assert rmsd.shape == (7, 11)
    for j in range(11):
        column = np.broadcast_to(second[j], first.shape)
        np.testing.assert_allclose(rmsd[:, j], rmsd_along(first, column, np.arange(1.0, 6.0)))


def test_geometries_that_do_not_match_are_refused():
    with pytest.raises(AnalysisError, match=r"second trajectory: got shape \(6, 5, 3\)"):
        rmsd_along(geometries(0), geometries(0, n_frames=6))
    with pytest.raises(AnalysisError, match=r"second trajectory: got shape \(7, 4, 3\)"):
        rmsd_map(geometries(0), geometries(0, n_atoms=4))


# --- energy ---


def test_total_energy_of_an_oscillator_is_its_energy():
    frequencies, _ = chain_modes()
    velocities = chain_velocities(0.5, 500.0, [0.3, 0.0], [0.4, 0.0])
    phases = 0.5 * np.arange(1000) * frequencies[0] + 0.4
    total = total_energy(0.3 * np.sin(phases) ** 2, velocities, CHAIN)

    np.testing.assert_allclose(total, 0.3, rtol=1e-12)


def test_a_steady_drift_is_found_whatever_the_times_start_at():
    times = 700.0 + 0.5 * np.arange(4001)
    drift = energy_drift(-5.0 - 0.02 * (times - 700.0) / 1000.0, times)

    assert drift.slope == pytest.approx(-0.02)
    assert drift.largest == pytest.approx(0.04)
    assert drift.rms == pytest.approx(0.04 / np.sqrt(3.0), rel=1e-3)
    assert drift.rms_at_ends is drift.rms_inside is None


def test_noise_is_no_slope():
    times = np.arange(1001.0)
    drift = energy_drift(0.1 * np.cos(2.0 * np.pi * times / 100.0), times)

    assert drift.slope == pytest.approx(0.0, abs=1e-10)
    assert drift.rms == pytest.approx(0.1 * np.sqrt(1.5), rel=1e-2)
    assert drift.largest == pytest.approx(0.2)


def test_ends_of_segments_are_told_from_their_insides():
    times = 700.3 + np.cumsum(np.full(101, 0.1))
    total = np.where(np.arange(101) % 20 == 0, 0.0, 3.0)  # segments of 2 fs, wrong inside
    drift = energy_drift(total, times, segment=2.0)

    assert (drift.rms_at_ends, drift.rms_inside) == (0.0, 3.0)
    assert drift.rms == pytest.approx(3.0 * np.sqrt(0.95))
    half = energy_drift(total, times, segment=1.0)
    assert half.rms_at_ends == pytest.approx(3.0 * np.sqrt(0.5))


@pytest.mark.parametrize(
    ("times", "segment", "match"),
    [
        (np.arange(10.0), 1.0, "no frame lies inside segments of 1 fs"),
        (np.arange(10.0), 20.0, "no frame lies at the ends of"),
        (np.arange(10.0), np.nan, "want a positive length"),
        (-np.arange(10.0), None, "want two or more that rise"),
        (np.arange(9.0), None, r"times: got shape \(9,\), want \(10\)"),
    ],
)
def test_unusable_times_are_refused(times, segment, match):
    with pytest.raises(AnalysisError, match=match):
        energy_drift(np.ones(10), times, segment)
