"""A disk that is full: the campaign's, or the scratch of a node. It is no fault of the task."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

CODES: Final = (errno.ENOSPC, errno.EDQUOT)
WORDS: Final = (
    *map(os.strerror, CODES),
    "No usable temporary directory",  # tempfile's, where not even the last resort takes a byte
)
PROBE_BYTES: Final = 1_000_000


def tells_of(words: str) -> bool:
    """Return whether an engine's words say that a disk is full."""
    return any(sign in words for sign in WORDS)


def caused(error: BaseException) -> bool:
    """Return whether an exception, or one of those behind it, comes from a full disk."""
    behind: BaseException | None = error
    while behind is not None:
        if getattr(behind, "errno", None) in CODES or tells_of(str(behind)):
            return True
        behind = behind.__cause__ or behind.__context__
    return False


def has_room(folder: Path) -> bool:
    """Return whether a file can be written in a folder; finds out by writing a small one."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return not caused(error)
    return True
