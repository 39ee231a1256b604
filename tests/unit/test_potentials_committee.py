"""Committees from files: what they refuse, and that NaN never looks like an answer."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

import alloop
from alloop.errors import ModelError
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.architectures import architecture
from alloop.potentials.committee import build_committee, load_committee
from alloop.potentials.files import save_member
from alloop.potentials.member import Member


def make_member(seed, elements=(1, 8), level="test"):
    settings = AniSettings(tuple((8, 4) for _ in elements))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator)
        for name, shape in settings.shapes(elements).items()
    }
    return Member(
        "ani", elements, settings.to_plain(), weights, dict.fromkeys(elements, 0.0), level, {}
    )


WATER = molecule("H2O")


def test_no_members_and_mixed_levels_are_refused(tmp_path):
    with pytest.raises(ModelError, match="at least one"):
        load_committee([])
    for name, level in (("a", "GFN2-xTB"), ("b", "wB97X")):
        save_member(tmp_path / name, make_member(1, level=level))
    with pytest.raises(ModelError, match="GFN2-xTB, wB97X"):
        load_committee([tmp_path / "a", tmp_path / "b"])


def test_an_element_it_does_not_know_is_named():
    committee = build_committee([make_member(1)])
    methanol = molecule("CH3OH")
    with pytest.raises(ModelError, match="describes H, O and was given C"):
        committee.evaluate(methanol.numbers, torch.tensor(methanol.positions)[None], forces="mean")


@pytest.mark.parametrize("kind", ["none", "mean", "members"])
def test_a_replica_with_nan_is_nan_and_its_neighbours_are_not(kind):
    committee = build_committee([make_member(1), make_member(2)])
    positions = torch.tensor(np.repeat(WATER.positions[None], 3, axis=0))
    sound = committee.evaluate(WATER.numbers, positions, forces=kind)
    positions[1, 0, 2] = torch.nan
    answer = committee.evaluate(WATER.numbers, positions, forces=kind)
    assert torch.isnan(answer.energies[:, 1]).all()
    assert torch.equal(answer.energies[:, [0, 2]], sound.energies[:, [0, 2]])
    if kind != "none":
        assert torch.isnan(answer.forces[1]).all()
        assert torch.isfinite(answer.forces[[0, 2]]).all()
    if kind == "members":
        assert torch.isnan(answer.member_forces[:, 1]).all()


def test_atoms_on_one_spot_give_no_finite_force():
    committee = build_committee([make_member(1), make_member(2)])
    positions = torch.tensor(WATER.positions)[None].clone()
    positions[0, 1] = positions[0, 2]
    answer = committee.evaluate(WATER.numbers, positions, forces="mean")
    assert not torch.isfinite(answer.forces).all()


def test_no_replicas_give_no_answers():
    committee = build_committee([make_member(1), make_member(2)])
    nothing = torch.zeros((0, 3, 3), dtype=torch.float64)
    answer = committee.evaluate(WATER.numbers, nothing, forces="members")
    assert answer.energies.shape == (2, 0)
    assert answer.forces.shape == (0, 3, 3)
    assert answer.member_forces.shape == (2, 0, 3, 3)


def test_a_flat_cell_is_refused():
    committee = build_committee([make_member(1)])
    flat = torch.tensor([[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0]])
    with pytest.raises(ModelError, match="no volume"):
        committee.evaluate(
            WATER.numbers, torch.tensor(WATER.positions)[None], forces="mean", cell=flat
        )


def test_calculator_takes_files_a_folder_or_a_committee(tmp_path):
    members = [make_member(1), make_member(2)]
    paths = [tmp_path / f"{index}.pt" for index in range(2)]
    for path, member in zip(paths, members, strict=True):
        save_member(path, member)
    energies = []
    for models in (paths, str(tmp_path), build_committee(members)):
        atoms = WATER.copy()
        atoms.calc = alloop.CommitteeCalculator(models)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1] == energies[2]


def test_calculator_refuses_what_has_no_spread(tmp_path):
    with pytest.raises(ModelError, match="two members"):
        alloop.CommitteeCalculator(build_committee([make_member(1)]))
    with pytest.raises(ModelError, match="holds no member files"):
        alloop.CommitteeCalculator(tmp_path)
    committee = build_committee([make_member(1), make_member(2)])
    for factor in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="force_calibration"):
            alloop.CommitteeCalculator(committee, force_calibration=factor)


def test_calculator_takes_nan_for_infinitely_uncertain():
    atoms = Atoms("OHH", [[0, 0, 0], [np.nan, 0, 0], [0, 1, 0]])
    atoms.calc = alloop.CommitteeCalculator(build_committee([make_member(1), make_member(2)]))
    atoms.calc.calculate(atoms)
    assert atoms.calc.results["energy_std"] == np.inf
    assert atoms.calc.results["forces_std_max_calibrated"] == np.inf


def test_named_sizes():
    published = architecture("ani").settings("ani1x", (1, 6, 7, 8))
    assert AniSettings.from_plain(published).hidden == (
        (160, 128, 96),
        (144, 112, 96),
        (128, 112, 96),
        (128, 112, 96),
    )
    with pytest.raises(ModelError, match="'small' or 'ani1x'"):
        architecture("ani").settings("huge", (1,))
    with pytest.raises(ModelError, match="want one of ani"):
        architecture("oracle")


def test_the_package_offers_its_calculator_and_nothing_by_accident():
    assert alloop.CommitteeCalculator.__name__ == "CommitteeCalculator"
    with pytest.raises(AttributeError, match="Committee2"):
        _ = alloop.Committee2
