"""The driver as a job of a real Slurm: what comes after its wall time, and after exit code 75."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from alloop.config.shipped import shipped

SCRIPT = shipped("deploy") / "driver.sbatch"
ALLOOP = """#!/bin/bash
n=$(( $(cat lives 2>/dev/null || echo 0) + 1 ))
echo $n > lives
echo "life $n: $* SLURM_JOB_ID=${SLURM_JOB_ID-hidden}"
trap 'echo "life $n: paused"; exit 5' TERM
[ $n = 1 ] && while :; do sleep 0.2; done
[ $n = 2 ] && exit 75
exit 3
"""
"""A campaign that is cut off by its wall time, then asks to be started again, then is over."""


def slurm_says(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_chain_of_drivers_ends_with_the_verdict(slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "alloop").write_text(ALLOOP)
    (tmp_path / "alloop").chmod(0o755)
    script = tmp_path / "driver.sbatch"
    text = SCRIPT.read_text().replace("--partition=standard", "--partition=cpu")
    text = text.replace("--time=24:00:00", "--time=2").replace("USR1@300", "USR1@60")
    script.write_text(
        text.replace("--begin=now+60", "--begin=now+1").replace("--mem=4G", "--mem=1G")
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(
        ["sbatch", str(script), "config.yaml"], cwd=tmp_path, env=environment, check=True
    )
    log, deadline = tmp_path / "alloop-driver.log", time.monotonic() + 300
    while not log.exists() or "exit code 3" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no job began"
        time.sleep(1)

    told = [line for line in log.read_text().splitlines() if line.startswith("life")]
    assert told == [
        "life 1: start config.yaml SLURM_JOB_ID=hidden",
        "life 1: paused",
        "life 2: start config.yaml SLURM_JOB_ID=hidden",
        "life 3: start config.yaml SLURM_JOB_ID=hidden",
    ]
    while slurm_says("squeue", "--noheader", "--name=alloop-driver"):
        assert time.monotonic() < deadline
        time.sleep(1)
