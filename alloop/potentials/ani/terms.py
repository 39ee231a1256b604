"""The two- and three-body terms of ANI's atomic environment vectors, with their slopes.

Equations 2-4 of Smith, Isayev and Roitberg, DOI 10.1039/C6SC05720A, with the two conventions of
their published programs, so that weights are interchangeable with TorchANI: radial terms carry a
factor 0.25, and the cosine of an angle is scaled by 0.95 before its arccosine is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.potentials.neighbours import Pairs

_ANGLE_SCALE = 0.95
_TINY = 1e-18
"""Floor of every factor: products of two stay normal numbers, which are ten times as fast."""


@dataclass(frozen=True, slots=True)
class AevSettings:
    """Cutoffs and grids of the descriptor; the defaults are those of ANI-1x.

    ANI-1x: DOI 10.1063/1.5023802. Lengths in Å, ``eta`` in 1/Å², ``sections`` in radians.
    """

    radial_cutoff: float = 5.2
    radial_eta: float = 16.0
    radial_shifts: tuple[float, ...] = tuple(0.9 + (5.2 - 0.9) / 16 * k for k in range(16))
    angular_cutoff: float = 3.5
    angular_eta: float = 8.0
    angular_zeta: float = 32.0
    angular_shifts: tuple[float, ...] = tuple(0.9 + (3.5 - 0.9) / 4 * k for k in range(4))
    angular_sections: tuple[float, ...] = tuple(math.pi * (k + 0.5) / 8 for k in range(8))

    @property
    def n_radial(self) -> int:
        """Radial features per neighbour element."""
        return len(self.radial_shifts)

    @property
    def n_angular(self) -> int:
        """Angular features per pair of neighbour elements."""
        return len(self.angular_shifts) * len(self.angular_sections)

    def n_features(self, n_elements: int) -> int:
        """Length of one AEV."""
        return self.n_radial * n_elements + self.n_angular * (n_elements * (n_elements + 1) // 2)


@dataclass(frozen=True, slots=True)
class Environments:
    """The pairs and triples of a batch, with the terms of their features and derivatives.

    ``T`` is the number of triples, ``P`` of pairs; all floating tensors have the working
    precision. Built by :func:`environments`; positions are used nowhere after that.

    Attributes
    ----------
    n_rows, n_elements, n_atoms : rows of the AEV matrix, elements, atoms in the batch.
    settings : cutoffs and grids.
    atom : (P, 2) int64, flat atoms (centre, neighbour) of each pair.
    radial_slot : (P,) int64, ``row * n_elements + element of the neighbour``.
    unit : (P, 3), unit vectors. radial, radial_slope : (P, n_radial), terms and d/dr.
    sides : (T, 2) int64, the two pairs of each triple.
    angular_slot : (T,) int64, ``row * n_element_pairs + pair of elements``.
    shell, shell_slope1, shell_slope2 : (T, n_shifts), radial factor and its d/dr1, d/dr2.
    angle, angle_slope : (T, n_sections), angular factor and its derivative by the cosine.
    cosine : (T,). inverse : (P,), 1/r.

    """

    n_rows: int
    n_elements: int
    n_atoms: int
    settings: AevSettings
    atom: Tensor
    radial_slot: Tensor
    unit: Tensor
    inverse: Tensor
    radial: Tensor
    radial_slope: Tensor
    sides: Tensor
    angular_slot: Tensor
    shell: Tensor
    shell_slope1: Tensor
    shell_slope2: Tensor
    angle: Tensor
    angle_slope: Tensor
    cosine: Tensor


def environments(
    pairs: Pairs,
    elements: Tensor,
    rows: Tensor,
    n_elements: int,
    settings: AevSettings,
    dtype: torch.dtype,
) -> Environments:
    """Evaluate every radial and angular term of a batch, and its slopes.

    Parameters
    ----------
    pairs : within the radial cutoff; vectors are rounded to ``dtype`` only after subtraction.
    elements : (n_atoms,) int64, element index of each flat atom.
    rows : (n_atoms,) int64, row of the AEV matrix that belongs to each flat atom.

    """
    vectors = pairs.vectors.to(dtype)
    distance = vectors.norm(dim=1)
    inverse = 1.0 / distance
    radial, radial_slope = _radial_terms(distance, settings)
    other_element = elements.index_select(0, pairs.other)
    centre_row = rows.index_select(0, pairs.centre)

    close = (distance < settings.angular_cutoff).nonzero()[:, 0]
    sides = _triples(pairs.centre.index_select(0, close), close)
    unit = vectors * inverse[:, None]
    first, second = sides.unbind(1)
    cosine = (unit.index_select(0, first) * unit.index_select(0, second)).sum(1)
    angle, angle_slope = _angle_terms(cosine, settings)
    shell, shell_slope1, shell_slope2 = _shell_terms(distance, sides, settings)
    pair_of = _element_pairs(n_elements).to(rows.device)
    return Environments(
        n_rows=len(rows),
        n_elements=n_elements,
        n_atoms=len(rows),
        settings=settings,
        atom=torch.stack((pairs.centre, pairs.other), 1),
        radial_slot=centre_row * n_elements + other_element,
        unit=unit,
        inverse=inverse,
        radial=radial,
        radial_slope=radial_slope,
        sides=sides,
        angular_slot=centre_row.index_select(0, first) * (n_elements * (n_elements + 1) // 2)
        + pair_of[
            other_element.index_select(0, first) * n_elements
            + other_element.index_select(0, second)
        ],
        shell=shell,
        shell_slope1=shell_slope1,
        shell_slope2=shell_slope2,
        angle=angle,
        angle_slope=angle_slope,
        cosine=cosine,
    )


def _radial_terms(distance: Tensor, settings: AevSettings) -> tuple[Tensor, Tensor]:
    fade, fade_slope = _cutoff(distance, settings.radial_cutoff)
    offset = distance[:, None] - distance.new_tensor(settings.radial_shifts)
    bell = 0.25 * _gaussian(offset, settings.radial_eta)
    slope = bell * (fade_slope[:, None] - 2.0 * settings.radial_eta * offset * fade[:, None])
    return bell * fade[:, None], slope


def _shell_terms(
    distance: Tensor, sides: Tensor, settings: AevSettings
) -> tuple[Tensor, Tensor, Tensor]:
    fade, fade_slope = _cutoff(distance, settings.angular_cutoff)
    first, second = sides.unbind(1)
    fade1, fade2 = fade.index_select(0, first), fade.index_select(0, second)
    mean = 0.5 * (distance.index_select(0, first) + distance.index_select(0, second))
    offset = mean[:, None] - distance.new_tensor(settings.angular_shifts)
    bell = _gaussian(offset, settings.angular_eta)
    shell = bell * (fade1 * fade2)[:, None]
    common = -settings.angular_eta * offset * shell
    slope1 = common + bell * (fade_slope.index_select(0, first) * fade2)[:, None]
    slope2 = common + bell * (fade_slope.index_select(0, second) * fade1)[:, None]
    return shell, slope1, slope2


def _angle_terms(cosine: Tensor, settings: AevSettings) -> tuple[Tensor, Tensor]:
    # cos(acos(x) - s) = x cos s + sqrt(1 - x²) sin s needs no arccosine; |x| <= 0.95.
    sections = cosine.new_tensor(settings.angular_sections)
    scaled = (_ANGLE_SCALE * cosine)[:, None]
    sine = torch.sqrt(1.0 - scaled * scaled)
    half = 0.5 + 0.5 * (scaled * sections.cos() + sine * sections.sin())
    half = half.clamp(min=_TINY ** (1.0 / settings.angular_zeta))
    half_slope = (0.5 * _ANGLE_SCALE) * (sections.cos() - scaled / sine * sections.sin())
    below = _power(half, settings.angular_zeta - 1)
    return 2.0 * below * half, (2.0 * settings.angular_zeta) * below * half_slope


def _gaussian(offset: Tensor, eta: float) -> Tensor:
    return torch.exp((offset * offset).mul_(-eta).clamp_(min=math.log(_TINY)))


def _cutoff(distance: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Equation 2, and its derivative; zero beyond the cutoff."""
    phase = (distance * (math.pi / cutoff)).clamp(max=math.pi)
    return 0.5 * phase.cos() + 0.5, (-0.5 * math.pi / cutoff) * phase.sin()


def _power(base: Tensor, power: float) -> Tensor:
    """Power by squaring: 20 times cheaper than ``pow``, which is for those that are no integers."""
    if power != int(power):
        return base.pow(power)
    exponent, result = int(power), None
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        if exponent:
            base = base * base
    return torch.ones_like(base) if result is None else result


def _triples(centre: Tensor, pair: Tensor) -> Tensor:
    """Return every unordered couple of the pairs of one centre, (T, 2); ``centre`` is sorted."""
    n_pairs = len(centre)
    if n_pairs == 0:
        return pair.new_zeros((0, 2))
    position = torch.arange(n_pairs, device=centre.device)
    _, counts = torch.unique_consecutive(centre, return_counts=True)
    ends = counts.cumsum(0).repeat_interleave(counts)
    partners = ends - position - 1
    first = position.repeat_interleave(partners)
    begin = (partners.cumsum(0) - partners).index_select(0, first)
    second = torch.arange(len(first), device=centre.device) - begin + first + 1
    return torch.stack((pair.index_select(0, first), pair.index_select(0, second)), 1)


def _element_pairs(n_elements: int) -> Tensor:
    """Return the index of each (unordered) pair of elements, flattened (n_elements²,)."""
    first, second = torch.triu_indices(n_elements, n_elements).unbind(0)
    table = torch.zeros(n_elements, n_elements, dtype=torch.int64)
    table[first, second] = table[second, first] = torch.arange(len(first))
    return table.view(-1)
