"""Container definitions, manifests and batch scripts of deploy/: read, cross-checked, run."""

from __future__ import annotations

import configparser
import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from alloop.campaign.verdict import EXIT_CODES
from alloop.config.shipped import shipped
from alloop.executors.site import load_site

ROOT = Path(__file__).parents[2]
DEPLOY = shipped("deploy")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SBATCH = DEPLOY / "driver.sbatch"
START_AGAIN = 75


def joined(text: str) -> list[str]:
    """Return the lines of a text without comments, continued lines as one."""
    text = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def needed_to_build() -> set[str]:
    """Return what of the repository a wheel is built from."""
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    packages = {path.partition("/")[0] for path in build["packages"]}
    project = PROJECT["project"]
    return packages | set(build["force-include"]) | {
        "pyproject.toml", project["readme"], *project["license-files"],
    }  # fmt: skip


def check_installation(commands: str, copied: set[str]) -> None:
    """Check that an image is built from the repository, as it is pinned, with known extras."""
    assert needed_to_build() <= copied
    assert "constraints.txt" in copied
    for name in copied:
        assert (ROOT / name).exists(), name
    assert commands.count("pip install --no-cache-dir -c ") == 2  # first PyTorch by its index
    assert commands.count("--extra-index-url") == 2


def extras_of(text: str) -> set[str]:
    (names,) = re.findall(r"EXTRAS=([\w,]+)\n", text)
    return set(names.split(","))


def test_the_dockerfile_builds_from_the_repository():
    text = (DEPLOY / "Dockerfile").read_text()
    lines = joined(text)
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}
    assert {line.partition(" ")[0] for line in lines} == known
    stages = [line.split()[-1] for line in lines if re.match(r"FROM .* AS ", line)]
    copied: set[str] = set()
    for line in lines:
        if line.startswith("COPY --from="):
            assert line.split()[1].removeprefix("--from=") in stages
        elif line.startswith("COPY "):
            copied.update(line.split()[1:-1])
    check_installation("\n".join(lines), copied)
    assert extras_of(text) <= set(PROJECT["project"]["optional-dependencies"])
    defined = set(re.findall(r"(?m)^ARG (\w+)", text))
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= defined
    for line in lines:
        if line.startswith("RUN "):
            check = subprocess.run(["bash", "-n", "-c", line[4:]], check=False)
            assert check.returncode == 0, line
    assert lines[-2] == "USER 1000:1000"


def test_what_docker_leaves_out_is_not_needed():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ".git" in ignored
    assert not set(ignored) & needed_to_build()


def test_the_apptainer_definition_builds_from_the_repository():
    text = (DEPLOY / "apptainer.def").read_text()
    header, *parts = re.split(r"(?m)^%(\w+)\n", text)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert {"Bootstrap: docker", "From: python:3.11-slim"} <= set(header.splitlines())
    assert set(sections) == {"arguments", "files", "post", "environment", "test", "runscript"}
    copied = {}
    for line in joined(sections["files"]):
        source, target = line.split()
        copied[source] = target
    assert set(copied.values()) == {f"/opt/source/{name}" for name in copied}
    post = " ".join(joined(sections["post"]))
    check_installation(post, set(copied))
    assert extras_of(sections["arguments"]) <= set(PROJECT["project"]["optional-dependencies"])
    known = set(re.findall(r"(\w+)=", sections["arguments"]))
    assert set(re.findall(r"\{\{ (\w+) \}\}", text)) == known
    for name in ("post", "environment", "test", "runscript"):
        script = re.sub(r"\{\{ \w+ \}\}", "x", sections[name])
        assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0, name


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def test_the_manifests_fit_each_other_and_the_site():
    pools = load_site("kubernetes", DEPLOY).pools.values()
    (job,), (claim,), roles = (
        manifests("driver.yaml"),
        manifests("pvc.yaml"),
        manifests("rbac.yaml"),
    )
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for pool in pools:
        assert pool.image == container["image"]
        assert {pool.namespace} == {
            one["metadata"]["namespace"] for one in (job, claim, *roles[1:])
        } == {roles[0]["metadata"]["name"]}  # fmt: skip
        assert pool.volumes == {
            claim["metadata"]["name"]: container["volumeMounts"][0]["mountPath"]
        }
        assert pool.user_id == pod["securityContext"]["runAsUser"]
        assert pool.group_id == pod["securityContext"]["runAsGroup"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volume["name"] == container["volumeMounts"][0]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (variable,) = container["env"]
    assert load_site("kubernetes", DEPLOY).address == f"${variable['name']}"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"


def test_the_driver_may_handle_pods_and_nothing_else():
    _, account, role, binding = manifests("rbac.yaml")
    (job,) = manifests("driver.yaml")
    name = account["metadata"]["name"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == name
    assert binding["subjects"][0]["name"] == name
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    allowed = {what: set(rule["verbs"]) for rule in role["rules"] for what in rule["resources"]}
    assert allowed["pods"] >= {"create", "get", "list", "delete"}
    assert set(allowed) == {"pods", "pods/log"}


def test_the_job_of_the_driver_begins_again_only_when_it_should():
    (job,) = manifests("driver.yaml")
    spec = job["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # or the policy is refused

    def action(code: int) -> str:
        for rule in spec["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes")
            if codes and (code in codes["values"]) == (codes["operator"] == "In"):
                return str(rule["action"])
        return "Count"

    assert action(START_AGAIN) == action(137) == "Count"
    stops = {1, 2, *EXIT_CODES.values()} - {0, START_AGAIN}
    assert {action(code) for code in stops} == {"FailJob"}
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "Ignore"  # a drained node


def test_the_service_begins_again_only_when_it_should():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd" / "alloop@.service")
    service = unit["Service"]
    never = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert never == ({1, 2} | set(EXIT_CODES.values())) - {0, START_AGAIN}
    assert service["RestartForceExitStatus"] == str(START_AGAIN)


# The driver as a job: the real script, with `alloop` and `sbatch` that note how they are called.

ALLOOP = """#!/bin/bash
env | grep -E '^(SLURM|SBATCH)_' > "$NOTES/environment"
echo "alloop $*" >> "$NOTES/calls"
trap 'echo TERM >> "$NOTES/calls"; exit 5' TERM
touch "$NOTES/begun"
for _ in $(seq "${STEPS:-0}"); do sleep 0.05; done
exit "${CODE:-0}"
"""
SUBMIT = """#!/bin/bash
echo "sbatch $*" >> "$NOTES/calls"
env | grep -E '^(SLURM|SBATCH)_' > "$NOTES/environment_of_sbatch"
n=$(grep -c ^sbatch "$NOTES/calls")
[ "$n" -gt "${REFUSALS:-0}" ] || { echo "busy" >&2; exit 1; }
echo "Submitted batch job 8"
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script as Slurm would; returns the process."""
    for name, text in (("alloop", ALLOOP), ("sbatch", SUBMIT)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "NOTES": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_NODE": "4096",
        "SBATCH_PARTITION": "standard",
        "SLURM_CONF": "/etc/slurm.conf",
        "ALLOOP_RETRY_S": "0",
    }
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", str(SBATCH), *arguments], env=environment | more, text=True, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def begun(tmp_path: Path) -> None:
    deadline = time.monotonic() + 20
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 143])
def test_a_verdict_ends_the_chain_of_drivers(job, tmp_path, code):
    process = job("config.yaml", CODE=str(code))
    process.communicate(timeout=30)
    assert process.returncode == code
    assert calls(tmp_path) == ["alloop start config.yaml"]
    assert (tmp_path / "environment").read_text() == "SLURM_CONF=/etc/slurm.conf\n"


@pytest.mark.parametrize("code", [START_AGAIN, 137])
def test_a_driver_that_asks_for_it_is_started_again(job, tmp_path, code):
    process = job("config.yaml", CODE=str(code))
    process.communicate(timeout=30)
    assert process.returncode == 0
    again = f"sbatch --dependency=afterany:7 --begin=now+60 {SBATCH} config.yaml 1"
    assert calls(tmp_path)[1:] == [again]
    assert (tmp_path / "environment_of_sbatch").read_text() == "SLURM_CONF=/etc/slurm.conf\n"


def test_a_driver_that_only_fails_is_not_started_for_ever(job, tmp_path):
    process = job("config.yaml", "4", CODE="75")
    process.communicate(timeout=30)
    assert calls(tmp_path)[1].endswith("config.yaml 5")
    process = job("config.yaml", "5", CODE="75")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == START_AGAIN
    assert "6 times in a row" in output
    assert len([call for call in calls(tmp_path) if call.startswith("sbatch")]) == 1


@pytest.mark.parametrize("refusals", ["0", "2"])
def test_the_campaign_goes_on_after_the_wall_time(job, tmp_path, refusals):
    process = job("config.yaml", STEPS="400", REFUSALS=refusals)
    begun(tmp_path)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
    found = calls(tmp_path)
    submitted = [call for call in found if call.startswith("sbatch")]
    assert submitted == [f"sbatch --dependency=afterany:7 {SBATCH} config.yaml 0"] * (
        int(refusals) + 1
    )
    assert "TERM" in found


def test_a_cancelled_driver_has_no_successor(job, tmp_path):
    process = job("config.yaml", STEPS="400")
    begun(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == EXIT_CODES["paused"]
    assert calls(tmp_path) == ["alloop start config.yaml", "TERM"]


def test_what_the_batch_script_asks_of_slurm():
    asked = dict(re.findall(r"(?m)^#SBATCH --([\w-]+)(?:=(.*))?$", SBATCH.read_text()))
    assert asked["signal"] == "B:USR1@300"  # to the script itself, in time to hand over
    assert {"requeue", "open-mode", "time", "mem", "cpus-per-task"} <= set(asked)
    assert os.access(SBATCH, os.X_OK)
