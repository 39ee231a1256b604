"""The tally of labels says at every moment what counting them would say."""

from __future__ import annotations

from sqlalchemy import delete, func, select, update

from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from tests.ledger_sample import fill


def counted(engine) -> dict[tuple[int, str], int]:
    label = t.LabelRow
    with engine.connect() as connection:
        rows = connection.execute(
            select(label.generation_id, label.status, func.count()).group_by(
                label.generation_id, label.status
            )
        )
        return {(generation, status): n for generation, status, n in rows}


def tallied(engine) -> dict[tuple[int, str], int]:
    with engine.connect() as connection:
        rows = connection.execute(select(t.LabelTally.__table__))
        return {(row.generation_id, row.status): row.n for row in rows if row.n}


def test_the_tally_follows_inserts_changes_and_deletions(tmp_path):
    engine = open_ledger(tmp_path, create=True)
    fill(engine, n_frames=12)
    assert counted(engine)
    assert tallied(engine) == counted(engine)

    with engine.begin() as connection:
        failed = select(t.LabelRow.label_id).where(t.LabelRow.status == "failed")
        first = connection.scalar(failed)
        connection.execute(
            update(t.LabelRow).where(t.LabelRow.label_id == first).values(status="pending")
        )
    assert tallied(engine) == counted(engine)

    with engine.begin() as connection:
        attempts = delete(t.LabelAttempt).where(t.LabelAttempt.label_id == first)
        connection.execute(attempts)
        connection.execute(delete(t.LabelRow).where(t.LabelRow.label_id == first))
    assert tallied(engine) == counted(engine)
