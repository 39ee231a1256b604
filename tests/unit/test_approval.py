"""What ``alloop start --approve`` agrees to: the labels that are still to be made."""

from __future__ import annotations

from alloop.artifacts import ArtifactStore
from alloop.campaign.start import _approve
from alloop_db.ledger import open_ledger
from alloop_db.store import Store
from tests.ledger_sample import write_sample
from tests.ledger_tiers import add_tier

PENDING = (
    "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
    " VALUES (2, 2, 4, 'pending', 0), (3, 2, 4, 'pending', 0)"
)


def test_labels_that_wait_are_approved_once(tmp_path):
    engine = open_ledger(write_sample(tmp_path), create=False)
    add_tier(engine)
    store = Store(engine, ArtifactStore(tmp_path / "artifacts"))
    said: list[str] = []

    _approve(store, said.append)
    assert said == ["nothing waits for approval"], "the labels of the open generation are made"
    assert not store.state().generation.approved

    with engine.begin() as connection:
        connection.exec_driver_sql(PENDING)
    _approve(store, said.append)
    _approve(store, said.append)
    engine.dispose()

    assert said[1:] == ["2 labels of tier dft approved", "nothing waits for approval"]
