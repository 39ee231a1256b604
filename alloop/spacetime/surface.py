"""The potential energy that a 4D model's geometries are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alloop.errors import SpacetimeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.potentials.evaluation import Committee

CHUNK = 256
"""Geometries evaluated at a time."""


class Surface(Protocol):
    """A potential-energy surface of one molecule; geometries without an energy have NaN."""

    def energies(self, positions: Tensor) -> Tensor:
        """Return energies (...,), eV, of positions (..., n_atoms, 3), Å; differentiable."""
        ...

    def with_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (...,), eV, and forces (..., n_atoms, 3), eV/Å, without a graph."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class CommitteeSurface:
    """The mean of a committee of potentials as a surface.

    Attributes
    ----------
    committee : the potentials.
    numbers : (n_atoms,) atomic numbers.

    """

    committee: Committee
    numbers: NDArray[np.int64]

    def energies(self, positions: Tensor) -> Tensor:
        """Return mean energies (...,), eV; gradients come from the potentials' own forces."""
        energies: Tensor = _Energies.apply(positions, self)  # type: ignore[no-untyped-call]  # torch
        return energies

    def with_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean energies (...,), eV, and forces (..., n_atoms, 3), eV/Å."""
        energies, forces = self._evaluate(positions.detach(), forces=True)
        if forces is None:
            raise SpacetimeError("the committee gave no forces though they were asked for")
        return energies, forces

    def _evaluate(self, positions: Tensor, *, forces: bool) -> tuple[Tensor, Tensor | None]:
        batch = positions.reshape(-1, *positions.shape[-2:]).to(torch.float64)
        answers = [
            self.committee.evaluate(self.numbers, part, forces="mean" if forces else "none")
            for part in batch.split(CHUNK)
        ]
        energies = torch.cat([a.energies.mean(dim=0) for a in answers]).detach()
        pushes = [a.forces.detach() for a in answers if a.forces is not None]
        return (
            energies.reshape(positions.shape[:-2]),
            torch.cat(pushes).reshape(positions.shape) if pushes else None,
        )


class _Energies(torch.autograd.Function):
    """Energies whose gradient is minus the forces that come with them."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, surface: CommitteeSurface) -> Tensor:
        energies, forces = surface._evaluate(positions, forces=ctx.needs_input_grad[0])
        ctx.save_for_backward(forces)
        return energies.to(positions.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (forces,) = ctx.saved_tensors
        return -gradients[0][..., None, None] * forces.to(gradients[0].dtype), None
