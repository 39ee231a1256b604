"""The spreads are what their formulas say, and nothing unknown ever looks certain."""

from __future__ import annotations

import numpy as np
import pytest

from alloop.acquisition.uncertainty import (
    energy_spread,
    energy_spread_per_sqrt_atom,
    force_spread,
    max_force_spread,
    mean_force_spread,
)
from alloop.errors import AcquisitionError


@pytest.fixture
def member_forces():
    return np.random.default_rng(5).normal(size=(4, 6, 3, 3))


def test_energy_spread_divides_by_one_less_than_the_members():
    energies = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(energy_spread(energies), [np.sqrt(2.0), 0.0])
    np.testing.assert_allclose(energy_spread_per_sqrt_atom(energies, 9), [np.sqrt(2.0) / 3, 0.0])


def test_force_spread_is_the_scatter_of_vectors_about_their_mean(member_forces):
    expected = np.empty((6, 3))
    for frame in range(6):
        for atom in range(3):
            vectors = member_forces[:, frame, atom]
            away = [np.dot(v, v) for v in vectors - sum(vectors) / 4]
            expected[frame, atom] = np.sqrt(sum(away) / 3)
    np.testing.assert_allclose(force_spread(member_forces), expected)
    np.testing.assert_allclose(max_force_spread(member_forces), [max(row) for row in expected])
    np.testing.assert_allclose(mean_force_spread(member_forces), [sum(r) / 3 for r in expected])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("member", [0, 3])
def test_a_frame_one_member_cannot_do_is_infinitely_uncertain(member_forces, bad, member):
    energies = member_forces[:, :, 0, 0].copy()
    energies[member, 2] = bad
    member_forces[member, 2, 1, 0] = bad
    others = np.arange(6) != 2
    for spread in (
        energy_spread(energies),
        energy_spread_per_sqrt_atom(energies, 3),
        max_force_spread(member_forces),
        mean_force_spread(member_forces),
    ):
        assert spread[2] == np.inf
        assert np.isfinite(spread[others]).all()


def test_a_frame_on_which_all_members_fail_is_not_certain(member_forces):
    member_forces[:, 2] = np.nan
    assert max_force_spread(member_forces)[2] == np.inf
    assert energy_spread(np.full((4, 1), np.inf))[0] == np.inf


def test_one_member_is_no_committee(member_forces):
    with pytest.raises(AcquisitionError, match="at least 2 members"):
        force_spread(member_forces[:1])
    with pytest.raises(AcquisitionError, match="at least 2 members"):
        energy_spread(np.zeros((1, 3)))


def test_wrong_shapes_are_refused(member_forces):
    with pytest.raises(AcquisitionError, match=r"want \(n_members, n_frames, n_atoms, 3\)"):
        force_spread(member_forces[0])
    with pytest.raises(AcquisitionError, match=r"want \(n_members, n_frames\)"):
        energy_spread(member_forces[0])
    with pytest.raises(AcquisitionError, match="n_atoms = 0"):
        energy_spread_per_sqrt_atom(np.zeros((2, 3)), 0)
