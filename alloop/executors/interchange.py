"""Parsl's interchange, which takes all processes of its campaign along when the driver dies.

``python -m alloop.executors.interchange DIRECTORY SCRATCH DRIVER_PID``, as a child of the driver;
SCRATCH is a folder that nobody needs after it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from alloop.executors.processes import end_campaign

WATCH_EVERY_S = 0.5
START_ME_AGAIN = 75


def main(directory: Path, scratch: Path, driver: int) -> None:
    """Watch the driver, and be Parsl's interchange."""
    serve(driver, lambda: _end(directory, scratch))


def serve(driver: int, end: Callable[[], None]) -> None:
    """Be Parsl's interchange; when the driver dies, call ``end`` and die too."""
    # Out of the terminal's reach: what Ctrl-C or Ctrl-Z means is for the driver to say.
    os.setpgrp()
    threading.Thread(target=_follow, args=(driver, end), daemon=True).start()
    # A process title overwrites the environment in /proc by which the campaign knows its own.
    sys.modules["setproctitle"] = None  # type: ignore[assignment]  # makes its import fail
    runpy.run_module(
        "parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True
    )


def _follow(driver: int, end: Callable[[], None]) -> None:
    # Not psutil: its start times move with the clock, a parent that dies is replaced at once.
    while os.getppid() == driver:
        time.sleep(WATCH_EVERY_S)
    end()
    os._exit(START_ME_AGAIN)


def _end(directory: Path, scratch: Path) -> None:
    end_campaign(directory)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
