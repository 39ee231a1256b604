"""Several tiers: labels without forces, promotions, modes of transfer and their scores."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Bring a ledger of revision 0002 to revision 0003."""
    execute("0003_changes.sql")


def downgrade() -> None:
    """Refuse: what the new columns hold would be lost."""
    raise NotImplementedError("a ledger cannot go back; use the copy made before the upgrade")
