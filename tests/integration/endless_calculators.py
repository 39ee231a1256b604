"""ASE calculators that never come to an end, in ways that Python cannot interrupt."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator

LONG_S = 600


class Endless(Calculator):
    """Waits in compiled code, in a program, or not at all; its processes are noted in a file."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, notes: str, where: str = "nowhere") -> None:
        super().__init__()
        self.notes, self.where = Path(notes), where

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        super().calculate(atoms, properties, changes)
        scratch = tempfile.mkdtemp()
        self.note(os.getpid(), scratch)
        if self.where == "compiled code":
            # PyDLL keeps Python's lock: no other thread of the process does anything either.
            ctypes.PyDLL(None).sleep(LONG_S)
        elif self.where == "a program":
            sleep = f"import subprocess, sys; subprocess.run(['sleep', '{LONG_S}'])"
            with subprocess.Popen([sys.executable, "-c", sleep]) as program:
                self.note(program.pid, scratch)
        elif self.where == "a program left behind":
            self.note(subprocess.Popen(["sleep", str(LONG_S)]).pid, scratch)
        elif self.where == "an error":
            raise RuntimeError("SCF did not converge")
        self.results = {"energy": -1.5, "forces": np.full((len(self.atoms), 3), 0.25)}

    def note(self, pid: int, scratch: str) -> None:
        with self.notes.open("a") as notes:
            notes.write(f"{pid} {scratch}\n")
