"""Start a campaign: create it, go on with it, or say that it is over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

import alloop
from alloop.artifacts import ArtifactStore
from alloop.campaign.driver import PAUSE, Driver, Observer, recover
from alloop.campaign.methods import method_of
from alloop.campaign.verdict import Verdict
from alloop.config.load import LoadedCampaign
from alloop.config.model import Campaign
from alloop.config.resolved import check_changes, digest, resolved
from alloop.errors import ConfigError, MethodError
from alloop.executors.durations import Durations
from alloop.executors.site import build_executor, load_site
from alloop.reference.method import MethodSpec, build_reference
from alloop_db import schema as t
from alloop_db.durations import longest_tasks
from alloop_db.filesystem import network_warning
from alloop_db.ledger import open_ledger
from alloop_db.lock import CampaignLock
from alloop_db.store import ConfigRecord, Store
from alloop_tasks.systems import frame_of

FINISHED = ("converged", "budget", "stalled")
"""States that only a change of the config can leave."""

Say = Callable[[str], None]


def start(loaded: LoadedCampaign, say: Say, observe: Observer, *, approve: bool = False) -> Verdict:
    """Drive a campaign to its verdict; a finished one is left as it is.

    ``say`` gets lines for people, ``observe`` is told every second how the work goes. ``approve``
    agrees to the price that the campaign has paused with.

    Raises
    ------
    ConfigError
        The config changes what cannot be changed any more.
    LedgerError
        Another driver holds the campaign, or the ledger cannot be written.
    CampaignError
        The campaign cannot go on.

    """
    config, directory = loaded.config, loaded.directory
    site = load_site(config.site, loaded.path.parent)
    _check_methods(loaded)
    with ExitStack() as stack:
        directory.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(CampaignLock(directory))
        engine = open_ledger(directory, create=True)
        stack.callback(engine.dispose)
        store = Store(engine, ArtifactStore(directory / "artifacts"))
        for warning in loaded.warnings:
            say(f"warning: {warning}")
        before = _begin(loaded, store, say)
        if isinstance(before, Verdict):
            return before
        for note in (network_warning(directory), lock.note):
            if note:
                say(f"warning: {note}")
        (directory / PAUSE).unlink(missing_ok=True)
        epoch = store.begin_epoch(_record(loaded), before)
        lock.announce(epoch)
        _take_over(store, directory, say)
        if approve:
            _approve(store, say)
        executor = build_executor(site, directory, Durations(longest_tasks(engine)))
        stack.callback(executor.close)
        _note_workers(store, config.site, executor.slots)
        verdict = Driver(config, directory, store, executor, epoch, lock.check, observe).run()
        store.finish(verdict.state, verdict.exit_code, verdict.text)
        return verdict


def _check_methods(loaded: LoadedCampaign) -> None:
    """Find out now, not in the first task, that a method cannot do a system.

    An ASE calculator is left alone: its program may exist on the workers only. So is a method
    whose labels are made elsewhere.
    """
    problems = []
    for tier in loaded.config.tiers:
        spec = MethodSpec.from_json(method_of(loaded.config, tier))
        if spec.engine in ("ase", "external"):
            continue
        for name, frame in loaded.structures.items():
            try:
                build_reference(spec, frame.numbers, frame.charge, frame.multiplicity)
            except MethodError as error:
                problems.append(f"{loaded.path}  tiers.{tier.id}.method: system {name}: {error}")
    if problems:
        raise ConfigError(tuple(problems))


def _begin(loaded: LoadedCampaign, store: Store, say: Say) -> Verdict | list[str]:
    """Create the campaign, or check that it may go on.

    Returns its verdict if it is over, else what the config changes, one line each.
    """
    config = loaded.config
    created = store.create(
        name=config.campaign.name,
        seed=config.campaign.seed,
        version=alloop.__version__,
        systems=loaded.structures,
        methods=_methods(config),
    )
    if created:
        say(f"new campaign {config.campaign.name} in {loaded.directory}")
        return []
    _refuse_other_structures(loaded, store)
    latest = store.latest_config()
    changes = [] if latest is None else check_changes(latest, loaded)
    campaign = store.campaign()
    if campaign.state == "stalled" and _tier_was_stopped(store):
        again = store.tasks.revive_labels()
        say(f"the reference method only failed before: trying {again} failed labels again")
    elif campaign.state in FINISHED and not changes:
        say("finished before, nothing to do")
        return Verdict(campaign.state, campaign.verdict or "")
    for change in changes:
        say(f"config changed: {change}")
    store.add_tiers(_methods(config))
    return [str(change) for change in changes]


def _methods(config: Campaign) -> dict[str, dict[str, Any]]:
    return {tier.id: method_of(config, tier) for tier in config.tiers}


def _approve(store: Store, say: Say) -> None:
    """Note that the price of the open generation is agreed to, if it has one."""
    generation = store.state().generation
    pending = generation.labels.get(generation.tier, {}).get("pending", 0)
    if generation.promotion is None or generation.approved or not pending:
        say("nothing waits for approval")
        return
    text = f"{pending} labels of tier {generation.tier} approved"
    store.approve(generation.number, text)
    say(text)


def _tier_was_stopped(store: Store) -> bool:
    """Return whether a stalled campaign ended among its labels: all other stalls come later."""
    generation = store.state().generation
    return generation.snapshot is None and bool(generation.labels)


def _refuse_other_structures(loaded: LoadedCampaign, store: Store) -> None:
    """A structure file is part of the campaign though the config only names it."""
    problems = tuple(
        f"{loaded.path}  systems.{name}: its structure is not the one that the campaign began"
        " with; put the file back, or give another campaign.directory"
        for name, record in store.system_records().items()
        if name in loaded.structures and frame_of(record).key != loaded.structures[name].key
    )
    if problems:
        raise ConfigError(problems)


def _take_over(store: Store, directory: Path, say: Say) -> None:
    found = recover(store, directory)
    revived = store.tasks.revive()
    counts = _label_counts(store)
    if store.campaign().epoch == 1:
        return
    store.event("start", "resumed", found | {"revived": revived} | counts)
    say(
        f"resuming: kept {counts.get('done', 0)} labels, {counts.get('pending', 0)} to go,"
        f" {counts.get('failed', 0)} failed; {found['harvested']} finished tasks harvested,"
        f" {found['requeued']} interrupted tasks start again"
        + (f"; trying again: {', '.join(revived)}" if revived else "")
    )


def _note_workers(store: Store, site: str, slots: int) -> None:
    """Note how many tasks can run at once from now on: utilisation is reckoned with it."""
    details = {"slots": slots, "seconds": store.campaign().seconds}
    store.event("workers", f"site {site} runs up to {slots} tasks at once", details)


def _label_counts(store: Store) -> dict[str, int]:
    with store.engine.connect() as connection:
        rows = connection.execute(
            select(t.LabelRow.status, func.count()).group_by(t.LabelRow.status)
        )
        return dict(rows.all())


def _record(loaded: LoadedCampaign) -> ConfigRecord:
    text = resolved(loaded.config)
    return ConfigRecord(digest(text), loaded.text, text)
