"""A fit that was killed goes on from its checkpoint as if nothing had happened."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alloop.checkpoint import CheckpointFile, identity
from alloop.errors import OutOfTime
from alloop.frames import Frame
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.files import member_bytes
from alloop.training.data import TrainingSet
from alloop.training.joint import train_joint
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer
from tests.in_spells import in_spells

SHAPE = AniSettings(((8, 6), (8, 6))).to_plain()
SETTINGS = TrainSettings(
    epochs=6,
    batch_size=4,
    schedule="plateau",
    plateau_patience=1,
    resample="bootstrap",
    weight_decay=1e-3,
)


def dataset(seed=0, shift=0.0):
    """Return frames of water with arbitrary labels, none for validation: later is better."""
    rng = np.random.default_rng(seed)
    rest = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    frames = tuple(
        Frame(np.array([8, 1, 1]), rest + rng.normal(0, 0.05, rest.shape)) for _ in range(12)
    )
    forces = tuple(rng.normal(size=(3, 3)) for _ in frames)
    return TrainingSet(frames, rng.normal(shift, 1.0, 12), forces, np.zeros(12, bool))


def fit(checkpoint=None, *, settings=SETTINGS, data=None, seed=1, **more):
    return train_member(
        data or dataset(),
        settings,
        level_of_theory="none",
        seed=seed,
        shape=SHAPE,
        checkpoint=checkpoint,
        checkpoint_s=0.0,
        **more,
    )


def stop_in(n_steps):
    """Return a callback that says stop after so many steps."""
    left = [n_steps]

    def stop():
        left[0] -= 1
        return left[0] == 0

    return stop


@pytest.fixture(scope="module")
def whole():
    """What an undisturbed fit gives: its member's bytes and its report."""
    torch.set_num_threads(1)
    member, report = fit()
    assert report.best_epoch == report.epochs == 6
    return member_bytes(member), report


@pytest.mark.parametrize("epoch", range(1, 6))
def test_a_fit_stopped_in_any_epoch_goes_on_bit_for_bit(tmp_path, whole, epoch):
    """Stopped in the middle of the epoch after: that half epoch is done again."""
    path = tmp_path / "new folder" / "fit.checkpoint"
    _, stopped = fit(path, should_stop=stop_in(3 * epoch + 2))
    assert (stopped.stopped_by, stopped.epochs) == ("deadline", epoch + 1)
    seen = []
    member, report = fit(path, on_epoch=seen.append)
    assert member_bytes(member) == whole[0]
    assert replace(report, checkpoint="") == whole[1]
    assert report.checkpoint == f"went on after epoch {epoch}"
    assert [e.epoch for e in seen] == list(range(epoch + 1, 7))


def test_a_fit_stopped_again_and_again_comes_to_its_end(tmp_path, whole):
    path = tmp_path / "fit.checkpoint"
    for _ in range(5):
        fit(path, should_stop=stop_in(4))
    member, report = fit(path)
    assert (member_bytes(member), report.checkpoint) == (whole[0], "went on after epoch 5")


def test_the_number_of_restarts_is_remembered(tmp_path):
    wild = replace(SETTINGS, learning_rate=1e18, max_restarts=60, warmup_steps=0)
    steps = []
    member, report = fit(settings=wild, should_stop=lambda: steps.append(1))
    assert report.restarts > 3
    path = tmp_path / "fit.checkpoint"
    fit(path, settings=wild, should_stop=stop_in(len(steps) - 2))
    seen = []
    again, resumed = fit(path, settings=wild, on_epoch=seen.append)
    assert [e.epoch for e in seen] == [6]
    assert resumed.checkpoint == "went on after epoch 5"
    assert replace(resumed, checkpoint="") == report
    assert member_bytes(again) == member_bytes(member)


@pytest.mark.parametrize("what", ["data", "settings", "seed", "atoms", "start", "transfer"])
def test_a_checkpoint_of_another_fit_is_replaced(tmp_path, whole, what):
    path = tmp_path / "fit.checkpoint"
    start, _ = fit(settings=replace(SETTINGS, epochs=1))
    other = {
        "data": {"data": dataset(seed=3)},
        "settings": {"settings": replace(SETTINGS, energy_weight=2.0)},
        "seed": {"seed": 2},
        "atoms": {"atom_energies": {1: 0.0, 8: 1.0}},
        "start": {"start": start},
        "transfer": {"start": start, "transfer": Transfer()},
    }[what]
    fit(path, **other)
    member, report = fit(path)
    assert "is of another fit: began anew" in report.checkpoint
    assert str(path) in report.checkpoint
    assert member_bytes(member) == whole[0]
    assert fit(path)[1].checkpoint == "went on after epoch 6"  # its own by now


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "foreign", "a folder"])
def test_a_damaged_checkpoint_is_no_obstacle(tmp_path, whole, damage):
    path = tmp_path / "fit.checkpoint"
    fit(path)
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 4
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        length = {"cut short": len(content) - 1, "empty": 0}.get(damage, len(content))
        path.write_bytes(b"PK\3\4" * 50 if damage == "foreign" else bytes(content[:length]))
    member, report = fit(path)
    assert member_bytes(member) == whole[0]
    if damage == "a folder":
        assert "could not be written" in report.checkpoint
    else:
        assert "is damaged: began anew" in report.checkpoint
        assert fit(path)[1].checkpoint == "went on after epoch 6"


def test_a_short_fit_writes_nothing(tmp_path):
    path = tmp_path / "fit.checkpoint"
    train_member(dataset(), SETTINGS, level_of_theory="none", seed=1, shape=SHAPE, checkpoint=path)
    assert list(tmp_path.iterdir()) == []


def test_a_joint_fit_and_a_transfer_go_on_bit_for_bit(tmp_path):
    path = tmp_path / "fit.checkpoint"
    data = [("one", dataset()), ("two", dataset(seed=4, shift=-9.0))]

    def joint(**more):
        return train_joint(data, SETTINGS, seed=3, shape=SHAPE, checkpoint_s=0.0, **more)

    members, _ = joint()
    joint(checkpoint=path, should_stop=stop_in(14))
    again, report = joint(checkpoint=path)
    assert report.checkpoint == "went on after epoch 2"
    assert list(map(member_bytes, again)) == list(map(member_bytes, members))

    moving = {"start": members[0], "transfer": Transfer(freeze=("^H.0.",)), "data": dataset(5)}
    member, _ = fit(**moving)
    fit(path, should_stop=stop_in(8), **moving)
    again, report = fit(path, **moving)
    assert report.checkpoint == "went on after epoch 2"
    assert member_bytes(again) == member_bytes(member)
    assert "of another fit" in fit(path, **{**moving, "transfer": Transfer()})[1].checkpoint


def test_a_fit_that_is_laid_down_in_time_goes_on_bit_for_bit(tmp_path, whole):
    """Of its own accord, however rarely it writes otherwise; the joint fit does the same."""

    def work(lay_down_at):
        return train_member(
            dataset(),
            SETTINGS,
            level_of_theory="none",
            seed=1,
            shape=SHAPE,
            on_epoch=lambda _: time.sleep(0.15),
            checkpoint=tmp_path / "fit.checkpoint",
            lay_down_at=lay_down_at,
        )

    (member, report), laid_down = in_spells(work, 0.6)
    assert laid_down >= 1
    assert member_bytes(member) == whole[0]
    assert replace(report, checkpoint="") == whole[1]


def test_a_joint_fit_is_laid_down_too(tmp_path):
    data = [("one", dataset()), ("two", dataset(seed=4, shift=-9.0))]

    def joint(**more):
        members, _ = train_joint(data, SETTINGS, seed=3, shape=SHAPE, **more)
        return [member_bytes(member) for member in members]

    again, laid_down = in_spells(
        lambda at: joint(
            checkpoint=tmp_path / "fit.checkpoint",
            on_epoch=lambda _: time.sleep(0.15),
            lay_down_at=at,
        ),
        0.6,
    )
    assert laid_down >= 1
    assert again == joint()


def test_a_fit_without_time_leaves_no_trace(tmp_path):
    path = tmp_path / "new folder" / "fit.checkpoint"
    with pytest.raises(OutOfTime) as caught:
        fit(path, lay_down_at=time.monotonic())
    assert not caught.value.advanced
    assert not path.exists()


def test_a_fit_that_cannot_keep_its_state_has_got_nowhere(tmp_path):
    path = tmp_path / "fit.checkpoint"
    path.mkdir()
    with pytest.raises(OutOfTime, match="could not be written") as caught:
        fit(path, on_epoch=lambda _: time.sleep(0.6), lay_down_at=time.monotonic() + 0.6)
    assert not caught.value.advanced


def test_nothing_is_begun_that_would_not_end_in_time(tmp_path):
    """As long as the longest so far must be left."""
    lay_down_at = time.monotonic() + 2.5
    file = CheckpointFile(tmp_path / "kept", "me", 3600.0, lay_down_at)
    assert file.load() is None
    done = 0

    def state():
        return {"done": done}

    with pytest.raises(OutOfTime) as caught:  # noqa: PT012  who knows in which turn
        while True:
            time.sleep(0.7)
            done += 1
            file.offer(state)
    assert time.monotonic() < lay_down_at
    assert caught.value.advanced
    assert CheckpointFile(tmp_path / "kept", "me", 3600.0).load() == {"done": done}


def test_identity_tells_apart_what_differs():
    array = np.arange(6.0)
    different = [
        (array,),
        (array.reshape(2, 3),),
        (array.astype(np.float32),),
        (array[:3], array[3:]),
        (torch.arange(6),),
        ("a", "b"),
        ("ab",),
        (["a"], "b"),
        (["a", "b"],),
        (np.zeros(2),),
        (np.zeros(2, np.int64),),
        ({"a": 1, "b": 2},),
        ({"a": 1, "b": 2.0},),
        (None,),
        (SETTINGS,),
        (replace(SETTINGS, huber_delta=0.051),),
        (dataset(),),
        (dataset(1),),
    ]
    assert len({identity(*parts) for parts in different}) == len(different)
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
    assert identity(dataset()) == identity(dataset())


KILLED = """
import sys, time
from pathlib import Path
import torch
sys.path.insert(0, {folder!r})
import test_training_restart as t
torch.set_num_threads(1)
path = Path({path!r})
# Slow epochs, so that there is time to be killed in one of them.
t.fit(path, on_epoch=lambda epoch: time.sleep(0.2))
"""


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path, whole):
    path = tmp_path / "fit.checkpoint"
    script = textwrap.dedent(KILLED).format(folder=str(Path(__file__).parent), path=str(path))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60.0
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    member, report = fit(path)
    assert report.checkpoint.startswith("went on after epoch")
    assert member_bytes(member) == whole[0]
    assert replace(report, checkpoint="") == whole[1]
