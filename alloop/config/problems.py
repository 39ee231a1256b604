"""What can be wrong with a campaign file, and how it is said: one line each, sorted by place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Path = tuple[str | int, ...]
"""Place in a campaign file: keys, and for list items their id (their number if they have none)."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Line and column of a campaign file, both from 1; line 0 is outside the file."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: where, what, and which other places must be sound for it to be one.

    ``needs`` lists places whose own faults would make this one spurious, beyond ``path`` itself.
    ``mark`` is given where the file holds something that has no path, such as a second equal key.
    """

    path: Path
    message: str
    needs: tuple[Path, ...] = ()
    mark: Mark | None = None

    def concerns(self, path: Path) -> bool:
        """Say whether a fault at ``path`` is a reason to doubt this one."""
        return any(_nested(path, mine) for mine in (self.path, *self.needs))


def dotted(path: Path) -> str:
    """Return a path as people write it: ``explore.routes.warm.timestep``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def report(file: str, problems: Iterable[Problem], marks: Mapping[Path, Mark]) -> tuple[str, ...]:
    """Return ``file:line:column  path: message`` lines, in the order of the file.

    A place without a mark of its own (a missing key) is shown at the nearest one around it.
    """
    lines = []
    for problem in problems:
        path = problem.path
        while path and path not in marks:
            path = path[:-1]
        mark = problem.mark or marks.get(path, Mark(1, 1))
        where = f"{file}:{mark.line}:{mark.column}" if mark.line else "override"
        what = f"{dotted(problem.path)}: " if problem.path else ""
        line = _printable(f"{where}  {what}{problem.message}")
        lines.append((mark, dotted(problem.path), line))
    return tuple(dict.fromkeys(line for _, _, line in sorted(lines)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the nearest known word, or nothing."""
    folded = {_fold(name): name for name in known}
    near = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def _printable(text: str) -> str:
    """Return text without line breaks and terminal codes: keys are shown as the file has them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")


def _nested(one: Path, other: Path) -> bool:
    """Say whether one of two places lies in the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
