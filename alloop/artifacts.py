"""Files named by the sha-256 of what they hold: written once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alloop.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sha256(path: Path) -> str:
    """Return the sha-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then give it its name; a kill leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as .npz; equal arrays give equal bytes, and so one artifact.

    Not ``np.savez``: its zip entries carry the time of day.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)


class ArtifactStore:
    """A folder of content-addressed files, ``<root>/ab/abcdef....<suffix>``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str, suffix: str) -> Path:
        """Return where an artifact lies or would lie."""
        return self.root / digest[:2] / f"{digest}{suffix}"

    def add(self, suffix: str, write: Callable[[Path], None]) -> str:
        """Store what ``write(path)`` writes and return its sha-256."""
        incoming = self.root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=incoming, prefix=".partial-", suffix=suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            digest = sha256(temporary)
            target = self.path(digest, suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def get(self, digest: str, suffix: str) -> Path:
        """Return the path of an artifact whose content has been checked against its name."""
        path = self.path(digest, suffix)
        if not path.is_file():
            raise ArtifactError(f"artifact {digest[:12]}{suffix} is missing from {self.root}")
        found = sha256(path)
        if found != digest:
            raise ArtifactError(
                f"artifact {path} is damaged: its content hashes to {found[:12]},"
                f" its name says {digest[:12]}; restore it from a backup"
            )
        return path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
