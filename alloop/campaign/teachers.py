"""Which trajectories of a campaign a 4D model of one of its systems learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from alloop.artifacts import ArtifactStore
from alloop.campaign.spacetime import NEARLY_AS_GOOD
from alloop.errors import DataError, LedgerError
from alloop.spacetime.learning.sources import Source
from alloop_db.ledger import open_readonly
from alloop_db.queries import describe, run

QUERY: Final = "nve_trajectories"
"""The shipped query whose columns conditions are about."""
_COMMITTEES: Final = """
SELECT committee.committee_id, level_of_theory.tier, EXISTS (
    SELECT 1 FROM trajectory
    WHERE trajectory.committee_id = committee.committee_id AND ensemble = 'nve'
)
FROM committee JOIN level_of_theory USING (level_of_theory_id)
ORDER BY committee.committee_id
"""
_MEMBERS: Final = """
SELECT artifact.sha256
FROM committee_member
JOIN model ON model.model_id = committee_member.model_id
JOIN artifact ON artifact.artifact_id = model.artifact_id
WHERE committee_member.committee_id = :committee
ORDER BY committee_member.position
"""


@dataclass(frozen=True, slots=True)
class Teachers:
    """Trajectories of one system, as the ledger of a campaign has them.

    Attributes
    ----------
    system : its name.
    committee_id : the committee whose potential counts.
    members : the files of its weights.
    condition : SQL by which trajectories were chosen.
    sources : the trajectories that meet it, in the artifact store.
    n_others : trajectories of the system that do not meet it.

    """

    system: str
    committee_id: int
    members: tuple[Path, ...]
    condition: str
    sources: tuple[Source, ...]
    n_others: int


def find_teachers(
    directory: Path,
    *,
    system: str | None = None,
    committee: int | None = None,
    tier: str | None = None,
    where: str | None = None,
) -> Teachers:
    """Choose trajectories from the ledger of a campaign, which is only read.

    Parameters
    ----------
    directory : of the campaign.
    system : name of the system; None where only one has trajectories at constant energy.
    committee : the committee whose potential counts; None for the latest.
    tier : tier whose latest committee with trajectories at constant energy is meant; None for the
        latest committee, whatever its tier.
    where : SQL condition on the columns of the query ``nve_trajectories``; None for those of the
        committee itself and of others of its tier that are about as good, as in a campaign.

    Raises
    ------
    DataError
        There is no such system, committee or tier, a committee and a tier are given, no trajectory
        meets the condition, or the condition is not SQL.
    LedgerError
        The ledger cannot be read.

    """
    engine = open_readonly(directory)
    try:
        committee = _committee(engine, committee, tier)
        chosen = {"committee": committee, "system": system}
        everything = _rows(engine, "1", chosen)
        system = _system(everything, system)
        condition = where or f"relative_error <= {NEARLY_AS_GOOD} OR committee_id = {committee}"
        rows = _rows(engine, condition, chosen | {"system": system})
        digests = [sha256 for (sha256,) in run(engine, _MEMBERS, {"committee": committee}).rows]
    finally:
        engine.dispose()
    n_all = sum(row["system"] == system for row in everything)
    if not rows:
        raise DataError(
            f"none of {n_all} trajectories of {system} meets {condition!r};"
            f" see them with: alloop query {QUERY}"
        )
    store = ArtifactStore(directory / "artifacts")
    return Teachers(
        system,
        committee,
        tuple(store.path(digest, ".pt") for digest in digests),
        condition,
        tuple(_source(store, row) for row in rows),
        n_all - len(rows),
    )


def _committee(engine: Engine, wanted: int | None, tier: str | None) -> int:
    if wanted is not None and tier is not None:
        raise DataError("a committee and a tier: name one of them, a tier means its latest")
    known = run(engine, _COMMITTEES).rows
    if not known:
        raise DataError("the campaign has no committee yet: let it train one first")
    numbers = [number for number, _, _ in known]
    if wanted is not None and wanted not in numbers:
        listed = ", ".join(str(number) for number in numbers)
        raise DataError(f"the campaign has no committee {wanted}; there are {listed}")
    if tier is None:
        return max(numbers) if wanted is None else wanted
    of_tier = [(ran, number) for number, of, ran in known if of == tier]
    if not of_tier:
        listed = ", ".join(dict.fromkeys(of for _, of, _ in known))
        raise DataError(f"tier {tier!r} has no committee; there are some of {listed}")
    # The last committee of a lower tier has often run none: the next tier took over.
    return int(max(of_tier)[1])


def _rows(engine: Engine, condition: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the query that meet a condition."""
    query = describe(QUERY).sql.rstrip().rstrip(";")
    # On lines of its own: a comment at the end of the condition must not swallow the bracket.
    sql = f"SELECT * FROM (\n{query}\n) WHERE (\n{condition}\n) ORDER BY trajectory_id"  # noqa: S608  what a person asks of their own ledger, which can only be read
    try:
        result = run(engine, sql, parameters)
    except LedgerError as error:
        raise DataError(
            f"--where {condition!r}: {error}; its columns are those of: alloop query {QUERY}"
        ) from None
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def _system(rows: Sequence[dict[str, Any]], wanted: str | None) -> str:
    names = sorted({str(row["system"]) for row in rows})
    if wanted is not None and not names:
        raise DataError(f"the campaign has no trajectory of {wanted} at constant energy")
    if not names:
        raise DataError("the campaign has no trajectory at constant energy: add an nve route")
    if len(names) > 1:
        raise DataError(f"which system? there are {', '.join(names)}; say it with --system")
    return names[0]


def _source(store: ArtifactStore, row: dict[str, Any]) -> Source:
    path = store.get(str(row["shard"]), ".h5")
    return Source(path, int(row["replica"]), f"trajectory {row['trajectory_id']}", row["split"])
