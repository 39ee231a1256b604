"""Sites as Parsl sees them: each compiles, its scripts ask for what they should, and run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers.kubernetes import kube

from alloop.config.shipped import shipped
from alloop.errors import SiteError
from alloop.executors.durations import Durations, Pace, pace_file
from alloop.executors.site import load_site
from alloop.executors.sites.compile import drain_period, parsl_config
from alloop.executors.sites.model import ClusterSite
from alloop.executors.sites.pools import BatchPool

ROOT = Path(__file__).parents[2]
DEPLOY = shipped("deploy")
SITES = sorted(path.stem for path in DEPLOY.glob("*.yaml"))
CLUSTERS = [name for name in SITES if name not in ("local", "inprocess")]
STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "{log}"
case "$(basename "$0")" in
    sacct) exit 1 ;;
    sbatch) echo "Submitted batch job 7" ;;
    qsub) echo "7.server" ;;
    bsub) echo "Job <7> is submitted to queue <q>." ;;
esac
"""


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Commands of batch systems that only note how they were called."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("sacct", "squeue", "sbatch", "scancel", "qsub", "bsub"):
        (folder / name).write_text(STUB.format(log=log))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


class Thing(SimpleNamespace):
    """An object of the Kubernetes client: what it was made with."""


@pytest.fixture
def kubernetes(monkeypatch):
    """The client of Kubernetes, which is not a dependency of alloop; returns the pods made."""
    pods: list = []

    def create(**pod):
        pods.append(pod)
        return Thing(status="made")

    api = SimpleNamespace(create_namespaced_pod=create)
    names = (
        "V1SecurityContext V1EnvVar V1VolumeMount V1ResourceRequirements V1Container V1Volume"
        " V1ContainerPort V1LocalObjectReference V1PersistentVolumeClaimVolumeSource V1ObjectMeta"
        " V1PodSpec V1Pod"
    )
    client = SimpleNamespace(CoreV1Api=lambda: api, **dict.fromkeys(names.split(), Thing))
    monkeypatch.setattr(kube, "_kubernetes_enabled", True)
    monkeypatch.setattr(kube, "client", client, raising=False)
    config = SimpleNamespace(load_kube_config=lambda: None)
    monkeypatch.setattr(kube, "config", config, raising=False)
    return pods


def read(name: str, folder: Path = DEPLOY) -> ClusterSite:
    """Load a site; the driver's network interface is one that this machine need not have."""
    site = load_site(name, folder)
    return site.model_copy(update={"address": site.address and "10.1.2.3"})


def compiled(site: ClusterSite, tmp_path: Path) -> dict[str, HighThroughputExecutor]:
    directory = tmp_path / "campaign"
    (directory / "parsl").mkdir(parents=True, exist_ok=True)
    config = parsl_config(site, directory, "water-1234")
    return {executor.label: executor for executor in config.executors}


def submitted(executor: HighThroughputExecutor, tmp_path: Path) -> str:
    """Submit a block and return its script."""
    scripts = tmp_path / f"scripts-{executor.label}"
    scripts.mkdir(exist_ok=True)
    executor.provider.script_dir = str(scripts)
    # What Parsl sets when an executor starts.
    executor.run_dir, executor.logconf_path = str(tmp_path), None
    executor.cert_dir, executor.worker_port = "/certificates", 54321
    executor.initialize_scaling()
    executor.provider.submit(executor._get_launch_command("0"), 1, "parsl.block-0")
    script = next(path for path in scripts.iterdir() if path.stat().st_size)
    return script.read_text()


def site_of(tmp_path: Path, pool: str, more: str = "") -> ClusterSite:
    """Return a site of one pool."""
    text = f"kind: cluster\naddress: 10.1.2.3\n{more}pools:\n  one: {pool}\n"
    (tmp_path / "one.yaml").write_text(text)
    return load_site("one.yaml", tmp_path)


@pytest.mark.parametrize("name", SITES)
def test_every_shipped_site_is_valid(name):
    assert load_site(name, Path()).kind in ("local", "inprocess", "cluster")


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_cluster_compiles(name, tmp_path, scheduler, kubernetes):
    site = read(name)
    directory = tmp_path / "campaign"
    config = parsl_config(site, directory, "water-1234")

    assert (config.retries, config.usage_tracking, config.strategy) == (0, 0, "simple")
    assert config.initialize_logging is False
    assert config.run_dir == str(directory / "parsl")
    assert config.max_idletime == site.idle_time
    assert [executor.label for executor in config.executors] == list(site.pools)
    for executor in config.executors:
        pool = site.pools[executor.label]
        local = pool.type == "local"
        assert executor.address == ("127.0.0.1" if local else "10.1.2.3")
        assert executor.encrypted
        assert (executor.heartbeat_period, executor.heartbeat_threshold) == (30, 120)
        assert executor.workers_per_node == (pool.gpus_per_node or pool.workers)
        assert len(executor.available_accelerators) == (pool.gpus_per_node or 0)
        assert executor.prefetch_capacity == 0
        blocks = (executor.provider.init_blocks, executor.provider.max_blocks)
        assert blocks == ((1, 1) if local else (0, pool.max_blocks))
        if isinstance(pool, BatchPool):
            assert 0 < executor.drain_period == drain_period(site, executor.label)
            assert executor.drain_period <= pool.walltime - 600 - 120
        else:
            assert executor.drain_period is None


def test_what_slurm_is_asked_for(tmp_path, scheduler):
    executors = compiled(read("slurm-cpu-gpu"), tmp_path)
    script = submitted(executors["labels"], tmp_path)
    asked = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    assert set(asked) >= {
        "--partition=standard", "--account=myproject", "--qos=normal", "--time=480", "--nodes=1",
        "--cpus-per-task=32", "--mem=60g", "--no-requeue", "--comment=alloop:water-1234",
    }  # fmt: skip
    assert "--exclusive" not in asked
    assert executors["labels"].drain_period == (8 - 3) * 3600 - 120
    script = submitted(executors["gpu"], tmp_path)
    assert "#SBATCH --gres=gpu:a100:4\n" in script
    assert "--max_workers_per_node=4 -a 10.1.2.3" in script
    assert "#SBATCH --exclusive\n" in submitted(executors["big"], tmp_path)
    assert "sbatch" in scheduler.read_text()


def test_what_comes_before_the_workers_and_in_which_order(tmp_path, scheduler):
    site = site_of(
        tmp_path,
        "{type: slurm, walltime: 3 h, workers: 2, cores_per_worker: 3, memory_per_worker: 2 GB,"
        " env: {modules: [gcc/13], setup: ['echo begun'], vars: {OMP_NUM_THREADS: 1, A: x y},"
        " check: [command -v orca]}}",
    )
    script = submitted(compiled(site, tmp_path)["one"], tmp_path)
    lines = script.split("\n")
    order = [
        "set -eo pipefail",
        "export ALLOOP_BLOCK_DEADLINE=$(( $(date +%s) + 10800 )) ALLOOP_BLOCK_SECONDS=10800",
        "module purge",
        "module load gcc/13",
        "echo begun",
        f"export ALLOOP_CAMPAIGN={tmp_path / 'campaign'}",
        "export ALLOOP_POOL=one",
        "export OMP_NUM_THREADS=1",
        "export MKL_NUM_THREADS=3",
        "export ALLOOP_WORKER_MEMORY_MB=2000",
        "export A='x y'",
        "command -v orca",
        "set +eo pipefail",
    ]
    places = [lines.index(line) for line in order]
    assert places == sorted(places)
    (own,) = [n for n, line in enumerate(lines) if "import alloop, alloop_tasks.boundary" in line]
    assert places[-3] < own < places[-2]
    (start,) = [n for n, line in enumerate(lines) if "process_worker_pool" in line]
    assert start > places[-1]
    assert "#SBATCH --mem=4g\n" in script


@pytest.mark.parametrize(
    ("measured", "period"),
    [
        (None, 3 * 3600 - 120 - 7200),  # what tasks take where nobody has said or measured it
        (300.0, 3 * 3600 - 120 - 300),
        (10_700.0, 15),  # a node that took nothing would be replaced by the next
        (20_000.0, 15),
    ],
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_node_takes_tasks_as_long_as_they_can_end(tmp_path, scheduler, measured, period, nodes):
    """It reads what the driver has measured when its block begins."""
    pool = f"{{type: slurm, walltime: 3 h, workers: 2, nodes_per_block: {nodes}}}"
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    file = pace_file(tmp_path / "campaign", "one")
    if measured is not None:
        durations = Durations([("label", "xtb", measured / 1.5)])
        Pace(durations, file, 7200.0, ["label.xtb"]).begin()
        assert [path.name for path in file.parent.iterdir()] == ["longest"]
    before, _, _ = script.partition("set +eo pipefail")
    (start,) = [line for line in script.split("\n") if "process_worker_pool" in line]
    assert "--drain_period=$ALLOOP_DRAIN_PERIOD " in start
    done = bash(f"{before}\nbash -c 'echo --drain_period=$ALLOOP_DRAIN_PERIOD'")
    assert done.stdout == f"--drain_period={period}\n", done.stderr


def test_what_pbs_pro_is_asked_for(tmp_path, scheduler):
    executors = compiled(read("pbspro"), tmp_path)
    script = submitted(executors["gpu"], tmp_path)
    assert "#PBS -l select=1:ncpus=32:mem=120gb:ngpus=4:gpu_model=a100\n" in script
    assert "#PBS -l walltime=06:00:00\n" in script
    assert "#PBS -r n\n#PBS -v ALLOOP_TAG=alloop:water-1234\n" in script
    assert "#PBS -l filesystems=home\n" in submitted(executors["cpu"], tmp_path)
    assert "qsub -q gpuq -A myproject" in " ".join(scheduler.read_text().split())


def test_what_lsf_is_asked_for(tmp_path, scheduler):
    executors = compiled(read("lsf"), tmp_path)
    script = submitted(executors["gpu"], tmp_path)
    asked = re.findall(r"^#BSUB (.*)$", script, re.MULTILINE)
    assert set(asked) >= {
        "-W 360", "-q gpu", "-P myproject", "-n 32", '-R "span[ptile=32]"', "-rn",
        '-R "rusage[mem=120GB]"', '-gpu "num=4"', "-Jd alloop:water-1234",
    }  # fmt: skip
    assert executors["gpu"].provider.bsub_redirection  # or the #BSUB lines are ignored
    site = site_of(tmp_path, "{type: lsf, walltime: 4 h, workers: 4, whole_nodes: true}")
    assert "#BSUB -nnodes 1\n" in submitted(compiled(site, tmp_path)["one"], tmp_path)


def test_what_kubernetes_is_asked_for(tmp_path, kubernetes):
    executor = compiled(read("kubernetes"), tmp_path)["gpu"]
    executor.run_dir, executor.logconf_path = str(tmp_path), None
    executor.cert_dir, executor.worker_port = "/certificates", 54321
    executor.initialize_scaling()
    executor.provider.submit(executor._get_launch_command("0"), 1, "parsl.gpu.block-0")
    (pod,) = kubernetes
    assert pod["namespace"] == "alloop"
    (container,) = pod["body"].spec.containers
    wanted = {"cpu": "8", "memory": "22889Mi"}  # 24 GB
    assert container.resources.requests == wanted
    assert container.resources.limits == wanted | {"nvidia.com/gpu": "1"}
    assert container.security_context.run_as_user == 1000
    assert container.security_context.run_as_non_root
    assert [mount.mount_path for mount in container.volume_mounts] == ["/data"]
    assert pod["body"].metadata.annotations == {"alloop/tag": "alloop:water-1234"}
    assert "\npython -P -c 'import alloop" in container.args[1]
    assert "\npython -P -m parsl.executors.high_throughput.process_worker_pool" in container.args[1]
    assert "ALLOOP_BLOCK_DEADLINE" not in container.args[1]  # pods have no end


@pytest.mark.skipif(kube._kubernetes_enabled, reason="the Kubernetes client is here")
def test_a_missing_kubernetes_client_is_one_line(tmp_path):
    with pytest.raises(SiteError, match=r"^pools\.cpu: OptionalModuleMissing: .*kubernetes"):
        compiled(read("kubernetes"), tmp_path)


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a block as a node would."""
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": "/", "USER": "me"} | environment,
    )  # fmt: skip


def worker_command(done: subprocess.CompletedProcess[str]) -> str:
    """Return how the workers were started, where their Python is `echo`."""
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "names"),
    [({}, "0 1"), ({"CUDA_VISIBLE_DEVICES": "2,3"}, "2 3"),
     ({"CUDA_VISIBLE_DEVICES": "GPU-7f,MIG-9a/1,x"}, "GPU-7f MIG-9a/1")],
)  # fmt: skip
def test_workers_are_bound_to_the_gpus_that_the_job_was_given(
    environment, names, tmp_path, scheduler
):
    pool = "{type: slurm, walltime: 4 h, gpus_per_node: 2, env: {python: echo}}"
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    assert "#SBATCH --gres=gpu:2\n" in script
    command = worker_command(bash(script, **environment))
    assert command.endswith(f"--available-accelerators {names}")


def test_a_node_with_too_few_gpus_starts_no_workers(tmp_path, scheduler):
    pool = "{type: slurm, walltime: 4 h, gpus_per_node: 2, env: {python: echo}}"
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    done = bash(script, CUDA_VISIBLE_DEVICES="1")
    assert done.returncode == 1
    assert "fewer than 2 GPUs" in done.stderr
    assert "process_worker_pool" not in done.stdout


@pytest.mark.parametrize(
    "environment",
    ["setup: ['false']", "setup: ['false | true']", "check: ['false']", "modules: [nonsense]",
     "python: /nowhere/python"],
)  # fmt: skip
def test_a_broken_environment_starts_no_workers(environment, tmp_path, scheduler):
    pool = f"{{type: slurm, walltime: 4 h, workers: 1, env: {{{environment}}}}}"
    if "python" not in environment:
        pool = pool.replace("env: {", "env: {python: echo, ")
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    done = bash(script)
    assert done.returncode != 0
    assert "process_worker_pool" not in done.stdout


def test_the_own_check_of_the_environment_is_real(tmp_path, scheduler):
    """It imports what workers import, in their Python: here this one."""
    pool = "{type: slurm, walltime: 4 h, workers: 1}"
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    before, _, _ = script.partition("set +eo pipefail")
    done = bash(f"{before}\necho sound $ALLOOP_POOL")
    assert done.stdout == "sound one\n", done.stderr
    broken = before.replace("import alloop,", "import alloop_not_there,")
    done = bash(f"{broken}\necho sound")
    assert (done.returncode, done.stdout) == (1, "")
    assert "alloop_not_there" in done.stderr


def container_stub(tmp_path: Path, name: str) -> Path:
    """Make a container program that shows how it was called, one word in brackets each."""
    path = tmp_path / "bin" / name
    path.write_text('#!/bin/bash\nprintf "[%s]" "$@"; env | grep ^APPTAINERENV_ | sort; echo\n')
    path.chmod(0o755)
    return path


def test_apptainer_gets_its_words_whole(tmp_path, scheduler):
    container_stub(tmp_path, "apptainer")
    pool = (
        "{type: slurm, walltime: 4 h, gpus_per_node: 1, container: {program: apptainer,"
        " image: /images/a.sif, binds: [/scratch/$USER, '/a:/b']}, env: {vars: {A: 'x,y z'},"
        " check: [\"test -n 'a b'\"]}}"
    )
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    done = bash(script)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "campaign"
    inside = (
        f"[exec][--cleanenv][--nv][--bind][{directory}][--bind][/scratch/me][--bind][/a:/b]"
        "[/images/a.sif]"
    )
    calls = [line for line in done.stdout.splitlines() if line.startswith("[exec]")]
    assert len(calls) == 3
    assert all(line.startswith(inside) for line in calls)
    assert "[bash][-c][test -n 'a b']" in calls[1]
    assert "[python][-P][-m][parsl.executors.high_throughput.process_worker_pool]" in calls[2]
    assert calls[2].partition("APPTAINERENV_")[0].endswith("[--available-accelerators][0]")
    passed = done.stdout
    assert "APPTAINERENV_A=x,y z\n" in passed
    assert re.search(r"APPTAINERENV_ALLOOP_BLOCK_DEADLINE=\d{10}\n", passed)
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"):
        assert "APPTAINERENV_ALLOOP_JOB=4711\n" in bash(script, **{name: "4711"}).stdout


def test_docker_gets_its_words_whole(tmp_path, scheduler):
    container_stub(tmp_path, "docker")
    pool = (
        "{type: slurm, walltime: 4 h, workers: 1, container: {program: docker,"
        " image: 'ghcr.io/a/b:1', binds: [/data], gpus: nvidia}}"
    )
    script = submitted(compiled(site_of(tmp_path, pool), tmp_path)["one"], tmp_path)
    done = bash(script)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    directory = tmp_path / "campaign"
    assert f"[--gpus][all][--volume][{directory}:{directory}][--volume][/data:/data]" in line
    named = ("DEADLINE", "SECONDS")
    passed = "".join(f"[--env][ALLOOP_BLOCK_{name}]" for name in named) + "[--env][ALLOOP_JOB]"
    assert f"{passed}[ghcr.io/a/b:1][python][-P][-m]" in line
    assert f"[--user][{os.getuid()}:{os.getgid()}]" in line


def test_blocks_of_several_nodes_start_workers_on_each(tmp_path, scheduler):
    more = "nodes_per_block: 2, walltime: 4 h, gpus_per_node: 2, env: {python: echo}"
    slurm = compiled(site_of(tmp_path, f"{{type: slurm, {more}}}"), tmp_path)["one"]
    script = submitted(slurm, tmp_path)
    assert "srun --ntasks 2 -l --kill-on-bad-exit=0" in script
    assert "#SBATCH --nodes=2\n" in script
    assert "--available-accelerators 0 1\n" in script
    assert 'env ALLOOP_CAMPAIGN="$ALLOOP_CAMPAIGN"' in script
    pbs = compiled(site_of(tmp_path, f"{{type: pbspro, {more}}}"), tmp_path)["one"]
    assert "mpiexec " in submitted(pbs, tmp_path / "campaign")
    lsf = compiled(site_of(tmp_path, f"{{type: lsf, {more}}}"), tmp_path)["one"]
    assert "jsrun -n 2 -r 1" in submitted(lsf, tmp_path / "campaign" / "parsl")


def test_threads_and_cores_of_this_machine(tmp_path, monkeypatch):
    executor = compiled(site_of(tmp_path, "{type: threads, workers: 3}"), tmp_path)["one"]
    assert isinstance(executor, ThreadPoolExecutor)
    assert executor.max_threads == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    site = site_of(tmp_path, "{type: local, cores_per_worker: 4}")
    assert compiled(site, tmp_path)["one"].workers_per_node == 3
    site = site_of(tmp_path, "{type: local, memory_per_worker: 100000 GB}")
    assert compiled(site, tmp_path)["one"].workers_per_node == 1


def test_paths_and_marks_that_a_shell_would_take_apart_are_refused(tmp_path):
    site = site_of(tmp_path, "{type: local, workers: 1}")
    with pytest.raises(SiteError, match="want one of letters, digits"):
        parsl_config(site, tmp_path / "my campaign", "x")
    with pytest.raises(SiteError, match="cannot mark jobs"):
        parsl_config(site, tmp_path, "a b")


def test_an_interface_that_is_not_there_is_one_line(tmp_path, scheduler):
    site = site_of(tmp_path, "{type: slurm, walltime: 4 h, workers: 1}")
    site = site.model_copy(update={"address": "ib77"})
    with pytest.raises(SiteError, match=r"^address: this machine has no network interface 'ib77'"):
        compiled(site, tmp_path)


OWN = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

def config():
    executor = HighThroughputExecutor(label="mine", address="127.0.0.1", provider=LocalProvider())
    return Config(executors=[executor], retries=3, strategy="htex_auto_scale", usage_tracking=1)

nothing = 3
"""


def test_a_config_from_python(tmp_path, monkeypatch):
    (tmp_path / "my_cluster_of_tests.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    text = "kind: cluster\npython: my_cluster_of_tests:config\n"
    text += "roles: {explore: mine, label: mine, train: mine}\n"
    (tmp_path / "own.yaml").write_text(text)
    config = parsl_config(load_site("own.yaml", tmp_path), tmp_path, "x")
    assert (config.retries, config.strategy, config.usage_tracking) == (0, "simple", 0)
    assert [executor.label for executor in config.executors] == ["mine"]
    for old, new, shown in (
        ("label: mine", "label: mein", r"roles\.label: .* no executor 'mein'; did you mean 'mine'"),
        (":config", ":nothing", r"python: .* is int, want a parsl.config.Config"),
        (":config", ":nowhere", r"python: .*:nowhere cannot be imported"),
    ):
        (tmp_path / "own.yaml").write_text(text.replace(old, new))
        with pytest.raises(SiteError, match=shown):
            parsl_config(load_site("own.yaml", tmp_path), tmp_path, "x")
