"""Labels without forces: the terms of forces leave such frames out, exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.datasets import Dataset, load_dataset, save_dataset
from alloop.errors import TrainingError
from alloop.frames import Frame
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.committee import build_committee
from alloop.potentials.files import member_bytes
from alloop.potentials.fitting import Prediction
from alloop.training.data import Labels, TrainingSet
from alloop.training.losses import frame_losses
from alloop.training.settings import TrainSettings
from alloop.training.trainer import force_scale, train_member

SHAPE = AniSettings(((8, 6), (8, 6))).to_plain()
QUICK = TrainSettings(epochs=5, batch_size=8, learning_rate=1e-3)
SIZES = {"one size": (3, 3, 3, 3), "mixed": (3, 2, 3, 4)}
LOSSES = {
    "mse": {"loss": "mse"},
    "huber": {"loss": "huber"},
    "mepa": {"loss": "mepa"},
    "direction": {"loss": "mse", "direction_weight": 0.7},
}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES)
EVERY_SIZE = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def batch(sizes, lacking=(), dtype=torch.float64):
    """Return labels of frames of these sizes, some without forces, and a prediction of them."""
    generator = torch.Generator().manual_seed(4)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    n_atoms = torch.tensor(sizes)
    frame = torch.arange(len(sizes)).repeat_interleave(n_atoms)
    forces = noise(len(frame), 3)
    numbers = torch.tensor([8, 1, 1, 1])[torch.cat([torch.arange(n) for n in sizes])]
    prediction = [noise(len(sizes)), noise(len(frame), 3), noise(len(frame), 3)]
    for k in lacking:
        forces[frame == k] = torch.nan
    labels = Labels(noise(len(sizes)), forces, numbers, n_atoms, torch.ones(len(sizes)) > 0)
    return labels, prediction


def plain(settings, prediction, labels):
    """Return the loss of frames that all have forces, from its definition."""
    energy = prediction.energies - labels.energies
    force = prediction.forces - labels.forces
    frames = labels.frame
    n = len(labels.n_atoms)

    def means(values):
        if len(set(labels.n_atoms.tolist())) == 1:
            return values.reshape(n, -1).mean(1)
        return values.new_zeros(n).index_add(0, frames, values) / labels.n_atoms

    def penalty(x):
        if settings.loss == "mse":
            return x.square()
        d = settings.huber_delta
        return 2.0 * d**2 * ((1.0 + (x / d).square()).sqrt() - 1.0)

    if settings.loss == "mepa":
        count = ((frames[:, None] == frames) & (labels.numbers[:, None] == labels.numbers)).sum(1)
        by_force = force.new_zeros(n).index_add(0, frames, force.abs().mean(1) / count)
        by_energy = energy.abs() / labels.n_atoms
    else:
        by_energy, by_force = penalty(energy * labels.n_atoms**-0.5), means(penalty(force).mean(1))
    losses = settings.energy_weight * by_energy + settings.force_weight * by_force
    if settings.direction_weight:
        cosines = torch.cosine_similarity(prediction.latent_forces, labels.forces, dim=1)
        losses = losses + settings.direction_weight * means(1.0 - cosines)
    return losses


def with_gradient(function, settings, values, labels):
    values = [value.clone().requires_grad_() for value in values]
    loss = function(settings, Prediction(*values), labels).mean()
    return loss.detach(), torch.autograd.grad(loss, values, allow_unused=True)


@EVERY_LOSS
@EVERY_SIZE
def test_a_batch_with_forces_has_the_loss_it_always_had_to_the_last_bit(loss, sizes):
    settings = TrainSettings(energy_weight=0.3, force_weight=1.7, **LOSSES[loss])
    labels, values = batch(sizes, dtype=torch.float32)
    found, slopes = with_gradient(frame_losses, settings, values, labels)
    wanted, others = with_gradient(plain, settings, values, labels)
    assert torch.equal(found, wanted)
    for slope, other in zip(slopes, others, strict=True):
        assert (slope is None) == (other is None)
        assert slope is None or torch.equal(slope, other)


@EVERY_LOSS
@EVERY_SIZE
@pytest.mark.parametrize("lacking", [(1,), (0, 3), (0, 1, 2)])
def test_forces_are_averaged_over_the_frames_that_have_them(loss, sizes, lacking):
    """Energies over all frames, forces over the others: two losses of two plain batches."""
    settings = TrainSettings(energy_weight=0.3, force_weight=1.7, **LOSSES[loss])
    labels, values = batch(sizes, lacking)
    found, slopes = with_gradient(frame_losses, settings, values, labels)
    known = [k for k in range(4) if k not in lacking]
    full, _ = batch(sizes)
    energies = replace(settings, force_weight=0.0, direction_weight=0.0)
    forces = replace(settings, energy_weight=0.0)
    wanted = plain(energies, Prediction(*values), full).mean()
    wanted = wanted + plain(forces, Prediction(*values), full)[known].mean()
    assert float(found) == pytest.approx(float(wanted), rel=1e-13)
    absent = torch.isin(labels.frame, torch.tensor(lacking))
    for slope in slopes[1:]:
        assert slope is None or not slope[absent].any()
    assert all(bool(torch.isfinite(slope).all()) for slope in slopes if slope is not None)
    assert float(slopes[1][~absent].abs().min()) > 0.0


@EVERY_LOSS
@EVERY_SIZE
def test_the_gradient_of_a_mixed_batch_is_that_of_finite_differences(loss, sizes):
    settings = TrainSettings(energy_weight=0.3, force_weight=1.7, **LOSSES[loss])
    labels, values = batch(sizes, (0, 2))
    _, slopes = with_gradient(frame_losses, settings, values, labels)
    step = 1e-6
    for which, slope in enumerate(slopes):
        for place in np.ndindex(*values[which].shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [value.clone() for value in values]
                moved[which][place] += sign * step
                ends.append(frame_losses(settings, Prediction(*moved), labels).mean())
            numeric = float(ends[0] - ends[1]) / (2.0 * step)
            assert numeric == pytest.approx(
                0.0 if slope is None else float(slope[place]), rel=1e-6, abs=1e-9
            )


@EVERY_LOSS
def test_without_any_forces_the_loss_is_that_of_energies(loss):
    settings = TrainSettings(energy_weight=0.3, force_weight=1.7, **LOSSES[loss])
    labels, values = batch((3, 2, 3, 4), (0, 1, 2, 3))
    found, slopes = with_gradient(frame_losses, settings, values, labels)
    energies = replace(settings, force_weight=0.0, direction_weight=0.0)
    assert torch.equal(found, plain(energies, Prediction(*values), batch((3, 2, 3, 4))[0]).mean())
    assert not any(bool(slope.any()) for slope in slopes[1:] if slope is not None)


# Training sets


def springs(n=40, *, lacking=(), validation=5):
    """Return frames of water as three springs, labelled with energies and forces."""
    rng = np.random.default_rng(0)
    rest = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    frames, energies, forces = [], [], []
    for k in range(n):
        positions = rest + rng.normal(0.0, 0.08, rest.shape)
        vectors = positions[:, None] - positions[None]
        lengths = np.linalg.norm(vectors, axis=2) + np.eye(3)
        stretch = (lengths - 1.1) * (1.0 - np.eye(3))
        frames.append(Frame(np.array([8, 1, 1]), positions))
        energies.append(2.0 * (stretch**2).sum() - 100.0)
        force = -8.0 * (stretch[:, :, None] * vectors / lengths[:, :, None]).sum(1)
        forces.append(np.full((3, 3), np.nan) if k in lacking else force)
    flags = np.arange(n) % validation == validation - 1
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), flags)


def train(data, settings=QUICK, **more):
    return train_member(
        data, settings, level_of_theory="springs", seed=1, **({"shape": SHAPE} | more)
    )


def test_errors_are_those_of_the_frames_with_forces_however_they_are_cut():
    """Of 160 validation frames the first 100 have no forces: batches of 64 have other shares."""
    torch.set_num_threads(1)
    lacking = range(120)
    data = springs(200, lacking=lacking, validation=200)
    data = replace(data, is_validation=np.arange(200) >= 40)
    epochs = []
    settings = replace(QUICK, epochs=1, ema_decay=0.0)
    member, report = train(data, settings, on_epoch=epochs.append)
    positions = torch.tensor(np.array([frame.positions for frame in data.frames]))
    answer = build_committee([member]).evaluate(np.array([8, 1, 1]), positions, forces="mean")
    off = answer.forces.numpy()[120:] - np.array(data.forces[120:])
    assert report.validation.force == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
    assert report.validation.force_mae == pytest.approx(np.abs(off).mean(), rel=1e-4)
    by_element = np.abs(off[:, :1]).mean((1, 2)) + np.abs(off[:, 1:]).mean((1, 2))
    assert report.validation.mepa == pytest.approx(by_element.mean(), rel=1e-4)
    assert report.validation.n_frames == 160
    energy = (answer.energies[0].numpy() - data.energies)[40:]

    def huber(x):
        return 2.0 * 0.05**2 * (np.sqrt(1.0 + (x / 0.05) ** 2) - 1.0)

    wanted = huber(energy / np.sqrt(3.0)).mean() + huber(off).mean()
    assert epochs[-1].validation_loss == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", ["ani", "schnet"])
def test_energies_alone_are_enough_to_learn_from(kind):
    data = springs(40, lacking=range(40))
    shape = SHAPE if kind == "ani" else None
    settings = replace(QUICK, epochs=25, learning_rate=1e-2)
    _, before = train(data, replace(settings, epochs=1, max_steps=1), kind=kind, shape=shape)
    member, report = train(data, settings, kind=kind, shape=shape)
    assert report.validation.energy < 0.3 * before.validation.energy
    for name in ("force", "force_mae", "mepa"):
        assert np.isnan(getattr(report.validation, name))
        assert np.isnan(getattr(report.training, name))
    assert member_bytes(member) == member_bytes(train(data, settings, kind=kind, shape=shape)[0])


def test_the_first_scale_is_of_forces_and_without_them_of_energies():
    data, some = springs(10), springs(10, lacking=(0, 4, 7))
    keep = [1, 2, 3, 5, 6, 8]  # 4 and 9 validate
    wanted = np.sqrt(np.mean([data.forces[i] ** 2 for i in keep]))
    assert force_scale(some) == pytest.approx(wanted, rel=1e-12)
    none = springs(10, lacking=range(10))
    left = np.delete(none.energies, [4, 9])
    assert force_scale(none) == pytest.approx(left.std() / np.sqrt(3.0), rel=1e-9)
    alike = replace(none, energies=np.full(10, -3.0))
    assert force_scale(alike) == pytest.approx(1.0)


def test_forces_that_lack_in_part_are_refused_by_frame():
    data = springs(5)
    forces = [force.copy() for force in data.forces]
    forces[3][1, 2] = np.nan
    with pytest.raises(TrainingError, match=r"frame 3 .* 1 of 9 force components are NaN; want"):
        replace(data, forces=tuple(forces))
    forces[3][:] = np.nan
    assert replace(data, forces=tuple(forces)).has_forces.tolist() == [True] * 3 + [False, True]
    forces[3][0, 0] = np.inf
    with pytest.raises(TrainingError, match=r"frame 3 .* not finite"):
        replace(data, forces=tuple(forces))


def test_nothing_but_forces_cannot_be_learnt_where_there_are_none():
    with pytest.raises(TrainingError, match="no training frame has forces"):
        train(springs(5, lacking=(0, 1, 2, 3)), replace(QUICK, energy_weight=0.0))


def test_a_dataset_keeps_which_frames_have_forces(tmp_path):
    data = springs(4, lacking=(1, 2))
    names = ("a",) * 4
    kept = Dataset(data.frames, data.energies, data.forces, ("train",) * 4, names, names, "x")
    save_dataset(tmp_path / "data.npz", kept)
    again = load_dataset(tmp_path / "data.npz")
    assert again.has_forces.tolist() == [True, False, False, True]
    for one, other in zip(kept.forces, again.forces, strict=True):
        assert one.tobytes() == other.tobytes()
    assert again.subset(~again.has_forces).frames[0].key == data.frames[1].key


# Repeats


def test_a_frame_that_repeats_is_as_good_as_copies_of_it():
    data = springs(10, lacking=(3,))
    start, _ = train(data, replace(QUICK, epochs=1), kind="schnet", shape=None)
    given = {"kind": "schnet", "shape": None, "start": start, "atom_energies": start.atom_energies}
    often = [3, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    member, report = train(data, repeats=often, **given)
    copies = np.repeat(np.arange(10), np.where(data.is_validation, 1, often))
    same = TrainingSet(
        tuple(data.frames[i] for i in copies),
        data.energies[copies],
        tuple(data.forces[i] for i in copies),
        data.is_validation[copies],
    )
    other, _ = train(same, **given)
    assert member_bytes(member) == member_bytes(other)
    assert report.steps == 5 * 2  # 11 frames in batches of 8
    for wrong in ([1] * 9, [0] + [1] * 9):
        with pytest.raises(TrainingError, match="1 or more for each of 10 frames"):
            train(data, repeats=wrong, **given)
