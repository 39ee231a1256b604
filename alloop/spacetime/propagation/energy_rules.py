"""What is done about the total energy, which a 4D model conserves only as well as it predicts.

``mean`` leaves it alone. ``select`` is the rule of GICnet (Ge et al. 2023,
doi:10.1021/acs.jpclett.3c01592, SI): of all networks the one whose segment changes the energy
least, and a way back where all change it too much. ``shell`` takes the mean of the ensemble, which
is nearer to the truth than any of its members, and moves the end of each segment onto the surface
of the energy that the trajectory started with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.motion.rigid import centred, momenta, rigid_motion, rigid_part
from alloop.spacetime.surface import Surface
from alloop.units import ACCELERATION, EV_PER_KCAL_MOL, KINETIC

Rule = Literal["mean", "select", "shell"]

SHELL_TIME = 1.5
"""Weight of velocities against positions in a step onto the energy shell, fs.

About 1 / (frequency of a C-H stretch). Measured on ethanol's segments, 1 to 2 fs leave the end no
farther from the truth than it was; velocities alone (0 fs) do not work at a turning point.
"""
LEAST_SCALE, LARGEST_SCALE = 0.5, 2.0
"""Bounds of the factor by which vibrational velocities may change in that step."""


@dataclass(frozen=True, slots=True)
class PropagationSettings:
    """How segments are chained and what is done about the energy.

    Attributes
    ----------
    rule : "mean", "select" or "shell"; the latter two need a surface.
    segment : length of a segment, fs; None for the model's cutoff.
    checks_inside : how often the energy is checked within a segment, besides its end.
    limit : with "shell", the largest change of energy in a segment before correction, eV; the mean
        is not to be trusted beyond, and the best single network is asked.
    rescue_limit : with "shell" and a rescue, the same, eV; beyond, dynamics is asked at once. So
        much tighter since it costs no replica: what a model does not know yet shows early, and
        energy does not gather where it knows least.
    threshold : with "select", the largest distance from the energy of the start, eV.
    largest_threshold : up to which that is doubled where no network meets it, eV.
    buffer : with "select", how many segments can be taken back.
    largest_rollbacks : with "select", how often at one place before the threshold is doubled. More
        take time only: measured on ethanol, 10 end as well as 50.
    reversible : whether, with "shell", segments of the mean are made to lead back to where they
        came from, see :mod:`alloop.spacetime.propagation.reversible`.
    rescue : whether a segment that cannot be done is run as ordinary dynamics on the surface.

    Raises
    ------
    SpacetimeError
        Some value makes no sense.

    """

    rule: Rule = "mean"
    segment: float | None = None
    checks_inside: int = 1
    limit: float = 10.0 * EV_PER_KCAL_MOL
    rescue_limit: float = 3.0 * EV_PER_KCAL_MOL
    threshold: float = 1.0 * EV_PER_KCAL_MOL
    largest_threshold: float = 16.0 * EV_PER_KCAL_MOL
    buffer: int = 10
    largest_rollbacks: int = 10
    reversible: bool = True
    rescue: bool = False

    def __post_init__(self) -> None:
        if self.rule not in ("mean", "select", "shell"):
            raise SpacetimeError(f"energy rule is {self.rule!r}, want mean, select or shell")
        for name in ("segment", "limit", "rescue_limit", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise SpacetimeError(f"propagation: {name} is {value}, want a positive number")
        if not self.threshold <= self.largest_threshold < math.inf:
            raise SpacetimeError(
                f"propagation: largest_threshold is {self.largest_threshold} eV, want at least the"
                f" threshold of {self.threshold} eV"
            )
        for name in ("checks_inside", "buffer", "largest_rollbacks"):
            if getattr(self, name) < 0:
                raise SpacetimeError(
                    f"propagation: {name} is {getattr(self, name)}, want 0 or more"
                )

    @property
    def largest_change(self) -> float:
        """Largest change of energy in a segment of the mean that is believed, eV."""
        return min(self.limit, self.rescue_limit) if self.rescue else self.limit


def kinetic_energy(masses: Tensor, velocities: Tensor) -> Tensor:
    """Return kinetic energies (...,), eV, of velocities (..., n_atoms, 3), Å/fs."""
    return 0.5 * KINETIC * torch.sum(masses[:, None] * velocities.square(), dim=(-1, -2))


def total_energy(surface: Surface, masses: Tensor, positions: Tensor, velocities: Tensor) -> Tensor:
    """Return potential plus kinetic energies (...,), eV; NaN where there is none."""
    with torch.no_grad():
        potential = surface.energies(positions)
    return potential + kinetic_energy(masses, velocities)


def check_times(length: float, checks_inside: int) -> Tensor:
    """Return evenly spaced times in a segment, fs, its end the last of them."""
    n = checks_inside + 1
    return length * torch.arange(1, n + 1, dtype=torch.float64) / n


def onto_shell(
    masses: Tensor, positions: Tensor, velocities: Tensor, forces: Tensor, excess: Tensor
) -> Dual:
    """Return states moved by the least that takes away an excess of total energy.

    Positions and velocities (n, n_atoms, 3) move along the gradient of the energy in phase space,
    masses and :data:`SHELL_TIME` being the metric: along the force per mass, and along the
    velocities free of rotation. P, L and the centre of mass stay exactly; the energy is met exactly
    up to the curvature of the potential along the step (some 1e-5 eV for 0.05 eV).

    Parameters
    ----------
    masses : (n_atoms,), amu.
    positions, velocities : (n, n_atoms, 3), Å and Å/fs.
    forces : (n, n_atoms, 3), eV/Å.
    excess : (n,), eV, to be taken away.

    Returns
    -------
    The states, unchanged where velocities would have to change beyond reason: a molecule that is
    hardly moving, whose excess is left to the next segment.

    """
    vibration = velocities - rigid_part(masses, positions, velocities)
    push = centred(masses, ACCELERATION * forces / masses[:, None])
    stiffness = kinetic_energy(masses, vibration) + SHELL_TIME**2 * kinetic_energy(masses, push)
    step = (SHELL_TIME**2 * 0.5 * excess / stiffness)[:, None, None] * push
    moved = positions + step
    rigid = rigid_motion(masses, moved, *momenta(masses, positions, velocities))
    swings = velocities - rigid_part(masses, moved, velocities)
    before = kinetic_energy(masses, velocities)
    climbed = -torch.sum(forces * step, dim=(-1, -2))
    left = before - excess - climbed - kinetic_energy(masses, rigid)
    scale = torch.sqrt(left / kinetic_energy(masses, swings))
    sound = ((scale >= LEAST_SCALE) & (scale <= LARGEST_SCALE))[:, None, None]
    turned = rigid + scale[:, None, None] * swings
    return torch.where(sound, moved, positions), torch.where(sound, turned, velocities)
