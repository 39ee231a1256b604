"""What the tasks that fit a member have in common: what they say on the way, what they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from alloop.potentials.files import save_member
from alloop.potentials.member import Member
from alloop.training.settings import Epoch, TrainReport
from alloop_tasks.workspace import Workspace, without_nan


def teller(workspace: Workspace, what: str) -> Callable[[Epoch], None]:
    """Return what tells people of each epoch: how far the fit is, and its error."""

    def tell(epoch: Epoch) -> None:
        error = f" {epoch.validation.force:.3f} eV/Å" if epoch.validation.n_frames else ""
        workspace.progress(epoch.epoch, epoch.epochs, what + error)

    return tell


def leave(workspace: Workspace, member: Member, report: TrainReport) -> dict[str, Any]:
    """Store a fitted member; return the result of its task."""
    artifact = workspace.add("model", ".pt", lambda path: save_member(path, member))
    return {
        "artifact": artifact,
        "metrics": without_nan(asdict(report)),
        "atom_energies": {str(z): energy for z, energy in member.atom_energies.items()},
    }
