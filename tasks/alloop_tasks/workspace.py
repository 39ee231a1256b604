"""Where a task finds its inputs and leaves its result: one folder shared with the driver."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alloop.artifacts import ArtifactStore, write_atomically


def canonical(content: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def task_key(kind: str, spec: dict[str, Any]) -> str:
    """Return the hash that identifies a piece of work."""
    return hashlib.sha256(canonical([kind, spec]).encode()).hexdigest()


@dataclass(slots=True)
class Workspace:
    """The campaign's folders as a worker sees them.

    Attributes
    ----------
    directory : the campaign directory.
    key : the task's key; names its files in the outbox.
    made : what the task has added to the store, for the driver to record.
    expected : how long one indivisible piece of such work took so far, s: a label of a label task,
        all of a task that cannot be laid down; None where nobody knows.

    """

    directory: Path
    key: str
    made: list[dict[str, Any]] = field(default_factory=list)
    expected: float | None = None
    _last_progress: float = 0.0

    @property
    def store(self) -> ArtifactStore:
        """The content-addressed files."""
        return ArtifactStore(self.directory / "artifacts")

    @property
    def result_path(self) -> Path:
        """Where the finished result lies until the driver has committed it."""
        return self.directory / "outbox" / f"{self.key}.json"

    @property
    def parts(self) -> Path:
        """Where finished parts of an unfinished task lie."""
        return self.directory / "outbox" / f"{self.key}.parts"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished task keeps its state, to go on from."""
        return self.parts / "checkpoint.pt"

    def state_of_parts(self) -> tuple[tuple[str, int, int], ...]:
        """Return what tells whether an unfinished task has got any further: names, times, sizes."""
        try:
            found = [(path.name, path.stat()) for path in self.parts.iterdir()]
        except OSError:  # there are none, or one has just been replaced
            return ()
        return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in found))

    @property
    def progress_path(self) -> Path:
        """What the running task says of itself."""
        return self.directory / "outbox" / f"{self.key}.progress"

    @property
    def running_path(self) -> Path:
        """Which process has taken the task; left behind by a worker that is killed."""
        return self.directory / "outbox" / f"{self.key}.running"

    @property
    def running_on(self) -> int | None:
        """Process id of the worker that has taken the task and not ended it, as far as known."""
        pid = read_json(self.running_path)
        return pid if isinstance(pid, int) else None

    def input(self, digest: str, suffix: str) -> Path:
        """Return the path of an input whose content has been checked."""
        return self.store.get(digest, suffix)

    def add(self, kind: str, suffix: str, write: Any) -> str:
        """Store what ``write(path)`` writes; return its sha-256 and note it for the driver."""
        digest = self.store.add(suffix, write)
        size = self.store.path(digest, suffix).stat().st_size
        self.made.append({"sha256": digest, "suffix": suffix, "kind": kind, "bytes": size})
        return digest

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Tell the driver how far the task is; at most twice a second, never an error."""
        if time.monotonic() - self._last_progress < 0.5:
            return
        self._last_progress = time.monotonic()
        try:
            write_json(self.progress_path, {"done": done, "total": total, "text": text})
        except OSError:
            # Progress is a courtesy: a full disk shows up where it matters, at the result.
            return


def without_nan(content: Any) -> Any:
    """Return plain values with every number that is none replaced by None: JSON has no NaN."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON under its final name only when it is whole.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold.
    """
    text = json.dumps(content, allow_nan=False)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> Any:
    """Read JSON; None when the file is absent or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
