"""From internal motion to motion in space: linear and angular momentum decide the rest.

A model says how the shape of a molecule changes. How it moves and turns as a whole follows from
the momenta of the start, which are conserved: the centre of mass moves uniformly, and

    R = c + A x(q),   dA/dt = A [w],   w = I^-1 (A^T L - sum m x × dx/dt)

where x is the shape in a body-fixed frame, I its inertia tensor and L the angular momentum. So P
and L hold exactly, whatever the model predicts, and predictions turn with the start. Coordinates
that are oriented say themselves how the molecule stands; only velocities are made to have L.
Axial ones say how it turns about its axis, which no spin then does (see ``axis``). Starts of other
isomers than the data's are at home meanwhile (see ``isomers``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.motion import axis, rotation
from alloop.spacetime.motion.rigid import (
    centre,
    centred,
    inverse_inertia,
    momenta,
    rigid_part,
    superpose,
)

ALIGNMENT_TIME = 10.0
"""Weight of velocities against positions when a shape is laid on a start, fs."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What comes of some starts, as explicit functions of time.

    The leading axes ``...`` are (n_replicas,), or (n_members, n_replicas).

    Attributes
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts brought home, Å and Å/fs.
    isomers : (n_replicas,) int64, where each start is from; None where all are from home.
    start : coordinates and rates of the starts, (n_replicas, n_coordinates).
    coefficients : (..., n_coordinates, basis.size), of the motion in internal coordinates.
    attitude : (n_replicas, 3, 3), rotations from the body-fixed frame to the starts.
    turning : how the body-fixed frame turns; None where the coordinates are oriented.

    """

    model: SpacetimeModel
    positions: Tensor
    velocities: Tensor
    isomers: Tensor | None
    start: Dual
    coefficients: Tensor
    attitude: Tensor
    turning: rotation.Turning | None

    def at(self, times: Tensor) -> Dual:
        """Return positions and velocities (..., n_times, n_atoms, 3) at times (n_times,), fs.

        Times lie between 0 and the end of the forecast, in any order.
        """
        masses = self.model.masses
        shapes = self.model.motion(*self.start, self.coefficients, times)
        internal = self.model.internal
        body = _Body.of(masses, internal.place(*shapes), axial=internal.axial)
        momentum, total = momenta(masses, self.positions, self.velocities)
        attitude, seen = self.attitude.unsqueeze(-3), total.unsqueeze(-2) @ self.attitude
        if self.turning is not None:
            turned = self.turning(times)
            seen = rotation.turned_back(turned, seen)
            attitude = attitude @ rotation.matrices(turned)
        positions, velocities = body.moved(body.spin(seen), attitude)
        if internal.axial:
            total = total.unsqueeze(-2)
            positions, velocities = axis.restored(masses, positions, velocities, total)
        drift = (momentum / masses.sum())[:, None, None]
        middle = centre(masses, self.positions)[:, None] + drift * times[:, None, None]
        motion = positions.add_(middle), velocities.add_(drift)
        if self.isomers is not None:
            x, v = (self.model.isomers.take_back(self.isomers, part) for part in motion)
            return x, v
        return motion

    def only(self, replicas: Tensor, members: Tensor | None = None) -> Forecast:
        """Return the forecast of some replicas, each by one of the members where there are any.

        Both are (n,) indices.
        """
        place = (replicas,) if members is None else (members, replicas)
        coordinates, rates = self.start
        return Forecast(
            self.model,
            self.positions[replicas],
            self.velocities[replicas],
            None if self.isomers is None else self.isomers[replicas],
            (coordinates[replicas], rates[replicas]),
            self.coefficients[place],
            self.attitude[replicas],
            None if self.turning is None else self.turning.only(place),
        )


def forecast(
    model: SpacetimeModel,
    positions: Tensor,
    velocities: Tensor,
    *,
    members: bool = False,
    until: float | None = None,
) -> Forecast:
    """Return what the mean of the ensemble, or each of its members, says of some starts.

    Parameters
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts, Å and Å/fs.
    members : whether to follow each member by itself.
    until : longest time that will be asked for, fs; the model's cutoff without it.

    Raises
    ------
    SpacetimeError
        Wrong shapes or starts that are not finite.

    """
    check_starts(model, positions, velocities)
    start = model.internal.describe(positions, velocities)
    isomers = model.isomers.find(model.internal.handedness(start[0]))
    if isomers is not None:
        positions, velocities = (
            model.isomers.bring_home(isomers, part) for part in (positions, velocities)
        )
        start = model.internal.describe(positions, velocities)
    coefficients = model.coefficients(*start)
    if not members:
        coefficients = coefficients.mean(dim=0)
    end = model.cutoff if until is None else until
    seen = positions, velocities
    attitude, turning = _orientation(model, seen, start, coefficients, end)
    return Forecast(model, *seen, isomers, start, coefficients, attitude, turning)


def predict(model: SpacetimeModel, positions: Tensor, velocities: Tensor, times: Tensor) -> Dual:
    """Return the motion that the mean of the ensemble predicts within one segment.

    Parameters
    ----------
    model : the 4D model.
    positions, velocities : (n_replicas, n_atoms, 3) float64, the starts, Å and Å/fs.
    times : (n_times,) float64, from 0 to the model's cutoff in any order, fs.

    Returns
    -------
    Positions and velocities (n_replicas, n_times, n_atoms, 3). At t = 0 they are the start; linear
    and angular momentum are those of the start at all times.

    Raises
    ------
    SpacetimeError
        Wrong shapes, starts that are not finite, or times beyond the cutoff.

    """
    until = _last(model, times)
    return forecast(model, positions, velocities, until=until).at(times)


def predict_members(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor, times: Tensor
) -> Dual:
    """Return what each network predicts, (n_members, n_replicas, n_times, n_atoms, 3).

    As :func:`predict` otherwise.
    """
    until = _last(model, times)
    return forecast(model, positions, velocities, members=True, until=until).at(times)


def endpoints(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor, *, members: bool = False
) -> Dual:
    """Return where the mean, or each of the members, ends at the cutoff.

    Positions and velocities ([n_members,] n_replicas, n_atoms, 3).
    """
    end = torch.tensor([model.cutoff], dtype=torch.float64)
    x, v = forecast(model, positions, velocities, members=members).at(end)
    return x.squeeze(-3), v.squeeze(-3)


@dataclass(frozen=True, slots=True, eq=False)
class _Body:
    """Shapes in the body-fixed frame, and how they move there.

    ``motion`` (..., n_atoms, 6) are centred positions beside velocities, ``inverse`` (..., 3, 3)
    of their inertia tensors, ``internal`` (..., 3) their angular momenta.
    """

    motion: Tensor
    inverse: Tensor
    internal: Tensor

    @classmethod
    def of(cls, masses: Tensor, placed: Dual, *, axial: bool) -> _Body:
        motion = torch.cat(placed, dim=-1)
        motion -= (masses / masses.sum())[None] @ motion
        products = (masses[:, None] * motion[..., :3]).transpose(-1, -2) @ motion
        swings = products[..., 3:]
        internal = (swings - swings.transpose(-1, -2))[..., [1, 2, 0], [2, 0, 1]]
        invert = axis.transverse_inverse if axial else inverse_inertia
        return cls(motion, invert(products[..., :3]), internal)

    def spin(self, total: Tensor) -> Tensor:
        """Return the angular velocity (..., 3) that makes up the total angular momentum."""
        return torch.sum(self.inverse * (total - self.internal).unsqueeze(-2), dim=-1)

    def moved(self, spin: Tensor, attitude: Tensor) -> Dual:
        """Return positions and velocities of the shape, turned and turning."""
        back = attitude.transpose(-1, -2).expand(*spin.shape, 3)
        shape, change = self.motion.split(3, dim=-1)
        swirl = torch.linalg.cross(spin.unsqueeze(-2).expand_as(shape), shape)
        return shape @ back, swirl.add_(change) @ back


def _orientation(
    model: SpacetimeModel, seen: Dual, start: Dual, coefficients: Tensor, until: float
) -> tuple[Tensor, rotation.Turning | None]:
    """Return how the body-fixed frame stands at the start, and how it turns."""
    if model.internal.oriented:
        return torch.eye(3, dtype=torch.float64).expand(len(seen[0]), 3, 3), None
    length, nodes = rotation.panels(until)
    times = torch.cat([nodes.new_zeros(1), nodes.flatten()])
    placed = model.internal.place(*model.motion(*start, coefficients, times))
    first = (part.flatten(end_dim=-5)[0] if part.ndim > 4 else part for part in placed)
    x, dx = (part[:, 0] for part in first)
    attitude = _attitude(model.masses, (x, dx), seen)
    _, total = momenta(model.masses, *seen)
    body = _Body.of(model.masses, placed, axial=model.internal.axial)
    at_start = total.unsqueeze(-2) @ attitude

    def spins(panel: int) -> rotation.Spin:
        span = slice(1 + panel * nodes.shape[1], 1 + (panel + 1) * nodes.shape[1])
        inverse, internal = body.inverse[..., span, :, :], body.internal[..., span, :]

        def spin(turned: Tensor) -> Tensor:
            rest = rotation.turned_back(turned, at_start) - internal
            return torch.sum(inverse * rest.unsqueeze(-2), dim=-1)

        return spin

    each = [spins(panel) for panel in range(len(nodes))]
    return attitude, rotation.turn(length, each, body.internal.shape[:-2])


def _attitude(masses: Tensor, shape: Dual, start: Dual) -> Tensor:
    """Return the rotations that lay the body-fixed shape on the start.

    Velocities free of rotation are laid on each other too: they alone say in which plane a
    straight molecule is about to bend.
    """
    stacks = []
    for positions, velocities in (shape, start):
        swings = velocities - rigid_part(masses, positions, velocities)
        stacks.append(torch.cat([centred(masses, positions), ALIGNMENT_TIME * swings], dim=-2))
    return superpose(torch.cat([masses, masses]), *stacks)


def check_starts(model: SpacetimeModel, positions: Tensor, velocities: Tensor) -> None:
    """Raise SpacetimeError unless starts are (n_replicas, n_atoms, 3) and finite."""
    wanted = (len(model.masses), 3)
    if positions.ndim != 3 or positions.shape[1:] != wanted or positions.shape != velocities.shape:
        raise SpacetimeError(
            f"starts have positions {tuple(positions.shape)} and velocities"
            f" {tuple(velocities.shape)}, want both (n_replicas, {wanted[0]}, 3)"
        )
    if not (torch.isfinite(positions).all() and torch.isfinite(velocities).all()):
        raise SpacetimeError("a start has positions or velocities that are not finite")


def _last(model: SpacetimeModel, times: Tensor) -> float | None:
    """Return the latest of the times, None where there is none beyond the start."""
    if len(times) and not (times.min() >= 0 and times.max() <= model.cutoff):
        raise SpacetimeError(
            f"times from {float(times.min())} to {float(times.max())} fs are asked for,"
            f" want them from 0 to the cutoff {model.cutoff} fs"
        )
    return (float(times.max()) or None) if len(times) else None
