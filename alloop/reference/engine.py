"""What every engine shares: one system, one single point, one way to fail."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alloop.errors import FrameError
from alloop.frames import Frame, Label, check_spin, symbols
from alloop.reference.failures import FailureCode, classify, label_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class EngineError(Exception):
    """An engine ran and what it gave is no label; holds a reason code and words."""

    def __init__(self, code: FailureCode, words: str) -> None:
        super().__init__(code, words)
        self.code, self.words = code, words


def check_molecule(frame: Frame, program: str) -> None:
    """Raise EngineError for a periodic frame, which this program cannot label."""
    if frame.cell is not None:
        words = f"{program} labels molecules; tblite also labels periodic cells"
        raise EngineError(FailureCode.UNSUPPORTED, words)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an engine computed for one frame.

    Attributes
    ----------
    energy : eV.
    forces : (n_atoms, 3), eV/Å; None where the method gives energies alone.
    diagnostics : numbers about the calculation, by name.

    """

    energy: float
    forces: NDArray[np.float64] | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)


class SinglePoint(Protocol):
    """Energy and forces of a frame, sought harder at each attempt."""

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        """Compute; raise EngineError or one of the engine's own exceptions."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineReference:
    """A Reference around a single point: checks what goes in and what comes out.

    Attributes
    ----------
    name : level of theory.
    program : program and version.
    numbers : (n_atoms,) int64, atomic numbers of the one system it labels.
    charge : total charge, e.
    multiplicity : spin multiplicity 2S + 1.
    single_point : the engine.
    failures : exceptions by which this engine says that it cannot label a frame.
    gives_forces : whether its labels have forces.

    """

    name: str
    program: str
    numbers: NDArray[np.int64]
    charge: int
    multiplicity: int
    single_point: SinglePoint
    failures: tuple[type[Exception], ...]
    gives_forces: bool = True

    def __post_init__(self) -> None:
        numbers = np.array(self.numbers, dtype=np.int64)
        check_spin(numbers, self.charge, self.multiplicity)
        numbers.flags.writeable = False
        object.__setattr__(self, "numbers", numbers)

    def label(self, frame: Frame, attempt: int = 0) -> Label:
        """Return the energy (eV), the forces (eV/Å) if there are any, and diagnostics of a frame.

        ``attempt`` counts earlier failures of the frame; each changes how hard the engine tries.

        Raises
        ------
        LabelError
            The method gives no label; ``code`` says why, ``reason`` keeps the engine's words.
        FrameError
            The frame is of another system.

        """
        self._check_system(frame)
        try:
            answer = self.single_point(frame, attempt)
        except EngineError as error:
            raise label_error(frame.key, self.name, error.words, error.code) from error
        except self.failures as error:
            words = str(error) or type(error).__name__
            raise label_error(frame.key, self.name, words, classify(words)) from error
        self._check_finite(frame, answer)
        diagnostics = {name: float(x) for name, x in answer.diagnostics.items() if math.isfinite(x)}
        return Label(frame.key, self.name, answer.energy, answer.forces, diagnostics)

    def _check_finite(self, frame: Frame, answer: Answer) -> None:
        bad = 0 if answer.forces is None else int(np.sum(~np.isfinite(answer.forces)))
        if bad or not math.isfinite(answer.energy):
            words = f"energy {answer.energy} eV, {bad} force components that are not finite"
            raise label_error(frame.key, self.name, words, FailureCode.NOT_FINITE)

    def _check_system(self, frame: Frame) -> None:
        mine = (self.numbers.tolist(), self.charge, self.multiplicity)
        if mine != (frame.numbers.tolist(), frame.charge, frame.multiplicity):
            raise FrameError(
                f"frame {frame.key[:12]} ({frame.formula}, charge {frame.charge}, multiplicity"
                f" {frame.multiplicity}) is not of the system this reference was built for:"
                f" {''.join(symbols(self.numbers))}, charge {self.charge},"
                f" multiplicity {self.multiplicity}"
            )


def program_version(distribution: str) -> str:
    """Return the version of an installed distribution, or ``unknown``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
