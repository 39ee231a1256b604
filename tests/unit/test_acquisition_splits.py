"""Trajectories are set aside at birth, evenly and reproducibly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from alloop.acquisition.splits import assign_splits
from alloop.errors import AcquisitionError

FRACTIONS = {"validation": 0.15, "audit": 0.1}


@pytest.mark.parametrize("n", range(3, 60))
def test_each_split_has_a_trajectory_and_its_share(n):
    count = Counter(assign_splits(n, FRACTIONS, np.random.default_rng(n)))
    assert count.total() == n
    assert count["train"] >= 1
    assert count["audit"] == max(1, round(0.1 * n))
    assert count["validation"] == max(1, round(0.15 * n))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_trajectories_all_train(n):
    assert assign_splits(n, FRACTIONS, np.random.default_rng(0)) == ["train"] * n


@pytest.mark.parametrize("audit", [0.3, 0.6, 0.94])
@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_something_is_left_to_train_on(n, audit):
    splits = assign_splits(n, {"validation": 0.05, "audit": audit}, np.random.default_rng(0))
    assert set(splits) == {"train", "validation", "audit"}


def test_a_split_that_is_not_wanted_gets_nothing():
    splits = assign_splits(20, {"validation": 0.0, "audit": 0.1}, np.random.default_rng(0))
    assert Counter(splits) == {"train": 18, "audit": 2}
    assert assign_splits(4, {}, np.random.default_rng(0)) == ["train"] * 4


def test_same_seed_same_splits_other_seed_others():
    draws = [assign_splits(40, FRACTIONS, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_every_stretch_of_the_list_gives_one():
    """Sorted by temperature, both halves are audited: no route is left unseen by chance."""
    for seed in range(50):
        splits = assign_splits(40, {"audit": 0.25}, np.random.default_rng(seed))
        assert [splits[i : i + 4].count("audit") for i in range(0, 40, 4)] == [1] * 10


def test_every_trajectory_can_be_drawn_and_for_either_role():
    seen = Counter()
    for seed in range(400):
        splits = assign_splits(8, {"audit": 0.25, "validation": 0.25}, np.random.default_rng(seed))
        seen.update((place, split) for place, split in enumerate(splits))
    for place in range(8):
        for split in ("audit", "validation"):
            # 400 draws at 1/4: 100 expected, standard deviation 8.7
            assert 65 < seen[place, split] < 135


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"audit": -0.1}, "audit fraction must be 0 or more"),
        ({"validation": float("nan")}, "validation fraction must be 0 or more"),
        ({"audit": 0.6, "validation": 0.4}, "no trajectory to train on"),
        ({"audit": float("inf")}, "no trajectory to train on"),
    ],
)
def test_impossible_fractions_are_refused(fractions, message):
    with pytest.raises(AcquisitionError, match=message):
        assign_splits(10, fractions, np.random.default_rng(0))
