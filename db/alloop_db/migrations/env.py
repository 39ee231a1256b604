"""What Alembic runs to migrate a ledger.

alloop_db.ledger.upgrade hands it a connection with an open transaction, so that a migration that
fails or is killed leaves nothing behind.
"""

from __future__ import annotations

from alembic import context

from alloop_db.schema import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
