"""Which trajectories a 4D model learns from: exclusions with reasons, intervals, splits."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from alloop.errors import SpacetimeError
from alloop.spacetime.learning.sources import (
    Exclusions,
    Shares,
    Source,
    describe,
    fingerprint,
    gather,
    list_sources,
)
from alloop.trajectories import System, write_shard
from tests.physics.motion_samples import water_runs


def shard(path, trajectories):
    write_shard(path, trajectories)
    return list_sources([path])


def ended(trajectory, why):
    return dataclasses.replace(trajectory, about=dataclasses.replace(trajectory.about, ended=why))


@pytest.fixture(scope="module")
def runs():
    """Return twelve runs of water, 20 fs each, every 0.5 fs."""
    return water_runs(n_replicas=12)


def test_whole_trajectories_come_as_they_were_stored(tmp_path, runs):
    data, left_out = gather(shard(tmp_path / "a.h5", runs))

    assert left_out.reasons == ()
    assert data.timestep == 0.5
    assert len(data.ids) == 12
    for i, run in enumerate(runs):
        assert data.ids[i].startswith(f"a.h5#{i}@")
        np.testing.assert_array_equal(data.positions[i], run.positions)
        np.testing.assert_array_equal(data.velocities[i], run.velocities)


def test_what_cannot_teach_is_left_out_with_its_reason(tmp_path, runs):
    broken = np.array(runs[2].positions)
    broken[7] = np.nan
    thermostat = water_runs("nvt", n_replicas=1)[0]
    short = water_runs(n_replicas=5, n_steps=4)[4]
    mixed = [
        runs[0],
        ended(runs[1], "energy_drift"),
        dataclasses.replace(runs[2], positions=broken),
        ended(runs[3], "deadline"),
        thermostat,
        short,
        ended(runs[4], "deadline"),
    ]
    data, left_out = gather(shard(tmp_path / "a.h5", mixed), shortest=5.0)

    assert [name.partition("@")[0] for name in data.ids] == ["a.h5#0"]
    assert dict(left_out.reasons) == {
        "a.h5#1": "energy_drift",
        "a.h5#2": "not_finite",
        "a.h5#3": "deadline",
        "a.h5#4": "thermostat",
        "a.h5#5": "too_short",
        "a.h5#6": "deadline",
    }
    assert left_out.counts["deadline"] == 2
    assert next(iter(left_out.counts)) == "deadline"
    assert "2 deadline" in describe(left_out)
    assert describe(Exclusions(())) == "none"


def test_a_trajectory_as_long_as_a_segment_is_long_enough(tmp_path, runs):
    data, left_out = gather(shard(tmp_path / "a.h5", runs[:1]), shortest=20.0)
    assert (len(data.ids), left_out.reasons) == (1, ())
    with pytest.raises(SpacetimeError, match="1 too_short"):
        gather(list_sources([tmp_path / "a.h5"]), shortest=20.5)


def test_nothing_left_says_why(tmp_path, runs):
    sources = shard(tmp_path / "a.h5", [ended(run, "force") for run in runs[:3]])
    with pytest.raises(SpacetimeError, match="none of 3 trajectories can be used: 3 force"):
        gather(sources)
    with pytest.raises(SpacetimeError, match="no trajectory is given"):
        gather([])


def test_frames_can_be_thinned_to_a_common_interval(tmp_path, runs):
    fine = water_runs(n_replicas=14, n_steps=80, timestep=0.25)[12:]
    sources = [*shard(tmp_path / "a.h5", runs), *shard(tmp_path / "b.h5", fine)]
    with pytest.raises(SpacetimeError, match=r"b.h5#0 are 0.25 fs apart, those of a.h5#0 0.5 fs"):
        gather(sources)

    data, _ = gather(sources, interval=1.0)

    assert data.timestep == 1.0
    np.testing.assert_array_equal(data.positions[0], runs[0].positions[::2])
    np.testing.assert_array_equal(data.velocities[12], fine[0].velocities[::4])
    for interval in (0.25, 0.75):
        with pytest.raises(SpacetimeError, match=f"{interval:g} fs are wanted"):
            gather(sources, interval=interval)


def test_frames_must_be_equally_far_apart(tmp_path, runs):
    steps = np.array(runs[0].steps)
    steps[5:] += 1
    gap = dataclasses.replace(runs[0], steps=steps)
    with pytest.raises(SpacetimeError, match=r"a.h5#0 are not equally far apart \(1 to 2 steps\)"):
        gather(shard(tmp_path / "a.h5", [gap]))


def test_splits_are_of_the_trajectory_not_of_its_place(tmp_path, runs):
    shares = Shares(validation=0.2, test=0.3, seed=4)
    first, _ = gather(shard(tmp_path / "a.h5", runs), shares=shares)
    moved, _ = gather(shard(tmp_path / "moved.h5", runs[::-1]), shares=shares)
    other, _ = gather(list_sources([tmp_path / "a.h5"]), shares=Shares(0.2, 0.3, seed=5))

    assert Counter(first.splits) == {"train": 6, "validation": 2, "test": 4}
    assert moved.splits == first.splits[::-1]
    assert [fingerprint(name) for name in moved.ids] == [fingerprint(n) for n in first.ids][::-1]
    assert other.splits != first.splits


def test_what_a_source_says_of_its_split_holds(tmp_path, runs):
    sources = shard(tmp_path / "a.h5", runs[:5])
    said = ["audit", "train", "validation", "test", None]
    sources = [
        Source(s.shard, s.replica, s.name, split) for s, split in zip(sources, said, strict=True)
    ]
    data, _ = gather(sources)
    assert data.splits == ("test", "train", "validation", "test", "train")

    known = {fingerprint(data.ids[0]): "train"}
    again, _ = gather(sources, known=known)
    assert again.splits == ("train", "train", "validation", "test", "train")

    odd = Source(sources[0].shard, 0, "odd", "holdout")
    with pytest.raises(SpacetimeError, match="splits holdout are unknown"):
        gather([odd])


def test_broken_trajectories_take_no_place_in_a_split(tmp_path, runs):
    mixed = [ended(run, "force") if i < 9 else run for i, run in enumerate(runs)]
    data, _ = gather(shard(tmp_path / "a.h5", mixed))
    assert sorted(data.splits) == ["test", "train", "validation"]


def test_a_trajectory_is_not_given_twice(tmp_path, runs):
    sources = [*shard(tmp_path / "a.h5", runs[:2]), *shard(tmp_path / "copy.h5", runs[1:2])]
    with pytest.raises(SpacetimeError, match=r"a.h5#1 and copy.h5#0 are the same"):
        gather(sources)


def test_one_molecule_without_a_cell(tmp_path, runs):
    heavy = System(runs[0].system.numbers, runs[0].system.masses * 2.0)
    crystal = System(runs[0].system.numbers, runs[0].system.masses, np.eye(3) * 9.0)
    sources = shard(tmp_path / "a.h5", runs[:1])
    deuterated = shard(tmp_path / "d.h5", [dataclasses.replace(runs[1], system=heavy)])
    periodic = shard(tmp_path / "p.h5", [dataclasses.replace(runs[1], system=crystal)])

    with pytest.raises(SpacetimeError, match=r"d.h5#0 has other atoms than a.h5#0"):
        gather([*sources, *deuterated])
    with pytest.raises(SpacetimeError, match=r"p.h5#0 is periodic"):
        gather(periodic)
