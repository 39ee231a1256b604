"""ANI: atomic energies from one network per element over atomic environment vectors.

Smith, Isayev and Roitberg, DOI 10.1039/C6SC05720A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alloop.potentials.ani.committee import AniCommittee
from alloop.potentials.ani.settings import AniSettings, check
from alloop.potentials.ani.trainable import AniTrainable
from alloop.potentials.evaluation import Committee
from alloop.potentials.fitting import FrameGroup, Trainable
from alloop.potentials.member import Member


class Ani:
    """The architecture "ani"; implements ``Architecture``."""

    def settings(self, size: str, elements: Sequence[int]) -> dict[str, Any]:
        """Return the settings of size "small" or "ani1x" as plain values."""
        return AniSettings.of_size(size, elements).to_plain()

    def check(self, member: Member) -> None:
        """Raise ModelError unless the member is an ANI model."""
        check(member)

    def committee(self, members: Sequence[Member], dtype: torch.dtype) -> Committee:
        """Stack members of equal shape."""
        return AniCommittee(members, dtype)

    def trainable(
        self,
        groups: Sequence[FrameGroup],
        elements: tuple[int, ...],
        settings: Mapping[str, Any],
        atom_energies: Mapping[int, float],
        *,
        scale: float,  # noqa: ARG002  (fresh networks give about 0.05 eV)
        seed: int,
        start: Member | None,
    ) -> Trainable:
        """Prepare the fit of one member."""
        shape = AniSettings.from_plain(settings)
        return AniTrainable(groups, elements, shape, atom_energies, seed=seed, start=start)
