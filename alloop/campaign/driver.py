"""The driver: plan, submit, commit, until there is a verdict."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from alloop.campaign import ladder
from alloop.campaign.actions import Finish, FormCommittee, OpenGeneration, Plan, Seal
from alloop.campaign.clocks import Clocks
from alloop.campaign.plan import plan
from alloop.campaign.pool_log import PoolLog
from alloop.campaign.prospective import prospective
from alloop.campaign.verdict import Verdict
from alloop.config.model import Campaign
from alloop.errors import CampaignError
from alloop.executors.protocol import Executor, Outcome, Work
from alloop_db.queue import Claim
from alloop_db.state import CampaignState
from alloop_db.store import Store
from alloop_tasks.boundary import KINDS
from alloop_tasks.full_disk import has_room
from alloop_tasks.workspace import Workspace, read_json

PAUSE = "pause"
"""Name of the file by which another process asks the driver to pause."""
TICK = 1.0
"""How often the wall time is booked and people are told, s."""
CHECK = 5.0
"""How often the executor is asked whether it lives, s."""
CROWD = 50
"""With more than twice as many workers one decision is made for several tasks that have ended.

A decision costs the driver as much as a few commits, and each worker has a task waiting behind
the one it runs: for one in CROWD of the tasks nobody stands idle.
"""
TOGETHER = ("prepare", "explore", "select")
"""Kinds of task of which nothing follows before the last of them is done."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the driver tells whoever watches it."""

    stage: str
    state: CampaignState
    running: tuple[tuple[Claim, dict[str, Any]], ...]
    """Tasks in flight, each with what it says of its own progress."""
    elapsed: float


Observer = Callable[[Moment], None]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A task in the executor's hands, and what it had got done when it was given there."""

    claim: Claim
    parts: tuple[tuple[str, int, int], ...]


class Driver:
    """One run of the loop on an open ledger."""

    def __init__(
        self,
        config: Campaign,
        directory: Path,
        store: Store,
        executor: Executor,
        epoch: int,
        check_lock: Callable[[], None],
        observe: Observer,
    ) -> None:
        self._config, self._directory, self._store = config, directory, store
        self._executor, self._epoch = executor, epoch
        self._check_lock, self._observe = check_lock, observe
        self._flying: dict[str, _Flight] = {}
        self._resting: list[tuple[float, Claim]] = []  # handed back, and when to send them again
        self._clocks = Clocks()
        self._sent: dict[str, float] = {}  # when a task was first submitted: its result may be old
        self._pools = PoolLog(store, executor)
        self._stop: str | None = None
        self._undecided = 0  # tasks ended since the last plan that may call for another
        tiers = [tier.id for tier in config.tiers]
        self._work = frozenset[Work](
            [("label", tier) for tier in tiers]
            + [(kind, None) for kind in KINDS if kind != "label"]
        )
        self._pending = self._work  # of what the ledger may hold tasks that can be submitted
        self._began = self._booked = self._checked = time.monotonic()

    def run(self) -> Verdict:
        """Go on until there is a verdict, a signal or a request to pause."""
        with self._signals():
            try:
                return self._loop()
            finally:
                resting = [claim.key for _, claim in self._resting]
                self._store.tasks.requeue([*self._flying, *resting])
                self._store.spend(time.monotonic() - self._booked)

    def _loop(self) -> Verdict:
        step = self._advance()
        while not isinstance(step, Verdict):
            if self._stop:
                return Verdict("paused", f"stopped by {self._stop}; start again to go on")
            self._check_lock()
            pausing = (self._directory / PAUSE).exists()
            if pausing and not self._flying:
                return Verdict("paused", "paused on request; start again to go on")
            if not pausing:
                self._submit()
            outcomes = self._executor.wait(timeout=0.2)
            for outcome in outcomes:
                self._settle(outcome)
            if failure := self._executor_failure():
                return Verdict("lost", f"{failure}; nothing is lost, start again to go on")
            self._tell(step)
            if self._is_due(len(outcomes)):
                step = self._advance()
        return step

    def _is_due(self, n_ended: int) -> bool:
        """Return whether to plan: tasks have ended, enough of them, or no more for the moment.

        Nothing else can change what is missing.
        """
        enough = self._undecided >= max(1, self._executor.slots // CROWD)
        return enough or (self._undecided > 0 and not n_ended)

    def _advance(self) -> Plan | Verdict:
        """Carry out what needs no worker, record what needs one."""
        self._undecided = 0
        while True:
            state = self._store.state()
            elapsed = time.monotonic() - self._booked
            step = plan(state, self._config, self._executor.slots, elapsed)
            if step.action is None:
                added = self._store.tasks.add(step.tasks)
                if added:
                    self._pending = self._work
                # The planner sees a window of the labels: with many workers it takes several.
                full = state.open_label_tasks + added >= 2 * self._executor.slots
                if not added or (step.stage == "label" and full):
                    return step
            elif isinstance(step.action, Finish):
                return step.action.verdict
            else:
                self._carry_out(step.action)

    def _carry_out(self, action: Seal | FormCommittee | OpenGeneration) -> None:
        match action:
            case Seal(generation, below):
                if not below:
                    # First: once the set is sealed nobody comes back here.
                    self._judge_blind_predictions(generation)
                self._store.seal(generation, below=below)
            case FormCommittee(generation, mode, members, sha256):
                self._store.form_committee(generation, mode, members, sha256)
            case OpenGeneration(generation, committee_id, tier, why):
                self._store.open_generation(generation, committee_id, tier, why)

    def _judge_blind_predictions(self, generation: int) -> None:
        state = self._store.state()
        explorer, tier = state.explorer, state.generation.tier
        if explorer is None or explorer.tier != tier:
            return
        first = tier == self._config.tiers[0].id
        confidence = ladder.target(self._config, tier).confidence
        rows = prospective(
            self._store.engine, generation, explorer.committee_id, confidence, promoted=not first
        )
        self._store.record_evaluations(explorer.committee_id, generation, rows)

    # -- tasks in flight -------------------------------------------------------------------------

    def _submit(self) -> None:
        now = time.monotonic()
        rested = [claim for until, claim in self._resting if until <= now]
        self._resting = [(until, claim) for until, claim in self._resting if until > now]
        self._send(rested)
        if not self._pending:
            return
        for work, room in self._executor.room(self._work).items():
            if room > 0 and work & self._pending:
                claims = self._store.tasks.claim(room, self._epoch, self._named(work))
                if len(claims) < room:
                    self._pending -= work
                self._send(claims)

    def _named(self, work: frozenset[Work]) -> dict[str, set[str] | None] | None:
        """Return work as the ledger wants it: kinds with their tiers, None for all there is."""
        if work == self._work:
            return None
        tiers = {tier for _, tier in work if tier is not None}
        every = {tier for _, tier in self._work if tier is not None}
        return {kind: tiers if tier and tiers != every else None for kind, tier in work}

    def _send(self, claims: list[Claim]) -> None:
        for claim in claims:
            parts = Workspace(self._directory, claim.key).state_of_parts()
            self._flying[claim.key] = _Flight(claim, parts)
            self._sent.setdefault(claim.key, time.time())
            self._executor.submit(claim.kind, claim.spec, claim.key, claim.losses)

    def _settle(self, outcome: Outcome) -> None:
        flight = self._flying.pop(outcome.key, None)
        if flight is not None and outcome.status == "handed_back":
            self._take_back(flight.claim, outcome)
            return
        self._undecided += outcome.status != "done" or self._may_follow(flight)
        if outcome.status == "full":
            self._check_room(outcome)
            outcome = replace(outcome, status="lost", reason=f"full scratch: {outcome.reason}")
        if outcome.status != "done":
            self._pending = self._work  # it may get another try
        if outcome.status == "lost" or not settle(
            self._store, self._directory, outcome.key, self._set_clock
        ):
            self._pending = self._work
            reason = outcome.reason or "its result file is missing"
            self._store.tasks.lose(
                outcome.key,
                reason,
                advanced=self._has_advanced(flight),
                pool=outcome.pool,
                host=outcome.host,
            )

    def _set_clock(self, envelope: dict[str, Any]) -> None:
        """Put right when a task began, and tell of a node whose clock is wrong."""
        sent = self._sent.pop(envelope["key"], None)
        ahead = None if sent is None else self._clocks.correct(envelope, sent, time.time())
        if ahead is not None:
            host, side = envelope["environment"]["host"], "ahead" if ahead > 0 else "behind"
            words = f"the clock of {host} is {abs(ahead):.0f} s {side}"
            self._store.event("clock", words, {"host": host, "seconds_ahead": round(ahead, 1)})

    def _check_room(self, outcome: Outcome) -> None:
        """Stop unless what is full is only the scratch of a node: others may have some."""
        has_own = has_room(self._directory)
        if has_own and outcome.pool:
            return
        self._store.tasks.requeue([outcome.key])
        full = "a disk of this machine" if has_own else f"{self._directory}: the disk"
        raise CampaignError(
            f"{full} is full ({outcome.reason}); nothing that was finished is lost: make room and"
            " start again"
        )

    def _take_back(self, claim: Claim, outcome: Outcome) -> None:
        """Keep a task whose block ends until that has ended: it must not go there again."""
        status = self._store.tasks.hand_back(
            claim.key, outcome.reason, advanced=outcome.advanced, seconds=outcome.seconds
        )
        if status == "running":
            self._resting.append((time.monotonic() + outcome.wait, claim))
        else:
            self._undecided += 1

    def _has_advanced(self, flight: _Flight | None) -> bool:
        """Return whether a task that was lost has left more than it had found."""
        if flight is None:
            return False
        parts = Workspace(self._directory, flight.claim.key).state_of_parts()
        return bool(parts) and parts != flight.parts

    def _may_follow(self, flight: _Flight | None) -> bool:
        """Return whether the planner can have an answer to the end of a task."""
        if flight is None or flight.claim.kind not in TOGETHER:
            return True
        flying = [other.claim for other in self._flying.values()]
        resting = [claim for _, claim in self._resting]
        return all(other.kind != flight.claim.kind for other in flying + resting)

    def _executor_failure(self) -> str | None:
        if time.monotonic() - self._checked < CHECK:
            return None
        self._checked = time.monotonic()
        self._pools.look()
        # A task that rests may yet go to a pool that works.
        return None if self._resting else self._executor.failure()

    def _tell(self, step: Plan) -> None:
        now = time.monotonic()
        if now - self._booked < TICK:
            return
        self._store.spend(now - self._booked)
        self._booked = now
        # One listing, not two files for each of thousands of tasks: the folder may lie far away.
        outbox = self._directory / "outbox"
        names = {path.name for path in outbox.iterdir()} if outbox.is_dir() else set()
        running = tuple(
            (flight.claim, _progress(Workspace(self._directory, key), names))
            for key, flight in self._flying.items()
        )
        self._observe(Moment(step.stage, self._store.state(), running, now - self._began))

    # -- signals ---------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, _: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, stop) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _progress(workspace: Workspace, names: set[str]) -> dict[str, Any]:
    """Return what a task says of itself, and whether a worker has taken it.

    ``names`` are the files in the outbox.
    """
    path = workspace.progress_path
    said: dict[str, Any] = (read_json(path) if path.name in names else None) or {}
    return said | {"taken": workspace.running_path.name in names}


def settle(
    store: Store,
    directory: Path,
    key: str,
    correct: Callable[[dict[str, Any]], None] = lambda _: None,
) -> bool:
    """Bring the result file of a task into the ledger; return False if there is none.

    ``correct`` puts right what a node may be wrong about.
    """
    workspace = Workspace(directory, key)
    envelope = read_json(workspace.result_path)
    if envelope is None:
        return False
    correct(envelope)
    if envelope["status"] == "done":
        store.tasks.commit(envelope)
        shutil.rmtree(workspace.parts, ignore_errors=True)
    else:
        store.tasks.fail(envelope)
    workspace.result_path.unlink(missing_ok=True)
    workspace.progress_path.unlink(missing_ok=True)
    return True


def recover(store: Store, directory: Path) -> dict[str, int]:
    """Take over from a driver that is gone: harvest what was finished, requeue the rest."""
    harvested = 0
    keys = store.tasks.open_keys()
    for key in keys:
        if settle(store, directory, key):
            harvested += 1
    requeued = store.tasks.requeue(store.tasks.open_keys())
    open_names = set(store.tasks.open_keys())
    outbox = directory / "outbox"
    for path in outbox.iterdir() if outbox.is_dir() else ():
        if path.name.split(".")[0] not in open_names:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return {"harvested": harvested, "requeued": requeued}
