"""A level of theory with few labels, learnt with the help of a cheaper one: real xTB labels."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.errors import TrainingError
from alloop.frames import Frame
from alloop.potentials.architectures import ARCHITECTURES
from alloop.potentials.committee import build_committee
from alloop.potentials.files import member_bytes
from alloop.reference.method import MethodSpec, build_reference
from alloop.training.data import TrainingSet
from alloop.training.levels import completed, differences, for_training, predicted, with_new_head
from alloop.training.settings import TrainSettings
from alloop.training.tiers import MODES, learn, usable_modes
from alloop.training.trainer import train_member
from tests.in_spells import in_spells

REST = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.471], [0.0, -0.757, -0.471]])
NUMBERS = np.array([8, 1, 1])
LEVELS = {"level_of_theory": "upper", "lower_level": "lower"}
SETTINGS = TrainSettings(epochs=200, max_steps=200, patience=200, learning_rate=5e-3)
BRIEF = replace(SETTINGS, epochs=2, max_steps=2)


def water(n, seed, *, validation=5):
    """Return frames of water labelled with GFN2-xTB."""
    rng = np.random.default_rng(seed)
    frames = tuple(Frame(NUMBERS, REST + rng.normal(0.0, 0.05, REST.shape)) for _ in range(n))
    reference = build_reference(MethodSpec("tblite"), NUMBERS, 0, 1)
    labels = [reference.label(frame) for frame in frames]
    return TrainingSet(
        frames,
        np.array([label.energy for label in labels]),
        tuple(label.forces for label in labels),
        np.arange(n) % validation == validation - 1,
    )


def improved(data, strength=1.0):
    """Return the labels of a better method: softer, longer bonds, and other atomic energies."""
    energies, forces = data.energies.copy(), [force.copy() for force in data.forces]
    for k, frame in enumerate(data.frames):
        for hydrogen in (1, 2):
            bond = frame.positions[hydrogen] - frame.positions[0]
            length = float(np.linalg.norm(bond))
            energies[k] -= strength * (6.0 * (length - 0.93) ** 2) + 500.0
            pull = strength * 12.0 * (length - 0.93) * bond / length
            forces[k][hydrogen] += pull
            forces[k][0] -= pull
    return replace(data, energies=energies, forces=tuple(forces))


def energies_only(data):
    return replace(data, forces=tuple(np.full_like(force, np.nan) for force in data.forces))


def first(data, n):
    return data.subset(np.arange(len(data.frames)) < n)


def both(*sets):
    return TrainingSet(
        tuple(frame for s in sets for frame in s.frames),
        np.concatenate([s.energies for s in sets]),
        tuple(force for s in sets for force in s.forces),
        np.concatenate([s.is_validation for s in sets]),
    )


def error(member, data):
    """Return the root mean square force error, eV/Å."""
    return mean_error([member], data)


def mean_error(members, data):
    """Return the same of the mean of members."""
    _, forces = predicted(members, data.frames)
    return float(np.sqrt(((np.array(forces) - np.array(data.forces)) ** 2).mean()))


@pytest.fixture(scope="module")
def world():
    """Many cheap labels, frames with both, test frames, and parents for three seats."""
    torch.set_num_threads(1)
    cheap, shared, test = water(200, 1), water(40, 2), water(100, 3)
    settings = replace(SETTINGS, epochs=400, max_steps=400)
    parents = [train_member(cheap, settings, level_of_theory="lower", seed=k)[0] for k in range(3)]
    return both(cheap, shared), improved(shared), improved(test), parents


def fit(mode, upper, lower, parent, settings=SETTINGS, seed=1, **more):
    given = {"seed": seed, "kind": "ani", "parent": parent, **LEVELS, **more}
    return learn(mode, upper, lower, settings, **given)[0]


# What it is good for


def test_few_labels_go_further_from_a_parent_and_furthest_as_a_difference(world):
    lower, upper, test, parents = world
    few = first(upper, 10)
    errors = {
        mode: error(fit(mode, few, lower, parents[0]), test)
        for mode in ("scratch", "finetune", "freeze", "delta", "joint")
    }
    assert max(errors["finetune"], errors["freeze"], errors["joint"]) < 0.3 * errors["scratch"]
    assert errors["delta"] < 0.85 * errors["finetune"]


def test_students_of_an_ensemble_know_forces_better_than_those_of_energies(world):
    """30 energies, no forces and no parent, as in arXiv:2503.14293."""
    _, upper, test, _ = world
    blind = energies_only(first(upper, 30))
    teachers = [fit("scratch", blind, None, None, seed=k) for k in range(3)]
    student = fit("distil", blind, None, None, seed=0, teachers=teachers)
    assert error(student, test) < 0.75 * error(teachers[0], test)
    assert error(student, test) < 0.75 * mean_error(teachers, test)


def test_energies_alone_say_more_of_a_difference(world):
    lower, upper, test, parents = world
    blind = energies_only(first(upper, 30))
    still = replace(SETTINGS, epochs=1, max_steps=1, learning_rate=1e-12)
    unchanged = error(fit("finetune", blind, lower, parents[0], still), test)
    assert error(fit("delta", blind, lower, parents[0]), test) < 0.5 * unchanged


# What goes into which fit


@pytest.mark.parametrize("mode", MODES)
def test_another_zero_of_the_elements_is_taken_up_by_the_atoms(world, mode):
    """A constant for each element between the levels changes energies by just that."""
    lower, upper, _, parents = world
    few = first(upper, 10)
    teachers = [fit("finetune", few, lower, parents[1], BRIEF)]
    moved = replace(few, energies=few.energies + 40.0 - 2 * 7.0)
    members = []
    for data in (few, moved):
        zero = float((data.energies - few.energies).mean())
        atoms = {z: e + zero / 3.0 for z, e in teachers[0].atom_energies.items()}
        taught = [replace(teachers[0], atom_energies=atoms)]
        members.append(fit(mode, data, lower, parents[0], BRIEF, teachers=taught))
    (one, before), (other, after) = (predicted([m], upper.frames) for m in members)
    assert other - one == pytest.approx(np.full(len(one), 26.0), abs=1e-3)
    assert np.abs(np.array(after) - np.array(before)).max() < 2e-2


@pytest.mark.parametrize("mode", ["delta", "joint"])
def test_the_zero_of_the_lower_level_does_not_reach_the_upper(world, mode):
    """Labels of two levels in one loss would differ by 300 eV."""
    lower, upper, _, parents = world
    shifted = replace(lower, energies=lower.energies + 300.0)
    one, other = (fit(mode, first(upper, 10), data, parents[0], BRIEF) for data in (lower, shifted))
    (e, f), (g, h) = (predicted([m], upper.frames) for m in (one, other))
    assert g == pytest.approx(e, abs=2e-2)
    assert np.abs(np.array(f) - np.array(h)).max() < 2e-2


@pytest.mark.parametrize("mode", ["scratch", "finetune", "freeze", "distil"])
def test_labels_of_the_lower_level_are_in_no_other_fit(world, mode):
    lower, upper, _, parents = world
    rng = np.random.default_rng(0)
    nonsense = replace(
        lower,
        energies=rng.normal(size=len(lower.frames)),
        forces=tuple(rng.normal(size=(3, 3)) for _ in lower.frames),
    )
    few = energies_only(first(upper, 10))
    teachers = [fit("finetune", few, lower, parents[1], BRIEF)]
    one, other = (
        fit(mode, few, data, parents[0], BRIEF, teachers=teachers) for data in (lower, nonsense)
    )
    assert member_bytes(one) == member_bytes(other)


@pytest.mark.parametrize("mode", ["delta", "joint", "distil"])
def test_validation_frames_of_the_lower_level_are_not_looked_at(world, mode):
    lower, upper, _, parents = world
    few = energies_only(first(upper, 10))
    teachers = [fit("finetune", few, lower, parents[1], BRIEF)]
    shared = {frame.key for frame in few.frames}
    alone = np.array([f.key not in shared for f in lower.frames]) & lower.is_validation
    other = replace(lower, energies=np.where(alone, 0.0, lower.energies))
    given = {"settings": BRIEF, "teachers": teachers}
    members = [fit(mode, few, data, parents[0], **given) for data in (lower, other)]
    members.append(fit(mode, few, lower.subset(~alone), parents[0], **given))
    assert len({member_bytes(member) for member in members}) == 1


def test_differences_are_those_of_the_frames_with_both_labels(world):
    lower, upper, test, _ = world
    mixed = both(first(test, 3), first(upper, 7))
    found = differences(mixed, lower)
    assert [f.key for f in found.frames] == [f.key for f in upper.frames[:7]]
    assert found.is_validation.tolist() == first(upper, 7).is_validation.tolist()
    place = {frame.key: k for k, frame in enumerate(lower.frames)}
    for k, frame in enumerate(found.frames):
        i = place[frame.key]
        assert found.energies[k] == upper.energies[k] - lower.energies[i]
        assert np.array_equal(found.forces[k], upper.forces[k] - lower.forces[i])
    assert not differences(energies_only(mixed), lower).has_forces.any()
    made = completed(energies_only(mixed), [np.full((3, 3), 7.0)] * 10)
    assert made.has_forces.tolist() == (~mixed.is_validation).tolist()
    assert np.array_equal(completed(mixed, made.forces).forces[0], mixed.forces[0])
    with pytest.raises(TrainingError, match="none of the 100 frames of the upper level"):
        differences(test, lower)


def test_modes_are_offered_where_they_have_what_they_need(world):
    lower, upper, test, parents = world
    known = ("scratch", "finetune", "freeze", "delta", "joint")
    assert usable_modes(upper, lower, parents[0]) == known
    assert usable_modes(energies_only(upper), lower, parents[0]) == MODES
    assert usable_modes(test, lower, parents[0]) == ("scratch", "finetune", "freeze")
    assert usable_modes(upper, None, parents[0]) == ("scratch", "finetune", "freeze")
    assert usable_modes(upper, lower, None) == ("scratch",)
    assert usable_modes(energies_only(upper), None, None) == ("scratch", "distil")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "guess"}, "mode is 'guess', want one of scratch"),
        ({"lower_level": "upper"}, "both levels of theory are upper"),
        ({"parent": None}, "needs a parent trained on lower, got none"),
        ({"lower_level": "other"}, "trained on lower, the lower level of theory is other"),
        ({"kind": "schnet"}, "the parent is of kind 'ani', want 'schnet'"),
        ({"mode": "delta", "lower": None}, "mode 'delta' needs labels of lower, got none"),
        ({"mode": "joint", "lower": None}, "mode 'joint' needs labels of lower, got none"),
        ({"mode": "distil"}, "needs teachers of upper, got 0"),
        ({"mode": "distil", "teachers": "parents"}, "got 3, some of lower"),
    ],
)
def test_what_does_not_fit_together_is_refused(world, change, message):
    lower, upper, _, parents = world
    given = {"mode": "finetune", "lower": lower, "parent": parents[0], **change}
    if given.get("teachers"):
        given["teachers"] = parents
    with pytest.raises(TrainingError, match=message):
        fit(upper=upper, settings=BRIEF, **given)


# Architectures


@pytest.mark.parametrize("kind", ["schnet", "newtonnet"])
def test_graph_networks_learn_in_every_mode(kind):
    torch.set_num_threads(1)
    lower, upper = water(20, 4), improved(water(20, 4))
    blind = energies_only(first(upper, 6))
    parent, _ = train_member(lower, BRIEF, level_of_theory="lower", seed=1, kind=kind)
    teachers = [fit("finetune", blind, lower, parent, BRIEF, kind=kind)]
    for mode in MODES:
        member = fit(mode, blind, lower, parent, BRIEF, kind=kind, teachers=teachers)
        assert (member.level_of_theory, member.architecture) == ("upper", kind)
        energies, _ = predicted([member], upper.frames)
        assert np.abs(energies - upper.energies).mean() < 5.0  # atoms alone are 1000 eV off


@pytest.mark.parametrize("kind", [k for k in ARCHITECTURES if k != "mace"])
def test_a_difference_begins_with_the_body_of_the_parent(kind):
    torch.set_num_threads(1)
    lower, upper = water(10, 4), improved(water(10, 4))
    parent, _ = train_member(lower, BRIEF, level_of_theory="lower", seed=1, kind=kind)
    new = with_new_head(parent, differences(upper, lower), "upper - lower", 5)
    model = ARCHITECTURES[kind]
    head = model.head(parent.settings, parent.elements)
    for name, weight in parent.weights.items():
        own = any(re.search(pattern, name) for pattern in head)
        assert own or torch.equal(weight, new.weights[name])
    assert any(not torch.equal(w, new.weights[name]) for name, w in parent.weights.items())
    energies, _ = predicted([new], lower.frames)
    assert np.abs(energies).max() < 50.0
    build_committee([parent, replace(new, level_of_theory="lower")])


# Interruptions


class KilledError(Exception):
    """What ends a fit between two steps, as a kill would."""


def kill_after(n_steps):
    steps = []

    def ask():
        steps.append(1)
        if len(steps) == n_steps:
            raise KilledError
        return False

    return ask


STEADY = replace(SETTINGS, epochs=4, max_steps=None, batch_size=4)


@pytest.mark.parametrize(
    ("mode", "stops"),
    [("delta", (1, 3, 7, 8, 9, 12, 16, 25, 30)), ("joint", (2, 9, 17)), ("distil", (2, 5, 8))],
)
def test_a_fit_that_is_killed_anywhere_goes_on_bit_for_bit(world, tmp_path, mode, stops):
    """Of delta, the first fit takes 8 steps, the second 28."""
    lower, upper, _, parents = world
    few = energies_only(first(upper, 10))
    lower = both(first(lower, 10), lower.subset(np.arange(len(lower.frames)) >= 200))
    teachers = [fit("finetune", few, lower, parents[1], BRIEF)]
    given = {"settings": STEADY, "teachers": teachers}
    steps = []
    whole = fit(mode, few, lower, parents[0], should_stop=lambda: steps.append(1), **given)
    assert len(steps) >= max(stops)
    kept = {"checkpoint": tmp_path / "fit.pt", "checkpoint_s": 0.0, **given}
    for stop in stops:
        with pytest.raises(KilledError):
            fit(mode, few, lower, parents[0], should_stop=kill_after(stop), **kept)
        again = fit(mode, few, lower, parents[0], **kept)
        assert member_bytes(again) == member_bytes(whole)
        assert [path.name for path in tmp_path.iterdir()] == ["fit.pt"]
        (tmp_path / "fit.pt").unlink()


def test_a_killed_second_fit_does_not_begin_with_the_first(world, tmp_path):
    lower, upper, _, parents = world
    few = first(upper, 10)
    kept = {"checkpoint": tmp_path / "fit.pt", "checkpoint_s": 0.0, "settings": STEADY}
    steps = []
    fit("delta", few, lower, parents[0], should_stop=lambda: steps.append(1), settings=STEADY)
    with pytest.raises(KilledError):
        fit("delta", few, lower, parents[0], should_stop=kill_after(len(steps) - 1), **kept)
    left = []
    fit("delta", few, lower, parents[0], should_stop=lambda: left.append(1), **kept)
    assert len(left) < 0.5 * len(steps)


def test_both_fits_of_a_difference_are_laid_down_in_time(world, tmp_path):
    lower, upper, _, parents = world
    few = first(upper, 10)
    given = {"seed": 1, "kind": "ani", "parent": parents[0], **LEVELS}
    whole, _ = learn("delta", few, lower, STEADY, **given)

    def work(lay_down_at):
        return learn(
            "delta",
            few,
            lower,
            STEADY,
            on_epoch=lambda _: time.sleep(0.15),
            checkpoint=tmp_path / "fit.pt",
            lay_down_at=lay_down_at,
            **given,
        )

    (again, _), laid_down = in_spells(work, 1.0)
    assert laid_down >= 2
    assert member_bytes(again) == member_bytes(whole)


@pytest.mark.parametrize("stop", [3, 20])
def test_a_deadline_gives_a_member_of_the_upper_level_and_goes_on(world, tmp_path, stop):
    lower, upper, _, parents = world
    few, steps = first(upper, 10), []
    given = {"seed": 1, "kind": "ani", "parent": parents[0], **LEVELS}
    kept = {"checkpoint": tmp_path / "fit.pt", "checkpoint_s": 0.0, **given}
    whole, _ = learn("delta", few, lower, STEADY, **given)
    late, report = learn(
        "delta",
        few,
        lower,
        STEADY,
        should_stop=lambda: steps.append(1) or len(steps) == stop,
        **kept,
    )
    assert (report.stopped_by, late.level_of_theory) == ("deadline", "upper")
    assert np.isfinite(predicted([late], upper.frames)[0]).all()
    again, report = learn("delta", few, lower, STEADY, **kept)
    assert member_bytes(again) == member_bytes(whole)
    assert report.stopped_by == "schedule"


def test_elements_without_a_shared_label_are_left_alone():
    """Of carbon the difference knows nothing: frames with carbon get no labels from it."""
    torch.set_num_threads(1)
    lower, upper = water(10, 4), improved(water(10, 4))
    with_carbon = Frame(np.array([6, 1, 1]), REST)
    more = TrainingSet((with_carbon,), np.array([-100.0]), (np.zeros((3, 3)),), np.zeros(1, bool))
    wider = both(lower, more)
    assert for_training(wider, (1, 8)).elements == (1, 8)
    assert [f.key for f in for_training(wider, (1, 6, 8), upper).frames] == [with_carbon.key]
    assert for_training(wider, (1, 8), upper) is None
    parent, _ = train_member(wider, BRIEF, level_of_theory="lower", seed=1)
    for mode in ("delta", "joint"):
        fitted = fit(mode, upper, wider, parent, BRIEF)
        assert fitted.elements == (1, 6, 8)
        for name in ("C.0.weight", "C.1.bias"):
            assert torch.equal(fitted.weights[name], parent.weights[name])
