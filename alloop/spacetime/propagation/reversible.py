"""Segments that lead back to where they came from, as those of mechanics do.

A fitted model shrinks motion a little towards what it saw on average, always to the same side.
Energy drains away, and where it is put back at one end only, it is put back into some modes more
than others, until all of it may sit in one. Mechanics is reversible: with velocities turned round
at its end a motion leads back to its start. So the segments here are a composition of the model
and its adjoint (Hairer, Lubich, Wanner, *Geometric Numerical Integration*, 2006, sections II.3 and
V.1): half a segment by the model, and then that half from whose end the model, turned round, leads
back to the middle. What is wrong with the energy is put right in the middle, which treats both
directions alike (ibid., section V.4.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import forecast
from alloop.spacetime.motion.rigid import centre, momenta, rigid_motion, rigid_part
from alloop.spacetime.propagation.energy_rules import kinetic_energy, onto_shell
from alloop.spacetime.surface import Surface


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A segment in two halves.

    Attributes
    ----------
    positions, velocities : (n, n_times, n_atoms, 3), Å and Å/fs.
    taken : total energy taken away before each time, (n, n_times), eV; NaN where not known.

    """

    positions: Tensor
    velocities: Tensor
    taken: Tensor


def follow_reversibly(
    model: SpacetimeModel,
    start: Dual,
    length: float,
    times: Tensor,
    surface: Surface,
    targets: Tensor,
) -> Halves:
    """Return a reversible segment of ``length``, fs, of the mean of the ensemble.

    The second half begins beside the middle by what the way from there and back misses, and on
    from there by what its end then lacks of the total energies ``targets`` (n,), eV: both to first
    order. ``times`` (n_times,) are in any order, fs. Centre of mass and momenta stay those of the
    starts (n, n_atoms, 3).
    """
    half = 0.5 * length
    late = times > half
    seen = forecast(model, *start, until=half).at(torch.cat([times.clamp(max=half), _at(half)]))
    middle, sound = _finite((seen[0][:, -1], seen[1][:, -1]), start)
    there, reached = _finite(_end(model, middle, half), middle)
    back, returned = _finite(_end(model, _turned(there), half), _turned(middle))
    usable = (reached & returned)[:, None, None]
    x, v = (
        part + torch.where(usable, part - home, 0.0)
        for part, home in zip(middle, _turned(back), strict=True)
    )
    x = x - centre(model.masses, x) + centre(model.masses, middle[0])
    rigid = rigid_motion(model.masses, x, *momenta(model.masses, *start))
    beside = x, rigid + v - rigid_part(model.masses, x, v)
    excess, forces = _excess(surface, model.masses, beside, there, middle, targets)
    begun = onto_shell(model.masses, *beside, forces, excess)
    positions, velocities = (part[:, :-1].clone() for part in seen)
    if late.any():
        after = forecast(model, *begun, until=half).at(times[late] - half)
        for part, later in zip((positions, velocities), after, strict=True):
            part[:, late] = later.masked_fill(~sound[:, None, None, None], math.nan)
    return Halves(positions, velocities, torch.where(late, excess[:, None], 0.0))


def _excess(
    surface: Surface, masses: Tensor, beside: Dual, there: Dual, middle: Dual, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a second half from beside the middle has too much of energy, and the forces.

    The energy of ``there``, where the half from the middle ends, is known; it differs by as much
    as the energies of where both halves begin, to first order.
    """
    potential, forces = surface.with_forces(torch.cat([beside[0], there[0]]))
    at_there = potential[len(targets) :] + kinetic_energy(masses, there[1])
    forces = forces[: len(targets)]
    climbed = -torch.sum(forces * (beside[0] - middle[0]), dim=(-1, -2))
    gained = kinetic_energy(masses, beside[1]) - kinetic_energy(masses, middle[1])
    return at_there - targets + climbed + gained, forces


def _at(time: float) -> Tensor:
    return torch.tensor([time], dtype=torch.float64)


def _end(model: SpacetimeModel, start: Dual, time: float) -> Dual:
    x, v = forecast(model, *start, until=time).at(_at(time))
    return x[:, 0], v[:, 0]


def _turned(state: Dual) -> Dual:
    return state[0], -state[1]


def _finite(state: Dual, instead: Dual) -> tuple[Dual, Tensor]:
    """Return states, others instead of those that are not finite, and which are."""
    x, v = state
    sound = torch.isfinite(x + v).all(dim=-1).all(dim=-1)
    keep = sound[:, None, None]
    return (torch.where(keep, x, instead[0]), torch.where(keep, v, instead[1])), sound
