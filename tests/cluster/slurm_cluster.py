"""A real Slurm on this machine alone: two nodes for CPUs, one with two GPUs, all pretended.

    python tests/cluster/slurm_cluster.py up FOLDER      starts it (an empty or former folder)
    eval $(python tests/cluster/slurm_cluster.py env FOLDER)
    python tests/cluster/slurm_cluster.py down FOLDER    ends its jobs and daemons, empties FOLDER

Everything lies in FOLDER and listens on the loopback interface only; munge has a key and a
socket of its own. ``up`` and ``down`` may be repeated. Needs slurmctld, slurmd, slurm-client and
munge (Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge).
"""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"
NODES = ("cn1", "cn2", "gn1")
GPUS = ("/dev/null", "/dev/zero")
"""Character devices that exist everywhere: Slurm wants one for each GPU."""
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sinfo", "squeue", "sbatch", "scancel")
LIMIT_S = 30.0

CONF = """
ClusterName=alloop
SlurmctldHost={host}({loopback})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobs.txt
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=2
MinJobAge=10
GresTypes=gpu
PartitionName=cpu Nodes=cn1,cn2 Default=YES MaxTime=01:00:00 DefaultTime=00:10:00 State=UP
PartitionName=gpu Nodes=gn1 MaxTime=01:00:00 State=UP
"""
NODE = (
    "NodeName={node} NodeHostname={host} NodeAddr={loopback} Port={port} CPUs=8 RealMemory=8000"
    "{gres} State=UNKNOWN\n"
)


class ClusterError(RuntimeError):
    """Slurm cannot be started here; says why."""


def missing() -> str | None:
    """Return why no Slurm can run on this machine, or None."""
    absent = [program for program in PROGRAMS if _which(program) is None]
    if absent:
        return f"no {', '.join(absent)} on this machine; apt-get install slurmctld slurmd munge"
    return None


def up(folder: Path) -> dict[str, str]:
    """Start what does not run yet; return the environment by which programs find it.

    Raises ClusterError if the nodes are not ready within half a minute.
    """
    if why := missing():
        raise ClusterError(why)
    folder = folder.resolve()
    for part in ("state", "spool", "log", *(f"spool/{node}" for node in NODES)):
        (folder / part).mkdir(parents=True, exist_ok=True)
    environment = env(folder)
    if not _ready(environment):
        _start_munge(folder)
        _configure(folder)
        _start_slurm(folder, environment)
    return environment


def down(folder: Path) -> None:
    """Cancel all jobs, end all daemons and empty the folder."""
    folder = folder.resolve()
    if _ready(env(folder)):
        _run(["scancel", "--user", getpass.getuser()], env(folder))
        _until(lambda: not _run(["squeue", "-h"], env(folder)).stdout, 10.0)
    daemons = [_process(folder / f"{name}.pid") for name in (*NODES, "slurmctld", "munged")]
    running = [one for one in daemons if one is not None]
    for process in running:
        process.terminate()
    for process in psutil.wait_procs(running, timeout=10)[1]:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def env(folder: Path) -> dict[str, str]:
    """Return the variables that lead Slurm's programs to this cluster."""
    return {"SLURM_CONF": str(folder.resolve() / "slurm.conf")}


def _configure(folder: Path) -> None:
    if (folder / "slurm.conf").exists():
        return  # running daemons know their ports from it
    port, *ports = _free_ports(1 + len(NODES))
    host = socket.gethostname().split(".")[0]
    common = {"folder": folder, "host": host, "loopback": LOOPBACK, "user": getpass.getuser()}
    nodes = "".join(
        NODE.format(node=node, port=own, gres=" Gres=gpu:2" if node == "gn1" else "", **common)
        for node, own in zip(NODES, ports, strict=True)
    )
    head, partitions, rest = CONF.partition("PartitionName=cpu")
    (folder / "slurm.conf").write_text(
        (head.format(port=port, **common) + nodes + partitions + rest).lstrip()
    )
    gpus = "".join(f"NodeName=gn1 Name=gpu File={device}\n" for device in GPUS)
    (folder / "gres.conf").write_text(gpus)


def _start_munge(folder: Path) -> None:
    key = folder / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
    if _alive(folder / "munged.pid"):
        return
    # --force: it would rather have its folder away from /tmp.
    files = ("key-file=munge.key", "socket=munge.sock", "pid-file=munged.pid")
    files += ("log-file=log/munged.log", "seed-file=munged.seed")
    options = [f"--{name}={folder / path}" for name, path in (one.split("=") for one in files)]
    _must([_program("munged"), "--force", "--num-threads=2", *options], {})
    works = ["munge", "-n", "-S", str(folder / "munge.sock")]
    if not _until(lambda: _run(works, {}).returncode == 0, 5.0):
        raise ClusterError(f"munge does not work: see {folder}/log/munged.log")


def _start_slurm(folder: Path, environment: dict[str, str]) -> None:
    conf = str(folder / "slurm.conf")
    if not _alive(folder / "slurmctld.pid"):
        _must([_program("slurmctld"), "-i", "-f", conf], environment)
    for node in NODES:
        if not _alive(folder / f"{node}.pid"):
            _must([_program("slurmd"), "-N", node, "-f", conf], environment)
    if not _until(lambda: _ready(environment), LIMIT_S):
        states = _run(["sinfo", "-N"], environment)
        raise ClusterError(f"the nodes are not ready: {states.stdout}{states.stderr}; see {folder}")


def _ready(environment: dict[str, str]) -> bool:
    if not Path(environment["SLURM_CONF"]).exists():
        return False
    states = _run(["sinfo", "-h", "-N", "-o", "%N %t"], environment).stdout.split()
    return sum(state in ("idle", "mix", "alloc", "comp") for state in states) == len(NODES)


def _alive(pid_file: Path) -> bool:
    return _process(pid_file) is not None


def _process(pid_file: Path) -> psutil.Process | None:
    """Return the daemon that a file names, if it is one of ours: numbers are used again."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        return process if str(pid_file.parent) in " ".join(process.cmdline()) else None
    except (OSError, ValueError, psutil.Error):
        return None


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _which(program: str) -> str | None:
    # Daemons lie in sbin, where not every user looks.
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _program(name: str) -> str:
    path = _which(name)
    if path is None:
        raise ClusterError(f"no {name} on this machine")
    return path


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def _must(command: list[str], environment: dict[str, str]) -> None:
    """Start a daemon; its output goes nowhere, else it would hold our pipes open."""
    with Path(os.devnull).open("w") as nowhere:
        done = subprocess.run(
            command, env=os.environ | environment, stdout=nowhere, stderr=nowhere, check=False
        )
    if done.returncode != 0:
        raise ClusterError(f"{shlex.join(command)} ended with {done.returncode}")


def _until(condition: Callable[[], object], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def main() -> int:
    """Carry out one verb."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("up", "down", "env"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        if asked.verb == "down":
            down(asked.folder)
            return 0
        found = env(asked.folder) if asked.verb == "env" else up(asked.folder)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
