"""Internal coordinates: found automatically, exact both ways, continuous in time."""

import itertools
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.choice import digest
from alloop.spacetime.coordinates.construction import build_zmatrix, smallest_singular_value
from alloop.spacetime.coordinates.graph import CovalentGraph
from alloop.spacetime.coordinates.internal import to_cartesian, to_internal
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.motion.orientation import centred, superpose
from alloop.spacetime.symmetry import find_operations

MALONALDEHYDE = Atoms(
    "C3O2H4",
    positions=[
        [0.0, 0.0, 0.0],
        [1.2, 0.7, 0.0],
        [-1.2, 0.7, 0.0],
        [1.25, 2.0, 0.0],
        [-1.25, 1.95, 0.0],
        [0.0, -1.1, 0.0],
        [2.1, 0.1, 0.0],
        [-2.1, 0.1, 0.0],
        [0.3, 2.4, 0.0],
    ],
)
WATER = molecule("H2O")
DIMER = WATER + Atoms(WATER.numbers, WATER.positions + np.array([2.9, 0.3, 0.2]))
MOLECULES = {
    "ethanol": molecule("CH3CH2OH"),
    "malonaldehyde": MALONALDEHYDE,
    "benzene": molecule("C6H6"),
    "water": WATER,
    "carbon dioxide": molecule("CO2"),
    "acetonitrile": molecule("CH3CN"),
    "ammonia": molecule("NH3"),
    "nitrogen": molecule("N2"),
    "methyl radical": molecule("CH3"),
    "water dimer": DIMER,
}


def shaken(atoms, n_frames=20, width=0.05, seed=0):
    noise = np.random.default_rng(seed).normal(size=(n_frames, len(atoms), 3))
    return atoms.positions + width * noise


def velocities_like(positions, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(positions.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MOLECULES)
def test_round_trip_is_exact_for_positions_and_velocities(name):
    atoms = MOLECULES[name]
    frames = shaken(atoms)
    zmatrix = build_zmatrix(atoms.numbers, frames)
    positions = torch.as_tensor(frames)
    velocities = velocities_like(positions)
    coordinates, rates = to_internal(zmatrix, positions, velocities)
    assert coordinates.shape[1] == max(3 * len(atoms) - 6, 1)
    body, moving = to_cartesian(zmatrix, coordinates, rates)
    weights = torch.ones(len(atoms), dtype=torch.float64)
    there, here = centred(weights, positions), centred(weights, body)
    rotation = superpose(weights, here, there)  # proper: a mirror image would not fit
    assert (here @ rotation.transpose(1, 2) - there).abs().max() < 1e-9
    again, rates_again = to_internal(zmatrix, body, moving)
    assert (again - coordinates).abs().max() < 1e-9
    assert (rates_again - rates).abs().max() < 1e-9


# torch.func itself still compiles its tables with the deprecated torch.jit.script.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["ethanol", "benzene", "water", "nitrogen"])
def test_rates_are_the_forward_mode_derivative_both_ways(name):
    atoms = MOLECULES[name]
    zmatrix = build_zmatrix(atoms.numbers, shaken(atoms))
    positions = torch.as_tensor(shaken(atoms, 3, seed=5))
    velocities = velocities_like(positions)
    still = torch.zeros_like(positions)
    coordinates, rates = to_internal(zmatrix, positions, velocities)
    _, tangent = torch.func.jvp(
        lambda x: to_internal(zmatrix, x, still)[0], (positions,), (velocities,)
    )
    assert (rates - tangent).abs().max() < 1e-12
    _, moving = to_cartesian(zmatrix, coordinates, rates)
    _, tangent = torch.func.jvp(
        lambda q: to_cartesian(zmatrix, q, torch.zeros_like(q))[0], (coordinates,), (rates,)
    )
    assert (moving - tangent).abs().max() < 1e-12


def test_values_are_those_of_ase():
    atoms = MOLECULES["ethanol"].copy()
    atoms.positions = shaken(atoms, 1)[0]
    zmatrix = build_zmatrix(atoms.numbers, atoms.positions[None])
    positions = torch.as_tensor(atoms.positions)
    values = to_internal(zmatrix, positions, torch.zeros_like(positions))[0].numpy()
    rows = zmatrix.rows
    bonds = [atoms.get_distance(*row[:2]) for row in rows[1:]]
    angles = [math.radians(atoms.get_angle(*row[:3])) for row in rows[2:]]
    dihedrals = [math.radians(atoms.get_dihedral(*row)) for row in rows[3:]]
    assert values[:15] == pytest.approx(bonds + angles, abs=1e-10)
    assert np.exp(1j * values[15:]) == pytest.approx(np.exp(1j * np.array(dihedrals)), abs=1e-10)


def test_a_straight_molecule_survives_and_begins_to_bend():
    atoms = MOLECULES["carbon dioxide"]
    zmatrix = build_zmatrix(atoms.numbers, atoms.positions[None])
    positions = torch.as_tensor(atoms.positions)
    axis = positions[1] - positions[2]
    across = torch.linalg.cross(axis, torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64))
    across = 0.01 * across / across.norm()
    velocities = torch.stack([-across, across, across])
    coordinates, rates = to_internal(zmatrix, positions, velocities)
    assert float(coordinates[2]) == pytest.approx(math.pi, abs=1e-7)
    bond = float(coordinates[0])
    assert float(rates[2]) == pytest.approx(-2 * 0.02 / bond, rel=1e-6)
    body, _ = to_cartesian(zmatrix, coordinates, rates)
    assert (torch.cdist(body, body) - torch.cdist(positions, positions)).abs().max() < 1e-9


def test_second_and_third_hydrogen_of_a_methyl_group_refer_to_the_first():
    atoms = MOLECULES["ethanol"]
    zmatrix = build_zmatrix(atoms.numbers, shaken(atoms))
    methyl = [row for row in zmatrix.rows if row[0] in (6, 7, 8)]
    first = methyl[0][0]
    assert first not in [row[3] for row in methyl[:1]]
    assert [row[3] for row in methyl[1:]] == [first, first]


def test_references_keep_away_from_straight_lines():
    atoms = MOLECULES["acetonitrile"]
    zmatrix = build_zmatrix(atoms.numbers, shaken(atoms))
    angles = [atoms.get_angle(*row[:3]) for row in zmatrix.rows[2:]]
    assert all(20 < angle < 160 for angle in angles)
    assert smallest_singular_value(zmatrix, shaken(atoms)) > 0.3


def test_of_several_definitions_the_best_conditioned_one_is_taken():
    atoms = MOLECULES["ethanol"]
    frames = shaken(atoms)
    rows = ((0,), (1, 0), (2, 1, 0), (3, 2, 1, 0), (4, 1, 0, 2), (5, 1, 0, 2), (6, 0, 1, 2))
    by_hand = ZMatrix((*rows, (7, 0, 1, 2), (8, 0, 1, 2)))
    found = build_zmatrix(atoms.numbers, frames)
    assert smallest_singular_value(found, frames) > smallest_singular_value(by_hand, frames)


def test_definition_depends_on_neither_orientation_nor_run():
    atoms = MOLECULES["ethanol"]
    frames = shaken(atoms)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    zmatrix = build_zmatrix(atoms.numbers, frames)
    assert zmatrix == build_zmatrix(atoms.numbers, frames @ turn + 1.0)
    again = build_zmatrix(atoms.numbers, frames)
    assert digest(zmatrix, atoms.numbers) == digest(again, atoms.numbers)
    assert digest(zmatrix, atoms.numbers) != digest(zmatrix, atoms.numbers[::-1])


@pytest.mark.parametrize(
    ("atoms", "frames", "match"),
    [
        (molecule("C2H2"), molecule("C2H2").positions[None], "straight line"),
        (Atoms("He"), np.zeros((1, 1, 3)), "single atom"),
        (WATER, np.full((1, 3, 3), np.nan), "not finite"),
    ],
)
def test_what_cannot_be_described_is_one_clear_error(atoms, frames, match):
    with pytest.raises(SpacetimeError, match=match) as caught:
        build_zmatrix(atoms.numbers, frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows",
    [
        ((0,),),
        ((0,), (1, 2), (2, 1, 0)),
        ((0,), (1, 0), (1, 0, 1)),
        ((0,), (1, 0), (2, 0, 0)),
        ((0,), (2, 0), (3, 0, 2)),
        ((0,), (1, 0), (2, 1)),
    ],
)
def test_a_wrong_zmatrix_is_refused(rows):
    with pytest.raises(SpacetimeError):
        ZMatrix(rows)


def test_a_turning_dihedral_becomes_continuous():
    zmatrix = ZMatrix(((0,), (1, 0), (2, 1, 0), (3, 2, 1, 0)))
    turned = torch.linspace(0.0, 5 * math.pi, 200, dtype=torch.float64)
    stiff = torch.tensor([1.4, 1.0, 1.0, 1.7, 1.8], dtype=torch.float64).expand(200, 5)
    positions, velocities = to_cartesian(
        zmatrix, torch.cat([stiff, turned[:, None]], dim=1), torch.zeros(200, 6).double()
    )
    wrapped, _ = to_internal(zmatrix, positions, velocities)
    followed = zmatrix.follow(positions, velocities)
    assert wrapped[:, 5].max() <= math.pi
    assert (followed[0][:, 5] - turned).abs().max() < 1e-9
    folded, _ = zmatrix.fold(followed, (followed[0][:, None], followed[1][:, None]))
    assert (folded[0] - wrapped).abs().max() < 1e-12


def test_a_triatomic_swings_through_the_straight_line():
    zmatrix = ZMatrix(((0,), (1, 0), (2, 0, 1)))
    time = torch.arange(0.0, 60.0, 0.5, dtype=torch.float64)
    bend = math.pi + 0.1 + 0.4 * torch.sin(0.2 * time)
    rate = 0.08 * torch.cos(0.2 * time)
    bonds = torch.full((len(time), 2), 1.2, dtype=torch.float64)
    motion = torch.cat([bonds, bend[:, None]], 1), torch.cat([0 * bonds, rate[:, None]], 1)
    positions, velocities = to_cartesian(zmatrix, *motion)
    folded, folded_rates = to_internal(zmatrix, positions, velocities)
    assert folded[:, 2].max() <= math.pi
    continuous, its_rates = zmatrix.follow(positions, velocities)
    side = 1.0 if folded[0, 2] > bend[0] - 1e-9 else -1.0  # it starts beyond the line: mirrored
    assert (side * (continuous[:, 2] - math.pi) - (bend - math.pi)).abs().max() < 1e-9
    assert (side * its_rates[:, 2] - rate).abs().max() < 1e-9
    ahead = continuous[1:, None] - continuous[:-1, None], its_rates[1:, None]
    starts, after = zmatrix.fold((continuous[:-1], its_rates[:-1]), ahead)
    assert (starts[0] - folded[:-1]).abs().max() < 1e-9
    assert (starts[1] - folded_rates[:-1]).abs().max() < 1e-9
    beyond = torch.where(continuous[:-1, 2] > math.pi, -1.0, 1.0)
    assert (after[0][:, 0, 2] - beyond * torch.diff(continuous[:, 2])).abs().max() < 1e-9
    assert (after[1][:, 0, 2] - beyond * its_rates[1:, 2]).abs().max() < 1e-9


def test_fragments_hang_on_their_nearest_neighbours():
    graph = CovalentGraph.of_frames(DIMER.numbers, DIMER.positions[None])
    between = np.argwhere(graph.bonds[:3, 3:])
    assert len(between) == 1
    i, j = between[0]
    gaps = np.linalg.norm(DIMER.positions[:3, None] - DIMER.positions[None, 3:], axis=-1)
    assert gaps[i, j] == gaps.min()


@pytest.mark.parametrize(
    ("atoms", "count"),
    [
        (MOLECULES["ethanol"], 6),  # 3 turns of the methyl group, each with a mirrored partner
        (MOLECULES["water"], 2),
        (MOLECULES["ammonia"], 6),
        (MOLECULES["methyl radical"], 12),  # planar: the mirror alone is a symmetry as well
        (Atoms("CHFClBr", positions=[[0, 0, 0], [0.6, 0.6, 0.6], [0.8, -0.8, -0.8],
                                     [-1, 1, -1], [-1.1, -1.1, 1.1]]), 1),
    ],
)  # fmt: skip
def test_symmetries_are_those_that_keep_handedness(atoms, count):
    frames = shaken(atoms, width=0.02)
    zmatrix = build_zmatrix(atoms.numbers, frames)
    operations = find_operations(zmatrix, atoms.numbers, frames)
    assert len(operations) == count
    assert operations[0].permutation == tuple(range(len(atoms)))
    assert not operations[0].mirror
    for operation in operations:
        assert (atoms.numbers[list(operation.permutation)] == atoms.numbers).all()
        moved = operation(torch.as_tensor(atoms.positions))
        original = torch.as_tensor(atoms.positions[list(operation.permutation)])
        assert torch.allclose(torch.cdist(moved, moved), torch.cdist(original, original))


def test_automorphisms_of_benzene():
    atoms = MOLECULES["benzene"]
    graph = CovalentGraph.of_frames(atoms.numbers, atoms.positions[None])
    found = list(graph.automorphisms())
    assert len(found) == 12
    for permutation, (i, j) in itertools.product(found, np.argwhere(graph.bonds)):
        assert graph.bonds[permutation[i], permutation[j]]
