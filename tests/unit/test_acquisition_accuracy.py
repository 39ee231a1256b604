"""Errors of a committee on labelled frames, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.acquisition.accuracy import Predictions, judge, judge_splits, predict
from alloop.acquisition.partition import partition
from alloop.datasets import Dataset
from alloop.errors import AcquisitionError
from alloop.frames import Frame
from alloop.potentials.evaluation import Evaluation
from alloop.report.accuracy import accuracy_table, accuracy_values


def dataset(
    numbers: list[list[int]], *, cells: list[float | None] | None = None, runs: str = ""
) -> Dataset:
    """Return frames of these atoms with forces and energies 0, each a group unless runs say so."""
    rng = np.random.default_rng(3)
    frames = []
    for z, length in zip(numbers, cells or [None] * len(numbers), strict=True):
        cell = None if length is None else length * np.eye(3)
        pbc = (length is not None,) * 3
        electrons = 1 + sum(z) % 2
        frames.append(Frame(z, 4.0 * rng.random((len(z), 3)), 0, electrons, cell, pbc))
    n = len(frames)
    return Dataset(
        frames=tuple(frames),
        energies=np.zeros(n),
        forces=tuple(np.zeros((frame.n_atoms, 3)) for frame in frames),
        splits=("train",) * n,
        systems=("s",) * n,
        groups=tuple(runs) or tuple(str(i) for i in range(n)),
        level_of_theory="test",
    )


class Sums:
    """A committee of two whose answers tell frames, cells and members apart."""

    n_members = 2
    elements = (1, 8)

    def evaluate(self, numbers, positions, *, forces, cell=None, virials=False):
        size = 0.0 if cell is None else float(cell.sum())
        energy = positions.sum((1, 2)) + size + float(numbers.sum())
        energies = torch.stack([energy, energy + 1.0])
        return Evaluation(energies, positions, torch.stack([positions, -positions]))


def test_frames_of_any_composition_and_cell_get_their_own_answers():
    kinds = [[8, 1], [1, 1, 8], [8, 1], [8, 1], [8, 1], [8, 1]]
    data = dataset(kinds, cells=[None, None, 5.0, 6.0, None, 5.0])
    slab = replace(data.frames[5], pbc=(True, True, False))
    data = replace(data, frames=(*data.frames[:5], slab))

    said = predict(Sums(), data)

    for i, frame in enumerate(data.frames):
        size = 0.0 if frame.cell is None else frame.cell[list(frame.pbc)].sum()
        expected = frame.positions.sum() + size + frame.numbers.sum()
        assert said.energies[:, i] == pytest.approx([expected, expected + 1.0])
        assert np.array_equal(said.forces[i], [frame.positions, -frame.positions])


def test_errors_by_hand():
    """Two frames, two members; the mean of the members is what is judged."""
    data = dataset([[8, 1, 1], [8, 1]])
    forces = [np.zeros((2, 3, 3)), np.zeros((2, 2, 3))]
    forces[0][:, 0] = [[0.2], [0.4]]  # O: mean 0.3
    forces[0][:, 1:] = 0.1
    forces[1][:, 0] = -0.6
    energies = np.array([[2.0, -3.0], [4.0, 1.0]])  # means 3 and -1

    accuracy = judge(data, Predictions(energies, tuple(forces)))

    assert accuracy.energy_mae == pytest.approx(2.0)
    assert accuracy.energy_rmse == pytest.approx(5.0**0.5)
    assert accuracy.energy_mae_per_atom == pytest.approx((1.0 + 0.5) / 2)
    assert accuracy.energy_offset == pytest.approx((1.0 - 0.5) / 2)
    assert accuracy.elements["O"].mae == pytest.approx(0.45)
    assert accuracy.elements["O"].rmse == pytest.approx(((0.09 + 0.36) / 2) ** 0.5)
    assert accuracy.elements["H"].mae == pytest.approx(0.2 / 3)
    assert accuracy.elements["H"].n_atoms == 3
    assert accuracy.force_mae == pytest.approx((0.3 + 0.1 + 0.1 + 0.6) / 5)
    # O counts as much as both H together: (0.3 + 0.1) and (0.6 + 0).
    assert accuracy.mepa == pytest.approx((0.4 + 0.6) / 2)


def test_what_is_explained():
    data = dataset([[8, 1]] * 50)
    rng = np.random.default_rng(0)
    true = [rng.normal(size=(2, 3)) for _ in range(50)]
    data = replace(data, forces=tuple(true))
    exact = Predictions(np.zeros((1, 50)), tuple(force[None] for force in true))
    nothing = Predictions(np.zeros((1, 50)), tuple(0.0 * force[None] for force in true))

    assert judge(data, exact).force_r2 == 1.0
    assert judge(data, nothing).force_r2 == pytest.approx(0.0, abs=0.01)
    assert judge(data, exact).reliability is None


def test_the_spread_of_an_honest_committee_is_worth_its_error():
    """Truth and members are drawn alike, with a width that differs between frames."""
    rng = np.random.default_rng(1)
    n, members = 300, 8
    data = dataset([[8, 1]] * n)
    widths = rng.uniform(0.01, 0.3, n)
    energies = rng.normal(size=(members, n)) * widths
    forces = tuple(w * rng.normal(size=(members, 2, 3)) for w in widths)
    data = replace(
        data,
        energies=rng.normal(size=n) * widths,
        forces=tuple(w * rng.normal(size=(2, 3)) for w in widths),
    )

    found = judge(data, Predictions(energies, forces)).reliability

    assert found.spearman > 0.8
    # One scalar drawn like the members: the factor is 1.
    assert found.energy_factor == pytest.approx(1.0, abs=0.15)


def test_a_broken_prediction_is_an_infinite_error_not_a_missing_one():
    data = dataset([[8, 1], [8, 1]])
    forces = (np.zeros((2, 2, 3)), np.full((2, 2, 3), np.nan))

    accuracy = judge(data, Predictions(np.zeros((2, 2)), forces))

    assert accuracy.force_rmse == np.inf
    assert accuracy.energy_rmse == 0.0
    assert "inf" in accuracy_table({"errors": accuracy})
    assert accuracy_values(accuracy)["force_rmse"] is None


def test_no_frames():
    data = dataset([[8, 1]]).subset(np.array([False]))

    with pytest.raises(AcquisitionError, match="no frames"):
        judge(data, Predictions(np.zeros((2, 0)), ()))


def test_each_split_by_itself():
    data = replace(dataset([[8, 1]] * 3), splits=("train", "audit", "train"))

    found = judge_splits(Sums(), data)

    assert {name: accuracy.n_frames for name, accuracy in found.items()} == {"train": 2, "audit": 1}


def test_groups_stay_together():
    data = dataset([[8, 1]] * 40, runs="aaaabbbbccccddddeeeeffffgggghhhhiiiijjjj")

    parted, notes = partition(data, validation=0.2, test=0.3, seed=1)

    by_group = {}
    for group, split in zip(parted.groups, parted.splits, strict=True):
        by_group.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert [parted.splits.count(s) for s in ("train", "validation", "audit")] == [20, 8, 12]
    assert notes == ()
    assert partition(data, validation=0.2, test=0.3, seed=1)[0].splits == parted.splits
    assert partition(data, validation=0.2, test=0.3, seed=2)[0].splits != parted.splits


def test_what_there_is_to_say_about_a_partition():
    alone = dataset([[8, 1]] * 10)
    assert "group of its own" in partition(alone, validation=0.1, test=0.0, seed=1)[1][0]
    pair = dataset([[8, 1]] * 4, runs="aabb")
    parted, notes = partition(pair, validation=0.1, test=0.0, seed=1)
    assert parted.splits == ("train",) * 4
    assert "too few" in notes[0]
    with pytest.raises(AcquisitionError, match="below 1"):
        partition(alone, validation=0.6, test=0.5, seed=1)
