"""Structures: whatever ASE reads; everything broken is one line."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from alloop.config.load import load_text
from alloop.config.structures import from_smiles, read_structure
from alloop.errors import ConfigError, StructureError

ETHANOL = molecule("CH3CH2OH")


def complaint(reference: str, folder: Path) -> str:
    with pytest.raises(StructureError) as caught:
        read_structure(reference, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    "name", ["e.xyz", "e.extxyz", "e.pdb", "e.traj", "e.json", "e.sdf", "e.gen"]
)
def test_any_format_of_ase_gives_the_same_molecule(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, ETHANOL)
    geometry = read_structure(name, tmp_path)
    assert geometry.numbers.tolist() == ETHANOL.numbers.tolist()
    np.testing.assert_allclose(geometry.positions, ETHANOL.positions, atol=1e-3)
    assert geometry.cell is None
    assert (geometry.charge, geometry.multiplicity) == (None, None)


@pytest.mark.parametrize("name", ["e.xyz", "e.pdb", "e.traj", "e.json", "e.sdf", "e.gen"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.7])
def test_a_truncated_file_is_refused(name: str, part: float, tmp_path: Path) -> None:
    write(tmp_path / name, ETHANOL)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(part * len(whole))])
    text = complaint(name, tmp_path)
    assert text.startswith(f"{name} is no readable structure, perhaps it is cut short (")


def test_what_is_not_there(tmp_path: Path) -> None:
    assert complaint("none.xyz", tmp_path) == "none.xyz does not exist"
    (tmp_path / "folder.xyz").mkdir()
    assert complaint("folder.xyz", tmp_path) == "folder.xyz is a folder, want a file"
    (tmp_path / "none.xyz").write_text("0\n\n")
    assert complaint("none.xyz", tmp_path) == "none.xyz has no atoms"
    (tmp_path / "notes.txt").write_text("nothing of the kind\n")
    assert "notes.txt is no readable structure" in complaint("notes.txt", tmp_path)


def test_of_several_structures_one_is_chosen_by_number(tmp_path: Path) -> None:
    write(tmp_path / "two.xyz", [molecule("H2O"), molecule("NH3")])
    assert "two.xyz holds several structures" in complaint("two.xyz", tmp_path)
    assert len(read_structure("two.xyz@0", tmp_path).numbers) == 3
    assert len(read_structure("two.xyz@1", tmp_path).numbers) == 4
    assert len(read_structure("two.xyz@-1", tmp_path).numbers) == 4
    assert complaint("two.xyz@2", tmp_path) == "two.xyz has no structure number 2"
    (tmp_path / "odd@1").write_bytes((tmp_path / "two.xyz").read_bytes())
    assert "odd@1 holds several structures" in complaint("odd@1", tmp_path)


def test_geometries_that_make_no_sense(tmp_path: Path) -> None:
    def one(atoms: Atoms) -> str:
        write(tmp_path / "x.xyz", atoms)
        return complaint("x.xyz", tmp_path)

    broken = ETHANOL.copy()
    broken.positions[4, 1] = np.nan
    assert "coordinates of atoms [4] (from 0) are not finite" in one(broken)
    broken.positions[4, 1] = np.inf
    assert "coordinates of atoms [4] (from 0) are not finite" in one(broken)
    broken.positions[4] = broken.positions[7] + [0.1, 0, 0]
    assert "atoms 4 (H) and 7 (H), counted from 0, are 0.100 Å apart" in one(broken)
    assert "atoms [1] (from 0) are dummies" in one(Atoms("HX", [[0, 0, 0], [0, 0, 2]]))


@pytest.mark.parametrize("name", ["H2", "F2", "HCN", "C2H2", "LiH", "SiH4"])
def test_the_shortest_bonds_are_no_overlap(name: str, tmp_path: Path) -> None:
    write(tmp_path / "x.xyz", molecule(name))
    assert len(read_structure("x.xyz", tmp_path).numbers) == len(molecule(name))


def test_crystals_keep_their_cell_and_images_count_for_overlap(tmp_path: Path) -> None:
    write(tmp_path / "si.cif", bulk("Si"))
    geometry = read_structure("si.cif", tmp_path)
    assert geometry.pbc == (True, True, True)
    assert geometry.cell is not None
    assert np.linalg.det(geometry.cell) == pytest.approx(bulk("Si").get_volume(), rel=1e-4)
    assert geometry.frame(0, 1).cell is not None
    write(tmp_path / "tight.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 2.0]], cell=[9, 9, 2.1], pbc=True))
    assert "are 0.100 Å apart" in complaint("tight.xyz", tmp_path)
    flat = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[9, 9, 0], pbc=[True, True, False])
    write(tmp_path / "flat.xyz", flat)
    assert "periodic but its cell has no volume" in complaint("flat.xyz", tmp_path)


def test_partly_occupied_sites_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "si.cif", bulk("Si"))
    text = (tmp_path / "si.cif").read_text().replace("1.0000", "0.5000").replace(" 1.0 ", " 0.5 ")
    (tmp_path / "si.cif").write_text(text)
    assert "partly occupied sites" in complaint("si.cif", tmp_path)


class Bomb:
    def __reduce__(self) -> Any:
        return (builtins.exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("name", ["x.traj", "x.pckl", "x.pkl", "x.npy", "x.json", "x.db"])
def test_nothing_from_a_structure_file_is_executed(name: str, tmp_path: Path) -> None:
    for head in (b"", b"PickleTrajectory"):
        (tmp_path / name).write_bytes(head + pickle.dumps(Bomb()))
        assert "is no readable structure" in complaint(name, tmp_path)


def test_what_a_file_says_of_charge_and_spin_is_not_ignored(tmp_path: Path) -> None:
    ion = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    ion.info.update(charge=-1, multiplicity=1)
    write(tmp_path / "ion.xyz", ion)
    text = "schema: 1\ncampaign: {name: a}\ntiers: [{id: x, method: {engine: tblite}}]\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text + "systems: {a: {structure: ion.xyz}}", tmp_path / "c.yaml")
    (line,) = caught.value.problems
    assert "systems.a.charge: " in line
    assert "ion.xyz says charge -1, the default is 0: write the one meant" in line
    written = text + "systems: {a: {structure: ion.xyz, charge: 1, multiplicity: 3}}"
    assert load_text(written, tmp_path / "c.yaml").structures["a"].charge == 1


def test_notes_that_are_no_whole_numbers_say_nothing(tmp_path: Path) -> None:
    odd = ETHANOL.copy()
    odd.info.update(charge=0.5, multiplicity="singlet")
    write(tmp_path / "odd.xyz", odd)
    geometry = read_structure("odd.xyz", tmp_path)
    assert (geometry.charge, geometry.multiplicity) == (None, None)


def test_smiles_without_rdkit_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("rdkit"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StructureError, match=r"pip install 'alloop\[smiles\]'"):
        from_smiles("CCO")


def test_smiles_give_geometry_charge_and_spin() -> None:
    pytest.importorskip("rdkit")
    ethanol = from_smiles("CCO")
    assert ethanol.frame(0, 1).formula == "C2H6O"
    np.testing.assert_array_equal(ethanol.positions, from_smiles("CCO").positions)
    assert (from_smiles("[OH3+]").charge, from_smiles("[CH3]").multiplicity) == (1, 2)
    for wrong in ("xx", "C1CC", "CC(C)(C)(C)C"):
        with pytest.raises(StructureError, match="is not valid SMILES"):
            from_smiles(wrong)
