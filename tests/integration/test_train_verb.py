"""``alloop train`` and ``alloop evaluate`` on a small file whose labels are an exact law."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import ase.io
import numpy as np
import pytest
from typer.testing import CliRunner

from alloop.cli.main import app, main
from alloop.datasets import Dataset
from alloop.frames import Frame
from alloop.potentials.files import load_member, save_member
from alloop.training.members import Recipe, fit_members
from alloop.training.settings import TrainSettings

KEYS = (
    *("--energy-key", "energies", "--forces-key", "forces"),
    *("--positions-key", "coords", "--numbers-key", "z"),
    *("--energy-unit", "kcal/mol", "--level", "morse"),
)
KCAL = 0.0433641  # eV
SETTINGS = "max_steps: 40\nbatch_size: 8\nlearning_rate: 0.01\n"


def pair_labels(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return energies and forces of Morse pairs, eV."""
    vectors = positions[:, :, None] - positions[:, None]
    distances = np.linalg.norm(vectors, axis=-1)
    i, j = np.triu_indices(positions.shape[1], 1)
    decay = np.exp(-1.5 * (distances[:, i, j] - 1.1))
    energies = ((1.0 - decay) ** 2).sum(1) - 20.0
    slope = 2.0 * 1.5 * (1.0 - decay) * decay
    forces = np.zeros_like(positions)
    direction = vectors[:, i, j] / distances[:, i, j][..., None]
    for pair, (a, b) in enumerate(zip(i, j, strict=True)):
        forces[:, a] -= slope[:, pair, None] * direction[:, pair]
        forces[:, b] += slope[:, pair, None] * direction[:, pair]
    return energies, forces


def write_data(path: Path, n: int = 60, seed: int = 0) -> Path:
    """Write water-like frames, in kcal/mol; six runs of equal length."""
    rng = np.random.default_rng(seed)
    start = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = start + 0.08 * rng.normal(size=(n, 3, 3))
    energies, forces = pair_labels(positions)
    np.savez(
        path,
        coords=positions,
        energies=energies / KCAL,
        forces=forces / KCAL,
        z=np.array([8, 1, 1]),
        run=np.arange(n) * 6 // n,
    )
    return path


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def program(*arguments: object) -> tuple[int, str]:
    """Run the program with its handling of errors; return its exit code and what it complains."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["alloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), err.getvalue()


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / part) for part in ("", "db", "tasks"))
    return os.environ | {"PYTHONPATH": path}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with data, settings and a committee of two, and what was printed."""
    folder = tmp_path_factory.mktemp("train")
    write_data(folder / "data.npz")
    (folder / "train.yaml").write_text(SETTINGS)
    code, out, err = run(*command(folder), "--test", 0.2, "--group-key", "run")
    assert code == 0, err
    return folder, out, err


def command(folder: Path, output: str = "models") -> list[object]:
    return [
        *("train", folder / "data.npz", *KEYS, "--kind", "schnet", "--members", 2),
        *("--settings", folder / "train.yaml", "--output", folder / output, "--validation", 0.2),
    ]


def test_it_learns_and_says_how_well(trained):
    folder, out, err = trained

    errors = json.loads((folder / "models" / "errors.json").read_text())
    assert set(errors) == {"training", "validation", "test"}
    assert errors["training"]["n_frames"] == 40
    assert errors["test"]["n_frames"] == 10
    spread = np.std(pair_labels(load(folder / "data.npz")["coords"])[1])
    assert errors["test"]["force_rmse"] < 0.5 * spread
    assert set(errors["test"]["elements"]) == {"H", "O"}
    assert "force MAE of O, meV/Å" in out
    assert str(folder / "models") in out
    assert "multiplicity 1, the lowest possible" in err
    for path in sorted((folder / "models").glob("*.pt")):
        assert load_member(path).level_of_theory == "morse"
    assert [p.name for p in sorted((folder / "models").iterdir())] == [
        *("errors.json", "member-00.pt", "member-01.pt"),
    ]


def test_members_differ_and_begin_alike_again(trained):
    folder, _, _ = trained
    code, _, _ = run(*command(folder, "again"), "--test", 0.2, "--group-key", "run")

    assert code == 0
    first, second = ((folder / "models" / f"member-0{i}.pt").read_bytes() for i in range(2))
    assert first != second
    assert (folder / "again" / "member-01.pt").read_bytes() == second


def test_what_is_finished_is_kept(trained):
    folder, _, _ = trained
    path = folder / "models" / "member-00.pt"
    before = path.stat().st_mtime_ns

    code, out, _ = run(*command(folder), "--test", 0.2, "--group-key", "run")

    assert code == 0
    assert "member 0 is there already" in out
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change", [["--seed", 2], ["--energy-unit", "kJ/mol"], ["--level", "other"], ["--test", 0.4]]
)
def test_a_folder_of_another_training_is_left_alone(trained, change):
    folder, _, _ = trained
    before = (folder / "models" / "member-00.pt").read_bytes()

    code, err = program(*command(folder), "--test", 0.2, "--group-key", "run", *change)

    assert code == 1
    assert "is of another training" in err
    assert (folder / "models" / "member-00.pt").read_bytes() == before


def test_evaluate_agrees_with_the_training_s_own_test(trained):
    folder, _, _ = trained
    data = load(folder / "data.npz")
    test = json.loads((folder / "models" / "errors.json").read_text())
    whole = [test[name] for name in ("training", "validation", "test")]

    code, out, _ = run("evaluate", folder / "models", folder / "data.npz", *KEYS, "--json")

    assert code == 0
    found = json.loads(out)
    assert found["n_frames"] == len(data["energies"])
    mean = sum(part["force_mae"] * part["n_frames"] for part in whole) / found["n_frames"]
    assert found["force_mae"] == pytest.approx(mean, rel=1e-4)
    assert found["reliability"]["force_factor"] > 0.0
    single = folder / "models" / "member-00.pt"
    code, out, _ = run("evaluate", single, folder / "data.npz", *KEYS, "--json")
    assert json.loads(out)["reliability"] is None
    assert json.loads(out)["force_mae"] != found["force_mae"]


@pytest.mark.parametrize("name", ["predictions.npz", "predictions.extxyz"])
def test_predictions_are_those_whose_errors_were_printed(trained, name):
    folder, _, _ = trained
    path = folder / name

    code, out, _ = run(
        *("evaluate", folder / "models", folder / "data.npz", *KEYS, "--json", "-o", path)
    )

    assert code == 0
    if path.suffix == ".npz":
        with np.load(path) as written:
            difference = written["predicted_forces"] - written["reference_forces"]
            assert (written["energy_std"] > 0.0).all()
    else:
        images = ase.io.read(path, ":")
        difference = np.array(
            [i.arrays["predicted_forces"] - i.arrays["reference_forces"] for i in images]
        )
        assert all(image.info["energy_std"] > 0.0 for image in images)
    assert np.abs(difference).mean() == pytest.approx(json.loads(out)["force_mae"], rel=1e-5)


def test_another_level_of_theory_is_said(trained):
    folder, _, _ = trained
    keys = [*KEYS[:-1], "other"]

    code, _, err = run("evaluate", folder / "models", folder / "data.npz", *keys)

    assert code == 0
    assert "trained on morse, the labels are other" in err


def test_a_test_file_and_frames_that_are_in_both(trained, tmp_path):
    folder, _, _ = trained
    old, new = load(folder / "data.npz"), load(write_data(tmp_path / "new.npz", 12, seed=1))
    path = tmp_path / "test.npz"
    mixed = {k: np.concatenate([old[k][:5], new[k]]) for k in ("coords", "energies", "forces")}
    np.savez(path, **mixed, z=old["z"])

    code, _, err = run(*command(folder, "with_test"), "--test-file", path)

    assert code == 0
    assert "5 of 17 test frames are also among the others" in err
    errors = json.loads((folder / "with_test" / "errors.json").read_text())
    assert errors["test"]["n_frames"] == 12
    assert errors["training"]["n_frames"] + errors["validation"]["n_frames"] == 60


def test_starting_from_a_committee_of_another_level(trained):
    folder, _, _ = trained
    start = folder / "models"
    line = [*command(folder, "moved"), "--start", start, "--freeze", "auto"]
    line[line.index("--level") + 1] = "other"

    code, _, err = run(*line)

    assert code == 0, err
    before, after = (load_member(path / "member-01.pt") for path in (start, folder / "moved"))
    assert after.level_of_theory == "other"
    same = {name for name in before.weights if before.weights[name].equal(after.weights[name])}
    assert "embedding" in same
    assert not same >= set(before.weights)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--energy-key", "E"], "has no 'E'; it holds"),
        (["--energy-unit", "calories"], "energy unit is 'calories'"),
        (["--kind", "schnett"], "architecture is 'schnett'"),
        (["--size", "huge"], "no size 'huge'"),
        (["--start", "nowhere.pt"], "nowhere.pt cannot be read"),
        (["--settings", "bad.yaml"], "max_stepps: unknown key; did you mean 'max_steps'?"),
        (["--test-file", "none.npz"], "none.npz is missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(trained, change, text, monkeypatch):
    folder, _, _ = trained
    monkeypatch.chdir(folder)
    Path("bad.yaml").write_text("max_stepps: 3\n")

    code, err = program(*command(folder, "bad"), *change)

    assert code == 2
    last = err.strip().splitlines()[-1]
    assert text in last
    assert not (folder / "bad").exists()


def test_models_that_do_not_suit_the_frames(trained, tmp_path):
    folder, _, _ = trained
    data = load(folder / "data.npz")
    np.savez(tmp_path / "other.npz", **(data | {"z": np.array([16, 1, 1])}))

    code, err = program("evaluate", folder / "models", tmp_path / "other.npz", *KEYS)

    assert code == 2
    assert "the model describes H, O and was given S" in err


def test_interrupted_it_goes_on_to_the_same_weights(trained, tmp_path):
    """Ctrl-C in the middle of a fit, then the same command: as if nothing had happened."""
    folder, _, _ = trained
    settings = tmp_path / "train.yaml"
    settings.write_text("max_steps: 150\nbatch_size: 8\nlearning_rate: 0.01\n")
    line = [*command(folder, "stopped"), "--settings", settings]
    program = (
        "import signal, time; import alloop.training.members as m; m.CHECKPOINT_S = 0.0;"
        # Tests that a shell runs in the background have it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from alloop.checkpoint import CheckpointFile as c; keep = c.keep;"
        # Slow enough for the signal to come in time on a busy machine.
        "c.keep = lambda self, state: (keep(self, state), time.sleep(0.05))[0];"
        "from alloop.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, line)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = folder / "stopped" / "member-00.checkpoint"
    deadline = time.monotonic() + 60.0
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 5, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert not (folder / "stopped" / "member-00.pt").exists()
    code, out, _ = run(*line)
    assert code == 0
    assert "went on after epoch" in out
    assert not checkpoint.exists()
    line[line.index(folder / "stopped")] = folder / "whole"
    assert run(*line)[0] == 0
    for name in ("member-00.pt", "member-01.pt"):
        went_on = load_member(folder / "stopped" / name).weights
        at_once = load_member(folder / "whole" / name).weights
        assert all(went_on[key].equal(at_once[key]) for key in at_once)


def test_a_damaged_member_in_the_folder_is_refused(trained):
    folder, _, _ = trained
    damaged = folder / "damaged"
    damaged.mkdir()
    save_member(damaged / "member-01.pt", load_member(folder / "models" / "member-01.pt"))
    (damaged / "member-00.pt").write_bytes(b"broken")

    code, err = program(*command(folder, "damaged"), "--test", 0.2, "--group-key", "run")

    assert code == 2
    assert "member-00.pt is damaged" in err


def test_test_frames_never_shape_a_member(tmp_path):
    """Nonsense labels on them change nothing, not even the identity of the training."""
    positions = load(write_data(tmp_path / "data.npz"))["coords"]
    energies, forces = pair_labels(positions)
    splits = np.array((["train"] * 4 + ["validation"] + ["audit"]) * 10)
    n = len(splits)
    told = []
    for name, factor in (("true", 1.0), ("false", 50.0)):
        wrong = np.where(splits == "audit", factor, 1.0)
        data = Dataset(
            frames=tuple(Frame([8, 1, 1], position) for position in positions),
            energies=energies * wrong,
            forces=tuple(forces * wrong[:, None, None]),
            splits=tuple(splits),
            systems=("water",) * n,
            groups=tuple(str(i) for i in range(n)),
            level_of_theory="morse",
        )
        recipe = Recipe("schnet", "small", 1, TrainSettings(max_steps=6), seed=3)
        told.append(fit_members(data, recipe, tmp_path / name, lambda progress: None)[0])

    assert told[0].read_bytes() == told[1].read_bytes()
