"""ASE calculators that behave as badly as foreign code can."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator
from tblite.ase import TBLite


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


class NeverWorks(TBLite):
    """Fails on every geometry, until there is a file called mended."""

    def __init__(self, folder: str) -> None:
        super().__init__(method="GFN2-xTB", verbosity=0)
        self.folder = Path(folder)

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        if self.must_fail(hashlib.sha256(atoms.positions.tobytes()).hexdigest()):
            raise RuntimeError("SCF did not converge after 3 cycles")
        super().calculate(atoms, properties, changes)

    def must_fail(self, geometry: str) -> bool:
        return not (self.folder / "mended").exists()


class SomeNeverWork(NeverWorks):
    """Fails on a quarter of the geometries, always on the same."""

    def must_fail(self, geometry: str) -> bool:
        return geometry[0] in "0123"


class FailsOnce(NeverWorks):
    """Fails on half of the geometries the first time that it sees them."""

    def must_fail(self, geometry: str) -> bool:
        seen = self.folder / f"seen-{geometry}"
        new = geometry[0] in "01234567" and not seen.exists()
        seen.touch()
        return new


class NeedsScratch(TBLite):
    """Writes a file where its node has room for such, and fails in its own words without any."""

    def __init__(self) -> None:
        super().__init__(method="GFN2-xTB", verbosity=0)

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        with tempfile.NamedTemporaryFile(dir=os.environ["TMPDIR"]) as integrals:
            try:
                integrals.write(bytes(100_000))
                integrals.flush()
            except OSError as error:
                raise RuntimeError(f"cannot write integrals: {error.strerror}") from None
        super().calculate(atoms, properties, changes)
