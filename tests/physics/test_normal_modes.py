"""Normal modes against analytic springs, ASE's Vibrations and the counting of motions."""

import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_masses
from ase.vibrations import Vibrations
from tblite.ase import TBLite

from alloop.dynamics.normal_modes import normal_modes
from alloop.errors import DynamicsError
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference
from alloop.reference.optimise import hessian, optimise
from alloop.units import ACCELERATION, CM1_PER_RAD_FS, HBAR


def relaxed(name, charge=0, multiplicity=1, fmax=0.002):
    atoms = molecule(name)
    frame = Frame(atoms.numbers, atoms.positions, charge, multiplicity)
    reference = build_reference(MethodSpec("tblite"), frame.numbers, charge, multiplicity)
    minimum = optimise(reference, frame, fmax=fmax)
    return minimum, hessian(reference, minimum)


def spring_hessian(frame, constant):
    """Two atoms tied by ½ k (r - r0)² at r0."""
    axis = frame.positions[1] - frame.positions[0]
    axis = axis / np.linalg.norm(axis)
    return constant * np.kron([[1.0, -1.0], [-1.0, 1.0]], np.outer(axis, axis))


def test_a_diatomic_vibrates_with_its_reduced_mass():
    frame = Frame(np.array([1, 17]), np.array([[0.1, 0.2, 0.3], [0.9, 0.9, 0.7]]))
    constant = 32.2  # eV/Å², HCl: 516 N/m
    modes = normal_modes(frame, spring_hessian(frame, constant))

    hydrogen, chlorine = atomic_masses[[1, 17]]
    reduced = hydrogen * chlorine / (hydrogen + chlorine)
    expected = np.sqrt(constant * ACCELERATION / reduced)

    assert modes.frequencies == pytest.approx([expected], rel=1e-10)
    assert modes.wavenumbers == pytest.approx([2991.0], abs=5.0)  # HCl, harmonic, experiment
    assert modes.zero_point_energy == pytest.approx(HBAR * expected / 2)


@pytest.mark.parametrize(
    ("name", "charge", "multiplicity"),
    [("H2O", 0, 1), ("CH3CH2OH", 0, 1), ("NH3", 1, 2), ("CO2", 0, 1)],
)
def test_frequencies_agree_with_ases_vibrations(name, charge, multiplicity, tmp_path):
    minimum, second = relaxed(name, charge, multiplicity)
    modes = normal_modes(minimum, second)

    atoms = minimum.to_atoms()
    spin = 1.0 if multiplicity > 1 else None
    atoms.calc = TBLite(
        charge=charge, multiplicity=multiplicity, spin_polarization=spin, verbosity=0
    )
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.005)
    vibrations.run()
    theirs = vibrations.get_energies() * 8065.544  # cm⁻¹ per eV
    theirs = np.sort(theirs.real - theirs.imag)[-modes.n_modes :]

    # ASE leaves the rigid motions in: measured 2.1 cm⁻¹ at ethanol's OH torsion, else below 1.
    np.testing.assert_allclose(modes.wavenumbers, theirs, atol=4.0)


@pytest.mark.parametrize(
    ("name", "count"), [("H2", 1), ("CO2", 4), ("C2H2", 7), ("H2O", 3), ("CH4", 9)]
)
def test_linear_molecules_have_one_vibration_more(name, count):
    minimum, second = relaxed(name)
    modes = normal_modes(minimum, second)

    assert modes.n_modes == count
    assert (modes.wavenumbers > 300.0).all()
    assert modes.dropped.size == 0
    assert modes.rotates


def test_a_hair_off_the_axis_is_still_linear():
    minimum, second = relaxed("CO2")
    bent = minimum.positions.copy()
    bent[0, 0] += 0.01
    modes = normal_modes(Frame(minimum.numbers, bent), second)
    np.testing.assert_allclose(modes.wavenumbers[:2], modes.wavenumbers[0], rtol=1e-2)
    assert modes.n_modes == 4


def test_an_atom_has_no_vibrations():
    modes = normal_modes(Frame(np.array([18]), np.ones((1, 3))), np.zeros((3, 3)))
    assert modes.n_modes == 0
    assert modes.vectors.shape == (0, 1, 3)
    assert modes.zero_point_energy == 0.0


def test_a_crystal_does_not_rotate():
    cell = 6.0 * np.eye(3)
    frame = Frame(
        np.array([11, 17]),
        np.array([[0.0, 0, 0], [2.8, 0, 0]]),
        cell=cell,
        pbc=(True, True, True),
    )
    # Each direction a spring of its own: three optical modes of equal frequency.
    modes = normal_modes(frame, np.kron([[1.0, -1.0], [-1.0, 1.0]], np.eye(3)))
    assert modes.n_modes == 3
    assert not modes.rotates
    np.testing.assert_allclose(modes.frequencies, modes.frequencies[0], rtol=1e-10)


def test_modes_are_orthonormal_and_free_of_rigid_motion():
    minimum, second = relaxed("NH3", 1, 2)
    modes = normal_modes(minimum, second)
    flat = modes.vectors.reshape(modes.n_modes, -1)
    roots = np.sqrt(modes.masses)[:, None]

    np.testing.assert_allclose(flat @ flat.T, np.eye(modes.n_modes), atol=1e-12)
    np.testing.assert_allclose((modes.vectors * roots).sum(axis=1), 0.0, atol=1e-10)
    arms = minimum.positions - modes.masses @ minimum.positions / modes.masses.sum()
    turning = np.cross(arms, modes.vectors * roots).sum(axis=1)
    np.testing.assert_allclose(turning, 0.0, atol=1e-10)


def test_modes_turn_with_the_molecule_and_keep_their_frequencies():
    minimum, second = relaxed("H2O")
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3))).Q
    turn = np.kron(np.eye(3), rotation)
    turned = Frame(minimum.numbers, minimum.positions @ rotation.T + 5.0)

    modes = normal_modes(turned, turn @ second @ turn.T)

    np.testing.assert_allclose(
        modes.frequencies, normal_modes(minimum, second).frequencies, rtol=1e-9
    )


def test_a_saddle_point_has_one_imaginary_mode_and_it_is_reported():
    flat = Frame(
        np.array([7, 1, 1, 1]),
        np.array([[0, 0, 0], [1.0, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.866, 0]]),
    )
    reference = build_reference(MethodSpec("tblite"), flat.numbers, 0, 1)
    planar = optimise(reference, flat, fmax=0.002)  # symmetry holds it on the saddle

    modes = normal_modes(planar, hessian(reference, planar))

    assert (modes.frequencies < 0).sum() == 1
    assert -1200.0 < modes.wavenumbers[0] < -500.0  # inversion
    np.testing.assert_array_equal(modes.dropped, modes.wavenumbers[:1])
    assert modes.sampled.sum() == 5
    assert modes.zero_point_energy == pytest.approx(
        0.5 * HBAR * modes.wavenumbers[1:].sum() / CM1_PER_RAD_FS
    )


@pytest.mark.parametrize("bad", [np.zeros((6, 6)), np.full((9, 9), np.nan)])
def test_a_hessian_that_does_not_fit_is_refused(bad):
    water = molecule("H2O")
    with pytest.raises(DynamicsError, match=r"Hessian of H2O .* want \(9, 9\) finite"):
        normal_modes(Frame(water.numbers, water.positions), bad)
