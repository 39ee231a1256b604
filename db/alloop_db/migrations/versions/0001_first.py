"""The first schema: tables, the triggers that seal them, and the views."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Fill an empty database."""
    for script in ("0001_tables.sql", "0001_triggers.sql", "0001_views.sql"):
        execute(script)


def downgrade() -> None:
    """Refuse: there is nothing before the first schema."""
    raise NotImplementedError("a ledger cannot go back; delete the file to start anew")
