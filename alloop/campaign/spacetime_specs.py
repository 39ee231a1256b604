"""What fits and probes of 4D models ask of a worker, as JSON; see :mod:`alloop.campaign.specs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alloop import seeds
from alloop.campaign.specs import intent, shard_record
from alloop.config.model import Campaign, Probe, Route, Spacetime
from alloop_db.queue import TaskIntent
from alloop_db.state import CommitteeState, ShardState, SpacetimeState, SystemState

PROBE_SEGMENTS = 50
"""How many segments a probe follows each replica for, unless the config says how long."""
REFERENCE_SEGMENTS = 10
"""How many segments long the trajectories are that a probe begins."""
REFIT_SHARE = 0.25
"""Part of the steps for a refit to what a probe began: it starts from a fit to all the rest."""


def fit_spacetime(
    config: Campaign,
    settings: Spacetime,
    system: SystemState,
    committee: CommitteeState,
    shards: Sequence[ShardState],
    parent: str | None,
    turn: int,
) -> TaskIntent:
    """Fit a 4D model to the sound NVE trajectories of a system, and judge it.

    ``parent`` is the model in use; ``turn`` counts the fits for one committee, from 0.
    """
    place = (committee.generation, system.record["name"], turn)
    spec = {
        "system": system.record,
        "committee_id": committee.committee_id,
        "committee": [sha256 for _, sha256 in committee.members],
        "shards": [shard_record(shard) for shard in shards],
        "settings": {
            "cutoff": settings.cutoff,
            "networks": settings.networks,
            "hidden": list(settings.hidden),
            "steps": settings.steps if turn == 0 else round(REFIT_SHARE * settings.steps),
            "windows": settings.windows,
            "energy_weight": settings.energy_weight,
            "interval": config.explore.nve_interval,
        },
        "gate_tolerance": settings.gate_tolerance,
        "quantile": settings.probe.quantile if settings.probe else None,
        "parent": parent,
        "turn": turn,
        "seed": seeds.integer(config.campaign.seed, "spacetime", *place),
    }
    return intent("fit_spacetime", spec, committee.generation)


def probe_spacetime(
    config: Campaign,
    probe: Probe,
    system: SystemState,
    route: Route,
    model: SpacetimeState,
) -> TaskIntent:
    """Propagate replicas with a 4D model; begin trajectories where it disagrees with itself."""
    seed, place = config.campaign.seed, (model.generation, model.system, model.turn)
    spec: dict[str, Any] = {
        "system": system.record,
        "model": model.sha256,
        "committee_id": model.committee_id,
        "committee": list(model.committee),
        "turn": model.turn,
        "thresholds": model.thresholds,
        "preparation": system.preparation if route.start != "frames" else None,
        "snapshot": model.snapshot if route.start == "frames" else None,
        "start": route.start,
        "replicas": [
            {
                "temperature": route.temperature[index % len(route.temperature)],
                "seed": str(seeds.integer(seed, "probe", *place, index)),
            }
            for index in range(probe.replicas)
        ],
        "duration": probe.duration,
        "segments": PROBE_SEGMENTS,
        "reference": {
            "most": probe.max_segments,
            "segments": REFERENCE_SEGMENTS,
            "timestep": route.timestep,
            "record_every": round(route.record_every / route.timestep),
        },
        "fractions": {
            "validation": config.select.validation_fraction,
            "audit": config.select.audit_fraction,
        },
        "health": config.explore.health.model_dump(mode="json"),
        "bonds_hold": not config.systems[model.system].reactive,
        "seed": seeds.integer(seed, "probe", *place),
    }
    return intent("probe_spacetime", spec, model.generation)
