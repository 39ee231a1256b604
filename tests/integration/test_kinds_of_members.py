"""Campaigns whose committees are made of several architectures, or of published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alloop.potentials.ani.pretrained import pretrained
from alloop.potentials.calculator import CommitteeCalculator
from alloop.potentials.files import load_member
from tests.small_campaigns import SPENT, alloop, rows, write_campaign

pytestmark = pytest.mark.timeout(600)

CONFIG = """
schema: 1
campaign: {{name: water, seed: 11, directory: run}}
systems:
  water: {{structure: water.xyz}}
target: {{force_rmse: 0.001 eV/A}}
tiers:
  - {{id: first, method: {{{method}}}, budget: {{labels: 200}}}}
committee: {committee}
train: {{max_steps: 60, warm_steps: 30}}
explore:
  initial: {{frames: 25}}
  routes:
    - {{id: warm, temperature: 300 K, duration: 50 fs, replicas: 4, batch: 4}}
select: {{per_generation: 10}}
stop: {{max_generations: 2}}
site: inprocess
"""


def run(folder: Path, method: str, committee: str) -> list[Path]:
    """Run a campaign and return the files of its last committee, by seat."""
    config = write_campaign(folder, CONFIG.format(method=method, committee=committee))
    outcome = alloop("start", config)
    assert outcome.exit_code == SPENT, outcome.output
    sql = """SELECT sha256 FROM committee_member JOIN model USING (model_id)
        JOIN artifact USING (artifact_id)
        WHERE committee_id = (SELECT MAX(committee_id) FROM committee) ORDER BY position"""
    artifacts = folder / "run" / "artifacts"
    return [next(artifacts.rglob(f"{digest}*")) for (digest,) in rows(config, sql)]


def test_a_committee_can_mix_architectures(tmp_path):
    committee = (
        "[{id: ani, members: 1}, {id: newton, kind: newtonnet, members: 1, settings:"
        " {features: 16}}, {id: hip, kind: hipnn, members: 1}]"
    )
    files = run(tmp_path, "engine: tblite", committee)
    members = [load_member(path) for path in files]
    assert sorted(member.architecture for member in members) == ["ani", "hipnn", "newtonnet"]
    narrow = next(member for member in members if member.architecture == "newtonnet")
    assert narrow.settings["features"] == 16
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator(files)
    assert np.isfinite(atoms.get_forces()).all()
    assert 0.0 < atoms.calc.results["forces_std_max"] < np.inf


def test_members_can_start_from_published_weights(tmp_path, ani_weights):
    committee = "[{id: ani, members: 3, pretrained: ANI-1x, freeze: [auto]}]"
    files = run(tmp_path, "engine: ani, model: ANI-1ccx", committee)
    published = pretrained("ANI-1x")
    for path, parent in zip(files, published, strict=False):
        member = load_member(path)
        assert member.level_of_theory == "ANI-1ccx"
        assert member.elements == (1, 6, 7, 8)
        same = {name for name, w in member.weights.items() if w.equal(parent.weights[name])}
        assert {name.split(".", 1)[1][0] for name in same if name[0] in "HO"} == {"0", "2"}
