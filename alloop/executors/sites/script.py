"""What runs on a node: the lines before its workers start, and the command that starts them."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

from alloop.executors import processes
from alloop.executors.durations import pace_file
from alloop.executors.sites.checks import MARGIN_S
from alloop.executors.sites.pools import BatchPool, LocalPool, WorkerPool

if TYPE_CHECKING:
    from alloop.executors.sites.pools import Container, KubernetesPool, NodePool

DEADLINE: Final = "ALLOOP_BLOCK_DEADLINE"
"""Environment variable: when a block ends, seconds since 1970; unset where blocks have no end."""
LENGTH: Final = "ALLOOP_BLOCK_SECONDS"
"""Environment variable: how long a block lasts, seconds; unset where blocks have no end."""
DRAIN: Final = "ALLOOP_DRAIN_PERIOD"
"""Environment variable: how long a node takes tasks, seconds."""
LEAST_DRAIN_S: Final = 15
"""However long tasks take: a node that took none would be replaced by the next, for ever."""
JOB: Final = "ALLOOP_JOB"
"""Environment variable: the job that a block is, as its batch system calls it."""
POOL: Final = "ALLOOP_POOL"
"""Environment variable: the pool that a worker belongs to."""
MEMORY: Final = "ALLOOP_WORKER_MEMORY_MB"
"""Environment variable: the memory of one worker, MB; unset where the pool does not say it."""
THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GPU: Final = "ALLOOP_GPU_"
"""Start of the environment variables that hold the names of a node's GPUs."""
IMPORTS: Final = "import alloop, alloop_tasks.boundary, parsl"


def worker_init(pool: WorkerPool, name: str, directory: Path, longest_task: float) -> str:
    """Return the shell lines that prepare a node.

    ``longest_task`` (s) is what its tasks take as long as the driver has not measured it.
    Whatever fails in them ends the block at once, in its own words: by default a shell goes on,
    and every task fails one by one in a broken environment.
    """
    variables = variables_of(pool, name, directory)
    lines = ["set -eo pipefail", *_deadline(pool, name, directory, longest_task)]
    if pool.env.modules:
        lines += ["module purge", *(f"module load {module}" for module in pool.env.modules)]
    lines += pool.env.setup
    lines += [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
    if pool.gpus_per_node:
        lines += _gpus(pool.gpus_per_node)
    container = container_of(pool)
    if container is not None and container.program == "apptainer":
        lines += [f'export APPTAINERENV_{key}="${key}"' for key in _passed(pool, variables)]
    lines += _checks(pool, name, directory)
    return "\n".join([*lines, "set +eo pipefail", ""])


def launch_command(pool: WorkerPool, name: str, directory: Path) -> str:
    """Return the command that starts the workers of a node, for Parsl to fill in.

    Parsl passes it through ``str.format`` twice.
    """
    script, _, arguments = DEFAULT_LAUNCH_CMD.partition(" ")
    module = f"parsl.executors.high_throughput.{Path(script).stem}"
    command = [*_inside(pool, name, directory), *_python(pool), "-P", "-m", module]
    if isinstance(pool, BatchPool) and pool.nodes_per_block > 1:
        # Not every launcher hands the environment of the first node to the others.
        passed = (f'{key}="${key}"' for key in _passed(pool, variables_of(pool, name, directory)))
        command = ["env", *passed, *command]
    if isinstance(pool, BatchPool):
        arguments = arguments.replace("{drain_period}", f"${DRAIN}")
    return f"{_braced(' '.join(command))} {arguments}"


def accelerators(pool: WorkerPool) -> list[str]:
    """Return the names of a node's GPUs, one for each worker.

    On one node they are what the scheduler has given to the job, filled in there; on several,
    which come as a whole, they are numbered.
    """
    numbers = range(pool.gpus_per_node or 0)
    if isinstance(pool, BatchPool) and pool.nodes_per_block > 1:
        return [str(number) for number in numbers]
    return [f"${GPU}{number}" for number in numbers]


def variables_of(pool: WorkerPool, name: str, directory: Path) -> dict[str, str]:
    """Return the environment variables of a pool's workers."""
    variables = {processes.VARIABLE: str(directory), POOL: name}
    variables |= dict.fromkeys(THREADS, str(pool.cores_per_worker))
    if pool.memory_per_worker:
        variables[MEMORY] = str(int(pool.memory_per_worker))
    if _python(pool) == [shlex.quote(sys.executable)] and (folders := _checkouts()):
        variables["PYTHONPATH"] = os.pathsep.join(folders)
    return variables | {key: str(value) for key, value in pool.env.vars.items()}


def container_of(pool: WorkerPool | NodePool | KubernetesPool) -> Container | None:
    """Return the container of a pool's workers, if they run in one."""
    return pool.container if isinstance(pool, LocalPool | BatchPool) else None


def _checkouts() -> list[str]:
    """Return the folders that this Python imports from besides its own."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    library = f"{sysconfig.get_path('stdlib')}{os.sep}lib-dynload"
    return [
        path
        for path in sys.path
        if path and path not in own and path != library and not path.endswith(".zip")
    ]


def _deadline(pool: WorkerPool, name: str, directory: Path, longest_task: float) -> list[str]:
    """Return lines that say when a block ends, and how long before that it takes no more tasks."""
    if not isinstance(pool, BatchPool):
        return []
    walltime, file = int(pool.walltime), shlex.quote(str(pace_file(directory, name)))
    period = f"{walltime - int(MARGIN_S)} - $(cat {file} 2>/dev/null || echo {longest_task:.0f})"
    return [
        f'export {JOB}="${{SLURM_JOB_ID:-${{PBS_JOBID:-$LSB_JOBID}}}}"',
        f"export {DEADLINE}=$(( $(date +%s) + {walltime} )) {LENGTH}={walltime}",
        f"export {DRAIN}=$(( {period} ))",
        f'if [ "${DRAIN}" -lt {LEAST_DRAIN_S} ]; then export {DRAIN}={LEAST_DRAIN_S}; fi',
    ]


def _gpus(count: int) -> list[str]:
    """Return lines that name the GPUs of this job, or end it if there are too few.

    A job may have been given the third and the fourth GPU of a node that it shares.
    """
    names = [f"{GPU}{number}" for number in range(count)]
    numbered = ",".join(str(number) for number in range(count))
    return [
        f'IFS=, read -r {" ".join(names)} _ <<< "${{CUDA_VISIBLE_DEVICES:-{numbered}}}"',
        f'if [ -z "${names[-1]}" ]; then echo "alloop: fewer than {count} GPUs on $(hostname):'
        ' $CUDA_VISIBLE_DEVICES" >&2; exit 1; fi',
        f"export {' '.join(names)}",
    ]


def _passed(pool: WorkerPool, variables: dict[str, str]) -> list[str]:
    """Return the names of variables that workers need, wherever they run."""
    return [*variables, *([DEADLINE, LENGTH, JOB] if isinstance(pool, BatchPool) else [])]


def _checks(pool: WorkerPool, name: str, directory: Path) -> list[str]:
    inside = " ".join(_inside(pool, name, directory))
    python = " ".join(_python(pool))
    own = f"{inside} {python} -P -c {shlex.quote(IMPORTS)}".strip()
    if not inside:
        return [own, *pool.env.check]
    return [own, *(f"{inside} bash -c {shlex.quote(check)}" for check in pool.env.check)]


def _inside(pool: WorkerPool, name: str, directory: Path) -> list[str]:
    """Return the words that put a command into the pool's container, if it has one."""
    container = container_of(pool)
    if container is None:
        return []
    shown = container.gpus or ("nvidia" if pool.gpus_per_node else "none")
    binds = [str(directory), *container.binds]
    if container.program == "apptainer":
        gpus = {"nvidia": ["--nv"], "amd": ["--rocm"], "none": []}[shown]
        volumes = [f'--bind "{bind}"' for bind in binds]
        return ["apptainer", "exec", "--cleanenv", *gpus, *volumes, f'"{container.image}"']
    gpus = {
        "nvidia": ["--gpus", "all"],
        "amd": ["--device", "/dev/kfd", "--device", "/dev/dri"],
        "none": [],
    }[shown]
    # Docker wants both sides of a bind.
    sides = (bind if ":" in bind else f"{bind}:{bind}" for bind in binds)
    volumes = [f'--volume "{bind}"' for bind in sides]
    passed = [f"--env {key}" for key in _passed(pool, variables_of(pool, name, directory))]
    run = ["docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host"]
    return [*run, '--user "$(id -u):$(id -g)"', *gpus, *volumes, *passed, f'"{container.image}"']


def _python(pool: WorkerPool) -> list[str]:
    """Return the Python of the workers, as a word for the shell."""
    if pool.env.python:
        return [pool.env.python]
    if isinstance(pool, LocalPool | BatchPool) and pool.container is None:
        return [shlex.quote(sys.executable)]
    return ["python"]


def _braced(text: str) -> str:
    """Return text that comes back as it is after ``str.format`` has seen it twice."""
    return text.replace("{", "{{{{").replace("}", "}}}}")
