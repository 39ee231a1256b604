"""Which disks are shared by hosts, and what the ledger does there."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert

from alloop_db import filesystem, schema
from alloop_db.filesystem import Filesystem, filesystem_of, network_warning
from alloop_db.ledger import LEDGER, open_ledger
from tests.ledger_rows import instant
from tests.ledger_sample import write_sample


def mounted(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, str]) -> None:
    everything = [Filesystem("/", "ext4"), *(Filesystem(*pair) for pair in found)]
    monkeypatch.setattr(filesystem, "mounts", lambda: everything)


def test_network_disks_use_the_safe_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(write_sample(tmp_path), create=False).dispose()
    mounted(monkeypatch, (str(tmp_path), "nfs4"))
    engine = open_ledger(tmp_path, create=False)
    with engine.begin() as connection:
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        assert journal == "delete"
        event = {"at": instant(0), "kind": "start", "text": "", "details": None}
        connection.execute(insert(schema.Event), event)
        assert not (tmp_path / f"{LEDGER}-wal").exists()
    engine.dispose()
    warning = network_warning(tmp_path)
    assert warning is not None
    assert "nfs4" in warning


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "ceph")),
        *((kind, True) for kind in ("fuse.sshfs", "fuse.anything", "9p", "Lustre")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs")),
    ],
)
def test_which_filesystems_are_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    mounted(monkeypatch, (str(tmp_path), kind))
    assert filesystem_of(tmp_path / "not" / "there" / "yet").network is network
    assert (network_warning(tmp_path) is not None) is network


def test_the_deepest_and_latest_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, beside = str(tmp_path / "home"), str(tmp_path / "home2")
    mounted(monkeypatch, (beside, "xfs"), (home, "autofs"), (home, "nfs4"), (f"{home}/x", "lustre"))
    assert filesystem_of(tmp_path).type == "ext4"
    assert filesystem_of(tmp_path / "home" / "me").type == "nfs4"
    assert filesystem_of(tmp_path / "home2" / "me").type == "xfs"
    assert filesystem_of(tmp_path / "home" / "x" / "run").type == "lustre"
    (tmp_path / "link").symlink_to(tmp_path / "home" / "x")
    assert filesystem_of(tmp_path / "link").type == "lustre"


def test_the_real_root_has_a_type() -> None:
    assert filesystem_of(Path("/")).type != "unknown"
