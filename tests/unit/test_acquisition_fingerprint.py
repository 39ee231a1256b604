"""Batches, broken frames and nearest neighbours of fingerprints."""

from __future__ import annotations

import time

import numpy as np
import pytest

from alloop.acquisition import fingerprint
from alloop.acquisition.fingerprint import fingerprints, nearest
from alloop.errors import AcquisitionError

NUMBERS = np.array([6, 1, 1, 8, 1])


@pytest.fixture
def positions():
    return np.random.default_rng(1).normal(size=(40, 5, 3)) * 1.5


def test_batches_do_not_show(positions, monkeypatch):
    whole = fingerprints(NUMBERS, positions)
    distances, rows = nearest(whole[:20], whole[20:])
    monkeypatch.setattr(fingerprint, "_BATCH_VALUES", 200)
    np.testing.assert_array_equal(fingerprints(NUMBERS, positions), whole)
    again, same = nearest(whole[:20], whole[20:])
    np.testing.assert_allclose(again, distances, rtol=1e-12)
    np.testing.assert_array_equal(same, rows)


def test_a_pair_of_atoms_has_their_distance():
    apart = fingerprints(np.array([1, 9]), np.array([[[0, 0, 0], [0, 0, 0.9]]], dtype=float))
    np.testing.assert_allclose(apart * np.sqrt(2), [[0.9, 0.9]])


def test_the_profiles_of_water():
    """By hand, from O: 0.6, 0.8; from each H to O and to the other H."""
    water = np.array([[[0, 0, 0], [0.6, 0, 0], [0, 0.8, 0]]], dtype=float)
    profile = fingerprints(np.array([8, 1, 1]), water)[0] * np.sqrt(6)
    np.testing.assert_allclose(profile, [1.0, 1.0, 0.6, 0.8, 0.6, 0.8])


def test_one_atom_has_a_fingerprint_without_numbers():
    assert fingerprints(np.array([2]), np.zeros((3, 1, 3))).shape == (3, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200, 1e7])
def test_an_exploded_frame_is_near_to_nothing(positions, bad):
    positions[3, 2, 1] = bad
    profiles = fingerprints(NUMBERS, positions)
    assert not np.isfinite(profiles[3]).any()
    assert np.isfinite(np.delete(profiles, 3, axis=0)).all()
    distances, rows = nearest(profiles, profiles)
    assert (distances[3], rows[3]) == (np.inf, -1)
    assert 3 not in rows
    assert (np.delete(distances, 3) == 0.0).all()


def test_nearest_is_the_nearest(positions):
    profiles = fingerprints(NUMBERS, positions)
    pool, known = profiles[:25], profiles[25:]
    table = np.linalg.norm(pool[:, None] - known, axis=2)
    distances, rows = nearest(pool, known)
    np.testing.assert_allclose(distances, table.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(rows, table.argmin(axis=1))


def test_nothing_is_near_without_others(positions):
    profiles = fingerprints(NUMBERS, positions)
    for others in (profiles[:0], np.full((2, 20), np.nan), np.empty((0, 0))):
        distances, rows = nearest(profiles, others)
        assert (distances == np.inf).all()
        assert (rows == -1).all()


def test_two_systems_are_not_compared(positions):
    profiles = fingerprints(NUMBERS, positions)
    with pytest.raises(AcquisitionError, match="two systems"):
        nearest(profiles, fingerprints(NUMBERS[:4], positions[:, :4]))
    with pytest.raises(AcquisitionError, match=r"want \(n_frames, 4, 3\)"):
        fingerprints(NUMBERS[:4], positions)


def test_a_pool_of_ethanol_takes_no_time():
    """0.06 s measured on one core; the limit leaves room for a busy machine."""
    numbers = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
    positions = np.random.default_rng(0).normal(size=(3000, 9, 3))
    start = time.process_time()
    fingerprints(numbers, positions)
    assert time.process_time() - start < 0.5
