"""What a task uses of its machine: processor time and memory, of its process and those below it.

The label of a program such as PySCF is made in a child that outlives the task: its time is in no
``getrusage``. Linux tells it, child by child, without a look at all processes of the node.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
MB: Final = 1e6
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process and those below it had used when a task began.

    Attributes
    ----------
    cpu_seconds : processor time, of children that are gone too.
    ended_peak : most memory of any child that was gone by then, MB.

    """

    cpu_seconds: float
    ended_peak: float

    @classmethod
    def begin(cls) -> Usage:
        """Start measuring; memory is measured from here on, where the system can."""
        for process in (os.getpid(), *_below(os.getpid())):
            _forget_peak(process)
        return cls(_cpu_seconds(), _ended_peak())

    def cpu(self) -> float:
        """Return the processor time since the begin, s."""
        return max(0.0, _cpu_seconds() - self.cpu_seconds)

    def peak_memory(self) -> float:
        """Return the most memory used since the begin, MB: of this process, and its largest child.

        Where there is no /proc, and of children that are gone, since they began.
        """
        children = [_peak(process) or 0.0 for process in _below(os.getpid())]
        ended = _ended_peak()
        if ended > self.ended_peak:
            children.append(ended)
        own = _peak(os.getpid())
        if own is None:
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / MB
        return own + max(children, default=0.0)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    below = sum(_cpu_of(process) for process in _below(os.getpid()))
    return sum(one.ru_utime + one.ru_stime for one in used) + below


def _ended_peak() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _RSS_UNIT / MB


def _below(process: int) -> Iterator[int]:
    """Yield the processes below one, those that are still there."""
    for path in PROC.glob(f"{process}/task/*/children"):
        for child in _read(path).split():
            yield int(child)
            yield from _below(int(child))


def _cpu_of(process: int) -> float:
    """Return the processor time of a process and of its children that are gone, s."""
    # After the name, which may hold anything: state, and 10 numbers before the four times.
    times = _read(PROC / f"{process}/stat").rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / _TICKS


def _peak(process: int) -> float | None:
    """Return the most memory of a process, MB; None where the system does not tell."""
    for line in _read(PROC / f"{process}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / MB
    return None


def _forget_peak(process: int) -> None:
    try:
        (PROC / f"{process}/clear_refs").write_text("5")
    except OSError:  # another system, another user's, or gone: its peak is that of its life
        return


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
