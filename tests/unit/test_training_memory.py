"""A fit of thousands of steps must not keep what each of them has computed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from alloop.frames import Frame
from alloop.potentials.ani import trainable as under_test
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member


@pytest.fixture
def passes(monkeypatch):
    """Weak references to every forward pass that a fit makes."""
    made: list[weakref.ref] = []

    class Watched(under_test.Pass):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(under_test, "Pass", Watched)
    return made


def test_the_passes_of_a_fit_die_with_their_steps(passes):
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    rest = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = tuple(
        Frame(np.array([8, 1, 1]), rest + rng.normal(0, 0.05, rest.shape)) for _ in range(12)
    )
    forces = tuple(rng.normal(size=(3, 3)) for _ in frames)
    data = TrainingSet(frames, rng.normal(size=12), forces, np.arange(12) >= 9)

    train_member(data, TrainSettings(epochs=10, batch_size=4), level_of_theory="none", seed=1)

    gc.collect()
    assert len(passes) > 20
    assert sum(reference() is not None for reference in passes) <= 1
