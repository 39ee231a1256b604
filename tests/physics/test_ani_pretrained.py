"""The published ANI models: against TorchANI, published numbers and the data they learnt from."""

import dataclasses
import io
import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.errors import LabelError, MethodError, ModelError
from alloop.frames import Frame
from alloop.potentials.ani.pretrained import PUBLISHED, assemble, convert, pretrained
from alloop.potentials.committee import build_committee
from alloop.potentials.files import load_member, save_member
from alloop.reference.method import MethodSpec, build_reference
from alloop.units import EV_PER_HARTREE

KCAL_PER_MOL = 627.509474 / EV_PER_HARTREE

METHANE = Frame(
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [
            [0.03192167, 0.00638559, 0.01301679],
            [-0.83140486, 0.39370209, -0.26395324],
            [-0.66518241, -0.84461308, 0.20759389],
            [0.45554739, 0.54289633, 0.81170881],
            [0.66091919, -0.16799635, -0.91037834],
        ]
    ),
)
"""The molecule of TorchANI's README."""


def evaluate(members, numbers, positions, dtype=torch.float64):
    committee = build_committee(members, dtype=dtype)
    return committee.evaluate(numbers, torch.tensor(positions)[None], forces="members")


def ask_torchani(model, numbers, positions):
    """Return what each member of a TorchANI model says, eV and eV/Å."""
    x = torch.tensor(positions)[None].requires_grad_()
    energies = model((torch.tensor(numbers)[None], x), ensemble_values=True).energies[:, 0]
    slopes = [torch.autograd.grad(e, x, retain_graph=True)[0][0] for e in energies]
    return energies.detach() * EV_PER_HARTREE, -torch.stack(slopes) * EV_PER_HARTREE


def random_model(name):
    torch.manual_seed(7)
    model = assemble(name)
    model.energy_shifter.self_energies = torch.linspace(
        -1.0, -500.0, len(PUBLISHED[name].symbols), dtype=torch.float64
    )
    return model


def write(folder, name, content):
    (folder / "StateDicts").mkdir(exist_ok=True)
    stream = io.BytesIO()
    torch.save(content, stream)
    path = folder / "StateDicts" / PUBLISHED[name].file
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("name", ["ANI-1x", "ANI-2x"])
def test_every_member_says_what_torchani_says(name):
    """ANI-2x has its elements in another order than ours, and a power that is no integer."""
    model = random_model(name)
    members = convert(model, name, {})
    elements = members[0].elements
    rng = np.random.default_rng(1)
    numbers = np.array([*elements, *elements])
    corners = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)[: len(numbers)]
    positions = 1.4 * corners + rng.normal(0.0, 0.1, (len(numbers), 3))
    energies, forces = ask_torchani(model, numbers, positions)
    answer = evaluate(members, numbers, positions)
    assert float(energies.std()) > 1e-2  # eV
    assert torch.allclose(answer.energies[:, 0], energies, rtol=0, atol=1e-8)
    # torch rounds a constant in the slope of celu to single precision.
    assert torch.allclose(answer.member_forces[:, 0], forces, rtol=0, atol=1e-6)


def test_a_model_comes_back_from_its_file_old_or_new(tmp_path):
    model = random_model("ANI-2x")
    expected = convert(model, "ANI-2x", {})
    new = model.state_dict()
    old = {name.removeprefix("potentials.nnp."): tensor for name, tensor in new.items()}
    for state in (new, old):
        write(tmp_path, "ANI-2x", state)
        drawn = torch.get_rng_state()
        members = pretrained("ANI-2x", tmp_path)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert len(members) == 8
        assert members[3].atom_energies == expected[3].atom_energies
        for name, weight in expected[3].weights.items():
            assert torch.equal(members[3].weights[name], weight)
    member = members[3]
    assert (member.level_of_theory, member.elements) == ("wB97X/6-31G*", (1, 6, 7, 8, 9, 16, 17))
    assert member.metadata["index"] == 3
    assert member.metadata["citation"] == "DOI 10.1021/acs.jctc.0c00121"
    assert len(member.metadata["sha256"]) == 64
    save_member(tmp_path / "member.pt", member)
    back = load_member(tmp_path / "member.pt")
    assert all(torch.equal(back.weights[name], w) for name, w in member.weights.items())


def test_what_is_missing_or_damaged_is_said_in_one_line(tmp_path, monkeypatch):
    def complaint(name, folder):
        with pytest.raises(ModelError) as caught:
            pretrained(name, folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "want one of ANI-1x, ANI-1ccx, ANI-2x" in complaint("ANI-3x", tmp_path)
    text = complaint("ANI-1ccx", tmp_path)
    assert "put ani1ccx_state_dict.pt of huggingface.co/roitberg-group/ani1ccx there" in text

    path = write(tmp_path, "ANI-1x", random_model("ANI-2x").state_dict())
    assert f"{path} does not hold the weights of ANI-1x" in complaint("ANI-1x", tmp_path)
    broken = random_model("ANI-1x").state_dict()
    next(v for k, v in broken.items() if k.endswith("final_layer.bias")).fill_(torch.nan)
    write(tmp_path, "ANI-1x", broken)
    text = complaint("ANI-1x", tmp_path)
    assert f"{path} does not" in text
    assert "not finite" in text
    path.write_bytes(path.read_bytes()[:5000])
    assert f"{path} cannot be read" in complaint("ANI-1x", tmp_path)

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path.write_bytes(pickle.dumps(Evil()))
    complaint("ANI-1x", tmp_path)
    write(tmp_path, "ANI-1x", {"weights": Evil()})
    complaint("ANI-1x", tmp_path)
    assert not (tmp_path / "executed").exists()

    def offline(*arguments, **options):
        raise ConnectionError("no route")

    monkeypatch.setenv("TORCHANI_DATA_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    assert "could not be fetched" in complaint("ANI-1x", None)


def test_weights_are_fetched_once_into_the_folder_of_torchani(tmp_path, monkeypatch):
    asked = []

    def download(repository, file, *, local_dir):
        asked.append((repository, file))
        Path(local_dir).mkdir(parents=True)
        return str(write(tmp_path, "ANI-1x", random_model("ANI-1x").state_dict()))

    monkeypatch.setenv("TORCHANI_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    first, again = pretrained("ANI-1x"), pretrained("ANI-1x")
    assert asked == [("roitberg-group/ani1x", "ani1x_state_dict.pt")]
    assert first[0].metadata == again[0].metadata


def reference(frame, folder, model="ANI-1ccx"):
    method = MethodSpec("ani", model, {"folder": str(folder)})
    return build_reference(method, frame.numbers, frame.charge, frame.multiplicity)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with random weights under the name of ANI-1ccx."""
    write(tmp_path, "ANI-1ccx", random_model("ANI-1ccx").state_dict())
    return tmp_path


def test_labels_are_the_mean_of_the_members(folder):
    cell = np.array([[4.1, 0.0, 0.0], [0.4, 3.9, 0.0], [0.0, 0.3, 4.0]])
    crystal = dataclasses.replace(METHANE, cell=cell, pbc=(True, True, True))
    slab = dataclasses.replace(crystal, pbc=(True, True, False))
    committee = build_committee(pretrained("ANI-1ccx", folder), dtype=torch.float64)
    energies = []
    for frame in (METHANE, crystal, slab):
        label = reference(frame, folder).label(frame)
        flat = cell * np.array(frame.pbc)[:, None]
        answer = committee.evaluate(
            frame.numbers,
            torch.tensor(frame.positions)[None],
            forces="members",
            cell=torch.tensor(flat) if flat.any() else None,
        )
        assert label.method == "ANI-1ccx"
        assert label.energy == pytest.approx(float(answer.energies.mean()), abs=1e-9)
        assert np.allclose(label.forces, answer.member_forces[:, 0].mean(0), atol=1e-9)
        energies.append(label.energy)
    assert len({round(energy, 4) for energy in energies}) == 3


def test_what_the_models_do_not_know_is_refused(folder):
    ion = dataclasses.replace(METHANE, charge=2)
    with pytest.raises(MethodError, match="charge 2"):
        reference(ion, folder)
    triplet = dataclasses.replace(METHANE, multiplicity=3)
    with pytest.raises(MethodError, match="multiplicity 3"):
        reference(triplet, folder)
    silane = Frame(np.array([14, 1, 1, 1, 1]), METHANE.positions)
    with pytest.raises(MethodError, match="given Si"):
        reference(silane, folder)
    with pytest.raises(MethodError, match="ani2x_state_dict"):
        reference(METHANE, folder, "ANI-2x")
    for options in ({"folder": 3}, {"path": "here"}):
        with pytest.raises(MethodError, match="option"):
            MethodSpec("ani", "ANI-1x", options)
    with pytest.raises(MethodError, match="did you mean 'ANI-1x'"):
        MethodSpec("ani", "ANI-1y")
    assert reference(METHANE, folder).program.startswith("torchani 2.")


def test_atoms_on_one_spot_get_no_label(folder):
    positions = METHANE.positions.copy()
    positions[1] = positions[2]
    clash = dataclasses.replace(METHANE, positions=positions)
    with pytest.raises(LabelError, match="on top of each other") as caught:
        reference(clash, folder).label(clash)
    assert caught.value.code == "clash"


@pytest.mark.parametrize(
    ("name", "energy", "carbon"),
    [
        ("ANI-1x", -40.459021283, [0.0306, -0.1316, -0.0527]),
        ("ANI-1ccx", -40.425622395, [0.0312, -0.1272, -0.0511]),
    ],
)
def test_methane_has_its_published_energy_and_forces(ani_weights, name, energy, carbon):
    """README and tests of TorchANI; -40.459021 and -40.425622 hartree."""
    members = pretrained(name)  # from the folder that the environment names
    answer = evaluate(members, METHANE.numbers, METHANE.positions)
    assert float(answer.energies.mean()) / EV_PER_HARTREE == pytest.approx(energy, abs=1e-8)
    assert np.allclose(answer.forces[0, 0] / EV_PER_HARTREE, carbon, atol=1e-4)
    single = evaluate(members, METHANE.numbers, METHANE.positions, torch.float32)
    assert float(single.energies.mean()) / EV_PER_HARTREE == pytest.approx(energy, abs=1e-6)


def test_layers_0_and_2_were_kept_when_ani_1ccx_was_made(ani_weights):
    pairs = zip(pretrained("ANI-1x", ani_weights), pretrained("ANI-1ccx", ani_weights), strict=True)
    for before, after in pairs:
        for name, weight in before.weights.items():
            kept = name.split(".")[1] in "02"
            assert torch.equal(weight, after.weights[name]) == kept, name


def test_ani_1ccx_is_as_accurate_as_published_on_its_data(ani_weights, data_folder):
    """Smith et al., DOI 10.1038/s41467-019-10827-4: about a kcal/mol; a sixth of 625 frames."""
    data = np.load(data_folder / "ani1ccx" / "ani1ccx_val_625.npz")
    committee = build_committee(pretrained("ANI-1ccx", ani_weights))
    errors = []
    for numbers, positions, energy in list(
        zip(data["Z"], data["R"], data["E_ccsdt_cbs_Ha"], strict=True)
    )[::6]:
        real = numbers > 0
        answer = committee.evaluate(
            numbers[real].astype(np.int64),
            torch.tensor(positions[real].astype(np.float64))[None],
            forces="none",
        )
        errors.append(float(answer.energies.mean()) - energy * EV_PER_HARTREE)
    assert np.abs(errors).mean() * KCAL_PER_MOL == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(errors)) * KCAL_PER_MOL < 0.3


def test_a_published_model_labels_ethanol(ani_weights):
    atoms = molecule("CH3CH2OH")
    frame = Frame(atoms.numbers, atoms.positions)
    label = reference(frame, ani_weights, "ANI-1x").label(frame)
    # wB97X/6-31G* of PySCF at this geometry: -154.987747 hartree.
    assert label.energy / EV_PER_HARTREE == pytest.approx(-154.990145, abs=2e-6)
    assert np.abs(label.forces.sum(0)).max() < 1e-8
