"""Quantities of the campaign file: a number and its unit, turned once into internal units.

``timestep: Annotated[float, Quantity(TIME, above=0.0)]`` reads ``"0.5 fs"`` and holds 0.5. A bare
number is refused, so no unit is ever guessed. Dumps hold plain numbers, unless their context is
``WITH_UNITS``: then each value is a quantity again, with all its digits, and can be read back.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError, core_schema

from alloop.units import (
    ANGSTROM_PER_BOHR,
    ENERGY_UNITS,
    EV_PER_HARTREE,
    EV_PER_KCAL_MOL,
    LENGTH_UNITS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY: Final = re.compile(rf"({NUMBER})\s*([^\W\d_].*|1?/.*)?")


@dataclass(frozen=True, slots=True, eq=False)
class Dimension:
    """A kind of quantity: the units it may be written in and how much of ``unit`` each is."""

    name: str
    unit: str
    factors: Mapping[str, float]
    example: str


WITH_UNITS: Final = {"quantities": "with units"}
"""Serialisation context under which quantities are dumped as they are written."""

TIME: Final = Dimension("time", "fs", {"fs": 1.0, "ps": 1e3, "ns": 1e6}, "0.5 fs")
WALL_TIME: Final = Dimension(
    "wall time", "s", {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}, "12 h"
)
MEMORY: Final = Dimension("memory", "MB", {"MB": 1.0, "GB": 1e3}, "4 GB")
TEMPERATURE: Final = Dimension("temperature", "K", {"K": 1.0}, "300 K")
FORCE: Final = Dimension(
    "force",
    "eV/A",
    {
        "eV/A": 1.0,
        "eV/Å": 1.0,
        "meV/A": 1e-3,
        "meV/Å": 1e-3,
        "kcal/mol/A": EV_PER_KCAL_MOL,
        "kcal/mol/Å": EV_PER_KCAL_MOL,
        "Ha/bohr": EV_PER_HARTREE / ANGSTROM_PER_BOHR,
        "Ha/Bohr": EV_PER_HARTREE / ANGSTROM_PER_BOHR,
    },
    "0.05 eV/A",
)
ENERGY: Final = Dimension("energy", "eV", ENERGY_UNITS, "0.1 eV")
ENERGY_PER_ATOM: Final = Dimension(
    "energy per atom",
    "eV/atom",
    {f"{unit}/atom": factor for unit, factor in ENERGY_UNITS.items()},
    "5 meV/atom",
)
LENGTH: Final = Dimension("length", "A", LENGTH_UNITS, "0.08 A")
RATE: Final = Dimension(
    "rate",
    "/fs",
    {"/fs": 1.0, "1/fs": 1.0, "/ps": 1e-3, "1/ps": 1e-3},
    "0.01 /fs",
)
GENERATIONS: Final = Dimension(
    "number of generations",
    "generations",
    {"generations": 1.0, "generation": 1.0},
    "3 generations",
)
DIMENSIONS: Final = (
    TIME, WALL_TIME, MEMORY, TEMPERATURE, FORCE, ENERGY, ENERGY_PER_ATOM, LENGTH, RATE, GENERATIONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """Pydantic annotation of a float (or int) that is written with a unit.

    Attributes
    ----------
    dimension : what is measured; the value is converted to ``dimension.unit``.
    above, least, most : exclusive lower, inclusive lower and inclusive upper bound, internal unit.
    whole : the value is an integer.

    """

    dimension: Dimension
    above: float | None = None
    least: float | None = None
    most: float | None = None
    whole: bool = False

    def parse(self, value: object) -> float | int:
        """Return ``value`` in internal units; raise PydanticCustomError saying what was wanted."""
        if not isinstance(value, str):
            raise self._reject(f"needs a unit, got {value!r}" if _is_number(value) else _got(value))
        match = _QUANTITY.fullmatch(value.strip())
        if match is None:
            raise self._reject(_got(value))
        number, unit = float(match[1]), (match[2] or "").strip()
        if not unit:
            raise self._reject(f"needs a unit, got {value!r}")
        if unit not in self.dimension.factors:
            raise self._reject(f"unknown unit {unit!r}{self._hint(unit)}")
        converted = number * self.dimension.factors[unit]
        self._check(converted, value)
        return int(converted) if self.whole else converted

    def show(self, value: float) -> str:
        """Return the value as the campaign file would write it, in the internal unit."""
        number = int(value) if self.whole or float(value).is_integer() else value
        return f"{number!r} {self.dimension.unit}"

    def _check(self, value: float, written: str) -> None:
        if not math.isfinite(value):
            raise _error(f"must be finite, got {written!r}")
        unit = self.dimension.unit
        if self.above is not None and not value > self.above:
            raise _error(f"must be greater than {self.above:g} {unit}, got {written!r}")
        if self.least is not None and not value >= self.least:
            raise _error(f"must be at least {self.least:g} {unit}, got {written!r}")
        if self.most is not None and not value <= self.most:
            raise _error(f"must be at most {self.most:g} {unit}, got {written!r}")
        if self.whole and value != int(value):
            raise _error(f"must be whole, got {written!r}")

    def _hint(self, unit: str) -> str:
        """Return the nearest unit of this dimension, or the dimension ``unit`` belongs to."""
        for other in DIMENSIONS:
            if unit in other.factors:
                return f" (that is a {other.name})"
        folded = {name.lower(): name for name in self.dimension.factors}
        near = difflib.get_close_matches(unit.lower(), folded, n=1, cutoff=0.6)
        return f"; did you mean '{folded[near[0]]}'?" if near else ""

    def _reject(self, what: str) -> PydanticCustomError:
        """Return an error that says how this quantity is written."""
        first_names: dict[float, str] = {}
        for name, factor in self.dimension.factors.items():
            first_names.setdefault(factor, name)
        units = ", ".join(first_names.values())
        return _error(
            f"{what}: want a {self.dimension.name} in {units}, such as '{self.dimension.example}'"
        )

    def _dump(self, value: float, info: core_schema.SerializationInfo) -> float | str:
        return self.show(value) if info.context is WITH_UNITS else value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self._dump, info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        units = "|".join(re.escape(unit) for unit in self.dimension.factors)
        return {
            "type": "string",
            "pattern": rf"^\s*{NUMBER}\s*({units})\s*$",
            "description": f"a {self.dimension.name}, converted to {self.dimension.unit}",
            "examples": [self.dimension.example],
        }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _got(value: object) -> str:
    return f"{value!r} is not a number with a unit"


def _error(reason: str) -> PydanticCustomError:
    return PydanticCustomError("quantity", "{reason}", {"reason": reason})
