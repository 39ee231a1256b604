"""Site files: what they may say, how faults are shown, where tasks go."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from alloop.cli.main import main
from alloop.config.schema import json_schema, markdown_table, refresh
from alloop.config.shipped import shipped
from alloop.errors import SiteError
from alloop.executors.site import describe, load_site
from alloop.executors.sites.address import address_of
from alloop.executors.sites.checks import spoken
from alloop.executors.sites.model import ClusterSite, InProcessSite, LocalSite
from alloop.executors.sites.roles import longest_task, pool_for, pools_for, role_of
from alloop_tasks import boundary

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sites.md"
SITE = """\
kind: cluster
address: 10.0.0.1
pools:
  cpu: {type: slurm, partition: std, walltime: 4 h, workers: 4, cores_per_worker: 2}
  spare: {type: slurm, walltime: 4 h, workers: 2}
  gpu: {type: slurm, walltime: 8 h, gpus_per_node: 2}
  big: {type: slurm, walltime: 24 h, workers: 1, longest_task: 20 h}
roles:
  explore: gpu
  train: gpu
  label: [cpu, spare]
  label.ccsd: big
"""


def load(tmp_path: Path, text: str):
    (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
    return load_site("site.yaml", tmp_path)


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SiteError) as caught:
        load(tmp_path, text)
    path = tmp_path / "site.yaml"
    return [line.replace(f"{path}:", "") for line in str(caught.value).splitlines()]


def changed(*pairs: tuple[str, str]) -> str:
    text = SITE
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_site_files_of_one_machine_mean_what_they_did(tmp_path):
    assert load(tmp_path, "kind: inprocess\n") == InProcessSite(kind="inprocess")
    assert load(tmp_path, "kind: local\n") == LocalSite(kind="local", workers="auto")
    assert load(tmp_path, "kind: local\nworkers: 4\n").workers == 4
    assert load_site("local", tmp_path).workers == "auto"
    assert load_site("inprocess", tmp_path).kind == "inprocess"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kind: local\nworkers: 0\n", "2:1  workers"),
        ("kind: local\nworkers: 1.5\n", "2:1  workers"),
        ("kind: local\nwokers: 2\n", "2:1  wokers: unknown key; did you mean 'workers'?"),
        ("kind: inprocess\nworkers: 2\n", "2:1  workers: unknown key"),
        ("kind: lokal\n", "1:1  kind: 'lokal' is not one of inprocess, local, cluster;"
         " did you mean 'local'?"),
        ("workers: 2\n", "1:1  kind: this key is required: one of inprocess, local, cluster"),
        ("kind: [local]\n", "1:1  kind: ['local'] is not one of"),
        ("", "1:1  want 'key: value' lines"),
        ("- kind: local\n", "1:1  want 'key: value' lines"),
        ("kind: local\nkind: local\n", "2:1  kind: the key is here twice, first on line 1"),
        ("kind: {local\n", "the bracket opened on line 1 is not closed"),
        ("kind: cluster\n", "1:1  pools: a site has 'pools' or 'python', one of both"),
        ("kind: cluster\npools: {a: {type: threads}}\npython: a:b\n", "2:1  pools: a site has"),
        ("kind: cluster\npools: {a: {type: slurm}}\n", "pools.a.walltime: this key is required"),
        ("kind: cluster\npools: {a: {}}\n", "pools.a.type: this key is required"),
        ("kind: cluster\npython: site.py\n", "python: 'site.py': want package.module:Class"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_place(tmp_path, text, shown):
    assert any(shown in line for line in faults(tmp_path, text)), faults(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("partition: std", "partitoin: std",
         "4:22  pools.cpu.partitoin: unknown key; did you mean 'partition'?"),
        ("partition: std", "queue: std",
         "4:22  pools.cpu.queue: unknown key here; 'queue' belongs to pools.<id> of type pbspro"
         " or pools.<id> of type lsf"),
        ("type: slurm, partition", "type: slrum, partition", "did you mean 'slurm'?"),
        ("walltime: 8 h", "walltime: 8", "pools.gpu.walltime: needs a unit, got 8: want a wall"),
        ("walltime: 8 h", "walltime: 8 GB", "unknown unit 'GB' (that is a memory)"),
        ("walltime: 8 h", "walltime: 8 hours", "unknown unit 'hours'"),
        ("walltime: 8 h", "walltime: 30 s", "must be at least 60 s"),
        ("walltime: 8 h", "walltime: 10001 s", "pools.gpu.walltime: want whole minutes"),
        ("walltime: 8 h", "walltime: 12 min",
         "6:22  pools.gpu.walltime: 12 min is too short for tasks of up to 10 min (longest_task):"
         " want more than 12 min, or shorter tasks"),
        ("longest_task: 20 h", "longest_task: 24 h", "pools.big.walltime: 24 h is too short"),
        ("workers: 4", "workers: 4.0", "pools.cpu.workers: want an integer, got 4.0"),
        ("workers: 4,", "", "pools.cpu.workers: this key is required without GPUs"),
        ("gpus_per_node: 2", "gpus_per_node: 2, workers: 4",
         "pools.gpu.workers: 4 workers for 2 GPUs: there is one for each"),
        ("workers: 2", "workers: 2, gpu_type: a100", "pools.spare.gpu_type: this key has no eff"),
        ("workers: 2", "workers: 2, min_blocks: 3", "pools.spare.min_blocks: 3 is more than max"),
        ("workers: 2", "workers: 2, options: [--time=1]", "'--time' is set by alloop: use wallt"),
        ("workers: 2", "workers: 2, options: [-p x]", "options[0]: '-p' is set by alloop: use p"),
        ("workers: 2", "workers: 2, options: [--requeue]", "'--requeue' is set by alloop and"),
        ("workers: 2", "workers: 2, options: [nice=3]", "options[0]: 'nice=3': want one option"),
        ("workers: 2", "workers: 2, env: {vars: {ALLOOP_X: 1}}", "ALLOOP_ variables are alloop's"),
        ("workers: 2", "workers: 2, env: {vars: {a-b: 1}}", "may hold letters, digits and '_'"),
        ("workers: 2", "workers: 2, env: {modules: [a b]}", "may hold no white space"),
        ("workers: 2", "workers: 2, env: {setup: source x}", "setup: want a list, got 'source x'"),
        ("workers: 2", "workers: 2, container: {image: x}", "container.program: this key is requ"),
        ("train: gpu", "train: gpuu", "10:3  roles.train: no pool is called 'gpuu'; did you mean"),
        ("train: gpu", "trian: gpu", "roles.trian: unknown role; label.<tier> for the labels of"
         " one tier; did you mean 'train'?"),
        ("train: gpu", "fit4d: gpu", "8:1  roles: the role 'train' has no pool: say which in"),
        ("[cpu, spare]", "[cpu, spare, cpu]", "roles.label: a pool is here twice"),
        ("[cpu, spare]", "[]", "roles.label: must not be empty"),
        ("[cpu, spare]", "cpu", "5:3  pools.spare: no role names this pool"),
        ("label.ccsd: big", "label.: big", "roles.label.: unknown role"),
        ("address: 10.0.0.1\n", "", "address: this key is required: where the nodes of cpu reach"),
        ("address: 10.0.0.1", "address: 10.0.0.1\nports: [55000, 54000]", "3:1  ports: want two"),
        ("address: 10.0.0.1", "address: 10.0.0.1\nports: [54000]", "3:1  ports: "),
        ("address: 10.0.0.1", "address: 10.0.0.1\nheartbeat_threshold: 50 s",
         "3:1  heartbeat_threshold: 50 s is too short: want at least two heartbeat periods, 60 s"),
        ("address: 10.0.0.1", "address: 10.0.0.1\nstrategy: htex_auto_scale",
         "3:1  strategy: unknown key"),
    ],
)  # fmt: skip
def test_what_must_go_together_is_checked(tmp_path, old, new, shown):
    lines = faults(tmp_path, changed((old, new)))
    assert len(lines) == 1, lines
    assert shown in lines[0], lines


def test_every_fault_is_shown_at_once_in_the_order_of_the_file(tmp_path):
    lines = faults(
        tmp_path,
        changed(
            ("address:", "adress:"),
            ("partition: std", "partition: 3"),
            ("gpus_per_node: 2", "gpus_per_node: 2, workers: 1"),
            ("walltime: 24 h", "walltime: 20 h"),
            ("explore: gpu", "explore: gpuu"),
        ),
    )
    places = [line.split()[1].rstrip(":") for line in lines]
    assert set(places) == {
        "adress", "address", "pools.cpu.partition", "pools.gpu.workers", "pools.big.walltime",
        "roles.explore",
    }  # fmt: skip
    assert [int(line.split(":")[0]) for line in lines] == sorted(
        int(line.split(":")[0]) for line in lines
    )


def test_a_cut_value_makes_no_further_faults(tmp_path):
    """A wall time that cannot be read is not also too short."""
    lines = faults(tmp_path, changed(("walltime: 24 h", "walltime: 24")))
    assert [line.split()[1] for line in lines] == ["pools.big.walltime:"]


def test_a_file_that_is_no_site_file(tmp_path):
    with pytest.raises(SiteError, match=r"neither one that ships .* nor a file"):
        load_site("nowhere.yaml", tmp_path)
    (tmp_path / "site.yaml").write_bytes(b"kind: \xff\n")
    with pytest.raises(SiteError, match="not UTF-8"):
        load_site("site.yaml", tmp_path)


def test_roles_of_all_tasks(tmp_path):
    site = load(tmp_path, SITE)
    where = {kind: pools_for(site, kind, {}) for kind in boundary.KINDS}
    assert where.pop("label") == ("cpu", "spare")
    assert set(where.values()) == {("gpu",)}
    assert pools_for(site, "label", {"tier": "ccsd"}) == ("big",)
    assert pools_for(site, "label", {"tier": "dft"}) == ("cpu", "spare")
    assert pool_for(site, "label", {}) == "cpu"
    apart = load(tmp_path, changed(("train: gpu", "train: cpu")))
    assert pool_for(apart, "fit_spacetime", {}) == pool_for(apart, "transfer", {}) == "cpu"
    assert pool_for(apart, "probe_spacetime", {}) == pool_for(apart, "select", {}) == "gpu"
    assert role_of("fit_spacetime", {}) == "fit4d"
    assert role_of("train", {"tier": "ccsd"}) == "train"


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("fit4d", "fit_spacetime"),
        ("transfer", "transfer"),
        *((name, name) for name in ("prepare", "select", "promote", "score", "evaluate")),
        ("probe_spacetime", "probe_spacetime"),
    ],
)
def test_a_role_that_is_named_goes_its_own_way(tmp_path, role, kind):
    site = load(tmp_path, SITE + f"  {role}: spare\n")
    assert pools_for(site, kind, {}) == ("spare",)
    assert {pools_for(site, other, {}) for other in ("explore", "train")} == {("gpu",)}


def test_a_single_pool_has_every_role(tmp_path):
    site = load(tmp_path, "kind: cluster\npools: {all: {type: local}}\n")
    assert {pools_for(site, kind, {"tier": "x"}) for kind in boundary.KINDS} == {("all",)}


def test_a_role_without_a_pool_is_said(tmp_path):
    site = ClusterSite(kind="cluster", python="a:b", roles={"explore": ["x"]})
    with pytest.raises(SiteError, match=r"no pool for the role 'label\.ccsd'"):
        pools_for(site, "label", {"tier": "ccsd"})


def test_the_longest_task_of_a_pool_is_that_of_its_roles(tmp_path):
    site = load(tmp_path, SITE + "  evaluate: spare\n")
    assert longest_task(site, "gpu") == 600  # what it begins goes on in the next block
    assert longest_task(site, "big") == 20 * 3600
    site = load(tmp_path, changed(("train: gpu", "train: cpu")))
    assert longest_task(site, "gpu") == 600
    assert longest_task(site, "cpu") == 7200  # it makes labels


def test_addresses(monkeypatch):
    assert address_of("127.0.0.1") == "127.0.0.1"  # written out: wanted
    assert address_of("fe80::1") == "fe80::1"
    monkeypatch.setenv("POD_IP", "10.1.2.3")
    assert address_of("$POD_IP") == "10.1.2.3"
    with pytest.raises(SiteError, match=r"\$NO_SUCH is '' here, want an IP address"):
        address_of("$NO_SUCH")
    with pytest.raises(SiteError, match=r"no network interface 'ib7' with an address; it has .*lo"):
        address_of("ib7")
    with pytest.raises(SiteError, match=r"lo is 127.0.0.1 here, which no other machine can reach"):
        address_of("lo")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    with pytest.raises(SiteError, match=r"hostname is 127.0.1.1 here, which no other"):
        address_of("hostname")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.0.0.7")
    assert address_of("hostname") == "10.0.0.7"
    card = next(iter(psutil.net_if_addrs().values()))[0]._replace(
        family=socket.AF_INET, address="10.9.8.7"
    )
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"ib0": [card]})
    assert address_of("ib0") == "10.9.8.7"


def test_durations_for_people():
    assert [spoken(s) for s in (0, 59, 60, 3660, 90061)] == [
        "0 s", "59 s", "1 min", "1 h 1 min", "25 h 1 min 1 s",
    ]  # fmt: skip


def test_a_site_is_described(tmp_path):
    lines = describe(load(tmp_path, SITE))
    assert lines[0] == (
        "pool cpu: slurm partition std, up to 1 block of 1 node for 4 h,"
        " each node with 4 workers of 2 cores"
    )
    assert "2 workers of 1 core and a GPU" in lines[2]
    assert lines[4:] == (
        "explore: gpu", "label: cpu, then spare", "train: gpu", "fit4d: gpu", "label.ccsd: big",
    )  # fmt: skip


def test_the_memory_ladder_is_described(tmp_path):
    pools = ", ".join(
        f"{name}: {{type: local, memory_per_worker: {memory} GB}}"
        for name, memory in [("cpu", 4), ("spare", 4), ("big", 64)]
    )
    roles = "{explore: cpu, train: cpu, label: [cpu, spare, big]}"
    text = f"kind: cluster\npools: {{{pools}}}\nroles: {roles}\n"
    assert "label: cpu, then spare, then big (more memory)" in describe(load(tmp_path, text))
    assert "explore: cpu" in describe(load(tmp_path, text))


def test_validate_names_the_site_and_its_pools(tmp_path, monkeypatch, capsys):
    (tmp_path / "site.yaml").write_text(SITE)
    text = (shipped("configs") / "ethanol.yaml").read_text()
    for name in re.findall(r"structure: (\S+?)[,}\n]", text):
        source = shipped("configs") / name
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source.read_text())
    (tmp_path / "config.yaml").write_text(
        re.sub(r"(?m)^site:.*$", "", text) + "\nsite: site.yaml\n"
    )
    monkeypatch.setattr("sys.argv", ["alloop", "validate", str(tmp_path / "config.yaml")])
    with pytest.raises(SystemExit) as done:
        main()
    shown = capsys.readouterr()
    assert done.value.code in (0, None), shown.err
    assert "site site.yaml: cluster\n  pool cpu: slurm partition std" in shown.out
    (tmp_path / "site.yaml").write_text(SITE.replace("walltime: 8 h", "walltime: 8"))
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "site.yaml:6:22  pools.gpu.walltime: needs a unit" in capsys.readouterr().err


def test_the_documentation_has_the_present_table(tmp_path):
    copy = tmp_path / "sites.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    stale = "docs/sites.md is stale: python -m alloop.executors.sites.table"
    assert not refresh(copy, ClusterSite), stale
    rows = {line.split("|")[1].strip(): line for line in markdown_table(ClusterSite).splitlines()}
    assert (
        "| wall time | `s`, `min`, `h`, `d` | **required** | Type `slurm`, `pbspro`, `lsf`"
        in (rows["`pools.<id>.walltime`"])
    )
    assert "| `120 s` |" in rows["`heartbeat_threshold`"]


def test_the_example_of_the_documentation_is_valid(tmp_path):
    blocks = re.findall(r"```yaml\n(kind: cluster\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert isinstance(load(tmp_path, block), ClusterSite)


def test_the_json_schema_of_sites():
    schema = json_schema(ClusterSite, "alloop site")
    assert json.loads(json.dumps(schema)) == schema
    assert schema["title"] == "alloop site"
    assert schema["properties"]["heartbeat_period"]["default"] == "30 s"
    assert "walltime" in schema["$defs"]["SlurmPool"]["required"]
    assert schema["$defs"]["PbsProPool"]["additionalProperties"] is False


def test_reading_a_site_needs_no_parsl():
    code = (
        "import sys; from pathlib import Path; from alloop.executors.site import load_site;"
        "load_site('slurm-cpu-gpu', Path());"
        "print([name for name in ('torch', 'parsl', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'db'}:{ROOT / 'tasks'}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
