"""Trajectories at constant energy as training data: a potential has to follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alloop.errors import TrainingError
from alloop.potentials.fitting import FrameGroup
from alloop.training.data import Labels
from alloop.trajectories import System, Trajectory
from alloop.units import ACCELERATION, KINETIC

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORCE_TOLERANCE = 0.1
"""Share of the root mean square force by which labels may miss the forces that moved the atoms.

A thermostat or a missing frame misses by 0.3 or more, a committee in use by a few hundredths.
"""
ENERGY_TOLERANCE = 0.5
"""Share of the mean kinetic energy by which the total energy may vary."""


@dataclass(frozen=True, slots=True, eq=False)
class NveTrajectory:
    """A trajectory at constant energy with a label for every time step.

    Attributes
    ----------
    name : tells it from the others; training and validation are split by it.
    system : elements, masses and cell.
    timestep : fs, the same between all frames.
    positions : (n_frames, n_atoms, 3) float64, Å, never wrapped into the cell.
    velocities : (n_frames, n_atoms, 3) float64, Å/fs, at the times of the positions.
    energies : (n_frames,) float64, total energies of the reference method, eV.
    forces : (n_frames, n_atoms, 3) float64, of the reference method, eV/Å; those that moved the
        atoms, up to ``FORCE_TOLERANCE``: what does not move by them cannot be followed.

    Raises
    ------
    TrainingError
        Shapes disagree, a number is not finite, frames are missing, a thermostat was at work, the
        forces are others than those that moved the atoms, or the energy is not conserved.

    """

    name: str
    system: System
    timestep: float
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not 0.0 < self.timestep < np.inf:
            raise self._refusal(f"its timestep is {self.timestep} fs, want a positive number")
        n_frames, n_atoms = len(self.positions), len(self.system.numbers)
        if not (self.system.masses > 0.0).all():
            raise self._refusal(f"its masses are {self.system.masses.tolist()}, want all positive")
        if n_frames < 2:
            raise self._refusal(f"it has {n_frames} frames, want at least 2")
        for name in ("positions", "velocities", "energies", "forces"):
            self._freeze(name, (n_frames,) if name == "energies" else (n_frames, n_atoms, 3))
        self._check_motion()
        self._check_energy()

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        name: str,
        labels: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> NveTrajectory:
        """Take over a trajectory of the store; the stretch before a failure is left out.

        Parameters
        ----------
        trajectory : at constant energy, every step recorded.
        name : tells it from the others.
        labels : energies (n_frames,) and forces (n_frames, n_atoms, 3) of a reference method for
            all of its frames, eV and eV/Å; without them those of the committee that moved it.

        Raises
        ------
        TrainingError
            It has a thermostat or gaps, or is refused by the class.

        """
        about = trajectory.about
        if about.ensemble != "nve":
            words = f"it is of the ensemble {about.ensemble!r}, want 'nve': noise has no gradient"
            raise _refusal(name, words)
        sound = int((~trajectory.pre_failure).sum())
        if (np.diff(trajectory.steps[:sound]) != 1).any():
            raise _refusal(name, "not every time step was recorded; record every step")
        energies, forces = labels or (trajectory.potential, trajectory.forces)
        return cls(
            name,
            trajectory.system,
            about.timestep,
            trajectory.positions[:sound],
            trajectory.velocities[:sound],
            np.asarray(energies, np.float64)[:sound],
            np.asarray(forces, np.float64)[:sound],
        )

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def half_kick(self) -> NDArray[np.float64]:
        """Velocity that one eV/Å gives to each atom in half a step, (n_atoms, 1) Å/fs."""
        kick: NDArray[np.float64] = 0.5 * self.timestep * ACCELERATION / self.system.masses[:, None]
        return kick

    def _check_motion(self) -> None:
        """Refuse frames that velocity Verlet with these forces does not lead to."""
        x, v, force = self.positions, self.velocities, self.forces
        drift = (np.diff(x, axis=0) - self.timestep * v[:-1]) / (self.timestep * self.half_kick)
        by_position = drift - force[:-1]
        by_velocity = 0.5 * np.diff(v, axis=0) / self.half_kick - 0.5 * (force[:-1] + force[1:])
        missed = np.sqrt(np.square([by_position, by_velocity]).mean((2, 3)).max(0))
        typical = float(np.sqrt(np.square(force).mean()))
        worst = int(missed.argmax())
        if missed[worst] > FORCE_TOLERANCE * max(typical, _WEAK_FORCE):
            raise self._refusal(
                f"between its frames {worst} and {worst + 1} the atoms move by forces that differ"
                f" by {missed[worst]:.2g} eV/Å from the labels ({typical:.2g} eV/Å); it needs"
                " every step of velocity Verlet without thermostat, in Å, Å/fs, amu and eV/Å"
            )

    def _check_energy(self) -> None:
        masses = self.system.masses[:, None]
        kinetic = 0.5 * KINETIC * (masses * np.square(self.velocities)).sum((1, 2))
        total = kinetic + self.energies
        spread, allowed = float(np.ptp(total)), ENERGY_TOLERANCE * float(np.median(kinetic))
        if spread > allowed + _WEAK_FORCE:
            raise self._refusal(
                f"its total energy varies by {spread:.2g} eV, want less than {allowed:.2g} eV"
                " (half of the kinetic energy); leave out the part that exploded"
            )

    def _freeze(self, name: str, shape: tuple[int, ...]) -> None:
        array = np.array(getattr(self, name), np.float64)
        if array.shape != shape:
            raise self._refusal(f"its {name} have shape {array.shape}, want {shape}")
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
        if bad.any():
            raise self._refusal(f"its {name} are not finite from frame {int(bad.argmax())} on")
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    def _refusal(self, words: str) -> TrainingError:
        return _refusal(self.name, words)


_WEAK_FORCE = 1e-3
"""eV/Å, and eV; below it nothing is told from rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """All frames of some trajectories as flat tensors; atoms follow frame after frame.

    Attributes
    ----------
    labels : energies (relative to the atoms) and forces of all frames.
    velocities : (all atoms, 3) float64, Å/fs.
    timestep : (all atoms, 1) float64, fs.
    half_kick : (all atoms, 1) float64, velocity that one eV/Å gives in half a step.
    place, left : (n_frames,) int64, frames of the same trajectory before each frame, and from it
        on.

    """

    labels: Labels
    velocities: Tensor
    timestep: Tensor
    half_kick: Tensor
    place: Tensor
    left: Tensor

    @classmethod
    def of(
        cls, trajectories: Sequence[NveTrajectory], atom_energies: Mapping[int, float]
    ) -> Segments:
        """Join trajectories; ``atom_energies`` by atomic number, eV."""
        atoms = [sum(atom_energies[int(z)] for z in t.system.numbers) for t in trajectories]
        energies = [t.energies - atom for t, atom in zip(trajectories, atoms, strict=True)]
        n_atoms = [len(t.system.numbers) for t in trajectories for _ in range(t.n_frames)]
        return cls(
            Labels(
                energies=torch.tensor(np.concatenate(energies)).float(),
                forces=_flat([t.forces for t in trajectories]).float(),
                numbers=torch.tensor(
                    np.concatenate([np.tile(t.system.numbers, t.n_frames) for t in trajectories])
                ),
                n_atoms=torch.tensor(n_atoms),
                training=torch.ones(len(n_atoms), dtype=torch.bool),
            ),
            velocities=_flat([t.velocities for t in trajectories]),
            timestep=_flat(
                [np.full((*t.positions.shape[:2], 1), t.timestep) for t in trajectories]
            ),
            half_kick=_flat([np.tile(t.half_kick, (t.n_frames, 1)) for t in trajectories]),
            place=torch.cat([torch.arange(t.n_frames) for t in trajectories]),
            left=torch.cat([torch.arange(t.n_frames, 0, -1) for t in trajectories]),
        )

    def starts(self, length: int, stride: int) -> Tensor:
        """Return every ``stride``-th frame that ``length`` frames begin with, itself included."""
        return ((self.left >= length) & (self.place % stride == 0)).nonzero()[:, 0]


def groups_of(trajectories: Sequence[NveTrajectory]) -> list[FrameGroup]:
    """Return the frames of trajectories, in order, as a potential in training takes them."""
    groups, first = [], 0
    for trajectory in trajectories:
        n, cell = trajectory.n_frames, trajectory.system.cell
        group = FrameGroup(
            numbers=tuple(trajectory.system.numbers.tolist()),
            positions=torch.tensor(trajectory.positions),
            cells=None if cell is None else torch.tensor(cell).expand(n, 3, 3),
            training=torch.ones(n, dtype=torch.bool),
            index=torch.arange(first, first + n),
        )
        groups.append(group)
        first += n
    return groups


def _flat(arrays: Sequence[NDArray[np.float64]]) -> Tensor:
    return torch.tensor(np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays]))


def _refusal(name: str, words: str) -> TrainingError:
    return TrainingError(f"trajectory {name!r} cannot be trained on: {words}")
