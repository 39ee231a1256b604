"""GFN2-xTB that takes its time as long as a test wants it to, in jobs of Slurm only."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from tblite.ase import TBLite

HASTE_S, LEISURE_S = 0.3, 8.0


class Slow(TBLite):
    """Takes 0.3 s a frame, and 8 s in the job that ``folder/slow`` names; notes what it has done.

    ``folder/computed`` gets a line for each frame: job, hash of the positions.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(method="GFN2-xTB", verbosity=0)
        self.folder = Path(folder)

    def calculate(self, atoms: Any = None, properties: Any = None, changes: Any = None) -> None:
        super().calculate(atoms, properties, changes)
        job = os.environ.get("SLURM_JOB_ID")
        if job is None:
            return
        slow = self.folder / "slow"
        time.sleep(LEISURE_S if slow.exists() and slow.read_text() == job else HASTE_S)
        with (self.folder / "computed").open("a") as computed:
            computed.write(f"{job} {hashlib.sha256(atoms.positions.tobytes()).hexdigest()}\n")
