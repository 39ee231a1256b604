"""ASE calculators that behave as badly as foreign code can."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator


class UnpicklableError(Exception):
    """Unpickling it raises TypeError: its ``__init__`` does not take its own ``args``."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class Odd(Calculator):
    """Gives zero after ``seconds``, in the way that ``mood`` says."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, mood: str = "calm", seconds: float = 0.0) -> None:
        super().__init__()
        if mood == "unmakeable":
            raise UnpicklableError(7, reason="keyword only")
        self.mood, self.seconds = mood, seconds

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        super().calculate(atoms, properties, changes)
        time.sleep(self.seconds)
        if self.mood == "exit":
            raise SystemExit(3)
        if self.mood == "crash":
            os.abort()
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}
