"""From a frame to its reasons, and from a weight file to everything behind and after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from alloop.errors import LedgerError
from alloop_db.arrays import blob_to_vectors
from alloop_db.ledger import open_ledger, open_readonly
from alloop_db.lineage import lineage
from alloop_db.provenance import why
from alloop_db.queries import run
from tests.ledger_rows import STIFFER, WEIGHTS, digest
from tests.ledger_sample import write_sample


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_readonly(write_sample(tmp_path_factory.mktemp("campaign")))
    yield engine
    engine.dispose()


def frame_key(reader: Engine, frame_id: int) -> str:
    ((key,),) = run(reader, "SELECT key FROM frame WHERE frame_id = :f", {"f": frame_id}).rows
    return str(key)


def test_a_selected_frame_tells_its_whole_story(reader: Engine) -> None:
    text = why(reader, 9).text()
    assert [line.split()[0] for line in text.splitlines()] == [
        *("Frame", "Found", "Predicted", "Decided", "Labelled", "Error", "Used")
    ]
    for words in (
        "a geometry of water (H2O, charge 0, singlet), train split",
        "step 90 (45 fs) of trajectory 1: NVE at 300 K, route warm, generation 1",
        "run by committee 1 (3 models trained on 4 labels)",
        "members differ by up to 0.39 eV/Å on an atom (error bound 0.9 eV/Å)",
        "selected by rule band in generation 1: value 0.4, low 0.1, high 1.5",
        "try 1 failed after 2 s on node1 by tblite 0.8.0 (scf_not_converged: no convergence in 250",
        "try 2 gave energy -1999.8092 eV after 0.5 s on node1 by tblite 0.8.0",
        "for train in snapshot 2: models 4, 5, 6 of committee 2",
    ):
        assert words in text


def test_the_error_is_that_of_the_springs(reader: Engine) -> None:
    story = why(reader, 9)
    ((forces,),) = run(reader, "SELECT forces FROM label WHERE frame_id = 9").rows
    expected = STIFFER * np.sqrt(np.mean(blob_to_vectors(forces) ** 2))
    assert story.predictions[0]["force_rmse"] == pytest.approx(expected, rel=1e-12)
    ((energy,),) = run(reader, "SELECT energy FROM label WHERE frame_id = 9").rows
    assert story.predictions[0]["energy_error"] == pytest.approx(
        story.predictions[0]["energy"] - energy, abs=1e-12
    )


@pytest.mark.parametrize(
    ("frame_id", "words"),
    [
        (1, ["in the initial set, drawn by wigner", "for train in snapshot 1: models 1, 2, 3"]),
        (6, ["rejected by rule band", "no label was asked for", "in no training set"]),
        (11, ["audit split", "ended early: contact", "audit frames only measure the error"]),
        (12, ["try 3 failed", "given up", "in no training set"]),
    ],
)
def test_other_fates(reader: Engine, frame_id: int, words: list[str]) -> None:
    text = why(reader, frame_id).text()
    for expected in words:
        assert expected in text


def test_a_frame_of_a_charged_radical_before_calibration(tmp_path: Path) -> None:
    engine = open_ledger(write_sample(tmp_path), create=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE system SET charge = -1, multiplicity = 2")
        connection.exec_driver_sql(
            "INSERT INTO prediction SELECT 99, frame_id, 2, energy, forces, energy_spread,"
            " energy_spread_per_sqrt_atom, force_spread_max, force_spread_mean, NULL"
            " FROM prediction WHERE frame_id = 6"
        )
        connection.exec_driver_sql(
            "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
            " VALUES (6, 1, 2, 'pending', 0)"
        )
    text = why(engine, 6).text()
    engine.dispose()
    assert "charge -1, doublet" in text
    assert "(not yet calibrated)" in text
    assert "GFN2-xTB: still to come" in text


def test_json_holds_the_same_story(reader: Engine) -> None:
    story = json.loads(why(reader, "frame:9").json())
    assert story["frame"]["system"] == "water"
    assert story["trajectory"]["shard"] == digest("shard")
    assert [model["model_id"] for model in story["committee"]] == [1, 2, 3]
    assert story["decisions"][0]["numbers"] == {"value": 0.4, "low": 0.1, "high": 1.5}
    assert [attempt["status"] for attempt in story["labels"][0]["attempts"]] == ["failed", "done"]
    (use,) = story["uses"]
    assert (use["snapshot_id"], use["models"], use["committees"]) == (2, [4, 5, 6], [2])


def test_a_frame_is_found_by_its_key(reader: Engine) -> None:
    key = frame_key(reader, 9)
    assert why(reader, key).frame["frame_id"] == 9
    assert why(reader, key[:8].upper()).frame["frame_id"] == 9


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (99, "'99' names nothing in the ledger; give a frame_id"),
        ("deadbeef", "'deadbeef' is not in this ledger"),
        ("model:1", "model:1 is a model; give a frame_id"),
        ("frame:99", "frame:99 is not in this ledger; they go up to frame:12"),
        ("my frame", "names nothing"),
        ("x" * 5000, "names nothing"),
    ],
)
def test_frames_that_are_not_there(reader: Engine, identity: int | str, message: str) -> None:
    with pytest.raises(LedgerError, match=message) as caught:
        why(reader, identity)
    assert "\n" not in str(caught.value)


def test_from_a_weight_file_up_to_the_first_labels(reader: Engine, tmp_path: Path) -> None:
    weights = tmp_path / "somebody renamed me.pt"
    weights.write_bytes(WEIGHTS[3])
    history = lineage(reader, str(weights))
    assert str(history.node) == "model:4"
    facts = {(str(link.source), link.relation, str(link.target)) for link in history.up}
    assert facts == {
        ("model:4", "was trained on", "snapshot:2"),
        ("model:4", "started from the weights of", "model:1"),
        ("snapshot:2", "has 3 labels asked for by", "committee:1"),
        ("committee:1", "consists of", "model:1"),
        ("committee:1", "consists of", "model:2"),
        ("committee:1", "consists of", "model:3"),
        ("model:1", "was trained on", "snapshot:1"),
        ("model:2", "was trained on", "snapshot:1"),
        ("model:3", "was trained on", "snapshot:1"),
    }
    assert [(link.relation, str(link.target)) for link in history.down] == [
        ("sits in", "committee:2")
    ]
    text = history.text()
    assert "7 labels at GFN2-xTB by tblite 0.8.0, 4 of the initial set" in text
    command = text.splitlines()[-1].split("alloop query ")[1].split()
    assert len(run(reader, command[0], dict([command[2].split("=")])).rows) == 11


@pytest.mark.parametrize(
    ("identity", "up", "down"),
    [
        ("committee:1", {"model:3", "snapshot:1"}, {"snapshot:2", "model:6", "spacetime_model:1"}),
        (
            "spacetime_model:1",
            {"committee:1", "model:1", "snapshot:1"},
            {"spacetime_probe:1", "trajectory:3", "spacetime_model:2"},
        ),
        ("spacetime_model:2", {"spacetime_model:1", "spacetime_probe:1", "committee:1"}, set()),
        ("trajectory:3", {"spacetime_probe:1", "spacetime_model:1"}, {"spacetime_model:2"}),
        ("snapshot:2", {"committee:1", "snapshot:1"}, {"model:4", "committee:2"}),
        ("frame:9", {"trajectory:1", "committee:1"}, {"label:9", "snapshot:2", "committee:2"}),
        ("label:7", {"frame:7", "trajectory:2"}, set()),  # an audit label trains nothing
        ("trajectory:2", {"committee:1"}, {"spacetime_model:1"}),
        ("snapshot:1", set(), {"model:1", "committee:1", "snapshot:2", "model:4"}),
    ],
)
def test_up_and_down(reader: Engine, identity: str, up: set[str], down: set[str]) -> None:
    content = json.loads(lineage(reader, identity).json())
    reached_up = {link["to"] for link in content["up"]}
    reached_down = {link["to"] for link in content["down"]}
    assert up <= reached_up
    assert down <= reached_down
    assert bool(up) is bool(reached_up)
    assert bool(down) is bool(reached_down)
    assert identity not in reached_up | reached_down


def test_hashes_of_each_kind(reader: Engine) -> None:
    assert str(lineage(reader, digest("committee", 4, 5, 6)[:12]).node) == "committee:2"
    assert str(lineage(reader, digest("snapshot", 1)).node) == "snapshot:1"
    assert str(lineage(reader, digest("spacetime")[:12]).node) == "spacetime_model:1"
    assert str(lineage(reader, frame_key(reader, 3)).node) == "frame:3"


def test_an_ambiguous_hash_lists_the_candidates(reader: Engine) -> None:
    with pytest.raises(LedgerError, match="could be trajectory:1, trajectory:2; say which"):
        lineage(reader, digest("shard"))  # two replicas in one file


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("17", "names nothing in the ledger; give KIND:NUMBER"),
        ("model:99", "model:99 is not in this ledger; they go up to model:6"),
        ("molecule:1", "names nothing"),
        ("abcdef012345", "is not in this ledger"),
    ],
)
def test_identities_that_are_not_there(reader: Engine, identity: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        lineage(reader, identity)


def test_a_file_that_the_ledger_does_not_know(reader: Engine, tmp_path: Path) -> None:
    (tmp_path / "foreign.pt").write_bytes(b"not ours")
    with pytest.raises(LedgerError, match=r"file .*foreign.pt \(sha256 \w{12}\) is not in this"):
        lineage(reader, str(tmp_path / "foreign.pt"))
