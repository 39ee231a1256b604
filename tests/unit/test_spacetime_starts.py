"""Starts of a propagation from files of every kind, and what is said of those that are none."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms

from alloop.errors import ArtifactError, DataError
from alloop.spacetime.propagation.starts import read_starts
from alloop.trajectories import write_shard
from alloop.units import FS
from tests.physics.motion_samples import water_runs

WATER = (8, 1, 1)


@pytest.fixture(scope="module")
def runs():
    return water_runs(n_replicas=3)


def frames(runs, velocities=True):
    images = []
    for run in runs:
        atoms = Atoms(WATER, run.positions[0], info={"charge": 1})
        if velocities:
            atoms.set_velocities(run.velocities[0] / FS)
        images.append(atoms)
    return images


def test_a_shard_gives_the_first_frame_of_each_trajectory(tmp_path, runs):
    write_shard(tmp_path / "a.h5", runs)
    positions, velocities, _ = read_starts(tmp_path / "a.h5", WATER)

    for i, run in enumerate(runs):
        np.testing.assert_array_equal(positions[i], run.positions[0])
        np.testing.assert_array_equal(velocities[i], run.velocities[0])


# ASE writes eight decimals of the momenta as text; a .traj keeps them all.
@pytest.mark.parametrize(("name", "digits"), [("a.extxyz", 1e-7), ("a.xyz", 1e-7), ("a.traj", 0)])
def test_files_of_ase_give_each_frame_in_angstrom_per_fs(tmp_path, runs, name, digits):
    ase.io.write(tmp_path / name, frames(runs), format="extxyz" if "xyz" in name else None)
    positions, velocities, notes = read_starts(tmp_path / name, WATER)

    assert positions.shape == velocities.shape == (3, 3, 3)
    for i, run in enumerate(runs):
        np.testing.assert_allclose(positions[i], run.positions[0], atol=digits)
        np.testing.assert_allclose(velocities[i], run.velocities[0], atol=digits + 1e-15)
    assert velocities.abs().max() > 1e-3
    assert notes["charge"] == 1


def test_files_without_starts_are_refused(tmp_path, runs):
    ase.io.write(tmp_path / "still.xyz", frames(runs, velocities=False))
    (tmp_path / "no.xyz").write_text("3\n\nO 0 0")
    (tmp_path / "no.h5").write_text("3\n\nO 0 0")
    for name, words in (("still.xyz", "frame 0 has no velocities"), ("no.xyz", "cannot be read"),
                        ("none.xyz", "does not exist")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read_starts(tmp_path / name, WATER)
    with pytest.raises(ArtifactError, match="cannot be read as a trajectory shard"):
        read_starts(tmp_path / "no.h5", WATER)
    write_shard(tmp_path / "a.h5", runs)
    with pytest.raises(DataError, match=r"start 0 has atoms \[8, 1, 1\], the model is of \[1, 8"):
        read_starts(tmp_path / "a.h5", (1, 8, 1))
