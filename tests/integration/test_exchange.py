"""Frames to another program and labels back: a small campaign with an expensive tier elsewhere.

The lower tier is GFN2-xTB, the upper GFN1-xTB, each made here by tblite itself, so that the two
differ as two real levels do. Water and its cation are both systems: the same atoms, once closed
and once open-shell and charged; one geometry is a frame of both.
"""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from sqlalchemy import select
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop.cli.main import main
from alloop.datasets import Dataset, load_dataset, save_dataset
from alloop.exchange.matching import superpose
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE, EV_PER_KCAL_MOL
from alloop_db import schema as t
from alloop_db.arrays import blob_to_vectors, floats_to_blob
from alloop_db.ledger import open_ledger, open_readonly
from alloop_db.lineage import lineage
from alloop_db.lock import CampaignLock
from alloop_db.provenance import why
from alloop_db.store import Store

pytestmark = pytest.mark.timeout(120)

LOWER, UPPER = "GFN2-xTB", "GFN1-xTB"
REST = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])
NUMBERS = np.array([8, 1, 1])
SYSTEMS = {"water": Frame(NUMBERS, REST), "cation": Frame(NUMBERS, REST, charge=1, multiplicity=2)}
N_ASKED, N_FRAMES = 6, 8
FORCE_UNIT = EV_PER_HARTREE / ANGSTROM_PER_BOHR


@cache
def frames() -> tuple[tuple[str, Frame], ...]:
    """Return 8 frames of each system; the first geometry is shared."""
    rng = np.random.default_rng(3)
    shared = REST + 0.06 * rng.normal(size=(3, 3))
    made = []
    for name, system in SYSTEMS.items():
        for index in range(N_FRAMES):
            positions = shared if not index else REST + 0.06 * rng.normal(size=(3, 3))
            made.append((name, Frame(NUMBERS, positions, system.charge, system.multiplicity)))
    return tuple(made)


@cache
def truth(level: str) -> tuple[tuple[float, np.ndarray], ...]:
    """Return energies, eV, and forces, eV/Å, of all frames by tblite."""
    labels = []
    for name, frame in frames():
        system = SYSTEMS[name]
        method = MethodSpec("tblite", level)
        made = build_reference(method, NUMBERS, system.charge, system.multiplicity).label(frame)
        labels.append((made.energy, np.array(made.forces)))
    return tuple(labels)


@pytest.fixture
def campaign(tmp_path) -> Path:
    """A campaign whose lower tier is labelled; 6 of 8 frames of each system are asked for above."""
    directory = tmp_path / "run"
    engine = open_ledger(directory, create=True)
    store = Store(engine, ArtifactStore(directory / "artifacts"))
    store.create(
        "exchange", 1, "0", SYSTEMS,
        {
            "low": {"engine": "tblite", "model": LOWER},
            "high": {"engine": "external", "model": UPPER},
        },
    )  # fmt: skip
    with Session(engine) as session, session.begin():
        systems = {row.name: row for row in session.scalars(select(t.System))}
        generation = session.scalars(select(t.Generation.generation_id)).one()
        for index, (name, frame) in enumerate(frames()):
            row = t.FrameRow(
                key=frame.key, system_id=systems[name].system_id, generation_id=generation,
                source="wigner", split="train", n_atoms=3,
                positions=floats_to_blob(frame.positions),
            )  # fmt: skip
            session.add(row)
            session.flush()
            energy, forces = truth(LOWER)[index]
            common = {"frame_id": row.frame_id, "generation_id": generation, "tries": 0}
            session.add(t.LabelRow(
                **common, level_of_theory_id=1, status="done", energy=energy,
                forces=floats_to_blob(forces), done_at=t.now(),
            ))  # fmt: skip
            if index % N_FRAMES < N_ASKED:
                session.add(t.LabelRow(**common, level_of_theory_id=2, status="pending"))
    engine.dispose()
    return directory


def alloop(*words: object) -> tuple[int, str, str]:
    """Run the command line as a person does: exit code, what it prints, what it complains of."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["alloop", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), " ".join(err.getvalue().split())


def bring(
    directory: Path, file: Path, *words: object, units: str = "eV, Å"
) -> tuple[int, str, str]:
    return alloop("import", file, "-c", directory, "--level", UPPER, "--units", units, *words)


def rows(directory: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as ledger:
        return ledger.execute(sql).fetchall()


def dump(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as ledger:
        return list(ledger.iterdump())


def states(directory: Path) -> dict[str, int]:
    sql = "SELECT status, count(*) FROM label WHERE level_of_theory_id = 2 GROUP BY status"
    return dict(rows(directory, sql))


def todo(directory: Path, file: Path) -> list:
    code, _, err = alloop("export", "todo", "-c", directory, "--tier", "high", "-o", file)
    assert code == 0, err
    return ase.io.read(file, ":")


def label(images: list, energy: float = 1.0, force: float = 1.0, alone: bool = False) -> list:
    """Let tblite label frames, GFN1-xTB, and give the values in other units."""
    keys = {frame.key: made for (_, frame), made in zip(frames(), truth(UPPER), strict=True)}
    for atoms in images:
        ev, forces = keys[atoms.info["frame_key"]]
        results = {"energy": ev / energy} | ({} if alone else {"forces": forces / force})
        atoms.calc = SinglePointCalculator(atoms, **results)
    return images


def write(path: Path, images: list) -> Path:
    ase.io.write(path, images, format="extxyz")
    return path


@pytest.fixture
def labelled(campaign, tmp_path) -> Path:
    """The frames that are asked for, labelled, eV and Å."""
    return write(tmp_path / "back.xyz", label(todo(campaign, tmp_path / "todo.xyz")))


def stored(directory: Path) -> dict[str, tuple[float, np.ndarray | None]]:
    sql = "SELECT key, energy, forces FROM label JOIN frame USING (frame_id)"
    sql += " WHERE level_of_theory_id = 2 AND status = 'done'"
    return {
        key: (energy, None if forces is None else blob_to_vectors(forces))
        for key, energy, forces in rows(directory, sql)
    }


def assert_true(directory: Path, energy: float = 1e-6, force: float = 1e-6) -> None:
    """Every label that is stored is what tblite says of that frame."""
    keys = {frame.key: made for (_, frame), made in zip(frames(), truth(UPPER), strict=True)}
    for key, (ev, forces) in stored(directory).items():
        assert ev == pytest.approx(keys[key][0], abs=energy)
        if forces is not None:
            assert forces == pytest.approx(keys[key][1], abs=force)


def test_frames_to_label_say_what_they_are(campaign, tmp_path):
    images = todo(campaign, tmp_path / "todo.extxyz")
    assert len(images) == 2 * N_ASKED
    by_key = {frame.key: (name, frame) for name, frame in frames()}
    for atoms in images:
        name, frame = by_key[atoms.info["frame_key"]]
        assert atoms.info["system"] == name
        assert (atoms.info["charge"], atoms.info["multiplicity"]) == (
            frame.charge, frame.multiplicity,
        )  # fmt: skip
        assert atoms.info["level_of_theory"] == UPPER
        assert "REF_energy" not in atoms.info
        again = Frame(atoms.numbers, atoms.positions, frame.charge, frame.multiplicity)
        assert again.key == frame.key


def test_labels_come_back(campaign, labelled):
    code, out, err = bring(campaign, labelled, "--program", "tblite elsewhere")
    assert (code, out.strip()) == (0, f"imported {2 * N_ASKED} labels of {UPPER}"), err
    assert "forces are" in err
    assert "energies are" in err
    assert states(campaign) == {"done": 2 * N_ASKED}
    assert len(stored(campaign)) == 2 * N_ASKED
    assert_true(campaign)
    assert rows(campaign, "SELECT sum(n) FROM label_tally WHERE status = 'pending'") == [(0,)]


def test_where_labels_came_from_is_told(campaign, labelled):
    bring(campaign, labelled, "--program", "ORCA 6.0.1")
    ((kind, status, spec),) = rows(campaign, "SELECT kind, status, spec FROM task")
    assert (kind, status) == ("import", "done")
    about = json.loads(spec)
    assert (about["file"], about["program"], about["n_labels"]) == ("back.xyz", "ORCA 6.0.1", 12)
    assert rows(campaign, "SELECT count(DISTINCT label_id), min(program) FROM label_attempt") == [
        (12, "ORCA 6.0.1")
    ]
    ((text,),) = rows(campaign, "SELECT text FROM event WHERE kind = 'import'")
    assert "ORCA 6.0.1" in text
    engine = open_readonly(campaign)
    assert "by ORCA 6.0.1" in why(engine, 1).text()
    assert "label 2 (GFN1-xTB, done)" in lineage(engine, "frame:1").text()
    engine.dispose()


def test_twice_is_once(campaign, labelled):
    bring(campaign, labelled)
    before = dump(campaign)
    code, out, err = bring(campaign, labelled)
    assert (code, out.strip()) == (0, f"imported 0 labels of {UPPER}; 12 were there already"), err
    assert rows(campaign, "SELECT count(*) FROM task") == [(1,)]
    assert f"off differences between frames at {LOWER}" in err  # not off themselves
    assert dump(campaign) == before


def test_order_does_not_matter_and_a_part_may_come_first(campaign, labelled, tmp_path):
    images = ase.io.read(labelled, ":")
    code, out, _ = bring(campaign, write(tmp_path / "some.xyz", images[7:2:-1]))
    assert (code, out.strip()) == (0, f"imported 5 labels of {UPPER}")
    code, out, _ = bring(campaign, write(tmp_path / "all.xyz", images[::-1]))
    assert (code, out.strip()) == (0, f"imported 7 labels of {UPPER}; 5 were there already")
    assert_true(campaign)


def test_atomic_units_with_positions_in_either_unit(campaign, tmp_path):
    images = label(todo(campaign, tmp_path / "todo.xyz"), EV_PER_HARTREE, FORCE_UNIT)
    code, _, err = bring(campaign, write(tmp_path / "au.xyz", images[:6]), units="Hartree, Bohr")
    assert code == 0, err
    for atoms in images:
        atoms.positions /= ANGSTROM_PER_BOHR
    code, _, err = bring(campaign, write(tmp_path / "b.xyz", images[6:]), units="Hartree, Bohr")
    assert code == 0, err
    assert "positions are in bohr" in err
    assert len(stored(campaign)) == 12
    assert_true(campaign)


@pytest.mark.parametrize(
    ("energy", "force", "declared", "words"),
    [
        (EV_PER_HARTREE, FORCE_UNIT, "eV, Å", ("energies, eV as declared", "as Ha they")),
        (EV_PER_HARTREE, FORCE_UNIT, "eV, Å", ("forces, eV/Å as declared", "as Ha/bohr they")),
        (1.0, 1.0, "Hartree, Bohr", ("energies, Ha as declared", "as eV they")),
        (EV_PER_KCAL_MOL, EV_PER_KCAL_MOL, "eV, Å", ("as kcal/mol they", "as kcal/mol/Å they")),
        (EV_PER_HARTREE, FORCE_UNIT, "Hartree, Å", ("forces, Ha/Å as declared", "as Ha/bohr")),
        (1.0, -1.0, "eV, Å", ("as minus eV/Å (gradients, not forces?)",)),
        (EV_PER_HARTREE, -FORCE_UNIT, "Hartree, Bohr", ("as minus Ha/bohr (gradients",)),
    ],
)
def test_wrong_units_are_found(campaign, tmp_path, energy, force, declared, words):
    images = label(todo(campaign, tmp_path / "todo.xyz"), energy, force)
    code, _, err = bring(campaign, write(tmp_path / "back.xyz", images), units=declared)
    assert code == 2
    assert "nothing was imported" in err
    for word in words:
        assert word in err
    assert states(campaign) == {"pending": 12}
    assert rows(campaign, "SELECT count(*) FROM task") == [(0,)]


def test_forces_are_held_against_their_own_energies(campaign, tmp_path):
    """Where nothing else is known: the lower level has no labels."""
    with closing(sqlite3.connect(campaign / "ledger.sqlite")) as ledger:
        ledger.execute("DROP TRIGGER label_done_delete")
        ledger.execute("DELETE FROM label WHERE status = 'done'")
        ledger.commit()
    images = label(todo(campaign, tmp_path / "todo.xyz"), EV_PER_HARTREE, FORCE_UNIT)
    code, _, err = bring(campaign, write(tmp_path / "back.xyz", images), units="Hartree, Å")
    assert code == 2
    assert "the slope of their own energies" in err
    code, _, err = bring(campaign, write(tmp_path / "back.xyz", images), units="Hartree, Bohr")
    assert code == 0
    assert "was not checked" in err


def test_energies_are_held_against_those_of_the_same_level(campaign, labelled, tmp_path):
    images = ase.io.read(labelled, ":")
    assert bring(campaign, write(tmp_path / "some.xyz", images[:11]))[0] == 0
    one = images[11]
    one.calc = SinglePointCalculator(one, energy=one.calc.results["energy"] / EV_PER_HARTREE)
    code, _, err = bring(campaign, write(tmp_path / "one.xyz", [one]))
    assert code == 2
    assert "they fit in Ha" in err
    one.calc = SinglePointCalculator(one, energy=one.calc.results["energy"] + 50.0)
    code, _, err = bring(campaign, write(tmp_path / "one.xyz", [one]), units="Hartree, Bohr")
    assert code == 2
    assert "another level" in err


def test_energies_alone(campaign, tmp_path):
    images = label(todo(campaign, tmp_path / "todo.xyz"), EV_PER_HARTREE, alone=True)
    code, _, err = bring(campaign, write(tmp_path / "back.xyz", images))
    assert code == 2
    assert "as Ha they would be" in err
    code, _, err = bring(campaign, tmp_path / "back.xyz", units="Hartree")
    assert code == 0, err
    assert "12 labels are energies alone" in err
    assert {forces is None for _, forces in stored(campaign).values()} == {True}
    assert_true(campaign)
    code, _, err = alloop(
        "export", "labels", "-c", campaign, "--level", UPPER, "-o", tmp_path / "e.npz"
    )
    assert code == 0, err
    assert all(np.isnan(forces).all() for forces in load_dataset(tmp_path / "e.npz").forces)


@pytest.mark.parametrize("digits", [5, 4])
def test_few_digits(campaign, labelled, tmp_path, digits):
    images = ase.io.read(labelled, ":")
    for atoms in images:
        atoms.positions = atoms.positions.round(digits)
    code, _, err = bring(campaign, write(tmp_path / "short.xyz", images))
    if digits == 5:
        assert code == 0, err
        assert_true(campaign)
    else:
        assert code == 2
        assert "12 of 12 frames" in err
        assert "not in the ledger" in err
        assert "more digits" in err


def test_a_molecule_that_was_turned_and_moved(campaign, labelled, tmp_path):
    images = ase.io.read(labelled, ":")
    for atoms in images:
        q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
        q *= np.sign(np.linalg.det(q))
        results = atoms.calc.results
        atoms.positions = (atoms.positions @ q + [3.0, -2.0, 1.0]).round(7)
        atoms.calc = SinglePointCalculator(
            atoms, energy=results["energy"], forces=results["forces"] @ q
        )
    code, _, err = bring(campaign, write(tmp_path / "turned.xyz", images))
    assert code == 0, err
    assert "12 frames were turned or moved" in err
    assert len(stored(campaign)) == 12
    assert_true(campaign, force=1e-5)


def test_a_mirror_image_is_another_molecule():
    chiral = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.3, 0], [0, 0, 1.7]], float)
    assert superpose(chiral * [1, 1, -1], chiral)[0] > 0.1
    assert superpose(chiral[:, [1, 2, 0]], chiral)[0] < 1e-12


def test_everything_that_is_wrong_is_told_at_once(campaign, labelled, tmp_path):
    images = ase.io.read(labelled, ":")
    others = dict(frames())  # the last frame of each system: nobody asked for it
    unasked = images[0].copy()
    unasked.info |= {"charge": 0, "multiplicity": 1}
    unasked.positions = others["water"].positions
    unasked.calc = SinglePointCalculator(unasked, energy=images[0].calc.results["energy"])
    nan = images[3].copy()
    nan.calc = SinglePointCalculator(
        nan, energy=images[3].calc.results["energy"], forces=np.full((3, 3), np.nan)
    )
    stranger = images[4].copy()
    stranger.positions[0] += 0.3
    stranger.calc = images[4].calc
    silent = images[6].copy()  # the shared geometry, and the file does not say whose
    del silent.info["charge"], silent.info["multiplicity"]
    silent.calc = SinglePointCalculator(silent, energy=images[6].calc.results["energy"])
    twice = images[1].copy()
    twice.calc = SinglePointCalculator(twice, energy=images[1].calc.results["energy"] + 0.5)
    permuted = images[2][[1, 0, 2]]
    permuted.calc = SinglePointCalculator(permuted, energy=images[2].calc.results["energy"])
    elsewhere = images[5].copy()
    elsewhere.info["level_of_theory"] = LOWER
    elsewhere.calc = images[5].calc
    wrong = [unasked, nan, stranger, silent, images[1], twice, permuted, elsewhere]
    code, _, err = bring(campaign, write(tmp_path / "bad.xyz", wrong))
    assert code == 2
    assert states(campaign) == {"pending": 12}
    every = bring(campaign, tmp_path / "bad.xyz", "--drop-bad", "--dry-run")
    assert every[1].strip() == f"would import 1 labels of {UPPER}", every[2]
    assert states(campaign) == {"pending": 12}
    for place, words in (
        (0, "nobody asked for its label"), (1, "a label is not finite"), (2, "not in the ledger"),
        (3, "--charge and --multiplicity"), (5, "the same as frame 4, with another label"),
        (6, "its atoms, in this order, are those of no system"), (7, f"made at {LOWER}"),
    ):  # fmt: skip
        assert f"1 of 8 frames ({place}): " in err
        assert words in err
    code, out, err = bring(campaign, tmp_path / "bad.xyz", "--drop-bad")
    assert (code, out.strip()) == (0, f"imported 1 labels of {UPPER}")
    assert err.count("left out 1 of 8 frames") == 7
    assert_true(campaign)


def test_a_label_that_is_done_is_never_overwritten(campaign, labelled, tmp_path):
    bring(campaign, labelled)
    images = ase.io.read(labelled, ":")
    results = images[0].calc.results
    images[0].calc = SinglePointCalculator(
        images[0], energy=results["energy"] + 0.01, forces=results["forces"]
    )
    code, _, err = bring(campaign, write(tmp_path / "other.xyz", images))
    assert code == 2
    assert "1 of 12 frames (0): has another label already" in err
    assert_true(campaign)


def test_a_failed_label_can_be_made_elsewhere(campaign, labelled, tmp_path):
    with closing(sqlite3.connect(campaign / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE label SET status = 'failed', tries = 3 WHERE label_id = 2")
        ledger.commit()
    assert len(todo(campaign, tmp_path / "todo2.xyz")) == 11
    code, _, _ = alloop(
        "export", "todo", "-c", campaign, "--level", UPPER, "--failed", "-o", tmp_path / "f.xyz"
    )
    assert (code, len(ase.io.read(tmp_path / "f.xyz", ":"))) == (0, 1)
    assert bring(campaign, labelled)[0] == 0
    assert states(campaign) == {"done": 12}


def test_level_and_units_must_be_known(campaign, labelled, tmp_path):
    code, _, err = alloop("import", labelled, "-c", campaign, "--level", "CCSD(T)", "--units", "eV")
    assert code == 2
    assert f"it has {LOWER}, {UPPER}" in err
    code, _, err = alloop("import", labelled, "-c", campaign, "--level", UPPER)
    assert code == 2
    assert "does not say its units" in err
    code, _, err = bring(campaign, labelled, units="furlong")
    assert code == 2
    assert "--units 'furlong'" in err
    code, _, err = alloop("export", "labels", "-c", campaign, "-o", tmp_path / "x.xyz")
    assert code == 2
    assert f"{LOWER} (tier low), {UPPER} (tier high)" in err


def test_a_program_that_only_writes_its_lower_level_back(campaign, tmp_path):
    """An export of finished labels, with the new ones beside: whose are these?"""
    alloop("export", "labels", "-c", campaign, "--tier", "low", "-o", tmp_path / "low.extxyz")
    images = ase.io.read(tmp_path / "low.extxyz", ":")
    asked = {atoms.info["frame_key"] for atoms in todo(campaign, tmp_path / "todo.xyz")}
    images = label([atoms for atoms in images if atoms.info["frame_key"] in asked])
    code, _, err = bring(campaign, write(tmp_path / "both.extxyz", images))
    assert code == 2
    assert "labels in two places, REF_energy and energy" in err


def test_labels_out_and_in_again_as_dataset_and_by_ase(campaign, labelled, tmp_path):
    made = ase.io.read(labelled, ":")
    ase.io.write(tmp_path / "back.traj", made[:6])
    traj = ("import", tmp_path / "back.traj", "-c", campaign, "--level", UPPER)
    assert alloop(*traj, "--units", "Hartree")[0] == 2  # ASE's own files are in eV
    code, _, err = alloop(*traj, "--multiplicity", 1, "--charge", 0)
    assert code == 0, err
    keys = [atoms.info["frame_key"] for atoms in made[6:]]
    chosen = [frame for _, frame in frames() if frame.key in keys]
    truths = {frame.key: made for (_, frame), made in zip(frames(), truth(UPPER), strict=True)}
    data = Dataset(
        tuple(chosen), np.array([truths[f.key][0] for f in chosen]),
        tuple(truths[f.key][1] for f in chosen), ("train",) * 6, ("x",) * 6, ("g",) * 6, UPPER,
    )  # fmt: skip
    save_dataset(tmp_path / "back.npz", data)
    code, _, err = alloop("import", tmp_path / "back.npz", "-c", campaign, "--level", UPPER)
    assert code == 0, err
    assert_true(campaign)
    for name in ("out.npz", "out.extxyz"):
        code, out, _ = alloop(
            "export", "labels", "-c", campaign, "--tier", "high", "-o", tmp_path / name
        )
        assert (code, out.startswith("wrote 12 labels")) == (0, True)
    again = ase.io.read(tmp_path / "out.extxyz", ":")
    dataset = load_dataset(tmp_path / "out.npz")
    assert dataset.level_of_theory == UPPER
    for atoms, frame, energy, forces in zip(
        again, dataset.frames, dataset.energies, dataset.forces, strict=True
    ):
        assert atoms.info["frame_key"] == frame.key
        assert atoms.info["REF_energy"] == pytest.approx(energy, abs=1e-9)
        assert atoms.arrays["REF_forces"] == pytest.approx(forces, abs=1e-7)
        assert energy == pytest.approx(truths.get(frame.key, (energy,))[0], abs=1e-6)
    code, out, _ = alloop(
        "export", "labels", "-c", campaign, "--tier", "low", "--split", "audit", "-o",
        tmp_path / "none.xyz",
    )  # fmt: skip
    assert (code, "no label of" in out) == (0, True)
    assert not (tmp_path / "none.xyz").exists()


def test_arrays_of_others(campaign, tmp_path):
    water = [i for i, (name, _) in enumerate(frames()) if name == "water"][:N_ASKED]
    np.savez(
        tmp_path / "arrays.npz",
        R=np.array([frames()[i][1].positions for i in water]) / ANGSTROM_PER_BOHR,
        Z=NUMBERS, E=np.array([truth(UPPER)[i][0] for i in water]) / EV_PER_HARTREE,
        G=np.array([truth(UPPER)[i][1] for i in water]) / FORCE_UNIT,
    )  # fmt: skip
    words = ("--positions-key", "R", "--numbers-key", "Z", "--energy-key", "E", "--charge", 0)
    code, _, err = bring(
        campaign, tmp_path / "arrays.npz", *words, "--forces-key", "G", units="Hartree, Bohr"
    )
    assert code == 0, err
    assert len(stored(campaign)) == N_ASKED
    assert_true(campaign)


def test_a_campaign_that_is_driven_is_left_alone(campaign, labelled):
    code = (
        "import sys, pathlib, alloop_db.lock as lock\n"
        "with lock.CampaignLock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, campaign], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert driver.stdout.readline() == b"held\n"
        exit_code, _, err = bring(campaign, labelled)
        assert exit_code == 1
        assert f"driven by process {driver.pid}" in err
        assert states(campaign) == {"pending": 12}
        exit_code, out, _ = bring(campaign, labelled, "--dry-run")
        assert (exit_code, out.strip()) == (0, f"would import 12 labels of {UPPER}")
    finally:
        driver.communicate(timeout=20)
    assert bring(campaign, labelled)[0] == 0
    with CampaignLock(campaign):  # and it was given back
        pass


def test_a_ledger_of_before_is_not_half_read(tmp_path):
    older = Path(__file__).parents[1] / "regression" / "ledgers" / "0002.sqlite"
    (tmp_path / "ledger.sqlite").write_bytes(older.read_bytes())
    code, _, err = alloop("export", "labels", "-c", tmp_path, "-o", tmp_path / "x.xyz")
    assert (code, "`alloop start` upgrades it" in err) == (1, True)


def test_a_committee_of_any_tier(campaign, tmp_path):
    with closing(sqlite3.connect(campaign / "ledger.sqlite")) as ledger:
        _add_committees(ledger, ArtifactStore(campaign / "artifacts"))
    for which, expected in (
        ("latest", b"2/0"), ("low", b"1/0"), ("high", b"2/0"), ("1", b"1/0"),
    ):  # fmt: skip
        folder = tmp_path / f"out-{which}"
        code, _, err = alloop("export", "committee", which, "-c", campaign, "-o", folder)
        assert code == 0, err
        files = sorted(folder.iterdir())
        assert [file.name for file in files] == ["member-00.pt", "member-01.pt"]
        assert files[0].read_bytes() == expected
        assert files[0].stat().st_nlink == 1
    code, _, err = alloop("export", "committee", "-c", campaign, "-o", folder)
    assert (code, "holds member files" in err) == (2, True)
    code, _, err = alloop("export", "committee", "none", "-c", campaign, "-o", tmp_path / "no")
    assert (code, "1 (tier low), 2 (tier high)" in err) == (2, True)


def _add_committees(ledger: sqlite3.Connection, store: ArtifactStore) -> None:
    """Add one committee of each tier; its files are not looked into."""
    ledger.execute("PRAGMA foreign_keys=OFF")
    ledger.execute("INSERT INTO generation SELECT 2, 1, 2, 'open', NULL, '{}', opened_at, NULL"
                   " FROM generation")  # fmt: skip
    for committee in (1, 2):
        ledger.execute("INSERT INTO committee VALUES (?, ?, ?, ?, 'now')",
                       (committee, str(committee), committee, committee))  # fmt: skip
        for place in (0, 1):
            content = f"{committee}/{place}".encode()
            digest = store.add(".pt", lambda path, content=content: path.write_bytes(content))
            number = 2 * committee + place
            ledger.execute("INSERT INTO artifact VALUES (?, ?, '.pt', 'model', 3, 'now', NULL)",
                           (number, digest))  # fmt: skip
            ledger.execute(
                "INSERT INTO model (model_id, artifact_id, snapshot_id, generation_id, task_id,"
                " member, mode, kind, architecture, seed, metrics)"
                " VALUES (?, ?, 1, ?, 1, ?, 'plain', 'ani', '{}', ?, '{}')",
                (number, number, committee, f"ani/{place}", number),
            )
            ledger.execute("INSERT INTO committee_member VALUES (?, ?, ?)",
                           (committee, place, number))  # fmt: skip
    ledger.commit()
