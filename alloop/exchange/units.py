"""Units of labels as people write them: "Hartree, Bohr", "eV/Å", "kcal/mol"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alloop.errors import DataError
from alloop.units import ENERGY_UNITS, LENGTH_UNITS

_ENERGIES = {name.casefold(): name for name in ENERGY_UNITS} | {"hartree": "Ha", "eh": "Ha"}
_LENGTHS = {name.casefold(): name for name in LENGTH_UNITS} | {
    "a": "Å",
    "angstrom": "Å",
    "ångström": "Å",
}
EXAMPLES = '"eV, Å", "Hartree, Bohr", "kcal/mol, Å" or "Hartree, eV/Å"'


@dataclass(frozen=True, slots=True)
class LabelUnits:
    """Units of energies, and of forces as energy by length.

    Attributes
    ----------
    energy, force_energy : of ``ENERGY_UNITS``.
    length : of ``LENGTH_UNITS``; positions are in this unit or in Å.

    """

    energy: str
    force_energy: str
    length: str

    def __str__(self) -> str:
        return f"{self.energy} and {self.force_energy}/{self.length}"

    @property
    def ev(self) -> float:
        """One unit of energy in eV."""
        return ENERGY_UNITS[self.energy]

    @property
    def angstrom(self) -> float:
        """One unit of length in Å."""
        return LENGTH_UNITS[self.length]

    @property
    def ev_per_angstrom(self) -> float:
        """One unit of force in eV/Å."""
        return ENERGY_UNITS[self.force_energy] / self.angstrom


OURS = LabelUnits("eV", "eV", "Å")


def parse_units(text: str) -> LabelUnits:
    """Return the units that a person names: an energy, then a length or a force.

    A force alone names both; an energy alone goes with Å. Raises DataError if a unit is unknown.
    """
    first, *rest = (word.strip() for word in text.split(","))
    energy = _known(first, _ENERGIES)
    if not rest:
        force = (energy, "Å") if energy else _force(first)
        energy = energy or (force and force[0])
    else:
        length = _known(rest[0], _LENGTHS)
        force = (energy, length) if energy and length else _force(rest[0])
    if energy is None or force is None or len(rest) > 1:
        raise DataError(
            f"--units {text!r}: want an energy and a length or a force, such as {EXAMPLES};"
            f" energies: {', '.join(ENERGY_UNITS)}, Hartree; lengths: Å, {', '.join(_others())}"
        )
    return LabelUnits(energy, *force)


def _known(word: str, names: Mapping[str, str]) -> str | None:
    return names.get(word.casefold())


def _force(word: str) -> tuple[str, str] | None:
    energy, _, length = word.rpartition("/")
    known = _known(energy.strip(), _ENERGIES), _known(length.strip(), _LENGTHS)
    return known if known[0] and known[1] else None  # type: ignore[return-value]  # both are there


def _others() -> list[str]:
    return [name for name in LENGTH_UNITS if name not in ("A", "Å")]
