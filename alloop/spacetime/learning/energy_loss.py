"""How far predicted geometries lie from the energies of the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.protocol import Coordinates
from alloop.spacetime.surface import Surface
from alloop.units import EV_PER_HARTREE

ROWS = 8
"""Windows of a batch that are looked at: energies cost far more than coordinates."""


class EnergyLoss:
    """Root mean square error of the potential energy, Hartree as in GICnet's loss.

    Each window is looked at one random time, its frame as predicted against its frame as it was
    (doi:10.1021/acs.jpclett.3c01592, Eq. 7), both through the same surface.

    Parameters
    ----------
    internal, basis, scale : of the model.
    surface : the potential energy.
    starts, rates : (n, n_coordinates) float64, of the windows that are learnt from.
    coefficients : (n, n_coordinates * basis.size), of their true motion.

    """

    def __init__(
        self,
        internal: Coordinates,
        basis: TimeBasis,
        scale: Tensor,
        surface: Surface,
        starts: Tensor,
        rates: Tensor,
        coefficients: Tensor,
    ) -> None:
        self._internal, self._basis, self._scale, self._surface = internal, basis, scale, surface
        self._starts, self._rates, self._coefficients = starts, rates, coefficients

    def __call__(self, errors: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return one loss per member.

        ``errors`` (n_members, n, n_outputs) are of scaled outputs for the windows ``rows``
        (n_members, n).
        """
        chosen = rows[:, :ROWS]
        times = self._basis.cutoff * torch.rand(chosen.shape, generator=generator).to(torch.float64)
        values, _ = self._basis(times.flatten())
        values = values.view(*chosen.shape, -1, 1)
        known = self._coefficients[chosen].unflatten(-1, self._scale.shape).to(torch.float64)
        moved = self._rates[chosen] * times.unsqueeze(-1) + (known @ values).squeeze(-1)
        true = self._starts[chosen] + moved
        wrong = errors[:, :ROWS].unflatten(-1, self._scale.shape) * self._scale
        predicted = true + (wrong.to(torch.float64) @ values).squeeze(-1)
        gap = self._energies(predicted) - self._energies(true)
        # A geometry without an energy has no gradient either: the other terms must mend it.
        gap = torch.where(torch.isfinite(gap), gap, 0.0) / EV_PER_HARTREE
        return torch.sqrt(gap.square().mean(dim=-1) + 1e-16)

    def _energies(self, coordinates: Tensor) -> Tensor:
        positions, _ = self._internal.place(coordinates, torch.zeros_like(coordinates))
        return self._surface.energies(positions)
