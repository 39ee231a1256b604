"""What of a start decides where a coordinate goes: integrated gradients of a 4D model.

Sundararajan, Taly and Yan 2017, arXiv:1703.01365: along the straight way from a baseline x' to a
start x, the change of a prediction F is shared out among the inputs,

    IG_i = (x_i - x'_i) ∫ dF/dx_i (x' + a (x - x')) da from 0 to 1,   sum_i IG_i = F(x) - F(x')

Inputs are the coordinates of the start and their rates, and time if asked for. Dihedrals go the
shorter way round. F is a coordinate as the model predicts it, starting coordinate and uniform
motion included, continuous: it never jumps by 2 pi. F is linear in the members, so that the mean of
their values belongs to the ensemble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.protocol import Coordinates, Dual
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.model import SpacetimeModel

N_NODES = 24
"""Gauss-Legendre nodes; the completeness error says whether they were enough."""
BASIN = math.radians(60.0)
"""A frame is in the basin of a start when none of its dihedrals is farther away than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """How much each input contributes to a predicted coordinate.

    Attributes
    ----------
    target : name of the coordinate.
    names : of the inputs: coordinates, then their rates, then time where it is one.
    values : (n_members, n_baselines, n_inputs) float64, in units of the coordinate, Å or rad.
    changes : (n_members, n_baselines) float64, F(start) - F(baseline), in the same unit.

    """

    target: str
    names: tuple[str, ...]
    values: Tensor
    changes: Tensor

    @property
    def mean(self) -> Tensor:
        """Values (n_inputs,) of the ensemble, mean over baselines."""
        return self.values.mean(dim=(0, 1))

    @property
    def member_spread(self) -> Tensor:
        """Standard deviation (n_inputs,) over members, of their means over baselines."""
        return self.values.mean(dim=1).std(dim=0, correction=0)

    @property
    def baseline_spread(self) -> Tensor:
        """Standard deviation (n_inputs,) over baselines, of the values of the ensemble."""
        return self.values.mean(dim=0).std(dim=0, correction=0)

    @property
    def completeness_error(self) -> Tensor:
        """|sum of values - change|, (n_members, n_baselines), Å or rad; 0 with enough nodes."""
        return (self.values.sum(dim=-1) - self.changes).abs()

    def largest(self, n: int) -> list[int]:
        """Return the indices of the inputs with the largest mean values, by magnitude."""
        order = self.mean.abs().argsort(descending=True)
        return [int(i) for i in order[:n]]


def attribute(
    model: SpacetimeModel,
    start: Dual,
    baselines: Dual,
    coordinate: int,
    time: float,
    *,
    along_time: bool = False,
    n_nodes: int = N_NODES,
) -> Attribution:
    """Return what each part of a start contributes to a coordinate at a time.

    Parameters
    ----------
    model : the 4D model.
    start : positions and velocities (n_atoms, 3) float64, Å and Å/fs.
    baselines : positions and velocities (n_baselines, n_atoms, 3) to compare it with, such as those
        of :func:`resting_baselines`.
    coordinate : which of the model's coordinates, an index into :func:`coordinate_names`.
    time : fs, from 0 to the cutoff.
    along_time : time is an input too, and 0 at the baselines; otherwise it is the same all along.
    n_nodes : of the quadrature.

    Raises
    ------
    SpacetimeError
        Wrong shapes, an unknown coordinate or a time beyond the cutoff.

    """
    _check(model, start, baselines, coordinate, time)
    (q, rates), (far, far_rates) = (model.internal.describe(*part) for part in (start, baselines))
    later = far.new_full((len(far), 1), time)
    origin = torch.cat([far, far_rates, 0 * later if along_time else later], dim=-1)
    way = torch.cat(
        [_shortest(model.internal, q - far), rates - far_rates, later - origin[:, -1:]], dim=-1
    )
    shares, weights = np.polynomial.legendre.leggauss(n_nodes)
    nodes = torch.as_tensor(0.5 * (shares + 1.0))[:, None, None]
    ends = torch.stack([origin, origin + way])
    values, changes = [], []
    for member in _members(model):
        gradients = _gradients(member, coordinate, origin + nodes * way)
        values.append(way * torch.einsum("a,abi->bi", torch.as_tensor(0.5 * weights), gradients))
        with torch.no_grad():
            changes.append(torch.diff(_predicted(member, coordinate, ends), dim=0)[0])
    names = input_names(model.internal, model.numbers)
    shown = len(names) if along_time else len(names) - 1
    return Attribution(
        target=names[coordinate],
        names=names[:shown],
        values=torch.stack(values)[..., :shown],
        changes=torch.stack(changes),
    )


def bring_home(
    model: SpacetimeModel, positions: Tensor, velocities: Tensor
) -> tuple[Dual, Tensor | None]:
    """Return starts (n, n_atoms, 3) as the isomer that the model knows, and where each is from.

    The latter are (n,) places among its isomers; None where all are at home.
    """
    coordinates, _ = model.internal.describe(positions, velocities)
    which = model.isomers.find(model.internal.handedness(coordinates))
    if which is None:
        return (positions, velocities), None
    bring = model.isomers.bring_home
    return (bring(which, positions), bring(which, velocities)), which


def resting_baselines(
    model: SpacetimeModel, positions: Tensor, frames: Tensor, n_baselines: int = 8
) -> Dual:
    """Return starts at rest in the basin of a geometry: its mean, and frames from all over it.

    ``positions`` are (n_atoms, 3), ``frames`` (n_frames, n_atoms, 3), in order of time, Å. Gives
    positions and velocities (n, n_atoms, 3), n at most ``n_baselines``.

    Raises
    ------
    SpacetimeError
        No frame is in the basin.

    """
    (here, still), (there, _) = (
        model.internal.describe(x, torch.zeros_like(x)) for x in (positions, frames)
    )
    apart = _shortest(model.internal, there - here)
    inside = (apart[:, model.internal.angular].abs() <= BASIN).all(dim=-1)
    if not inside.any():
        raise SpacetimeError(
            f"4D attribution: of {len(frames)} frames none is within {math.degrees(BASIN):.0f}"
            " degrees of all dihedrals of the start; give baselines of your own"
        )
    mean, _ = model.internal.place(here + apart[inside].mean(dim=0), still)
    own = torch.nonzero(inside).flatten()
    n_own = min(max(n_baselines - 1, 0), len(own))
    picked = own[torch.linspace(0, len(own) - 1, n_own).round().long()]
    chosen = torch.cat([mean[None], frames[picked]])
    return chosen, torch.zeros_like(chosen)


def input_names(internal: Coordinates, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of all inputs: coordinates, such as "bond C0-H3", their rates, and time."""
    names = coordinate_names(internal, numbers)
    return (*names, *(f"rate of {name}" for name in names), "time")


def coordinate_names(internal: Coordinates, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of coordinates: the atoms of a Z-matrix, or kind and number."""
    if not isinstance(internal, ZMatrix):
        return tuple(
            f"{kind} {i}"
            for kind, span in internal.kinds.items()
            for i in range(span.stop - span.start)
        )
    atoms = [f"{chemical_symbols[z]}{i}" for i, z in enumerate(numbers)]
    columns = [internal.columns(n) if len(internal.rows) > n else [] for n in (1, 2, 3)]
    return tuple(
        f"{kind} {'-'.join(atoms[atom] for atom in row)}"
        for kind, part in zip(("bond", "angle", "dihedral"), columns, strict=True)
        for row in zip(*part, strict=True)
    )


def _members(model: SpacetimeModel) -> list[SpacetimeModel]:
    """Return a model of each member alone: a backward pass of one does not go through others."""
    return [
        replace(
            model,
            weights=tuple(weight[i : i + 1] for weight in model.weights),
            biases=tuple(bias[i : i + 1] for bias in model.biases),
        )
        for i in range(model.n_members)
    ]


def _gradients(member: SpacetimeModel, coordinate: int, inputs: Tensor) -> Tensor:
    """Return the gradients (..., n_inputs) of a coordinate; rows do not know of each other."""
    leaf = inputs.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(_predicted(member, coordinate, leaf).sum(), leaf)
    return gradients


def _predicted(member: SpacetimeModel, coordinate: int, inputs: Tensor) -> Tensor:
    """Return a coordinate (...,) from starts, rates and their own times (..., n_inputs)."""
    n = member.internal.n_coordinates
    rows = inputs.flatten(0, -2)
    start, rates, times = rows[:, :n], rows[:, n:-1], rows[:, -1]
    (coefficients,) = member.coefficients(start, rates)
    values, _ = member.basis(times)
    bent = (coefficients[:, coordinate].to(torch.float64) * values).sum(dim=-1)
    moved: Tensor = start[:, coordinate] + rates[:, coordinate] * times + bent
    return moved.view(inputs.shape[:-1])


def _shortest(internal: Coordinates, differences: Tensor) -> Tensor:
    """Return differences of coordinates with those of dihedrals in [-pi, pi]."""
    turns = torch.zeros_like(differences)
    turns[..., internal.angular] = torch.round(differences[..., internal.angular] / (2 * math.pi))
    return differences - 2 * math.pi * turns


def _check(
    model: SpacetimeModel, start: Dual, baselines: Dual, coordinate: int, time: float
) -> None:
    wanted = (len(model.masses), 3)
    for name, part in (("start", start), ("baselines", baselines)):
        shapes = [tuple(array.shape) for array in part]
        many = 1 if name == "baselines" else 0
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 + many or shapes[0][many:] != wanted:
            raise SpacetimeError(
                f"4D attribution: {name} have shapes {shapes}, want twice"
                f" {('n_baselines',) * many + wanted}"
            )
    if not 0 <= coordinate < model.internal.n_coordinates:
        raise SpacetimeError(
            f"4D attribution: there is no coordinate {coordinate}, want one of 0 to"
            f" {model.internal.n_coordinates - 1}"
        )
    if not 0 <= time <= model.cutoff:
        raise SpacetimeError(
            f"4D attribution: the time is {time} fs, want one from 0 to the cutoff"
            f" {model.cutoff} fs"
        )
