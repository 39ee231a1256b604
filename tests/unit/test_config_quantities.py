"""Quantities: every unit converts by its definition, everything ambiguous is refused."""

from __future__ import annotations

from typing import Annotated

import pytest
from ase import units
from pydantic import BaseModel, ConfigDict, ValidationError

from alloop.config.quantities import (
    DIMENSIONS,
    ENERGY,
    ENERGY_PER_ATOM,
    FORCE,
    GENERATIONS,
    LENGTH,
    RATE,
    TEMPERATURE,
    TIME,
    WALL_TIME,
    WITH_UNITS,
    Dimension,
    Quantity,
)


class Holder(BaseModel):
    model_config = ConfigDict(strict=True)
    time: Annotated[float, Quantity(TIME, above=0.0, most=100.0)] = 1.0
    every: Annotated[int, Quantity(GENERATIONS, least=1.0, whole=True)] = 3
    wall: Annotated[float, Quantity(WALL_TIME, least=0.0)] | None = None


def message(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate(values)
    (error,) = caught.value.errors()
    return error["msg"]


@pytest.mark.parametrize(
    ("dimension", "text", "value"),
    [
        (TIME, "0.5 fs", 0.5),
        (TIME, "2 ps", 2000.0),
        (TIME, "1e-3ns", 1000.0),
        (WALL_TIME, "90 min", 5400.0),
        (WALL_TIME, "2 d", 172800.0),
        (TEMPERATURE, "300K", 300.0),
        (FORCE, "0.05 eV/A", 0.05),
        (FORCE, "50 meV/Å", 0.05),
        (FORCE, "1 kcal/mol/A", units.kcal / units.mol),
        (FORCE, "1 Ha/Bohr", units.Hartree / units.Bohr),
        (ENERGY, "1 kJ/mol", units.kJ / units.mol),
        (ENERGY_PER_ATOM, "5 meV/atom", 0.005),
        (LENGTH, "1 nm", 10.0),
        (LENGTH, "2 bohr", 2 * units.Bohr),
        (RATE, "10 1/ps", 0.01),
        (RATE, "+.01 /fs", 0.01),
        (GENERATIONS, "1 generation", 1.0),
    ],
)
def test_units_convert_by_their_definition(dimension: Dimension, text: str, value: float) -> None:
    assert Quantity(dimension).parse(text) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("dimension", DIMENSIONS, ids=lambda d: d.name)
def test_examples_and_the_internal_unit_are_their_own(dimension: Dimension) -> None:
    Quantity(dimension).parse(dimension.example)
    assert Quantity(dimension).parse(f"3 {dimension.unit}") == 3.0


@pytest.mark.parametrize("bare", [1, 0, 0.5, "0.5", "0", " 3 "])
def test_a_number_without_unit_is_refused_with_an_example(bare: object) -> None:
    text = message(time=bare)
    assert "needs a unit" in text
    assert "fs, ps, ns" in text
    assert "'0.5 fs'" in text


@pytest.mark.parametrize(
    "wrong",
    [None, True, [1], {}, "", "fs", "fast", "1,5 fs", ".nan fs", "nan fs", "inf fs", "1 2 fs"],
)
def test_what_is_no_quantity_is_refused(wrong: object) -> None:
    assert "is not a number with a unit" in message(time=wrong)


def test_units_of_other_kinds_are_named() -> None:
    assert "(that is a temperature)" in message(time="5 K")
    assert "(that is a wall time)" in message(time="5 min")
    assert "did you mean 'fs'?" in message(time="5 FS")
    assert "unknown unit 'fs ps'" in message(time="5 fs ps")


def test_bounds_are_in_the_internal_unit() -> None:
    assert message(time="0 fs") == "must be greater than 0 fs, got '0 fs'"
    assert message(time="1 ps") == "must be at most 100 fs, got '1 ps'"
    assert message(wall="-1 h") == "must be at least 0 s, got '-1 h'"
    assert message(time="1e400 fs") == "must be finite, got '1e400 fs'"
    assert message(every="1.5 generations") == "must be whole, got '1.5 generations'"
    assert "needs a unit" in message(every=3)
    assert Holder.model_validate({"wall": "0 h", "time": "100 fs"}).wall == 0.0


def test_dumps_are_plain_numbers_or_quantities_that_read_back() -> None:
    holder = Holder.model_validate({"time": "0.1 fs", "every": "2 generations", "wall": "1 min"})
    assert holder.model_dump(mode="json") == {"time": 0.1, "every": 2, "wall": 60.0}
    written = holder.model_dump(mode="json", context=WITH_UNITS)
    assert written == {"time": "0.1 fs", "every": "2 generations", "wall": "60 s"}
    assert Holder.model_validate(written) == holder


def test_all_digits_survive_a_dump() -> None:
    force = Quantity(FORCE)
    value = force.parse("0.123456789 kcal/mol/A")
    assert force.parse(force.show(value)) == value
