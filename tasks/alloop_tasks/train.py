"""Fit one member of a committee."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from alloop.datasets import load_dataset
from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.architectures import architecture, shaped
from alloop.potentials.files import load_member, save_member
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet
from alloop.training.settings import Epoch, TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer
from alloop_tasks.workspace import Workspace, without_nan


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit the spec's member to its snapshot; every member of a snapshot has the same zero.

    The fit leaves checkpoints: a task that is killed and sent again goes on where it was.
    """
    data = load_dataset(workspace.input(spec["data"], ".npz"))
    shape = spec["architecture"]
    elements = sorted({int(z) for frame in data.frames for z in frame.numbers})

    def tell(epoch: Epoch) -> None:
        text = f"validation {epoch.validation.force:.3f} eV/Å" if epoch.validation.n_frames else ""
        workspace.progress(epoch.epoch, epoch.epochs, text)

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
        on_epoch=tell,
        checkpoint=workspace.parts / "checkpoint.pt",
    )
    artifact = workspace.add("model", ".pt", lambda path: save_member(path, member))
    return {
        "artifact": artifact,
        "metrics": without_nan(asdict(report)),
        "atom_energies": {str(z): energy for z, energy in member.atom_energies.items()},
    }


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
