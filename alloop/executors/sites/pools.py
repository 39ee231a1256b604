"""The pools of a site: what is asked of a scheduler, and what starts on its nodes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from alloop.config.quantities import MEMORY, WALL_TIME, Quantity
from alloop.config.section import Many, Section, Text

Count = Annotated[int, Field(ge=1)]
Memory = Annotated[float, Quantity(MEMORY, above=0.0)]
Duration = Annotated[float, Quantity(WALL_TIME, above=0.0)]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Word = Annotated[str, StringConstraints(strict=True, pattern=r"^[^\s\"'`;&|<>\\]+$")]
"""Text that stands in a command as it is: no white space, nothing that a shell takes apart."""


class Environment(Section):
    """What happens on a node before its workers start."""

    modules: Many[Word] = Field(
        default=(), description="Modules to load, after `module purge`; none: no module command."
    )
    setup: Many[Text] = Field(
        default=(), description="Shell lines, such as `source /shared/alloop/bin/activate`."
    )
    vars: dict[Name, str | int | float] = Field(
        default={}, description="Environment variables of the workers."
    )
    check: Many[Text] = Field(
        default=(),
        description="Shell commands that must succeed before workers start, such as"
        " `python -c 'import tblite'`. That alloop can be imported is always checked.",
    )
    python: Word | None = Field(
        default=None,
        description="Python of the workers, with the same alloop and Parsl as the driver's."
        " By default the driver's own, which every node must see; `python` in a container.",
    )


class Container(Section):
    """The container that checks and workers run in."""

    program: Literal["apptainer", "docker"] = Field(description="What runs it.")
    image: Word = Field(description="Path or name of the image.")
    binds: Many[Word] = Field(
        default=(),
        description="Folders to show inside, as `/outside` or `/outside:/inside`; `$NAME` is"
        " filled in on the node. The campaign's directory is always shown.",
    )
    gpus: Literal["nvidia", "amd", "none"] | None = Field(
        default=None,
        description="Whose GPUs to show inside; by default `nvidia` where the pool has GPUs.",
    )


class _Pool(Section):
    discriminator: ClassVar[str] = "type"

    type: str


class ThreadsPool(_Pool):
    """Threads of the driver's own process."""

    type: Literal["threads"] = Field(description="What kind of pool it is.")
    workers: Count = Field(default=1, description="How many tasks run at the same time.")


class WorkerPool(_Pool):
    """Worker processes."""

    workers: Count | Literal["auto"] | None = None
    cores_per_worker: Count = Field(default=1, description="Cores, and threads, of each worker.")
    memory_per_worker: Memory | None = Field(
        default=None,
        description="Memory of each worker; times the workers of a node it is what is asked for.",
    )
    gpus_per_node: Count | None = Field(
        default=None, description="GPUs of each node: one worker for each, bound to it."
    )
    longest_task: Duration | None = Field(
        default=None,
        description="Longest time that one label takes here, or another task that cannot go on in"
        " the next block. Tasks begin only while so much is left of the wall time; once they have"
        " been measured, that counts. By default 2 h where labels are made, 10 min elsewhere.",
    )
    env: Environment = Field(
        default=Environment(), description="What happens on a node before workers start."
    )


class LocalPool(WorkerPool):
    """Worker processes on the driver's machine."""

    type: Literal["local"] = Field(description="What kind of pool it is.")
    workers: Count | Literal["auto"] | None = Field(
        default=None,
        description="Worker processes; `auto` (the default without GPUs): as many as the cores and"
        " the memory of this machine allow.",
    )
    container: Container | None = Field(default=None, description="Container of the workers.")


class NodePool(WorkerPool):
    """Workers on nodes that a scheduler gives and takes, one block of them at a time."""

    workers: Count | None = Field(
        default=None, description="Worker processes on each node; with GPUs as many as those."
    )
    max_blocks: Count = Field(default=1, description="Most blocks (jobs, pods) at a time.")
    min_blocks: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Blocks that are kept even when there is nothing to do."
    )

    @property
    def workers_per_node(self) -> int:
        """Worker processes on each node."""
        return self.workers or self.gpus_per_node or 1

    @property
    def cores_per_node(self) -> int:
        """Cores asked for on each node."""
        return self.workers_per_node * self.cores_per_worker

    @property
    def memory_per_node(self) -> float | None:
        """Memory asked for on each node, MB; None: what the scheduler gives by itself."""
        return self.memory_per_worker and self.memory_per_worker * self.workers_per_node


class BatchPool(NodePool):
    """Blocks that are jobs of a batch system."""

    walltime: Annotated[float, Quantity(WALL_TIME, least=60.0)] = Field(
        description="Wall time of each block, in whole minutes."
    )
    account: Word | None = Field(default=None, description="Account or project that pays.")
    nodes_per_block: Count = Field(default=1, description="Nodes of each block.")
    options: Many[Text] = Field(
        default=(),
        description="Further options of the scheduler, as in `--reservation=school`; those that"
        " a key here stands for are refused.",
    )
    container: Container | None = Field(default=None, description="Container of the workers.")


class SlurmPool(BatchPool):
    """Blocks that are Slurm jobs."""

    type: Literal["slurm"] = Field(description="What kind of pool it is.")
    partition: Word | None = Field(default=None, description="Partition; none: the default one.")
    qos: Word | None = Field(default=None, description="Quality of service.")
    constraint: Word | None = Field(default=None, description="Features that nodes must have.")
    gpu_type: Word | None = Field(
        default=None, description="Type of the GPUs, as the cluster calls it: `a100`."
    )
    exclusive: bool = Field(default=False, description="Whole nodes, shared with nobody.")


class PbsProPool(BatchPool):
    """Blocks that are PBS Pro (OpenPBS) jobs."""

    type: Literal["pbspro"] = Field(description="What kind of pool it is.")
    queue: Word | None = Field(default=None, description="Queue; none: the default one.")
    select: Word | None = Field(
        default=None,
        description="What else to select nodes by, as in `gpu_model=a100`; cores, memory and GPUs"
        " are there already.",
    )


class LsfPool(BatchPool):
    """Blocks that are LSF jobs."""

    type: Literal["lsf"] = Field(description="What kind of pool it is.")
    queue: Word | None = Field(default=None, description="Queue; none: the default one.")
    whole_nodes: bool = Field(
        default=False,
        description="Ask for nodes (`-nnodes`), as clusters that give nodes as a whole want it,"
        " instead of for cores.",
    )


class KubernetesPool(NodePool):
    """Blocks that are pods."""

    type: Literal["kubernetes"] = Field(description="What kind of pool it is.")
    image: Word = Field(description="Image of the pods.")
    namespace: Word = Field(default="default", description="Namespace of the pods.")
    memory_per_worker: Memory = Field(
        description="Memory of each worker; times the workers of a pod it is what is asked for."
    )
    volumes: dict[Word, Word] = Field(
        default={},
        description="Where persistent volume claims are mounted, by claim; the campaign's"
        " directory must lie in one, at the same place as for the driver.",
    )
    service_account: Word | None = Field(default=None, description="Service account of the pods.")
    image_pull_secret: Word | None = Field(default=None, description="Secret to pull images with.")
    user_id: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="User id in the pods: the driver's, who owns the campaign."
    )
    group_id: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Group id in the pods."
    )
    gpu_resource: Word = Field(
        default="nvidia.com/gpu", description="What the cluster calls its GPUs."
    )


Pool = Annotated[
    LocalPool | ThreadsPool | SlurmPool | PbsProPool | LsfPool | KubernetesPool,
    Field(discriminator="type"),
]
