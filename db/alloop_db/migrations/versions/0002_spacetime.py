"""4D models are gated and probed; what was left out of a fit is remembered."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Bring a ledger of revision 0001 to revision 0002."""
    execute("0002_changes.sql")


def downgrade() -> None:
    """Refuse: what the new columns hold would be lost."""
    raise NotImplementedError("a ledger cannot go back; use the copy made before the upgrade")
