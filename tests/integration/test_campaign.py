"""A whole campaign in one process: real xTB labels, real MD, real training, a real ledger."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alloop.artifacts import ArtifactStore
from alloop.datasets import load_dataset
from alloop.errors import ConfigError, LedgerBusyError
from alloop.potentials.calculator import CommitteeCalculator
from alloop_db.lock import CampaignLock
from tests.small_campaigns import SPENT, alloop, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

CONFIG = """
schema: 1
campaign: {name: water, seed: 11, directory: run}
systems:
  water: {structure: water.xyz}
target: {force_rmse: 0.001 eV/A}
tiers:
  - {id: xtb, method: {engine: tblite, model: GFN2-xTB}, budget: {labels: 500}}
committee: [{id: ani, members: 3}]
train: {epochs: 40}
explore:
  initial: {frames: 30}
  routes:
    - {id: warm, temperature: 300 K, duration: 100 fs, replicas: 6, batch: 3}
    - {id: free, ensemble: nve, duration: 60 fs, replicas: 4, batch: 4, start: thermal}
select: {per_generation: 15}
spacetime: {cutoff: 5 fs, steps: 50, every: 1 generations}
stop: {max_generations: 2}
site: inprocess
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = write_campaign(tmp_path_factory.mktemp("campaign"), CONFIG)
    outcome = alloop("start", path)
    assert outcome.exit_code == SPENT, outcome.output
    return path


def test_every_stage_leaves_its_trace(config):
    for table in (
        "trajectory", "frame", "prediction", "decision", "label", "label_attempt", "snapshot",
        "snapshot_member", "model", "committee", "calibration", "evaluation", "spacetime_model",
        "spacetime_trajectory", "atom_energy", "environment", "event",
    ):  # fmt: skip
        assert rows(config, f"SELECT COUNT(*) FROM {table}")[0][0] > 0, table
    assert rows(config, "SELECT DISTINCT status FROM task") == [("done",)]


def test_audit_frames_are_never_trained_on(config):
    trained = "SELECT COUNT(*) FROM snapshot_member JOIN label USING (label_id)"
    trained += " JOIN frame USING (frame_id) WHERE frame.split = 'audit'"
    assert rows(config, trained) == [(0,)]
    assert rows(config, "SELECT COUNT(*) FROM label JOIN frame USING (frame_id)"
                        " WHERE frame.split = 'audit'")[0][0] > 0  # fmt: skip


def test_a_trajectory_keeps_its_split_and_gives_it_to_its_frames(config):
    mixed = "SELECT COUNT(*) FROM frame JOIN trajectory t USING (trajectory_id)"
    assert rows(config, mixed + " WHERE frame.split != t.split") == [(0,)]
    assert {split for (split,) in rows(config, "SELECT DISTINCT split FROM trajectory")} == {
        "train", "validation", "audit",
    }  # fmt: skip


def test_every_explored_label_was_predicted_before_it_was_made(config):
    blind = """SELECT COUNT(*) FROM label JOIN frame USING (frame_id)
        LEFT JOIN prediction USING (frame_id)
        WHERE frame.trajectory_id IS NOT NULL AND prediction_id IS NULL"""
    assert rows(config, blind) == [(0,)]


def test_the_held_out_file_holds_the_audit_frames_and_the_training_file_none(config):
    store = ArtifactStore(config.parent / "run" / "artifacts")
    sql = "SELECT sha256, held_out, n_labels FROM (SELECT artifact.sha256, held_out, n_labels"
    sql += " FROM snapshot JOIN artifact USING (artifact_id))"
    for artifact, held_out, n_labels in rows(config, sql):
        training = load_dataset(store.get(artifact, ".npz"))
        assert len(training) == n_labels
        assert "audit" not in training.splits
        if held_out:
            judges = load_dataset(store.get(held_out, ".npz"))
            assert set(judges.splits) == {"audit"}
            keys = {frame.key for frame in training.frames}
            assert not keys & {frame.key for frame in judges.frames}


def test_from_a_weights_file_one_query_reaches_every_label_and_its_origin(config):
    (sha256,) = rows(config, "SELECT a.sha256 FROM model JOIN artifact a USING (artifact_id)"
                             " ORDER BY model_id DESC LIMIT 1")[0]  # fmt: skip
    labels = rows(config, "SELECT n_labels FROM snapshot ORDER BY snapshot_id DESC LIMIT 1")[0][0]

    outcome = alloop("query", "model_provenance", "--set", f"model={sha256}", "-f", "json",
                     "-c", config.parent / "run")  # fmt: skip

    found = [row for row in json.loads(outcome.output) if row["depth"] == 0]
    assert len(found) == labels
    assert {row["level_of_theory"] for row in found} == {"GFN2-xTB"}
    assert all("tblite" in row["program"] for row in found)
    explored = [row for row in found if row["trajectory_id"] is not None]
    assert explored
    assert all(row["asked_by_committee_id"] is not None for row in explored)


def test_status_tells_the_same_as_the_ledger(config):
    summary = json.loads(alloop("status", "--json", "-c", config.parent / "run").output)

    assert summary["state"] == "budget"
    assert summary["labels"]["done"] == rows(config, "SELECT COUNT(*) FROM label")[0][0]
    assert [g["generation"] for g in summary["generations"]] == [0, 1, 2]
    assert summary["generations"][2]["errors"]["audit"]["n_frames"] > 0
    assert summary["spacetime_models"]
    assert "audit force RMSE" in alloop("status", "-c", config).output


def test_why_and_lineage_answer_in_words_and_as_json(config):
    (frame,) = rows(config, "SELECT frame_id FROM decision WHERE action = 'selected' LIMIT 1")[0]
    words = alloop("why", frame, "-c", config).output
    assert "GFN2-xTB" in words
    assert json.loads(alloop("why", frame, "--json", "-c", config).output)["frame"]
    assert "snapshot" in alloop("lineage", "model:1", "-c", config).output
    answer = json.loads(alloop("lineage", "spacetime_model:1", "--json", "-c", config).output)
    assert any("trajector" in link["relation"] for link in answer["up"])


def test_frames_leave_the_ledger_as_extxyz(config, tmp_path):
    from ase.io import read

    sql = "SELECT frame_id FROM label WHERE status = 'done'"
    outcome = alloop("query", sql, "-f", "extxyz", "-o", tmp_path / "out.xyz", "-c", config)
    assert outcome.exit_code == 0, outcome.output

    frames = read(tmp_path / "out.xyz", ":")

    assert len(frames) == rows(config, "SELECT COUNT(*) FROM label WHERE status = 'done'")[0][0]
    assert {"REF_energy"} <= frames[0].info.keys()
    assert frames[0].arrays["REF_forces"].shape == (3, 3)


def test_the_committee_works_in_ase(config):
    from ase.io import read

    store = ArtifactStore(config.parent / "run" / "artifacts")
    sql = """SELECT a.sha256 FROM committee_member JOIN model USING (model_id)
        JOIN artifact a USING (artifact_id) WHERE committee_id = 1"""
    atoms = read(config.parent / "water.xyz")
    atoms.calc = CommitteeCalculator([store.get(sha, ".pt") for (sha,) in rows(config, sql)])

    assert atoms.get_forces().shape == (3, 3)
    assert atoms.get_potential_energy() == pytest.approx(-138, abs=2)


def test_a_finished_campaign_does_nothing_says_so_and_ends_as_before(config):
    before = rows(config, "SELECT COUNT(*) FROM event")

    outcome = alloop("start", config)

    assert outcome.exit_code == SPENT
    assert "nothing to do" in outcome.output
    assert rows(config, "SELECT COUNT(*) FROM event") == before


def test_each_driver_notes_its_workers(config):
    noted = rows(config, "SELECT details FROM event WHERE kind = 'workers' LIMIT 1")
    assert [json.loads(text) for (text,) in noted] == [{"slots": 1, "seconds": 0.0}]
    used = json.loads(alloop("status", "-c", config, "--json").output)["utilisation"]
    assert (used["workers"], used["workers_are"]) == (1.0, "slots")
    assert 0.5 < used["part"] <= 1.0


def test_what_finished_work_depends_on_cannot_change(config, tmp_path):
    text = CONFIG.replace("seed: 11", "seed: 12")
    other = config.with_name("other.yaml")
    other.write_text(text)

    outcome = alloop("start", other)

    assert isinstance(outcome.exception, ConfigError)
    assert "campaign.seed" in str(outcome.exception)


def test_a_larger_budget_goes_on_where_the_campaign_ended(config):
    labels = rows(config, "SELECT COUNT(*) FROM label_attempt")[0][0]
    longer = config.with_name("longer.yaml")
    longer.write_text(CONFIG.replace("max_generations: 2", "max_generations: 3"))

    outcome = alloop("start", longer)

    assert outcome.exit_code == SPENT, outcome.output
    assert "max_generations: 2 -> 3" in outcome.output
    assert rows(config, "SELECT MAX(number) FROM generation") == [(3,)]
    after = rows(config, "SELECT COUNT(*) FROM label_attempt")[0][0]
    assert 0 < after - labels <= 15


def test_a_second_driver_is_told_who_holds_the_campaign(config):
    with CampaignLock(config.parent / "run"):
        outcome = alloop("start", config)

    assert isinstance(outcome.exception, LedgerBusyError)
    assert f"process {os.getpid()}" in str(outcome.exception)
