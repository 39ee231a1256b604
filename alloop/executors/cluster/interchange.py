"""Parsl's interchange for one pool: when the driver dies, it cancels all jobs and dies too.

``python -m alloop.executors.cluster.interchange DIRECTORY DRIVER_PID``, as a child of the driver.
Should this process be killed as well, running blocks end for want of heartbeats, and the next
start cancels those that wait.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alloop.executors.cluster.reaper import JOURNAL, cancel_listed
from alloop.executors.interchange import serve
from alloop.executors.processes import end_campaign


def main(directory: Path, driver: int) -> None:
    """Watch the driver, and be Parsl's interchange."""
    serve(driver, lambda: _end(directory))


def _end(directory: Path) -> None:
    # Of every pool, not just ours: the first interchange that is done ends the others.
    for journal in (directory / "parsl").glob(f"*/{JOURNAL}"):
        cancel_listed(journal)
    end_campaign(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
