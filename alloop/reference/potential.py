"""Any potential by what a person would call it, both for dynamics and for single points.

Dynamics asks a committee about many geometries at once, an optimisation asks a reference about one.
A committee of networks is made a reference here, and a reference a committee of one member.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alloop.artifacts import sha256
from alloop.errors import LabelError, MethodError, ModelError
from alloop.frames import Frame
from alloop.potentials.committee import Committee, build_committee
from alloop.potentials.evaluation import Evaluation, ForceKind, check_elements
from alloop.potentials.library import find_members
from alloop.reference.ani import MeanOfCommittee
from alloop.reference.engine import EngineReference, program_version
from alloop.reference.failures import may_retry
from alloop.reference.method import MODELS, MethodSpec, build_reference, demand_forces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Label
    from alloop.potentials.member import Member
    from alloop.reference.method import Reference


@dataclass(frozen=True, slots=True, eq=False)
class Potential:
    """One potential-energy surface of one system.

    Attributes
    ----------
    name : what it was asked for by.
    identity : hash of all that it is made of.
    committee : for batches of geometries.
    reference : the same surface for single points, in double precision.

    """

    name: str
    identity: str
    committee: Committee
    reference: Reference


def find_potential(names: Sequence[str], frame: Frame) -> Potential:
    """Return the potential of these names, ready for systems like a frame.

    Parameters
    ----------
    names : member files or folders of them, which make one committee; or one alone of ``ANI-1x``,
        ``ANI-1ccx``, ``ANI-2x``, of the methods of tblite such as ``GFN2-xTB``, or an ASE
        calculator as ``package.module:Class``.
    frame : of the system; its charge and multiplicity count.

    Raises
    ------
    ModelError
        There are no such members, they do not belong together or lack an element of the system.
    MethodError
        The method is unknown, or not for this system.

    """
    method = _method(names)
    if method is None:
        return _of_members(names, frame)
    reference = build_reference(method, frame.numbers, frame.charge, frame.multiplicity)
    identity = _digest(reference.name, reference.program, str(frame.charge))
    committee: Committee = ReferenceCommittee(reference, frame)
    if method.engine == "ani":
        committee = build_committee(find_members(method.model))
    return Potential(names[0], identity, committee, reference)


def _method(names: Sequence[str]) -> MethodSpec | None:
    """Return the reference method that is meant; None for member files."""
    if not names:
        raise MethodError("no potential is given; want member files or the name of a method")
    engines = {model: engine for engine in ("tblite", "ani") for model in MODELS[engine]}
    methods = [name for name in names if not Path(name).exists()]
    if not methods:
        return None
    if len(names) > 1:
        raise MethodError(
            f"{methods[0]} is no file; several potentials must be member files of one committee"
        )
    (name,) = methods
    module, _, _ = name.partition(":")
    if ":" in name and all(part.isidentifier() for part in module.split(".")):
        return MethodSpec("ase", name, {"calculator": name})
    if name not in engines:
        raise MethodError(
            f"no potential {name!r}: neither a file or folder of members, nor one of"
            f" {', '.join(engines)}, nor an ASE calculator 'package.module:Class'"
        )
    return MethodSpec(engines[name], name)


def _of_members(names: Sequence[str], frame: Frame) -> Potential:
    members = [member for name in names for member in find_members(name)]
    files = [file for name in names for file in _files(Path(name))]
    check_elements(frame.numbers.tolist(), _elements(members))
    exact = build_committee(members, dtype=torch.float64)
    reference = EngineReference(
        name=members[0].level_of_theory,
        program=f"alloop {program_version('alloop')}",
        numbers=frame.numbers,
        charge=frame.charge,
        multiplicity=frame.multiplicity,
        single_point=MeanOfCommittee(exact),
        failures=(),
    )
    identity = _digest(*(sha256(file) for file in files))
    return Potential(", ".join(names), identity, build_committee(members), reference)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.pt")) if path.is_dir() else [path]


def _elements(members: Sequence[Member]) -> list[int]:
    return sorted(set.intersection(*(set(member.elements) for member in members)))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ReferenceCommittee:
    """A reference method as a committee of one member, asked about one replica after another.

    A geometry without a label has NaN, so that dynamics ends that replica and no other. Charge,
    multiplicity and numbers are those of a frame. MethodError if the reference gives no forces.
    """

    n_members = 1

    def __init__(self, reference: Reference, frame: Frame) -> None:
        demand_forces(reference, "dynamics")
        self._reference, self._frame = reference, frame
        self.elements = tuple(sorted({int(z) for z in frame.numbers}))

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: Tensor,
        *,
        forces: ForceKind,
        cell: Tensor | None = None,
        virials: bool = False,
    ) -> Evaluation:
        """Evaluate replicas of the one system; see ``Committee.evaluate``.

        Raises ModelError for another system, and for virials, which references do not give.
        """
        if virials or cell is not None or not np.array_equal(numbers, self._frame.numbers):
            raise ModelError(
                f"{self._reference.name} was made ready for energies and forces of the molecule"
                f" {self._frame.formula}, and is asked for something else"
            )
        labels = [self._label(replica) for replica in positions.detach().cpu().numpy()]
        shape = positions.shape[1:]
        energies = [[np.nan if x is None else x.energy for x in labels]]
        slopes = np.stack([_forces(x, shape) for x in labels])
        mean = torch.from_numpy(slopes).to(positions.device)
        return Evaluation(
            torch.tensor(energies, dtype=torch.float64, device=positions.device),
            None if forces == "none" else mean,
            mean[None] if forces == "members" else None,
        )

    def _label(self, positions: NDArray[np.float64]) -> Label | None:
        """Return a label, tried as often as a campaign would; None if there is none."""
        if not np.isfinite(positions).all():
            return None
        given = self._frame
        frame = Frame(given.numbers, positions, given.charge, given.multiplicity)
        attempt = 0
        while True:
            try:
                return self._reference.label(frame, attempt)
            except LabelError as error:
                attempt += 1
                if not may_retry(error.code, attempt):
                    return None


def _forces(label: Label | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.full(shape, np.nan) if label is None or label.forces is None else label.forces
