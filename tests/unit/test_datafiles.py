"""Labelled files of others: every trap that real ones hold, on small ones made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alloop.datafiles import Convention, read_dataset
from alloop.datasources import Keys
from alloop.errors import DataError
from alloop.units import ENERGY_UNITS, LENGTH_UNITS

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
NUMBERS = np.array([8, 1, 1])
INSIDE = Convention("eV", "Å", "test")
XYZ = Keys("REF_energy", "REF_forces")
ARRAYS = Keys("E", "F", "R", "Z")
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def waters(n: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, energies and forces of n frames, no two alike."""
    rng = np.random.default_rng(7)
    return (
        WATER + 0.02 * rng.normal(size=(n, 3, 3)),
        -10.0 + rng.normal(size=n),
        rng.normal(size=(n, 3, 3)),
    )


def write_npz(path: Path, **arrays: object) -> Path:
    positions, energies, forces = waters()
    np.savez(path, **({"R": positions, "E": energies, "F": forces, "Z": NUMBERS} | arrays))
    return path


def write_xyz(path: Path, images: list[Atoms]) -> Path:
    ase.io.write(path, images, format="extxyz")
    return path


def labelled(n: int = 4, **atoms: object) -> list[Atoms]:
    """Return frames whose labels are called REF_energy and REF_forces."""
    images = []
    for position, energy, force in zip(*waters(n), strict=True):
        image = Atoms(NUMBERS, position, info={"REF_energy": energy}, **atoms)
        image.arrays["REF_forces"] = force
        images.append(image)
    return images


def test_extended_xyz(tmp_path):
    positions, energies, forces = waters()

    data = read_dataset(write_xyz(tmp_path / "a.xyz", labelled()), XYZ, INSIDE).data

    assert np.allclose([f.positions for f in data.frames], positions, atol=1e-7)
    assert np.allclose(data.energies, energies, atol=1e-7)
    assert np.allclose(data.forces, forces, atol=1e-7)
    assert data.level_of_theory == "test"
    assert set(data.systems) == {"H2O"}
    assert len(set(data.groups)) == 4


def test_arrays_of_one_composition(tmp_path):
    positions, energies, forces = waters()

    data = read_dataset(write_npz(tmp_path / "a.npz"), ARRAYS, INSIDE).data

    assert np.array_equal([f.positions for f in data.frames], positions)
    assert np.array_equal(data.energies, energies)
    assert np.array_equal(data.forces, forces)
    assert data.frames[0].numbers.tolist() == [8, 1, 1]


def test_padded_atoms_are_not_there(tmp_path):
    """As in the H2-combustion set: atoms of number 0 stand at the origin, energies are (n, 1)."""
    positions, energies, forces = waters()
    pad = np.zeros((4, 2, 3))
    path = write_npz(
        tmp_path / "a.npz",
        R=np.concatenate([positions, pad], 1),
        F=np.concatenate([forces, pad], 1),
        E=energies[:, None],
        Z=np.array([[8, 1, 1, 0, 0]] * 3 + [[8, 1, 0, 0, 0]]),
    )

    data = read_dataset(path, ARRAYS, INSIDE).data

    assert [frame.n_atoms for frame in data.frames] == [3, 3, 3, 2]
    assert np.array_equal(data.forces[3], forces[3, :2])
    assert data.systems[3] == "HO"
    assert np.array_equal(data.energies, energies)


@pytest.mark.parametrize("energy", ENERGY_UNITS)
@pytest.mark.parametrize("length", LENGTH_UNITS)
def test_units(tmp_path, energy, length):
    """Work is force times way in every unit."""
    ev, angstrom = ENERGY_UNITS[energy], LENGTH_UNITS[length]
    positions, energies, forces = waters()
    path = write_npz(
        tmp_path / "a.npz",
        R=positions / angstrom,
        E=energies / ev,
        F=forces / ev * angstrom,
        cell=10.0 * np.eye(3) / angstrom,
    )

    data = read_dataset(path, replace(ARRAYS, cell="cell"), Convention(energy, length, "x")).data

    assert np.allclose(data.frames[0].positions, positions[0])
    assert np.allclose(data.frames[0].cell, 10.0 * np.eye(3))
    assert np.allclose(data.energies, energies)
    assert np.allclose(data.forces, forces)


@pytest.mark.parametrize("unit", ["ev", "kcal", "hartree", ""])
def test_a_unit_is_never_guessed(unit):
    with pytest.raises(DataError, match=r"energy unit is .* want one of eV"):
        Convention(unit, "Å", "x")
    with pytest.raises(DataError, match="length unit"):
        Convention("eV", unit, "x")


def test_the_level_of_theory_has_a_name():
    with pytest.raises(DataError, match="level of theory"):
        Convention("eV", "Å", " ")


def test_odd_units_are_noticed(tmp_path):
    path = write_npz(tmp_path / "a.npz")

    assert "bohr" not in "".join(read_dataset(path, ARRAYS, INSIDE).notes)
    as_bohr = read_dataset(path, ARRAYS, Convention("eV", "bohr", "x")).notes
    assert any("right unit of length" in note for note in as_bohr)
    as_hartree = read_dataset(path, ARRAYS, Convention("Ha", "Å", "x")).notes
    assert any("right unit of energy" in note for note in as_hartree)


def test_what_is_meant_is_taken_not_what_is_called_energy(tmp_path):
    """``energy`` may be a model's prediction beside the label."""
    images = labelled()
    for image in images:
        calculator = SinglePointCalculator(image, energy=1.0, forces=np.full((3, 3), 2.0))
        image.calc = calculator
    path = write_xyz(tmp_path / "a.xyz", images)

    assert np.allclose(read_dataset(path, XYZ, INSIDE).data.energies, waters()[1], atol=1e-7)
    calculated = read_dataset(path, Keys("energy", "forces"), INSIDE).data
    assert calculated.energies.tolist() == [1.0] * 4
    assert np.array_equal(calculated.forces, np.full((4, 3, 3), 2.0))


@pytest.mark.parametrize("keys", [Keys(), Keys("energy", "forces"), Keys("REF_energy", "force")])
def test_a_name_that_is_missing_or_wrong_lists_those_that_are_there(tmp_path, keys):
    path = write_xyz(tmp_path / "a.xyz", labelled())

    with pytest.raises(DataError) as caught:
        read_dataset(path, keys, INSIDE)

    text = str(caught.value)
    assert "REF_energy" in text
    assert "REF_forces" in text
    assert "\n" not in text


@pytest.mark.parametrize("lost", ["energy", "forces", "positions", "numbers"])
def test_arrays_must_be_named(tmp_path, lost):
    path = write_npz(tmp_path / "a.npz")

    with pytest.raises(DataError, match=rf"no name is given for the {lost}; it holds R, E, F, Z"):
        read_dataset(path, replace(ARRAYS, **{lost: None}), INSIDE)
    with pytest.raises(DataError, match=r"has no 'other'; it holds R, E, F, Z"):
        read_dataset(path, replace(ARRAYS, **{lost: "other"}), INSIDE)


def test_names_that_a_format_has_no_use_for_are_refused(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", labelled())

    with pytest.raises(DataError, match="have their own place"):
        read_dataset(path, replace(XYZ, positions="pos"), INSIDE)


def test_labels_on_some_frames_only(tmp_path):
    images = labelled()
    del images[1].info["REF_energy"]
    del images[3].arrays["REF_forces"]
    path = write_xyz(tmp_path / "a.xyz", images)

    with pytest.raises(DataError, match=r"1 of 4 frames \(1\): no energy; .*\(3\): no forces"):
        read_dataset(path, XYZ, INSIDE)
    reading = read_dataset(path, XYZ, replace(INSIDE, drop_bad=True))
    assert len(reading.data) == 2
    assert "left out: 1 of 4 frames (1)" in reading.notes[0]


@pytest.mark.parametrize("what", ["E", "F", "R"])
def test_numbers_that_are_none(tmp_path, what):
    values = dict(zip("REF", waters(), strict=True))[what].copy()
    values[2] = np.nan
    path = write_npz(tmp_path / "a.npz", **{what: values})

    with pytest.raises(DataError, match=r"1 of 4 frames \(2\): .* not finite"):
        read_dataset(path, ARRAYS, INSIDE)
    kept = read_dataset(path, ARRAYS, replace(INSIDE, drop_bad=True)).data
    assert np.array_equal(kept.energies, np.delete(waters()[1], 2))


def test_no_frame_is_left(tmp_path):
    path = write_npz(tmp_path / "a.npz", E=np.full(4, np.nan))

    with pytest.raises(DataError, match="4 of 4 frames"):
        read_dataset(path, ARRAYS, replace(INSIDE, drop_bad=True))


@pytest.mark.parametrize("what", ["E", "F"])
def test_zeros_are_no_labels(tmp_path, what):
    shape = dict(zip("REF", waters(), strict=True))[what].shape

    with pytest.raises(DataError, match="is 0: these are no labels"):
        read_dataset(write_npz(tmp_path / "a.npz", **{what: np.zeros(shape)}), ARRAYS, INSIDE)


def test_atoms_on_one_another(tmp_path):
    positions = waters()[0]
    positions[1, 2] = positions[1, 1] + 1e-3

    with pytest.raises(DataError, match=r"1 of 4 frames \(1\): atoms lie on one another"):
        read_dataset(write_npz(tmp_path / "a.npz", R=positions), ARRAYS, INSIDE)


@pytest.mark.parametrize("number", [-1, 119])
def test_numbers_of_no_element(tmp_path, number):
    path = write_npz(tmp_path / "a.npz", Z=np.array([8, 1, number]))

    with pytest.raises(DataError, match="outside 1 to 118"):
        read_dataset(path, ARRAYS, INSIDE)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"E": np.ones(3)}, "3 energies for 4 frames"),
        ({"E": np.ones(1)}, "1 energies for 4 frames"),
        ({"F": np.ones((4, 2, 3))}, "forces 'F' have shape"),
        ({"R": np.ones((4, 9))}, "positions 'R' have shape"),
        ({"Z": np.array([8, 1])}, "atomic numbers 'Z' have shape"),
        ({"Z": np.array(["O", "H", "Hx"])}, "'Hx' is neither"),
        ({"E": np.array(["a"] * 4)}, "are no numbers"),
    ],
)
def test_shapes_and_kinds_that_do_not_fit(tmp_path, arrays, text):
    with pytest.raises(DataError, match=text):
        read_dataset(write_npz(tmp_path / "a.npz", **arrays), ARRAYS, INSIDE)


def test_objects_are_never_unpickled(tmp_path):
    """Beside plain arrays they do no harm; asked for, they are refused."""

    class Boom:
        def __reduce__(self):
            return (print, ("run from a pickle",))

    path = write_npz(tmp_path / "a.npz", predicted=np.array([Boom()] * 4, dtype=object))

    assert len(read_dataset(path, ARRAYS, INSIDE).data) == 4
    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        read_dataset(path, replace(ARRAYS, energy="predicted"), INSIDE)


def write_hdf5(path: Path) -> Path:
    """One group for each molecule, as the ANI-1x release has them; one set within a set."""
    positions, energies, forces = waters()
    with h5py.File(path, "w") as file:
        for name, numbers, chosen in (("H2O", [8, 1, 1], [0, 1]), ("deep/H2S", [16, 1, 1], [2, 3])):
            group = file.create_group(name)
            group["species"] = np.array(numbers, dtype=np.uint8)
            group["coordinates"] = positions[chosen].astype(np.float32)
            group["e"] = energies[chosen]
            group["f"] = forces[chosen]
    return path


def test_hdf5_with_a_group_for_each_molecule(tmp_path):
    keys = Keys("e", "f", "coordinates", "species")

    data = read_dataset(write_hdf5(tmp_path / "a.h5"), keys, INSIDE).data

    assert sorted(data.systems) == ["H2O", "H2O", "H2S", "H2S"]
    water = data.where(system="H2O")
    assert np.array_equal(water.energies, waters()[1][:2])
    assert np.allclose([f.positions for f in water.frames], waters()[0][:2], atol=1e-6)
    with pytest.raises(DataError, match=r"has no 'energy'; it holds .*coordinates"):
        read_dataset(tmp_path / "a.h5", replace(keys, energy="energy"), INSIDE)


def test_hdf5_with_flat_arrays_and_symbols(tmp_path):
    positions, energies, forces = waters()
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["R"], file["E"], file["F"] = positions, energies, forces
        file["Z"] = np.array([b"O", b"H", b"H"])

    data = read_dataset(tmp_path / "a.hdf5", ARRAYS, INSIDE).data

    assert data.frames[0].numbers.tolist() == [8, 1, 1]
    assert np.array_equal(data.forces, forces)


def test_a_molecule_of_a_set_without_labels_is_named(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["H2O/e"]

    with pytest.raises(DataError, match=r"2 of 4 frames \(H2O\[0\], H2O\[1\]\): no energy"):
        read_dataset(path, Keys("e", "f", "coordinates", "species"), INSIDE)


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.xyz", "a.traj", "a.what"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage\nof no format\n", b"PK\x03\x04half", b"\x89HDF"]
)
def test_broken_files_are_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_dataset(path, ARRAYS if name in {"a.npz", "a.h5"} else XYZ, INSIDE)

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("is empty" in str(caught.value)) == (content == b"")


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.xyz"])
def test_a_file_cut_short(tmp_path, name):
    path = tmp_path / name
    write = {"a.npz": write_npz, "a.h5": write_hdf5}.get(name)
    write(path) if write else write_xyz(path, labelled())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - len(whole) // 3])
    keys = {"a.npz": ARRAYS, "a.h5": Keys("e", "f", "coordinates", "species")}.get(name, XYZ)

    with pytest.raises(DataError, match="cannot be read"):
        read_dataset(path, keys, INSIDE)


def test_a_folder_and_nothing(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_dataset(tmp_path, XYZ, INSIDE)
    with pytest.raises(DataError, match="is missing"):
        read_dataset(tmp_path / "no.xyz", XYZ, INSIDE)


def test_lammps_types_are_no_elements(tmp_path):
    (tmp_path / "a.lammpstrj").write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
        "ITEM: ATOMS id type x y z fx fy fz\n1 1 0 0 0 1 0 0\n2 1 2 0 0 -1 0 0\n"
    )

    with pytest.raises(DataError, match="types, no elements"):
        read_dataset(tmp_path / "a.lammpstrj", Keys("energy", "forces"), INSIDE)


def test_periodicity_is_that_of_the_file(tmp_path):
    """A lattice without pbc is a molecule's; directions may differ; frames may, too."""
    cell = np.diag([4.0, 5.0, 6.0])
    images = labelled(3)
    images[0].cell = cell
    images[1].cell, images[1].pbc = cell, True
    images[2].cell, images[2].pbc = cell, (True, True, False)
    path = write_xyz(tmp_path / "a.xyz", images)

    frames = read_dataset(path, XYZ, INSIDE).data.frames

    assert [frame.pbc for frame in frames] == [(False,) * 3, (True,) * 3, (True, True, False)]
    assert frames[0].cell is None
    assert np.allclose(frames[2].cell, cell)


def test_a_row_of_zeros_is_not_periodic(tmp_path):
    cells = np.array([np.zeros((3, 3)), np.diag([4.0, 5.0, 0.0]), np.diag([4.0, 5.0, 6.0])] * 2)[:4]
    path = write_npz(tmp_path / "a.npz", cell=cells)

    frames = read_dataset(path, replace(ARRAYS, cell="cell"), INSIDE).data.frames

    assert [sum(frame.pbc) for frame in frames] == [0, 2, 3, 0]
    assert frames[0].cell is None
    assert np.allclose(frames[1].cell[:2], cells[1, :2])


def test_a_period_without_a_vector(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", labelled(pbc=True))

    with pytest.raises(DataError, match="lattice vector of no length"):
        read_dataset(path, XYZ, INSIDE)


def test_a_dummy_box(tmp_path):
    """Said, and left away on demand; never where atoms are bound across its faces."""
    boxed = write_xyz(tmp_path / "box.xyz", labelled(cell=[20.0] * 3, pbc=True))
    crystal = write_xyz(tmp_path / "ice.xyz", labelled(cell=[3.5] * 3, pbc=True))
    molecules = replace(INSIDE, molecules=True)

    reading = read_dataset(boxed, XYZ, INSIDE)
    assert any("4 periodic frames are molecules in a box" in note for note in reading.notes)
    assert reading.data.frames[0].cell is not None
    assert read_dataset(boxed, XYZ, molecules).data.frames[0].cell is None
    assert not any("box" in note for note in read_dataset(crystal, XYZ, INSIDE).notes)
    with pytest.raises(DataError, match="no molecule in a box"):
        read_dataset(crystal, XYZ, molecules)

    # Skewed: the planes of the first two vectors are 12 and 11.8 Å apart.
    skewed = [[12.0, 60.0, 0.0], [0.0, 60.0, 0.0], [0.0, 0.0, 25.0]]
    path = write_xyz(tmp_path / "skewed.xyz", labelled(cell=skewed, pbc=True))
    assert any("in a box" in note for note in read_dataset(path, XYZ, INSIDE).notes)

    wrapped = labelled(cell=[20.0] * 3, pbc=True)
    for image in wrapped:
        image.wrap()  # an atom of x < 0 now stands at the other face
    path = write_xyz(tmp_path / "wrapped.xyz", wrapped)
    with pytest.raises(DataError, match="no molecule in a box"):
        read_dataset(path, XYZ, molecules)


def test_charge_and_spin_lowest_possible_unless_told(tmp_path):
    images = labelled()
    path = write_xyz(tmp_path / "a.xyz", images)

    reading = read_dataset(path, XYZ, INSIDE)
    assert {(f.charge, f.multiplicity) for f in reading.data.frames} == {(0, 1)}
    assert any("charge 0" in note for note in reading.notes)
    assert any("multiplicity 1, the lowest possible" in note for note in reading.notes)

    cation = read_dataset(path, XYZ, replace(INSIDE, charge=1))
    assert {(f.charge, f.multiplicity) for f in cation.data.frames} == {(1, 2)}
    told = read_dataset(path, XYZ, replace(INSIDE, charge=0, multiplicity=3))
    assert {f.multiplicity for f in told.data.frames} == {3}
    assert not any("charge" in note or "multiplicity" in note for note in told.notes)
    with pytest.raises(DataError, match="multiplicity 2 is impossible with 10 electrons"):
        read_dataset(path, XYZ, replace(INSIDE, multiplicity=2))


def test_charge_and_spin_of_the_file(tmp_path):
    images = labelled()
    for image in images:
        image.info |= {"charge": -1, "multiplicity": 2, "total": 1}
    path = write_xyz(tmp_path / "a.xyz", images)

    frames = read_dataset(path, XYZ, INSIDE).data.frames
    assert {(f.charge, f.multiplicity) for f in frames} == {(-1, 2)}
    named = read_dataset(path, replace(XYZ, charge="total"), INSIDE).data.frames
    assert {f.charge for f in named} == {1}
    arrays = write_npz(tmp_path / "a.npz", C=np.ones((4, 1), int), M=np.array(2))
    frames = read_dataset(arrays, replace(ARRAYS, charge="C", multiplicity="M"), INSIDE).data.frames
    assert {(f.charge, f.multiplicity) for f in frames} == {(1, 2)}
    half = write_npz(tmp_path / "b.npz", C=np.full(4, 0.5))
    with pytest.raises(DataError, match=r"charge is 0\.5, want a whole number"):
        read_dataset(half, replace(ARRAYS, charge="C"), INSIDE)


def test_groups(tmp_path):
    path = write_npz(tmp_path / "a.npz", run=np.array([["a"], ["a"], ["b"], ["b"]]))
    assert read_dataset(path, replace(ARRAYS, group="run"), INSIDE).data.groups == tuple("aabb")

    images = labelled()
    for i, image in enumerate(images):
        image.info["run"] = i // 2
    path = write_xyz(tmp_path / "a.xyz", images)
    assert read_dataset(path, replace(XYZ, group="run"), INSIDE).data.groups == tuple("0011")
    with pytest.raises(DataError, match="has no 'walk' for its frames"):
        read_dataset(path, replace(XYZ, group="walk"), INSIDE)


def test_compositions_may_change_within_a_file(tmp_path):
    images = labelled()
    images[1].numbers[:] = 16, 1, 1
    images[2] = images[2][:2]

    data = read_dataset(write_xyz(tmp_path / "a.xyz", images), XYZ, INSIDE).data

    assert data.systems == ("H2O", "H2S", "HO", "H2O")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real data is not there")
def test_every_real_file_is_read_or_refused_in_one_line():
    """Files of a dozen other programs; those called BAD are refused whatever names are given."""
    folders = [SHARED / "import_cases", SHARED / "trajectories"]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    assert len(files) > 40
    prefixes = {"wfl_B_DFT_data.xyz": "REF_", "janus_mlip_train.xyz": "dft_"}
    read, refusals = set(), {}
    for path in files:
        prefix = prefixes.get(path.name, "")
        try:
            read_dataset(path, Keys(f"{prefix}energy", f"{prefix}forces"), INSIDE)
            read.add(path.name)
        except DataError as error:
            refusals[path.name] = str(error)

    assert not [name for name, text in refusals.items() if "\n" in text or name not in text]
    assert not [name for name in read if "BAD" in name or "forces_only" in name]
    assert {"wfl_B_DFT_data.xyz", "janus_mlip_train.xyz", "fitsnap_Ta_Elastic_FCC.xyz"} <= read


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real data is not there")
def test_real_sets_have_the_physics_they_should():
    """Forces of rMD17 have no net force; its energies and those of ANI-1x are all-electron."""
    keys = Keys("energies", "forces", "coords", "nuclear_charges")
    ethanol = SHARED / "rmd17" / "rmd17_ethanol_test_01.npz"
    data = read_dataset(ethanol, keys, Convention("kcal/mol", "Å", "PBE/def2-SVP")).data
    assert data.energies.mean() == pytest.approx(-154.7009 * 27.2114, rel=1e-5)
    assert np.abs(np.array(data.forces).sum(1)).max() < 1e-5
    keys = Keys("wb97x_dz.energy", "wb97x_dz.forces", "coordinates", "atomic_numbers")
    ani = read_dataset(
        SHARED / "ani1ccx" / "ani1x_sample.h5", keys, Convention("Ha", "Å", "x")
    ).data
    charges = [int((frame.numbers.astype(float) ** 2.39).sum()) for frame in ani.frames]
    assert np.corrcoef(charges, ani.energies)[0, 1] < -0.99
