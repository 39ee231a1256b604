"""Member files: plain tensors and plain values, loaded without running anything from them."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from alloop.artifacts import write_atomically
from alloop.errors import ModelError
from alloop.potentials.architectures import architecture
from alloop.potentials.member import Member

FORMAT = "alloop-member"
VERSION = 1

_FIELDS = {
    "architecture": str,
    "elements": list,
    "settings": dict,
    "weights": dict,
    "atom_energies": dict,
    "level_of_theory": str,
    "metadata": dict,
}


def member_bytes(member: Member) -> bytes:
    """Return the content of a member file; equal members give equal bytes."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": member.architecture,
        "elements": list(member.elements),
        "settings": dict(member.settings),
        "weights": {name: t.detach().clone() for name, t in member.weights.items()},
        "atom_energies": {int(z): float(e) for z, e in member.atom_energies.items()},
        "level_of_theory": member.level_of_theory,
        "metadata": dict(member.metadata),
    }
    # Through memory: torch writes the name of the file it saves to into the file.
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def save_member(path: Path, member: Member) -> None:
    """Write a member file, whole or not at all."""
    content = member_bytes(member)
    write_atomically(path, lambda temporary: _write(temporary, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def load_member(path: Path) -> Member:
    """Read a member file.

    Raises
    ------
    ModelError
        There is no such file, it is damaged or foreign, or it is of a later version.

    """
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path} is not a member file of alloop")
    if content.get("version") != VERSION:
        raise ModelError(
            f"{path} has format version {content.get('version')}, this alloop reads"
            f" {VERSION}; install a newer one"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise ModelError(f"{path} is damaged: {name} is missing or no {kind.__name__}")
    try:
        member = Member(
            architecture=content["architecture"],
            elements=tuple(int(z) for z in content["elements"]),
            settings=content["settings"],
            weights=content["weights"],
            atom_energies={int(z): float(e) for z, e in content["atom_energies"].items()},
            level_of_theory=content["level_of_theory"],
            metadata=content["metadata"],
        )
        architecture(member.architecture).check(member)
    except Exception as error:  # foreign content can break anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path} cannot be used: {reason}") from error
    return member


def _read(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    refusal = f"{path} is damaged or not a member file of alloop"
    # Older formats than zip are a bare pickle; we never wrote one.
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ModelError(refusal)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks about foreign files
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign pickle can break the reader in any way
        raise ModelError(refusal) from error
