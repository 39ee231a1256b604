"""One member of a committee as plain data: what a member file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ase.data import chemical_symbols
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
        Elements are unordered or lack an atomic energy, a weight is no dense tensor of real
        numbers, or something is not finite.

    """

    architecture: str
    elements: tuple[int, ...]
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    atom_energies: Mapping[int, float]
    level_of_theory: str
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        known = range(1, len(chemical_symbols))
        if not self.elements or list(self.elements) != sorted(set(self.elements) & set(known)):
            raise ModelError(f"elements are {self.elements}, want ascending atomic numbers")
        missing = [
            z for z in self.elements if not math.isfinite(self.atom_energies.get(z, math.nan))
        ]
        if missing:
            raise ModelError(f"no finite atomic energy for the elements {missing}")
        for name, tensor in self.weights.items():
            if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided:
                raise ModelError(f"weight {name} is no dense tensor of real numbers")
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"weight {name} holds values that are not finite")
