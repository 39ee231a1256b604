"""ANI: atomic energies from one network per element over atomic environment vectors.

Smith, Isayev and Roitberg, DOI 10.1039/C6SC05720A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import chemical_symbols

from alloop.potentials.ani.committee import AniCommittee
from alloop.potentials.ani.network import AniNetwork
from alloop.potentials.ani.settings import AniSettings, check
from alloop.potentials.ani.trainable import AniTrainable
from alloop.potentials.evaluation import Committee
from alloop.potentials.fitting import FrameGroup, Trainable
from alloop.potentials.graphs.network import Network
from alloop.potentials.member import Member


class Ani:
    """The architecture "ani"; implements ``Architecture``."""

    learning_rate = 5e-3

    def settings(self, size: str, elements: Sequence[int]) -> dict[str, Any]:
        """Return the settings of size "small" or "ani1x" as plain values."""
        return AniSettings.of_size(size, elements).to_plain()

    @property
    def frozen(self) -> tuple[str, ...]:
        """Linear layers 0 and 2 of each element, as in ANI-1ccx: 10.1038/s41467-019-10827-4."""
        return (r"^[A-Z][a-z]?\.[02]\.",)

    def head(self, settings: Mapping[str, Any], elements: Sequence[int]) -> tuple[str, ...]:
        """Return the patterns of the last layer of every element."""
        depths = map(len, AniSettings.from_plain(settings).hidden)
        return tuple(
            rf"^{chemical_symbols[z]}\.{depth}\." for z, depth in zip(elements, depths, strict=True)
        )

    def network(self, member: Member, dtype: torch.dtype) -> Network:
        """Return a member as a network on graphs."""
        return AniNetwork(member, dtype)

    def cutoff(self, member: Member) -> float:
        """Return the radial cutoff, Å."""
        return AniSettings.from_plain(member.settings).aev.radial_cutoff

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
