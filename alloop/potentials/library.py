"""Members by what a person would call them: a file, a folder of files, or a published name."""

from __future__ import annotations

from pathlib import Path

from alloop.errors import ModelError
from alloop.potentials.ani.pretrained import PUBLISHED, pretrained
from alloop.potentials.files import load_member
from alloop.potentials.member import Member


def find_members(reference: str | Path) -> list[Member]:
    """Return the members of a member file, of a folder (all ``*.pt``), or of a published model.

    Raises ModelError if there is none, or one cannot be used.
    """
    path = Path(reference)
    if path.is_dir():
        files = sorted(path.glob("*.pt"))
        if not files:
            raise ModelError(f"the folder {path} holds no member files (*.pt)")
        return [load_member(file) for file in files]
    if not path.exists() and str(reference) in PUBLISHED:
        return pretrained(str(reference))
    return [load_member(path)]
