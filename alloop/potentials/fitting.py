"""What a potential needs to be fitted: frames as tensors, and predictions with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FrameGroup:
    """Frames with the same atoms in the same order.

    Attributes
    ----------
    numbers : (n_atoms,) atomic numbers.
    positions : (n_frames, n_atoms, 3) float64, Å.
    cells : (n_frames, 3, 3) float64, lattice vectors as rows, Å, zeros where not periodic; None
        for molecules.
    training : (n_frames,) bool, the frames that may shape the model; the others only judge it.

    """

    numbers: tuple[int, ...]
    positions: Tensor
    cells: Tensor | None
    training: Tensor


class Trainable(Protocol):
    """A potential in training, as a function of one flat vector of parameters."""

    @property
    def start(self) -> Tensor:
        """(n_parameters,) float32, the parameters to start from."""
        ...

    def predict(self, parameters: Tensor, group: int, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (k,), eV, and forces (k, n_atoms, 3), eV/Å, of k frames of a group.

        Energies are relative to the atoms. Both can be differentiated by ``parameters``.
        """
        ...

    def export(self, parameters: Tensor) -> Mapping[str, Tensor]:
        """Return parameters as the weights of a member."""
        ...
