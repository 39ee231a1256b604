"""Which filesystem a directory lies on, and whether SQLite may use its fast mode there.

SQLite's write-ahead log needs shared memory between processes, which no network filesystem gives
(https://sqlite.org/wal.html); there the ledger keeps to the rollback journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

NETWORK_TYPES = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "9p", "webdav"),
        *("lustre", "gpfs", "mmfs", "beegfs", "beegfs_nodev", "panfs", "wekafs", "pvfs2"),
        *("orangefs", "ceph", "glusterfs", "virtiofs", "davfs", "davfs2", "sshfs", "fuse"),
    }
)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Where a directory lies: mount point and type as the kernel names it."""

    mount_point: str
    type: str

    @property
    def network(self) -> bool:
        """Whether other hosts may see the same files; any FUSE filesystem counts as such."""
        kind = self.type.lower()
        return kind in NETWORK_TYPES or kind.startswith("fuse.")


def mounts() -> list[Filesystem]:
    """Return what is mounted, in the order of mounting."""
    return [Filesystem(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def filesystem_of(directory: Path) -> Filesystem:
    """Return the filesystem a directory lies on, or would lie on if it does not exist yet."""
    path = directory.resolve()
    holders = [found for found in mounts() if path.is_relative_to(found.mount_point)]
    if not holders:
        return Filesystem("/", "unknown")
    deepest = max(len(Path(found.mount_point).parts) for found in holders)
    # A later mount on the same point hides the earlier one (autofs, then the nfs it brings).
    return [found for found in holders if len(Path(found.mount_point).parts) == deepest][-1]


def network_warning(directory: Path) -> str | None:
    """Return what a user should know when a campaign lies on a network filesystem, else None."""
    found = filesystem_of(directory)
    if not found.network:
        return None
    return (
        f"{directory} lies on a network filesystem ({found.type}, mounted at {found.mount_point}):"
        " the ledger uses SQLite's slower rollback journal there, and only one host may drive the"
        " campaign; a directory on a local disk is faster and safer"
    )
