"""A real Slurm for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import slurm_cluster

ALWAYS = ("test_slurm_campaign.py", "test_rules.py")
"""Tests that are worth their minute or two each time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Daemons, jobs and time limits take minutes: most of these tests have their own command."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name not in ALWAYS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running Slurm, which this process's commands find."""
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        try:
            found = slurm_cluster.up(folder)
        except slurm_cluster.ClusterError as error:
            slurm_cluster.down(folder)
            pytest.skip(f"no Slurm can run here: {error}")
        for name, value in found.items():
            patch.setenv(name, value)
        try:
            yield folder
        finally:
            slurm_cluster.down(folder)
