"""``alloop doctor`` on a real Slurm with pretended GPUs, and on this machine."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alloop.cli.main import app
from alloop.errors import SiteError
from alloop.executors.cluster.look import look
from alloop.executors.processes import of_campaign
from tests.cluster.small_pools import jobs, wait_until

pytestmark = pytest.mark.timeout(300)

SITE = """
kind: cluster
address: 127.0.0.1
heartbeat_period: 1 s
heartbeat_threshold: 4 s
pools:
  gpus: {type: slurm, partition: gpu, walltime: 30 min, longest_task: 5 min, gpus_per_node: 2}
  bad: {type: slurm, partition: cpu, walltime: 30 min, longest_task: 5 min, workers: 1,
        env: {check: ["orca --version"]}}
roles: {explore: gpus, label: bad, train: gpus}
"""


def doctor(*words):
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path / "site.yaml"


def test_without_a_probe_it_says_what_can_be_known_here(slurm, site):
    before = jobs()

    outcome = doctor(site, "--directory", site.parent)

    assert outcome.exit_code == 0, outcome.output
    assert "a second driver is refused" in outcome.output
    assert "pool gpus: 2 tasks at a time" in outcome.output
    assert "blocks take tasks for 1380 s" in outcome.output
    assert jobs() == before
    assert list(site.parent.iterdir()) == [site]


def test_it_prints_what_would_be_submitted_and_submits_nothing(slurm, site):
    before = jobs()

    outcome = doctor(site, "--directory", site.parent, "--scripts")

    assert outcome.exit_code == 0, outcome.output
    for text in ("# pool gpus", "--partition=gpu", "--gres=gpu:2", "--no-requeue", "# pool bad",
                 "process_worker_pool", "orca --version"):  # fmt: skip
        assert text in outcome.output
    assert f"--comment=alloop:{site.parent.name}" in outcome.output
    assert jobs() == before


def test_a_probe_looks_at_every_pool_and_leaves_nothing(slurm, site, monkeypatch):
    monkeypatch.setattr("alloop.executors.sites.compile.STRATEGY_PERIOD_S", 1)
    monkeypatch.setattr("alloop.executors.cluster.providers.Patient.poll_s", 2)
    monkeypatch.setattr("alloop.executors.cluster.providers.Patient.first_pause_s", 1.0)

    outcome = doctor(
        site, "-d", site.parent, "--probe", "--json", "--needs", "sh", "--needs", "x y"
    )

    assert outcome.exit_code == 1, outcome.output
    found = json.loads(outcome.output)
    good = [one for one in found if one["where"] == "pool gpus"]
    texts = " | ".join(one["text"] for one in good)
    assert "round trip" in texts
    assert "its clock is" in texts
    assert "tblite" in texts
    assert "CUDA_VISIBLE_DEVICES=" in texts
    assert "its block ends in" in texts
    assert [one["text"] for one in good if one["level"] == "problem"] == ["x y is not in its PATH"]
    (problem,) = [one for one in found if one["where"] == "pool bad" and one["level"] == "problem"]
    assert "orca: command not found" in problem["text"]
    wait_until(lambda: jobs() == [])
    assert of_campaign(site.parent) == []
    assert list(site.parent.iterdir()) == [site]


def test_it_probes_this_process_too(tmp_path):
    outcome = doctor("inprocess", "--probe", "-d", tmp_path)

    assert outcome.exit_code == 0, outcome.output
    assert "this process: scratch" in outcome.output


def test_a_site_that_cannot_be_read_is_a_fault_of_what_was_given(tmp_path):
    (tmp_path / "site.yaml").write_text("kind: cluster\npools: {}\n")

    assert isinstance(doctor(tmp_path / "site.yaml").exception, SiteError)


def test_a_worker_that_does_not_share_the_directory_is_found_out(tmp_path):
    assert look(str(tmp_path / "absent"), [])["word"] is None
