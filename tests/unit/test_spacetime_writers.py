"""Propagations as files: what is written is what was predicted, and a kill costs little."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase import Atoms

from alloop.errors import ArtifactError, SpacetimeError
from alloop.potentials.evaluation import Evaluation
from alloop.spacetime.propagation import writers
from alloop.spacetime.propagation.ase_bridge import propagate_atoms
from alloop.spacetime.propagation.courses import Block
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.propagation.propagate import propagate
from alloop.spacetime.propagation.schedule import Regular
from alloop.spacetime.propagation.writers import (
    AtomsWriter,
    Hdf5Writer,
    PropagationFile,
    describe_run,
    digest,
)
from alloop.units import FS, KINETIC
from tests.physics.test_spacetime_motion import CHAIN, PEROXIDE, rigid

FIELD, NUMBERS, MASSES = PEROXIDE
TIMES = Regular(45.0, 1.5)


class Surface:
    def energies(self, positions):
        return FIELD.energy(positions)

    def with_forces(self, positions):
        return FIELD.energy(positions), FIELD.forces(positions)


class Committee:
    """Two potentials whose mean is that of hydrogen peroxide."""

    n_members = 2
    elements = (1, 8)

    def evaluate(self, numbers, positions, *, forces, cell=None, virials=False):
        energies = FIELD.energy(positions)
        pushes = None if forces == "none" else FIELD.forces(positions)
        return Evaluation(torch.stack([energies - 1.0, energies + 1.0]), pushes, None)


@pytest.fixture
def model():
    return rigid(CHAIN, NUMBERS, MASSES)


@pytest.fixture
def start(model):
    x = FIELD.minimum().expand(2, -1, -1).clone()
    spin = torch.tensor([[0.01, 0.0, 0.02], [0.0, -0.02, 0.0]], dtype=torch.float64)
    return x, torch.linalg.cross(spin[:, None].expand_as(x), x)


@pytest.fixture
def seen(model, start):
    return propagate(model, *start, TIMES)


def write(writer, model, start):
    with writer:
        run = propagate(model, *start, TIMES, sink=writer)
        if isinstance(writer, Hdf5Writer):
            writer.note(run.courses)


def interrupted(writer, model, start):
    with writer:
        propagate(model, *start, TIMES, sink=writer)
        raise ZeroDivisionError


@pytest.mark.parametrize("held", [1, 7, 2000])
def test_hdf5_holds_what_was_predicted(model, start, seen, tmp_path, monkeypatch, held):
    monkeypatch.setattr(writers, "HELD", held)
    about = describe_run(model, PropagationSettings(), [3, 4])
    path = tmp_path / "new" / "run.h5"
    write(Hdf5Writer(path, model, 2, about, Surface()), model, start)
    found = PropagationFile(path)
    assert found.n_frames == (31, 31)
    assert found.ended == ("completed", "completed")
    assert found.numbers.tolist() == NUMBERS
    assert found.masses.tolist() == MASSES
    assert found.about == json.loads(json.dumps(about))
    assert found.about["model_sha256"] == digest(model)
    for replica in range(2):
        frames = found.read(replica)
        assert np.abs(frames.times - seen.times.numpy()).max() < 1e-9
        assert np.abs(frames.positions - seen.positions[replica].numpy()).max() < 1e-6
        assert np.abs(frames.velocities - seen.velocities[replica].numpy()).max() < 1e-8
        energies = FIELD.energy(seen.positions[replica]).numpy()
        assert np.abs(frames.potential - energies).max() < 1e-12
    some = found.read(1, 4, 20, 5)
    assert np.array_equal(some.positions, frames.positions[4:20:5])
    assert len(found.read(1, 30, 99).times) == 1
    assert list(path.parent.iterdir()) == [path]


def test_why_a_replica_ended_is_in_the_file(model, start, tmp_path):
    inward = start[0][1, 2] - start[0][1, 0]
    start[1][1, 2] -= 0.1 * inward
    write(Hdf5Writer(tmp_path / "run.h5", model, 2, {}), model, start)
    found = PropagationFile(tmp_path / "run.h5")
    assert found.ended == ("completed", "contact")
    assert found.n_frames[0] == 31 > found.n_frames[1] > 0
    assert found.read(0).potential is None


def test_frames_of_which_only_a_part_was_written_do_not_count(model, start, tmp_path):
    path = tmp_path / "run.h5"
    write(Hdf5Writer(path, model, 2, {}, Surface()), model, start)
    with h5py.File(path, "r+") as file:
        for name in ("times", "positions", "velocities"):
            data = file["replicas/00001"][name]
            data.resize(len(data) + 5, axis=0)
    found = PropagationFile(path)
    assert found.n_frames == (31, 31)
    assert len(found.read(1).times) == 31


def test_digest_is_that_of_the_predictions(model):
    other = rigid(CHAIN, NUMBERS, MASSES)
    assert digest(other) == digest(model)
    other.polynomial[0, 0] += 1e-3
    assert digest(other) != digest(model)


def test_an_error_leaves_what_was_written_under_another_name(model, start, tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(ZeroDivisionError):
        interrupted(Hdf5Writer(path, model, 2, {"a": 1}), model, start)
    assert not path.exists()
    found = PropagationFile(tmp_path / "run.h5.partial")
    assert found.n_frames == (31, 31)
    assert found.ended == (None, None)
    assert found.about == {"a": 1}


def test_a_file_can_be_read_while_it_grows_and_after_the_writer_was_killed(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        import torch
        from alloop.spacetime.propagation import writers
        from alloop.spacetime.propagation.courses import Block
        from tests.physics.test_spacetime_motion import CHAIN, PEROXIDE, rigid
        writers.HELD = 50
        field, numbers, masses = PEROXIDE
        model = rigid(CHAIN, numbers, masses)
        writer = writers.Hdf5Writer(Path(sys.argv[1]), model, 1, {})
        for first in range(0, 100000, 10):
            frames = torch.full((10, 4, 3), float(first)).double()
            writer(Block(0, first, first + torch.arange(10).double(), frames, frames))
            time.sleep(0.002)
        """
    )
    path = tmp_path / "run.h5"
    partial = tmp_path / "run.h5.partial"
    command = [sys.executable, "-c", script, str(path)]
    here = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here / "db")])}
    with subprocess.Popen(command, cwd=here, env=environment) as process:
        try:
            for _ in range(600):
                time.sleep(0.05)
                if partial.exists() and partial.stat().st_size > 60_000:
                    break
            growing = PropagationFile(partial)
            assert growing.n_frames[0] >= 50
        finally:
            process.send_signal(signal.SIGKILL)
    left = PropagationFile(partial)
    n = left.n_frames[0]
    assert n >= growing.n_frames[0]
    assert n % 50 == 0
    frames = left.read(0)
    assert np.array_equal(frames.times, np.arange(n))
    assert np.array_equal(frames.positions[:, 2, 1], np.arange(n) // 10 * 10)


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n and so on", "other"])
def test_what_is_no_propagation_is_refused(tmp_path, content):
    path = tmp_path / "x.h5"
    if content == "other":
        with h5py.File(path, "w") as file:
            file.attrs["format"] = "recipes"
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.h5"):
        PropagationFile(path)


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
@pytest.mark.parametrize("held", [4, 2000])
def test_files_of_atoms_hold_what_was_predicted(
    model, start, seen, tmp_path, monkeypatch, suffix, held
):
    monkeypatch.setattr(writers, "HELD", held)
    writer = AtomsWriter(tmp_path / f"run{suffix}", model, Surface())
    write(writer, model, start)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run-0000{i}{suffix}" for i in (0, 1)]
    for replica in range(2):
        frames = ase.io.read(writer.path(replica), index=":")
        assert len(frames) == 31
        positions = np.array([atoms.positions for atoms in frames])
        assert np.abs(positions - seen.positions[replica].numpy()).max() < 1e-7
        velocities = np.array([atoms.get_velocities() * FS for atoms in frames])
        assert np.abs(velocities - seen.velocities[replica].numpy()).max() < 1e-7
        energies = [atoms.get_potential_energy() for atoms in frames]
        assert np.abs(energies - FIELD.energy(seen.positions[replica]).numpy()).max() < 1e-7
        assert frames[0].get_masses().tolist() == MASSES
        assert [atoms.info["time_fs"] for atoms in frames] == pytest.approx(seen.times.tolist())
        assert {atoms.info["replica"] for atoms in frames} == {replica}


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
def test_unfinished_files_of_atoms_keep_another_name(model, start, tmp_path, suffix):
    with pytest.raises(ZeroDivisionError):
        interrupted(AtomsWriter(tmp_path / f"run{suffix}", model), model, start)
    assert {p.name for p in tmp_path.iterdir()} == {f"run-0000{i}{suffix}.partial" for i in (0, 1)}
    format = {".extxyz": "extxyz", ".traj": "traj"}[suffix]
    frames = ase.io.read(tmp_path / f"run-00001{suffix}.partial", index=":", format=format)
    assert len(frames) == 31
    assert frames[0].calc is None


def test_other_suffixes_are_refused(model, tmp_path):
    with pytest.raises(SpacetimeError, match=r"\.xyz"):
        AtomsWriter(tmp_path / "run.xyz", model)


def atoms_of(start):
    atoms = Atoms(NUMBERS, positions=start[0][0].numpy(), masses=MASSES)
    atoms.set_velocities(start[1][0].numpy() / FS)
    return atoms


def test_atoms_go_in_and_atoms_come_out(model, start, seen):
    frames = list(propagate_atoms(model, atoms_of(start), 45.0, 1.5))
    assert len(frames) == 31
    for i in (0, 13, 30):
        assert np.abs(frames[i].positions - seen.positions[0, i].numpy()).max() < 1e-9
        moving = seen.velocities[0, i]
        kinetic = (
            0.5
            * KINETIC
            * float((torch.tensor(MASSES, dtype=torch.float64)[:, None] * moving.square()).sum())
        )
        assert frames[i].get_kinetic_energy() == pytest.approx(kinetic, rel=1e-9)
        assert frames[i].calc is None
    assert frames[13].info["time_fs"] == pytest.approx(19.5)


def test_with_a_committee_atoms_have_energies_and_the_energy_is_kept(model, start):
    frames = list(propagate_atoms(model, atoms_of(start), 40.0, 20.0, Committee()))
    totals = [atoms.get_total_energy() for atoms in frames]
    wanted = float(FIELD.energy(start[0][:1]))
    assert frames[0].get_potential_energy() == pytest.approx(wanted, abs=1e-12)
    assert totals == pytest.approx([totals[0]] * 3, abs=1e-4)


def test_other_atoms_are_refused_and_an_early_end_is_told(model, start):
    atoms = atoms_of(start)
    with pytest.raises(SpacetimeError, match="4D model is for"):
        propagate_atoms(model, Atoms("OOHF", positions=atoms.positions), 10.0, 1.0)
    velocities = start[1].clone()
    velocities[0, 2] -= 0.1 * (start[0][0, 2] - start[0][0, 0])
    frames = propagate_atoms(model, atoms_of((start[0], velocities)), 45.0, 1.5)
    came = []
    with pytest.raises(SpacetimeError, match="contact"):
        list(map(came.append, frames))
    assert 0 < len(came) < 31


def test_frames_held_back_are_written_at_the_end(model, tmp_path):
    frames = torch.zeros(3, 4, 3).double()
    with Hdf5Writer(tmp_path / "run.h5", model, 1, {}) as writer:
        writer(Block(0, 0, torch.arange(3).double(), frames, frames))
        assert PropagationFile(tmp_path / "run.h5.partial").n_frames == (0,)
    assert PropagationFile(tmp_path / "run.h5").n_frames == (3,)
