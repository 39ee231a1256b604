"""What a worker hands back, as a test makes it up."""

from __future__ import annotations

from typing import Any

from alloop_db import schema as t
from alloop_tasks.environment import environment


def envelope(key: str, *artifacts: dict[str, Any], **result: Any) -> dict[str, Any]:
    """Return the record of a finished task with these files and this result."""
    return {
        "key": key,
        "status": "done",
        "started_at": t.now(),
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "environment": environment(),
        "artifacts": list(artifacts),
        "result": result,
    }
