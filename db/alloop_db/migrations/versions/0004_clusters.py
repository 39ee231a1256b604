"""Clusters: tasks that are handed back, and where each of them ran."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Bring a ledger of revision 0003 to revision 0004."""
    execute("0004_changes.sql")


def downgrade() -> None:
    """Refuse: what the new columns hold would be lost."""
    raise NotImplementedError("a ledger cannot go back; use the copy made before the upgrade")
