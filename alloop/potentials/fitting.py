"""What a potential needs to be fitted: frames as tensors, and predictions with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FrameGroup:
    """Frames with the same atoms in the same order, out of a larger set.

    Attributes
    ----------
    numbers : (n_atoms,) atomic numbers.
    positions : (n_frames, n_atoms, 3) float64, Å.
    cells : (n_frames, 3, 3) float64, lattice vectors as rows, Å, zeros where not periodic; None
        for molecules.
    training : (n_frames,) bool, the frames that may shape the model; the others only judge it.
    index : (n_frames,) int64, place of each frame in the set.

    """

    numbers: tuple[int, ...]
    positions: Tensor
    cells: Tensor | None
    training: Tensor
    index: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a potential in training says of k frames; their atoms follow frame after frame.

    Attributes
    ----------
    energies : (k,) eV, relative to the atoms.
    forces : (all atoms, 3) eV/Å.
    latent_forces : (all atoms, 3), see ``graphs.network.Output``; None if there are none.
    penalty : (k,), a regularisation that the architecture asks for; None if it asks for nothing.

    """

    energies: Tensor
    forces: Tensor
    latent_forces: Tensor | None = None
    penalty: Tensor | None = None


class Trainable(Protocol):
    """A potential in training, as a function of one flat vector of parameters."""

    @property
    def start(self) -> Tensor:
        """(n_parameters,) float32, the parameters to start from."""
        ...

    @property
    def layout(self) -> Mapping[str, slice]:
        """Where each weight of a member lies in the flat vector, in order."""
        ...

    def predict(self, parameters: Tensor, frames: Tensor) -> Prediction:
        """Predict frames (k,) int64 of the set; can be differentiated by ``parameters``."""
        ...

    def export(self, parameters: Tensor) -> Mapping[str, Tensor]:
        """Return parameters as the weights of a member."""
        ...
