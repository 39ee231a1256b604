"""Motion on a potential next to a reference trajectory, as a loss and as a measure.

Equation numbers are those of DOI 10.1021/acs.jcim.5c01180 (arXiv:2504.03521).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alloop.errors import TrainingError
from alloop.potentials.committee import build_committee
from alloop.potentials.evaluation import Committee
from alloop.potentials.graphs.trainable import GraphTrainable
from alloop.potentials.member import Member
from alloop.training.losses import species_means
from alloop.training.segments import NveTrajectory, Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

Field = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""The number of a step and its positions (Å) to energies (eV) and forces (eV/Å)."""


def follow(
    field: Field,
    positions: Tensor,
    velocities: Tensor,
    timestep: Tensor | float,
    half_kick: Tensor,
    n_frames: int,
    *,
    detached: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the field says of each of ``n_frames`` frames of velocity Verlet, the first too.

    Shapes are those of the field, whatever they are. With ``detached`` no gradient flows from one
    frame to the next, and each frame may be differentiated, and forgotten, before the next is
    asked for. Velocity Verlet: DOI 10.1063/1.442716.

    Parameters
    ----------
    field : see ``Field``.
    positions, velocities : of the first frame, Å and Å/fs.
    timestep : fs, one or for each atom.
    half_kick : velocity that one eV/Å gives to an atom in half a step.
    n_frames : at least 1.

    """
    energies, forces = field(0, positions)
    yield energies, forces
    for frame in range(1, n_frames):
        halfway = velocities + half_kick * (forces.detach() if detached else forces)
        positions = positions + timestep * halfway
        energies, forces = field(frame, positions)
        yield energies, forces
        velocities = halfway + half_kick * (forces.detach() if detached else forces)


class SegmentLoss:
    """The loss of subsequences that a potential integrates itself, as a function of parameters.

    The pairs of each frame are those of the reference trajectory at the same time (supplementary
    note 1). Where a network is smooth at the cutoff this is no approximation for a potential that
    stays close: pairs that come and go have no weight.

    Parameters
    ----------
    trainable : on the frames of the trajectories, see ``groups_of``.
    segments : of the same trajectories.
    detached : take the frames that the potential arrives at as given, instead of differentiating
        through the motion.
    first_weight : λ_1 of equation 12; all others are 1.
    energy_weight : of the energy in equation 9.

    """

    def __init__(
        self,
        trainable: GraphTrainable,
        segments: Segments,
        *,
        detached: bool,
        first_weight: float,
        energy_weight: float,
    ) -> None:
        self._trainable, self._segments, self._detached = trainable, segments, detached
        self._first_weight, self._energy_weight = first_weight, energy_weight

    def slope(self, parameters: Tensor, starts: Tensor, length: int) -> tuple[float, Tensor]:
        """Return the loss of a batch and its gradient by ``parameters``, (n_parameters,)."""
        parts = self.parts(parameters, starts, length)
        if not self._detached:
            parts = iter([torch.stack(list(parts)).sum()])
        loss, gradient = 0.0, torch.zeros_like(parameters)
        for part in parts:
            gradient += torch.autograd.grad(part, parameters)[0]
            loss += float(part.detach())
        return loss, gradient

    def parts(self, parameters: Tensor, starts: Tensor, length: int) -> Iterator[Tensor]:
        """Yield λ_k L_k of each frame k, averaged over subsequences from ``starts``, (n_starts,).

        Equations 9 to 12; elements are averaged in each structure. Detached parts may be
        differentiated one after the other, each before the next is asked for.
        """
        segments, store = self._segments, self._trainable.store
        atoms = store.atoms(starts)
        motion = follow(
            lambda k, positions: self._respond(parameters, starts + k, positions),
            store.positions[atoms],
            segments.velocities[atoms],
            segments.timestep[atoms],
            segments.half_kick[atoms],
            length,
            detached=self._detached,
        )
        for k, (energies, forces) in enumerate(motion):
            labels = segments.labels.of(starts + k)
            part = species_means((forces - labels.forces).abs(), labels).mean()
            if length == 1:
                off = (energies - labels.energies).abs() / labels.n_atoms
                yield part + self._energy_weight * off.mean()
            else:
                yield self._first_weight * part if k == 0 else part

    def _respond(
        self, parameters: Tensor, frames: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate positions (all atoms, 3) with the pairs and images of reference frames."""
        store = self._trainable.store
        graph = store.graph(frames, parameters.dtype)
        # Recorded vectors hold the images; what is added to them is small and keeps its digits.
        moved = (positions - store.positions[store.atoms(frames)]).to(parameters.dtype)
        vectors = graph.vectors + (moved[graph.other] - moved[graph.centre])
        output, slopes = self._trainable.evaluate(parameters, replace(graph, vectors=vectors))
        return output.energies, slopes.forces


def mepa(
    member: Member, trajectories: Sequence[NveTrajectory], n_frames: int
) -> NDArray[np.float64]:
    """Return the force error of free motion by step, (n_frames,) eV/Å; its mean is the MEPA.

    The error of a step is the sum over elements of the mean absolute error of force components
    against the reference trajectory at the same time, averaged over starts; equations 11 and 13.
    Positions go wrong along with forces, and molecules are chaotic: after some hundred femtoseconds
    the error tells how different the forces of two unrelated times are, whatever the potential. It
    is infinite once the forces of a motion are not finite. Parameters and errors: see
    :func:`rollout_errors`.
    """
    mean: NDArray[np.float64] = rollout_errors(member, trajectories, n_frames).mean(axis=0)
    return mean


def rollout_errors(
    member: Member, trajectories: Sequence[NveTrajectory], n_frames: int
) -> NDArray[np.float64]:
    """Return the force error of each free motion by step, (n_starts, n_frames) eV/Å.

    Parameters
    ----------
    member : the potential, with its own neighbours at every step.
    trajectories : starts are frames 0, ``n_frames``, 2 ``n_frames``, ... of each, as long as the
        reference goes on for ``n_frames`` frames.
    n_frames : frames of each motion, the start included.

    Raises
    ------
    TrainingError
        There is no trajectory, or one is too short.
    ModelError
        Elements that the member does not describe.

    """
    for trajectory in trajectories:
        if not 1 <= n_frames <= trajectory.n_frames:
            raise TrainingError(
                f"trajectory {trajectory.name!r} has {trajectory.n_frames} frames and cannot judge"
                f" motions of {n_frames}; give it more, or judge shorter ones"
            )
    if not trajectories:
        raise TrainingError("there is no trajectory to judge by")
    committee = build_committee([member])
    alike: list[list[tuple[NveTrajectory, int]]] = []
    for trajectory in trajectories:
        starts = range(0, trajectory.n_frames - n_frames + 1, n_frames)
        row = [(trajectory, start) for start in starts]
        for others in alike:
            if _same_motion(others[0][0], trajectory):
                others += row
                break
        else:
            alike.append(row)
    return np.concatenate([_errors(committee, starts, n_frames) for starts in alike])


def _same_motion(one: NveTrajectory, other: NveTrajectory) -> bool:
    return one.system.same_as(other.system) and one.timestep == other.timestep


def _errors(
    committee: Committee, starts: Sequence[tuple[NveTrajectory, int]], n_frames: int
) -> NDArray[np.float64]:
    first = starts[0][0]
    numbers, cell = first.system.numbers, first.system.cell
    lattice = None if cell is None else torch.tensor(cell)

    def field(_: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        answer = committee.evaluate(numbers, positions, forces="mean", cell=lattice)
        if answer.forces is None:
            raise TrainingError("the member gave no forces though it was asked for them")
        return answer.energies[0], answer.forces

    motion = follow(
        field,
        torch.tensor(np.array([t.positions[start] for t, start in starts])),
        torch.tensor(np.array([t.velocities[start] for t, start in starts])),
        first.timestep,
        torch.tensor(first.half_kick),
        n_frames,
        detached=True,
    )
    share = 1.0 / (3.0 * (numbers[:, None] == numbers).sum(1))
    errors = np.empty((len(starts), n_frames))
    for frame, (_, forces) in enumerate(motion):
        wanted = np.array([t.forces[start + frame] for t, start in starts])
        errors[:, frame] = np.abs(forces.numpy() - wanted).sum(2) @ share
    return np.nan_to_num(errors, nan=np.inf, posinf=np.inf)
