"""Fit one member of a committee."""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.datasets import load_dataset
from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.architectures import architecture, shaped
from alloop.potentials.files import load_member
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet
from alloop.training.settings import TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer
from alloop_tasks import deadlines
from alloop_tasks.fits import leave, teller
from alloop_tasks.workspace import Workspace


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit the spec's member to its snapshot; every member of a snapshot has the same zero.

    The fit leaves checkpoints: a task that is killed, or laid down because its block ends, goes on
    where it was.
    """
    data = load_dataset(workspace.input(spec["data"], ".npz"))
    shape = spec["architecture"]
    elements = sorted({int(z) for frame in data.frames for z in frame.numbers})
    member, report = train_member(
        TrainingSet(
            frames=data.frames,
            energies=data.energies,
            forces=data.forces,
            is_validation=np.array(data.splits) == "validation",
        ),
        _settings(spec),
        level_of_theory=data.level_of_theory,
        seed=spec["seed"],
        kind=shape["kind"],
        shape=shaped(shape["kind"], shape["size"], elements, shape["settings"]),
        start=_start(spec, workspace),
        transfer=_transfer(spec),
        metadata={"snapshot": spec["snapshot"], "member": spec["member"], "seed": spec["seed"]},
        on_epoch=teller(workspace, "validation"),
        checkpoint=workspace.checkpoint,
        lay_down_at=deadlines.deadline(),
    )
    return leave(workspace, member, report)


def _settings(spec: dict[str, Any]) -> TrainSettings:
    settings = spec["settings"]
    if settings["learning_rate"] is None:
        rate = architecture(spec["architecture"]["kind"]).learning_rate
        settings = settings | {"learning_rate": rate}
    return TrainSettings(**settings)


def _start(spec: dict[str, Any], workspace: Workspace) -> Member | None:
    """Return the member of the last generation, or published weights, to start from."""
    if spec["parent"] is not None:
        return load_member(workspace.input(spec["parent"], ".pt"))
    if spec["pretrained"] is not None:
        published = pretrained(spec["pretrained"])
        return published[int(spec["member"].partition("/")[2]) % len(published)]
    return None


def _transfer(spec: dict[str, Any]) -> Transfer | None:
    if spec["pretrained"] is None:
        return None
    return Transfer(tuple(spec["freeze"]), spec["layer_rates"])
