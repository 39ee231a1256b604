"""Fit one member of a committee of a higher tier, with the help of the tier below."""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.datasets import Dataset, load_dataset
from alloop.potentials.architectures import architecture
from alloop.potentials.files import load_member
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.tiers import learn
from alloop_tasks import deadlines
from alloop_tasks.fits import leave, teller
from alloop_tasks.workspace import Workspace


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit the spec's member in the spec's mode.

    The fit leaves checkpoints: a task that is killed, or laid down because its block ends, goes on
    where it was.
    """
    upper, lower = (load_dataset(workspace.input(spec[name], ".npz")) for name in ("data", "lower"))
    parent = load_member(workspace.input(spec["parent"], ".pt"))
    settings = dict(spec["settings"])
    if settings["learning_rate"] is None:
        settings["learning_rate"] = architecture(parent.architecture).learning_rate
    member, report = learn(
        spec["mode"],
        _training_set(upper),
        _training_set(lower),
        TrainSettings(**settings),
        level_of_theory=spec["level"],
        lower_level=spec["lower_level"],
        seed=spec["seed"],
        kind=parent.architecture,
        shape=parent.settings,
        parent=parent,
        teachers=[load_member(workspace.input(sha256, ".pt")) for sha256 in spec["teachers"]],
        freeze=spec["freeze"],
        metadata={"snapshot": spec["snapshot"], "member": spec["member"], "mode": spec["mode"]},
        on_epoch=teller(workspace, spec["mode"]),
        checkpoint=workspace.checkpoint,
        lay_down_at=deadlines.deadline(),
    )
    return leave(workspace, member, report)


def _training_set(data: Dataset) -> TrainingSet:
    validation = np.array(data.splits) == "validation"
    return TrainingSet(data.frames, data.energies, data.forces, validation)
