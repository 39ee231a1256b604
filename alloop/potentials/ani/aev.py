"""Atomic environment vectors (AEVs) and the linear maps between their changes and the atoms'.

Derivatives are written out for each pair and triple instead of being left to autograd: one
descriptor pass then serves the forces of all committee members, and in training, where the
coordinates are fixed, the map from descriptor gradients to forces is a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alloop.potentials.ani.terms import Environments

TRIPLES_AT_ONCE = 2048
"""Triples pulled back in one go, so that their work space stays in cache."""


def features(env: Environments) -> Tensor:
    """Sum the terms into AEVs, (n_rows, n_features): radial blocks, then angular blocks."""
    angular = (env.shell[:, :, None] * env.angle[:, None, :]).flatten(1)
    return _collect(env, env.radial, angular)


def pull_back(env: Environments, gradient: Tensor) -> Tensor:
    """Turn gradients by the AEVs into gradients by the positions; linear in ``gradient``.

    Parameters
    ----------
    gradient : (n_members, n_rows, n_features), dE/dAEV.

    Returns
    -------
    (n_members, n_atoms, 3), dE/dr in units of ``gradient`` per Å.

    """
    return by_atoms(env, by_pairs(env, gradient))


def by_pairs(env: Environments, gradient: Tensor) -> Tensor:
    """Turn gradients by the AEVs into gradients by the pair vectors, (n_pairs, n_members, 3)."""
    n_radial = env.settings.n_radial * env.n_elements
    stretch = _gather(gradient[..., :n_radial], env.radial_slot, env.settings.n_radial)
    stretch = torch.einsum("mpf,pf->pm", stretch, env.radial_slope)
    by_pair = env.unit[:, None, :] * stretch[:, :, None]
    if len(env.sides):
        by_pair = by_pair + _angular_pull(env, gradient[..., n_radial:])
    return by_pair


def by_atoms(env: Environments, by_pair: Tensor) -> Tensor:
    """Turn gradients by the pair vectors into gradients by the positions, as ``pull_back``."""
    members = by_pair.shape[1]
    by_pair = by_pair.reshape(-1, 3 * members)
    by_atom = _sum_rows(by_pair, env.atom[:, 1], env.n_atoms) - _sum_rows(
        by_pair, env.atom[:, 0], env.n_atoms
    )
    return by_atom.view(env.n_atoms, members, 3).transpose(0, 1)


def strain(env: Environments, by_pair: Tensor, n_frame_atoms: int) -> Tensor:
    """Turn gradients by the pair vectors into derivatives by the strain of each frame.

    Returns (n_members, n_frames, 3, 3), the sums of vector ⊗ gradient over the pairs of a frame.
    Rows and atoms of the batch are numbered frame by frame.
    """
    vectors = env.unit / env.inverse[:, None]
    parts = (vectors[:, None, :, None] * by_pair[:, :, None, :]).flatten(1)
    total = _sum_rows(parts, env.atom[:, 0] // n_frame_atoms, env.n_atoms // n_frame_atoms)
    return total.view(len(total), -1, 3, 3).transpose(0, 1)


def push_forward(env: Environments, direction: Tensor) -> Tensor:
    """Turn a displacement of the atoms into the change of the AEVs; transposes ``pull_back``.

    ``direction`` is (n_atoms, 3); the result (n_rows, n_features).
    """
    centre, other = env.atom.unbind(1)
    shift = direction.index_select(0, other) - direction.index_select(0, centre)
    stretch = (env.unit * shift).sum(1)
    radial = env.radial_slope * stretch[:, None]
    first, second = env.sides.unbind(1)
    turn1, turn2 = _bends(env)
    cosine = (turn1 * shift.index_select(0, first)).sum(1) + (
        turn2 * shift.index_select(0, second)
    ).sum(1)
    shell = (
        env.shell_slope1 * stretch.index_select(0, first)[:, None]
        + env.shell_slope2 * stretch.index_select(0, second)[:, None]
    )
    angular = (
        shell[:, :, None] * env.angle[:, None]
        + env.shell[:, :, None] * (env.angle_slope * cosine[:, None])[:, None]
    )
    return _collect(env, radial, angular.flatten(1))


def jacobian(env: Environments, n_frame_atoms: int) -> Tensor:
    """Return dAEV/dr of a batch of molecules of equal size, dense.

    Rows and atoms of the batch are numbered frame by frame. The result is
    (n_rows, n_features, n_frame_atoms, 3); memory grows with the square of the molecule.
    """
    width = env.settings.n_features(env.n_elements)
    result = env.unit.new_zeros((env.n_rows, width, n_frame_atoms, 3))
    first, second = env.sides.unbind(1)
    unit1, unit2 = env.unit.index_select(0, first), env.unit.index_select(0, second)
    turn1, turn2 = _bends(env)
    by_cosine = (env.shell[:, :, None] * env.angle_slope[:, None]).flatten(1)
    terms = [(env.radial_slot, 0, env.atom, env.radial_slope[:, :, None] * env.unit[:, None])]
    offset = env.settings.n_radial * env.n_elements
    for side, unit, turn, slope in (
        (first, unit1, turn1, env.shell_slope1),
        (second, unit2, turn2, env.shell_slope2),
    ):
        by_distance = (slope[:, :, None] * env.angle[:, None]).flatten(1)
        term = by_distance[:, :, None] * unit[:, None] + by_cosine[:, :, None] * turn[:, None]
        terms.append((env.angular_slot, offset, env.atom.index_select(0, side), term))
    flat = result.view(-1, 3)
    for slot, start, atoms, term in terms:
        n_terms = term.shape[1]
        n_slots = (offset if start == 0 else width - offset) // n_terms
        column = slot // n_slots * width + start + slot % n_slots * n_terms
        for sign, atom in ((-1.0, atoms[:, 0]), (1.0, atoms[:, 1])):
            base = column * n_frame_atoms + atom % n_frame_atoms
            index = base[:, None] + torch.arange(n_terms, device=base.device) * n_frame_atoms
            index = index.reshape(-1, 1).expand(-1, 3)
            flat.scatter_add_(0, index, sign * term.reshape(-1, 3))
    return result


def _bends(env: Environments, chunk: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Gradients of each triple's cosine by its two pair vectors: (u2 - cos u1) / r1, (T, 3)."""
    first, second = env.sides[chunk].unbind(1)
    unit1, unit2 = env.unit.index_select(0, first), env.unit.index_select(0, second)
    cosine = env.cosine[chunk, None]
    return (
        (unit2 - cosine * unit1) * env.inverse.index_select(0, first)[:, None],
        (unit1 - cosine * unit2) * env.inverse.index_select(0, second)[:, None],
    )


def _collect(env: Environments, radial: Tensor, angular: Tensor) -> Tensor:
    """Sum rows of radial (P, n_radial) and angular (T, n_angular) terms into AEVs."""
    n_pairs = env.n_elements * (env.n_elements + 1) // 2
    radial = _sum_rows(radial, env.radial_slot, env.n_rows * env.n_elements)
    angular = _sum_rows(angular, env.angular_slot, env.n_rows * n_pairs)
    return torch.cat(
        (
            radial.view(env.n_rows, env.n_elements * radial.shape[1]),
            angular.view(env.n_rows, n_pairs * angular.shape[1]),
        ),
        1,
    )


def _angular_pull(env: Environments, gradient: Tensor) -> Tensor:
    """Gradients by the pair vectors that come from the angular terms, (P, n_members, 3)."""
    members, width = len(gradient), env.settings.n_angular
    # Slot-major, so that what a triple needs of all members lies together.
    by_slot = gradient.reshape(members, -1, width).transpose(0, 1).reshape(-1, members * width)
    total = by_slot.new_zeros((len(env.atom), members * 3))
    for triples in torch.arange(len(env.sides), device=by_slot.device).split(TRIPLES_AT_ONCE):
        chunk = slice(int(triples[0]), int(triples[-1]) + 1)
        _add_triples(env, by_slot, chunk, total)
    return total.view(-1, members, 3)


def _add_triples(env: Environments, by_slot: Tensor, chunk: slice, total: Tensor) -> None:
    shells, sections = env.shell.shape[1], env.angle.shape[1]
    cotangent = by_slot.index_select(0, env.angular_slot[chunk]).view(
        -1, by_slot.shape[1] // sections, sections
    )
    angles = torch.stack((env.angle[chunk], env.angle_slope[chunk]), 1)
    reduced = torch.bmm(angles, cotangent.transpose(1, 2))
    by_shell, by_turn = reduced.unflatten(2, (-1, shells)).unbind(1)
    slopes = torch.stack((env.shell_slope1[chunk], env.shell_slope2[chunk]), 2)
    stretch = torch.bmm(by_shell, slopes)
    turn = torch.bmm(by_turn, env.shell[chunk][:, :, None])
    sides = env.sides[chunk]
    for k, bend in enumerate(_bends(env, chunk)):
        side = sides[:, k]
        axes = torch.stack((env.unit.index_select(0, side), bend), 1)
        vectors = torch.bmm(torch.cat((stretch[:, :, k : k + 1], turn), 2), axes).flatten(1)
        total.scatter_add_(0, side[:, None].expand_as(vectors), vectors)


def _sum_rows(values: Tensor, slot: Tensor, n_slots: int) -> Tensor:
    # An expanded index takes torch's fast path, twice as fast as index_add_.
    total = values.new_zeros((n_slots, values.shape[1]))
    return total.scatter_add(0, slot[:, None].expand_as(values), values)


def _gather(gradient: Tensor, slot: Tensor, width: int) -> Tensor:
    """Pick the block of ``width`` features of each slot, (n_members, n_slots_picked, width)."""
    return gradient.reshape(len(gradient), -1, width).index_select(1, slot)
