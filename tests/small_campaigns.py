"""Real campaigns on one water molecule: their files, their drivers, and what their ledgers say."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner, Result

from alloop.cli.main import app

WATER = "3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
CONVERGED, SPENT, STALLED, PAUSED = 0, 3, 4, 5
"""Exit codes of ``alloop start``."""


def write_campaign(folder: Path, config: str) -> Path:
    """Write a config beside the ``water.xyz`` that it names; return its path."""
    folder.mkdir(exist_ok=True)
    (folder / "water.xyz").write_text(WATER)
    (folder / "config.yaml").write_text(config)
    return folder / "config.yaml"


def alloop(*words: object) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def start(config: Path) -> subprocess.Popen[str]:
    """Drive a campaign in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "alloop", "start", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(config: Path, code: int = SPENT) -> str:
    """Drive a campaign to its verdict; return what it said."""
    driver = start(config)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == code, output
    return output


def reading(config: Path) -> closing[sqlite3.Connection]:
    """Open the ledger, which somebody else may be writing."""
    path = f"file:{config.parent}/run/ledger.sqlite?mode=ro"
    return closing(sqlite3.connect(path, uri=True, timeout=30))


def rows(config: Path, sql: str) -> list[tuple]:
    """Ask the ledger."""
    with reading(config) as ledger:
        return ledger.execute(sql).fetchall()


def check_sound(config: Path) -> None:
    """Check that a ledger is whole, and that no label was made twice."""
    assert rows(config, "PRAGMA integrity_check") == [("ok",)]
    assert rows(config, "PRAGMA foreign_key_check") == []
    twice = "SELECT label_id FROM label_attempt WHERE status = 'done' GROUP BY 1"
    assert rows(config, f"{twice} HAVING COUNT(*) > 1") == []
