"""Frames check themselves at birth and are known by their content."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from ase.build import bulk

from alloop.errors import FrameError
from alloop.frames import QUANTUM, Frame, check_spin, symbols

NUMBERS = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])
CELL = np.diag([5.0, 6.0, 7.0])


@pytest.fixture
def water():
    return Frame(NUMBERS, POSITIONS)


def periodic(**changes):
    return Frame(NUMBERS, POSITIONS, cell=changes.get("cell", CELL), pbc=(True, True, False))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NUMBERS, POSITIONS[:2]), r"positions have shape \(2, 3\), want \(3, 3\)"),
        ((NUMBERS, POSITIONS[:, :2]), "shape"),
        ((NUMBERS.reshape(1, 3), POSITIONS), "numbers have shape"),
        ((np.array([], dtype=int), np.zeros((0, 3))), "with atoms"),
        ((NUMBERS, np.where(POSITIONS > 0.5, np.nan, POSITIONS)), r"atoms \[1\] are not finite"),
        ((NUMBERS, np.where(POSITIONS < -0.5, np.inf, POSITIONS)), r"atoms \[2\] are not finite"),
        ((NUMBERS, POSITIONS, 0, 2), "multiplicity 2 is impossible with 10 electrons"),
        ((NUMBERS, POSITIONS, 1, 1), "it must be even"),
        ((NUMBERS, POSITIONS, 0, 0), "impossible"),
        ((NUMBERS, POSITIONS, 11, 1), "leaves -1 electrons"),
        ((NUMBERS, POSITIONS, 9, 4), "at most 2"),
    ],
)
def test_malformed_frames_are_refused(arguments, words):
    with pytest.raises(FrameError, match=words):
        Frame(*arguments)


@pytest.mark.parametrize(
    "cell", [None, np.eye(2), np.full((3, 3), np.nan), np.ones((3, 3)), np.zeros((3, 3))]
)
def test_a_periodic_frame_needs_a_sound_cell(cell):
    with pytest.raises(FrameError, match="cell"):
        periodic(cell=cell)


@pytest.mark.parametrize(
    ("numbers", "charge", "multiplicity"),
    [([1], 0, 2), ([1], 1, 1), ([8, 8], 0, 3), ([8, 8], -1, 2), ([7, 1, 1, 1, 1], 1, 1)],
)
def test_charged_and_open_shell_systems_are_possible(numbers, charge, multiplicity):
    check_spin(np.array(numbers), charge, multiplicity)


def test_a_molecule_has_no_cell_whatever_it_is_given():
    assert Frame(NUMBERS, POSITIONS, cell=CELL).cell is None


def test_a_frame_cannot_be_changed(water):
    with pytest.raises(ValueError, match="read-only"):
        water.positions[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        water.numbers[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        periodic().cell[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        water.charge = 1


def test_a_frame_does_not_follow_the_arrays_it_was_made_from():
    positions = POSITIONS.copy()
    frame = Frame(NUMBERS, positions)
    positions += 1.0

    assert frame.positions == pytest.approx(POSITIONS)


def test_the_key_is_of_the_content(water):
    same = Frame(NUMBERS.astype(np.int32).tolist(), np.asfortranarray(POSITIONS))
    assert same.key == water.key
    assert len(water.key) == 64
    assert pickle.loads(pickle.dumps(water)).key == water.key


def test_the_key_does_not_change_between_versions(water):
    """Ledgers keep it: a change here would make every label unfindable."""
    assert water.key == "c3bd40d13b52a15c2ed6e8c86de4fff18f6ab3914c192de56e7936ecc74849c8"
    assert periodic().key == "53da877448313c4b35ec7a379c12c2868716e44123c4bfc31c745df0701e032d"


def test_minus_zero_and_noise_below_the_quantum_do_not_change_the_key(water):
    negative = np.where(POSITIONS == 0.0, -0.0, POSITIONS)
    assert Frame(NUMBERS, negative).key == water.key
    assert Frame(NUMBERS, POSITIONS + 0.1 * QUANTUM).key == water.key


def test_everything_that_makes_another_label_makes_another_key(water):
    others = [
        Frame(NUMBERS, POSITIONS + 2 * QUANTUM),
        Frame(NUMBERS[[1, 0, 2]], POSITIONS[[1, 0, 2]]),
        Frame(np.array([16, 1, 1]), POSITIONS),
        Frame(NUMBERS, POSITIONS, charge=2),
        Frame(NUMBERS, POSITIONS, multiplicity=3),
        periodic(),
        periodic(cell=CELL * 1.01),
        Frame(NUMBERS, POSITIONS, cell=CELL, pbc=(True, True, True)),
    ]

    assert len({frame.key for frame in [water, *others]}) == 1 + len(others)


def test_atoms_carry_all_that_a_calculator_needs():
    atoms = Frame(NUMBERS, POSITIONS, 1, 2, CELL, (True, False, True)).to_atoms()

    assert atoms.info == {"charge": 1, "multiplicity": 2}
    assert atoms.positions == pytest.approx(POSITIONS)
    assert atoms.cell.array == pytest.approx(CELL)
    assert atoms.pbc.tolist() == [True, False, True]


def test_a_crystal_from_ase_is_a_frame():
    salt = bulk("NaCl", "rocksalt", a=5.64)
    frame = Frame(salt.numbers, salt.positions, cell=salt.cell.array, pbc=tuple(salt.pbc))

    assert (frame.n_atoms, frame.formula) == (2, "ClNa")
    assert symbols(frame.numbers) == ["Na", "Cl"]
