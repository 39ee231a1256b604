"""What Alembic runs to migrate a ledger; alloop_db.ledger.upgrade hands it the connection."""

from __future__ import annotations

from alembic import context

from alloop_db.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite can: a killed migration leaves nothing behind
)
with context.begin_transaction():
    context.run_migrations()
