"""What is remembered of replicas while they run, and how far a committee disagrees there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alloop.dynamics.integrators import State, kinetic_energy
from alloop.errors import DynamicsError
from alloop.trajectories import ARRAYS, About, System, Trajectory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Record:
    """Room for the recorded frames of every replica, filled while they run."""

    def __init__(
        self, n_steps: int, every: int, n_replicas: int, n_atoms: int, n_members: int
    ) -> None:
        self._every = every
        n_frames = n_steps // every + 1
        sizes = {"F": n_frames, "N": n_atoms, "M": n_members, "3": 3}
        # Memory is taken as it is filled: a replica that breaks early costs little.
        self._arrays = {
            name: np.empty((n_replicas, *(sizes[axis] for axis in shape)), kind)
            for name, (kind, shape) in ARRAYS.items()
        }
        self._n_frames = np.zeros(n_replicas, np.int64)

    def add(self, step: int, replicas: NDArray[np.int64], state: State, masses: Tensor) -> None:
        """Add one frame to each of some replicas."""
        forces, energies, spread = state.response
        if spread is None:
            raise DynamicsError("the committee gave no member forces though they were asked for")
        now: dict[str, Tensor] = {
            "positions": state.positions,
            "velocities": state.velocities,
            "forces": forces,
            "member_energies": energies.T,
            "kinetic": kinetic_energy(state.velocities, masses),
            "max_force_spread": spread.amax(dim=1),
            "mean_force_spread": spread.mean(dim=1),
        }
        frame = step // self._every
        for name, values in now.items():
            self._arrays[name][replicas, frame] = values.cpu().numpy()
        self._arrays["steps"][replicas, frame] = step
        self._n_frames[replicas] = frame + 1

    def memory(self) -> dict[str, Any]:
        """Return the frames that are there, as tensors."""
        most = int(self._n_frames.max(initial=0))
        frames = {name: torch.from_numpy(a[:, :most].copy()) for name, a in self._arrays.items()}
        return {"n_frames": torch.from_numpy(self._n_frames.copy()), "frames": frames}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on with the frames of this memory."""
        self._n_frames[:] = memory["n_frames"].numpy()
        for name, frames in memory["frames"].items():
            self._arrays[name][:, : frames.shape[1]] = frames.numpy()

    def trajectory(
        self, replica: int, system: System, about: About, suspect_from: float
    ) -> Trajectory:
        """Return the frames of one replica; those from a step on, at least one, are suspect.

        Infinity means that nothing is suspect.
        """
        n_frames = self._n_frames[replica]
        arrays = {name: array[replica, :n_frames] for name, array in self._arrays.items()}
        suspect = arrays["steps"] >= suspect_from
        if suspect_from < np.inf:
            suspect[-1:] = True
        arrays["pre_failure"] = suspect
        return Trajectory(system, about, **arrays)


def force_spread(member_forces: Tensor, mean_forces: Tensor) -> Tensor:
    """Return the spread (n_replicas, n_atoms), eV/Å, of forces (n_members, n_replicas, n_atoms, 3).

    The standard deviation of the members' force vectors on an atom, by the same rule as
    :func:`alloop.acquisition.uncertainty.force_spread`: squared lengths of the deviations from the
    mean, over ``n_members - 1``. One member alone has no spread: 0.
    """
    squares = ((member_forces - mean_forces) ** 2).sum(dim=(0, 3))
    return (squares / max(1, len(member_forces) - 1)).sqrt()
