"""The report of a campaign: one HTML file that needs nothing else, from ledger and artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

import alloop
from alloop.artifacts import ArtifactStore, write_atomically
from alloop.errors import DataError
from alloop.report import sections, tier_sections
from alloop.report.faults import trouble_lines
from alloop.report.markup import page, paragraph, table, verbatim, verdict
from alloop.report.running import Running, read_running
from alloop.report.spacetime import spacetime
from alloop.report.status import status
from alloop.report.timeline_plot import timeline
from alloop_db.ledger import open_as_newest
from alloop_db.lock import holder
from alloop_db.queries import run
from alloop_db.schema import now

REPORT: Final = "report.html"
"""Its name in the campaign directory."""


def write_report(directory: Path, output: Path | None = None) -> Path:
    """Write the report of a campaign and return its path: ``report.html`` beside the ledger.

    Works while the campaign runs. Raises LedgerError if there is no campaign, DataError if
    ``output`` is a folder.
    """
    path = directory / REPORT if output is None else output
    if path.is_dir():
        raise DataError(f"{path} is a folder, want a name for a file")
    with open_as_newest(directory) as engine:
        owner = holder(directory)
        store = ArtifactStore(directory / "artifacts")
        running = () if owner is None else read_running(engine, directory)
        text = render(engine, store, None if owner is None else str(owner), running)
    write_atomically(path, lambda temporary: _write(temporary, text))
    return path


def render(
    engine: Engine,
    store: ArtifactStore,
    driver: str | None = None,
    running: Sequence[Running] = (),
) -> str:
    """Return the report as HTML.

    ``driver`` is who drives the campaign now, if anybody, ``running`` what it has sent out.
    """
    summary = status(engine, running)
    parts = [
        ("Learning curve", sections.learning(engine, summary["tiers"])),
        ("Generations", sections.generations(engine, summary)),
        ("Labels and failures", sections.labels(engine, summary)),
        ("Calibration", sections.calibration(engine, summary["tiers"])),
        ("Trajectories", sections.trajectories(engine)),
        ("4D models", spacetime(engine, store)),
        ("Time", timeline(engine, running) + sections.stages(engine)),
        ("Machines and software", sections.machines(engine)),
        ("Campaign file", _config(engine)),
    ]
    if len(summary["tiers"]) > 1:
        parts.insert(1, ("Tiers", tier_sections.tiers(engine, summary)))
    return page(f"Campaign {summary['name']}", _head(engine, summary, driver), parts)


def _head(engine: Engine, summary: dict[str, Any], driver: str | None) -> str:
    state = f"{summary['state']}, " + (f"driven by {driver}" if driver else "nobody drives it")
    about = _one(engine, "SELECT seed, created_at, alloop_version, epoch, seconds FROM campaign")
    facts = (
        ("state", state),
        ("written", f"{now()} by alloop {alloop.__version__}"),
        ("begun", f"{about['created_at']} by alloop {about['alloop_version']}"),
        ("seed", str(about["seed"])),
        ("drivers so far", f"{about['epoch']}, {about['seconds']:.0f} s of wall time together"),
        ("generation", "none yet" if summary["generation"] is None else summary["generation"]),
        ("reference methods", _methods(engine)),
    )
    systems = run(
        engine,
        "SELECT name, formula, n_atoms, charge, multiplicity, pbc FROM system ORDER BY system_id",
    )
    heads = ("system", "formula", "atoms", "charge / e", "multiplicity", "periodic")
    parts = [
        verdict(summary["verdict"] or f"no verdict yet: {state}"),
        table(("", ""), [(name, str(value)) for name, value in facts]),
        table(heads, systems.rows),
    ]
    if driver:
        parts += map(paragraph, trouble_lines(summary))
        parts.append(paragraph("The campaign went on while this page was written."))
    return "\n".join(parts)


def _methods(engine: Engine) -> str:
    rows = run(engine, "SELECT tier, name FROM level_of_theory ORDER BY level_of_theory_id").rows
    return ", ".join(f"{name} (tier {tier})" for tier, name in rows)


def _config(engine: Engine) -> str:
    versions = run(
        engine,
        "SELECT config_version_id, created_at, sha256, changes, source FROM config_version"
        " ORDER BY config_version_id",
    ).rows
    if not versions:
        return paragraph("None is on record yet.")
    rows = [(number, at, sha256, _changes(text)) for number, at, sha256, text, _ in versions]
    return "\n".join(
        [
            table(("version", "since", "sha-256 of what it means", "what changed"), rows),
            paragraph(f"Version {versions[-1][0]} as it was written:"),
            verbatim(versions[-1][-1]),
        ]
    )


def _changes(text: str | None) -> str | None:
    changes = json.loads(text).get("changes") if text else None
    return "; ".join(str(change) for change in changes) if changes else None


def _one(engine: Engine, sql: str) -> dict[str, Any]:
    result = run(engine, sql)
    return dict(zip(result.columns, result.rows[0], strict=True))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
