"""Coordinates for what a Z-matrix cannot describe, those of GICnet, and which ones are chosen."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_masses
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from alloop.errors import SpacetimeError
from alloop.spacetime.coordinates.choice import choose, digest, restore
from alloop.spacetime.coordinates.construction import (
    build_zmatrix,
    find_zmatrix,
    smallest_singular_value,
)
from alloop.spacetime.coordinates.dummies import DummyZMatrix
from alloop.spacetime.coordinates.eckart import EckartFrame, build_eckart
from alloop.spacetime.coordinates.straight import StraightFrame, build_straight
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.learning.trajectories import InternalTrajectory
from alloop.spacetime.motion.axis import restored, transverse_inverse
from alloop.spacetime.motion.orientation import centred, momenta, superpose
from alloop.spacetime.symmetry import find_operations

NO_SCRIPT = "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # torch.func's own


def chain(symbols, *heights):
    return Atoms(symbols, positions=[[0.0, 0.0, z] for z in heights])


def planar(symbols, *points):
    return Atoms(symbols, positions=[[x, y, 0.0] for x, y in points])


def around(n, radius, start=0.0):
    turns = [math.radians(start + 60.0 * i) for i in range(n)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


ACETYLENE = molecule("C2H2")
CO2 = molecule("CO2")
RING = around(6, 1.40)
NAPHTHALENE = planar(
    "C10H8",
    (0, 0.7), (0, -0.7), (1.21, 1.4), (2.42, 0.7), (2.42, -0.7), (1.21, -1.4),
    (-1.21, 1.4), (-2.42, 0.7), (-2.42, -0.7), (-1.21, -1.4),
    (1.21, 2.48), (3.36, 1.24), (3.36, -1.24), (1.21, -2.48),
    (-1.21, 2.48), (-3.36, 1.24), (-3.36, -1.24), (-1.21, -2.48),
)  # fmt: skip
SALICYLIC_ACID = planar(
    "C6H4COOHOH", *RING, *around(6, 2.48)[2:], (2.88, 0.0), (3.48, 1.06), (3.55, -1.16),
    (4.49, -0.95), (1.38, 2.39), (2.33, 2.42),
)  # fmt: skip
TOLUENE = planar("C6H5C", *RING, *around(6, 2.48)[1:], (2.91, 0.0)) + Atoms(
    "H3", positions=[[3.3, 1.03, 0.0], [3.3, -0.51, 0.89], [3.3, -0.51, -0.89]]
)
STRAIGHT = {
    "acetylene": ACETYLENE,
    "carbon suboxide": chain("OCCCO", 0.0, 1.16, 2.44, 3.72, 4.88),
    "cyanoacetylene": chain("HCCCN", 0.0, 1.06, 2.27, 3.65, 4.81),
    "butadiynyl radical": chain("CCCCH", 0.0, 1.21, 2.59, 3.80, 4.86),
}
OTHERS = {
    "naphthalene": NAPHTHALENE,
    "salicylic acid": SALICYLIC_ACID,
    "toluene": TOLUENE,
    "propyne": molecule("C3H4_C3v"),
    "2-butyne": molecule("2-butyne"),
    "hydrogen cyanide": molecule("HCN"),
    "carbon dioxide": CO2,
    "hydrogen": molecule("H2"),
    "carbon dioxide dimer": CO2 + Atoms("CO2", positions=CO2.positions + np.array([3.2, 0.0, 1.2])),
    "ethanol": molecule("CH3CH2OH"),
    "methyl radical": molecule("CH3"),
}
EVERY = STRAIGHT | OTHERS


def shaken(atoms, n_frames=30, width=0.05, seed=0, turned=True):
    """Frames with random displacements, each seen from its own side."""
    rng = np.random.default_rng(seed)
    frames = atoms.positions + width * rng.normal(size=(n_frames, len(atoms), 3))
    if turned:
        turns, _ = np.linalg.qr(rng.normal(size=(n_frames, 3, 3)))
        frames = frames @ (turns * np.linalg.det(turns)[:, None, None]) + rng.normal(size=3)
    return frames


def motion_of(atoms, **options):
    positions = torch.as_tensor(shaken(atoms, **options))
    generator = torch.Generator().manual_seed(1)
    return positions, 0.02 * torch.randn(positions.shape, generator=generator).double()


def masses_of(atoms):
    return torch.tensor(atoms.get_masses())


def eckart(atoms, **options):
    return build_eckart(masses_of(atoms), torch.as_tensor(shaken(atoms, **options)))


def straight(atoms, **options):
    return build_straight(masses_of(atoms), torch.as_tensor(shaken(atoms, **options)))


def dummies(atoms):
    return DummyZMatrix(build_zmatrix(atoms.numbers, shaken(atoms)), masses_of(atoms))


def check_round_trip(coordinates, positions, velocities):
    """Positions to 1e-9 Å up to where the molecule stands; coordinates and rates as they were."""
    values, rates = coordinates.describe(positions, velocities)
    body, moving = coordinates.place(values, rates)
    equal = torch.ones(coordinates.n_atoms, dtype=torch.float64)
    there, here = centred(equal, positions), centred(equal, body)
    rotation = superpose(equal, here, there)
    assert (here @ rotation.transpose(1, 2) - there).abs().max() < 1e-9
    for mine, theirs in zip(coordinates.describe(body, moving), (values, rates), strict=True):
        assert (mine - theirs).abs().max() < 1e-9
    stretching = [
        torch.sum((x[:, None] - x[:, :, None]) * (v[:, None] - v[:, :, None]), dim=-1)
        for x, v in ((positions, velocities), (body, moving))
    ]
    assert (stretching[0] - stretching[1]).abs().max() < 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_what_is_chosen_leads_there_and_back(name):
    atoms = EVERY[name]
    frames = shaken(atoms)
    chosen = choose(atoms.numbers, atoms.get_masses(), frames)
    assert isinstance(chosen, StraightFrame if name in STRAIGHT else ZMatrix)
    check_round_trip(chosen, *motion_of(atoms, seed=3))
    again = restore(chosen.definition())
    assert digest(again, atoms.numbers) == digest(chosen, atoms.numbers)
    same = zip(*(c.describe(*motion_of(atoms)) for c in (chosen, again)), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    "name",
    ["aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "paracetamol", "uracil"],
)
def test_molecules_of_the_paper_lead_there_and_back(name, data_folder):
    file = data_folder / "rmd17" / f"rmd17_{name}_train_01.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    with np.load(file) as content:
        numbers, frames = content["nuclear_charges"], content["coords"][::20].astype(np.float64)
    masses = atomic_masses[numbers]
    chosen = choose(numbers, masses, frames)
    assert isinstance(chosen, ZMatrix)
    assert smallest_singular_value(chosen, frames) > 0.05  # measured 0.11 to 0.44
    positions = torch.as_tensor(frames)
    velocities = torch.randn(positions.shape, generator=torch.Generator().manual_seed(1)).double()
    check_round_trip(chosen, positions, velocities)
    weights = torch.tensor(masses)
    check_round_trip(build_eckart(weights, positions), positions, velocities)
    absolute = DummyZMatrix(chosen, weights)
    placed = absolute.place(*absolute.describe(positions, velocities))
    for part, given in zip(placed, (positions, velocities), strict=True):
        assert (part - centred(weights, given)).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["propyne", "naphthalene", "ethanol", "carbon dioxide dimer"])
def test_an_eckart_frame_leads_there_and_back(name):
    coordinates = eckart(EVERY[name])
    assert coordinates.n_coordinates == 3 * len(EVERY[name]) - 6
    check_round_trip(coordinates, *motion_of(EVERY[name], seed=4))


@pytest.mark.parametrize("build", [eckart, straight])
def test_displacements_neither_move_nor_turn_the_reference(build):
    """Eckart's conditions, sum m d = 0 and sum m x_ref × d = 0, with any coordinates."""
    atoms = EVERY["ethanol" if build is eckart else "cyanoacetylene"]
    coordinates, masses = build(atoms), masses_of(atoms)[:, None]
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(5, coordinates.n_coordinates, generator=generator).double()
    reference, _ = coordinates.place(0 * values, 0 * values)
    positions, velocities = coordinates.place(values, values)
    for part in (positions - reference, velocities):
        assert (masses * part).sum(-2).abs().max() < 1e-12
        assert (masses * torch.linalg.cross(reference, part)).sum(-2).abs().max() < 1e-12
    # Mass-weighted, in units of the mean mass, the coordinates are a metric.
    squares = (masses / masses.mean() * velocities.square()).sum((-1, -2))
    assert torch.allclose(squares, values.square().sum(-1))


@pytest.mark.filterwarnings(NO_SCRIPT)
@pytest.mark.parametrize("name", ["propyne", "acetylene", "ethanol with dummies"])
def test_rates_are_the_forward_mode_derivative_both_ways(name):
    atoms = EVERY[name.split()[0]]
    build = {"propyne": eckart, "acetylene": straight}.get(name, dummies)
    coordinates = build(atoms)
    positions, velocities = motion_of(atoms, n_frames=4, seed=5)

    def describe(x):
        return coordinates.describe(x, velocities)[0]

    if build is straight:  # of one view: a description's own turns with what is longest
        time = 1e-4
        ahead, behind = (positions + s * time * velocities for s in (1, -1))
        for x0, v, x1, x2 in zip(behind, velocities, positions, ahead, strict=True):
            values, rates = coordinates.follow(torch.stack([x0, x1, x2]), v.expand(3, -1, -1))
            assert ((values[2] - values[0]) / (2 * time) - rates[1]).abs().max() < 1e-8
    else:
        _, tangent = torch.func.jvp(describe, (positions,), (velocities,))
        _, rates = coordinates.describe(positions, velocities)
        assert (rates - tangent).abs().max() < 1e-12
    values, rates = coordinates.describe(positions, velocities)
    _, moving = coordinates.place(values, rates)
    still = torch.zeros_like(values)
    _, tangent = torch.func.jvp(lambda q: coordinates.place(q, still)[0], (values,), (rates,))
    assert (moving - tangent).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["propyne", "acetylene"])
def test_descriptions_do_not_depend_on_where_the_molecule_is(name):
    atoms = EVERY[name]
    coordinates = choose(atoms.numbers, atoms.get_masses(), shaken(atoms))
    if name == "propyne":
        coordinates = eckart(atoms)
    positions, velocities = motion_of(atoms)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))
    turn = (turn * torch.linalg.det(turn)).double()
    turn, _ = torch.linalg.qr(turn)
    turn = turn * torch.linalg.det(turn)
    here = coordinates.describe(positions, velocities)
    there = coordinates.describe(positions @ turn + 3.0, velocities @ turn - 0.1)
    for mine, theirs in zip(here, there, strict=True):
        assert (mine - theirs).abs().max() < 1e-12


def bending(n_frames=400, spin=0.0):
    """Acetylene whose bends go around at their own frequencies while its axis swings in space."""
    coordinates = straight(ACETYLENE, width=0.03)
    time = 0.5 * torch.arange(n_frames, dtype=torch.float64)[:, None]
    rng = np.random.default_rng(0)
    width, frequency, phase = (
        torch.as_tensor(rng.uniform(low, high, size=7))
        for low, high in ((0.02, 0.1), (0.1, 0.6), (0.0, 6.0))
    )
    motion = width * torch.sin(frequency * time + phase)
    rates = width * frequency * torch.cos(frequency * time + phase)
    body, moving = coordinates.place(motion, rates)
    swirl = spin * torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    skew = torch.linalg.cross(swirl.expand(3, 3), torch.eye(3, dtype=torch.float64)).T
    turn = torch.linalg.matrix_exp(time[:, :, None] * skew)
    moving = moving + torch.linalg.cross(swirl.expand_as(body), body)
    return coordinates, (motion, rates), (body @ turn.mT, moving @ turn.mT)


@pytest.mark.parametrize("spin", [0.0, 0.02])
def test_a_trajectory_of_a_straight_molecule_is_seen_from_one_view(spin):
    """An axis that turns about a normal of it carries its view along as a rigid body would."""
    coordinates, (motion, rates), (positions, velocities) = bending(spin=spin)
    values, their_rates = coordinates.follow(positions, velocities)
    ours = torch.complex(values[0, 3:5], values[0, 5:7])
    true = torch.complex(motion[0, 3:5], motion[0, 5:7])
    view = (true / ours)[0]  # the first frame's is free
    for mine, given in ((values, motion), (their_rates, rates)):
        assert (mine[:, :3] - given[:, :3]).abs().max() < 1e-12
        turned = torch.complex(mine[:, 3:5], mine[:, 5:7]) * view
        assert (turned - torch.complex(given[:, 3:5], given[:, 5:7])).abs().max() < 1e-10


@pytest.mark.parametrize("backward", [False, True])
def test_windows_of_a_straight_molecule_start_as_descriptions_do(backward):
    coordinates, _, (positions, velocities) = bending(spin=0.01)
    trajectory = InternalTrajectory.of(coordinates, positions, velocities)
    starts = torch.arange(60, 300, 7)
    windows = trajectory.cut(starts, 40, backward=backward)
    sign = -1 if backward else 1
    described = coordinates.describe(positions[starts], sign * velocities[starts])
    assert (windows.starts - described[0]).abs().max() < 1e-10
    assert (windows.rates - described[1]).abs().max() < 1e-10
    # Motion from there on leads to the geometries of the trajectory.
    later = windows.starts[:, None] + windows.displacements
    placed, _ = coordinates.place(later, windows.later_rates)
    for step in (1, 40):
        wanted = positions[starts + sign * step]
        assert torch.allclose(torch.cdist(placed[:, step - 1], placed[:, step - 1]),
                              torch.cdist(wanted, wanted), atol=1e-9)  # fmt: skip
    ahead = windows.displacements[:, 0] - 0.5 * windows.rates
    assert ahead.abs().max() < 0.01  # a wrong view would make jumps of 0.1 Å


def test_a_molecule_exactly_straight_is_described():
    coordinates = straight(ACETYLENE)
    positions = torch.as_tensor(ACETYLENE.positions)[None]
    values, rates = coordinates.describe(positions, torch.zeros_like(positions))
    assert values[:, 3:].abs().max() < 1e-12
    across = torch.tensor([[[0.01, 0.0, 0.0], [0, 0, 0], [0, 0, 0], [0.0, -0.01, 0.0]]])
    _, rates = coordinates.describe(positions, across.double())
    assert rates[:, 3:].abs().max() > 0.001
    followed = coordinates.follow(positions.expand(3, -1, -1), 0 * positions)
    assert torch.isfinite(followed[0]).all()
    still = torch.zeros_like(values)
    _, (moved, _) = coordinates.fold((still, still), (still[:, None] + 1.0, still[:, None]))
    assert (moved == 1.0).all()


def test_the_largest_motion_comes_first():
    """The basis follows the data: hydrogens that wag one way make one large coordinate."""
    frames = np.repeat(OTHERS["ethanol"].positions[None], 40, axis=0)
    frames = frames + 0.01 * np.random.default_rng(1).normal(size=frames.shape)
    frames[:, 3, 2] += np.linspace(-0.3, 0.3, 40)
    coordinates = build_eckart(masses_of(OTHERS["ethanol"]), torch.as_tensor(frames))
    values, _ = coordinates.describe(torch.as_tensor(frames), torch.zeros(frames.shape).double())
    spread = values.std(dim=0)
    assert (spread[:-1] >= spread[1:] - 1e-12).all()
    assert spread[0] > 3 * spread[1]  # measured 4.0


@pytest.mark.parametrize("build", [eckart, straight])
def test_the_reference_is_the_mean_of_the_frames_laid_on_it(build):
    atoms = EVERY["ethanol" if build is eckart else "cyanoacetylene"]
    frames = torch.as_tensor(shaken(atoms, width=0.1))
    coordinates = build(atoms, width=0.1)
    values, _ = coordinates.follow(frames, torch.zeros_like(frames))
    n_compared = coordinates.n_coordinates if build is eckart else len(atoms) - 1
    assert values[:, :n_compared].mean(dim=0).abs().max() < 1e-8


def test_frames_bent_both_ways_do_not_make_a_bent_reference():
    frames = torch.as_tensor(shaken(ACETYLENE, 100, width=0.06))
    bent, along = (build(masses_of(ACETYLENE), frames) for build in (build_eckart, build_straight))
    assert bent.overlap(frames) < 0.5
    assert along.overlap(frames) > 0.8  # measured 0.89
    single = torch.as_tensor(ACETYLENE.positions)[None]
    assert build_eckart(masses_of(ACETYLENE), single).overlap(single) == 0.0


def test_overlap_is_one_at_the_reference_and_falls_with_distance():
    propyne = OTHERS["propyne"]
    one = torch.as_tensor(propyne.positions)[None]
    coordinates = build_eckart(masses_of(propyne), one)
    assert coordinates.overlap(one) == pytest.approx(1.0)
    turned = propyne.copy()
    methyl = [i for i in range(7) if propyne.numbers[i] == 1 and propyne.get_distances(
        i, [j for j in range(7) if propyne.numbers[j] == 6]).min() < 1.2]  # fmt: skip
    turned.positions[methyl[-1]] += [0.4, 0.4, 0.0]
    assert coordinates.overlap(torch.as_tensor(turned.positions)[None]) < 0.999


@pytest.mark.parametrize(
    ("atoms", "build", "count"),
    [
        (ACETYLENE, straight, 4),  # end for end, each with its mirror image
        (STRAIGHT["cyanoacetylene"], straight, 2),
        (molecule("NH3"), eckart, 6),
        (molecule("CH3"), eckart, 12),
        (Atoms("CHFClBr", positions=[[0, 0, 0], [0.6, 0.6, 0.6], [0.8, -0.8, -0.8],
                                     [-1, 1, -1], [-1.1, -1.1, 1.1]]), eckart, 1),
        (molecule("CH3CH2OH"), dummies, 6),
    ],
)  # fmt: skip
def test_symmetries_are_those_under_which_frames_still_fit(atoms, build, count):
    frames = shaken(atoms, width=0.02)
    options = {} if build is dummies else {"width": 0.02}
    operations = find_operations(build(atoms, **options), atoms.numbers, frames)
    assert len(operations) == count
    assert operations[0].permutation == tuple(range(len(atoms)))


def test_a_water_dimer_keeps_a_sound_zmatrix_while_it_moves():
    """GFN2-xTB dynamics; fragments hang on their nearest atoms. Measured 0.58 over 1.5 ps."""
    from tblite.ase import TBLite

    water = molecule("H2O")
    dimer = water + Atoms(water.numbers, water.positions + np.array([2.9, 0.3, 0.2]))
    dimer.calc = TBLite(method="GFN2-xTB", verbosity=0)
    spread = np.sqrt(0.05 / dimer.get_masses())[:, None]
    dimer.set_velocities(spread * np.random.default_rng(1).normal(size=(6, 3)))
    Stationary(dimer)
    ZeroRotation(dimer)
    frames = []
    dynamics = VelocityVerlet(dimer, 1.0 * fs)
    dynamics.attach(lambda: frames.append(dimer.positions.copy()), interval=4)
    dynamics.run(300)
    chosen = choose(dimer.numbers, dimer.get_masses(), np.array(frames[::2]))
    assert isinstance(chosen, ZMatrix)
    assert smallest_singular_value(chosen, np.array(frames)) > 0.2
    positions = torch.as_tensor(np.array(frames))
    check_round_trip(chosen, positions, 0.01 * positions.sin())


def leaving(n_frames=60):
    """Two carbon dioxides that part; one of them turns around end for end twice."""
    angle = np.linspace(0.0, 4 * np.pi, n_frames)
    axis = np.stack([np.zeros(n_frames), np.sin(angle), np.cos(angle)], axis=-1)
    second = np.stack([0 * axis, 1.17 * axis, -1.17 * axis], axis=1)
    second[:, :, 1] += np.linspace(3.0, 6.0, n_frames)[:, None]
    first = np.broadcast_to(CO2.positions, second.shape)
    return np.concatenate([first, second], axis=1)


def test_fragments_that_turn_freely_are_described_though_they_line_up():
    frames = leaving()
    numbers = np.tile(CO2.numbers, 2)
    chosen = choose(numbers, atomic_masses[numbers], frames)
    positions = torch.as_tensor(frames)
    check_round_trip(chosen, positions, 0.01 * positions.sin())


def test_a_zmatrix_that_nearly_loses_a_coordinate_is_not_taken(monkeypatch):
    atoms = OTHERS["propyne"]
    frames = shaken(atoms)
    bound = smallest_singular_value(find_zmatrix(atoms.numbers, frames), frames)
    for least, kind in ((bound - 1e-6, ZMatrix), (bound + 1e-6, EckartFrame)):
        monkeypatch.setattr("alloop.spacetime.coordinates.choice.LEAST_SINGULAR_VALUE", least)
        assert isinstance(choose(atoms.numbers, atoms.get_masses(), frames), kind)


@pytest.mark.parametrize("name", ["ethanol", "hydrogen cyanide", "hydrogen", "naphthalene"])
def test_dummies_tell_how_a_molecule_stands(name):
    """No superposition: positions in space, but for the centre of mass."""
    atoms = EVERY[name]
    coordinates = dummies(atoms)
    positions, velocities = motion_of(atoms, seed=6)
    described = coordinates.describe(positions, velocities)
    assert described[0].shape[1] == 3 * len(atoms)
    assert [span.stop - span.start for span in coordinates.kinds.values()] == [len(atoms)] * 3
    placed = coordinates.place(*described)
    for part, given in zip(placed, (positions, velocities), strict=True):
        assert (part - centred(coordinates.masses, given)).abs().max() < 1e-9
    assert coordinates.oriented
    restored_ = restore(coordinates.definition())
    assert torch.equal(restored_.describe(positions, velocities)[0], described[0])


def test_dummies_are_at_the_unit_vectors_as_in_the_paper():
    """Rows `1 0 -1 -2`, `2 1 0 -1`, `3 2 1 0` of the original, 0, -1, -2 being x, y and z."""
    rows = ((0,), (1, 0), (2, 1, 0), (3, 2, 1, 0))
    coordinates = DummyZMatrix(ZMatrix(rows), torch.ones(4, dtype=torch.float64))
    frame = torch.tensor([[0.1, 0.2, 0.3], [1.2, 0.1, 0.5], [1.5, 1.4, 0.2], [-2.8, -1.7, -1.0]])
    frame = centred(coordinates.masses, frame.double())
    values, _ = coordinates.describe(frame, torch.zeros_like(frame))
    atoms = Atoms("X7", positions=np.concatenate([frame.numpy(), np.eye(3)]))
    full = ((0, 4, 5, 6), (1, 0, 4, 5), (2, 1, 0, 4), (3, 2, 1, 0))
    wanted = [atoms.get_distance(*row[:2]) for row in full]
    wanted += [math.radians(atoms.get_angle(*row[:3])) for row in full]
    assert values[:8].numpy() == pytest.approx(wanted, abs=1e-9)
    torsions = np.radians([atoms.get_dihedral(*row) for row in full])
    assert np.exp(1j * values[8:].numpy()) == pytest.approx(np.exp(1j * torsions), abs=1e-9)


def test_dihedrals_with_dummies_are_followed_through_full_turns():
    atoms = OTHERS["ethanol"]
    coordinates = dummies(atoms)
    angle = torch.linspace(0.0, 12.0, 200, dtype=torch.float64)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).view(-1, 3, 3)
    positions = torch.as_tensor(atoms.positions) @ turn.mT
    values, _ = coordinates.follow(positions, torch.zeros_like(positions))
    dihedrals = values[:, coordinates.angular]
    assert torch.diff(dihedrals, dim=0).abs().max() < math.pi
    assert dihedrals.abs().max() > math.pi
    folded, _ = coordinates.fold((values, values), (values[:, None], values[:, None]))
    described, _ = coordinates.describe(positions, torch.zeros_like(positions))
    turns = (folded[0] - described)[:, coordinates.angular]
    assert (torch.cos(turns) - 1).abs().max() < 1e-12
    assert folded[0][:, coordinates.angular].abs().max() < math.pi + 1e-9
    assert torch.equal(folded[0][:, :18], described[:, :18])


def test_a_motion_is_restored_to_its_angular_momentum_by_the_least_change():
    masses = masses_of(ACETYLENE)
    generator = torch.Generator().manual_seed(7)
    positions = centred(masses, torch.as_tensor(shaken(ACETYLENE, 50, turned=False)))
    velocities = 0.01 * torch.randn(positions.shape, generator=generator).double()
    velocities = centred(masses, velocities)
    _, before = momenta(masses, positions, velocities)
    total = before + 0.02 * torch.randn(50, 3, generator=generator).double()
    x, v = restored(masses, positions, velocities, total)
    momentum, after = momenta(masses, x, v)
    assert (after - total).abs().max() < 1e-13
    assert momentum.abs().max() < 1e-13
    # By velocities alone, as of a rigid body, it would take more where the molecule is straight.
    turning = torch.linalg.pinv(_inertia(masses, positions)) @ (total - before).unsqueeze(-1)
    swirl = torch.linalg.cross(turning.mT.expand_as(positions), positions)
    change = (masses[:, None] * ((x - positions) ** 2 / 100 + (v - velocities) ** 2)).sum((-1, -2))
    rigid = (masses[:, None] * swirl**2).sum((-1, -2))
    assert (change < 1.01 * rigid).all()
    assert (change < 0.5 * rigid).any()
    same = restored(masses, positions, velocities, before)
    assert (same[0] - positions).abs().max() < 1e-15


def _inertia(masses, positions):
    products = (masses[:, None] * positions).mT @ positions
    trace = products.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return trace * torch.eye(3).double() - products


def test_what_lies_on_one_line_cannot_be_restored_and_stays():
    masses = masses_of(ACETYLENE)
    positions = torch.as_tensor(ACETYLENE.positions)[None]
    total = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    x, v = restored(masses, positions, 0.01 * positions, total)
    assert torch.equal(x, positions)
    assert torch.equal(v, 0.01 * positions)


def test_spins_across_the_axis_leave_the_axis_alone():
    masses = masses_of(ACETYLENE)
    positions = torch.as_tensor(shaken(ACETYLENE, 20, turned=False))
    inverse = transverse_inverse((masses[:, None] * positions).mT @ positions)
    product = inverse @ _inertia(masses, positions)
    assert (product[:, :2, :2] - torch.eye(2)).abs().max() < 1e-12
    assert inverse[:, 2].abs().max() == inverse[:, :, 2].abs().max() == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"reference": torch.zeros(4, dtype=torch.float64)},
        {"reference": torch.zeros(4, 3, dtype=torch.float64) + math.nan},
        {"basis": torch.zeros(6, 12, dtype=torch.float64)},
        {"basis": torch.eye(12, dtype=torch.float64)[:6]},
        {"basis": torch.eye(12, dtype=torch.float64)[:5]},
    ],
)
def test_a_wrong_eckart_frame_is_refused(change):
    good = eckart(molecule("NH3"))
    parts = {"masses": good.masses, "reference": good.reference, "basis": good.basis} | change
    with pytest.raises(SpacetimeError, match="Eckart frame") as caught:
        EckartFrame(**parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "part"),
    [("stretches", torch.eye(4)[:3]), ("bends", torch.eye(4)[:2]), ("bends", torch.eye(4)[:3])],
)
def test_a_wrong_straight_frame_is_refused(name, part):
    definition = dict(straight(ACETYLENE).definition())
    with pytest.raises(SpacetimeError, match="Eckart frame"):
        restore(definition | {name: part.tolist()})


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SpacetimeError, match="masses"):
        DummyZMatrix(ZMatrix(((0,), (1, 0))), torch.ones(3, dtype=torch.float64))
    with pytest.raises(SpacetimeError, match="'polar'"):
        restore({"kind": "polar"})
    for atoms, frames, match in (
        (Atoms("He"), np.zeros((1, 1, 3)), "single atom"),
        (ACETYLENE, np.full((1, 4, 3), np.nan), "not finite"),
    ):
        with pytest.raises(SpacetimeError, match=match):
            choose(atoms.numbers, atoms.get_masses(), frames)
