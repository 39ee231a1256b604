"""What a user means by ``model:3``, ``3f9a``, ``17`` or the path of a weight file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from alloop.artifacts import sha256
from alloop.errors import LedgerError

KINDS = (
    "frame", "label", "trajectory", "snapshot", "model", "committee", "spacetime_model",
    "spacetime_probe",
)  # fmt: skip
SHORTEST = 4
"""A hash may be cut to this many characters, not further."""
MOST_CANDIDATES = 8
# Each query is completed by a condition on the hash.
_OF_FILE = "SELECT {0}_id FROM {0} JOIN artifact USING (artifact_id) WHERE artifact.sha256"
_HASHES = {
    "model": _OF_FILE.format("model"),
    "spacetime_model": _OF_FILE.format("spacetime_model"),
    "trajectory": _OF_FILE.format("trajectory"),
    "committee": "SELECT committee_id FROM committee WHERE sha256",
    "snapshot": "SELECT snapshot_id FROM snapshot WHERE sha256",
    "frame": "SELECT frame_id FROM frame WHERE key",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A row of the ledger that has a history."""

    kind: str
    id: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


def resolve(connection: Connection, text: str, kinds: tuple[str, ...] = KINDS) -> Node:
    """Return what a text stands for.

    It may be ``kind:number``, the beginning of a hash, the path of a file (its hash is worked
    out), or a bare number where only one kind can be meant. Raises LedgerError, with the
    candidates, if it stands for nothing or for several things.
    """
    text = text.strip()
    kind, colon, number = text.partition(":")
    if colon and kind in KINDS and number.isdecimal():
        return _existing(connection, Node(kind, int(number)), kinds)
    if text.isdecimal() and len(kinds) == 1 and _exists(connection, Node(kinds[0], int(text))):
        return Node(kinds[0], int(text))
    digest = sha256(Path(text)) if _is_file(text) else text.lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", digest):
        raise LedgerError(f"{text!r} names nothing in the ledger; {_ways(kinds)}")
    found = _by_hash(connection, digest, kinds)
    if len(found) == 1:
        return found[0]
    if not found:
        subject = f"file {text} (sha256 {digest[:12]})" if digest != text.lower() else repr(text)
        raise LedgerError(f"{subject} is not in this ledger; {_ways(kinds)}")
    raise LedgerError(
        f"{text!r} could be {_listed(found)}; say which, such as {found[0]}, or give more digits"
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False  # too long, or with a character that no path has


def _by_hash(connection: Connection, digest: str, kinds: tuple[str, ...]) -> list[Node]:
    found = []
    for kind, query in _HASHES.items():
        if kind in kinds:
            rows = connection.exec_driver_sql(
                f"{query} BETWEEN ? AND ? LIMIT {MOST_CANDIDATES + 1}", (digest, digest + "g")
            )
            found += [Node(kind, row[0]) for row in rows]
    return found


def _existing(connection: Connection, node: Node, kinds: tuple[str, ...]) -> Node:
    if node.kind not in kinds:
        raise LedgerError(f"{node} is a {node.kind}; {_ways(kinds)}")
    if not _exists(connection, node):
        (highest,) = connection.exec_driver_sql(
            f"SELECT max({node.kind}_id) FROM {node.kind}"  # noqa: S608  one of KINDS
        ).one()
        there = f"they go up to {node.kind}:{highest}" if highest else "there is none yet"
        raise LedgerError(f"{node} is not in this ledger; {there}")
    return node


def _exists(connection: Connection, node: Node) -> bool:
    row = connection.exec_driver_sql(
        f"SELECT 1 FROM {node.kind} WHERE {node.kind}_id = ?",  # noqa: S608  one of KINDS
        (node.id,),
    )
    return row.first() is not None


def _ways(kinds: tuple[str, ...]) -> str:
    if len(kinds) == 1:
        return f"give a {kinds[0]}_id, {kinds[0]}:NUMBER or the beginning of its hash"
    return f"give KIND:NUMBER ({', '.join(kinds)}), the beginning of a hash, or a file"


def _listed(nodes: list[Node]) -> str:
    shown = ", ".join(str(node) for node in nodes[:MOST_CANDIDATES])
    return shown if len(nodes) <= MOST_CANDIDATES else f"{shown} and more"
