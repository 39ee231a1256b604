"""Refusing what is not among the known choices, with the one that was perhaps meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from alloop.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_choice(what: str, got: object, known: tuple[str, ...]) -> None:
    """Raise MethodError unless ``got`` is one of ``known``."""
    if got not in known:
        listed = ", ".join(known)
        raise MethodError(f"unknown {what} {got!r}, want one of {listed}{near_match(got, known)}")


def near_match(got: object, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest of ``known``, or nothing."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(got).lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""
