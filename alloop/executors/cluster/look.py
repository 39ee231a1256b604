"""What a worker sees where it runs: the tiny task that ``alloop doctor`` sends to each pool."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from alloop_tasks.environment import environment

SCRATCH_PROBE_BYTES = 1_000_000


def look(word_file: str, needs: list[str]) -> dict[str, Any]:
    """Return what there is on this node, as plain values.

    ``word_file`` is a file that the driver has just written; ``needs`` are programs to look for.
    """
    return {
        "time": time.time(),
        "word": _read(Path(word_file)),
        "environment": environment(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "programs": {name: shutil.which(name) for name in needs},
        "scratch": _scratch(),
        "gpus": _gpus(),
        "deadline": os.environ.get("ALLOOP_BLOCK_DEADLINE"),
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _scratch() -> dict[str, Any]:
    """Return where temporary files go, how much room there is, and why one cannot be written."""
    folder = tempfile.gettempdir()
    found: dict[str, Any] = {"folder": folder, "free_bytes": shutil.disk_usage(folder).free}
    try:
        with tempfile.TemporaryFile() as probe:
            probe.write(bytes(SCRATCH_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _gpus() -> dict[str, Any]:
    """Return the GPUs that this worker may use, and those that the node's driver knows."""
    listed: list[str] = []
    if shutil.which("nvidia-smi"):
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False
        )
        listed = [line.split(" (UUID")[0] for line in done.stdout.splitlines()]
    return {"visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "on_node": listed}
