"""Find and cancel the jobs that an earlier driver of a campaign has left with a scheduler.

Each job carries the campaign's tag, so those are found too that were submitted a moment before
their driver died.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60.0
JOURNAL = "jobs"
"""Name of the file in a pool's folder that names the jobs it has submitted."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """How to ask a scheduler for a user's jobs, and to cancel some.

    Attributes
    ----------
    list_jobs : command that prints the user's jobs.
    tagged : returns the jobs that carry a tag, given what was printed.
    cancel : command that ends the jobs named after it.

    """

    list_jobs: tuple[str, ...]
    tagged: Callable[[str, str], list[str]]
    cancel: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reaped:
    """The jobs that were cancelled, and the schedulers that could not be asked, with why."""

    jobs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def campaign_of(directory: Path) -> str:
    """Return the name by which a campaign's jobs are known: that of its folder, and a hash.

    Two campaigns may have folders of the same name; jobs must never be taken for the other's.
    """
    path = directory.resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.name) or "campaign"
    return f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:10]}"


def tag_of(campaign: str) -> str:
    """Return the tag of a campaign's jobs."""
    return f"alloop:{campaign}"


def reap(campaign: str, schedulers: Sequence[str]) -> Reaped:
    """Cancel every job of ours that carries the campaign's tag."""
    jobs: list[str] = []
    problems: list[str] = []
    for name in dict.fromkeys(schedulers):
        scheduler = SCHEDULERS.get(name)
        if scheduler is None:
            continue
        try:
            found = scheduler.tagged(_run(scheduler.list_jobs), tag_of(campaign))
            _cancel(scheduler, found)
            jobs += found
        except (OSError, subprocess.SubprocessError) as error:
            words = getattr(error, "stderr", None) or str(error)
            problems.append(f"{name}: {' '.join(str(words).split())}")
    return Reaped(tuple(jobs), tuple(problems))


def cancel_listed(journal: Path) -> None:
    """Cancel the jobs that a pool's journal names; whatever goes wrong, the reaper comes later."""
    try:
        lines = journal.read_text().split("\n")
    except OSError:
        return
    submitted: dict[str, list[str]] = {}
    for scheduler, _, job in (line.partition(" ") for line in lines):
        if scheduler in SCHEDULERS and job:
            submitted.setdefault(scheduler, []).append(job)
    for scheduler, jobs in submitted.items():
        try:
            _cancel(SCHEDULERS[scheduler], jobs)
        except (OSError, subprocess.SubprocessError):
            continue


def _cancel(scheduler: Scheduler, jobs: Sequence[str]) -> None:
    """Cancel jobs; that one of them has ended meanwhile is no error."""
    if jobs:
        subprocess.run(
            (*scheduler.cancel, *jobs),
            check=False,
            capture_output=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )


def _run(command: tuple[str, ...]) -> str:
    """Return what a command prints; raises CalledProcessError if it fails."""
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
    if "no unfinished job" not in done.stderr.lower():  # LSF calls an empty list an error
        done.check_returncode()
    return done.stdout


def _slurm_tagged(output: str, tag: str) -> list[str]:
    rows = (line.partition("|") for line in output.splitlines())
    return [job.strip() for job, _, comment in rows if comment.strip() == tag]


def _pbspro_tagged(output: str, tag: str) -> list[str]:
    # qstat -f breaks long lines, and goes on with a tab.
    jobs = output.replace("\n\t", "").split("Job Id: ")[1:]
    wanted = re.compile(rf"ALLOOP_TAG={re.escape(tag)}(,|\s|$)")
    return [job.split(None, 1)[0] for job in jobs if wanted.search(job)]


def _lsf_tagged(output: str, tag: str) -> list[str]:
    rows = (line.split(None, 1) for line in output.splitlines())
    return [row[0] for row in rows if len(row) > 1 and row[1].strip() == tag]


SCHEDULERS = {
    "slurm": Scheduler(
        ("squeue", "--noheader", "--me", "--format=%i|%k"),
        _slurm_tagged,
        ("scancel",),
    ),
    "pbspro": Scheduler(("qstat", "-f"), _pbspro_tagged, ("qdel",)),
    "lsf": Scheduler(
        ("bjobs", "-noheader", "-o", "jobid job_description"), _lsf_tagged, ("bkill",)
    ),
}
"""Those whose jobs can carry a tag: a comment (Slurm), a variable ALLOOP_TAG (PBS Pro), a
description (LSF)."""
