"""Starts of isomers that the data never visit: mirror images, like atoms numbered otherwise."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.errors import ModelError, SpacetimeError
from alloop.spacetime.coordinates.choice import choose
from alloop.spacetime.coordinates.dummies import DummyZMatrix
from alloop.spacetime.coordinates.eckart import build_eckart
from alloop.spacetime.coordinates.internal import to_cartesian, to_internal
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.files import load_model, save_model
from alloop.spacetime.isomers import Isomers, find_isomers
from alloop.spacetime.judging.disagreement import signals
from alloop.spacetime.judging.symmetry_errors import find_transformations, transformed_errors
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.motion.orientation import endpoints, forecast, predict, predict_members
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.symmetry import Operation, list_operations
from tests.physics.test_spacetime_motion import SETTINGS, ValenceField, alone, trajectory_set

# CHFCl-CH2F: a centre that only a mirror turns, and one with two like hydrogens.
NUMBERS = [6, 6, 9, 9, 17, 1, 1, 1]
MASSES = np.array([12.011, 12.011, 18.998, 18.998, 35.45, 1.008, 1.008, 1.008])
ROWS = (
    (0,),
    (1, 0),
    (2, 0, 1),
    (3, 1, 0, 2),
    (4, 0, 1, 2),
    (5, 0, 1, 2),
    (6, 1, 0, 3),
    (7, 1, 0, 3),
)
LENGTHS = [1.52, 1.37, 1.38, 1.77, 1.09, 1.09, 1.09]
ANGLES = [1.91, 1.90, 1.93, 1.92, 1.92, 1.92]
TWISTS = [1.1, 2.09, -2.08, 2.1, -2.1]
SAME = Operation(tuple(range(8)), mirror=False)
MIRROR = Operation(tuple(range(8)), mirror=True)
SWAP = Operation((0, 1, 2, 3, 4, 5, 7, 6), mirror=False)
BOTH = Operation((0, 1, 2, 3, 4, 5, 7, 6), mirror=True)
AWAY = {"mirrored": MIRROR, "exchanged": SWAP, "both": BOTH}
TIMES = torch.tensor([10.0, 0.0, 3.7], dtype=torch.float64)


class Centres(ValenceField):
    """Dihedrals held where one isomer has them, so that no centre turns inside out."""

    def energy(self, positions):
        q, _ = to_internal(self.zmatrix, positions, torch.zeros_like(positions))
        bonds = super().energy(positions)
        return bonds + 2.0 * (1 - torch.cos(q[:, self.zmatrix.angular] - torch.tensor(TWISTS))).sum(
            1
        )

    def minimum(self):
        q = torch.cat([self.lengths, self.angles, torch.tensor(TWISTS)]).double()
        return to_cartesian(self.zmatrix, q, torch.zeros_like(q))[0]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    motion = Centres(ZMatrix(ROWS), LENGTHS, ANGLES).run(MASSES, 16, 240)
    return trajectory_set(NUMBERS, MASSES, motion)


@pytest.fixture(scope="module")
def model(data):
    return fit(data, SETTINGS, 3).model


@pytest.fixture
def start(data):
    x, v = (torch.as_tensor(np.stack(part[-4:])) for part in (data.positions, data.velocities))
    return x[:, 100], v[:, 100]


def transformed(operation, motion):
    return tuple(operation(part) for part in motion)


def assert_near(one, other, tolerance=1e-12):
    for mine, yours in zip(one, other, strict=True):
        assert mine.shape == yours.shape
        assert (mine - yours).abs().max() < tolerance


def test_an_operation_and_its_inverse_cancel():
    vectors = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(1))
    cycle = Operation((1, 2, 0, 4, 5, 6, 7, 3), mirror=True)
    assert not torch.equal(cycle(cycle(vectors)), vectors)
    assert torch.equal(cycle.inverse(cycle(vectors)), vectors)
    assert torch.equal(cycle(cycle.inverse(vectors)), vectors)


def test_each_isomer_has_one_way_home(model):
    assert set(model.isomers.operations) == {SAME, MIRROR, SWAP, BOTH}
    assert model.isomers.operations[0] == SAME


@pytest.mark.parametrize(
    ("name", "n_isomers"),
    [("CH3CH2OH", 4), ("NH3", 2), ("CH4", 2), ("C6H6", 1), ("H2O2", 1), ("H2O", 1), ("C2H4", 1)],
)
def test_isomers_of_molecules(name, n_isomers):
    """Two for each centre of three or four ligands that are not flat, when like ones can change."""
    assert len(ways_home(molecule(name))) == n_isomers


def test_ways_home_may_be_cycles(monkeypatch):
    """Of all operations with the same effect it does not matter which is found first."""

    def moves(one):
        return sum(i != image for i, image in enumerate(one.permutation))

    def cycles_first(*seen):
        return sorted(list_operations(*seen), key=lambda one: (one.inverse == one, -moves(one)))

    monkeypatch.setattr("alloop.spacetime.isomers.list_operations", cycles_first)
    operations = ways_home(molecule("C3H8"))
    assert len(operations) == 8
    assert any(one.inverse != one for one in operations)


def ways_home(atoms):
    """Return the operations of the isomers of a molecule, each of which does what it is for."""
    noise = np.random.default_rng(2).normal(0, 0.03, (50, len(atoms), 3))
    frames = atoms.positions + noise
    internal = choose(atoms.numbers, atoms.get_masses(), frames)
    found = find_isomers(internal, atoms.numbers, frames)
    home = torch.as_tensor(frames)
    for i, operation in enumerate(found.operations):
        away = operation.inverse(home)
        coordinates, _ = internal.describe(away, torch.zeros_like(away))
        which = found.find(internal.handedness(coordinates))
        assert (which is None) == (i == 0)
        assert which is None or (which == i).all()
        assert internal.same_isomer(operation(away), home)
        each = torch.full((len(home),), i)
        assert torch.equal(found.bring_home(each, away), home)
        assert torch.equal(found.take_back(each, home[:, None])[:, 0], away)
    return found.operations


@pytest.mark.parametrize("name", AWAY)
def test_predictions_are_transformed_as_starts_are(model, start, name):
    away = transformed(AWAY[name], start)
    for ask in (predict, predict_members):
        wanted = transformed(AWAY[name], ask(model, *start, TIMES))
        assert_near(ask(model, *away, TIMES), wanted)
    for members in (False, True):
        wanted = transformed(AWAY[name], endpoints(model, *start, members=members))
        assert_near(endpoints(model, *away, members=members), wanted)
    (x, v) = predict(model, *away, TIMES)
    assert_near((x[:, 1], v[:, 1]), away)
    here, there = signals(model, *start), signals(model, *away)
    assert (here.spread - there.spread).abs().max() < 1e-9
    assert (here.round_trip - there.round_trip).abs().max() < 1e-9


@pytest.mark.parametrize("name", AWAY)
def test_long_motion_is_transformed_as_its_start_is(model, start, name):
    times = torch.arange(0.0, 47.0, 1.3, dtype=torch.float64)
    here = propagate(model, *start, times)
    there = propagate(model, *transformed(AWAY[name], start), times)
    assert here.reasons == there.reasons == (None,) * 4
    wanted = transformed(AWAY[name], (here.positions, here.velocities))
    assert_near((there.positions, there.velocities), wanted, 1e-10)


def test_a_start_at_home_is_left_alone(data, model, start):
    """Bit by bit what a model says that knows no isomers."""
    simple = dataclasses.replace(model, isomers=alone(model.internal))
    for ask in (predict, predict_members):
        for one, other in zip(ask(model, *start, TIMES), ask(simple, *start, TIMES), strict=True):
            assert torch.equal(one, other)
    for i in range(len(data.ids)):
        told = forecast(model, *data.motion(i))
        assert told.isomers is None
        assert torch.equal(told.positions, data.motion(i)[0])


def test_each_start_of_a_batch_is_brought_home_by_itself(model, start):
    operations = (SWAP, SAME, BOTH, MIRROR)
    rows = [transformed(one, [part[i] for part in start]) for i, one in enumerate(operations)]
    mixed = [torch.stack(part) for part in zip(*rows, strict=True)]
    for ask, axis in ((predict, 0), (predict_members, 1)):
        single = [ask(model, x[None], v[None], TIMES) for x, v in rows]
        wanted = [torch.cat(part, dim=axis) for part in zip(*single, strict=True)]
        assert_near(ask(model, *mixed, TIMES), wanted, 1e-6)  # networks round in float32
    told = forecast(model, *mixed, members=True)
    picked = told.only(torch.tensor([3, 0]), torch.tensor([1, 0])).at(TIMES)
    each = told.at(TIMES)
    assert_near(picked, [torch.stack([part[1, 3], part[0, 0]]) for part in each])


def test_isomers_are_foretold_as_well_as_the_data(data, model):
    """Measured: equal to 15 digits; without the way home 19 to 130 times the error."""
    found = find_transformations(model, data.frames(data.members("test"), 100))
    errors = transformed_errors(model, data, data.members("test"), found)
    lost = dataclasses.replace(model, isomers=alone(model.internal))
    without = transformed_errors(lost, data, data.members("test"), found)
    for name in ("mirrored", "C1H2: two exchanged"):
        for kind, error in errors["as is"].items():
            assert errors[name][kind] == pytest.approx(error, rel=1e-9), (name, kind)
            assert without[name][kind] > 10 * error, (name, kind)


def test_the_nearest_isomer_is_taken_and_home_if_others_are_as_near(model):
    isomers = model.isomers
    for i, hands in enumerate(isomers.hands):
        for other in isomers.hands:
            between = 0.55 * hands + 0.45 * other
            which = isomers.find(between[None])
            assert (0 if which is None else int(which)) == i
    loose = Isomers((SAME, MIRROR), torch.tensor([[0.9], [0.3]]).to(torch.complex128))
    assert loose.find(torch.tensor([[0.4], [0.8]]).to(torch.complex128)).tolist() == [1, 0]
    flat = isomers.hands.real + 0j  # every centre as flat as can be
    assert isomers.find(flat[:1]) is None
    assert isomers.find(torch.full((1, 4), complex(math.nan), dtype=torch.complex128)) is None


def test_isomers_that_the_data_visit_are_left_alone(data, model):
    frames = data.frames(data.members("train"), 100)
    mixed = np.concatenate([frames, MIRROR(torch.as_tensor(frames[:3])).numpy()])
    found = find_isomers(model.internal, data.numbers, mixed)
    assert set(found.operations) == {SAME, SWAP, BOTH}
    assert found.operations.count(SAME) == 2
    as_many = np.concatenate([frames, MIRROR(torch.as_tensor(frames)).numpy()])
    assert find_isomers(model.internal, data.numbers, as_many).operations == (SAME,)


def test_other_coordinates_know_of_no_isomers(data):
    frames, masses = data.frames([0], 30), torch.as_tensor(MASSES)
    for internal in (build_eckart(masses, torch.as_tensor(frames)),
                     DummyZMatrix(ZMatrix(ROWS), masses)):  # fmt: skip
        found = find_isomers(internal, data.numbers, frames)
        assert found.operations == (SAME,)
        assert found.hands.shape == (1, 0)


def test_a_file_keeps_the_isomers(model, start, tmp_path):
    save_model(model, tmp_path / "a.model")
    loaded = load_model(tmp_path / "a.model")
    assert loaded.isomers.operations == model.isomers.operations
    assert torch.equal(loaded.isomers.hands, model.isomers.hands)
    away = transformed(BOTH, start)
    for one, other in zip(predict(model, *away, TIMES), predict(loaded, *away, TIMES), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [{"isomers": None}, {"mirrors": [False] * 5}, {"permutations": [[0, 1, 2]] * 4},
     {"hands": torch.ones(4, 3, dtype=torch.complex128)}, {"hands": [1.0]}],
)  # fmt: skip
def test_files_with_damaged_isomers_are_refused(model, tmp_path, changes):
    path = tmp_path / "a.model"
    save_model(model, path)
    content = torch.load(path, weights_only=True)
    if "isomers" in changes:
        del content["isomers"]
    else:
        content["isomers"] |= changes
    torch.save(content, path)
    with pytest.raises(ModelError, match="damaged"):
        load_model(path)


HANDS = torch.ones(2, 4, dtype=torch.complex128)


@pytest.mark.parametrize(
    ("operations", "hands", "message"),
    [
        ((), HANDS[:0], "one row"),
        ((SAME,), HANDS, "one row"),
        ((SAME, MIRROR), HANDS.real, "complex"),
        ((SAME, MIRROR), HANDS * math.nan, "finite"),
        ((MIRROR, SAME), HANDS, "identity"),
        ((SAME, Operation((0, 0, 2, 3, 4, 5, 6, 7), mirror=False)), HANDS, "permutation"),
    ],
)
def test_senseless_isomers_are_refused(operations, hands, message):
    with pytest.raises(SpacetimeError, match=message):
        Isomers(operations, hands)
