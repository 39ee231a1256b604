"""Neighbour pairs against ASE's neighbour list, which was written independently."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import graphene
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from alloop.errors import ModelError
from alloop.potentials import neighbours
from alloop.potentials.neighbours import find_pairs

MANY = neighbours.ALL_PAIRS_ATOMS + 1


def as_set(centre, other, vectors):
    return sorted(zip(centre, other, *np.round(np.asarray(vectors).T, 8) + 0.0, strict=True))


def search(atoms, cutoff):
    cell = torch.tensor(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0))
    positions = torch.tensor(atoms.positions)[None]
    return find_pairs(positions, cutoff, cell if atoms.pbc.any() else None)


def check(atoms, cutoff):
    """Compare with ASE and return the pairs."""
    pairs = search(atoms, cutoff)
    expected = as_set(*neighbor_list("ijD", atoms, cutoff))
    assert as_set(pairs.centre.tolist(), pairs.other.tolist(), pairs.vectors) == expected
    assert (pairs.centre.diff() >= 0).all()
    assert pairs.centre.dtype == pairs.other.dtype == torch.int64
    assert pairs.vectors.dtype == torch.float64
    return pairs


CELLS = {
    "slabby": (np.diag([4.0, 4.5, 30.0]), (True, True, True)),
    "small and skewed": ([[3.0, 0, 0], [1.4, 2.9, 0], [-1.0, 0.8, 3.3]], (True, True, True)),
    "two directions": ([[6.0, 0, 0], [5.0, 3.0, 0], [0, 0, 4.0]], (True, True, False)),
    "one direction": ([[0, 5.0, 0], [1.0, 0, 0], [0, 0, 4.0]], (False, True, False)),
    "much smaller than the cutoff": (
        [[1.0, 0.1, 0], [0, 1.1, 0.2], [0.3, 0, 1.2]],
        (True, True, True),
    ),
    "the second direction is free": (
        [[6.0, 1.0, 0], [0, 7.0, 3.0], [2.0, 2.0, 5.0]],
        (True, False, True),
    ),
    "large": (np.diag([12.0, 11.0, 13.0]), (True, True, True)),
    "molecule": (np.zeros((3, 3)), (False, False, False)),
}
MANY_CASES = [name for name in CELLS if name != "much smaller than the cutoff"]
"""That one has a million pairs, and nothing that the other cases have not."""


@pytest.mark.parametrize(
    ("name", "n_atoms"), [*((n, 8) for n in CELLS), *((n, MANY) for n in MANY_CASES)]
)
def test_pairs_are_those_of_ase(name, n_atoms):
    cell, pbc = CELLS[name]
    rng = np.random.default_rng(3)
    positions = rng.uniform(-5.0, 5.0, (n_atoms, 3))  # mostly outside the cell
    cell = np.array(cell, dtype=float)
    assert len(check(Atoms(f"H{n_atoms}", positions, cell=cell, pbc=pbc), 5.2).centre) >= 2


@pytest.mark.parametrize("pbc", [(True, True, False), True], ids=["sheet", "with a vacuum"])
def test_graphene_has_all_of_its_neighbours(pbc):
    """A hexagonal cell: whoever transposes it in the minimum image finds 1220 pairs."""
    sheet = graphene(size=(5, 5, 1), a=2.46, vacuum=10.0)
    sheet.pbc = pbc
    sheet.positions += [7.0, -40.0, 3.0]
    # Shells of 3, 6, 3, 6, 6 and 6 atoms: up to 4.92 Å.
    assert len(check(sheet, 5.0).centre) == 50 * 30 == 1500


def test_replicas_are_searched_apart():
    rng = np.random.default_rng(1)
    positions = torch.tensor(rng.uniform(0, 4, (7, 5, 3)))
    cells = torch.tensor(np.diag([3.0, 4.0, 5.0]) + rng.normal(0, 0.1, (7, 3, 3)))
    whole = find_pairs(positions, 3.0, cells)
    for replica in range(7):
        alone = find_pairs(positions[replica][None], 3.0, cells[replica])
        mine = whole.centre // 5 == replica
        assert torch.equal(whole.centre[mine] - 5 * replica, alone.centre)
        assert torch.equal(whole.other[mine] - 5 * replica, alone.other)
        assert torch.equal(whole.vectors[mine], alone.vectors)
    shared = find_pairs(positions, 3.0, cells[:1])
    assert torch.equal(shared.vectors, find_pairs(positions, 3.0, cells[0]).vectors)


def test_molecules_give_the_same_in_pieces_and_one_by_one(monkeypatch):
    positions = torch.tensor(np.random.default_rng(1).uniform(0, 4, (7, 5, 3)))
    whole = find_pairs(positions, 3.0)
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", 3 * 5 * 5)
    pieces = find_pairs(positions, 3.0)
    monkeypatch.setattr(neighbours, "ALL_PAIRS_ATOMS", 0)
    single = find_pairs(positions, 3.0)
    rows = as_set(whole.centre.tolist(), whole.other.tolist(), whole.vectors)
    for other in (pieces, single):
        assert torch.equal(whole.centre, other.centre)
        assert as_set(other.centre.tolist(), other.other.tolist(), other.vectors) == rows
    assert len(find_pairs(positions[:0], 3.0).vectors) == 0
    assert len(find_pairs(positions[:, :1], 3.0).vectors) == 0


@pytest.mark.parametrize("distance", [30.0, 1e6, 1e300])
@pytest.mark.parametrize("pbc", [False, (True, True, False)], ids=["molecule", "slab"])
@pytest.mark.parametrize("n_atoms", [6, MANY])
def test_a_fragment_that_flew_off_leaves_the_pairs_of_the_others_alone(distance, pbc, n_atoms):
    """Without period vesin divides by zero, and the process is gone, from about 1e6 Å on."""
    rng = np.random.default_rng(5)
    turn = Rotation.random(rng=4).as_matrix()
    # A slab's free direction need not be an axis; with 1e300 Å along it everything is rounding.
    if distance > 1e10:
        turn = np.eye(3)
    cell = np.array([[9.0, 0, 0], [4.0, 8.0, 0], [0, 0, 1.0]]) @ turn
    positions = rng.uniform(0, 8.0, (n_atoms, 3)) @ turn
    far = positions[:2] + distance * turn[2]
    whole = Atoms(f"H{n_atoms}", positions, cell=cell, pbc=pbc)
    split = Atoms(f"H{n_atoms + 2}", np.concatenate([positions, far]), cell=cell, pbc=pbc)
    pairs, expected = search(split, 5.0), check(whole, 5.0)
    home = pairs.centre < n_atoms
    assert (pairs.other[home] < n_atoms).all()
    assert torch.equal(pairs.centre[home], expected.centre)
    rows = as_set(pairs.centre[home].tolist(), pairs.other[home].tolist(), pairs.vectors[home])
    found = as_set(expected.centre.tolist(), expected.other.tolist(), expected.vectors)
    assert np.allclose(rows, found, atol=1e-7)


@pytest.mark.parametrize("n_atoms", [6, MANY])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_replica_that_is_not_finite_has_no_pairs(n_atoms, periodic, value):
    positions = torch.tensor(np.random.default_rng(2).uniform(0, 5, (3, n_atoms, 3)))
    cell = 6.0 * torch.eye(3, dtype=torch.float64) if periodic else None
    sound = find_pairs(positions, 3.0, cell)
    positions[1, 2, 0] = value
    pairs = find_pairs(positions, 3.0, cell)
    kept = sound.centre // n_atoms != 1
    assert kept.any()
    assert torch.equal(pairs.centre, sound.centre[kept])
    assert torch.equal(pairs.vectors, sound.vectors[kept])


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ([6.0, 3.0, 0.0], "no volume"),
        ([0, 0, np.nan], "not finite"),
        ([0, 0, 1e7], "1e[+]07 Å is too long"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused(last, complaint):
    cell = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], last], dtype=torch.float64)
    with pytest.raises(ModelError, match=complaint):
        find_pairs(torch.zeros(1, 2, 3, dtype=torch.float64), 3.0, cell)
