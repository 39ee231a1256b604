"""Functions of time in which a model writes the motion within one segment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

VELOCITY_TIME = 2.0
"""Weight of rates against coordinates in projections, fs: about 1 / (frequency of an O-H bond)."""


@dataclass(frozen=True, slots=True, eq=False)
class TimeBasis:
    """Polynomials (t / cutoff)^2 P_k(2 t / cutoff - 1), mixed to be orthonormal on a time grid.

    All of them and their derivatives vanish at t = 0, so that nothing built from them can disturb
    the initial positions and velocities.

    Attributes
    ----------
    cutoff : length of a segment, fs.
    mixing : (size, size) float64, from Legendre polynomials to orthonormal functions.

    """

    cutoff: float
    mixing: Tensor

    @classmethod
    def orthonormal(cls, cutoff: float, times: Tensor, size: int) -> TimeBasis:
        """Return the basis whose functions have mean square 1 over ``times``, rates included."""
        plain = cls(cutoff, torch.eye(size, dtype=torch.float64))
        _, triangle = torch.linalg.qr(plain._stacked(times))
        identity = torch.eye(size, dtype=torch.float64)
        mixing = torch.linalg.solve_triangular(triangle, identity, upper=True)
        return cls(cutoff, mixing * math.sqrt(len(times)))

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.mixing)

    def __call__(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and time derivatives (n_times, size) at ``times``, fs, in one pass.

        The Legendre recurrence carries the derivative along (forward-mode differentiation).
        """
        u = times.to(torch.float64) / self.cutoff
        x, dx = 2 * u - 1, 2 / self.cutoff
        values, rates = [torch.ones_like(u), x], [torch.zeros_like(u), torch.full_like(u, dx)]
        for k in range(1, self.size - 1):
            values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
            slope = (2 * k + 1) * (dx * values[k] + x * rates[k])
            rates.append((slope - k * rates[k - 1]) / (k + 1))
        p, dp = (torch.stack(columns[: self.size], dim=-1) for columns in (values, rates))
        u = u.unsqueeze(-1)
        return u * u * p @ self.mixing, (2 * u / self.cutoff * p + u * u * dp) @ self.mixing

    def project(self, times: Tensor, displacements: Tensor, rates: Tensor) -> Tensor:
        """Return least-squares coefficients (..., n_coordinates, size) of sampled motion.

        ``displacements`` and ``rates`` are (..., n_times, n_coordinates), less the uniform motion.
        """
        samples = torch.cat([displacements, VELOCITY_TIME * rates], dim=-2)
        return torch.einsum("kt,...tq->...qk", torch.linalg.pinv(self._stacked(times)), samples)

    def _stacked(self, times: Tensor) -> Tensor:
        values, rates = self(times)
        return torch.cat([values, VELOCITY_TIME * rates])
