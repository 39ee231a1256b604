"""What a plan can ask for: tasks to be recorded, or one action that needs no worker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from alloop.campaign.verdict import Verdict
from alloop_db.queue import TaskIntent
from alloop_db.state import CampaignState, GenerationState


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the training sets of a generation, of its own tier and of those below.

    ``below`` leaves its own tier out: what is known below is what frames are promoted from.
    """

    generation: int
    below: bool = False


@dataclass(frozen=True, slots=True)
class FormCommittee:
    """Seat the members that a generation has trained in one mode."""

    generation: int
    mode: str
    members: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, generation: GenerationState, mode: str, seats: Sequence[str]) -> FormCommittee:
        """Seat the members in this order."""
        models = generation.models[mode]
        digest = hashlib.sha256(f"generation {generation.number}\n".encode())
        for member in seats:
            digest.update(f"{member} {models[member]}\n".encode())
        return cls(generation.number, mode, tuple(seats), digest.hexdigest())


@dataclass(frozen=True, slots=True)
class OpenGeneration:
    """Close the open generation and begin the next, a turn of a tier, explored by a committee."""

    generation: int
    committee_id: int
    tier: str
    why: str = ""
    """Why the tier is another one than before; empty if it is not."""


@dataclass(frozen=True, slots=True)
class Finish:
    """End the campaign."""

    verdict: Verdict


Action = Seal | FormCommittee | OpenGeneration | Finish


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: intents to record, or one action that needs no worker.

    ``stage`` names the stage that the campaign is in, for people.
    """

    stage: str
    tasks: tuple[TaskIntent, ...] = ()
    action: Action | None = None


def unfinished(state: CampaignState, tasks: Sequence[TaskIntent]) -> list[TaskIntent]:
    """Return the tasks that are neither done nor failed."""
    return [task for task in tasks if state.tasks.get(task.key) not in ("done", "failed")]


def failed(state: CampaignState, tasks: Sequence[TaskIntent]) -> list[TaskIntent]:
    """Return the tasks that failed for good."""
    return [task for task in tasks if state.tasks.get(task.key) == "failed"]


def give_up(stage: str, tasks: Sequence[TaskIntent]) -> Plan:
    """Return the end of a campaign whose tasks failed for good."""
    names = ", ".join(f"{task.kind} {task.key[:12]}" for task in tasks)
    text = (
        f"{len(tasks)} task(s) failed for good: {names}; `alloop query failures` shows why,"
        " `alloop start` tries them again"
    )
    return Plan(stage, action=Finish(Verdict("error", text)))
