"""Trajectories of the replicas of one system, and their file: an HDF5 shard.

A shard holds plain numbers and one line of JSON for each replica; nothing in it is ever executed::

    /                 format, version; numbers, masses[, cell]
    /replicas/00000   positions, velocities, forces, ... by frame; ``about`` is JSON
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np

from alloop.artifacts import write_atomically
from alloop.errors import ArtifactError, DynamicsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Final = "alloop trajectories"
VERSION: Final = 1
CHUNK_BYTES: Final = 1 << 18
"""Uncompressed size of a chunk: large enough to compress, small enough to read a few frames."""

Tag = str | int | float | bool | None
ARRAYS: Final[dict[str, tuple[str, str]]] = {
    "steps": ("<i8", "F"),
    "positions": ("<f8", "FN3"),
    "velocities": ("<f8", "FN3"),
    "forces": ("<f4", "FN3"),
    "member_energies": ("<f8", "FM"),
    "kinetic": ("<f8", "F"),
    "max_force_spread": ("<f8", "F"),
    "mean_force_spread": ("<f8", "F"),
    "pre_failure": ("|b1", "F"),
}
"""Type and shape of the arrays by frame: F frames, N atoms, M members."""


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """The atoms whose replicas share a shard.

    Attributes
    ----------
    numbers : (n_atoms,) int64, atomic numbers.
    masses : (n_atoms,) float64, amu.
    cell : (3, 3) float64, lattice vectors as rows, Å; None for a molecule.

    """

    numbers: NDArray[np.int64]
    masses: NDArray[np.float64]
    cell: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        _freeze(self, "numbers", "<i8", (len(self.numbers),))
        _freeze(self, "masses", "<f8", (len(self.numbers),))
        if self.cell is not None:
            _freeze(self, "cell", "<f8", (3, 3))

    def same_as(self, other: System) -> bool:
        """Tell whether two systems are equal in every number."""
        names = ("numbers", "masses", "cell")
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        return all(
            mine is yours if mine is None or yours is None else np.array_equal(mine, yours)
            for mine, yours in pairs
        )


@dataclass(frozen=True, slots=True)
class About:
    """Where a trajectory came from and why it ended.

    Attributes
    ----------
    ensemble : "nve" or "nvt".
    timestep : fs.
    temperature : K, of the thermostat or of the sampling of the start.
    friction : 1/fs; None without a thermostat.
    seed : of the replica's own noise.
    ended : "completed" or the reason code of the health check that stopped it.
    ended_step : the last step that was taken.
    tags : whatever the caller wants to remember, such as system, level of theory, committee.

    """

    ensemble: str
    timestep: float
    temperature: float
    friction: float | None
    seed: int
    ended: str
    ended_step: int
    tags: Mapping[str, Tag] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What was recorded of one replica; frames of a broken state are never among it.

    Attributes
    ----------
    system : the atoms.
    about : origin and end.
    steps : (n_frames,) int64, time steps since the start.
    positions : (n_frames, n_atoms, 3) float64, Å, never wrapped into the cell.
    velocities : (n_frames, n_atoms, 3) float64, Å/fs.
    forces : (n_frames, n_atoms, 3) float32, eV/Å, mean of the committee.
    member_energies : (n_frames, n_members) float64, eV.
    kinetic : (n_frames,) float64, eV.
    max_force_spread, mean_force_spread : (n_frames,) float64, eV/Å, over atoms, of the standard
        deviation of the members' force vectors.
    pre_failure : (n_frames,) bool, the last stretch before a stop.

    Raises
    ------
    DynamicsError
        Shapes disagree.

    """

    system: System
    about: About
    steps: NDArray[np.int64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    forces: NDArray[np.float32]
    member_energies: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    max_force_spread: NDArray[np.float64]
    mean_force_spread: NDArray[np.float64]
    pre_failure: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n_members = self.member_energies.shape[-1]
        sizes = {"F": len(self.steps), "N": len(self.system.numbers), "M": n_members, "3": 3}
        for name, (kind, shape) in ARRAYS.items():
            _freeze(self, name, kind, tuple(sizes[axis] for axis in shape))

    @property
    def n_frames(self) -> int:
        """Number of recorded frames."""
        return len(self.steps)

    @property
    def times(self) -> NDArray[np.float64]:
        """Times since the start (n_frames,), fs."""
        times: NDArray[np.float64] = np.multiply(self.steps, self.about.timestep, dtype=np.float64)
        return times

    @property
    def potential(self) -> NDArray[np.float64]:
        """Committee mean of the potential energy (n_frames,), eV."""
        mean: NDArray[np.float64] = self.member_energies.mean(axis=1, dtype=np.float64)
        return mean


def write_shard(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write the replicas of one system to a file, whole or not at all.

    Raises
    ------
    DynamicsError
        There are none, or they are of different systems.
    OSError
        The file cannot be written; nothing is left behind.

    """
    if not trajectories:
        raise DynamicsError("a shard needs at least one trajectory, got none")
    system = trajectories[0].system
    for i, trajectory in enumerate(trajectories):
        if not trajectory.system.same_as(system):
            raise DynamicsError(f"trajectory {i} is of another system than trajectory 0")
    write_atomically(path, lambda target: _write(target, system, trajectories))


def _write(path: Path, system: System, trajectories: Sequence[Trajectory]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file["numbers"], file["masses"] = system.numbers, system.masses
        if system.cell is not None:
            file["cell"] = system.cell
        for i, trajectory in enumerate(trajectories):
            group = file.create_group(_name(i))
            group.attrs["about"] = _to_json(trajectory.about)
            for name in ARRAYS:
                _write_array(group, name, getattr(trajectory, name))


def _write_array(group: Any, name: str, values: NDArray[Any]) -> None:
    if values.size == 0:
        group.create_dataset(name, data=values)
        return
    rows = max(1, CHUNK_BYTES // (values.nbytes // len(values)))
    chunks = (min(rows, len(values)), *values.shape[1:])
    group.create_dataset(
        name, data=values, chunks=chunks, shuffle=True, compression="gzip", compression_opts=1
    )


class Shard:
    """A shard on disk, whose trajectories are read one by one when they are asked for.

    Attributes
    ----------
    path : a file that :func:`write_shard` wrote.
    system : the atoms.
    about : origin and end of each trajectory.

    Raises
    ------
    ArtifactError
        The file is missing, truncated, damaged or not a shard.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _Reading(path) as file:
            if file.attrs["format"] != FORMAT or file.attrs["version"] != VERSION:
                raise ValueError(f"it is not of format {FORMAT!r}, version {VERSION}")
            cell = _array(file, "cell", "<f8") if "cell" in file else None
            numbers, masses = _array(file, "numbers", "<i8"), _array(file, "masses", "<f8")
            self.system = System(numbers, masses, cell)
            names = [_name(i) for i in range(len(file["replicas"]))]
            self.about = tuple(_from_json(file[name].attrs["about"]) for name in names)

    def __len__(self) -> int:
        return len(self.about)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self.read(replica) for replica in range(len(self)))

    def read(self, replica: int) -> Trajectory:
        """Read one trajectory; ArtifactError if it is damaged, IndexError if there is none."""
        about = self.about[replica]
        with _Reading(self.path) as file:
            group = file[_name(range(len(self))[replica])]
            arrays = {name: _array(group, name, kind) for name, (kind, _) in ARRAYS.items()}
            return Trajectory(self.system, about, **arrays)


class _Reading:
    """Opens a file for reading and turns whatever a damaged one raises into ArtifactError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        try:
            self._file = h5py.File(self._path, "r")
        except OSError as error:
            raise self._refusal(error) from error
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        if isinstance(error, OSError | RuntimeError | KeyError | ValueError | TypeError):
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> ArtifactError:
        return ArtifactError(
            f"{self._path} cannot be read as a trajectory shard: {error};"
            " restore it from a backup or let it be made again"
        )


def _name(replica: int) -> str:
    return f"replicas/{replica:05d}"


def _array(group: Any, name: str, kind: str) -> NDArray[Any]:
    """Read an array of exactly the stated type that lies in this very file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} lies in another file")
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.dtype != np.dtype(kind):
        raise ValueError(f"{name} is not an array of {kind}")
    return np.asarray(data[()])


def _to_json(about: About) -> str:
    values = {name: getattr(about, name) for name in About.__slots__}
    return json.dumps(values | {"tags": dict(about.tags)}, allow_nan=False, sort_keys=True)


def _from_json(text: str) -> About:
    return About(**json.loads(text))


def _freeze(owner: object, name: str, kind: str, shape: tuple[int, ...]) -> None:
    """Make an array of a frozen dataclass a read-only view, of the right type and shape."""
    array = np.asarray(getattr(owner, name), dtype=kind).view()
    if array.shape != shape:
        what = f"{type(owner).__name__.lower()} {name}"
        raise DynamicsError(f"{what} have shape {array.shape}, want {shape}")
    array.flags.writeable = False
    object.__setattr__(owner, name, array)
