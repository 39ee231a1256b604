"""Folders that come with alloop: in a checkout at its root, in an installed wheel inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import alloop
from alloop.errors import SiteError


def shipped(name: Literal["configs", "deploy"]) -> Path:
    """Return the folder of example campaigns or of site files; raise SiteError if it is gone."""
    package = Path(alloop.__file__).parent
    for folder in (package / "shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise SiteError(f"alloop's folder {name!r} is missing beside {package}: install alloop again")
