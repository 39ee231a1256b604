"""The symmetry table of a 4D model: what is tried is true motion, and models are told apart."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.construction import build_zmatrix
from alloop.spacetime.coordinates.internal import to_cartesian
from alloop.spacetime.judging.accuracy import assess
from alloop.spacetime.judging.disagreement import segments
from alloop.spacetime.judging.symmetry_errors import find_transformations, transformed_errors
from alloop.spacetime.learning.fit import fit
from alloop.units import ACCELERATION
from tests.physics.test_spacetime_motion import CHAIN, PEROXIDE, SETTINGS, rigid, trajectory_set

FIELD, NUMBERS, MASSES = PEROXIDE
TEST = [18, 19]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    masses = np.array(MASSES)
    return trajectory_set(NUMBERS, masses, FIELD.run(masses, 20, 300))


@pytest.fixture(scope="module")
def model(data):
    return fit(data, SETTINGS, 3).model


@pytest.fixture(scope="module")
def found(model, data):
    return find_transformations(model, data.frames(TEST, 100))


def end_of(positions, velocities, n_steps=20):
    """Return where the field itself takes them: velocity Verlet of 0.5 fs, as in the data."""
    scale = 0.5 * 0.5 * ACCELERATION / torch.tensor(MASSES, dtype=torch.float64)[:, None]
    force = FIELD.forces(positions)
    for _ in range(n_steps):
        half = velocities + scale * force
        positions = positions + 0.5 * half
        force = FIELD.forces(positions)
        velocities = half + scale * force
    return positions, velocities


def test_every_transformed_segment_is_true_motion(model, data, found):
    """From its start the field itself leads to its end, in all ways but the identity elsewhere."""
    start, end = segments(model, data, TEST)
    for transformation in found:
        first, last = transformation(start, end)
        for reached, wanted in zip(end_of(*first), last, strict=True):
            assert (reached - wanted).abs().max() < 1e-9, transformation.name
        if transformation.name != "as is":
            assert (first[0] - start[0]).abs().max() > 0.1, transformation.name


def test_what_is_tried_on_hydrogen_peroxide(found):
    assert [one.name for one in found] == [
        "as is", "rotated", "translated", "reversed in time", "mirrored", "inner atoms exchanged",
        "mirrored, atoms exchanged",
    ]  # fmt: skip
    assert [one.operation.mirror for one in found[-3:]] == [True, False, True]


def test_what_is_tried_on_ethanol():
    atoms = molecule("CH3CH2OH")
    frames = atoms.positions[None] + np.random.default_rng(1).normal(0, 0.02, (20, 9, 3))
    model = rigid(build_zmatrix(atoms.numbers, frames), atoms.numbers, atoms.get_masses())
    found = {one.name: one for one in find_transformations(model, frames)}
    assert list(found)[5:] == [
        "C1H2: two exchanged", "C0H3: two exchanged", "C0H3: cycle", "mirrored, atoms exchanged",
    ] or list(found)[5:] == [
        "C0H2: two exchanged", "C1H3: two exchanged", "C1H3: cycle", "mirrored, atoms exchanged",
    ]  # fmt: skip
    swapped = [name for name in found if "H2" in name or "H3" in name]
    for name in swapped:
        permutation = np.array(found[name].operation.permutation)
        moved = np.flatnonzero(permutation != np.arange(9))
        assert len(moved) == (3 if "cycle" in name else 2)
        assert set(atoms.numbers[moved]) == {1}
        assert sorted(permutation) == list(range(9))
    both = found["mirrored, atoms exchanged"].operation
    assert both.mirror
    assert model.internal.same_isomer(both(torch.as_tensor(frames)), torch.as_tensor(frames))


def test_rotation_and_translation_are_built_in(model, data, found):
    errors = transformed_errors(model, data, TEST, found)
    for name in ("rotated", "translated"):
        for kind, value in errors["as is"].items():
            assert errors[name][kind] == pytest.approx(value, rel=1e-5), (name, kind)


def test_errors_are_those_at_the_cutoff(model, data, found):
    """Against the assessment of the fit, which measures in internal coordinates all along."""
    scores = assess(model, data, TEST).ensemble
    errors = transformed_errors(model, data, TEST, found)["as is"]
    for kind in ("bond", "angle", "dihedral"):
        assert errors[kind] == pytest.approx(scores[f"{kind}_end"], rel=1e-4)
    assert scores["rmsd_end"] < errors["position"] < 3 * scores["rmsd_end"]


def test_mirror_images_are_learnt_only_with_augmentation(model, data, found):
    """All molecules of the data twist the same way; measured 1.0 and 30 times the error."""
    bare = fit(data, dataclasses.replace(SETTINGS, augment=False), 3).model
    (known, stranger) = (transformed_errors(m, data, TEST, found) for m in (model, bare))
    assert known["mirrored"]["position"] < 1.5 * known["as is"]["position"]
    assert stranger["mirrored"]["position"] > 5 * stranger["as is"]["position"]


def test_dihedrals_are_compared_the_shorter_way_round():
    """A model in which nothing bends says 3.13 rad, where the torsion has come to 3.15."""
    times = 0.5 * torch.arange(45, dtype=torch.float64)[:, None]
    unit = torch.tensor([0.0, 0, 0, 0, 0, 1.0], dtype=torch.float64)
    begin = torch.tensor([1.45, 0.97, 0.97, 1.75, 1.75, 2.73], dtype=torch.float64)
    torsion = 0.02 * times + 0.5e-4 * times**2, 0.02 + 1e-4 * times
    motion = to_cartesian(CHAIN, begin + unit * torsion[0], unit * torsion[1])
    idle = rigid(CHAIN, NUMBERS, MASSES)
    five = tuple(part.expand(5, *part.shape) for part in motion)
    data = trajectory_set(NUMBERS, np.array(MASSES), five)
    (same, *_) = find_transformations(idle, data.frames([0], 45))
    errors = transformed_errors(idle, data, [0], [same])["as is"]
    assert errors["dihedral"] == pytest.approx(0.02, rel=1e-6)


def test_no_segment_is_refused(model, data, found):
    with pytest.raises(SpacetimeError, match="none of 0 trajectories"):
        transformed_errors(model, data, [], found)
