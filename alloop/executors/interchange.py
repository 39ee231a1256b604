"""Parsl's interchange, which takes all processes of its campaign along when the driver dies.

``python -m alloop.executors.interchange DIRECTORY DRIVER_PID``, as a child of the driver.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from alloop.executors.processes import end_campaign

WATCH_EVERY_S = 0.5
START_ME_AGAIN = 75


def main(directory: Path, driver: int) -> None:
    """Watch the driver, and be Parsl's interchange."""
    # Ctrl-C goes to every process of the terminal; it is the driver that decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(directory, driver), daemon=True).start()
    # A process title overwrites the environment in /proc by which the campaign knows its own.
    sys.modules["setproctitle"] = None  # type: ignore[assignment]  # makes its import fail
    runpy.run_module(
        "parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True
    )


def _follow(directory: Path, driver: int) -> None:
    # Not psutil: its start times move with the clock, a parent that dies is replaced at once.
    while os.getppid() == driver:
        time.sleep(WATCH_EVERY_S)
    end_campaign(directory)
    os._exit(START_ME_AGAIN)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
