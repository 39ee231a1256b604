"""Moving a potential to another level of theory, and fitting two levels at once."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.errors import ModelError, TrainingError
from alloop.frames import Frame
from alloop.potentials.architectures import ARCHITECTURES, architecture
from alloop.potentials.committee import build_committee
from alloop.training.data import TrainingSet, group_frames, labels_of
from alloop.training.joint import Heads, train_joint
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer

ATOMS = {1: -12.0, 6: -40.0, 8: -110.0}
BETTER = {1: -13.5, 6: -1030.0, 8: -2040.0}
QUICK = TrainSettings(epochs=40, batch_size=8, learning_rate=5e-3)
NEEDS_MACE = pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed")
EVERY_KIND = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=NEEDS_MACE if k == "mace" else ()) for k in ARCHITECTURES]
)
STILL = TrainSettings(epochs=1, max_steps=1, learning_rate=1e-12)


def labelled(names, n_each, seed=0, *, depth=0.3, width=1.2, atoms=None, validation=5):
    """Return frames under E = Σ D (1 - exp(-a (r - 1.3 Å)))² between all atoms of a molecule."""
    rng = np.random.default_rng(seed)
    frames, energies, forces = [], [], []
    for k in range(n_each * len(names)):
        body = molecule(names[k % len(names)])
        positions = body.positions + rng.normal(0.0, 0.1, body.positions.shape)
        vectors = positions[:, None] - positions[None]
        distances = np.linalg.norm(vectors, axis=2) + np.eye(len(body))
        decay = np.exp(-width * (distances - 1.3))
        bond = depth * (1.0 - decay) ** 2 * (1.0 - np.eye(len(body)))
        pull = 2.0 * depth * (1.0 - decay) * width * decay / distances
        frames.append(Frame(body.numbers, positions))
        energies.append(0.5 * bond.sum() + sum((atoms or ATOMS)[z] for z in body.numbers))
        forces.append(-(pull[:, :, None] * vectors).sum(1))
    flags = np.arange(len(frames)) % validation == validation - 1
    return TrainingSet(tuple(frames), np.array(energies), tuple(forces), flags)


def train(data, settings=QUICK, level="poor", seed=1, **more):
    return train_member(data, settings, level_of_theory=level, seed=seed, **more)


def force_error(member, data):
    """Return the root mean square force error over frames of one molecule."""
    positions = torch.tensor(np.array([frame.positions for frame in data.frames]))
    answer = build_committee([member]).evaluate(data.frames[0].numbers, positions, forces="mean")
    energy = answer.energies[0].numpy() - data.energies
    return float(np.sqrt(((answer.forces.numpy() - np.array(data.forces)) ** 2).mean())), energy


def moved(one, other):
    """Return the names of the weights that are not bit for bit the same."""
    return {name for name, w in one.weights.items() if not torch.equal(w, other.weights[name])}


@pytest.fixture(scope="module")
def poor():
    """A member trained on two molecules at the poor level of theory."""
    torch.set_num_threads(1)
    return train(labelled(["CH3OH", "CH4"], 40))[0]


# Transfer


@EVERY_KIND
def test_what_is_frozen_stays_bit_for_bit_whatever_the_architecture(kind):
    data = labelled(["CH3OH", "CH4"], 5)
    settings = replace(STILL, learning_rate=1e-3, weight_decay=0.1, epochs=3, max_steps=None)
    start, _ = train(data, settings, kind=kind)
    better = labelled(["CH4", "CH3OH"], 5, seed=3, depth=0.35, atoms=BETTER)
    transfer = Transfer(freeze=("auto",))
    member, report = train(better, settings, level="better", start=start, transfer=transfer)
    layout = potential(kind, data).layout
    frozen = transfer.rates(layout, ARCHITECTURES[kind].frozen) == 0.0
    names = {name for name, place in layout.items() if bool(frozen[place].all())}
    assert 0.05 < float(frozen.float().mean()) < 0.99
    assert moved(start, member) == layout.keys() - names
    assert (member.level_of_theory, report.steps) == ("better", 3)


def potential(kind, data, shape=None):
    model = architecture(kind)
    settings = shape or model.settings("small", data.elements)
    return model.trainable(
        group_frames(data), data.elements, settings, ATOMS, scale=1.0, seed=1, start=None
    )


def test_everything_moves_where_nothing_is_frozen(poor):
    data = labelled(["CH3OH", "CH4"], 5)
    settings = replace(STILL, learning_rate=1e-3, epochs=2, max_steps=None)
    member, _ = train(data, settings, level="better", start=poor, transfer=Transfer())
    assert moved(poor, member) == poor.weights.keys()


def test_atoms_take_up_what_networks_cannot_know(poor):
    """Another zero for each element is learned from the labels before the first step."""
    data = labelled(["CH3OH", "CH4"], 20, seed=5)
    shift = {z: BETTER[z] - ATOMS[z] for z in (1, 6, 8)}
    counts = [sum(shift[int(z)] for z in frame.numbers) for frame in data.frames]
    better = replace(data, energies=data.energies + np.array(counts))
    given = {"level": "better", "start": poor, "transfer": Transfer()}
    base, before = train(data, STILL, **given)
    member, report = train(better, STILL, **given)
    for name in ("energy", "force"):
        wanted = getattr(before.validation, name)
        assert getattr(report.validation, name) == pytest.approx(wanted, rel=1e-3)
    for counts in ({6: 1, 1: 4}, {6: 1, 8: 1, 1: 4}):
        found = sum(
            n * (member.atom_energies[z] - base.atom_energies[z]) for z, n in counts.items()
        )
        assert found == pytest.approx(sum(n * shift[z] for z, n in counts.items()), abs=1e-6)


def test_networks_and_atoms_may_share_the_energy_as_they_like(poor):
    """30 eV of each carbon atom moved into the networks of the start change nothing."""
    shifted = replace(
        poor,
        weights={**poor.weights, "C.3.bias": poor.weights["C.3.bias"] + 30.0},
        atom_energies={**poor.atom_energies, 6: poor.atom_energies[6] - 30.0},
    )
    data, given = labelled(["CH4"], 10, seed=5), {"level": "better", "transfer": Transfer()}
    base, before = train(data, STILL, start=poor, **given)
    member, report = train(data, STILL, start=shifted, **given)
    assert report.validation.energy == pytest.approx(before.validation.energy, rel=1e-2)
    for z in (1, 6):
        change = base.atom_energies[z] - poor.atom_energies[z]
        assert member.atom_energies[z] - shifted.atom_energies[z] == pytest.approx(change, abs=1e-3)


def test_atomic_energies_that_are_given_are_kept(poor):
    data = labelled(["CH3OH"], 5, atoms=BETTER)
    given = {"start": poor, "transfer": Transfer(), "atom_energies": BETTER}
    assert train(data, STILL, level="better", **given)[0].atom_energies == BETTER


def test_layer_rates_multiply_the_step(poor):
    """Adam's first step is the learning rate itself, whatever the gradient."""
    data = labelled(["CH3OH", "CH4"], 10, seed=2, depth=0.4)
    step = TrainSettings(epochs=1, max_steps=1, batch_size=100, learning_rate=1e-3, warmup_steps=0)
    slow = Transfer(freeze=(r"\.3\.",), layer_rates={r"^H\.1": 0.1, r"^H": 0.5, r"^O": 0.0})
    even, _ = train(data, step, level="better", start=poor, transfer=Transfer())
    member, _ = train(data, step, level="better", start=poor, transfer=slow)

    def length(member, name):
        return float((member.weights[name] - poor.weights[name]).double().norm())

    for name, factor in {"H.1.weight": 0.1, "H.2.weight": 0.5, "C.1.weight": 1.0}.items():
        assert length(member, name) == pytest.approx(factor * length(even, name), rel=0.02)
    untouched = {name for name in poor.weights if name.startswith("O") or ".3." in name}
    assert untouched.isdisjoint(moved(poor, member))


def test_elements_that_the_labels_lack_are_kept(poor):
    """Fine-tuned on methane, a member still knows what it knew of oxygen."""
    better = labelled(["CH4"], 20, seed=4, depth=0.4)
    member, _ = train(better, level="better", start=poor, transfer=Transfer())
    assert member.elements == (1, 6, 8)
    assert {n for n in poor.weights if n.startswith("O")}.isdisjoint(moved(poor, member))
    assert member.atom_energies[8] == poor.atom_energies[8]
    assert force_error(member, better)[0] < 0.5 * force_error(poor, better)[0]
    warm, _ = train(labelled(["CH4"], 10), STILL, start=poor)
    assert warm.elements == (1, 6, 8)
    with pytest.raises(ModelError, match="elements"):
        train(labelled(["NH3"], 5, atoms={1: 0.0, 7: 0.0}), start=poor)


def test_few_labels_are_enough_after_a_transfer():
    """Eight labels of a potential with other bonds, after 80 of a similar one."""
    parent, _ = train(labelled(["CH3CH2OH"], 100, seed=1))
    few = labelled(["CH3CH2OH"], 10, seed=7, depth=0.4, width=1.3, atoms=BETTER)
    test = labelled(["CH3CH2OH"], 50, seed=8, depth=0.4, width=1.3, atoms=BETTER)
    settings = replace(QUICK, epochs=150, learning_rate=2e-3)
    scratch, _ = train(few, settings, level="better")
    errors = {"scratch": force_error(scratch, test)[0]}
    for name, transfer in {"full": Transfer(), "frozen": Transfer(("auto",))}.items():
        member, _ = train(few, settings, level="better", start=parent, transfer=transfer)
        errors[name], energy = force_error(member, test)
        assert abs(energy.mean()) < 0.2
    assert max(errors["full"], errors["frozen"]) < 0.6 * errors["scratch"]


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        (lambda: Transfer(freeze=("(",)), "no regular expression"),
        (lambda: Transfer(layer_rates={"C": -1.0}), "multiplied by -1.0"),
        (lambda: Transfer(layer_rates={"C": np.nan}), "multiplied by nan"),
        (lambda: Transfer(freeze=("^Q",)), r"no weight has a name with '\^Q'.* C.0.weight"),
        (lambda: Transfer(layer_rates={"^Q": 0.1}), "no weight has a name"),
        (lambda: Transfer(freeze=("weight", "bias")), "nothing is left to train"),
        (lambda: Transfer(freeze=(r"C\.0\.bias",)), r"C.0.bias cannot be frozen without"),
    ],
)
def test_transfers_that_make_no_sense_are_refused(poor, transfer, message):
    with pytest.raises(TrainingError, match=message):
        train(labelled(["CH4"], 5), level="better", start=poor, transfer=transfer())


def test_an_architecture_without_a_choice_has_no_auto():
    with pytest.raises(TrainingError, match="'auto' freezes nothing"):
        Transfer(("auto",)).rates({"C.0.weight": slice(0, 3)}, ())


def test_a_transfer_from_nothing_is_refused():
    with pytest.raises(TrainingError, match="needs a member to start from"):
        train(labelled(["CH4"], 5), transfer=Transfer())


# Joint training


@EVERY_KIND
def test_levels_share_the_body_and_have_their_own_heads(kind):
    data = [
        ("poor", labelled(["CH3OH", "CH4"], 4)),
        ("better", labelled(["CH4", "CH3OH"], 3, seed=5, depth=0.35, atoms=BETTER)),
    ]
    settings = replace(STILL, learning_rate=2e-3, epochs=4, max_steps=None)
    (one, two), report = train_joint(data, settings, seed=2, kind=kind)
    assert (one.level_of_theory, two.level_of_theory) == ("poor", "better")
    model = ARCHITECTURES[kind]
    head = model.head(one.settings, one.elements)
    layout = potential(kind, data[0][1]).layout
    own = {n for n, r in zip(layout, named(layout, head), strict=True) if r}
    assert {"scale", "shift", "C.3.weight"} & own <= moved(one, two) <= own
    assert 0 < len(own) < len(layout)
    assert (report.training.n_frames, report.validation.n_frames) == (12, 2)


def named(layout, patterns):
    """Return which names a transfer would freeze."""
    rates = Transfer(tuple(patterns)).rates(layout, ())
    return [not bool(rates[place].any()) for place in layout.values()]


def test_each_frame_is_predicted_with_the_head_of_its_level():
    """In any order and composition, and with the gradient in the right places."""
    data = labelled(["CH3OH", "CH4"], 4)
    body = potential("ani", data)
    n_atoms = labels_of(data, ATOMS).n_atoms
    level = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    heads = Heads(body, level, n_atoms, (r"\.3\.",))
    own = sum(place.stop - place.start for n, place in body.layout.items() if ".3." in n)
    n = len(body.start)
    assert len(heads.start) == n + 2 * own
    generator = torch.Generator().manual_seed(3)
    theta = (heads.start + 0.1 * torch.randn(n + 2 * own, generator=generator)).requires_grad_()
    frames = torch.tensor([5, 0, 1, 4])
    mixed = heads.predict(theta, frames)
    said = mixed.energies.tolist()
    first = n_atoms[frames].cumsum(0) - n_atoms[frames]
    exported = [heads.export(theta.detach(), k) for k in range(3)]
    for row, frame in enumerate(frames.tolist()):
        weights = exported[int(level[frame])]
        member = member_of(weights, data)
        numbers = data.frames[frame].numbers
        positions = torch.tensor(data.frames[frame].positions[None])
        answer = build_committee([member]).evaluate(numbers, positions, forces="mean")
        atoms = sum(ATOMS[int(z)] for z in numbers)
        assert said[row] == pytest.approx(float(answer.energies[0, 0]) - atoms, abs=2e-4)
        mine = mixed.forces[first[row] : first[row] + len(numbers)]
        assert torch.allclose(mine.double(), answer.forces[0], atol=1e-3)
    (slope,) = torch.autograd.grad(mixed.energies[1], theta)
    assert float(slope[n:].abs().max()) == 0.0
    assert float(slope[:n].abs().max()) > 0.1


@EVERY_KIND
def test_equal_heads_say_what_the_potential_says(kind):
    """Latent forces and penalties included; mixed levels come back in the order asked for."""
    data = labelled(["CH3OH", "CH4"], 4)
    body = potential(kind, data)
    model = architecture(kind)
    patterns = model.head(model.settings("small", data.elements), data.elements)
    level = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    heads = Heads(body, level, labels_of(data, ATOMS).n_atoms, patterns)
    frames = torch.tensor([5, 0, 1, 4])
    wanted, got = body.predict(body.start, frames), heads.predict(heads.start, frames)
    for name in ("energies", "forces", "latent_forces", "penalty"):
        one, other = getattr(wanted, name), getattr(got, name)
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    if kind in ("newtonnet", "hipnn"):
        assert (wanted.latent_forces if kind == "newtonnet" else wanted.penalty) is not None


def member_of(weights, data):
    from alloop.potentials.member import Member

    settings = architecture("ani").settings("small", data.elements)
    return Member("ani", data.elements, settings, weights, ATOMS, "x", {})


def test_a_level_with_few_labels_learns_from_the_other():
    many = labelled(["CH3CH2OH"], 100, seed=1, validation=1000)
    few = labelled(["CH3CH2OH"], 10, seed=7, depth=0.4, width=1.3, atoms=BETTER)
    test = labelled(["CH3CH2OH"], 50, seed=8, depth=0.4, width=1.3, atoms=BETTER)
    settings = replace(QUICK, epochs=15, batch_size=16)
    (poor, better), report = train_joint([("poor", many), ("better", few)], settings, seed=1)
    assert report.validation.n_frames == 2
    assert report.steps == 15 * 13  # batches of 16 from 100 frames and 12 times 8
    alone, _ = train(few, replace(settings, epochs=report.steps), level="better")
    error, energy = force_error(better, test)
    assert error < 0.6 * force_error(alone, test)[0]
    assert abs(energy.mean()) < 0.2
    assert force_error(poor, many)[0] < 0.5 * force_error(better, many)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ["one"]}, "two or more levels"),
        ({"data": ["one", "one"]}, "two or more levels"),
        ({"repeats": [1]}, r"want 1 or more for each of 2"),
        ({"repeats": [1, 0]}, r"repeats are \[1, 0\]"),
    ],
)
def test_joint_fits_that_make_no_sense_are_refused(change, message):
    names = change.pop("data", ["one", "two"])
    data = [(name, labelled(["CH4"], 5)) for name in names]
    with pytest.raises(TrainingError, match=message):
        train_joint(data, STILL, seed=1, **change)


def test_a_level_without_an_element_of_the_other_is_refused():
    data = [("one", labelled(["CH4"], 5)), ("two", labelled(["CH3OH"], 5))]
    with pytest.raises(TrainingError, match=r"no frame of one has the elements \[8\]"):
        train_joint(data, STILL, seed=1)
