"""What every committee answers, whatever its members are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ase.data import chemical_symbols
from torch import Tensor

from alloop.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ForceKind = Literal["none", "mean", "members"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Energies and forces of a batch of replicas, eV and eV/Å, float64.

    A replica with a coordinate that is not finite has NaN everywhere.

    Attributes
    ----------
    energies : (n_members, n_replicas), total energies of each member.
    forces : (n_replicas, n_atoms, 3), mean over the members; None if not asked for.
    member_forces : (n_members, n_replicas, n_atoms, 3); None if not asked for.

    """

    energies: Tensor
    forces: Tensor | None
    member_forces: Tensor | None


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
    ) -> Evaluation:
        """Evaluate replicas of one composition.

        Parameters
        ----------
        numbers : (n_atoms,) atomic numbers, the same for all replicas.
        positions : (n_replicas, n_atoms, 3) float64, Å.
        forces : "none", "mean" or "members"; with "members" the mean is there too.
        cell : (3, 3) lattice vectors as rows, Å, or None for a molecule. A row of zeros marks a
            direction that is not periodic.

        Raises
        ------
        ModelError
            An element that the members do not know, or a lattice without volume.

        """
        ...


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
