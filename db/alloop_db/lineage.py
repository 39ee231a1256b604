"""From anything in the ledger up to what it was made from, and down to what was made from it."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Connection, Engine

from alloop_db.identity import Node, resolve

# Each query returns (relation, kind of the target, key of the target) for the node ``:id``.
_UP = {
    "model": """
        SELECT 'was trained on', 'snapshot', snapshot_id FROM model WHERE model_id = :id
        UNION ALL
        SELECT 'started from the weights of', 'model', parent_model_id FROM model
        WHERE model_id = :id AND parent_model_id IS NOT NULL""",
    "snapshot": """
        SELECT
            'has ' || count(*) || iif(count(*) = 1, ' label', ' labels') || ' asked for by',
            'committee', trajectory.committee_id
        FROM snapshot_member
        JOIN label ON label.label_id = snapshot_member.label_id
        JOIN frame ON frame.frame_id = label.frame_id
        JOIN trajectory ON trajectory.trajectory_id = frame.trajectory_id
        WHERE snapshot_member.snapshot_id = :id
        GROUP BY trajectory.committee_id""",
    "committee": """
        SELECT 'consists of', 'model', model_id FROM committee_member
        WHERE committee_id = :id ORDER BY position""",
    "spacetime_model": """
        SELECT 'imitates', 'committee', committee_id FROM spacetime_model
        WHERE spacetime_model_id = :id
        UNION ALL
        SELECT
            'saw ' || count(*) || iif(count(*) = 1, ' trajectory (', ' trajectories (')
                || seen.split || ') run by',
            'committee', trajectory.committee_id
        FROM spacetime_trajectory AS seen
        JOIN trajectory ON trajectory.trajectory_id = seen.trajectory_id
        WHERE seen.spacetime_model_id = :id
        GROUP BY seen.split, trajectory.committee_id
        UNION ALL
        SELECT
            'saw ' || count(*) || iif(count(*) = 1, ' trajectory (', ' trajectories (')
                || seen.split || ') begun by',
            'spacetime_probe', probe.spacetime_probe_id
        FROM spacetime_trajectory AS seen
        JOIN trajectory ON trajectory.trajectory_id = seen.trajectory_id
        JOIN spacetime_probe AS probe ON probe.task_id = trajectory.task_id
        WHERE seen.spacetime_model_id = :id
        GROUP BY seen.split, probe.spacetime_probe_id
        UNION ALL
        SELECT 'was held against', 'spacetime_model', parent_spacetime_model_id
        FROM spacetime_model
        WHERE spacetime_model_id = :id AND parent_spacetime_model_id IS NOT NULL""",
    "spacetime_probe": """
        SELECT 'propagated', 'spacetime_model', spacetime_model_id FROM spacetime_probe
        WHERE spacetime_probe_id = :id
        UNION ALL
        SELECT 'judged by the energies of', 'committee', committee_id FROM spacetime_probe
        WHERE spacetime_probe_id = :id""",
    "trajectory": """
        SELECT 'was run by', 'committee', committee_id FROM trajectory
        WHERE trajectory_id = :id
        UNION ALL
        SELECT 'was begun by', 'spacetime_probe', probe.spacetime_probe_id
        FROM trajectory JOIN spacetime_probe AS probe ON probe.task_id = trajectory.task_id
        WHERE trajectory.trajectory_id = :id""",
    "frame": """
        SELECT 'was found in', 'trajectory', trajectory_id FROM frame
        WHERE frame_id = :id AND trajectory_id IS NOT NULL""",
    "label": "SELECT 'belongs to', 'frame', frame_id FROM label WHERE label_id = :id",
}
_DOWN = {
    "model": """
        SELECT 'sits in', 'committee', committee_id FROM committee_member WHERE model_id = :id
        UNION ALL
        SELECT 'gave its weights to', 'model', model_id FROM model WHERE parent_model_id = :id""",
    "snapshot": "SELECT 'trained', 'model', model_id FROM model WHERE snapshot_id = :id",
    "committee": """
        SELECT
            'asked for ' || count(*) || iif(count(*) = 1, ' label', ' labels') || ' of',
            'snapshot', snapshot_member.snapshot_id
        FROM trajectory
        JOIN frame ON frame.trajectory_id = trajectory.trajectory_id
        JOIN label ON label.frame_id = frame.frame_id
        JOIN snapshot_member ON snapshot_member.label_id = label.label_id
        WHERE trajectory.committee_id = :id
        GROUP BY snapshot_member.snapshot_id
        UNION ALL
        SELECT 'is imitated by', 'spacetime_model', spacetime_model_id FROM spacetime_model
        WHERE committee_id = :id""",
    "spacetime_model": """
        SELECT 'was probed by', 'spacetime_probe', spacetime_probe_id FROM spacetime_probe
        WHERE spacetime_model_id = :id
        UNION ALL
        SELECT 'came before', 'spacetime_model', spacetime_model_id FROM spacetime_model
        WHERE parent_spacetime_model_id = :id""",
    "spacetime_probe": """
        SELECT 'began', 'trajectory', trajectory.trajectory_id
        FROM spacetime_probe AS probe JOIN trajectory ON trajectory.task_id = probe.task_id
        WHERE probe.spacetime_probe_id = :id""",
    "trajectory": """
        SELECT
            'gave ' || count(*) || iif(count(*) = 1, ' label', ' labels') || ' to',
            'snapshot', snapshot_member.snapshot_id
        FROM frame
        JOIN label ON label.frame_id = frame.frame_id
        JOIN snapshot_member ON snapshot_member.label_id = label.label_id
        WHERE frame.trajectory_id = :id
        GROUP BY snapshot_member.snapshot_id
        UNION ALL
        SELECT 'was seen by', 'spacetime_model', spacetime_model_id FROM spacetime_trajectory
        WHERE trajectory_id = :id""",
    "frame": "SELECT 'has', 'label', label_id FROM label WHERE frame_id = :id",
    "label": """
        SELECT 'is used (' || split || ') in', 'snapshot', snapshot_id FROM snapshot_member
        WHERE label_id = :id""",
}
# Each query returns one line of text that describes the node ``:id``.
_ABOUT = {
    "model": """
        SELECT model.member || iif(model.mode = 'plain', '', ', mode ' || model.mode)
            || ', seed ' || model.seed || ', weights ' || substr(artifact.sha256, 1, 12)
        FROM model JOIN artifact ON artifact.artifact_id = model.artifact_id
        WHERE model.model_id = :id""",
    "snapshot": """
        SELECT snapshot.n_labels || ' labels at ' || level_of_theory.name || ' by ' || (
            SELECT coalesce(group_concat(DISTINCT label_attempt.program), 'unknown')
            FROM snapshot_member
            JOIN label_attempt ON label_attempt.label_id = snapshot_member.label_id
            WHERE snapshot_member.snapshot_id = :id AND label_attempt.status = 'done'
        ) || ', ' || (
            SELECT count(*) FROM snapshot_member
            JOIN label ON label.label_id = snapshot_member.label_id
            JOIN frame ON frame.frame_id = label.frame_id
            WHERE snapshot_member.snapshot_id = :id AND frame.trajectory_id IS NULL
        ) || ' of the initial set'
        FROM snapshot
        JOIN level_of_theory
            ON level_of_theory.level_of_theory_id = snapshot.level_of_theory_id
        WHERE snapshot.snapshot_id = :id""",
    "committee": """
        SELECT count(*) || ' models of ' || level_of_theory.name || ', generation '
            || generation.number
        FROM committee
        JOIN generation ON generation.generation_id = committee.generation_id
        JOIN level_of_theory
            ON level_of_theory.level_of_theory_id = committee.level_of_theory_id
        JOIN committee_member ON committee_member.committee_id = committee.committee_id
        WHERE committee.committee_id = :id""",
    "spacetime_model": """
        SELECT system.name || ', up to ' || spacetime_model.cutoff || ' fs, '
            || replace(spacetime_model.status, '_', ' ') || ', weights '
            || substr(artifact.sha256, 1, 12)
        FROM spacetime_model
        JOIN system ON system.system_id = spacetime_model.system_id
        JOIN artifact ON artifact.artifact_id = spacetime_model.artifact_id
        WHERE spacetime_model.spacetime_model_id = :id""",
    "spacetime_probe": """
        SELECT n_flagged || ' of ' || n_segments || ' segments of ' || n_replicas
            || ' replicas flagged'
        FROM spacetime_probe WHERE spacetime_probe_id = :id""",
    "trajectory": """
        SELECT 'route ' || trajectory.route || ', ' || upper(trajectory.ensemble) || ' at '
            || trajectory.temperature || ' K, replica ' || trajectory.replica || ' of '
            || substr(artifact.sha256, 1, 12)
        FROM trajectory JOIN artifact ON artifact.artifact_id = trajectory.artifact_id
        WHERE trajectory.trajectory_id = :id""",
    "frame": """
        SELECT system.name || ', ' || frame.source || ', ' || substr(frame.key, 1, 12)
        FROM frame JOIN system ON system.system_id = frame.system_id
        WHERE frame.frame_id = :id""",
    "label": """
        SELECT level_of_theory.name || ', ' || label.status
        FROM label
        JOIN level_of_theory ON level_of_theory.level_of_theory_id = label.level_of_theory_id
        WHERE label.label_id = :id""",
}


@dataclass(frozen=True, slots=True)
class Link:
    """One fact of a history: ``source`` `relation` ``target``; ``about`` describes the target."""

    source: Node
    relation: str
    target: Node
    about: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What something was made from (``up``) and what was made from it (``down``)."""

    node: Node
    about: str
    sha256: str | None
    up: tuple[Link, ...]
    down: tuple[Link, ...]

    def text(self) -> str:
        """Return the history in words."""
        lines = [f"{_name(self.node)} ({self.about})", "", "Made from"]
        lines += _lines(self.up) or ["  nothing recorded: it begins here"]
        lines += ["", "Used for"]
        lines += _lines(self.down) or ["  nothing yet"]
        if self.sha256 is not None:
            command = f"alloop query model_provenance --set model={self.sha256[:12]}"
            lines += ["", f"Every label behind it: {command}"]
        return "\n".join(lines)

    def json(self) -> str:
        """Return the history as JSON."""
        content = {
            "node": str(self.node),
            "about": self.about,
            "up": [_record(link) for link in self.up],
            "down": [_record(link) for link in self.down],
        }
        return json.dumps(content, indent=2, ensure_ascii=False)


def lineage(engine: Engine, identity: str) -> Lineage:
    """Return the history of whatever has one: see :data:`alloop_db.identity.KINDS`.

    ``identity`` is ``kind:number``, the beginning of a hash, or the path of a weight file. Raises
    LedgerError, with the candidates, if it is unknown or ambiguous.
    """
    with engine.connect() as connection:
        node = resolve(connection, identity)
        digest = None
        if node.kind == "model":
            digest = connection.exec_driver_sql(
                "SELECT sha256 FROM model JOIN artifact USING (artifact_id) WHERE model_id = ?",
                (node.id,),
            ).scalar_one()
        return Lineage(
            node=node,
            about=_about(connection, node),
            sha256=digest,
            up=_follow(connection, node, _UP),
            down=_follow(connection, node, _DOWN),
        )


def _follow(connection: Connection, start: Node, edges: dict[str, str]) -> tuple[Link, ...]:
    """Walk breadth first; each node is expanded once."""
    links, waiting = [], deque([start])
    about = {start: _about(connection, start)}
    while waiting:
        source = waiting.popleft()
        rows = connection.exec_driver_sql(edges[source.kind], {"id": source.id}).all()
        for relation, kind, target_id in rows:
            target = Node(kind, target_id)
            if target not in about:
                about[target] = _about(connection, target)
                waiting.append(target)
            links.append(Link(source, relation, target, about[target]))
    return tuple(links)


def _about(connection: Connection, node: Node) -> str:
    return str(connection.exec_driver_sql(_ABOUT[node.kind], {"id": node.id}).scalar())


def _lines(links: tuple[Link, ...]) -> list[str]:
    lines, described = [], set()
    for (source, relation), group in groupby(links, lambda link: (link.source, link.relation)):
        targets = []
        for link in group:
            about = "" if link.target in described else f" ({link.about})"
            described.add(link.target)
            targets.append(f"{_name(link.target)}{about}")
        lines.append(f"  {_name(source)} {relation} {', '.join(targets)}")
    return lines


def _name(node: Node) -> str:
    return f"{node.kind.replace('spacetime_', '4D ')} {node.id}"


def _record(link: Link) -> dict[str, str]:
    return {
        "from": str(link.source),
        "relation": link.relation,
        "to": str(link.target),
        "about": link.about,
    }
