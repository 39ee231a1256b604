"""The descriptors of a training set, computed once, and the map from their gradients to forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from alloop.potentials.ani.aev import features, jacobian, pull_back, push_forward
from alloop.potentials.ani.terms import AevSettings, Environments, environments
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.neighbours import find_pairs

CACHE_BYTES = 1_500_000_000
"""Memory that the Jacobians of one training set may take; groups beyond it are recomputed."""
DEVIATION_FLOOR = 0.05
"""Added in quadrature to each feature's deviation, so that nearly constant ones stay small."""
_SEEN = 1e-6
_FRAMES_AT_ONCE = 16
_DENSE_BYTES = 64_000_000
"""Work space for building Jacobians, before features that no frame has are dropped."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the features of one element are standardised.

    Attributes
    ----------
    active : (n_active,) int64, features that some frame has.
    trained : (n_active,) bool, which of these some training frame has.
    mean, deviation : (n_features,); 0 and the floor for features that no training frame has.

    """

    active: Tensor
    trained: Tensor
    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RawGroup:
    """A group of frames with its descriptors; atoms are ordered by element in every frame.

    Attributes
    ----------
    group : the frames.
    settings : the descriptor.
    atom_elements : (n_atoms,) index of the element of each atom, in the frame's own order.
    counts : atoms of each element in one frame.
    features : (n_frames, n_atoms, n_features) float32.

    """

    group: FrameGroup
    settings: AevSettings
    atom_elements: Tensor
    counts: tuple[int, ...]
    features: Tensor

    @classmethod
    def of(cls, group: FrameGroup, elements: tuple[int, ...], settings: AevSettings) -> RawGroup:
        """Compute the descriptors of a group."""
        atom_elements = torch.tensor([elements.index(z) for z in group.numbers])
        counts = tuple(group.numbers.count(z) for z in elements)
        empty = cls(group, settings, atom_elements, counts, torch.empty(0))
        everything = torch.arange(len(group.positions))
        rows = [
            features(empty.environments(frames)).view(len(frames), len(group.numbers), -1)
            for frames in everything.split(_FRAMES_AT_ONCE)
        ]
        return cls(group, settings, atom_elements, counts, torch.cat(rows))

    def environments(self, frames: Tensor) -> Environments:
        """Return the pairs and triples of some frames."""
        group, n_atoms = self.group, len(self.atom_elements)
        cells = None if group.cells is None else group.cells[frames]
        pairs = find_pairs(group.positions[frames], self.settings.radial_cutoff, cells)
        # The rank of each atom when the frame is ordered by element.
        rank = torch.argsort(torch.argsort(self.atom_elements, stable=True))
        rows = torch.arange(len(frames))[:, None] * n_atoms + rank
        return environments(
            pairs,
            self.atom_elements.repeat(len(frames)),
            rows.reshape(-1),
            len(self.counts),
            self.settings,
            torch.float32,
        )

    def blocks(self) -> tuple[Tensor, ...]:
        """Return the features of each element, (n_frames, n_e, n_features)."""
        blocks: tuple[Tensor, ...] = self.features.split(self.counts, 1)
        return blocks


def find_scaling(groups: Sequence[RawGroup]) -> list[Scaling]:
    """Return the scaling of each element: moments of training frames, presence in any frame."""
    result = []
    for element in range(len(groups[0].counts)):
        blocks = [g.blocks()[element] for g in groups]
        width = blocks[0].shape[-1]
        every = torch.cat([b.reshape(-1, width) for b in blocks])
        training = torch.cat(
            [b[g.group.training].reshape(-1, width) for b, g in zip(blocks, groups, strict=True)]
        )
        active = (every > _SEEN).any(0).nonzero()[:, 0]
        trained = (training > _SEEN).any(0)
        mean, spread = torch.zeros(width), torch.zeros(width)
        if len(training):
            mean = torch.where(trained, training.mean(0), mean)
            spread = torch.where(trained, training.std(0, correction=0), spread)
        deviation = torch.hypot(spread, torch.tensor(DEVIATION_FLOOR))
        result.append(Scaling(active, trained[active], mean, deviation))
    return result


class ForceMap(Protocol):
    """The Jacobian of standardised features by positions of k frames, as a linear map."""

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        """Turn dE/dfeature, (k, n_e, n_active) for each element, into dE/dr, (k, n_atoms, 3)."""
        ...

    def push(self, direction: Tensor) -> list[Tensor]:
        """Turn displacements (k, n_atoms, 3) into changes of the features: the transpose."""
        ...


class Descriptors:
    """Standardised features of one group, with the Jacobian kept or recomputed when wanted."""

    def __init__(self, raw: RawGroup, scaling: Sequence[Scaling], *, cache: bool) -> None:
        self._raw, self._scaling = raw, scaling
        self._inputs = [
            ((block - s.mean) / s.deviation)[..., s.active].contiguous()
            for block, s in zip(raw.blocks(), scaling, strict=True)
        ]
        self._jacobian = self._dense() if cache else None

    def inputs(self, frames: Tensor) -> list[Tensor]:
        """Return the features of some frames, (k, n_e, n_active) for each element."""
        return [x.index_select(0, frames) for x in self._inputs]

    def force_map(self, frames: Tensor) -> ForceMap:
        """Return the Jacobian of some frames."""
        if self._jacobian is not None:
            return _Cached(self._jacobian, frames, self._inputs)
        return _Recomputed(self._raw.environments(frames), self._raw.counts, self._scaling)

    def _dense(self) -> Tensor:
        """Return (n_frames, 3 n_atoms, n_inputs), the standardised Jacobian of every frame."""
        n_frames, n_atoms, width = self._raw.features.shape
        frame_bytes = 4 * n_atoms * width * 3 * n_atoms
        step = max(1, min(_FRAMES_AT_ONCE, _DENSE_BYTES // frame_bytes))
        parts = []
        for frames in torch.arange(n_frames).split(step):
            dense = jacobian(self._raw.environments(frames), n_atoms)
            blocks = dense.view(len(frames), n_atoms, width, -1).split(self._raw.counts, 1)
            scaled = [
                (block / s.deviation[:, None])[:, :, s.active].flatten(1, 2)
                for block, s in zip(blocks, self._scaling, strict=True)
            ]
            parts.append(torch.cat(scaled, 1).transpose(1, 2).contiguous())
        return torch.cat(parts)


def describe(
    groups: Sequence[RawGroup], scaling: Sequence[Scaling], cache_bytes: int = CACHE_BYTES
) -> list[Descriptors]:
    """Standardise groups; keep the Jacobians of as many as fit into the memory."""
    result = []
    for raw in groups:
        n_inputs = sum(n * len(s.active) for n, s in zip(raw.counts, scaling, strict=True))
        size = 4 * len(raw.features) * n_inputs * 3 * len(raw.atom_elements)
        cache = size <= cache_bytes
        cache_bytes -= size if cache else 0
        result.append(Descriptors(raw, scaling, cache=cache))
    return result


class _Cached:
    """One product per frame: gathering the Jacobians of a batch would cost more than using them."""

    def __init__(self, jacobian: Tensor, frames: Tensor, inputs: Sequence[Tensor]) -> None:
        self._frames = [jacobian[frame] for frame in frames.tolist()]
        self._shapes = [x.shape[1:] for x in inputs]

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        joined = torch.cat([g.flatten(1) for g in gradients], 1)
        pulled = [torch.mv(j, g) for j, g in zip(self._frames, joined, strict=True)]
        return torch.stack(pulled).view(len(pulled), -1, 3)

    def push(self, direction: Tensor) -> list[Tensor]:
        flat = direction.flatten(1)
        change = torch.stack([torch.mv(j.t(), d) for j, d in zip(self._frames, flat, strict=True)])
        parts = change.split([shape.numel() for shape in self._shapes], 1)
        return [
            part.view(len(flat), *shape) for part, shape in zip(parts, self._shapes, strict=True)
        ]


class _Recomputed:
    def __init__(
        self, env: Environments, counts: tuple[int, ...], scaling: Sequence[Scaling]
    ) -> None:
        self._env, self._counts, self._scaling = env, counts, scaling

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        width = self._env.settings.n_features(self._env.n_elements)
        blocks = []
        for gradient, s in zip(gradients, self._scaling, strict=True):
            block = gradient.new_zeros((*gradient.shape[:2], width))
            blocks.append(block.index_copy_(2, s.active, gradient / s.deviation[s.active]))
        rows = torch.cat(blocks, 1)
        slope = pull_back(self._env, rows.reshape(1, -1, width))
        return slope.reshape(len(rows), -1, 3)

    def push(self, direction: Tensor) -> list[Tensor]:
        change = push_forward(self._env, direction.reshape(-1, 3))
        blocks = change.view(len(direction), -1, change.shape[1]).split(self._counts, 1)
        return [
            (block / s.deviation)[..., s.active]
            for block, s in zip(blocks, self._scaling, strict=True)
        ]
