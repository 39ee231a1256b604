"""One transaction of the writer, and the events that go along with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from alloop_db import schema as t


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Commit what is done inside, or nothing of it."""
    with Session(engine) as session, session.begin():
        yield session


def record_event(session: Session, kind: str, text: str, details: dict[str, Any] | None) -> None:
    """Note, within a transaction, something that people should be able to read later."""
    session.execute(insert(t.Event).values(at=t.now(), kind=kind, text=text, details=details))
