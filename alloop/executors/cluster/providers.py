"""Parsl's providers with their gaps closed: jobs that vanish, accounts that lag, sbatch storms.

Parsl believes a job to run for ever once ``squeue`` has forgotten it (its issue 1588), declares a
running job over while ``sacct`` does not know it yet (3422), and submits again at once whatever
happens (2851). Each class takes the arguments of Parsl's own.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from parsl.jobs.states import JobState, JobStatus
from parsl.providers import KubernetesProvider, LSFProvider, PBSProProvider, SlurmProvider
from parsl.providers.slurm.slurm import squeue_translate_table

logger = logging.getLogger("parsl.alloop")  # goes where Parsl's own warnings go

SQUEUE_STATES = squeue_translate_table | {
    "BF": JobState.FAILED,  # boot failure
    "DL": JobState.TIMEOUT,  # deadline
    "OOM": JobState.FAILED,
    "PR": JobState.TIMEOUT,  # preempted
    "RQ": JobState.PENDING,
    "RH": JobState.PENDING,
    "S": JobState.HELD,
    "ST": JobState.HELD,
    "SI": JobState.RUNNING,
    "SO": JobState.RUNNING,
}
"""Two-letter states of squeue; Parsl's own table knows half of them."""
KEPT = ("SLURM_CONF", "SLURM_TIME_FORMAT")
"""Variables of Slurm that say how to reach it, not which job we are in."""

HURRIED_POLL_S = 5


class Patient:
    """What all our providers can do besides: hold back, keep a journal, cancel without fuss."""

    submits_to: ClassVar[str] = ""
    """Which scheduler: a key of :data:`alloop.executors.cluster.reaper.SCHEDULERS`."""
    first_pause_s = 30.0
    longest_pause_s = 3600.0
    poll_s = 30
    """How often the scheduler is asked how the jobs are."""
    journal: Path | None = None
    """File that gets a line for each job submitted: who finds it can cancel them."""
    _failures = 0
    _not_before = _hurry_until = 0.0
    _max_blocks = 1

    @property
    def max_blocks(self) -> int:
        """How many blocks there may be; none are asked for while submission is held back."""
        return 0 if time.monotonic() < self._not_before else self._max_blocks

    @max_blocks.setter
    def max_blocks(self, value: int) -> None:
        self._max_blocks = value

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two questions to the scheduler."""
        return HURRIED_POLL_S if time.monotonic() < self._hurry_until else self.poll_s

    def hurry(self) -> None:
        """Ask soon: a block has gone silent, and what its job does may be news."""
        self._hurry_until = time.monotonic() + self.poll_s

    def hold_back(self, failures: int) -> None:
        """Submit nothing for a while, the longer the more blocks have failed in a row."""
        if failures > self._failures:
            pause = min(self.first_pause_s * 2 ** (failures - 1), self.longest_pause_s)
            self._not_before = time.monotonic() + pause
            logger.warning("blocks failed in a row: %d; the next in %.0f s", failures, pause)
        self._failures = failures

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl") -> Any:
        """Submit one block; note its job in the journal."""
        job = super().submit(command, tasks_per_node, job_name)  # type: ignore[misc]
        if self.journal is not None:
            with self.journal.open("a") as stream:
                stream.write(f"{self.submits_to} {job}\n")
        return job

    def cancel(self, job_ids: list[Any]) -> list[bool]:
        """Cancel jobs; one that is gone already, or a scheduler that is away, is no error."""
        if not job_ids:
            return []
        try:
            done: list[bool] = super().cancel(job_ids)  # type: ignore[misc]
        except Exception as error:
            logger.warning("cancelling %s: %s: %s", job_ids, type(error).__name__, error)
            return [False] * len(job_ids)
        return done


class CampaignSlurmProvider(Patient, SlurmProvider):  # type: ignore[misc]  # Parsl has no types
    """Slurm; jobs that it has forgotten are over, jobs that sacct does not know yet are not."""

    submits_to = "slurm"

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
        """Run a command of Slurm's as if no job was around us: a driver may be a job itself.

        Parsl's own raises when there is no answer in time, and leaves the command running.
        """
        return ask(outside_job() + cmd, timeout or self.cmd_timeout)

    def _status(self) -> None:
        active = _running(self.resources)
        states: dict[str, JobState] = {}
        for start in range(0, len(active), self.status_batch_size):
            known = self._known(active[start : start + self.status_batch_size])
            if known is None:
                return  # Slurm does not answer: nothing is known, so nothing changes
            states |= known
        for job in active:
            record = self.resources[job]
            record["status"] = JobStatus(
                states.get(job, JobState.COMPLETED),
                stdout_path=record["job_stdout_path"],
                stderr_path=record["job_stderr_path"],
            )

    def _known(self, jobs: list[str]) -> dict[str, JobState] | None:
        """Return the states of those jobs that Slurm knows; None if it cannot be asked."""
        squeue = "squeue" + (f" --clusters={self.clusters}" if self.clusters else "")
        squeue += " --noheader --format='%i %t' --job '{0}'"
        if not self._cmd.startswith("sacct"):
            return self._ask(squeue, jobs, SQUEUE_STATES)
        known = self._ask(self._cmd, jobs, self._translate_table)
        if known is None:
            return None
        # Accounting lags behind the controller.
        unseen = [job for job in jobs if job not in known]
        late = self._ask(squeue, unseen, SQUEUE_STATES) if unseen else {}
        return None if late is None else known | late

    def _ask(
        self, command: str, jobs: list[str], states: dict[str, JobState]
    ) -> dict[str, JobState] | None:
        code, output, errors = self.execute_wait(command.format(",".join(jobs)))
        if code != 0 and "Invalid job id" not in errors:
            logger.warning("%s: %s", command.split()[0], errors.strip())
            return None
        rows = [line.split() for line in output.splitlines()]
        return {
            row[0]: states.get(row[1].rstrip("+"), JobState.UNKNOWN) for row in rows if len(row) > 1
        }


class CampaignPBSProProvider(Patient, PBSProProvider):  # type: ignore[misc]  # no types
    """PBS Pro; a job that it has forgotten does not hide the state of the others."""

    submits_to = "pbspro"

    def _status(self) -> None:
        # qstat fails for the whole list as soon as it has forgotten one job.
        everything = self.resources
        for job in _running(everything):
            self.resources = {job: everything[job]}
            try:
                super()._status()  # type: ignore[no-untyped-call]  # Parsl's
            finally:
                self.resources = everything
            if not everything[job]["status"].terminal and self._forgotten(job):
                everything[job]["status"] = JobStatus(JobState.COMPLETED)

    def _forgotten(self, job: str) -> bool:
        asked = self.execute_wait(f"qstat -x {shlex.quote(job)}")  # type: ignore[no-untyped-call]
        code, _, errors = asked
        return code != 0 and "Unknown Job" in errors


class CampaignLSFProvider(Patient, LSFProvider):  # type: ignore[misc]  # Parsl has no types
    """LSF, as Parsl has it, with patience."""

    submits_to = "lsf"


class CampaignKubernetesProvider(Patient, KubernetesProvider):  # type: ignore[misc]  # no types
    """Kubernetes, with patience; a pod that is gone already can be cancelled without an error."""

    submits_to = "kubernetes"


def _running(resources: Mapping[Any, Any]) -> list[str]:
    return [job for job, record in resources.items() if not record["status"].terminal]


def ask(command: str, limit_s: float) -> tuple[int, str, str]:
    """Run a shell command; return its exit code (124 if it was stopped), output and errors."""
    process = subprocess.Popen(  # noqa: S602  Parsl's providers write their commands for a shell
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return 124, output, f"{errors.strip()} timed out after {limit_s:g} s"
    return process.returncode, output, errors


def outside_job() -> str:
    """Return the beginning of a shell command that hides the job we run in; empty outside one."""
    if "SLURM_JOB_ID" not in os.environ:
        return ""
    hidden = [name for name in os.environ if name.startswith("SLURM_") and name not in KEPT]
    return "env " + "".join(f"-u {name} " for name in sorted(hidden))
