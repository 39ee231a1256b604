"""MethodSpec says which reference method; build_reference makes it ready for one system."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from alloop.errors import MethodError
from alloop.reference.choice import check_choice
from alloop.reference.pyscf.options import PyscfOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from alloop.frames import Frame, Label

SPIN_POLARISED: Final = "sp"
"""Prefix of a level of theory that treats the two spins apart."""

ENGINES: Final = {
    "tblite": "alloop.reference.tblite",
    "xtb": "alloop.reference.xtb",
    "ani": "alloop.reference.ani",
    "ase": "alloop.reference.ase_calculator",
    "pyscf": "alloop.reference.pyscf.build",
    "external": "alloop.reference.external",
}
"""Where each engine lives; its ``build(method, numbers, charge, multiplicity)`` is called."""

MODELS: Final = {
    "tblite": ("GFN2-xTB", "GFN1-xTB", "spGFN2-xTB", "spGFN1-xTB"),
    "xtb": ("GFN2-xTB", "GFN1-xTB"),
    "ani": ("ANI-1x", "ANI-1ccx", "ANI-2x"),
}
"""What each engine can compute; the others' levels of theory are named by the user or PySCF."""

_ASE_OPTIONS = ("calculator", "kwargs", "info", "max_seconds")


class Reference(Protocol):
    """A reference method made ready for one system."""

    @property
    def name(self) -> str:
        """Level of theory, the name under which labels may be mixed."""

    @property
    def program(self) -> str:
        """Program and version that does the work."""

    @property
    def gives_forces(self) -> bool:
        """Whether its labels have forces."""

    def label(self, frame: Frame, attempt: int = 0) -> Label:
        """Return energy (eV) and forces (eV/Å); raise LabelError where the method gives none."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """Which reference method: plain data that travels as JSON.

    Attributes
    ----------
    engine : a key of :data:`ENGINES`.
    model : a name of :data:`MODELS`; with ``ase`` and ``external`` the user's name for the level of
        theory; with ``pyscf`` the name that follows from the options, and it may be left out.
    options : for ``ase``: ``calculator`` (``package.module:Class``), ``kwargs`` for its
        constructor and ``info`` for ``Atoms.info``. The values ``"{charge}"`` and
        ``"{multiplicity}"`` in them stand for the system's; ``max_seconds``, the most time for
        one label, s. For ``ani``: ``folder`` that holds
        the weights, see :func:`alloop.potentials.ani.pretrained.pretrained`. For ``pyscf``: those
        of :class:`alloop.reference.pyscf.options.PyscfOptions`. For ``external``: ``forces``,
        whether its labels have them (true).

    Raises
    ------
    MethodError
        The engine or the model is unknown, or an option makes no sense.

    """

    engine: str
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, tuple(ENGINES))
        try:
            options = json.loads(json.dumps(dict(self.options)))
        except TypeError as error:
            raise MethodError(
                f"options of method {self.model} are not plain data: {error}"
            ) from None
        object.__setattr__(self, "options", options)
        if not self.model and self.engine in ("tblite", "xtb"):
            object.__setattr__(self, "model", "GFN2-xTB")
        check = {"ase": self._check_ase, "pyscf": self._settle_pyscf, "ani": self._check_ani}
        check |= {"external": self._check_external}
        check.get(self.engine, self._check_no_options)()

    def _check_no_options(self) -> None:
        check_choice(f"model of engine {self.engine}", self.model, MODELS[self.engine])
        if self.options:
            raise MethodError(f"engine {self.engine} takes no options, got {sorted(self.options)}")

    def _settle_pyscf(self) -> None:
        options = PyscfOptions.from_mapping(self.options)
        if self.model not in ("", options.name):
            raise MethodError(
                f"engine pyscf calls this level of theory {options.name!r}, not {self.model!r}"
            )
        object.__setattr__(self, "model", options.name)
        object.__setattr__(self, "options", options.to_json())

    def _check_external(self) -> None:
        self._check_named()
        for key, value in self.options.items():
            check_choice("option of engine external", key, ("forces",))
            if not isinstance(value, bool):
                raise MethodError(f"option forces of engine external is {value!r}, want a bool")

    def _check_named(self) -> None:
        if not self.model:
            raise MethodError(
                f"engine {self.engine} needs a model: your name for this level of theory"
            )

    def _check_ani(self) -> None:
        check_choice("model of engine ani", self.model, MODELS["ani"])
        for key, folder in self.options.items():
            check_choice("option of engine ani", key, ("folder",))
            if not isinstance(folder, str):
                raise MethodError(f"option folder of engine ani is {folder!r}, want a path")

    def _check_ase(self) -> None:
        self._check_named()
        for key in self.options:
            check_choice("option of engine ase", key, _ASE_OPTIONS)
        path = self.options.get("calculator")
        if not isinstance(path, str) or not all(path.partition(":")):
            raise MethodError(
                f"option calculator of engine ase is {path!r}, want 'package.module:Class'"
            )
        for key in ("kwargs", "info"):
            if not isinstance(self.options.get(key, {}), dict):
                raise MethodError(f"option {key} of engine ase must map names to values")
        seconds = self.options.get("max_seconds", 1.0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise MethodError(
                f"option max_seconds of engine ase is {seconds!r}, want a time above 0"
            )

    @property
    def gives_forces(self) -> bool:
        """Whether its labels have forces, at least those of closed shells.

        A reference knows for its system: see ``Reference.gives_forces``.
        """
        if self.engine == "pyscf":
            return PyscfOptions.from_mapping(self.options).gives_forces(multiplicity=1)
        return bool(self.engine != "external" or self.options.get("forces", True))

    def level_of_theory(self, multiplicity: int) -> str:
        """Return the name of the level of theory for systems of this spin multiplicity.

        Restricted GFN2-xTB puts singlet O2 below triplet O2, so open shells are spin-polarised and
        carry another name (doi:10.1002/jcc.27185). Raises MethodError where the engine cannot.
        """
        if self.engine in ("ase", "pyscf", "external"):
            return self.model
        if multiplicity == 1 or self.model.startswith(SPIN_POLARISED):
            return self.model
        if self.engine == "ani":
            raise MethodError(
                f"{self.model} knows closed shells only, the system has multiplicity"
                f" {multiplicity}; use engine tblite"
            )
        if self.engine == "xtb":
            raise MethodError(
                f"engine xtb cannot describe multiplicity {multiplicity}: xtb-python's library has"
                " no spin polarisation, without which spin states come out in the wrong order;"
                " use engine tblite"
            )
        return SPIN_POLARISED + self.model

    def with_more_memory(self, times: int, most: float) -> MethodSpec:
        """Return the same level of theory with twice the memory, so many times, up to ``most`` MB.

        What a method has from the start is never taken away.
        """
        if self.engine != "pyscf" or not times:
            return self
        memory = self.options["memory"]
        more = max(memory, min(memory * 2.0**times, most))
        return replace(self, options={**self.options, "memory": more})

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which :meth:`from_json` makes an equal method."""
        return {"engine": self.engine, "model": self.model, "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MethodSpec:
        """Make a method from plain data; raises MethodError on keys that it does not know."""
        for key in data:
            check_choice("key of a method", key, ("engine", "model", "options"))
        if "engine" not in data:
            raise MethodError(f"a method needs an engine, one of {', '.join(ENGINES)}")
        return cls(**data)


def build_reference(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> Reference:
    """Make a method ready for one system.

    Raises
    ------
    MethodError
        The engine is not installed, or cannot describe the system.
    FrameError
        The electrons cannot have this multiplicity.

    """
    module = importlib.import_module(ENGINES[method.engine])
    reference: Reference = module.build(method, numbers, charge, multiplicity)
    return reference


def demand_forces(reference: Reference, purpose: str) -> None:
    """Raise MethodError if a reference gives energies alone and ``purpose`` needs forces."""
    if not reference.gives_forces:
        raise MethodError(
            f"{purpose} needs forces, and {reference.name} gives energies alone for this system:"
            " choose a method that has gradients"
        )
