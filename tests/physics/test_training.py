"""Training against labels whose truth is known: a Morse potential between all atoms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.frames import Frame
from alloop.potentials.ani import descriptors
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.ani.trainable import AniTrainable
from alloop.potentials.committee import build_committee
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet, group_frames
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member

ATOMS = {1: -12.0, 6: -40.0, 8: -110.0}


def morse(atoms):
    """Return energy and forces of atoms under E = Σ D (1 - exp(-a (r - r0)))², eV and eV/Å."""
    positions = atoms.positions
    energy = sum(ATOMS[z] for z in atoms.numbers)
    forces = np.zeros_like(positions)
    for i in range(len(atoms)):
        for j in range(i):
            vector = positions[i] - positions[j]
            distance = np.linalg.norm(vector)
            decay = np.exp(-1.2 * (distance - 1.3))
            energy += 0.3 * (1.0 - decay) ** 2
            pull = 2.0 * 0.3 * (1.0 - decay) * 1.2 * decay * vector / distance
            forces[i] -= pull
            forces[j] += pull
    return energy, forces


def labelled(names, n_each, seed=0, amplitude=0.1):
    rng = np.random.default_rng(seed)
    frames, energies, forces = [], [], []
    for k in range(n_each * len(names)):
        atoms = molecule(names[k % len(names)])
        atoms.positions += rng.normal(0.0, amplitude, atoms.positions.shape)
        energy, force = morse(atoms)
        frames.append(Frame(atoms.numbers, atoms.positions))
        energies.append(energy)
        forces.append(force)
    validation = np.arange(len(frames)) % 5 == 4
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), validation)


def shape(n_elements, hidden=(16, 12)):
    return AniSettings((hidden,) * n_elements).to_plain()


def trainable(data, seed=3, activation="silu"):
    settings = AniSettings(((10, 6),) * len(data.elements), activation)
    groups = group_frames(data)
    return AniTrainable(groups, data.elements, settings, ATOMS, seed=seed, start=None)


@pytest.mark.parametrize("activation", ["silu", "gelu", "celu"])
@pytest.mark.parametrize("cache", [True, False], ids=["kept Jacobian", "recomputed"])
def test_hand_written_gradient_is_the_slope_of_the_loss(monkeypatch, cache, activation):
    """Against autograd, which differentiates the forward pass without being told how."""
    if not cache:
        monkeypatch.setattr(descriptors, "CACHE_BYTES", 0)
    model = trainable(labelled(["H2O", "CH3OH"], 3), activation=activation)
    frames = torch.tensor([2, 0])
    gradients = []
    for hand_written in (True, False):
        theta = (model.start * 4.0).requires_grad_()
        loss = torch.zeros(())
        for group, weight in ((0, 1.0), (1, -0.7)):
            if hand_written:
                energies, forces = model.predict_group(theta, group, frames)
            else:
                run = model.forward(theta, group, frames)
                energies, forces = run.energies, run.forces
            loss = loss + weight * (energies.sin().sum() + (forces * forces).sum())
        loss.backward()
        gradients.append(theta.grad)
    written, automatic = gradients
    assert float(automatic.abs().max()) > 1.0
    trained = model.trained > 0
    assert torch.allclose(written[trained], automatic[trained], rtol=1e-3, atol=1e-3)
    assert (written[~trained] == 0).all()


def test_both_ways_to_forces_agree(monkeypatch):
    data = labelled(["CH3CH2OH"], 4)
    kept = trainable(data)
    monkeypatch.setattr(descriptors, "CACHE_BYTES", 0)
    recomputed = trainable(data)
    answers = []
    for model in (kept, recomputed):
        theta = model.start.clone().requires_grad_()
        energies, forces = model.predict_group(theta, 0, torch.tensor([1, 3]))
        (energies.sum() + forces.square().sum()).backward()
        answers.append((energies.detach(), forces.detach(), theta.grad))
    for one, other in zip(*answers, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_frames_of_several_molecules_come_in_the_order_they_were_asked_for():
    data = labelled(["H2O", "CH3OH", "CH4"], 3)
    model = trainable(data)
    frames = torch.tensor([4, 0, 8, 3, 4, 1])
    answer = model.predict(model.start, frames)
    first = 0
    for place, frame in enumerate(frames.tolist()):
        row = torch.tensor([frame // 3])
        energies, forces = model.predict_group(model.start, frame % 3, row)
        n_atoms = data.frames[frame].n_atoms
        assert torch.allclose(answer.energies[place], energies[0], atol=1e-6)
        assert torch.allclose(answer.forces[first : first + n_atoms], forces[0], atol=1e-6)
        first += n_atoms
    assert first == len(answer.forces)


def random_member(elements, seed=5):
    """Return a member for these elements whose weights are not small."""
    settings = AniSettings(((10, 8, 6),) * len(elements), "celu")
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(size, generator=generator) * 0.5
        for name, size in settings.shapes(elements).items()
    }
    # Published members have their last layer in double precision.
    weights |= {name: w.double() for name, w in weights.items() if name.split(".")[1] == "3"}
    return Member("ani", elements, settings.to_plain(), weights, ATOMS | {7: -70.0}, "x", {})


def continued(start, data, atom_energies):
    settings = AniSettings.from_plain(start.settings)
    return AniTrainable(
        group_frames(data), start.elements, settings, atom_energies, seed=1, start=start
    )


def test_a_member_with_more_elements_than_the_data_is_continued():
    """Nitrogen, that no frame has, comes out as it went in, whatever a fit does to it."""
    start = random_member((1, 6, 7, 8))
    data = labelled(["CH3CH2OH"], 5)
    atoms = start.atom_energies | {6: -41.0}
    model = continued(start, data, atoms)
    untouched = model.export(model.start)
    for name, weight in start.weights.items():
        if name != "C.3.bias":  # it takes up what the atoms no longer account for
            assert torch.allclose(untouched[name].to(weight), weight, rtol=1e-4, atol=1e-5), name
    answer = model.predict(model.start, torch.arange(5))
    committee = build_committee([start])
    positions = torch.tensor(np.array([frame.positions for frame in data.frames]))
    wanted = committee.evaluate(data.frames[0].numbers, positions, forces="mean")
    free = sum(atoms[z] for z in data.frames[0].numbers)
    assert torch.allclose(answer.energies.double() + free, wanted.energies[0], atol=1e-3)
    assert torch.allclose(answer.forces.double(), wanted.forces.flatten(0, 1), atol=1e-3)
    decayed = model.export(0.5 * model.start)
    for name, weight in start.weights.items():
        assert torch.equal(decayed[name].to(weight), weight) == name.startswith("N."), name


def test_layers_that_are_kept_keep_their_own_weights():
    """The fit sees standardised features: keeping what it calls layer 0 keeps the real one."""
    start = random_member((1, 6, 8))
    data = labelled(["CH3CH2OH", "H2O"], 4)
    model = continued(start, data, start.atom_energies)
    theta = model.start.clone()
    generator = torch.Generator().manual_seed(2)
    for name, place in model.layout.items():
        if name.split(".")[1] in "13":
            theta[place] += 0.1 * torch.randn(theta[place].shape, generator=generator)
    exported = model.export(theta)
    kept = {name: w for name, w in start.weights.items() if name.split(".")[1] in "02"}
    for name, weight in kept.items():
        assert torch.allclose(exported[name], weight, rtol=1e-4, atol=1e-5), name
    assert not torch.allclose(exported["C.1.weight"], start.weights["C.1.weight"], atol=1e-2)
    member = replace(start, weights={**exported, **kept})
    first = torch.tensor([0, 2, 4])
    answer = model.predict(theta, first)
    positions = torch.tensor(np.array([data.frames[i].positions for i in first.tolist()]))
    wanted = build_committee([member]).evaluate(data.frames[0].numbers, positions, forces="mean")
    free = sum(ATOMS[z] for z in data.frames[0].numbers)
    assert torch.allclose(answer.energies.double() + free, wanted.energies[0], atol=1e-3)
    assert torch.allclose(answer.forces.double(), wanted.forces.flatten(0, 1), atol=1e-3)
    assert float(wanted.forces.abs().max()) > 1.0


def test_the_member_says_what_the_trainable_said():
    """Standardisation is folded into exported weights; atoms are added; order is kept."""
    data = labelled(["CH3CH2OH"], 5)
    model = trainable(data)
    theta = model.start * 3.0
    energies, forces = model.predict_group(theta, 0, torch.arange(5))
    settings = TrainSettings(epochs=1)
    member, _ = train_member(
        data, settings, level_of_theory="x", seed=1, shape=shape(3, (10, 6)), atom_energies=ATOMS
    )
    exported = type(member)("ani", (1, 6, 8), member.settings, model.export(theta), ATOMS, "x", {})
    committee = build_committee([exported], dtype=torch.float64)
    positions = torch.tensor(np.array([frame.positions for frame in data.frames]))
    answer = committee.evaluate(data.frames[0].numbers, positions, forces="mean")
    atoms = sum(ATOMS[z] for z in data.frames[0].numbers)
    assert torch.allclose(answer.energies[0] - atoms, energies.double(), atol=1e-3)
    assert torch.allclose(answer.forces, forces.double(), atol=1e-3)
    assert float(forces.abs().max()) > 0.1


def test_learns_a_potential_from_several_molecules():
    data = labelled(["H2O", "CH3OH", "CH4"], 30)
    settings = TrainSettings(epochs=60, batch_size=8, learning_rate=5e-3, resample="none")
    member, report = train_member(
        data, settings, level_of_theory="morse", seed=4, shape=shape(3, (32, 24))
    )
    forces = np.concatenate([f.ravel() for f in data.forces])
    assert report.validation.n_frames == 18
    assert report.validation.force < 0.25 * forces.std()
    fresh = labelled(["CH3OH"], 10, seed=9)
    positions = torch.tensor(np.array([frame.positions for frame in fresh.frames]))
    answer = build_committee([member]).evaluate(fresh.frames[0].numbers, positions, forces="mean")
    error = answer.forces.numpy() - np.array(fresh.forces)
    assert np.sqrt((error**2).mean()) < 0.3 * forces.std()
    energies = answer.energies[0].numpy()
    assert np.corrcoef(energies, fresh.energies)[0, 1] > 0.9
    assert abs((energies - fresh.energies).mean()) < 0.1


def test_learns_a_crystal_with_its_images():
    """Labels of a periodic model: another ANI member, so that they can be met exactly."""
    rng = np.random.default_rng(2)
    teacher_settings = AniSettings(((8, 4),))
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.randn(size, generator=generator) * 0.3
        for name, size in teacher_settings.shapes((6,)).items()
    }
    member, _ = train_member(
        labelled(["CH4"], 5), TrainSettings(epochs=1), level_of_theory="x", seed=1, shape=shape(2)
    )
    teacher = type(member)("ani", (6,), teacher_settings.to_plain(), weights, {6: -40.0}, "x", {})
    committee = build_committee([teacher], dtype=torch.float64)
    frames, energies, forces = [], [], []
    for _ in range(24):
        cell = np.diag([3.6, 3.6, 3.6]) + rng.normal(0.0, 0.05, (3, 3))
        base = np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.5, 0.5, 0], [0.75, 0.75, 0.25]])
        positions = base @ cell + rng.normal(0.0, 0.08, (4, 3))
        answer = committee.evaluate(
            np.full(4, 6), torch.tensor(positions)[None], forces="mean", cell=torch.tensor(cell)
        )
        frames.append(Frame(np.full(4, 6), positions, cell=cell, pbc=(True, True, True)))
        energies.append(float(answer.energies[0, 0]))
        forces.append(answer.forces[0].numpy())
    data = TrainingSet(tuple(frames), np.array(energies), tuple(forces), np.arange(24) % 4 == 3)
    settings = TrainSettings(epochs=80, learning_rate=5e-3, resample="none")
    _, report = train_member(
        data,
        settings,
        level_of_theory="x",
        seed=1,
        shape=shape(1, (24, 16)),
        atom_energies={6: -40.0},
    )
    assert report.training.force < 0.2 * np.std(np.array(forces))


def test_a_charged_molecule_is_as_good_as_any():
    """The potential knows no charge: a campaign has one charge per system and trains on it."""
    ammonium = Atoms("NH4", np.vstack([[0, 0, 0], molecule("CH4").positions[1:]]))
    rng = np.random.default_rng(0)
    frames = [
        Frame(ammonium.numbers, ammonium.positions + rng.normal(0, 0.05, (5, 3)), charge=1)
        for _ in range(6)
    ]
    forces = tuple(rng.normal(0, 1, (5, 3)) for _ in frames)
    data = TrainingSet(tuple(frames), rng.normal(0, 1, 6), forces, np.arange(6) == 0)
    member, _ = train_member(
        data, TrainSettings(epochs=2), level_of_theory="x", seed=1, shape=shape(2)
    )
    assert member.elements == (1, 7)
