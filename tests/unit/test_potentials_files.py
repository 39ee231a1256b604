"""Member files: what goes in comes out, and nothing foreign is believed or run."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alloop.errors import ModelError
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.files import load_member, member_bytes, save_member
from alloop.potentials.member import Member


def make_member(**changes):
    settings = AniSettings(((8, 4), (8, 4)))
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(shape, generator=generator)
        for name, shape in settings.shapes((1, 8)).items()
    }
    member = Member(
        "ani",
        (1, 8),
        settings.to_plain(),
        weights,
        {1: -10.7, 8: -108.3},
        "GFN2-xTB",
        {"seed": 3, "parent": None},
    )
    return replace(member, **changes)


def rewrite(path: Path, **changes):
    """Write a member file with some of its content exchanged."""
    content = torch.load(io.BytesIO(member_bytes(make_member())), weights_only=True)
    torch.save(content | changes, path)
    return path


def test_a_member_comes_back_as_it_was(tmp_path):
    member = make_member()
    save_member(tmp_path / "a.pt", member)
    back = load_member(tmp_path / "a.pt")
    assert (back.architecture, back.elements) == ("ani", (1, 8))
    assert back.atom_energies == member.atom_energies
    assert (back.level_of_theory, back.metadata) == ("GFN2-xTB", {"seed": 3, "parent": None})
    assert AniSettings.from_plain(back.settings) == AniSettings.from_plain(member.settings)
    assert all(torch.equal(back.weights[name], w) for name, w in member.weights.items())


def test_equal_members_are_equal_bytes_under_any_name(tmp_path):
    save_member(tmp_path / "one.pt", make_member())
    save_member(tmp_path / "other-name.pt", make_member())
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other-name.pt").read_bytes()
    assert member_bytes(make_member()) != member_bytes(make_member(level_of_theory="B3LYP"))


def test_a_file_with_code_in_it_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"format": "alloop-member", "weights": Evil()}, tmp_path / "torch.pt")
    for name in ("pickle.pt", "torch.pt"):
        with pytest.raises(ModelError, match=name):
            load_member(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_foreign_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text").write_text("energy: 3\n")
    (tmp_path / "empty").touch()
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "numbers").write_bytes(np.arange(999).tobytes())
    torch.save({"state": torch.zeros(3)}, tmp_path / "state.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with zipfile.ZipFile(tmp_path / "code.pt", "w") as archive:
        archive.writestr("code/constants.pkl", b"x")
    for path in [*tmp_path.iterdir(), tmp_path / "missing.pt", tmp_path]:
        with pytest.raises(ModelError) as error:
            load_member(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    content = member_bytes(make_member())
    for length in range(0, len(content), len(content) // 23):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"cut\.pt"):
            load_member(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 2}, "version 2"),
        ({"architecture": "oracle"}, "'oracle'"),
        ({"architecture": 3}, "architecture is missing"),
        ({"elements": [8, 1]}, "ascending"),
        ({"elements": [1, 6, 8]}, "atomic energy"),
        ({"elements": [0, 8], "atom_energies": {0: -1.0, 8: -2.0}}, "atomic numbers"),
        ({"elements": ["H", "O"]}, "invalid literal"),
        ({"elements": [1]}, "elements"),
        ({"settings": {"hidden": [[8, 4]]}}, "settings"),
        ({"settings": {}}, "settings"),
        ({"weights": {}}, "weight"),
        ({"weights": {"H.0.weight": "text"}}, "cannot be used"),
        ({"atom_energies": {1: -10.7}}, "atomic energy"),
        ({"atom_energies": {1: float("nan"), 8: -10.0}}, r"no finite atomic energy .* \[1\]"),
        ({"metadata": None}, "metadata"),
    ],
)
def test_inconsistent_content_is_refused_with_its_reason(tmp_path, changes, complaint):
    with pytest.raises(ModelError, match=complaint):
        load_member(rewrite(tmp_path / "bad.pt", **changes))


def test_weights_of_the_wrong_shape_or_not_finite_are_refused(tmp_path):
    weights = dict(make_member().weights)
    with pytest.raises(ModelError, match=r"O\.1\.bias"):
        load_member(rewrite(tmp_path / "a.pt", weights=weights | {"O.1.bias": torch.zeros(3)}))
    broken = weights["H.0.weight"].clone()
    broken[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"H\.0\.weight .* not finite"):
        load_member(rewrite(tmp_path / "b.pt", weights=weights | {"H.0.weight": broken}))


@pytest.mark.parametrize(
    "change", [torch.Tensor.to_sparse, lambda w: w.to("meta"), lambda w: w + 1j]
)
def test_weights_that_are_no_dense_real_tensors_are_refused(tmp_path, change):
    weights = dict(make_member().weights)
    weights["O.1.bias"] = change(weights["O.1.bias"])
    with pytest.raises(ModelError, match=r"O\.1\.bias is no dense tensor of real numbers") as error:
        load_member(rewrite(tmp_path / "a.pt", weights=weights))
    assert "\n" not in str(error.value)


def test_an_unknown_activation_is_refused(tmp_path):
    settings = make_member().settings | {"activation": "sigmoid"}
    with pytest.raises(ModelError, match="silu"):
        load_member(rewrite(tmp_path / "a.pt", settings=settings))


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    (tmp_path / "taken.pt").mkdir()
    with pytest.raises(OSError, match="taken"):
        save_member(tmp_path / "taken.pt", make_member())
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pt"]
