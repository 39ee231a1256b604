"""Find out whether a site can run campaigns, before one depends on it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers.cluster_provider import ClusterProvider
from parsl.providers.errors import SubmitException

from alloop.errors import LedgerBusyError, LedgerError, SiteError
from alloop.executors import processes
from alloop.executors.cluster.life import Life, check, slots_of
from alloop.executors.cluster.look import look
from alloop.executors.cluster.reaper import SCHEDULERS, campaign_of, reap
from alloop.executors.sites.compile import parsl_config
from alloop.executors.sites.model import AnySite, ClusterSite, InProcessSite
from alloop.executors.sites.pools import LocalPool
from alloop_db.filesystem import filesystem_of, network_warning
from alloop_db.ledger import open_ledger
from alloop_db.lock import CampaignLock

Level = Literal["ok", "warning", "problem"]
ROUNDS = 5
"""How many times a worker is called for the round trip time, after it has answered once."""
SKEW_S = 2.0
"""How far clocks may be apart; heartbeats, leases and deadlines allow for more."""
SCRATCH_BYTES = 1_000_000_000
SAME = ("alloop", "parsl")
"""Packages that must be the same for worker and driver."""
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: where, and what was found."""

    level: Level
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:8} {self.where}: {self.text}"


def examine(site: AnySite, directory: Path) -> Iterator[Finding]:
    """Yield what can be found out without asking for a node.

    ``directory`` is where campaigns are to lie. Raises SiteError if the site cannot be compiled.
    """
    yield from _ledger(directory)
    if not isinstance(site, ClusterSite):
        return
    config = parsl_config(site, directory, campaign_of(directory))
    check(config)
    for executor in config.executors:
        yield from _pool(executor)


def scripts(site: AnySite, directory: Path) -> Iterator[tuple[str, str]]:
    """Yield each batch pool's name and the script that would be submitted; submits nothing."""
    if isinstance(site, ClusterSite):
        for executor in parsl_config(site, directory, campaign_of(directory)).executors:
            if (script := _script(executor)) is not None:
                yield executor.label, script


def probe(
    site: AnySite, directory: Path, needs: Sequence[str], limit_s: float
) -> Iterator[Finding]:
    """Have a worker of each pool look around; yield what it found.

    ``needs`` are programs that must be there; ``limit_s`` is how long to wait for a node.
    """
    if isinstance(site, InProcessSite):
        yield from _judge("this process", look("", list(needs)), time.time(), needs)
        return
    if not isinstance(site, ClusterSite):
        site = ClusterSite(kind="cluster", pools={"local": LocalPool(type="local", workers=1)})
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="alloop-doctor-", dir=directory)).resolve()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(processes.end_campaign, folder)
        config = parsl_config(site, folder, campaign_of(folder))
        check(config)
        stack.callback(reap, campaign_of(folder), list(SCHEDULERS))
        lives = []
        for executor in config.executors:
            lives.append(Life(folder, config, executor))
            stack.callback(lives[-1].close)
        yield from _visit(lives, folder, needs, limit_s)


def _visit(
    lives: list[Life], folder: Path, needs: Sequence[str], limit_s: float
) -> Iterator[Finding]:
    word = folder / "word"
    word.write_text(secrets.token_hex(), encoding="utf-8")
    arguments = (str(word), list(needs))
    began = time.monotonic()
    answered: dict[str, float] = {}
    first = []
    for life in lives:
        first.append(life.call(look, *arguments))
        first[-1].add_done_callback(partial(_note_time, answered, life.label))
    for life, future in zip(lives, first, strict=True):
        where = f"pool {life.label}"
        if why := _wait(life, future, began + limit_s):
            yield Finding("problem", where, why)
            continue
        yield Finding("ok", where, f"answered after {answered[life.label] - began:.1f} s")
        yield from _judge_answers(life, arguments, word.read_text(encoding="utf-8"))


def _note_time(answered: dict[str, float], pool: str, _: Future[Any]) -> None:
    answered[pool] = time.monotonic()


def _judge_answers(life: Life, arguments: tuple[Any, ...], word: str) -> Iterator[Finding]:
    trips, skews = [], []
    for _ in range(ROUNDS):
        sent, clock = time.time(), time.perf_counter()
        found = life.call(look, *arguments).result(timeout=120)
        trips.append(time.perf_counter() - clock)
        skews.append(found["time"] - (sent + trips[-1] / 2))
    where = f"pool {life.label}"
    trip, skew = statistics.median(trips), statistics.median(skews)
    yield Finding("ok", where, f"round trip {1e3 * trip:.0f} ms (median of {ROUNDS})")
    apart = abs(skew) > SKEW_S + trip / 2
    yield Finding("warning" if apart else "ok", where, f"its clock is {skew:+.2f} s from ours")
    if found["word"] != word:
        text = f"it does not see {arguments[0]}: the campaign's directory must be shared"
        yield Finding("problem", where, text)
    yield from _judge(where, found, time.time(), arguments[1])


def _judge(
    where: str, found: dict[str, Any], now: float, needs: Sequence[str]
) -> Iterator[Finding]:
    there, here = found["environment"], look("", [])["environment"]
    threads = f"{found['cores']} cores, {there['threads']} threads a task"
    yield Finding("ok", where, f"host {there['host']}, Python {there['python']}, {threads}")
    packages = there["packages"]
    names = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    yield Finding("ok", where, names)
    for name in SAME:
        if packages[name] != here["packages"][name]:
            text = f"{name} {packages[name]} there, {here['packages'][name]} here: must be the same"
            yield Finding("problem", where, text)
    for name in needs:
        path = found["programs"][name]
        text = f"{name} is {path}" if path else f"{name} is not in its PATH"
        yield Finding("ok" if path else "problem", where, text)
    yield _scratch(where, found["scratch"])
    gpus = found["gpus"]
    if gpus["visible"] or gpus["on_node"]:
        known = ", ".join(gpus["on_node"]) or "no nvidia-smi there"
        yield Finding("ok", where, f"CUDA_VISIBLE_DEVICES={gpus['visible'] or ''} ({known})")
    if found["deadline"]:
        yield Finding("ok", where, f"its block ends in {float(found['deadline']) - now:.0f} s")


def _scratch(where: str, scratch: dict[str, Any]) -> Finding:
    room = f"scratch {scratch['folder']}: {scratch['free_bytes'] / 1e9:.1f} GB free"
    if "error" in scratch:
        return Finding("problem", where, f"{room}, but no file can be written: {scratch['error']}")
    return Finding("ok" if scratch["free_bytes"] >= SCRATCH_BYTES else "warning", where, room)


def _wait(life: Life, future: Future[Any], deadline: float) -> str | None:
    """Wait for a pool's first answer; return why there is none."""
    while not future.done():
        if trouble := life.trouble():
            return trouble.reason
        if time.monotonic() > deadline:
            view = life.view()
            state = f"{view.running} blocks run, {view.waiting} wait in the queue"
            return f"no answer in time ({state}); --wait gives it longer"
        time.sleep(LOOK_EVERY_S)
    if trouble := life.trouble():
        return trouble.reason
    error = future.exception()
    return None if error is None else f"{type(error).__name__}: {error}"


def _ledger(directory: Path) -> Iterator[Finding]:
    """Yield whether a ledger can be kept in a directory, and be kept to one driver."""
    where = "ledger"
    found = filesystem_of(directory)
    warning = network_warning(directory)
    text = f"{directory.resolve()} lies on {found.type} (mounted at {found.mount_point})"
    yield Finding("warning" if warning else "ok", where, warning or text)
    try:
        with tempfile.TemporaryDirectory(prefix="alloop-doctor-", dir=directory) as folder:
            open_ledger(Path(folder), create=True).dispose()
            with CampaignLock(Path(folder)):
                yield _second_driver(Path(folder))
    except (OSError, LedgerError) as error:
        yield Finding("problem", where, f"none can be kept there: {error}")


def _second_driver(folder: Path) -> Finding:
    try:
        with CampaignLock(folder):
            return Finding("problem", "ledger", "locks do not work there: start only one driver")
    except LedgerBusyError:
        return Finding("ok", "ledger", "can be written, and a second driver is refused")


def _pool(executor: ParslExecutor) -> Iterator[Finding]:
    where, slots = f"pool {executor.label}", slots_of(executor)
    words = f"{slots} task{'s' * (slots > 1)} at a time"
    if isinstance(executor, HighThroughputExecutor):
        words += f", driver at {executor.address}"
        if executor.drain_period is not None:
            words += f", blocks take tasks for {executor.drain_period} s"
    yield Finding("ok", where, words)
    provider: Any = getattr(executor, "provider", None)
    scheduler = SCHEDULERS.get(getattr(provider, "submits_to", ""))
    for program in {scheduler.list_jobs[0], scheduler.cancel[0]} if scheduler else ():
        if shutil.which(program) is None:
            yield Finding("problem", where, f"{program} is not in PATH on this machine")


def _script(executor: ParslExecutor) -> str | None:
    """Return what a pool would submit, written by Parsl into a folder that is thrown away."""
    provider: Any = getattr(executor, "provider", None)
    if not isinstance(provider, ClusterProvider):
        return None
    with tempfile.TemporaryDirectory() as folder:
        provider.script_dir = folder
        setattr(provider, "execute_wait", _refuse)  # noqa: B010  of this one object
        with contextlib.suppress(SubmitException):
            provider.submit(executor.launch_cmd, 1, executor.label)  # type: ignore[attr-defined]
        written = sorted(Path(folder).iterdir())
        if not written:
            raise SiteError(f"pool {executor.label}: Parsl wrote no script to submit")
        return written[0].read_text(encoding="utf-8")


def _refuse(*_: Any) -> tuple[int, str, str]:
    return 1, "", "nothing is submitted"
