"""What every committee answers, whatever its members are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from ase.data import chemical_symbols
from torch import Tensor

from alloop.errors import ModelError
from alloop.potentials.neighbours import Pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ForceKind = Literal["none", "mean", "members"]

CLASH = 1e-3
"""Å; atoms closer than this lie on one spot, where no potential means anything."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Energies and forces of a batch of replicas, eV and eV/Å, float64.

    A replica with a coordinate that is not finite, or with two atoms on one spot, has NaN
    everywhere.

    Attributes
    ----------
    energies : (n_members, n_replicas), total energies of each member.
    forces : (n_replicas, n_atoms, 3), mean over the members; None if not asked for.
    member_forces : (n_members, n_replicas, n_atoms, 3); None if not asked for.
    virials : (n_members, n_replicas, 3, 3) eV, derivative of each energy by strain: the stress
        times the volume; None if not asked for.

    """

    energies: Tensor
    forces: Tensor | None
    member_forces: Tensor | None
    virials: Tensor | None = None


class Committee(Protocol):
    """Several potentials for one level of theory, evaluated together."""

    @property
    def n_members(self) -> int:
        """Number of members."""
        ...

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that every member can describe."""
        ...

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: Tensor,
        *,
        forces: ForceKind,
        cell: Tensor | None = None,
        virials: bool = False,
    ) -> Evaluation:
        """Evaluate replicas of one composition.

        Parameters
        ----------
        numbers : (n_atoms,) atomic numbers, the same for all replicas.
        positions : (n_replicas, n_atoms, 3) float64, Å.
        forces : "none", "mean" or "members"; with "members" the mean is there too.
        cell : (3, 3) lattice vectors as rows, Å, or None for a molecule. A row of zeros marks a
            direction that is not periodic.
        virials : whether to give those of each member, which costs as much as their forces.

        Raises
        ------
        ModelError
            An element that the members do not know, or a lattice that makes no sense.

        """
        ...


def broken(positions: Tensor, pairs: Pairs) -> Tensor:
    """Tell which replicas have no energy, (n_replicas,) bool.

    A coordinate of ``positions`` (n_replicas, n_atoms, 3) is not finite, or two atoms are closer
    than ``CLASH``.
    """
    bad = ~torch.isfinite(positions).flatten(1).all(1)
    clash = pairs.centre[pairs.vectors.square().sum(1) < CLASH**2]
    bad[clash // positions.shape[1]] = True
    return bad


def check_elements(numbers: Iterable[int], elements: Sequence[int]) -> None:
    """Raise ModelError if atoms ``numbers`` are of elements that a model does not describe."""
    unknown = sorted(set(numbers) - set(elements))
    if unknown:
        raise ModelError(
            f"the model describes {_names(elements)} and was given {_names(unknown)};"
            " train it on frames that hold these elements"
        )


def _names(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers)
