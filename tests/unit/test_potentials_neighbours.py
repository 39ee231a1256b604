"""Neighbour pairs against ASE's neighbour list, which was written independently."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from alloop.errors import ModelError
from alloop.potentials import neighbours
from alloop.potentials.neighbours import find_pairs


def as_set(centre, other, vectors):
    return sorted(zip(centre, other, *np.round(np.asarray(vectors).T, 8) + 0.0, strict=True))


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.diag([4.0, 4.5, 30.0]), (True, True, True)),
        ([[3.0, 0, 0], [1.4, 2.9, 0], [-1.0, 0.8, 3.3]], (True, True, True)),
        ([[6.0, 0, 0], [5.0, 3.0, 0], [0, 0, 4.0]], (True, True, False)),
        ([[0, 5.0, 0], [1.0, 0, 0], [0, 0, 4.0]], (False, True, False)),
        (np.diag([12.0, 11.0, 13.0]), (True, True, True)),
        (np.zeros((3, 3)), (False, False, False)),
    ],
    ids=["slabby", "small and skewed", "two directions", "one direction", "large", "molecule"],
)
def test_pairs_are_those_of_ase(cell, pbc):
    rng = np.random.default_rng(3)
    cell = np.array(cell, dtype=float)
    atoms = Atoms("H8", rng.uniform(-5.0, 5.0, (8, 3)), cell=cell, pbc=pbc)
    lattice = torch.tensor(np.where(np.array(pbc)[:, None], cell, 0.0)) if any(pbc) else None
    pairs = find_pairs(torch.tensor(atoms.positions)[None], 5.2, lattice)
    i, j, vectors = neighbor_list("ijD", atoms, 5.2)
    assert len(i) >= 2
    assert as_set(pairs.centre.tolist(), pairs.other.tolist(), pairs.vectors) == as_set(
        i, j, vectors
    )
    assert (pairs.centre.diff() >= 0).all()


def test_replicas_are_searched_apart_and_in_pieces(monkeypatch):
    rng = np.random.default_rng(1)
    positions = torch.tensor(rng.uniform(0, 4, (7, 5, 3)))
    cells = torch.tensor(np.diag([3.0, 4.0, 5.0]) + rng.normal(0, 0.1, (7, 3, 3)))
    whole = find_pairs(positions, 3.0, cells)
    monkeypatch.setattr(neighbours, "MAX_PAIRS", 3 * 5 * 5 * 27)
    pieces = find_pairs(positions, 3.0, cells)
    for name in ("centre", "other", "vectors"):
        assert torch.equal(getattr(whole, name), getattr(pieces, name))
    for replica in range(7):
        alone = find_pairs(positions[replica][None], 3.0, cells[replica])
        mine = whole.centre // 5 == replica
        assert torch.equal(whole.other[mine] - 5 * replica, alone.other)
        assert torch.allclose(whole.vectors[mine], alone.vectors)


def test_a_cell_without_volume_is_refused():
    flat = torch.tensor([[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]], dtype=torch.float64)
    with pytest.raises(ModelError, match="no volume"):
        find_pairs(torch.zeros(1, 2, 3, dtype=torch.float64), 3.0, flat)
