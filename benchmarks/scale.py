"""Does the driver keep up with 1,000 workers, and the ledger with a million labels?

    python benchmarks/scale.py [sizes|modes] [--labels 5000 10000 20000] [--workers 1000]

The real driver, planner and ledger run a campaign on the workers of
:mod:`benchmarks.virtual_cluster`, whose clock is virtual: only what the workers would do is made
up. ``sizes`` prints what driver and ledger cost at several sizes; ``modes`` prints how busy the
workers are with and without a barrier between labels and training, with and without faults. The
driver's own time is charged to the virtual clock at stated rates (``Charge``), so that equal seeds
give equal tables.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select

from alloop.artifacts import ArtifactStore
from alloop.campaign import driver
from alloop.campaign.actions import Plan
from alloop.campaign.driver import Driver
from alloop.campaign.methods import method_of
from alloop.config.load import load
from alloop.config.model import Campaign
from alloop.config.shipped import shipped
from alloop_db import schema as t
from alloop_db.ledger import open_ledger
from alloop_db.sessions import transaction
from alloop_db.store import ConfigRecord, Store
from benchmarks.stopwatch import Stopwatch
from benchmarks.virtual_cluster import FAULTY, Durations, Faults, Tally, VirtualCluster

CONFIG = """
schema: 1
campaign: {{name: scale, seed: 1, directory: run}}
systems:
{systems}
tiers:
  - id: first
    method: {{engine: tblite, model: GFN2-xTB}}
    budget: {{labels: {labels}}}
    close_at: {close_at}
    give_up_after: 200
committee: [{{id: ani, members: 8}}]
explore:
  initial: {{sampler: rattle, frames: {initial}}}
  routes: [{{id: warm, duration: 200 fs, replicas: {replicas}, batch: 4}}]
select: {{per_generation: {per_generation}}}
stop: {{max_generations: 1000000, patience: 1000000}}
site: inprocess
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """One campaign on the virtual cluster."""

    labels: int
    workers: int = 1000
    per_generation: int = 2500
    systems: int = 10
    explorations: int = 250
    """Tasks that explore in a generation, four trajectories in each."""
    label_seconds: float = 60.0
    close_at: float = 1.0
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a campaign."""

    setup: Setup
    tally: Tally
    makespan_s: float
    driver_s: float
    """Processor time of the driver, without what the virtual workers took."""
    spent: Stopwatch
    rows: dict[str, int]
    ledger_mb: float
    rss_mb: float

    @property
    def tasks(self) -> int:
        """Submissions."""
        return sum(self.tally.submitted.values())

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that went into results."""
        available = self.setup.workers * self.makespan_s
        return sum(self.tally.useful_s.values()) / available

    @property
    def made_twice(self) -> int:
        """Labels that were made and handed to the driver more than once."""
        return sum(n > 1 for n in self.tally.made.values())

    def decisions_ms(self) -> list[float]:
        """Return what each reading of the ledger with the plan that followed took, ms."""
        return [1e3 * seconds for seconds in self.spent.spent["decision"]]


def simulate(setup: Setup, directory: Path) -> Run:
    """Run a campaign to its verdict."""
    config, structures = _config(setup, directory)
    directory = directory / "run"
    store = Store(open_ledger(directory, create=True), ArtifactStore(directory / "artifacts"))
    tier = config.tiers[0]
    store.create("scale", 1, "0", structures, {tier.id: method_of(config, tier)})
    epoch = store.begin_epoch(ConfigRecord("0" * 64, "", "{}"), ())
    durations = Durations()
    durations.median["label"] = setup.label_seconds
    cluster = VirtualCluster(directory, setup.workers, durations=durations, faults=setup.faults)
    clock = Stopwatch()
    clock.watch(store, "state", "seal")
    clock.watch(store.tasks, "add", "claim", "commit", "lose", "fail")
    clock.watch(cluster, "wait", "submit")
    began = time.process_time()
    with _decisions_watched(clock):
        lone, unseen = (lambda: None), (lambda _: None)
        verdict = Driver(config, directory, store, cluster, epoch, lone, unseen).run()
    if verdict.state != "budget":
        raise SystemExit(f"not a whole campaign: {verdict.text}")
    driver_s = time.process_time() - began - clock.total("wait", "submit")
    rows = _rows(store)
    store.engine.dispose()
    return Run(
        setup=setup,
        tally=cluster.tally,
        makespan_s=cluster.now,
        driver_s=driver_s,
        spent=clock,
        rows=rows,
        ledger_mb=(directory / "ledger.sqlite").stat().st_size / 1e6,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    )


@contextmanager
def _decisions_watched(clock: Stopwatch) -> Iterator[None]:
    plain = driver.plan
    clock.watch(driver, "plan")
    planned = driver.plan

    def decide(*arguments: Any) -> Plan:
        step = planned(*arguments)
        # Each plan is made of a state that was read for it.
        clock.spent["decision"].append(clock.spent["state"][-1] + clock.spent["plan"][-1])
        return step

    driver.plan = decide
    try:
        yield
    finally:
        driver.plan = plain


def _config(setup: Setup, directory: Path) -> tuple[Campaign, dict[str, Any]]:
    structure = (shipped("configs") / "ethanol.xyz").read_text()
    (directory / "ethanol.xyz").write_text(structure)
    n = setup.systems
    text = CONFIG.format(
        systems="\n".join(f"  s{i}: {{structure: ethanol.xyz}}" for i in range(n)),
        labels=setup.labels,
        close_at=setup.close_at,
        initial=setup.per_generation // n,
        per_generation=setup.per_generation,
        replicas=4 * max(1, setup.explorations // n),
    )
    (directory / "config.yaml").write_text(text)
    loaded = load(directory / "config.yaml")
    return loaded.config, loaded.structures


def _rows(store: Store) -> dict[str, int]:
    with transaction(store.engine) as session:
        counts = session.execute(
            select(t.LabelRow.status, func.count()).group_by(t.LabelRow.status)
        )
        done = select(t.LabelAttempt.label_id).where(t.LabelAttempt.status == "done")
        twice = done.group_by(t.LabelAttempt.label_id).having(func.count() > 1).subquery()
        return dict(counts.all()) | {
            "attempts": session.scalar(select(func.count()).select_from(t.LabelAttempt)) or 0,
            "twice": session.scalar(select(func.count()).select_from(twice)) or 0,
            "members": session.scalar(select(func.count()).select_from(t.SnapshotMember)) or 0,
        }


# -- tables ----------------------------------------------------------------------------------------


def run(setup: Setup) -> Run:
    """Run a campaign in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return simulate(setup, Path(folder))


def sizes(setups: list[Setup]) -> None:
    """Print what driver and ledger cost at several sizes."""
    print(
        "| labels | tasks | decision, median / ms | 95 % / ms | commit / ms per task |"
        " sealing, all / s | the last / s | driver / min | ms per task | ms per label |"
        " its share of the time | ledger / MB | peak memory / MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for setup in setups:
        print(_size_row(run(setup)), flush=True)


def _size_row(done: Run) -> str:
    decisions = done.decisions_ms()
    commits, seals = done.spent.spent["commit"], done.spent.spent["seal"]
    return (
        f"| {done.setup.labels} | {done.tasks} | {np.median(decisions):.1f} |"
        f" {np.quantile(decisions, 0.95):.1f} | {1e3 * sum(commits) / len(commits):.1f} |"
        f" {sum(seals):.1f} | {seals[-1]:.1f} | {done.driver_s / 60:.1f} |"
        f" {1e3 * done.driver_s / done.tasks:.1f} | {1e3 * done.driver_s / done.setup.labels:.2f} |"
        f" {done.driver_s / done.makespan_s:.1%} | {done.ledger_mb:.0f} | {done.rss_mb:.0f} |"
    )


def modes(setup: Setup, fractions: list[float]) -> None:
    """Print how busy the workers are, by the fraction of labels at which a generation closes."""
    print(
        "| close_at | faults | campaign / h | utilisation | wasted | losses of workers / blocks |"
        " tasks lost | tasks failed | failed tries | results found finished |"
        " labels done | failed | made twice |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for faults, name in ((Faults(), "none"), (FAULTY, "yes")):
        for close_at in fractions:
            made = replace(setup, close_at=close_at, faults=faults)
            print(_mode_row(run(made), name), flush=True)


def _mode_row(done: Run, name: str) -> str:
    tally = done.tally
    wasted = tally.wasted_s / (done.setup.workers * done.makespan_s)
    return (
        f"| {done.setup.close_at} | {name} | {done.makespan_s / 3600:.2f} |"
        f" {done.utilisation:.1%} | {wasted:.1%} | {tally.worker_losses} / {tally.block_losses} |"
        f" {tally.ended['lost']} | {tally.ended['failed']} | {tally.label_failures} |"
        f" {tally.unheard} | {done.rows.get('done', 0)} | {done.rows.get('failed', 0)} |"
        f" {done.made_twice + done.rows['twice']} |"
    )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("sizes", "modes", "both"), default="both")
    parser.add_argument("--labels", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--per-generation", type=int, default=2500)
    parser.add_argument("--explorations", type=int, default=250)
    parser.add_argument("--label-seconds", type=float, default=60.0)
    parser.add_argument("--close-at", type=float, nargs="+", default=[1.0, 0.9, 0.5])
    options = parser.parse_args()
    setup = Setup(
        labels=options.labels[0],
        workers=options.workers,
        per_generation=options.per_generation,
        explorations=options.explorations,
        label_seconds=options.label_seconds,
    )
    if options.what in ("sizes", "both"):
        sizes([replace(setup, labels=n, close_at=0.9, faults=FAULTY) for n in options.labels])
    if options.what in ("modes", "both"):
        modes(setup, options.close_at)


if __name__ == "__main__":
    main()
