"""The report's section on 4D models: what each was made from and how wrong it is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Engine

from alloop.artifacts import ArtifactStore
from alloop.report import plots
from alloop.report.markup import paragraph, picture, subtitle, table
from alloop.report.spacetime_motion import show_motion
from alloop_db.queries import run

_MODELS: Final = """
SELECT
    spacetime_model.*, system.name AS system, generation.number AS generation, artifact.sha256
FROM spacetime_model
JOIN system ON system.system_id = spacetime_model.system_id
JOIN generation ON generation.generation_id = spacetime_model.generation_id
JOIN artifact ON artifact.artifact_id = spacetime_model.artifact_id
ORDER BY system.system_id, generation.number, spacetime_model_id
"""
_SEEN: Final = """
SELECT spacetime_model_id, spacetime_trajectory.split, count(*), sum(duration) / 1000.0
FROM spacetime_trajectory JOIN trajectory USING (trajectory_id)
GROUP BY spacetime_model_id, spacetime_trajectory.split
"""
_LEFT_OUT: Final = """
SELECT spacetime_model_id, reason, count(*) FROM spacetime_exclusion
GROUP BY spacetime_model_id, reason ORDER BY spacetime_model_id, count(*) DESC, reason
"""
_SEVERAL_TIERS: Final = "SELECT count(*) > 1 FROM level_of_theory"
_SPLITS: Final = ("train", "validation", "audit")
_WHO: Final = {"ensemble": "ensemble", "member": "one network", "ballistic": "uniform motion"}
"""What each of an assessment's scores are of."""
_UNITS: Final = {"bond": "Å", "angle": "rad", "dihedral": "rad", "rmsd": "Å"}
_FACTS: Final = {
    "gate": "What it was held against",
    "probe": "Probes of its motion",
    "course": "How the fit went",
}
"""Parts of the metrics that are shown as they are."""

_ELSEWHERE: Final = {"system", "cutoff", "sha256", "bond", "angle", "dihedral", "rmsd_end"}
"""Columns of the query spacetime_models that other tables of the section show."""


@dataclass(frozen=True, slots=True)
class _Model:
    key: int
    generation: int
    cutoff: float
    sha256: str
    promoted: bool
    metrics: Mapping[str, Any]
    seen: Mapping[str, tuple[int, float]]
    """Number and total length, ps, of its trajectories by split."""
    left_out: Mapping[str, int]
    """How many trajectories for which reason."""

    @property
    def test(self) -> Mapping[str, Any]:
        """The errors on trajectories that it has not seen; empty if there were none."""
        return self.metrics.get("test") or {}

    def scores(self, who: str) -> Mapping[str, float]:
        """Return errors by name."""
        return self.test.get(who) or {}


def spacetime(engine: Engine, store: ArtifactStore) -> str:
    """Return the 4D models of each system, by generation, and how the last promoted one moves."""
    systems = _read(engine)
    (several,) = run(engine, _SEVERAL_TIERS).rows[0]
    if not systems:
        return paragraph("None has been fitted yet.")
    parts = []
    for name, models in systems.items():
        parts += [subtitle(name), _in_use(models), *_errors(models)]
        parts.append(_judgements(engine, name, () if several else ("tier",)))
        for part, caption in _FACTS.items():
            parts += _facts(models, part, caption)
        parts += [_trajectories(models), *_numbers(engine, models[-1])]
        promoted = [model for model in models if model.promoted]
        if promoted:
            parts += show_motion(engine, store, promoted[-1].key, promoted[-1].sha256)
    return "\n".join(parts)


def _read(engine: Engine) -> dict[str, list[_Model]]:
    """Return the models of each system."""
    seen: dict[int, dict[str, tuple[int, float]]] = defaultdict(dict)
    for key, split, n, picoseconds in run(engine, _SEEN).rows:
        seen[key][split] = (n, picoseconds)
    left_out: dict[int, dict[str, int]] = defaultdict(dict)
    for key, reason, n in run(engine, _LEFT_OUT).rows:
        left_out[key][reason] = n
    result = run(engine, _MODELS)
    systems: dict[str, list[_Model]] = defaultdict(list)
    for values in result.rows:
        row = dict(zip(result.columns, values, strict=True))
        key, metrics = row["spacetime_model_id"], json.loads(row["metrics"])
        model = _Model(
            key=key,
            generation=row["generation"],
            cutoff=row["cutoff"],
            sha256=row["sha256"],
            promoted=row["status"] == "promoted",
            metrics=metrics,
            seen=seen[key],
            left_out=left_out[key] or metrics.get("left_out") or {},
        )
        systems[row["system"]].append(model)
    return systems


def _in_use(models: list[_Model]) -> str:
    promoted = [model for model in models if model.promoted]
    if not promoted:
        return paragraph("None is in use.")
    last = promoted[-1]
    return paragraph(
        f"In use: model {last.key}, to {last.cutoff:g} fs; its weights are the artifact"
        f" {last.sha256} (.pt)."
    )


def _judgements(engine: Engine, system: str, hidden: Sequence[str]) -> str:
    result = run(engine, "spacetime_models", {"system": system})
    places = [i for i, name in enumerate(result.columns) if name not in {*_ELSEWHERE, *hidden}]
    heads = [result.columns[i].replace("_", " ") for i in places]
    rows = [[row[i] for i in places] for row in result.rows]
    return table(heads, rows, "Promoted or held back, and what probes found.")


def _errors(models: list[_Model]) -> Iterable[str]:
    kinds = _kinds(models)
    if not kinds:
        yield paragraph("No trajectory was left to test it on.")
        return
    panels = {
        f"{kind} / {_UNITS.get(kind, '?')}": {
            name: [model.scores(who).get(kind) for model in models] for who, name in _WHO.items()
        }
        for kind in kinds
    }
    figure = plots.spacetime_errors([model.generation for model in models], panels)
    yield picture(
        plots.png(figure),
        "Held-out errors of the 4D model by generation",
        "Errors on trajectories that the model has not seen, root mean square over all times up to"
        " the cutoff. Uniform motion, from the same start, is what no model at all would say.",
    )
    names = [*kinds, *(f"{kind}_rate" for kind in kinds)]
    yield _scores(models, names, "Errors over all times up to the cutoff; rates per fs.")
    ends = [*(f"{name}_end" for name in names), "rmsd_end"]
    yield _scores(models, ends, "Errors at the cutoff; RMSD is Cartesian, after superposition.")


def _scores(models: list[_Model], names: list[str], caption: str) -> str:
    known = {name for model in models for who in _WHO for name in model.scores(who)}
    names = [name for name in names if name in known]
    rows = [
        (
            model.key,
            model.generation,
            model.test.get("n_trajectories"),
            model.test.get("n_segments"),
            words,
            *(model.scores(who).get(name) for name in names),
        )
        for model in models
        for who, words in _WHO.items()
    ]
    heads = (
        "model",
        "generation",
        "trajectories",
        "segments",
        "",
        *(_head(name) for name in names),
    )
    return table(heads, rows, caption)


def _facts(models: list[_Model], part: str, caption: str) -> Iterable[str]:
    found = [(model, model.metrics.get(part) or {}) for model in models]
    names = list(dict.fromkeys(name for _, facts in found for name in facts))
    if names:
        heads = ("model", "generation", *(name.replace("_", " ") for name in names))
        rows = [(m.key, m.generation, *(facts.get(name) for name in names)) for m, facts in found]
        yield table(heads, rows, f"{caption}.")


def _trajectories(models: list[_Model]) -> str:
    heads = ["model", "generation"]
    heads += [f"{split}{unit}" for split in _SPLITS for unit in ("", ", ps")]
    rows = []
    for model in models:
        counts = [model.seen.get(split, (0, 0.0)) for split in _SPLITS]
        words = ", ".join(f"{n} {reason}" for reason, n in model.left_out.items()) or "none"
        rows.append((model.key, model.generation, *(n for pair in counts for n in pair), words))
    return table(
        (*heads, "left out, and why"),
        rows,
        "Trajectories it was made from; it never learns from audit ones, which measure its errors.",
    )


def _numbers(engine: Engine, model: _Model) -> Iterable[str]:
    rows = run(engine, "spacetime_trajectories", {"model": model.key}).rows
    for split in _SPLITS:
        numbers = [row[2] for row in rows if row[1] == split]
        if numbers:
            yield paragraph(f"Trajectories of model {model.key}, {split}: {ranges(numbers)}.")


def _kinds(models: list[_Model]) -> list[str]:
    """Return the kinds of coordinates that were judged."""
    names = dict.fromkeys(name for model in models for name in model.scores("ensemble"))
    return [name for name in names if not name.endswith(("_rate", "_end"))]


def _head(name: str) -> str:
    kind = name.removesuffix("_end").removesuffix("_rate")
    unit = _UNITS.get(kind, "?")
    return f"{kind} rate / {unit}/fs" if "_rate" in name else f"{kind} / {unit}"


def ranges(numbers: Sequence[int]) -> str:
    """Return whole numbers in few words, such as ``1-4, 7``."""
    ordered = sorted(numbers)
    words = []
    for _, run_of in groupby(enumerate(ordered), lambda pair: pair[1] - pair[0]):
        some = [number for _, number in run_of]
        words.append(f"{some[0]}" if len(some) == 1 else f"{some[0]}-{some[-1]}")
    return ", ".join(words)
