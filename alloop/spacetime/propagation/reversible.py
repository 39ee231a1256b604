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
from alloop.spacetime.motion.orientation import Forecast, forecast
from alloop.spacetime.motion.rigid import centre, momenta, rigid_motion, rigid_part
from alloop.spacetime.propagation.energy_rules import kinetic_energy, onto_shell
from alloop.spacetime.surface import Surface


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A segment in two halves.

    Attributes
    ----------
    first, second : what comes of the start, and of the middle once it was put right.
    middle : when the second begins, fs.
    sound : (n,) bool, whether there is a middle to begin from.
    taken : (n,) total energy taken away in the middle, eV; NaN where it is not known.

    """

    first: Forecast
    second: Forecast
    middle: float
    sound: Tensor
    taken: Tensor

    def at(self, times: Tensor) -> Dual:
        """Return positions and velocities (n, n_times, n_atoms, 3) at times (n_times,), fs."""
        late = times > self.middle
        x, v = self.first.at(torch.where(late, self.middle, times))
        if late.any():
            broken = ~self.sound[:, None, None, None]
            for part, later in zip((x, v), self.second.at(times[late] - self.middle), strict=True):
                part[:, late] = later.masked_fill(broken, math.nan)
        return x, v

    def taken_by(self, times: Tensor) -> Tensor:
        """Return the energy taken away before times (n_times,), fs, as (n, n_times), eV."""
        late = times > self.middle
        return torch.where(late, self.taken[:, None], 0.0)


def follow_reversibly(
    model: SpacetimeModel, start: Dual, length: float, surface: Surface, targets: Tensor
) -> Halves:
    """Return a reversible segment of ``length``, fs, of the mean of the ensemble.

    The second half begins beside the middle by what the way from there and back misses, and on
    from there by what its end then lacks of the total energies ``targets`` (n,), eV: both to first
    order. Centre of mass and momenta stay those of the starts (n, n_atoms, 3).
    """
    half = 0.5 * length
    first = forecast(model, *start, until=half)
    middle, sound = _finite(_end(first, half), start)
    there, reached = _finite(_end(forecast(model, *middle, until=half), half), middle)
    back, returned = _finite(_end(forecast(model, *_turned(there), until=half), half), middle)
    usable = (reached & returned)[:, None, None]
    x, v = (
        part + torch.where(usable, part - home, 0.0)
        for part, home in zip(middle, _turned(back), strict=True)
    )
    x = x - centre(model.masses, x) + centre(model.masses, middle[0])
    rigid = rigid_motion(model.masses, x, *momenta(model.masses, *start))
    beside = x, rigid + v - rigid_part(model.masses, x, v)
    three = [torch.cat(parts) for parts in zip(beside, there, middle, strict=True)]
    potential, forces = surface.with_forces(three[0])
    at_beside, at_there, at_middle = (potential + kinetic_energy(model.masses, three[1])).chunk(3)
    excess = at_there - targets + at_beside - at_middle
    begun = onto_shell(model.masses, *beside, forces[: len(x)], excess)
    return Halves(first, forecast(model, *begun, until=half), half, sound, excess)


def _end(told: Forecast, time: float) -> Dual:
    x, v = told.at(torch.tensor([time], dtype=torch.float64))
    return x[:, 0], v[:, 0]


def _turned(state: Dual) -> Dual:
    return state[0], -state[1]


def _finite(state: Dual, instead: Dual) -> tuple[Dual, Tensor]:
    """Return states, others instead of those that are not finite, and which are."""
    x, v = state
    sound = torch.isfinite(x + v).all(dim=-1).all(dim=-1)
    keep = sound[:, None, None]
    return (torch.where(keep, x, instead[0]), torch.where(keep, v, instead[1])), sound
