"""Frames of a propagation as files, written while it runs.

HDF5, one file for all replicas::

    /                  format, version, units; about: JSON (model, settings, seeds, ...)
    /numbers, /masses
    /replicas/00000    times, positions, velocities[, potential] by frame; ended: why, at its end

extended XYZ and ASE trajectories, one file for each replica: ``name-00000.extxyz``. Each file
carries ``.partial`` behind its name until the propagation is over; what a killed run leaves there
is sound up to the last frames written.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import ase.io
import h5py
import numpy as np
import torch
from ase.io.trajectory import Trajectory as AseTrajectory
from numpy.typing import NDArray

from alloop.errors import ArtifactError, SpacetimeError
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.propagation.ase_bridge import potential_energies, to_atoms
from alloop.spacetime.propagation.courses import Block, Course
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.surface import Surface

FORMAT: Final = "alloop propagation"
VERSION: Final = 1
UNITS: Final = "times fs, positions angstrom, velocities angstrom/fs, potential eV, masses amu"
PARTIAL: Final = ".partial"
"""Follows the name of a file that is not finished."""
HELD: Final = 2000
"""Frames of a replica that are held back and written together."""
CHUNK: Final = 500
"""Frames in a chunk of an HDF5 file."""


def describe_run(
    model: SpacetimeModel, settings: PropagationSettings, seeds: Sequence[int] = ()
) -> dict[str, object]:
    """Return what a file should remember of a propagation, plain JSON."""
    return {
        "model_sha256": digest(model),
        "cutoff_fs": model.cutoff,
        "settings": asdict(settings),
        "seeds": list(seeds),
    }


def digest(model: SpacetimeModel) -> str:
    """Return the sha-256 of everything in a model that decides about its predictions."""
    content = hashlib.sha256()
    plain = [list(model.numbers), dict(model.internal.definition()), model.cutoff]
    content.update(json.dumps(plain, sort_keys=True).encode())
    tensors = [model.masses, model.basis.mixing, model.feature_mean, model.feature_scale]
    tensors += [model.polynomial, model.coefficient_scale, *model.weights, *model.biases]
    for tensor in tensors:
        content.update(tensor.detach().contiguous().numpy().tobytes())
    return content.hexdigest()


class _Writer(ABC):
    """Holds frames back until there are enough, and finishes files under their names."""

    def __init__(self) -> None:
        self._held: dict[int, list[Block]] = {}

    def __enter__(self) -> Self:
        return self

    def __call__(self, block: Block) -> None:
        """Take frames."""
        held = self._held.setdefault(block.replica, [])
        held.append(block)
        if sum(len(part.times) for part in held) >= HELD:
            self._empty(block.replica)

    def flush(self) -> None:
        """Write what is held back."""
        for replica in list(self._held):
            self._empty(replica)

    def _empty(self, replica: int) -> None:
        held = self._held.pop(replica)
        parts = (
            torch.cat([getattr(block, name) for block in held])
            for name in ("times", "positions", "velocities")
        )
        self._write(Block(replica, held[0].first, *parts))

    @abstractmethod
    def _write(self, block: Block) -> None: ...


class Hdf5Writer(_Writer):
    """A sink that writes one HDF5 file, to be used as a context.

    Others may read the file while it grows. It gets its name when the context ends without an
    error.

    Parameters
    ----------
    path : the file.
    model : the 4D model.
    n_replicas : how many there are.
    about : what is to be remembered, plain JSON, see :func:`describe_run`.
    surface : gives potential energies to be written too.

    """

    def __init__(
        self,
        path: Path,
        model: SpacetimeModel,
        n_replicas: int,
        about: Mapping[str, object],
        surface: Surface | None = None,
    ) -> None:
        super().__init__()
        self._path, self._surface = path, surface
        self._partial = path.with_name(path.name + PARTIAL)
        self._courses: Sequence[Course] = ()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(self._partial, "w", libver="latest")
        self._file.attrs.update({"format": FORMAT, "version": VERSION, "units": UNITS})
        self._file.attrs["about"] = json.dumps(dict(about), allow_nan=False, sort_keys=True)
        self._file["numbers"] = np.array(model.numbers, dtype=np.int64)
        self._file["masses"] = model.masses.numpy()
        vectors = (len(model.numbers), 3)
        kinds: dict[str, tuple[str, tuple[int, ...]]] = {
            "times": ("<f8", ()),
            "positions": ("<f4", vectors),
            "velocities": ("<f4", vectors),
        }
        if surface is not None:
            kinds["potential"] = ("<f8", ())
        for replica in range(n_replicas):
            group = self._file.create_group(_name(replica))
            for name, (kind, shape) in kinds.items():
                limits = {"maxshape": (None, *shape), "chunks": (CHUNK, *shape)}
                group.create_dataset(name, (0, *shape), kind, **limits)
        # From here on the file can be read at any moment, and after any death of the writer.
        self._file.swmr_mode = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        self._file.close()
        if kind is None:
            with h5py.File(self._partial, "r+") as file:
                for replica, course in enumerate(self._courses):
                    file[_name(replica)].attrs["ended"] = course.reason or "completed"
            self._partial.replace(self._path)

    def note(self, courses: Sequence[Course]) -> None:
        """Remember how the replicas ended, to be written at the end."""
        self._courses = courses

    def _write(self, block: Block) -> None:
        group = self._file[_name(block.replica)]
        arrays = {name: getattr(block, name) for name in ("positions", "velocities", "times")}
        if self._surface is not None:
            arrays["potential"] = potential_energies(self._surface, block.positions)
        for name, values in arrays.items():
            data = group[name]
            before = len(data)
            data.resize(before + len(values), axis=0)
            data[before:] = values.numpy()
            data.flush()


class AtomsWriter(_Writer):
    """A sink that writes one file for each replica, to be used as a context.

    Parameters
    ----------
    path : its suffix, ``.extxyz`` or ``.traj``, decides about the format; replica 3 of
        ``run.traj`` becomes ``run-00003.traj``.
    model : the 4D model.
    surface : gives energies to be written too.

    Raises
    ------
    SpacetimeError
        The suffix is another one.

    """

    def __init__(self, path: Path, model: SpacetimeModel, surface: Surface | None = None) -> None:
        super().__init__()
        if path.suffix not in (".extxyz", ".traj"):
            raise SpacetimeError(f"{path} would be of type {path.suffix!r}, want .extxyz or .traj")
        self._path, self._model, self._surface = path, model, surface
        self._written: set[int] = set()
        path.parent.mkdir(parents=True, exist_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        if kind is None:
            for replica in self._written:
                self._partial(replica).replace(self.path(replica))

    def path(self, replica: int) -> Path:
        """Return the name of a replica's file."""
        return self._path.with_stem(f"{self._path.stem}-{replica:05d}")

    def _partial(self, replica: int) -> Path:
        path = self.path(replica)
        return path.with_name(path.name + PARTIAL)

    def _write(self, block: Block) -> None:
        path, mode = self._partial(block.replica), "a" if block.replica in self._written else "w"
        self._written.add(block.replica)
        frames = to_atoms(self._model, block, self._surface)
        if self._path.suffix == ".traj":
            with AseTrajectory(path, mode) as file:
                for atoms in frames:
                    file.write(atoms)
        else:
            ase.io.write(path, frames, format="extxyz", append=mode == "a")


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Some frames of one replica.

    Attributes
    ----------
    times : (n_frames,) float64, fs.
    positions, velocities : (n_frames, n_atoms, 3) float32, Å and Å/fs.
    potential : (n_frames,) float64, eV, or None.

    """

    times: NDArray[np.float64]
    positions: NDArray[np.float32]
    velocities: NDArray[np.float32]
    potential: NDArray[np.float64] | None


class PropagationFile:
    """A file that :class:`Hdf5Writer` wrote, is writing, or was writing when it died.

    Attributes
    ----------
    numbers, masses : of the atoms.
    about : what was to be remembered.
    n_frames : of each replica.
    ended : of each replica "completed", why it ended early, or None where nobody has said.

    Raises
    ------
    ArtifactError
        The file is missing, damaged or something else.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with h5py.File(path, "r", swmr=True) as file:
                if file.attrs["format"] != FORMAT or file.attrs["version"] != VERSION:
                    raise ValueError(f"it is not of format {FORMAT!r}, version {VERSION}")
                self.numbers: NDArray[np.int64] = file["numbers"][()]
                self.masses: NDArray[np.float64] = file["masses"][()]
                self.about: dict[str, Any] = json.loads(file.attrs["about"])
                groups = [file[_name(i)] for i in range(len(file["replicas"]))]
                # A writer that died may have written some arrays of its last frames only.
                self.n_frames = tuple(min(len(data) for data in g.values()) for g in groups)
                self.ended = tuple(g.attrs.get("ended") for g in groups)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} cannot be read as a propagation: {error}") from error

    def read(self, replica: int, first: int = 0, end: int | None = None, stride: int = 1) -> Frames:
        """Return frames first, first + stride, ... of one replica, those before ``end``."""
        n = self.n_frames[replica]
        span = slice(first, n if end is None else min(end, n), stride)
        with h5py.File(self.path, "r", swmr=True) as file:
            group = file[_name(replica)]
            potential = group["potential"][span] if "potential" in group else None
            x, v = group["positions"][span], group["velocities"][span]
            return Frames(group["times"][span], x, v, potential)


def _name(replica: int) -> str:
    return f"replicas/{replica:05d}"
