"""${message}."""

from __future__ import annotations

from alloop_db.migrations import execute

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Bring a ledger of revision ${down_revision} to revision ${up_revision}."""
    execute("${up_revision}_changes.sql")


def downgrade() -> None:
    """Refuse: what the new columns hold would be lost."""
    raise NotImplementedError("a ledger cannot go back; use the copy made before the upgrade")
