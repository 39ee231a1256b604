"""Spreads of the difference between two committees, against members whose answers are planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.acquisition.fingerprint import fingerprints
from alloop.acquisition.promotion import choose
from alloop.acquisition.tier_pool import difference_spread, pool_frames
from alloop.errors import AcquisitionError
from alloop.frames import Frame
from alloop.potentials.committee import Evaluation

WATER = molecule("H2O")


class Springs:
    """Members i with the energy k_i/2 |x|² + e_i of all coordinates x: their forces are -k_i x."""

    elements = (1, 8)

    def __init__(self, constants, offsets=None):
        self.constants = torch.tensor(constants, dtype=torch.float64)
        self.offsets = torch.zeros(len(constants)) if offsets is None else torch.tensor(offsets)
        self.n_members = len(constants)

    def evaluate(self, numbers, positions, *, forces, cell=None, virials=False):
        """Answer as a committee does."""
        energies = 0.5 * self.constants[:, None] * positions.square().sum((1, 2))
        energies = energies + self.offsets[:, None]
        if forces == "none":
            return Evaluation(energies, None, None)
        each = -self.constants[:, None, None, None] * positions
        return Evaluation(energies, each.mean(0), each)


def shaken(n, seed=0):
    rng = np.random.default_rng(seed)
    return WATER.positions + rng.normal(0.0, 0.1, (n, 3, 3))


def test_force_spread_is_that_of_the_difference_seat_by_seat():
    positions = shaken(600)  # more than one batch
    lower, upper = Springs([1.0, 2.0, 3.0]), Springs([2.0, 2.5, 6.0])
    spread = difference_spread(WATER.numbers, positions, lower, upper)
    constants = np.std([1.0, 0.5, 3.0], ddof=1)
    expected = constants * np.sqrt((positions**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(spread, expected, rtol=1e-10)


def test_members_that_shift_alike_have_no_spread():
    # Their own disagreement about the lower level is not one about the difference.
    spread = difference_spread(
        WATER.numbers, shaken(5), Springs([1.0, 2.0, 9.0]), Springs([1.5, 2.5, 9.5])
    )
    np.testing.assert_allclose(spread, 0.0, atol=1e-12)


def test_energy_spread_is_per_atom_and_blind_to_offsets():
    positions = shaken(50)
    lower = Springs([1.0, 2.0], offsets=[5.0, -80.0])
    upper = Springs([2.0, 5.0], offsets=[7.0, 300.0])
    spread = difference_spread(WATER.numbers, positions, lower, upper, forces=False)
    halves = 0.5 * (positions**2).sum(axis=(1, 2))
    expected = np.std([1.0, 3.0], ddof=1) * np.abs(halves - halves.mean()) / 3
    np.testing.assert_allclose(spread, expected, atol=1e-10)


@pytest.mark.parametrize("forces", [True, False])
def test_a_frame_that_a_member_cannot_do_has_no_spread_and_spoils_no_other(forces):
    positions = shaken(20)
    fine = difference_spread(
        WATER.numbers, positions[1:], Springs([1.0, 2.0]), Springs([3.0, 1.0]), forces=forces
    )
    positions[0] = np.nan
    spread = difference_spread(
        WATER.numbers, positions, Springs([1.0, 2.0]), Springs([3.0, 1.0]), forces=forces
    )
    assert np.isnan(spread[0])
    np.testing.assert_allclose(spread[1:], fine)


@pytest.mark.parametrize(("lower", "upper"), [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], [2.0])])
def test_seats_must_match(lower, upper):
    with pytest.raises(AcquisitionError, match="seats"):
        difference_spread(WATER.numbers, shaken(2), Springs(lower), Springs(upper))


def columns(n):
    return {
        "differences": np.full(n, np.nan),
        "candidate": np.ones(n, bool),
        "known": np.zeros(n, bool),
        "representative": np.ones(n, bool),
    }


def test_frames_make_a_pool():
    positions = shaken(30)
    frames = [Frame(WATER.numbers, p) for p in positions]
    lower, upper = Springs([1.0, 2.0]), Springs([3.0, 1.0])
    args = ("water", frames, np.full(30, 2.0))
    first = pool_frames(*args, lower=lower, upper=None, alpha=5.0, **columns(30))
    assert first.spreads.tolist() == [1.0] * 30
    later = pool_frames(*args, lower=lower, upper=upper, **columns(30))
    expected = difference_spread(WATER.numbers, positions, lower, upper)
    np.testing.assert_array_equal(later.spreads, expected)
    calibrated = pool_frames(*args, lower=lower, upper=upper, alpha=5.0, **columns(30))
    np.testing.assert_allclose(calibrated.spreads, 5.0 * expected)
    np.testing.assert_array_equal(later.fingerprints, fingerprints(WATER.numbers, positions))
    picks = choose([later], 4, seed=0).picks
    assert {pick.key for pick in picks} <= {frame.key for frame in frames}
    assert [pick.price for pick in picks] == [2.0] * 4


def test_frames_of_two_systems_are_no_pool():
    other = molecule("NH3")
    frames = [Frame(m.numbers, m.positions) for m in (WATER, other)]
    with pytest.raises(AcquisitionError, match="one system"):
        pool_frames("x", frames, np.ones(2), lower=None, upper=None, **columns(2))
