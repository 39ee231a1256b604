"""Fingerprints see shape and nothing else: neutral, charged, open-shell and chiral species."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alloop.acquisition.fingerprint import DUPLICATE_TOLERANCE, fingerprints


def ethanol(dihedral=180.0):
    atoms = molecule("CH3CH2OH")
    carbons = [i for i, s in enumerate(atoms.symbols) if s == "C"]
    oxygen = atoms.symbols.search("O")[0]
    near, far = sorted(carbons, key=lambda c: atoms.get_distance(c, oxygen))
    hydroxyl = min(atoms.symbols.search("H"), key=lambda h: atoms.get_distance(int(h), int(oxygen)))
    atoms.set_dihedral(far, near, oxygen, hydroxyl, dihedral, indices=[hydroxyl])
    return atoms


def chiral():
    atoms = molecule("CH4")
    return Atoms("CHFCl" + "Br", atoms.positions * [[1.0], [1.0], [1.25], [1.6], [1.8]])


SPECIES = {
    "ethanol": ethanol(),
    "ammonium cation": Atoms("NH4", molecule("CH4").positions),
    "methyl radical": molecule("CH3"),
    "triplet oxygen": molecule("O2"),
    "CHFClBr": chiral(),
}


def of(atoms):
    return fingerprints(atoms.numbers, atoms.positions[None])[0]


def apart(one, other):
    return float(np.linalg.norm(of(one) - of(other)))


def random_rotation(rng):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return turn * np.sign(np.linalg.det(turn))


@pytest.mark.parametrize("name", SPECIES)
def test_motion_reflection_and_renaming_change_nothing(name):
    atoms, rng = SPECIES[name], np.random.default_rng(6)
    atoms = atoms.copy()
    atoms.positions += rng.normal(size=atoms.positions.shape) * 0.05
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.positions = sign * atoms.positions @ random_rotation(rng) + rng.normal(size=3) * 5
        moved = moved[rng.permutation(len(moved))]
        # Moved back into the order of the elements, equal atoms stay exchanged.
        moved = moved[np.argsort(moved.numbers, kind="stable")]
        ordered = atoms[np.argsort(atoms.numbers, kind="stable")]
        assert apart(moved, ordered) < 1e-12


@pytest.mark.parametrize("name", SPECIES)
def test_the_order_of_elements_does_not_matter_either(name):
    atoms = SPECIES[name]
    np.testing.assert_allclose(of(atoms[::-1]), of(atoms), atol=1e-12)


def test_mirror_images_are_one_geometry_although_no_rotation_maps_them():
    atoms = chiral()
    mirror = atoms.copy()
    mirror.positions *= [1.0, 1.0, -1.0]
    handed = [np.linalg.det(a.positions[1:4] - a.positions[0]) for a in (atoms, mirror)]
    assert handed[0] * handed[1] < -0.1
    assert apart(atoms, mirror) < 1e-12


@pytest.mark.parametrize("dihedral", [60.0, 120.0, 170.0])
def test_conformers_differ(dihedral):
    assert apart(ethanol(), ethanol(dihedral)) > DUPLICATE_TOLERANCE
    assert apart(ethanol(dihedral), ethanol(-dihedral)) < 1e-10


def test_a_rotating_hydroxyl_moves_steadily_away():
    way = [apart(ethanol(180.0), ethanol(angle)) for angle in range(180, 59, -10)]
    assert (np.diff(way) > 0).all()
    assert way[-1] > 0.1


@pytest.mark.parametrize("name", SPECIES)
def test_distance_is_at_most_the_difference_of_interatomic_distances(name):
    """The bound of the module's docstring, and the triangle inequality."""
    rng = np.random.default_rng(2)
    atoms = SPECIES[name]
    frames = atoms.positions + rng.normal(size=(60, len(atoms), 3)) * 0.3
    rows = fingerprints(atoms.numbers, frames)
    between = np.linalg.norm(frames[:, :, None] - frames[:, None], axis=-1)
    pairs = len(atoms) * (len(atoms) - 1)
    for a, b, c in rng.integers(60, size=(100, 3)):
        distance = np.linalg.norm(rows[a] - rows[b])
        assert distance <= np.sqrt(((between[a] - between[b]) ** 2).sum() / pairs) + 1e-12
        detour = np.linalg.norm(rows[a] - rows[c]) + np.linalg.norm(rows[c] - rows[b])
        assert distance <= detour + 1e-12


def test_exchanging_atoms_continuously_makes_no_jump():
    """The methyl group of ethanol through a third of a circle, 1° a step: 0.018 Å for each H."""
    atoms = ethanol()
    oxygen = atoms.symbols.search("O")[0]
    near, far = sorted(atoms.symbols.search("C"), key=lambda c: atoms.get_distance(c, oxygen))
    methyl = [i for i in atoms.symbols.search("H") if atoms.get_distance(i, far) < 1.2]
    frames = []
    for _ in range(121):
        frames.append(atoms.positions.copy())
        atoms.rotate_dihedral(oxygen, near, far, methyl[0], 1.0, indices=methyl)
    rows = fingerprints(atoms.numbers, np.array(frames))
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    assert steps.max() < 0.018
    away = np.linalg.norm(rows - rows[0], axis=1)
    assert away.max() > 0.05
    assert away[-1] < 0.01


def test_the_tolerance_is_the_noise_it_says():
    rng = np.random.default_rng(0)
    atoms = ethanol()
    noisy = atoms.positions + rng.normal(size=(200, 9, 3)) * 0.008
    away = np.linalg.norm(fingerprints(atoms.numbers, noisy) - of(atoms), axis=1)
    assert np.median(away) == pytest.approx(DUPLICATE_TOLERANCE, rel=0.25)
