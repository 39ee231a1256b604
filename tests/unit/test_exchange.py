"""Labels made elsewhere: units as people write them, which frame it is, what a check can know."""

from __future__ import annotations

from dataclasses import replace

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alloop.datasets import Dataset, save_dataset
from alloop.datasources import Keys, RawFrame
from alloop.errors import DataError
from alloop.exchange.checking import Claim, Other, judge_units
from alloop.exchange.matching import KnownFrames, Match, Matcher, Unmatched, superpose
from alloop.exchange.reading import read_returned
from alloop.exchange.units import OURS, LabelUnits, parse_units
from alloop.frames import Frame
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE, EV_PER_KCAL_MOL

NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
SPRING = 30.0
NO_KEYS = Keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eV, Å", ("eV", "eV", "Å")),
        ("eV", ("eV", "eV", "Å")),
        ("eV/Å", ("eV", "eV", "Å")),
        ("Hartree, Bohr", ("Ha", "Ha", "bohr")),
        ("hartree,bohr", ("Ha", "Ha", "bohr")),
        ("Eh/Bohr", ("Ha", "Ha", "bohr")),
        ("Hartree, eV/Angstrom", ("Ha", "eV", "Å")),
        ("kcal/mol", ("kcal/mol", "kcal/mol", "Å")),
        ("kcal/mol/A", ("kcal/mol", "kcal/mol", "Å")),
        ("kJ/mol, kJ/mol/nm", ("kJ/mol", "kJ/mol", "nm")),
    ],
)
def test_units_as_people_write_them(text, expected):
    assert parse_units(text) == LabelUnits(*expected)


@pytest.mark.parametrize("text", ["", "Bohr", "eV, eV", "eV, Å, Å", "Hartree, furlong", "mol, Å"])
def test_unknown_units_are_refused(text):
    with pytest.raises(DataError, match="want an energy and a length"):
        parse_units(text)


def test_a_force_unit_is_energy_by_length():
    units = parse_units("Hartree, Bohr")
    assert units.ev == EV_PER_HARTREE
    assert units.ev_per_angstrom == pytest.approx(51.42, abs=0.01)
    assert parse_units("kcal/mol, Å").ev_per_angstrom == EV_PER_KCAL_MOL


# -- which frame is it? ------------------------------------------------------------------------


def raw(positions: np.ndarray, **more: object) -> RawFrame:
    frame = RawFrame("0", NUMBERS, positions, 0.0, None, None, (False,) * 3, None, None, None)
    return replace(frame, **more)


def known(name: str, positions: np.ndarray, **more: object) -> KnownFrames:
    first = 1 if name == "water" else 100
    ids = tuple(range(first, first + len(positions)))
    return replace(KnownFrames(name, NUMBERS, 0, 1, (False,) * 3, ids, positions, None), **more)


@pytest.fixture
def positions() -> np.ndarray:
    return WATER + 0.05 * np.random.default_rng(1).normal(size=(5, 3, 3))


def test_the_nearest_frame_within_the_tolerance(positions):
    positions[4] = positions[3] + 5e-6  # two that can hardly be told apart
    matcher = Matcher([known("water", positions)], (1.0,))
    for place, at in enumerate(positions):
        found = matcher.find(raw(at + 1e-6))
        assert isinstance(found, Match)
        assert (found.frame_id, found.rotation) == (place + 1, None)
        assert np.array_equal(found.positions, at)
    off = matcher.find(raw(positions[0] + 2e-5 * np.eye(3)))
    assert isinstance(off, Unmatched)
    assert "not in the ledger" in off.reason
    assert matcher.nearest(raw(positions[0] + 2e-5 * np.eye(3))) == pytest.approx(2e-5)


def test_charge_tells_apart_what_lies_alike(positions):
    cation = known("cation", positions, charge=1, multiplicity=2)
    matcher = Matcher([known("water", positions), cation], (1.0,))
    assert "could be of water, cation" in matcher.find(raw(positions[2])).reason
    assert matcher.find(raw(positions[2], charge=1.0)).frame_id == 102
    assert matcher.find(raw(positions[2], multiplicity=1.0)).frame_id == 3
    assert "(0 and 1, 1 and 2)" in matcher.find(raw(positions[2], charge=2.0)).reason


def test_positions_in_bohr_and_in_another_orientation(positions):
    matcher = Matcher([known("water", positions)], (1.0, ANGSTROM_PER_BOHR))
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    found = matcher.find(raw((positions[1] @ turn.T + 2.0) / ANGSTROM_PER_BOHR))
    assert found.frame_id == 2
    assert found.scale == ANGSTROM_PER_BOHR
    assert found.rotation == pytest.approx(turn, abs=1e-9)


def test_no_rotation_in_a_crystal_and_its_cell_counts(positions):
    cell = 5.0 * np.eye(3)
    cells, pbc = np.array([cell] * 5), (True,) * 3
    matcher = Matcher([known("water", positions, cells=cells, pbc=pbc)], (1.0,))
    assert matcher.find(raw(positions[1], cell=cell, pbc=pbc)).frame_id == 2
    for other in (
        raw(positions[1], cell=cell + 0.01, pbc=pbc),
        raw(positions[1]),
        raw(positions[1] + 1.0, cell=cell, pbc=pbc),
    ):
        assert isinstance(matcher.find(other), Unmatched)


def test_linear_and_lone_atoms_can_be_turned():
    line = np.array([[0.0, 0, 0], [0, 0, 1.1], [0, 0, 2.3]])
    assert superpose(line[:, [2, 0, 1]] + 4.0, line)[0] < 1e-12
    assert superpose(np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 3)))[0] == 0.0


def test_a_system_without_frames():
    matcher = Matcher([known("water", np.empty((0, 3, 3)))], (1.0,))
    assert "not in the ledger" in matcher.find(raw(WATER)).reason
    assert "those of no system" in matcher.find(raw(WATER, numbers=NUMBERS[::-1])).reason


# -- are these the units? ----------------------------------------------------------------------


def claims(n: int = 8, stiffer: float = 1.0, offset: float = 0.0, other: bool = True):
    """Springs, labelled twice: another level is softer, and has another zero of energy."""
    rng = np.random.default_rng(2)
    made = []
    for _ in range(n):
        step = 0.1 * rng.normal(size=(3, 3))
        energy, forces = 0.5 * SPRING * float((step**2).sum()), -SPRING * step
        said = Other("soft", 0.9 * energy - 300.0, 0.9 * forces) if other else None
        made.append(Claim("water", WATER + step, stiffer * energy + offset, stiffer * forces, said))
    return made


def test_right_units_raise_no_doubt():
    opinion = judge_units(claims(offset=-2000.0), OURS, {"water": -1990.0})
    assert opinion.problems == []
    assert [note.split(" are ")[0].split(" lie ")[0] for note in opinion.notes] == [
        "energies", "energies", "forces", "forces",
    ]  # fmt: skip
    assert "forces are 0% off the slope of their own energies" in opinion.notes


@pytest.mark.parametrize("factor", [27.2114, 23.06, 0.0434, 1 / 27.2114])
def test_a_wrong_unit_of_energy(factor):
    wrong = [replace(one, energy=factor * one.energy) for one in claims(offset=-2000.0)]
    both = judge_units(wrong, OURS, {"water": -2000.0}).problems
    assert len(both) == 2
    assert all(problem.startswith("energies, eV as declared") for problem in both)


@pytest.mark.parametrize(
    ("declared", "factor"),
    [
        ("eV, Å", 1 / 1.8897), ("eV, bohr", 1.8897), ("eV, Å", -1.0), ("eV, Å", 1 / 51.42),
        ("Hartree, bohr", 51.42), ("eV, Å", -1 / 0.0434),
    ],
)  # fmt: skip
def test_a_wrong_unit_or_sign_of_forces(declared, factor):
    units = parse_units(declared)
    wrong = [replace(one, forces=factor * one.forces) for one in claims()]
    problems = judge_units(wrong, units, {}).problems
    assert len(problems) == 2
    assert all(problem.startswith("forces, ") for problem in problems)
    assert all(("minus" in problem) == (factor < 0) for problem in problems)


def test_levels_that_differ_a_good_deal_are_no_wrong_unit():
    """40 % stiffer with as much noise: two real methods seldom differ so much."""
    rng = np.random.default_rng(4)
    rough = [
        replace(one, forces=one.forces + rng.normal(size=(3, 3)))
        for one in claims(n=20, stiffer=1.4)
    ]
    assert judge_units(rough, OURS, {}).problems == []


def test_too_little_to_say_anything():
    two = judge_units(claims(n=2), OURS, {})
    assert two.problems == []
    assert two.notes[-1].startswith("nothing to hold the unit of the energies against")
    assert judge_units([], OURS, {}).notes == []
    still = [replace(one, energy=0.0, forces=0 * one.forces, other=None) for one in claims()]
    assert judge_units(still, OURS, {}).problems == []


def test_energies_of_another_zero_fit_no_unit():
    (problem,) = judge_units(claims(offset=-50.0, other=False), OURS, {"water": -2000.0}).problems
    assert "another level, or relative" in problem


# -- reading -----------------------------------------------------------------------------------


def read(path, keys=NO_KEYS, units=OURS):
    return read_returned(path, keys, units, level_of_theory="upper")


def test_a_file_that_settles_its_units_is_not_argued_with(tmp_path):
    atoms = Atoms(NUMBERS, WATER)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((3, 3)))
    ase.io.write(tmp_path / "a.traj", atoms)
    assert read(tmp_path / "a.traj", units=None).labels[0].energy == -1.0
    data = Dataset(
        (Frame(NUMBERS, WATER),) * 2, np.array([-1.0, -2.0]),
        (np.ones((3, 3)), np.full((3, 3), np.nan)), ("train",) * 2, ("w",) * 2, ("g",) * 2,
        "upper",
    )  # fmt: skip
    save_dataset(tmp_path / "a.npz", data)
    first, second = read(tmp_path / "a.npz", units=None).labels
    assert (first.energy, first.charge, second.forces) == (-1.0, 0, None)
    for name in ("a.traj", "a.npz"):
        with pytest.raises(DataError, match="leave --units out"):
            read(tmp_path / name, units=parse_units("Hartree"))
    save_dataset(tmp_path / "b.npz", replace(data, level_of_theory="lower"))
    assert set(read(tmp_path / "b.npz").faults.values()) == {
        "the file says that it was made at lower"
    }


def test_arrays_may_lack_forces(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("x").update(
            {"R": np.array([WATER] * 2), "E": [1.0, np.nan], "Z": NUMBERS}
        )
    keys = Keys(energy="E", positions="R", numbers="Z")
    got = read(tmp_path / "a.h5", keys, parse_units("kcal/mol"))
    assert [one.energy for one in got.labels] == [EV_PER_KCAL_MOL]
    assert got.faults == {"x[1]": "a label is not finite"}
    assert got.n_frames == 2
    with pytest.raises(DataError, match="does not say its units"):
        read(tmp_path / "a.h5", keys, None)
    with pytest.raises(DataError, match="no name is given for the energy"):
        read(tmp_path / "a.h5", Keys(positions="R", numbers="Z"))
    np.savez(tmp_path / "a.npz", R=[WATER], E=[1.0], Z=NUMBERS)
    with pytest.raises(DataError, match="it holds R, E, Z"):
        read(tmp_path / "a.npz")


def test_names_that_are_given_count(tmp_path):
    atoms = Atoms(NUMBERS, WATER, info={"REF_energy": -1.0, "model": -9.0, "charge": 1})
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (usual,) = read(tmp_path / "a.xyz").labels
    assert (usual.energy, usual.forces.sum(), usual.charge) == (-1.0, 9.0, 1.0)
    (named,) = read(tmp_path / "a.xyz", Keys(energy="model")).labels
    assert (named.energy, named.forces) == (-9.0, None)
    with pytest.raises(DataError, match="has no 'E'"):
        read(tmp_path / "a.xyz", Keys(energy="E"))
