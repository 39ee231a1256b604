"""What the GFN parametrisations can hold: elements, valence electrons and room for them.

The engines do not check. Measured: water with charge +10 kills the process in tblite 0.8.0 and gets
the energy of charge +8 from libxtb 6.5.1; element 100 kills it in libxtb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from alloop.errors import MethodError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAVIEST: Final = 86
"""Radon, the last element of the parametrisations."""

# Last element of each stretch, electrons in its core; lanthanides keep their f electrons there.
_CORES: Final = (
    (2, 0),
    (10, 2),
    (18, 10),
    (29, 18),
    (36, 28),
    (47, 36),
    (54, 46),
    (57, 54),
    (71, None),
    (79, 68),
    (86, 78),
)
_D_BLOCKS: Final = (range(21, 30), range(39, 48), range(57, 80))


def valence_electrons(number: int) -> int:
    """Return how many electrons of a neutral atom GFN-xTB treats."""
    core = next(core for last, core in _CORES if number <= last)
    return 3 if core is None else number - core


def check_electrons(numbers: NDArray[np.int64], charge: int, multiplicity: int) -> None:
    """Raise MethodError for a system that GFN-xTB cannot hold."""
    elements = [int(number) for number in numbers]
    beyond = sorted({number for number in elements if not 1 <= number <= HEAVIEST})
    if beyond:
        raise MethodError(
            f"GFN-xTB knows elements 1 to {HEAVIEST}, the system has atomic numbers {beyond}"
        )
    electrons = sum(valence_electrons(number) for number in elements) - charge
    unpaired = multiplicity - 1
    room = sum(_orbitals(number) for number in elements)
    if electrons < unpaired or (electrons + unpaired) / 2 > room:
        raise MethodError(
            f"GFN-xTB cannot hold the system: charge {charge} leaves {electrons} valence electrons,"
            f" {unpaired} of them unpaired, in {room} orbitals; check charge and multiplicity"
        )


def _orbitals(number: int) -> int:
    """Return the orbitals of the smallest valence basis; some elements have more."""
    if number <= 2:
        return 1
    return 9 if any(number in block for block in _D_BLOCKS) else 4
