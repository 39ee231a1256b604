"""One member of a committee as plain data: what a member file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alloop.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Weights and everything needed to use them, independent of any code object.

    Attributes
    ----------
    architecture : name of the architecture, such as "ani".
    elements : atomic numbers it describes, ascending.
    settings : shape of the architecture, plain values.
    weights : tensors by name; the architecture knows names and shapes.
    atom_energies : energy of the atom by atomic number, eV, added to what the network gives.
    level_of_theory : name of the method of the labels.
    metadata : plain values that say where it came from.

    Raises
    ------
    ModelError
        Elements are unordered or lack an atomic energy, or a weight is not finite.

    """

    architecture: str
    elements: tuple[int, ...]
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    atom_energies: Mapping[int, float]
    level_of_theory: str
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ModelError(f"elements are {self.elements}, want ascending atomic numbers")
        missing = [z for z in self.elements if z not in self.atom_energies]
        if missing:
            raise ModelError(f"no atomic energy for the elements {missing}")
        for name, tensor in self.weights.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"weight {name} holds values that are not finite")
