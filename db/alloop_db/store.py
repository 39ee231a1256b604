"""The campaign as a whole and the turns of its loop: each public method is one transaction.

With :mod:`alloop_db.queue` the only writer of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.orm import Session

from alloop.artifacts import ArtifactStore
from alloop.frames import Frame
from alloop_db import schema as t
from alloop_db.arrays import floats_to_blob, integers_to_blob
from alloop_db.commits import (
    add_evaluations,
)
from alloop_db.queue import TaskQueue
from alloop_db.reader import StateReader, system_record
from alloop_db.sessions import record_event, transaction
from alloop_db.sets import seal_snapshots
from alloop_db.state import CampaignState


@dataclass(frozen=True, slots=True)
class ConfigRecord:
    """The config that a driver was started with."""

    sha256: str
    source: str
    resolved: str
    """Canonical JSON with every default filled in."""


class Store:
    """Transactions of the campaign loop."""

    def __init__(self, engine: Engine, artifacts: ArtifactStore) -> None:
        self.engine = engine
        self.artifacts = artifacts
        self.tasks = TaskQueue(engine, artifacts)
        self._reader = StateReader()

    # -- the campaign as a whole ---------------------------------------------------------------

    def create(
        self,
        name: str,
        seed: int,
        version: str,
        systems: dict[str, Frame],
        methods: dict[str, dict[str, Any]],
    ) -> bool:
        """Create the campaign's rows unless they exist; return whether they were created.

        ``methods`` is the reference method of each tier, cheap to expensive.
        """
        with transaction(self.engine) as session:
            if session.scalar(select(func.count()).select_from(t.CampaignRow)):
                return False
            session.add(
                t.CampaignRow(
                    campaign_id=1,
                    name=name,
                    seed=seed,
                    created_at=t.now(),
                    alloop_version=version,
                    state="running",
                    epoch=0,
                    seconds=0.0,
                )
            )
            for system, frame in systems.items():
                session.add(_system_row(system, frame))
            _add_tiers(session, methods)
            first = session.scalars(
                select(t.LevelOfTheory.level_of_theory_id).order_by(
                    t.LevelOfTheory.level_of_theory_id
                )
            ).first()
            session.add(
                t.Generation(
                    number=0,
                    level_of_theory_id=first,
                    state="open",
                    numbers={},
                    opened_at=t.now(),
                )
            )
            return True

    def add_tiers(self, methods: dict[str, dict[str, Any]]) -> list[str]:
        """Add the tiers that the ledger does not know yet; return them."""
        with transaction(self.engine) as session:
            return _add_tiers(session, methods)

    def approve(self, number: int, text: str) -> None:
        """Note that a person agrees to the price of a generation."""
        self.event("approval", text, {"generation": number})

    def begin_epoch(self, config: ConfigRecord, changes: Sequence[str]) -> int:
        """Note that a driver has taken the campaign; return its epoch."""
        with transaction(self.engine) as session:
            known = session.scalar(
                select(t.ConfigVersion).where(t.ConfigVersion.sha256 == config.sha256)
            )
            if known is None:
                session.add(
                    t.ConfigVersion(
                        sha256=config.sha256,
                        source=config.source,
                        resolved=json.loads(config.resolved),
                        changes={"changes": list(changes)},
                        created_at=t.now(),
                    )
                )
            campaign = session.scalars(select(t.CampaignRow)).one()
            campaign.epoch += 1
            campaign.state, campaign.exit_code, campaign.verdict = "running", None, None
            return campaign.epoch

    def latest_config(self) -> str | None:
        """Return the resolved config of the last start, as JSON text."""
        with transaction(self.engine) as session:
            stored = session.scalar(
                select(t.ConfigVersion.resolved)
                .order_by(t.ConfigVersion.config_version_id.desc())
                .limit(1)
            )
        return None if stored is None else json.dumps(stored)

    def campaign(self) -> t.CampaignRow:
        """Return the campaign's row, detached."""
        with Session(self.engine, expire_on_commit=False) as session:
            row = session.scalars(select(t.CampaignRow)).one()
            session.expunge(row)
            return row

    def spend(self, seconds: float) -> None:
        """Add to the wall time of the campaign."""
        with transaction(self.engine) as session:
            session.execute(update(t.CampaignRow).values(seconds=t.CampaignRow.seconds + seconds))

    def system_records(self) -> dict[str, dict[str, Any]]:
        """Return every system as it was when the campaign began."""
        with transaction(self.engine) as session:
            rows = session.scalars(select(t.System).order_by(t.System.system_id))
            return {row.name: system_record(row) for row in rows}

    def finish(self, state: str, exit_code: int, verdict: str) -> None:
        """Store the verdict with which a driver ends."""
        with transaction(self.engine) as session:
            session.execute(
                update(t.CampaignRow).values(state=state, exit_code=exit_code, verdict=verdict)
            )
            record_event(session, "verdict", verdict, {"state": state, "exit_code": exit_code})

    def event(self, kind: str, text: str, details: dict[str, Any] | None = None) -> None:
        """Note something that people should be able to read later."""
        with transaction(self.engine) as session:
            record_event(session, kind, text, details)

    def state(self) -> CampaignState:
        """Return what the planner needs to know."""
        with self.engine.connect() as connection:
            return self._reader.read(connection)

    # -- the turns of the loop -------------------------------------------------------------------

    def seal(self, number: int, *, below: bool = False) -> dict[str, int]:
        """Seal the training sets of a generation; return how many labels that of each tier has.

        With ``below`` its own tier is left out.
        """
        with transaction(self.engine) as session:
            return seal_snapshots(session, number, self.artifacts, below=below)

    def form_committee(self, number: int, mode: str, members: Sequence[str], sha256: str) -> None:
        """Seat the models of a generation that learnt in one mode, in the order of ``members``."""
        with transaction(self.engine) as session:
            generation_id = _generation_id(session, number)
            models = {
                model.member: model
                for model in session.scalars(
                    select(t.Model).where(
                        t.Model.generation_id == generation_id, t.Model.mode == mode
                    )
                )
            }
            snapshot = session.get_one(t.Snapshot, models[members[0]].snapshot_id)
            committee = t.Committee(
                sha256=sha256,
                generation_id=generation_id,
                level_of_theory_id=snapshot.level_of_theory_id,
                created_at=t.now(),
            )
            session.add(committee)
            session.flush()
            for position, member in enumerate(members):
                session.add(
                    t.CommitteeMember(
                        committee_id=committee.committee_id,
                        position=position,
                        model_id=models[member].model_id,
                    )
                )

    def record_evaluations(
        self, committee_id: int, number: int, evaluations: Sequence[dict[str, Any]]
    ) -> None:
        """Add error estimates that the driver itself has made."""
        with transaction(self.engine) as session:
            add_evaluations(session, committee_id, _generation_id(session, number), evaluations)

    def open_generation(self, number: int, committee_id: int, tier: str, why: str = "") -> None:
        """Close the open generation and open the next, a turn of a tier.

        ``why`` it is a turn of another tier than the one before.
        """
        with transaction(self.engine) as session:
            session.execute(
                update(t.Generation)
                .where(t.Generation.number == number - 1)
                .values(state="closed", closed_at=t.now())
            )
            session.execute(
                insert_or(t.Generation)
                .values(
                    number=number,
                    level_of_theory_id=session.scalars(
                        select(t.LevelOfTheory.level_of_theory_id).where(
                            t.LevelOfTheory.tier == tier
                        )
                    ).one(),
                    state="open",
                    committee_id=committee_id,
                    numbers={},
                    opened_at=t.now(),
                )
                .on_conflict_do_nothing(index_elements=["number"])
            )
            record_event(session, "generation", f"generation {number} of tier {tier} begins", None)
            if why:
                record_event(session, "tier", why, {"tier": tier})


def _add_tiers(session: Session, methods: dict[str, dict[str, Any]]) -> list[str]:
    known = set(session.scalars(select(t.LevelOfTheory.tier)))
    new = [tier for tier in methods if tier not in known]
    for tier in new:
        method = methods[tier]
        session.add(t.LevelOfTheory(name=method["model"], tier=tier, method=method))
        session.flush()
    return new


def _system_row(name: str, frame: Frame) -> t.System:
    return t.System(
        name=name,
        formula=frame.formula,
        n_atoms=frame.n_atoms,
        charge=frame.charge,
        multiplicity=frame.multiplicity,
        numbers=integers_to_blob(frame.numbers),
        positions=floats_to_blob(frame.positions),
        cell=None if frame.cell is None else floats_to_blob(frame.cell),
        pbc="".join("T" if flag else "F" for flag in frame.pbc),
    )


def _generation_id(session: Session, number: int) -> int:
    return session.scalars(
        select(t.Generation.generation_id).where(t.Generation.number == number)
    ).one()
