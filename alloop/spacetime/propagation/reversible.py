"""Segments that lead back to where they came from, as those of mechanics do.

A fitted model shrinks motion a little towards what it saw on average, always to the same side: over
many segments energy drains away. Mechanics is reversible: with velocities turned round at its end a
segment leads back to its start. What the model misses there, d, measures the one-sided part of its
error, and starting d / 2 before the start takes most of it away: to first order in d the map then
is the mean of the model and its adjoint, and reversible (Hairer, Lubich, Wanner, *Geometric
Numerical Integration*, 2006, sections II.3 and V.1).
"""

from __future__ import annotations

import torch

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion.orientation import forecast
from alloop.spacetime.motion.rigid import centre, momenta, rigid_motion, rigid_part


def before_start(model: SpacetimeModel, start: Dual, length: float) -> Dual:
    """Return the starts (n, n_atoms, 3) less half of what the way there and back misses.

    Positions, Å, and velocities, Å/fs, with the centre of mass and both momenta of the starts.
    ``length`` is that of the segment, fs. By the mean of the ensemble.
    """
    end = torch.tensor([length], dtype=torch.float64)
    x, v = start
    there, speed = (part[:, 0] for part in forecast(model, x, v, until=length).at(end))
    broken = ~(torch.isfinite(there) & torch.isfinite(speed)).all(-1).all(-1)[:, None, None]
    # What cannot be turned round is left as it is: its frames tell what is wrong.
    there, speed = torch.where(broken, x, there), torch.where(broken, -v, speed)
    back, rate = (part[:, 0] for part in forecast(model, there, -speed, until=length).at(end))
    moved = x - 0.5 * (back - x)
    moved = moved - centre(model.masses, moved) + centre(model.masses, x)
    swings = v - 0.5 * (-rate - v)
    rigid = rigid_motion(model.masses, moved, *momenta(model.masses, x, v))
    turned = rigid + swings - rigid_part(model.masses, moved, swings)
    sound = (torch.isfinite(moved) & torch.isfinite(turned)).all(-1).all(-1)[:, None, None]
    sound = sound & ~broken
    return torch.where(sound, moved, x), torch.where(sound, turned, v)
