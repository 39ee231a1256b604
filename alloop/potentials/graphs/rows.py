"""Sums over the neighbours of each atom as products of small matrices.

No array has to hold what every pair makes of every feature and every function of its distance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Rows:
    """Pairs sorted by one of their atoms into rows of equal length.

    Attributes
    ----------
    place : (n_pairs,) int64, of each pair among the ``n_atoms * width`` places.
    n_atoms, width : number and length of the rows; the longest has no free place.

    """

    def __init__(self, atom: Tensor, n_atoms: int) -> None:
        counts = torch.bincount(atom, minlength=n_atoms)
        self.n_atoms, self.width = n_atoms, int(counts.max()) if n_atoms else 0
        order = torch.argsort(atom, stable=True)
        first = (counts.cumsum(0) - counts).repeat_interleave(counts)
        self.place = torch.empty_like(order)
        self.place[order] = atom[order] * self.width + torch.arange(len(atom)) - first

    def spread(self, values: Tensor) -> Tensor:
        """Return values (n_pairs, ...) as (n_atoms, width, ...), with zeros in free places."""
        shape = values.shape[1:]
        empty = values.new_zeros(self.n_atoms * self.width, *shape)
        return empty.index_copy_(0, self.place, values).view(self.n_atoms, self.width, *shape)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a b for stacks of matrices a (n, k, l) and b (n, l, m).

    Like ``torch.bmm``, but the derivatives of any order come in the layout in which they are added
    up; those of bmm come transposed, and to add them takes longer than the products.
    """
    return _apply(Product, a, b)


def _apply(function: type[torch.autograd.Function], a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = function.apply(a, b)
    return result


class Product(torch.autograd.Function):
    """See ``product``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """Return (n, k, m)."""
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the slopes by a and b where they are needed."""
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return (
            _apply(ProductWithTransposed, slope, b) if by_a else None,
            _apply(ProductOfTransposed, a, slope) if by_b else None,
        )


class ProductWithTransposed(torch.autograd.Function):
    """a bᵀ for a (n, k, m) and b (n, l, m)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """Return (n, k, l)."""
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the slopes by a and b where they are needed."""
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return (
            _apply(Product, slope, b) if by_a else None,
            _apply(ProductOfTransposed, slope, a) if by_b else None,
        )


class ProductOfTransposed(torch.autograd.Function):
    """aᵀ b for a (n, k, l) and b (n, k, m)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """Return (n, l, m)."""
        ctx.save_for_backward(a, b)
        return torch.bmm(a.transpose(1, 2), b)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the slopes by a and b where they are needed."""
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return (
            _apply(ProductWithTransposed, b, slope) if by_a else None,
            _apply(Product, a, slope) if by_b else None,
        )
