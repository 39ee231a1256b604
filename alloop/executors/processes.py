"""Find and end the processes that belong to a campaign, whoever started them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

VARIABLE = "ALLOOP_CAMPAIGN"
"""Environment variable that marks each process of a campaign with the campaign's directory."""


def of_campaign(directory: Path) -> list[psutil.Process]:
    """Return the living processes whose environment names this campaign, except ourselves."""
    tag, own = str(directory.resolve()), os.getpid()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            belongs = process.pid != own and process.environ().get(VARIABLE) == tag
            if belongs and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_campaign(directory: Path) -> None:
    """End every process of a campaign, also those that come up while others are being ended."""
    for _ in range(5):
        found = of_campaign(directory)
        if not found:
            return
        end(found)


def end(processes: list[psutil.Process], grace: float = 2.0) -> int:
    """Terminate processes, kill what is left after ``grace`` seconds; return how many ended."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(left, timeout=grace)
    return len(processes) - len(left)
