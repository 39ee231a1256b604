"""Any ASE calculator as a reference method, by its import path."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from alloop.errors import MethodError
from alloop.reference.ase_process import LIMIT, LimitedSinglePoint
from alloop.reference.engine import Answer, EngineReference, program_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase.calculators.calculator import Calculator
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.engine import SinglePoint
    from alloop.reference.method import MethodSpec

CHARGE, MULTIPLICITY = "{charge}", "{multiplicity}"
"""Values that stand for the system's in the options of a method."""


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> EngineReference:
    """Make an ASE calculator ready for one system.

    Raises
    ------
    MethodError
        It cannot be imported or made, or nothing tells it of the system's charge or spin.

    """
    path = str(method.options["calculator"])
    _check_electrons_told(method, charge, multiplicity)
    values = {CHARGE: charge, MULTIPLICITY: multiplicity}
    factory = _load(path)
    kwargs = _fill(method.options.get("kwargs", {}), values)

    def make() -> Calculator:
        try:
            return factory(**kwargs)
        except Exception as error:
            raise MethodError(
                f"{path} could not be made with {kwargs}: {type(error).__name__}: {error}"
            ) from error

    package = path.partition(".")[0].partition(":")[0]
    return EngineReference(
        name=method.level_of_theory(multiplicity),
        program=getattr(factory, "program", f"{package} {program_version(package)}"),
        numbers=numbers,
        charge=charge,
        multiplicity=multiplicity,
        single_point=_single_point(method, make, _fill(method.options.get("info", {}), values)),
        failures=(Exception,),  # foreign code: it may say no in any way it likes
    )


def _single_point(
    method: MethodSpec, make: Callable[[], Calculator], info: dict[str, Any]
) -> SinglePoint:
    here = _SinglePoint(make, info)  # also with a limit: what cannot be made is said at once
    seconds = method.options.get(LIMIT)
    if seconds is None:
        return here
    options = {key: value for key, value in method.options.items() if key != LIMIT}
    return LimitedSinglePoint(replace(method, options=options), seconds)


class _SinglePoint:
    """One calculator for all frames, reset before each and made anew after a failure."""

    def __init__(self, make: Callable[[], Calculator], info: dict[str, Any]) -> None:
        self._make, self._info = make, info
        self._calculator: Calculator | None = make()

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        del attempt  # an unknown calculator has no known settings to try next
        calculator = self._calculator or self._make()
        self._calculator = None  # stays so if the lines below fail: its state is then unknown
        atoms = frame.to_atoms()
        atoms.info.update(self._info)
        if hasattr(calculator, "reset"):  # those that go through files have none
            calculator.reset()
        atoms.calc = calculator
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        energy = atoms.get_potential_energy()
        # With smeared electrons the forces belong to the free energy, not to ASE's "energy".
        energy = float(calculator.results.get("free_energy", energy))
        self._calculator = calculator
        return Answer(energy, forces)


def _load(path: str) -> Callable[..., Calculator]:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MethodError(
            f"calculator {path} cannot be imported ({error});"
            " install the package it comes from, or check the spelling"
        ) from error
    if not callable(found):
        raise MethodError(f"calculator {path} is {type(found).__name__}, want a class or function")
    factory: Callable[..., Calculator] = found
    return factory


def _check_electrons_told(method: MethodSpec, charge: int, multiplicity: int) -> None:
    words = str(method.options)
    for placeholder, value, usual in ((CHARGE, charge, 0), (MULTIPLICITY, multiplicity, 1)):
        if value != usual and placeholder not in words:
            raise MethodError(
                f"nothing tells {method.options['calculator']} that the system has"
                f" {placeholder.strip('{}')} {value}: write the value {placeholder!r} in the"
                " method's kwargs or info, under the name by which the calculator knows it"
            )


def _fill(options: Any, values: dict[str, int]) -> Any:
    if isinstance(options, dict):
        return {key: _fill(value, values) for key, value in options.items()}
    if isinstance(options, list):
        return [_fill(value, values) for value in options]
    return values.get(options, options) if isinstance(options, str) else options
