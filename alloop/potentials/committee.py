"""Committees: several potentials asked at once, so that their disagreement is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alloop.errors import ModelError
from alloop.potentials.architectures import architecture
from alloop.potentials.evaluation import Committee, Evaluation, ForceKind
from alloop.potentials.files import load_member
from alloop.potentials.member import Member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Committee", "Evaluation", "ForceKind", "build_committee", "load_committee"]


def load_committee(paths: Sequence[Path], *, dtype: torch.dtype = torch.float32) -> Committee:
    """Read member files into a committee; ``evaluate`` lists members in the order of the files.

    ``dtype`` is the working precision inside the potentials: float32 keeps the energy of a
    trajectory as well as float64 does, float64 is for finite differences and comparisons.

    Raises
    ------
    ModelError
        No files, a file that cannot be used, or members of different levels of theory.

    """
    return build_committee([load_member(path) for path in paths], dtype=dtype)


def build_committee(members: Sequence[Member], *, dtype: torch.dtype = torch.float32) -> Committee:
    """Make a committee of members; those of one architecture and shape are stacked.

    Raises ModelError if there are none, or if their levels of theory differ.
    """
    if not members:
        raise ModelError("a committee needs at least one member, got none")
    levels = sorted({member.level_of_theory for member in members})
    if len(levels) > 1:
        raise ModelError(
            f"members were trained on different levels of theory: {', '.join(levels)};"
            " their disagreement would mean nothing"
        )
    stacks: dict[tuple[object, ...], list[int]] = {}
    for index, member in enumerate(members):
        stacks.setdefault(_shape(member), []).append(index)
    parts = [
        (
            order,
            architecture(members[order[0]].architecture).committee(
                [members[i] for i in order], dtype
            ),
        )
        for order in stacks.values()
    ]
    return parts[0][1] if len(parts) == 1 else MixedCommittee(parts)


def _shape(member: Member) -> tuple[object, ...]:
    return member.architecture, member.elements, _frozen(member.settings)


def _frozen(value: object) -> object:
    """Return plain values as something that can be compared and hashed."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value


class MixedCommittee:
    """Members of several architectures or shapes; implements ``Committee``.

    ``parts`` are committees with the places of their members among all.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[int], Committee]]) -> None:
        self._parts = [committee for _, committee in parts]
        order = torch.tensor([place for places, _ in parts for place in places])
        self._order = torch.argsort(order)
        self.n_members = len(order)
        common = set.intersection(*(set(part.elements) for part in self._parts))
        self.elements = tuple(sorted(common))

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: Tensor,
        *,
        forces: ForceKind,
        cell: Tensor | None = None,
        virials: bool = False,
    ) -> Evaluation:
        """Evaluate replicas of one composition; see ``Committee.evaluate``."""
        answers = [
            part.evaluate(numbers, positions, forces=forces, cell=cell, virials=virials)
            for part in self._parts
        ]
        each = self._join([answer.member_forces for answer in answers])
        mean = None if each is None else each.mean(0)
        if forces == "mean":
            shares = [part.n_members / self.n_members for part in self._parts]
            means = [share * _given(a.forces) for share, a in zip(shares, answers, strict=True)]
            mean = torch.stack(means).sum(0)
        energies = torch.cat([answer.energies for answer in answers])[self._order]
        return Evaluation(energies, mean, each, self._join([answer.virials for answer in answers]))

    def _join(self, parts: Sequence[Tensor | None]) -> Tensor | None:
        """Put what the parts say of their members in the order of the members."""
        if all(part is None for part in parts):
            return None
        return torch.cat([_given(part) for part in parts])[self._order]


def _given(slopes: Tensor | None) -> Tensor:
    if slopes is None:
        raise TypeError("a committee gave no slopes although it was asked for them")
    return slopes
