"""The state of long work on disk: it goes on where it was killed, or was laid down in time."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alloop.artifacts import write_atomically
from alloop.errors import OutOfTime

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"alloop checkpoint 1\n"
_DIGEST = 32


class CheckpointFile:
    """One file that holds the newest state of one piece of work, and says whose it is.

    Nothing about it can fail the work: what cannot be used or written is told by ``note``.

    Parameters
    ----------
    path : of the file; its folder is made where it is missing.
    owner : of the work, see :func:`identity`; the state of other work is not used.
    every_s : seconds between two writes.
    lay_down_at : value of ``time.monotonic()`` by which the work must have been laid down; None
        lets it go on to its end.

    """

    def __init__(
        self, path: Path, owner: str, every_s: float, lay_down_at: float | None = None
    ) -> None:
        self._path, self._owner, self._every_s = path, owner, every_s
        self._lay_down_at = lay_down_at
        self._written = self._resumed = time.monotonic()
        self._longest = 0.0  # time between two offers
        self._writing = 0.0  # time that the last write took
        self.note = ""

    def load(self) -> dict[str, Any] | None:
        """Return the state that was kept last, or None and a note if it cannot be used.

        Raises OutOfTime if there is no time for any work.
        """
        self._resumed = time.monotonic()
        if self._lay_down_at is not None and self._resumed >= self._lay_down_at:
            raise OutOfTime("there was no time left to go on", advanced=False)
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.note = f"checkpoint {self._path} cannot be read ({error.strerror}): began anew"
            return None
        digest, state = content[len(_MAGIC) :][:_DIGEST], content[len(_MAGIC) + _DIGEST :]
        if not content.startswith(_MAGIC) or hashlib.sha256(state).digest() != digest:
            self.note = f"checkpoint {self._path} is damaged: began anew"
            return None
        kept: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
        if kept["owner"] != self._owner:
            self.note = f"checkpoint {self._path} is of another fit: began anew"
            return None
        state_of_fit: dict[str, Any] = kept["state"]
        return state_of_fit

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write the state if the last write is long enough ago.

        To be called when something has been done. Raises OutOfTime, with the state written, if
        there is no time left for as much as was ever done between two calls, and a write.
        """
        now = time.monotonic()
        self._longest = max(self._longest, now - self._resumed)
        soon = now + self._longest + self._writing
        if self._lay_down_at is not None and soon >= self._lay_down_at:
            written = self.keep(state())
            text = "laid down in time, to go on later" if written else self.note
            raise OutOfTime(text, advanced=written)
        if now - self._written >= self._every_s:
            self.keep(state())
        self._resumed = time.monotonic()

    def keep(self, state: Mapping[str, Any]) -> bool:
        """Write a state now; return whether it could be written."""
        began = time.monotonic()
        stream = io.BytesIO()
        torch.save({"owner": self._owner, "state": dict(state)}, stream)
        kept = stream.getvalue()
        content = _MAGIC + hashlib.sha256(kept).digest() + kept
        written = True
        try:
            write_atomically(self._path, lambda temporary: _write(temporary, content))
        except OSError as error:
            self.note = f"checkpoint {self._path} could not be written: {error.strerror}"
            written = False
        self._written = time.monotonic()
        self._writing = self._written - began
        return written


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def identity(*parts: object) -> str:
    """Return a hash of plain values, arrays, tensors and dataclasses of these, all they hold."""
    digest = hashlib.sha256()
    for chunk in _chunks(parts):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(value: object) -> list[bytes]:
    """Return bytes that differ where values differ."""
    if isinstance(value, Tensor):
        return _of_array(value.detach().numpy())
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _of_list([(field.name, getattr(value, field.name)) for field in fields(value)])
    if isinstance(value, Mapping):
        return _of_list(sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _of_list(value)
    return [f"{value!r};".encode()]


def _of_array(array: NDArray[Any]) -> list[bytes]:
    return [f"{array.dtype}{array.shape};".encode(), np.ascontiguousarray(array).tobytes()]


def _of_list(values: Sequence[object]) -> list[bytes]:
    head = [f"list of {len(values)};".encode()]
    return head + [chunk for value in values for chunk in _chunks(value)]
