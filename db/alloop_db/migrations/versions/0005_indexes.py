"""Scale: what a plan asks for is found by an index, however long the history."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Bring a ledger of revision 0004 to revision 0005."""
    execute("0005_changes.sql")


def downgrade() -> None:
    """Refuse, as every revision does."""
    raise NotImplementedError("a ledger cannot go back; use the copy made before the upgrade")
