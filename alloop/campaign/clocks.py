"""Nodes whose clocks are wrong: found out by what cannot be, and put right in what they report.

A result cannot have ended after it came, nor sooner after its submission than it took. Nothing of
a campaign hangs on the clocks of nodes, but for when tasks are said to have begun.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

TOLERANCE_S = 5.0
"""By how much clocks may differ before anybody is told."""


class Clocks:
    """How far the clocks of nodes are ahead of the driver's."""

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}

    def correct(self, envelope: dict[str, Any], sent: float, now: float) -> float | None:
        """Put right when a task is said to have begun.

        ``sent`` and ``now`` are when it was submitted and when its result came, s since 1970 by
        the driver's clock. Returns by how much its host's clock is ahead, s, if that is news.
        """
        ended, host = envelope.get("clock"), envelope["environment"]["host"]
        if ended is None or _can_be(ended, envelope["seconds"], sent, now):
            self._correct_known(envelope, host, sent, now)
            return None
        known = self._ahead.get(host)
        # A result that lay waiting makes a clock look later than it is: the largest is nearest.
        if known is not None and _can_be(ended - known, envelope["seconds"], sent, now):
            self._ahead[host] = max(known, ended - now)
        else:
            self._ahead[host] = ended - now
        _shift(envelope, -self._ahead[host])
        return self._ahead[host] if known is None else None

    def _correct_known(self, envelope: dict[str, Any], host: str, sent: float, now: float) -> None:
        """Put right what could be, but comes from a host whose clock is known to be wrong."""
        known = self._ahead.get(host)
        if known is not None and _can_be(envelope["clock"] - known, envelope["seconds"], sent, now):
            _shift(envelope, -known)


def _can_be(ended: float, seconds: float, sent: float, now: float) -> bool:
    return sent + seconds - TOLERANCE_S <= ended <= now + TOLERANCE_S


def _shift(envelope: dict[str, Any], seconds: float) -> None:
    began = datetime.fromisoformat(envelope["started_at"]) + timedelta(seconds=seconds)
    envelope["started_at"] = began.isoformat(timespec="milliseconds")
