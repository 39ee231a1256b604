"""The published ANI ensembles as references: the mean of their members.

Smith et al., doi:10.1063/1.5023802 (ANI-1x), doi:10.1038/s41467-019-10827-4 (ANI-1ccx);
Devereux et al., doi:10.1021/acs.jctc.0c00121 (ANI-2x).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from alloop.errors import MethodError, ModelError
from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.committee import Committee, build_committee
from alloop.potentials.evaluation import check_elements
from alloop.reference.engine import Answer, EngineError, EngineReference, program_version
from alloop.reference.failures import FailureCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alloop.frames import Frame
    from alloop.reference.method import MethodSpec


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> EngineReference:
    """Make a published model ready for one system.

    Raises
    ------
    MethodError
        The system is charged, open-shell or has other elements; or there are no weights.

    """
    if charge != 0:
        raise MethodError(
            f"{method.model} knows neutral molecules only, the system has charge {charge}"
        )
    name = method.level_of_theory(multiplicity)
    try:
        committee, digest = _load(method.model, method.options.get("folder"))
        check_elements(numbers.tolist(), committee.elements)
    except ModelError as error:
        raise MethodError(f"{method.model}: {error}") from error
    return EngineReference(
        name=name,
        program=f"torchani {program_version('torchani')} {digest[:12]}",
        numbers=numbers,
        charge=charge,
        multiplicity=multiplicity,
        single_point=MeanOfCommittee(committee),
        failures=(),
    )


def _load(name: str, folder: str | None) -> tuple[Committee, str]:
    """Return the members in float64, and the hash of the file they are from."""
    members = pretrained(name, None if folder is None else Path(folder))
    committee = build_committee(members, dtype=torch.float64)
    return committee, str(members[0].metadata["sha256"])


@dataclass(frozen=True, slots=True)
class MeanOfCommittee:
    """Mean energy and force of a committee as the single point of a reference."""

    committee: Committee

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        """Return energy (eV) and forces (eV/Å); EngineError where two atoms coincide."""
        del attempt  # there is nothing to converge
        cell = None
        if frame.cell is not None:
            cell = torch.tensor(np.where(np.array(frame.pbc)[:, None], frame.cell, 0.0))
        answer = self.committee.evaluate(
            frame.numbers, torch.tensor(frame.positions)[None], forces="mean", cell=cell
        )
        energy = float(answer.energies.mean())
        # Coordinates of a frame are finite: only a clash has no energy.
        if answer.forces is None or not np.isfinite(energy):
            raise EngineError(FailureCode.CLASH, "two atoms lie on top of each other")
        return Answer(energy, answer.forces[0].numpy())
