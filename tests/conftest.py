"""What every test needs: one thread, and published data where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

DATA = Path(os.environ.get("ALLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Folder of published data sets and weights; without it the tests that need one are skipped."""


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Published data sets."""
    if not DATA.is_dir():
        pytest.skip(f"no published data in {DATA}; say where they are in ALLOOP_DATA")
    return DATA


@pytest.fixture
def ani_weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the published ANI weights, where TorchANI looks for them."""
    folder = DATA / "ani_weights"
    if not folder.is_dir():
        pytest.skip(f"no ANI weights in {folder}; say where the data are in ALLOOP_DATA")
    monkeypatch.setenv("TORCHANI_DATA_DIR", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder
