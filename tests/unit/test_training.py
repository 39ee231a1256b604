"""The rules of training: what is refused, what is repeatable, what may shape a model."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.errors import ModelError, TrainingError
from alloop.frames import Frame
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.files import member_bytes
from alloop.potentials.fitting import Prediction
from alloop.training.adamw import AdamW
from alloop.training.atom_energies import fit_atom_energies
from alloop.training.data import Labels, TrainingSet, group_frames, labels_of
from alloop.training.fit import Fit
from alloop.training.losses import frame_losses, species_means
from alloop.training.schedule import Schedule
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member

NUMBERS = np.array([8, 1, 1])
QUICK = {"learning_rate": 5e-3, "batch_size": 4, "ema_decay": 0.9}
SHAPE = AniSettings(((10, 6), (10, 6))).to_plain()


def springs(n=20, seed=0):
    """Return frames of a molecule of three springs with their true labels."""
    rng = np.random.default_rng(seed)
    rest = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    frames, energies, forces = [], [], []
    for _ in range(n):
        positions = rest + rng.normal(0.0, 0.08, (3, 3))
        energy, force = -100.0, np.zeros((3, 3))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            vector = positions[i] - positions[j]
            distance = np.linalg.norm(vector)
            stretch = distance - np.linalg.norm(rest[i] - rest[j])
            energy += 0.5 * 20.0 * stretch**2
            force[i] -= 20.0 * stretch * vector / distance
            force[j] += 20.0 * stretch * vector / distance
        frames.append(Frame(NUMBERS, positions))
        energies.append(energy)
        forces.append(force)
    validation = np.arange(n) % 5 == 0
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), validation)


def train(data=None, seed=1, start=None, on_epoch=None, should_stop=None, shape=SHAPE, **changes):
    settings = replace(TrainSettings(epochs=3, resample="none"), **changes)
    return train_member(
        data or springs(),
        settings,
        level_of_theory="springs",
        seed=seed,
        shape=shape,
        start=start,
        on_epoch=on_epoch,
        should_stop=should_stop,
    )


def distance_between(one, other):
    return max(float((w - other.weights[k]).abs().max()) for k, w in one.weights.items())


# Atomic energies


def test_planted_atomic_energies_are_recovered():
    planted = {1: -13.6, 6: -1029.5, 8: -2041.2}
    rng = np.random.default_rng(0)
    frames = [np.repeat([1, 6, 8], rng.integers(0, 6, 3) + np.array([1, 0, 0])) for _ in range(40)]
    energies = np.array([sum(planted[z] for z in f) + rng.normal(0, 1e-3) for f in frames])
    fitted = fit_atom_energies(frames, energies)
    assert fitted == pytest.approx(planted, abs=2e-3)


def test_one_composition_is_met_on_average_and_stays_near_the_prior():
    prior = {1: -10.0, 8: -100.0}
    energies = np.array([-123.0, -125.0])
    fitted = fit_atom_energies([NUMBERS, NUMBERS], energies, prior)
    assert fitted[8] + 2 * fitted[1] == pytest.approx(-124.0)
    # -4 eV are shared in proportion to the counts: the shortest correction.
    assert fitted == pytest.approx({1: -10.0 - 8 / 5, 8: -100.0 - 4 / 5})


def test_atomic_energies_of_nothing_or_of_nan_are_refused():
    with pytest.raises(TrainingError, match="got 0 energies"):
        fit_atom_energies([], np.array([]))
    with pytest.raises(TrainingError, match=r"frames \[1\] are not finite"):
        fit_atom_energies([NUMBERS, NUMBERS], np.array([1.0, np.nan]))


# Data


@pytest.mark.parametrize("where", ["energy", "force"])
def test_labels_that_are_not_finite_are_refused(where):
    data = springs(5)
    energies, forces = data.energies.copy(), [f.copy() for f in data.forces]
    if where == "energy":
        energies[3] = np.nan
    else:
        forces[3][1, 2] = np.inf
    with pytest.raises(TrainingError, match=r"frame 3 .* not finite"):
        TrainingSet(data.frames, energies, tuple(forces), data.is_validation)


def test_labels_of_the_wrong_shape_or_without_training_frames_are_refused():
    data = springs(5)
    with pytest.raises(TrainingError, match="want"):
        TrainingSet(
            data.frames, data.energies, (*data.forces[:4], np.zeros((2, 3))), data.is_validation
        )
    with pytest.raises(TrainingError, match="4 forces"):
        TrainingSet(data.frames, data.energies, data.forces[:4], data.is_validation)
    with pytest.raises(TrainingError, match="for training"):
        TrainingSet(data.frames, data.energies, data.forces, np.ones(5, bool))
    with pytest.raises(TrainingError, match="none of 0 frames"):
        TrainingSet((), np.array([]), (), np.array([]))


def test_frames_are_grouped_by_composition_and_periodicity():
    water = springs(3)
    hydroxyl = Frame(np.array([8, 1]), water.frames[0].positions[:2], charge=-1)
    boxed = Frame(NUMBERS, water.frames[0].positions, cell=9.0 * np.eye(3), pbc=(True, True, False))
    frames = (water.frames[0], hydroxyl, boxed, water.frames[1])
    forces = tuple(np.zeros((f.n_atoms, 3)) for f in frames)
    data = TrainingSet(
        frames, np.array([-1.0, -2.0, -3.0, -4.0]), forces, np.array([0, 0, 0, 1], bool)
    )
    groups = group_frames(data)
    assert [group.index.tolist() for group in groups] == [[0, 3], [1], [2]]
    assert groups[0].training.tolist() == [True, False]
    assert groups[0].cells is None
    assert groups[2].cells[0].diagonal().tolist() == [9.0, 9.0, 0.0]
    labels = labels_of(data, {1: -0.25, 8: -0.5})
    assert labels.energies.tolist() == [0.0, -1.25, -2.0, -3.0]
    some = labels.of(torch.tensor([1, 0]))
    assert some.numbers.tolist() == [8, 1, 8, 1, 1]
    assert some.frame.tolist() == [0, 0, 1, 1, 1]


def test_an_element_without_atomic_energy_is_refused_by_name():
    with pytest.raises(TrainingError, match=r"no atomic energy for the elements \[8\]"):
        labels_of(springs(2), {1: -0.5})


# Settings, loss, schedule


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": math.nan},
        {"learning_rate": 0.0},
        {"force_weight": -1.0},
        {"direction_weight": -1.0},
        {"penalty_weight": math.inf},
        {"ema_decay": 1.0},
        {"max_steps": 0},
        {"plateau_factor": 1.0},
        {"plateau_patience": 0},
        {"min_learning_rate": -1e-5},
        {"schedule": "linear"},
        {"loss": "mae"},
        {"resample": "jackknife"},
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes):
    with pytest.raises(TrainingError, match=next(iter(changes))):
        TrainSettings(**changes)
    with pytest.raises(TrainingError, match="nothing to learn"):
        TrainSettings(energy_weight=0.0, force_weight=0.0)


def labels(numbers, energies=None):
    """Return labels of 0 for frames with these atomic numbers."""
    n_atoms = torch.tensor([len(frame) for frame in numbers])
    return Labels(
        energies=torch.zeros(len(numbers)) if energies is None else energies,
        forces=torch.zeros(int(n_atoms.sum()), 3),
        numbers=torch.tensor([z for frame in numbers for z in frame]),
        n_atoms=n_atoms,
        training=torch.ones(len(numbers), dtype=torch.bool),
    )


TWO = [[8, 1, 1], [8, 1]]


def losses(target, energies=(0.0, 0.0), latent=None, penalty=None, **settings):
    """Return the losses of two frames, a force of 6 eV/Å off on the last atom of the first."""
    forces = target.forces.clone()
    forces[2, 0] += 6.0
    prediction = Prediction(torch.tensor(energies), forces, latent, penalty)
    return frame_losses(TrainSettings(**settings), prediction, target).tolist()


@pytest.mark.parametrize("numbers", [TWO, [[8, 1, 1], [1, 8, 1]]], ids=["mixed", "one size"])
def test_loss_is_the_weighted_sum_of_its_definition(numbers):
    found = losses(labels(numbers), (2.0, 0.0), loss="mse", energy_weight=2.0, force_weight=3.0)
    assert found == pytest.approx([2.0 * 4.0 / 3 + 3.0 * 36.0 / 9, 0.0])


def test_huber_is_square_for_small_and_linear_for_large_errors():
    given = {"loss": "huber", "huber_delta": 0.1, "force_weight": 0.0}
    one_atom = labels([[1], [1], [1]])
    prediction = Prediction(torch.tensor([0.001, 100.0, 0.0]), one_atom.forces)
    small, large, none = frame_losses(TrainSettings(**given), prediction, one_atom).tolist()
    assert small == pytest.approx(1e-6, rel=1e-2)
    assert large == pytest.approx(2 * 0.1 * 100.0, rel=1e-2)
    assert none == 0.0


def test_mepa_counts_every_element_alike():
    """One of two hydrogens is 6 eV/Å off along x: 6 / (3 · 2), whatever oxygen does."""
    target = labels(TWO)
    assert losses(target, (-1.5, 0.0), loss="mepa", energy_weight=2.0) == [2.0 * 0.5 + 1.0, 0.0]
    errors = torch.zeros(5, 3)
    errors[0] = 1.0  # oxygen of the first frame
    errors[4, 1] = 0.3  # hydrogen of the second
    assert species_means(errors, target).tolist() == pytest.approx([1.0, 0.1])


def test_direction_weight_is_of_the_angle_and_not_of_the_length():
    target = labels(TWO)
    target.forces[:, 1] = 1.0
    latent = torch.zeros(5, 3)
    latent[:, 1] = torch.tensor([3.0, 3.0, 3.0, 0.1, -7.0])
    weights = {"force_weight": 0.0, "direction_weight": 10.0}
    assert losses(target, latent=latent, **weights) == pytest.approx([0.0, 10.0 * 2.0 / 2])
    with pytest.raises(TrainingError, match=r"direction_weight .* no latent forces"):
        losses(target, **weights)


def test_penalty_weight_is_of_the_penalty():
    weights = {"force_weight": 0.0, "penalty_weight": 0.5}
    assert losses(labels(TWO), penalty=torch.tensor([1.0, 4.0]), **weights) == [0.5, 2.0]
    with pytest.raises(TrainingError, match=r"penalty_weight .* no penalty"):
        losses(labels(TWO), **weights)


def test_cosine_rises_and_falls_to_nothing():
    schedule = Schedule(TrainSettings(learning_rate=1.0, warmup_steps=9, schedule="cosine"), 100)
    rates = [schedule.learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert max(rates) == pytest.approx(1.0, abs=0.03)


def test_plateaus_halve_the_rate_and_patience_ends():
    settings = TrainSettings(learning_rate=1.0, warmup_steps=0, schedule="plateau", patience=6)
    schedule = Schedule(settings, 100)
    assert schedule.judge(1.0)
    assert not schedule.judge(1.1)
    assert schedule.judge(0.9)  # forgives the epoch before
    rates = []
    for _ in range(6):
        assert not schedule.out_of_patience
        assert not schedule.judge(0.95)
        rates.append(schedule.learning_rate(5))
    assert rates == [1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert schedule.out_of_patience


def test_plateaus_fall_as_asked_until_the_rate_is_too_small():
    settings = TrainSettings(
        learning_rate=1.0,
        warmup_steps=0,
        schedule="plateau",
        plateau_factor=0.1,
        plateau_patience=2,
        min_learning_rate=0.01,
    )
    schedule = Schedule(settings, 100)
    rates = []
    while not schedule.too_slow:
        schedule.judge(1.0)
        rates.append(schedule.learning_rate(0))
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert not Schedule(replace(settings, schedule="cosine"), 100).too_slow


def test_a_schedule_goes_on_from_its_state_as_if_it_had_never_ended():
    settings = TrainSettings(schedule="plateau", plateau_patience=2, patience=5)
    course = [1.0, 0.9, 0.95, 0.96, 0.8, 0.85, 0.86, 0.87, 0.79, 0.8, 0.8, 0.8, 0.8, 0.8]
    for done in range(len(course)):
        whole, resumed = Schedule(settings, 100), Schedule(settings, 100)
        for loss in course[:done]:
            whole.judge(loss)
        resumed.restore(whole.state())
        for loss in course[done:]:
            assert whole.judge(loss) == resumed.judge(loss)
            assert whole.learning_rate(60) == resumed.learning_rate(60)
            assert whole.out_of_patience == resumed.out_of_patience
    assert whole.out_of_patience


# Fits


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_member():
    torch.manual_seed(17)
    first, report = train(resample="bootstrap")
    torch.manual_seed(99)  # global random state must not matter
    second, again = train(resample="bootstrap")
    assert member_bytes(first) == member_bytes(second)
    assert report == again
    assert member_bytes(train(seed=2, resample="bootstrap")[0]) != member_bytes(first)


def test_members_see_different_draws_of_the_frames():
    """From one and the same start, in one batch, only the draw can make a difference."""
    start, _ = train(epochs=1)
    same = {"start": start, "batch_size": 1000, "epochs": 2}
    fixed = [train(seed=seed, resample="none", **same)[0] for seed in (1, 2)]
    drawn = [train(seed=seed, resample="bootstrap", **same)[0] for seed in (1, 2)]
    assert distance_between(*fixed) < 1e-6
    assert distance_between(*drawn) > 1e-5


def test_labels_of_validation_frames_change_nothing_but_the_judgement():
    data = springs()
    energies, forces = data.energies.copy(), [f.copy() for f in data.forces]
    for index in np.flatnonzero(data.is_validation):
        energies[index] += 5.0
        forces[index] += 3.0
    spoiled = TrainingSet(data.frames, energies, tuple(forces), data.is_validation)
    # A single epoch leaves the judge no choice.
    (honest, report), (misled, wrong) = train(data, epochs=1), train(spoiled, epochs=1)
    assert distance_between(honest, misled) == 0.0
    assert honest.atom_energies == misled.atom_energies
    assert wrong.training == report.training
    assert wrong.validation.force > report.validation.force + 1.0


def test_geometries_of_validation_frames_do_not_scale_the_features():
    data = springs()
    frames = list(data.frames)
    for index in np.flatnonzero(data.is_validation):
        frames[index] = Frame(NUMBERS, data.frames[0].positions * (1.0 + 0.01 * index))
    moved = TrainingSet(tuple(frames), data.energies, data.forces, data.is_validation)
    assert distance_between(train(data, epochs=1)[0], train(moved, epochs=1)[0]) < 1e-7


def test_training_improves_and_reports_what_it_reached():
    epochs = []
    _, report = train(epochs=60, on_epoch=epochs.append, **QUICK)
    assert [e.epoch for e in epochs] == list(range(1, 61))
    assert epochs[-1].step == report.steps == 240
    assert epochs[-1].validation_loss < 0.3 * epochs[0].validation_loss
    best = min(epochs, key=lambda e: e.validation_loss)
    assert report.best_epoch == best.epoch
    assert report.validation == best.validation
    assert (report.training.n_frames, report.validation.n_frames) == (16, 4)
    assert report.stopped_by == "schedule"


def test_a_warm_start_continues_where_its_parent_was():
    parent, reached = train(epochs=60, **QUICK)
    tiny = {"epochs": 1, "learning_rate": 1e-9, "max_steps": 1}
    child, report = train(start=parent, **tiny)
    assert report.validation.force == pytest.approx(reached.validation.force, rel=1e-3)
    assert report.validation.energy == pytest.approx(reached.validation.energy, rel=1e-2)
    assert distance_between(parent, child) < 1e-4
    _, cold = train(**tiny)
    assert cold.validation.force > 2.0 * report.validation.force


def test_a_warm_start_survives_new_atomic_energies_and_new_frames():
    parent, reached = train(epochs=60, **QUICK)
    tiny = TrainSettings(epochs=1, learning_rate=1e-9, resample="none")
    shifted = {z: e - 7.0 for z, e in parent.atom_energies.items()}
    wide = springs(40, seed=5)
    for data, energies in ((springs(), shifted), (wide, dict(parent.atom_energies))):
        _, report = train_member(
            data,
            tiny,
            level_of_theory="springs",
            seed=3,
            shape=SHAPE,
            start=parent,
            atom_energies=energies,
        )
        assert report.validation.force < 2.0 * reached.validation.force
        assert report.validation.energy < 2.0 * reached.validation.energy + 1e-4


def test_a_warm_start_of_another_shape_or_level_is_refused():
    parent, _ = train(epochs=1)
    with pytest.raises(ModelError, match="continued"):
        train(start=parent, shape=AniSettings(((10, 5), (10, 6))).to_plain())
    with pytest.raises(TrainingError, match="transfer"):
        train(start=replace(parent, level_of_theory="GFN2-xTB"))


def contrary():
    """Return labels of the validation frames that nobody can learn: the first epochs are best."""
    data = springs()
    forces = [f.copy() for f in data.forces]
    for index in np.flatnonzero(data.is_validation):
        forces[index] = -forces[index]
    return TrainingSet(data.frames, data.energies, tuple(forces), data.is_validation)


def test_patience_ends_a_fit_and_the_best_weights_are_kept():
    seen = []
    _, report = train(
        contrary(), epochs=500, patience=10, learning_rate=5e-3, ema_decay=0.0, on_epoch=seen.append
    )
    assert report.stopped_by == "patience"
    assert report.epochs == report.best_epoch + 10 == len(seen) < 500
    assert report.validation == seen[report.best_epoch - 1].validation


def test_a_rate_below_the_least_ends_a_fit():
    plateau = {"schedule": "plateau", "plateau_patience": 1, "min_learning_rate": 1e-3}
    _, report = train(contrary(), epochs=500, learning_rate=5e-3, ema_decay=0.0, **plateau)
    assert report.stopped_by == "rate"
    assert report.epochs < 100


def test_a_deadline_ends_a_fit_within_one_step():
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 5

    _, report = train(epochs=500, batch_size=4, should_stop=stop)
    assert (report.steps, report.stopped_by) == (5, "deadline")


def test_without_validation_frames_the_training_loss_judges():
    data = springs()
    everything = TrainingSet(data.frames, data.energies, data.forces, np.zeros(20, bool))
    _, report = train(everything, epochs=30, learning_rate=5e-3)
    assert report.validation.n_frames == 0
    assert math.isnan(report.validation.force)
    assert report.best_epoch > 20


def test_long_gradients_are_shortened():
    """Below Adam's epsilon nothing moves: only there does Adam see the length of a gradient."""
    start, _ = train(epochs=1)
    moved = train(start=start)[0]
    held = train(start=start, max_gradient_norm=1e-14)[0]
    assert distance_between(start, held) < 1e-2 * distance_between(start, moved)


class Steep:
    """The energy 10¹⁰ a + b of lone atoms, with parameters a and b."""

    start = torch.zeros(2)

    def predict(self, parameters, frames):
        energies = (1e10 * parameters[0] + parameters[1]).expand(len(frames))
        return Prediction(energies, torch.zeros(len(frames), 3))


def test_gradients_of_what_is_frozen_do_not_shorten_the_others():
    settings = TrainSettings(epochs=1, learning_rate=1e-3, warmup_steps=0, ema_decay=0.0)
    target = labels([[1]] * 4, energies=torch.ones(4))
    fit = Fit(Steep(), target, settings, 0, rates=torch.tensor([0.0, 1.0]))
    fit.run(lambda: False, None, lambda: None)
    assert fit.best.tolist() == pytest.approx([0.0, 1e-3], rel=1e-3)


def test_a_diverging_fit_restarts_with_smaller_steps():
    _, report = train(epochs=5, learning_rate=1e18, max_restarts=60, warmup_steps=0)
    assert report.restarts > 3
    assert report.learning_rate == pytest.approx(1e18 / 3.0**report.restarts)
    assert math.isfinite(report.training.force)
    with pytest.raises(TrainingError, match="diverged 3 times"):
        train(epochs=5, learning_rate=1e18, max_restarts=2, warmup_steps=0)


def test_metrics_are_the_errors_of_the_stored_member():
    from alloop.potentials.committee import build_committee

    data = springs()
    member, report = train(data, epochs=20, learning_rate=5e-3)
    committee = build_committee([member], dtype=torch.float64)
    keep = ~data.is_validation
    positions = torch.tensor(np.array([f.positions for f in data.frames]))[keep]
    answer = committee.evaluate(NUMBERS, positions, forces="mean")
    force = answer.forces.numpy() - np.array(data.forces)[keep]
    energy = (answer.energies[0].numpy() - data.energies[keep]) / 3
    assert report.training.force == pytest.approx(np.sqrt((force**2).mean()), rel=1e-3)
    assert report.training.energy == pytest.approx(np.sqrt((energy**2).mean()), rel=1e-2)
    assert report.training.force_mae == pytest.approx(np.abs(force).mean(), rel=1e-3)
    assert report.training.energy_mae == pytest.approx(np.abs(energy).mean(), rel=1e-2)
    oxygen, hydrogen = np.abs(force[:, 0]).mean(), np.abs(force[:, 1:]).mean()
    assert report.training.mepa == pytest.approx(oxygen + hydrogen, rel=1e-3)


def test_adamw_takes_the_steps_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20, generator=generator)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    optimiser = AdamW(ours, 0.3)
    reference = torch.optim.AdamW([theirs], weight_decay=0.3, lr=0.1)
    for step in range(5):
        gradient = torch.randn(20, generator=generator)
        optimiser.step(gradient, 0.1 / (step + 1))
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        theirs.grad = gradient
        reference.step()
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_adamw_moves_by_the_rates_and_never_what_had_no_gradient():
    start = torch.full((4,), 2.0)
    ours = start.clone()
    optimiser = AdamW(ours, 0.5, rates=torch.tensor([1.0, 0.1, 0.0, 1.0]))
    for _ in range(3):
        optimiser.step(torch.tensor([1.0, 1.0, 1.0, 0.0]), 1e-3)
    first, second, *others = (start - ours).tolist()
    assert first == pytest.approx(10.0 * second, rel=1e-3)
    assert first == pytest.approx(3e-3 * (1.0 + 0.5 * 2.0), rel=1e-2)
    assert others == [0.0, 0.0]
