"""Calculators of ASE for programs that pip cannot install, made from what a campaign can write.

Named by import path in a method of engine ``ase``: ASE itself wants a profile object, and a folder
for each calculation, which plain YAML values are not.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING

from alloop.reference.engine import program_version

if TYPE_CHECKING:
    from ase.calculators.orca import ORCA


def orca(command: str, simple_input: str, charge: int, multiplicity: int, blocks: str = "") -> ORCA:
    """Return ASE's calculator for ORCA, which works in a temporary folder of its own.

    Parameters
    ----------
    command : full path of the ``orca`` binary, as parallel runs need it.
    simple_input : the line after ``!``; it must contain ``EnGrad`` for forces.
    charge, multiplicity : of the system.
    blocks : ``%`` blocks, such as ``%pal nprocs 4 end``.

    """
    from ase.calculators.orca import ORCA, OrcaProfile

    folder = tempfile.mkdtemp(prefix="alloop-orca-")
    calculator = ORCA(
        profile=OrcaProfile(command=command),
        directory=folder,
        charge=charge,
        mult=multiplicity,
        orcasimpleinput=simple_input,
        orcablocks=blocks,
    )
    weakref.finalize(calculator, shutil.rmtree, folder, ignore_errors=True)
    return calculator


orca.program = f"ORCA through ase {program_version('ase')}"  # type: ignore[attr-defined]
