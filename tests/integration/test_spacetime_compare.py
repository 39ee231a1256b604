"""``alloop spacetime compare`` and ``attribute`` on GFN2-xTB water; the report's 4D pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

import alloop.report.spacetime
from alloop.analysis.energy import energy_drift, total_energy
from alloop.analysis.geometry import rmsd_along, rmsd_map
from alloop.analysis.plots import draw_spectra as _draw
from alloop.analysis.similarity import compare
from alloop.analysis.spectrum import mean_spectrum, power_spectra
from alloop.artifacts import ArtifactStore
from alloop.report import spacetime_motion
from alloop.report.comparison import compare_motions
from alloop.report.html import write_report
from alloop.report.motions import Motion, Sides
from alloop.spacetime.files import load_model
from alloop.spacetime.judging.accuracy import assess
from alloop.spacetime.judging.growth import error_growth
from alloop.spacetime.judging.held_out import gather_held_out
from alloop.spacetime.learning.sources import list_sources
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.propagation.writers import PropagationFile
from alloop.trajectories import Shard, write_shard
from alloop_db.ledger import open_ledger
from alloop_db.schema import SpacetimeModel, SpacetimeTrajectory
from tests.integration.test_spacetime_verbs import FIT, WATER, complaint, run
from tests.ledger_rows import Rows
from tests.ledger_sample import _trajectory, fill
from tests.report_pages import Page

N, LENGTH = 8, 120.0
PICTURES = {"spectra", "distributions", "rmsd", "rmsd_map", "energy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with water.h5, every 0.5 fs, a 4D model 4d.pt and its motion p.h5."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "water.xyz").write_text(WATER)
    for command in (
        ("sample", folder / "water.xyz", "--potential", "GFN2-xTB", "--replicas", N, "--duration",
         f"{LENGTH} fs", "--timestep", "0.5 fs", "-o", folder / "water.h5"),
        ("fit", folder / "water.h5", *FIT, "--hidden", "64 64", "--steps", 600,
         "--windows", 3000, "--test", 0.35, "-o", folder / "4d.pt"),
        ("propagate", folder / "4d.pt", "--start", folder / "water.h5", "--duration",
         f"{LENGTH} fs", "--interval", "1 fs", "--potential", "GFN2-xTB", "--rescue",
         "-o", folder / "p.h5"),
    ):  # fmt: skip
        code, _, err = run(*command)
        assert code == 0, f"{command[0]}: {err}"
    return folder


def shard_of(path: Path, like: Path, *replicas: int, n_frames: int | None = None, every=1) -> Path:
    """Write some trajectories of a shard, cut or thinned, as another shard."""
    cut = []
    for replica in replicas:
        trajectory = Shard(like).read(replica)
        names = (f.name for f in dataclasses.fields(trajectory))
        arrays = {n: getattr(trajectory, n) for n in names if n not in ("system", "about")}
        span = slice(None, n_frames, every)
        arrays = {name: array[span] for name, array in arrays.items()}
        cut.append(dataclasses.replace(trajectory, **arrays))
    write_shard(path, cut)
    return path


def compared(tmp_path: Path, candidate: Path, reference: Path, *more: object) -> dict:
    code, out, err = run(
        *("compare", candidate, "--reference", reference, "-o", tmp_path / "c", "--json", *more)
    )
    assert code == 0, err
    assert json.loads((tmp_path / "c" / "comparison.json").read_text()) == json.loads(out)
    return json.loads(out)


def pictures(folder: Path) -> set[str]:
    found = list(folder.glob("*.png"))
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in found)
    return {path.stem for path in found}


def test_a_propagation_is_held_against_its_reference(folder, tmp_path):
    potential = ("--potential", "GFN2-xTB")
    values = compared(tmp_path, folder / "p.h5", folder / "water.h5", *potential)
    true, told = list(Shard(folder / "water.h5")), PropagationFile(folder / "p.h5")
    made = [told.read(i) for i in range(N)]

    assert pictures(tmp_path / "c") == PICTURES
    assert (values["paired"], values["interval"]) == (True, 1.0)
    assert values["notes"] == [f"reference: {N} trajectories thinned to every 1 fs"]
    spectra = power_spectra(
        [*(t.velocities[::2] for t in true), *(f.velocities for f in made)],
        told.masses,
        1.0,
    )
    expected = dataclasses.asdict(compare(spectra[:N], spectra[N:]))
    assert expected == {k: pytest.approx(values["spectra"][k]) for k in expected}
    assert values["spectra"]["n_each"] == N // 2
    moving = np.mean([t.kinetic[::2].mean() for t in true])
    assert values["spectra"]["kinetic_energy"]["reference"] == pytest.approx(moving, rel=1e-3)
    curves = [rmsd_along(t.positions[::2], f.positions) for t, f in zip(true, made, strict=True)]
    np.testing.assert_allclose(values["rmsd"]["mean"], np.mean(curves, axis=0), atol=1e-9)
    np.testing.assert_allclose(values["rmsd"]["largest"], np.max(curves, axis=0), atol=1e-9)
    assert values["rmsd"]["times"] == list(np.arange(LENGTH + 1))
    assert values["rmsd"]["at_start"] < 1e-5
    near = rmsd_map(true[0].positions[::2], made[0].positions).min(axis=0)
    assert values["rmsd_map"]["nearest_mean"] == pytest.approx(near.mean())
    first = energy_drift(
        total_energy(true[0].potential, true[0].velocities, told.masses)[::2], true[0].times[::2]
    )
    assert values["energy"]["reference"]["trajectories"]["water.h5#0"] == pytest.approx(
        {"slope": first.slope, "rms": first.rms, "largest": first.largest}
    )
    # The file has no potential energies: they are those of --potential.
    assert len(values["energy"]["candidate"]["trajectories"]) == N
    assert 1e-4 < values["energy"]["candidate"]["rms"] < 1.0


def test_geometries_are_compared_in_internal_coordinates(folder, tmp_path):
    """A stretched copy has other bonds, and the same angles, as a rotated one has all the same."""
    stretched = []
    for trajectory in Shard(folder / "water.h5"):
        oxygen = trajectory.positions[:, :1]
        moved = oxygen + 1.1 * (trajectory.positions - oxygen)
        stretched.append(dataclasses.replace(trajectory, positions=moved[..., [1, 2, 0]]))
    write_shard(tmp_path / "s.h5", stretched)
    found = compared(tmp_path, tmp_path / "s.h5", folder / "water.h5")["distributions"]

    assert sorted(name.split()[0] for name in found) == ["angle", "bond", "bond"]
    for name, one in found.items():
        if name.startswith("angle"):
            # Paired by place: what is equal scores exactly what the reference scores.
            assert one["value"] == pytest.approx(one["floor"])
            assert one["outside"] == 0.0
        else:
            assert one["value"] < one["floor"] - 0.1


def test_angles_are_wrapped_alike(tmp_path, monkeypatch):
    """A dihedral about 180 degrees is one peak, whichever sign a frame gives it."""
    atoms = molecule("H2O2")
    numbers, masses = atoms.numbers.astype(np.int64), atoms.get_masses()
    rng = np.random.default_rng(3)

    def motion(name: str) -> Motion:
        frames = []
        for turn in rng.normal(180.0, 8.0, 60):
            atoms.set_dihedral(*_chain(numbers), turn, indices=[_chain(numbers)[-1]])
            frames.append(atoms.positions + 1e-3 * rng.normal(size=(4, 3)))
        return Motion(name, 0.0, 1.0, np.array(frames), np.zeros((60, 4, 3)), None)

    sides = Sides(
        numbers, masses, 1.0, tuple(motion(f"r{i}") for i in range(6)),
        tuple(motion(f"c{i}") for i in range(6)), {}, (),
    )  # fmt: skip
    drawn = {}
    monkeypatch.setattr(
        "alloop.analysis.plots.draw_distributions", lambda _, found: drawn.update(found)
    )
    values = compare_motions(sides, tmp_path)

    (name,) = [name for name in values["distributions"] if name.startswith("dihedral")]
    one = values["distributions"][name]
    # Some 360 draws reach three standard deviations, 24 degrees, to either side.
    assert np.radians(30.0) < np.ptp(drawn[name].edges) < np.radians(90.0)
    assert one["outside"] < 0.1
    assert one["value"] == pytest.approx(one["floor"], abs=0.1)
    assert any("spectra cannot be given: " in note for note in values["notes"])
    assert any("energy cannot be given: no file" in note for note in values["notes"])


def _chain(numbers: np.ndarray) -> list[int]:
    """Return the atoms H-O-O-H of ASE's hydrogen peroxide, in this order."""
    oxygen, hydrogen = np.flatnonzero(numbers == 8), np.flatnonzero(numbers == 1)
    return [int(hydrogen[0]), int(oxygen[0]), int(oxygen[1]), int(hydrogen[1])]


def test_what_few_or_short_trajectories_do_not_allow_is_said(folder, tmp_path):
    one = shard_of(tmp_path / "one.h5", folder / "water.h5", 0)
    code, out, err = run(
        *("compare", folder / "p.h5", "--reference", one, "-o", tmp_path / "few"),
    )
    assert code == 0, err
    assert "spectra cannot be given: comparison: got 1 reference" in err
    assert "distributions cannot be given: " in err
    assert "rmsd cannot be given: 8 candidate and 1 reference trajectories make no pairs" in err
    assert "not paired: if both sides share starts, scores are higher than their floors" in err
    assert pictures(tmp_path / "few") == {"rmsd_map", "energy"}
    assert "not paired" in out
    assert "total energy of the candidate: no potential energies" in out

    short = shard_of(tmp_path / "short.h5", folder / "water.h5", 1, n_frames=40)
    code, out, err = run(
        *("compare", short, shard_of(tmp_path / "c.h5", folder / "water.h5", 4, 5, 6)),
        *("-r", shard_of(tmp_path / "r.h5", folder / "water.h5", 0, 1, 2, 3)),
        *("-o", tmp_path / "short"),
    )
    assert code == 0, err
    # The pair of the short one goes too, so that places still mean pairs.
    assert "2 trajectories are left out: shorter than 120 fs, or their pairs" in err
    values = json.loads((tmp_path / "short" / "comparison.json").read_text())
    assert "rmsd: the pairs do not begin alike" in err
    assert values["spectra"]["n_each"] == 1
    assert values["spectra"]["length"] == LENGTH + 0.5
    assert pictures(tmp_path / "short") == PICTURES
    assert "similarity of power spectra" in out


def test_comparisons_that_make_no_sense_are_one_line(folder, tmp_path):
    odd = shard_of(tmp_path / "odd.h5", folder / "water.h5", 0, every=3)
    give = [("compare", folder / "p.h5", "-r"), ("-o", tmp_path / "x")]
    other = dataclasses.replace(
        Shard(odd).read(0),
        system=dataclasses.replace(Shard(odd).system, numbers=np.array([16, 1, 1])),
    )
    write_shard(tmp_path / "other.h5", [other])
    assert "has a frame every 1 fs, another trajectory every 1.5 fs" in complaint(
        *give[0], odd, *give[1]
    )
    assert "want the same atoms in the same order" in complaint(
        *give[0], tmp_path / "other.h5", *give[1]
    )
    assert "is no propagation, and as trajectories: " in complaint(
        *give[0], folder / "water.xyz", *give[1]
    )
    assert not (tmp_path / "x").exists()
    assert "exists; name another" in complaint(*give[0], folder / "water.h5", "-o", odd)


def test_an_attribution_says_what_decides(folder, tmp_path):
    command = (
        *("attribute", folder / "4d.pt", "--start", folder / "water.h5"),
        *("--frames", folder / "water.h5", "--time", "4 fs", "-o", tmp_path / "a.png"),
    )
    words = complaint(*command, "--coordinate", "bond C7-H9")
    names = words.partition("the model has ")[2].split(", ")
    assert len(names) == 3
    code, out, err = run(*command, "--coordinate", names[0], "--json")
    assert code == 0, err
    values = json.loads(out)

    assert "holds 8 starts; the first is taken" in err
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (values["coordinate"], values["unit"], values["n_networks"]) == (names[0], "Å", 2)
    assert list(values["inputs"]) == [*names, *(f"rate of {name}" for name in names)]
    shares = values["inputs"]
    total = sum(one["mean"] for one in shares.values())
    assert abs(total - values["change"]) <= values["completeness_error"] < 1e-3
    # Within 4 fs a bond depends on where it was and on how fast, on nothing else as much.
    largest = sorted(shares, key=lambda name: -abs(shares[name]["mean"]))[:2]
    assert set(largest) == {names[0], f"rate of {names[0]}"}
    code, out, _ = run(*command, "--coordinate", names[0])
    assert out.splitlines()[0].startswith(f"{names[0]} after 4 fs, 2 networks, 8 baselines")
    assert "completeness error at most" in out
    late = complaint(*command, "--coordinate", names[0], "--time", "9 fs")
    assert "from 0 to the cutoff 5.0 fs" in late


@pytest.fixture(scope="module")
def ammonia(tmp_path_factory) -> Path:
    """Return a folder with ammonia.h5 and a 4D model 4d.pt of it."""
    folder = tmp_path_factory.mktemp("ammonia")
    ase.io.write(folder / "ammonia.xyz", molecule("NH3"))
    for command in (
        ("sample", folder / "ammonia.xyz", "--potential", "GFN2-xTB", "--replicas", 4,
         "--duration", "30 fs", "--timestep", "0.5 fs", "-o", folder / "ammonia.h5"),
        ("fit", folder / "ammonia.h5", *FIT, "--test", 0, "-o", folder / "4d.pt"),
    ):  # fmt: skip
        code, _, err = run(*command)
        assert code == 0, f"{command[0]}: {err}"
    return folder


def test_a_start_of_another_isomer_is_brought_home_first(ammonia, tmp_path):
    """What decides about a mirror image is what decides about the original."""
    flip = np.array([1.0, -1.0, 1.0])
    mirrored = [
        dataclasses.replace(t, positions=t.positions * flip, velocities=t.velocities * flip)
        for t in Shard(ammonia / "ammonia.h5")
    ]
    frames = {True: tmp_path / "mirrored.h5", False: ammonia / "ammonia.h5"}
    write_shard(frames[True], mirrored)
    found = []
    # Start as it is, then its mirror image; frames of the one isomer, then of the other.
    for start, others in ((False, False), (True, False), (True, True)):
        code, out, err = run(
            *("attribute", ammonia / "4d.pt", "--start", frames[start]),
            *("--frames", frames[others], "--coordinate", "bond H1-N0"),
            *("--time", "5 fs", "-o", tmp_path / "a.png", "--json"),
        )
        assert code == 0, err
        assert ("mirrored: brought there" in err) is start
        found.append(json.loads(out))
    one, *others = found

    assert abs(one["change"]) > 1e-3
    for other in others:
        assert other["change"] == pytest.approx(one["change"], abs=1e-6)
        for name, shares in one["inputs"].items():
            assert other["inputs"][name] == pytest.approx(shares, abs=1e-6)


def test_errors_by_time_end_where_the_assessment_says(folder):
    model = load_model(folder / "4d.pt")
    data, _ = gather_held_out(model, list_sources([folder / "water.h5"]))
    indices = list(range(len(data.ids)))
    found, judged = error_growth(model, data, indices), assess(model, data, indices)

    assert found.times.tolist() == [0.5 * i for i in range(1, 11)]
    assert found.n_segments == judged.n_segments
    for kind in ("bond", "angle"):
        for mine, yours in (
            (found.ensemble, judged.ensemble),
            (found.ballistic, judged.ballistic),
        ):
            assert float(mine[kind][-1]) == pytest.approx(yours[f"{kind}_end"])
            assert float(mine[kind][0]) < 0.3 * yours[f"{kind}_end"]


@pytest.fixture
def campaign(tmp_path, folder) -> Path:
    """Return the directory of a campaign whose 4D model 3 is in use, with audit trajectories."""
    directory = tmp_path / "run"
    engine = open_ledger(directory, create=True)
    fill(engine)
    store = ArtifactStore(directory / "artifacts")
    digests = [
        store.add(suffix, lambda path, name=name: shutil.copy(folder / name, path))
        for suffix, name in ((".h5", "water.h5"), (".pt", "4d.pt"))
    ]
    with engine.begin() as connection:
        rows = Rows(connection)
        rows.artifact(40, "trajectory", ".h5", 6, digests[0])
        rows.task(33, "fit_spacetime", 1)
        rows.artifact(41, "spacetime_model", ".pt", 33, digests[1])
        rows.add(
            SpacetimeModel,
            {
                "spacetime_model_id": 3,
                "artifact_id": 41,
                "system_id": 1,
                "committee_id": 2,
                "generation_id": 2,
                "task_id": 33,
                "cutoff": 5.0,
                "seed": 6,
                "metrics": {"test": {"ensemble": {"bond": 0.003}}},
                "status": "promoted",
                "reason": "better",
                "parent_spacetime_model_id": 1,
            },
        )
        for replica in range(N):
            key = 40 + replica
            _trajectory(
                rows, trajectory_id=key, artifact_id=40, replica=replica, task_id=6,
                route="free", committee_id=2, split="audit",
            )  # fmt: skip
            rows.add(
                SpacetimeTrajectory,
                {"spacetime_model_id": 3, "trajectory_id": key, "split": "audit"},
            )
    engine.dispose()
    return directory


def test_the_report_shows_how_the_4d_model_in_use_moves(campaign, folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        spacetime_motion, "draw_spectra", lambda *given: drawn.append(given) or _draw(*given)
    )
    begun = time.process_time()
    page = Page(write_report(campaign).read_text(encoding="utf-8"))
    spent = time.process_time() - begun

    _, reference, candidates = drawn[0]
    (spectrum, comparison) = candidates["4D model"]
    model = load_model(folder / "4d.pt")
    unseen, _ = gather_held_out(model, list_sources([folder / "water.h5"]))
    n_unseen = len(unseen.ids)
    starts = [
        np.stack([part[0] for part in parts]) for parts in (unseen.positions, unseen.velocities)
    ]
    told = propagate(model, *map(torch.from_numpy, starts), Regular(LENGTH, 0.5))
    sound = [i for i, reason in enumerate(told.reasons) if reason is None]
    assert comparison.n_each == len(sound) // 2 > 0
    for shown, moves in (
        (reference, [unseen.velocities[i] for i in sound]),
        (spectrum, [told.velocities[i] for i in sound]),
    ):
        expected = mean_spectrum(power_spectra(moves, unseen.masses, 0.5))
        np.testing.assert_allclose(shown.intensities, expected.intensities)
    # A bend and stretches: the model has them where the molecule has them.
    assert comparison.value > 0.8
    assert f"Motion of 120 fs from {len(sound)} held-out starts" in page.text
    assert "Mean kinetic energy: " in page.text
    n_ended = n_unseen - len(sound)
    assert (f"{n_ended} more ended early" in page.text) is (n_ended > 0)
    assert f"{24 * n_unseen} segments of {n_unseen} trajectories" in page.text
    without = pictures_without_motion(campaign, monkeypatch)
    assert len(page.pictures()) == without + 2
    assert spent < 10.0


def pictures_without_motion(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many pictures the page has without those of motion."""
    monkeypatch.setattr(alloop.report.spacetime, "show_motion", lambda *_: [])
    return len(Page(write_report(campaign).read_text(encoding="utf-8")).pictures())


def test_what_cannot_be_shown_is_a_line_of_the_report(campaign, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("the <b>disk</b>\nis full")

    monkeypatch.setattr(spacetime_motion, "propagate", fail)
    page = Page(write_report(campaign).read_text(encoding="utf-8"))
    assert "Power spectra: cannot be shown: the <b>disk</b> is full" in page.text
    assert "segments of" in page.text  # the other picture is there

    monkeypatch.setattr(spacetime_motion, "SHORTEST", 130.0)
    page = Page(write_report(campaign).read_text(encoding="utf-8"))
    assert "last no longer than 120 fs, want 130" in page.text

    for path in (campaign / "artifacts").rglob("*.pt"):
        path.write_bytes(b"damaged")
    page = Page(write_report(campaign).read_text(encoding="utf-8"))
    assert "Motion of model 3 beside held-out trajectories: cannot be shown: artifact" in page.text
