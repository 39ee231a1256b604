"""What a task ran with: host, software, source tree, threads."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import alloop
from alloop_tasks.workspace import canonical

PACKAGES = (
    "alloop",
    "numpy",
    "scipy",
    "torch",
    "torchani",
    "ase",
    "tblite",
    "xtb",
    "parsl",
    "h5py",
)


@cache
def environment() -> dict[str, Any]:
    """Return the content of an ``environment`` row, with its hash."""
    content: dict[str, Any] = {
        "host": platform.node(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }
    return content | {"sha256": hashlib.sha256(canonical(content).encode()).hexdigest()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> str | None:
    """Return the commit of the checkout that alloop runs from, or None for an installed wheel."""
    root = Path(alloop.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
