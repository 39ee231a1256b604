"""Greedy max-min against the definition, written out by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from alloop.acquisition.diversity import max_min
from alloop.acquisition.fingerprint import nearest


def brute_force(rows, known, weights, count, weighted):
    chosen: list[int] = []
    for _ in range(count):
        best, best_score = -1, -1.0
        for row in range(len(rows)):
            if row in chosen:
                continue
            others = [*known, *rows[chosen]]
            gap = min((float(np.linalg.norm(rows[row] - o)) for o in others), default=None)
            score = weights[row] if gap is None else gap * (weights[row] if weighted else 1.0)
            if score > best_score:
                best, best_score = row, score
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_known", [0, 1, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_brute_force(seed, n_known, weighted):
    rng = np.random.default_rng(seed)
    rows, known = rng.normal(size=(30, 4)), rng.normal(size=(n_known, 4))
    weights = rng.uniform(0.1, 2.0, size=30)
    outcome = max_min(rows, nearest(rows, known)[0], weights, 12, tolerance=0.0, weighted=weighted)
    assert outcome.chosen.tolist() == brute_force(rows, known, weights, 12, weighted)


def test_reports_gaps_distances_and_neighbours():
    rows = np.array([[0.0], [1.0], [4.0], [4.5]])
    outcome = max_min(rows, nearest(rows, np.array([[-1.0]]))[0], np.ones(4), 2, tolerance=0.0)
    assert outcome.chosen.tolist() == [3, 1]
    assert outcome.gaps.tolist() == [5.5, 2.0]
    assert outcome.distances.tolist() == [1.0, 0.0, 0.5, 0.0]
    assert outcome.neighbours.tolist() == [-1, 1, 3, 3]


def test_a_row_nearest_to_something_known_has_no_chosen_neighbour():
    rows = np.array([[0.0], [9.0]])
    outcome = max_min(rows, np.array([0.5, 8.0]), np.ones(2), 1, tolerance=0.0)
    assert outcome.neighbours.tolist() == [-1, 1]
    assert outcome.distances.tolist() == [0.5, 0.0]


def test_stops_when_only_duplicates_are_left():
    rows = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 4, axis=0)
    outcome = max_min(rows, np.full(20, np.inf), np.ones(20), 20, tolerance=1e-6)
    assert len(outcome.chosen) == 5


def test_no_group_gets_more_than_its_cap():
    rng = np.random.default_rng(0)
    groups = np.repeat([4, 9, 2], [20, 5, 1])
    rows = rng.normal(size=(26, 3))
    outcome = max_min(
        rows, np.full(26, np.inf), np.ones(26), 26, tolerance=0.0, groups=groups, group_cap=3
    )
    assert np.bincount(groups[outcome.chosen]).tolist() == [0, 0, 1, 0, 3, 0, 0, 0, 0, 3]


def test_nothing_to_choose_from():
    outcome = max_min(np.empty((0, 3)), np.empty(0), np.empty(0), 5, tolerance=0.0)
    assert len(outcome.chosen) == len(outcome.gaps) == 0
