"""``alloop init``: what it writes loads as it stands, and nothing of the user's is lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from alloop.config.init import Preset, write_config
from alloop.config.load import load
from alloop.errors import ConfigError, StructureError

PRESETS: tuple[Preset, ...] = ("quick", "production")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("ethanol.xyz", molecule("CH3CH2OH"))
    write("methyl.xyz", molecule("CH3"))
    write("two.xyz", [molecule("H2O"), molecule("NH3")])
    return tmp_path


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("structure", ["ethanol.xyz", "methyl.xyz", "two.xyz@1"])
def test_what_it_writes_loads_as_it_stands(structure: str, preset: Preset) -> None:
    written = write_config(structure, Path("config.yaml"), preset)
    loaded = load(written.path)
    assert loaded.warnings == ()
    assert loaded.config.spacetime is not None
    assert {route.ensemble for route in loaded.config.explore.routes} == {"nvt", "nve"}
    name = structure.partition(".")[0]
    assert loaded.config.campaign.directory == f"runs/{name}"
    assert list(loaded.config.systems) == [name]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_commented_and_says_what_was_assumed(preset: Preset) -> None:
    written = write_config("methyl.xyz", Path("config.yaml"), preset)
    text = written.path.read_text()
    assert "$" not in text
    assert sum("#" in line for line in text.splitlines()) > 15
    assert "charge: 0  # assumed: the file does not say" in text
    assert "multiplicity: 2  # assumed: the lowest for an odd number of electrons" in text
    assert written.notes[1] == "multiplicity 2: assumed: the lowest for an odd number of electrons"
    assert text.splitlines()[0].startswith("# A")
    assert "alloop start config.yaml" in text


def test_the_structure_is_found_from_wherever_the_file_is(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    write_config("ethanol.xyz", Path("deep/er/config.yaml"))
    os.chdir(folder / "deep")
    loaded = load(Path("er/config.yaml"))
    assert loaded.config.systems["ethanol"].structure == "../../ethanol.xyz"
    assert loaded.structures["ethanol"].formula == "C2H6O"
    write_config("../two.xyz@-1", Path("two.yaml"))
    assert load(Path("two.yaml")).structures["two"].formula == "H3N"


def test_charge_and_spin_come_from_the_file_or_the_caller() -> None:
    ion = molecule("NH3") + Atoms("H", [[0, 0, -1.0]])
    ion.info.update(charge=1, multiplicity=1)
    write("ammonium.xyz", ion)
    written = write_config("ammonium.xyz", Path("a.yaml"))
    assert load(written.path).structures["ammonium"].charge == 1
    assert written.notes[0] == "charge 1: from ammonium.xyz"
    write_config("ammonium.xyz", Path("b.yaml"), charge=0, multiplicity=2)
    frame = load(Path("b.yaml")).structures["ammonium"]
    assert (frame.charge, frame.multiplicity) == (0, 2)
    write_config("methyl.xyz", Path("c.yaml"), charge=-1)
    assert load(Path("c.yaml")).structures["methyl"].multiplicity == 1
    with pytest.raises(ConfigError, match="multiplicity 1 is impossible with 9 electrons"):
        write_config("methyl.xyz", Path("d.yaml"), multiplicity=1)
    assert not Path("d.yaml").exists()


def test_nothing_is_overwritten_unless_told_to() -> None:
    Path("config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"config.yaml  exists and is kept"):
        write_config("ethanol.xyz", Path("config.yaml"))
    assert Path("config.yaml").read_text() == "mine"
    write_config("ethanol.xyz", Path("config.yaml"), force=True)
    assert load(Path("config.yaml"))


def test_a_failed_write_leaves_nothing_behind(folder: Path) -> None:
    before = sorted(folder.iterdir())
    for structure, output in (
        ("two.xyz", "a.yaml"),
        ("two.xyz@7", "a.yaml"),
        ("ethanol.xyz", "missing/a.yaml"),
        ("ethanol.xyz", "ethanol.xyz/a.yaml"),
    ):
        with pytest.raises((ConfigError, StructureError)):
            write_config(structure, Path(output))
    write("argon.xyz", Atoms("Ar"))
    with pytest.raises(ConfigError, match="a single atom"):
        write_config("argon.xyz", Path("a.yaml"))
    Path("argon.xyz").unlink()
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match=r"^a.yaml  cannot be written: No space left on device$"):
        write_config("ethanol.xyz", Path("a.yaml"))
    assert not list(Path().glob(".*"))
    assert not Path("a.yaml").exists()


@pytest.mark.parametrize(
    ("file", "name", "system"),
    [
        ("my molecule (1).xyz", "my-molecule-1", "my-molecule-1"),
        ("2-propanol.xyz", "2-propanol", "m_2-propanol"),
        ("a: b #c.xyz", "a-b-c", "a-b-c"),
        ("Ångström.xyz", "ngstr-m", "ngstr-m"),
        ("水.xyz", "molecule", "molecule"),
        ("no.xyz", "no", "no"),
    ],
)
def test_awkward_file_names(file: str, name: str, system: str) -> None:
    Path("ethanol.xyz").rename(file)
    write_config(file, Path("c.yaml"))
    loaded = load(Path("c.yaml"))
    assert loaded.config.campaign.name == name
    assert loaded.config.systems[system].structure == file


def test_crystals_can_be_campaigns() -> None:
    write("si.cif", bulk("Si", cubic=True))
    write_config("si.cif", Path("si.yaml"))
    frame = load(Path("si.yaml")).structures["si"]
    assert frame.pbc == (True, True, True)


def test_smiles_become_a_structure_file() -> None:
    pytest.importorskip("rdkit")
    written = write_config("CCO", Path("config.yaml"))
    assert written.structure == Path("C2H6O.xyz")
    frame = load(Path("config.yaml")).structures["C2H6O"]
    assert frame.formula == "C2H6O"
    assert np.ptp(frame.positions) > 2.0
    with pytest.raises(ConfigError, match=r"C2H6O.xyz  exists and is kept"):
        write_config("COC", Path("other.yaml"))
    assert not Path("other.yaml").exists()
    write_config("[NH4+]", Path("ion.yaml"))
    assert load(Path("ion.yaml")).structures["H4N"].charge == 1


def test_what_is_neither_file_nor_smiles() -> None:
    pytest.importorskip("rdkit")
    with pytest.raises(StructureError, match=r"there is no file 'etanol.xyz', and read as SMILES"):
        write_config("etanol.xyz", Path("config.yaml"))
