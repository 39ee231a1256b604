"""``alloop spacetime`` end to end: GFN2-xTB water, tiny fits, stops, resumption, bad input."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from typer.testing import CliRunner

from alloop.artifacts import ArtifactStore
from alloop.campaign.teachers import find_teachers
from alloop.cli.main import app, main
from alloop.spacetime.files import load_model
from alloop.spacetime.learning import fit as fitting
from alloop.spacetime.propagation.writers import PropagationFile
from alloop.trajectories import Shard, write_shard
from alloop.units import FS as FS_PER_ASE
from alloop_db.ledger import open_ledger
from tests.ledger_rows import Rows
from tests.ledger_sample import _trajectory, fill
from tests.ledger_tiers import add_tier

WATER = "3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
SAMPLE = (
    *("--potential", "GFN2-xTB", "--replicas", 10, "--batch", 4, "--duration", "60 fs"),
    *("--timestep", "0.25 fs", "--record-every", "0.5 fs"),
)
FIT = (
    *("--cutoff", "5 fs", "--networks", 2, "--hidden", "16 16", "--windows", 400),
    *("--steps", 60),
)
BAD, STALLED, PAUSED = 2, 4, 5


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["spacetime", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def complaint(*arguments: object) -> str:
    """Run the program with bad input; return what it complains, which is one line."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["alloop", "spacetime", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == BAD, err.getvalue()
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note:")]
    assert len(lines) == 1, lines
    return lines[0]


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / part) for part in ("", "db", "tasks"))
    return os.environ | {"PYTHONPATH": path}


def weights(path: Path) -> list[torch.Tensor]:
    model = load_model(path)
    return [*model.weights, *model.biases]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with water.xyz and water.h5, its trajectories."""
    folder = tmp_path_factory.mktemp("spacetime")
    (folder / "water.xyz").write_text(WATER)
    code, out, err = run("sample", folder / "water.xyz", *SAMPLE, "-o", folder / "water.h5")
    assert code == 0, err
    assert "10 trajectories, 10 of them whole" in out
    assert "charge 0 assumed" in err
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Path:
    """Return a fitted model."""
    code, out, err = run("fit", folder / "water.h5", *FIT, "-o", folder / "4d.pt")
    assert code == 0, err
    assert "bond, Å" in out
    return folder / "4d.pt"


def test_sampled_trajectories_are_what_was_asked_for(folder):
    shard = Shard(folder / "water.h5")

    assert len(shard) == 10
    assert not (folder / "water.h5.parts").exists()
    for about, trajectory in zip(shard.about, shard, strict=True):
        assert (about.ensemble, about.timestep, about.temperature) == ("nve", 0.25, 0.0)
        assert about.tags["potential"] == "GFN2-xTB"
        assert about.tags["charge"] == 0
        assert trajectory.times[-1] == 60.0
        # The zero-point energy of water is 0.56 eV: the molecule moves, and does not boil.
        assert 0.02 < trajectory.kinetic.mean() < 2.0


def test_sampling_again_finds_its_file_and_spares_another(folder):
    before = (folder / "water.h5").stat().st_mtime_ns
    code, out, _ = run("sample", folder / "water.xyz", *SAMPLE, "-o", folder / "water.h5")

    assert code == 0
    assert "there already" in out
    words = complaint(
        "sample", folder / "water.xyz", *SAMPLE, "--seed", 2, "-o", folder / "water.h5"
    )
    assert "exists and holds something else" in words
    assert (folder / "water.h5").stat().st_mtime_ns == before


def test_a_killed_sampling_goes_on(folder, tmp_path):
    shutil.copy(folder / "water.xyz", tmp_path / "water.xyz")
    command = ["sample", "water.xyz", *SAMPLE, "-o", "killed.h5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "alloop", "spacetime", *map(str, command)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    parts = tmp_path / "killed.h5.parts"
    try:
        end = time.monotonic() + 60.0
        while process.poll() is None and not list(parts.glob("*-00000.h5")):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert process.poll() is None, "it was over before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed.h5").exists()
    first = next(parts.glob("*-00000.h5"))
    written = first.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr("alloop.dynamics.sampling.optimise", None)  # the minimum is known
        code, _, err = run(*command)
        assert code == 0, err

    for one, other in zip(Shard(tmp_path / "killed.h5"), Shard(folder / "water.h5"), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        assert one.about == other.about
    assert not parts.exists()
    assert written  # the part was there, and the batch in it not run again


def test_an_interrupted_sampling_says_how_to_go_on(folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("alloop.report.progress.ProgressDisplay.__call__", interrupt)
    code, _, err = run("sample", folder / "water.xyz", *SAMPLE, "-o", tmp_path / "a.h5")

    assert code == PAUSED
    assert "the same command goes on" in err
    assert "a.h5.parts" in err
    assert list((tmp_path / "a.h5.parts").glob("*-minimum.npz"))


def test_replicas_that_end_early_are_named(folder, tmp_path, monkeypatch):
    """A time step far too long breaks every replica: exit code 4, and the file says why."""
    code, out, err = run(
        *("sample", folder / "water.xyz", "--potential", "GFN2-xTB", "--replicas", 2),
        *("--duration", "80 fs", "--timestep", "4 fs", "--record-every", "4 fs"),
        *("-o", tmp_path / "bad.h5"),
    )

    assert code == STALLED
    assert "0 of them whole" in out
    assert "replica 1 ended early: " in err
    words = complaint("fit", tmp_path / "bad.h5", *FIT, "-o", tmp_path / "x.pt")
    assert "none of 2 trajectories can be used" in words


def test_a_fit_says_how_wrong_it_is(model, folder):
    errors = json.loads((folder / "4d.errors.json").read_text())
    loaded = load_model(model)

    assert loaded.cutoff == 5.0
    assert loaded.n_members == 2
    assert errors["left_out"] == {}
    for split in ("validation", "test"):
        assert errors[split]["n_trajectories"] == 1
    # Much better than uniform motion, though it took a second.
    assert errors["test"]["ensemble"]["bond"] < 0.1 * errors["test"]["ballistic"]["bond"]
    assert len(loaded.metadata["train"]) == 8
    assert not (folder / "4d.pt.checkpoint").exists()


def test_errors_of_trajectories_that_chose_the_networks_are_called_so(folder, tmp_path):
    command = ("fit", folder / "water.h5", *FIT, "--steps", 0, "-o", tmp_path / "v.pt")
    code, out, err = run(*command, "--test", 0)

    assert code == 0
    assert "no test trajectory; errors, if any, are of those that chose the networks" in err
    assert "errors on 1 held-out trajectories" in out
    assert "no test trajectory" not in run(*command)[2]


def test_broken_trajectories_are_left_out_and_named(folder, tmp_path):
    whole = list(Shard(folder / "water.h5"))
    about = dataclasses.replace(whole[3].about, ended="energy_drift")
    whole[3] = dataclasses.replace(whole[3], about=about)
    write_shard(tmp_path / "mixed.h5", whole)
    code, _, err = run("fit", tmp_path / "mixed.h5", *FIT, "--steps", 0, "-o", tmp_path / "m.pt")

    assert code == 0
    assert "left out 1 of 10 trajectories, 1 energy_drift: mixed.h5#3 (energy_drift)" in err
    errors = json.loads((tmp_path / "m.errors.json").read_text())
    assert errors["left_out"] == {"mixed.h5#3": "energy_drift"}


def test_a_killed_fit_goes_on_to_the_same_model(folder, model, tmp_path):
    """It is killed within its steps; afterwards the weights are those of a fit in one go."""
    shutil.copy(folder / "water.h5", tmp_path / "water.h5")
    dying = (
        "import functools, os, signal\n"
        "from alloop.spacetime.learning import fit\n"
        "from alloop.cli import main\n"
        "from alloop.report.progress import ProgressDisplay\n"
        "fit.CheckpointFile = lambda path, owner, *_: KEEP(path, owner, 0.0)\n"
        "ProgressDisplay.__call__ = lambda self, done, *_: (\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if done > 30 else None)\n"
        "main.main()\n"
    ).replace("KEEP", "__import__('alloop.checkpoint').checkpoint.CheckpointFile")
    command = ["fit", "water.h5", *FIT, "-o", "k.pt"]
    done = subprocess.run(
        [sys.executable, "-c", dying, "spacetime", *map(str, command)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "k.pt.checkpoint").exists()
    assert not (tmp_path / "k.pt").exists()

    first = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(
            "alloop.report.progress.ProgressDisplay.__call__",
            lambda self, done, *_: first.append(done),
        )
        code, _, err = run(*command)

    assert code == 0, err
    assert first[0] > 30
    for one, other in zip(weights(tmp_path / "k.pt"), weights(model), strict=True):
        assert torch.equal(one, other)
    assert not (tmp_path / "k.pt.checkpoint").exists()


def test_an_interrupted_fit_says_how_to_go_on(folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("alloop.report.progress.ProgressDisplay.__call__", interrupt)
    code, _, err = run("fit", folder / "water.h5", *FIT, "-o", tmp_path / "i.pt")

    assert code == PAUSED
    assert "the same command goes on" in err


def test_a_fit_out_of_time_keeps_its_state(folder, model, tmp_path, monkeypatch):
    keep = functools.partial(fitting.CheckpointFile, every_s=0.0)
    monkeypatch.setattr(fitting, "CheckpointFile", lambda path, owner, *_: keep(path, owner))
    command = ("fit", folder / "water.h5", *FIT, "-o", tmp_path / "t.pt")
    code, _, err = run(*command, "--time-limit", "1e-6 s")

    assert code == 0
    assert "out of time after 0 of 60 steps; the same command goes on" in err
    assert run(*command)[0] == 0
    for one, other in zip(weights(tmp_path / "t.pt"), weights(model), strict=True):
        assert torch.equal(one, other)


def test_a_warm_start_keeps_what_was_seen_out_of_the_test(folder, model, tmp_path):
    code, _, err = run(
        *("fit", folder / "water.h5", *FIT, "--steps", 10, "--seed", 9),
        *("--init", model, "-o", tmp_path / "warm.pt"),
    )
    assert code == 0, err
    old, new = load_model(model), load_model(tmp_path / "warm.pt")

    assert set(old.metadata["train"]) <= set(new.metadata["train"])
    assert set(new.metadata["earlier"]) == {*old.metadata["train"], *old.metadata["validation"]}
    words = complaint("fit", folder / "water.h5", *FIT, "--networks", 3, "--init", model)
    assert "initial model has other" in words


def test_evaluation_uses_only_what_the_model_has_not_seen(folder, model, tmp_path):
    code, out, err = run("evaluate", model, folder / "water.h5", "--json")
    assert code == 0, err
    judged = json.loads(out)
    fit_errors = json.loads((folder / "4d.errors.json").read_text())

    assert "9 in_training_set" in err
    assert judged["errors"]["n_trajectories"] == 1
    assert judged["errors"] == fit_errors["test"]
    # The same trajectories in another file are the same trajectories.
    write_shard(tmp_path / "renamed.h5", list(Shard(folder / "water.h5"))[::-1])
    code, out, _ = run("evaluate", model, tmp_path / "renamed.h5", "--json")
    assert json.loads(out)["errors"]["n_trajectories"] == 1
    train = [
        int(name.partition("#")[2].partition("@")[0])
        for name in load_model(model).metadata["train"]
    ]
    whole = list(Shard(folder / "water.h5"))
    write_shard(tmp_path / "seen.h5", [whole[i] for i in train])
    assert "all 8 trajectories were used to make it" in complaint(
        "evaluate", model, tmp_path / "seen.h5"
    )


def test_evaluation_with_a_potential_knows_the_change_of_energy(folder, model):
    code, out, err = run("evaluate", model, folder / "water.h5", "--potential", "GFN2-xTB")
    assert code == 0, err
    assert "change of the total energy over a segment: " in out

    _, out, _ = run("evaluate", model, folder / "water.h5", "--potential", "GFN2-xTB", "--json")
    change = json.loads(out)["energy_change"]
    assert change["n_segments"] == 12
    assert change["n_broken"] == 0
    assert 1e-5 < change["rms"] <= change["largest"] < 0.5


def test_propagation_from_trajectories_says_how_each_replica_went(folder, model, tmp_path):
    code, out, err = run(
        *("propagate", model, "--start", folder / "water.h5", "--potential", "GFN2-xTB"),
        *("--duration", "20 fs", "--interval", "1 fs", "--rescue", "-o", tmp_path / "p.h5"),
    )
    assert code == 0, err
    found = PropagationFile(tmp_path / "p.h5")
    starts = list(Shard(folder / "water.h5"))

    assert found.ended == ("completed",) * 10
    assert found.about["settings"]["rule"] == "shell"
    for replica, start in enumerate(starts):
        frames = found.read(replica)
        np.testing.assert_allclose(frames.times, np.arange(21.0))
        np.testing.assert_allclose(frames.positions[0], start.positions[0], atol=1e-6)
        np.testing.assert_allclose(frames.velocities[0], start.velocities[0], atol=1e-6)
        # The reference is at hand: 5 fs later the model is where it was.
        np.testing.assert_allclose(frames.positions[5], start.positions[10], atol=0.1)
    rows = [line.split() for line in out.splitlines()[1:11]]
    assert [row[:3] for row in rows] == [[str(i), "20", "-"] for i in range(10)]
    judged = [float(row[5]) for row in rows if row[5] != "-"]  # not where all was rescued
    assert judged
    assert all(change >= 0.0 for change in judged)


def test_propagation_from_drawn_starts_begins_where_a_sampling_would(folder, model, tmp_path):
    code, out, err = run(
        *("propagate", model, "--start", folder / "water.xyz", "--wigner", "0 K"),
        *("--replicas", 2, "--potential", "GFN2-xTB", "--rule", "select", "--json"),
        *("--duration", "10 fs", "--interval", "2.5 fs", "--rescue", "-o", tmp_path / "p.h5"),
    )
    assert code == 0, err
    courses = json.loads(out)

    assert [course["reached"] for course in courses] == [10.0, 10.0]
    assert {course["ended_by"] for course in courses} == {None}
    frames = PropagationFile(tmp_path / "p.h5").read(1)
    start = Shard(folder / "water.h5").read(1)
    np.testing.assert_allclose(frames.positions[0], start.positions[0], atol=1e-6)


def test_a_propagation_can_start_where_another_was_written(folder, model, tmp_path):
    """From extended XYZ to an ASE trajectory, without a potential."""
    first = ("--duration", "5 fs", "--interval", "5 fs")
    assert run("propagate", model, "--start", folder / "water.h5", *first,
               "-o", tmp_path / "a.extxyz")[0] == 0  # fmt: skip
    code, out, _ = run(
        *("propagate", model, "--start", tmp_path / "a-00000.extxyz", *first),
        *("-o", tmp_path / "b.traj"),
    )

    assert code == 0
    assert "b-*.traj" in out
    start = ase.io.read(tmp_path / "a-00000.extxyz", index=1)
    again = ase.io.read(tmp_path / "b-00001.traj", index=0)
    np.testing.assert_allclose(again.positions, start.positions, atol=1e-6)
    np.testing.assert_allclose(again.get_velocities(), start.get_velocities(), atol=1e-6)
    assert np.abs(start.get_velocities()).max() > 0.01


def test_a_replica_that_cannot_go_on_is_said_to_have_ended(folder, model, tmp_path):
    """Atoms that fly at each other collide: exit code 4, and the table says who and why."""
    atoms = ase.io.read(folder / "water.xyz")
    velocities = np.zeros((3, 3))
    velocities[1] = 40.0 * FS_PER_ASE * (atoms.positions[0] - atoms.positions[1])
    atoms.set_velocities(velocities)
    ase.io.write(tmp_path / "crash.extxyz", atoms)
    code, out, _ = run(
        *("propagate", model, "--start", tmp_path / "crash.extxyz", "--duration", "50 fs"),
        *("--interval", "1 fs", "-o", tmp_path / "c.h5"),
    )

    assert code == STALLED
    row = out.splitlines()[1].split()
    assert row[2] in ("contact", "non-finite")
    assert float(row[1]) < 50.0


def test_an_interrupted_propagation_says_what_is_left(folder, model, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("alloop.report.progress.ProgressDisplay.__call__", interrupt)
    code, _, err = run(
        *("propagate", model, "--start", folder / "water.h5", "-o", tmp_path / "p.h5")
    )

    assert code == PAUSED
    assert f"{tmp_path / 'p.h5.partial'}" in err
    assert PropagationFile(tmp_path / "p.h5.partial").n_frames[0] > 0


@pytest.fixture
def campaign(tmp_path, folder) -> Path:
    """Return the directory of a made-up campaign whose committee 2 ran the water trajectories."""
    directory = tmp_path / "run"
    engine = open_ledger(directory, create=True)
    fill(engine)
    store = ArtifactStore(directory / "artifacts")
    sha256 = store.add(".h5", lambda path: shutil.copy(folder / "water.h5", path))
    with engine.begin() as connection:
        rows = Rows(connection)
        rows.artifact(40, "trajectory", ".h5", 6, sha256)
        splits = ["train"] * 7 + ["validation"] * 2 + ["audit"]
        for replica, split in enumerate(splits):
            _trajectory(
                rows,
                trajectory_id=40 + replica,
                artifact_id=40,
                replica=replica,
                task_id=6,
                route="free",
                committee_id=2,
                split=split,
                temperature=300.0 if replica < 8 else 500.0,
            )
    engine.dispose()
    return directory


def test_a_campaign_is_learnt_from_by_its_ledger(campaign, tmp_path):
    output = tmp_path / "c.pt"
    code, _, err = run("fit", "--campaign", campaign, *FIT, "--steps", 0, "-o", output)
    assert code == 0, err
    data = load_model(output).metadata

    # Committee 1 errs twice as much as committee 2: its three trajectories are not taken.
    assert "10 trajectories of water, where relative_error <= 1.5 OR committee_id = 2" in err
    assert "3 others are not" in err
    names = {key: [name.partition("@")[0] for name in data[key]] for key in ("train", "validation")}
    assert names["train"] == [f"trajectory {40 + i}" for i in range(7)]
    assert names["validation"] == ["trajectory 47", "trajectory 48"]
    errors = json.loads((tmp_path / "c.errors.json").read_text())
    assert errors["test"]["n_trajectories"] == 1


def test_conditions_choose_trajectories(campaign, tmp_path):
    condition = "committee_id = 2 AND temperature < 400 -- cold"
    code, _, err = run(
        *("fit", "-c", campaign, "--where", condition, *FIT, "--steps", 0),
        *("-o", tmp_path / "c.pt"),
    )
    assert code == 0, err
    names = load_model(tmp_path / "c.pt").metadata["validation"]
    assert [name.partition("@")[0] for name in names] == ["trajectory 47"]

    give = functools.partial(complaint, "fit", "-c", campaign, *FIT, "-o", tmp_path / "x.pt")
    assert "none of 13 trajectories of water meets" in give("--where", "temperature > 9000")
    assert "no such column: hotness" in give("--where", "hotness > 1")
    assert "one statement" in give("--where", "1); DELETE FROM trajectory; --")
    assert "no committee 9; there are 1, 2" in give("--committee", 9)
    assert "want a number or latest" in give("--committee", "best")
    assert "no trajectory of benzene" in give("--system", "benzene")


def test_a_tier_means_its_latest_committee_that_has_run(campaign, tmp_path):
    engine = open_ledger(campaign, create=False)
    add_tier(engine)
    with engine.begin() as connection:  # of tier dft committee 3 has run, 4 has not
        _trajectory(
            Rows(connection),
            trajectory_id=60,
            artifact_id=40,
            replica=10,
            task_id=6,
            route="free",
            committee_id=3,
        )
    engine.dispose()
    fit = ("fit", "-c", campaign, *FIT, "--steps", 0, "-o", tmp_path / "t.pt")
    code, _, err = run(*fit, "--tier", "xtb")
    assert code == 0, err
    assert "10 trajectories of water, where relative_error <= 1.5 OR committee_id = 2" in err

    give = functools.partial(complaint, *fit)
    assert find_teachers(campaign, tier="dft").committee_id == 3
    # The latest of all is of tier dft too, with less than half the error of committee 3.
    assert "'relative_error <= 1.5 OR committee_id = 4'" in give()
    assert "tier 'ccsd' has no committee; there are some of xtb, dft" in give("--tier", "ccsd")
    assert "a tier means its latest" in give("--tier", "xtb", "--committee", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "{}/no.xyz", "-o", "x.h5", "--potential", "GFN2-xTB"], "there is no file"),
        (["sample", "{}/water.xyz", "-o", "x.h5"], "--potential: say which"),
        (["sample", "{}/water.xyz", "-o", "x.h5", "--potential", "GFN9"], "no potential 'GFN9'"),
        (
            ["sample", "{}/water.xyz", "-o", "x.h5", "--potential", "ANI-1x", "--charge", "1"],
            "neutral molecules only",
        ),
        (["sample", "{}/water.xyz", "-o", "x.h5", "--duration", "4"], "--duration: needs a unit"),
        (["sample", "{}/water.xyz", "-o", "x.h5", "--temperature", "-1 K"], "--temperature: must"),
        (["fit"], "no trajectories: name shards"),
        (["fit", "{}/water.h5", "--where", "1"], "--where: needs --campaign"),
        (["fit", "{}/water.h5", "--tier", "dft"], "--tier: needs --campaign"),
        (["fit", "{}/water.xyz"], "cannot be read as a trajectory shard"),
        (["fit", "{}/water.h5", "--cutoff", "3 K"], "that is a temperature"),
        (["fit", "{}/water.h5", "--cutoff", "0.7 fs"], "not a multiple"),
        (["fit", "{}/water.h5", "--hidden", "many"], "--hidden: want whole numbers"),
        (["fit", "{}/water.h5", "--hidden", "0"], "widths of hidden layers"),
        (["fit", "{}/water.h5", "--interval", "0.3 fs"], "0.3 fs are wanted"),
        (["fit", "{}/water.h5", "--validation", "0.5", "--test", "0.5"], "leave nothing"),
        (["fit", "{}/water.h5", "{}/water.h5"], "are the same trajectory"),
        (["fit", "{}/water.h5", "--energy-weight", "1"], "--potential: say which"),
        (["fit", "{}/water.h5", "--init", "{}/water.h5"], "cannot be read as a 4D model"),
        (["evaluate", "{}/no.pt", "{}/water.h5"], "cannot be read as a 4D model"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, words):
    assert words in complaint(*(argument.format(folder) for argument in arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--start", "{}/water.xyz"], "has no velocities"),
        (["--start", "{}/no.h5"], "does not exist"),
        (["--start", "{}/4d.pt"], "cannot be read"),
        (["--start", "{}/water.h5", "--rule", "shell"], "need --potential"),
        (["--start", "{}/water.h5", "--rescue"], "need --potential"),
        (["--start", "{}/water.xyz", "--wigner", "0 K"], "--potential: say which"),
        (["--start", "{}/water.xyz", "--wigner", "300"], "--wigner: needs a unit"),
        (["--start", "{}/water.xyz", "--wigner", "0 K", "--thermal", "9 K"], "choose one"),
        (["--start", "{}/water.h5", "--duration", "-3 ps"], "--duration: must be greater"),
        (["--start", "{}/water.h5", "-o", "p.pdb"], "want .h5, .extxyz or .traj"),
        (["--start", "{}/water.h5", "-o", "{}/water.h5"], "exists; name another"),
        (["--start", "{}/methane.traj"], "the model is of [8, 1, 1]"),
    ],
)
def test_propagations_that_make_no_sense_are_one_line(
    folder, model, tmp_path, monkeypatch, arguments, words
):
    methane = molecule("CH4")
    methane.set_velocities(np.ones((5, 3)))
    ase.io.write(folder / "methane.traj", methane)
    monkeypatch.chdir(tmp_path)
    given = [argument.format(folder) for argument in arguments]
    given += [] if "-o" in given else ["-o", "p.h5"]
    assert words in complaint("propagate", model, *given)
    assert list(tmp_path.iterdir()) == []
