"""Fit one member of a committee."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from alloop.datasets import load_dataset
from alloop.potentials.files import load_member, save_member
from alloop.training.data import TrainingSet
from alloop.training.settings import Epoch, TrainSettings
from alloop.training.trainer import train_member
from alloop_tasks.workspace import Workspace, without_nan


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Fit the spec's member to its snapshot; every member of a snapshot has the same zero."""
    data = load_dataset(workspace.input(spec["data"], ".npz"))
    start = None if spec["parent"] is None else load_member(workspace.input(spec["parent"], ".pt"))

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
        TrainSettings(**spec["settings"]),
        level_of_theory=data.level_of_theory,
        seed=spec["seed"],
        kind=spec["architecture"]["kind"],
        size=spec["architecture"]["size"],
        start=start,
        metadata={"snapshot": spec["snapshot"], "member": spec["member"], "seed": spec["seed"]},
        on_epoch=tell,
    )
    artifact = workspace.add("model", ".pt", lambda path: save_member(path, member))
    return {
        "artifact": artifact,
        "metrics": without_nan(asdict(report)),
        "atom_energies": {str(z): energy for z, energy in member.atom_energies.items()},
    }
