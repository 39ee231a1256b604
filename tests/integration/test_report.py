"""The report: one page that needs nothing else, whose numbers are those of the ledger."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import pty
import select
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import alloop
import alloop.campaign.start
from alloop.artifacts import ArtifactStore
from alloop.campaign.verdict import Verdict
from alloop.cli.main import app
from alloop.errors import DataError, LedgerError
from alloop.frames import Frame
from alloop.report import plots
from alloop.report.html import write_report
from alloop.report.spacetime import ranges
from alloop_db.ledger import LEDGER, open_ledger, open_readonly
from alloop_db.lock import CampaignLock, holder
from alloop_db.queries import run
from alloop_db.store import ConfigRecord, Store
from tests.ledger_rows import NUMBERS, REST, digest
from tests.ledger_sample import write_sample
from tests.ledger_tiers import PAID, add_tier

VOID = {"meta", "img", "br", "hr", "link"}
NASTY = """<b>wa"ter'</b> & <script>alert("x")</script>"""
SCORES = {
    "ensemble": {
        "bond": 0.0123456, "angle": 0.0234567, "bond_end": 0.03, "angle_end": 0.04,
        "bond_rate": 0.0011, "angle_rate": 0.0012, "bond_rate_end": 0.0021,
        "angle_rate_end": 0.0022, "rmsd_end": 0.0456789,
    },
    "member": {"bond": 0.0222, "angle": 0.0333, "bond_end": 0.05, "angle_end": 0.06},
    "ballistic": {"bond": 0.444, "angle": 0.555, "bond_end": 0.6, "angle_end": 0.7},
}  # fmt: skip
METRICS = {
    "test": {"n_trajectories": 3, "n_segments": 77, **SCORES},
    "left_out": {"contact": 2, "<i>torn</i>": 1},
    "gate": {"promoted": False, "reason": "<u>worse</u> by half", "ratio": 1.5},
    "probe": {"energy_drift": 0.00321},
}


class Page(HTMLParser):
    """A page in pieces; refuses tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        self.addresses += [
            given[name] for name in ("src", "href", "data", "srcset") if name in given
        ]
        assert not any(name.startswith("on") for name in given)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] == "caption":
            self.captions[-1] += data

    def table(self, *heads: str) -> list[dict[str, str]]:
        """Return the rows of the one table that has all of these columns."""
        (found,) = [rows for rows in self.tables if set(heads) <= set(rows[0])]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]

    def pictures(self) -> list[bytes]:
        start = "data:image/png;base64,"
        found = [a.removeprefix(start) for a in self.addresses if a.startswith(start)]
        return [base64.b64decode(data, validate=True) for data in found]


def number(text: str) -> float | None:
    return None if text == "–" else float(text)


def close(value: float | None):
    """Return what equals a number that was shown with four digits."""
    return value if value is None else pytest.approx(value, rel=5.1e-4)


OPEN = ("DROP TRIGGER IF EXISTS spacetime_model_update", ())
"""What lets a test write other 4D models into the sample."""
UNTESTED = (OPEN, ("UPDATE spacetime_model SET metrics = '{}'", ()))
"""4D models that no trajectory was left to test on."""


def change(directory: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    engine = open_ledger(directory, create=False)
    with engine.begin() as connection:
        for sql, values in statements:
            connection.exec_driver_sql(sql, values)
    engine.dispose()


def read(directory: Path) -> Page:
    return Page(write_report(directory).read_text(encoding="utf-8"))


def alloop_says(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    folder = write_sample(tmp_path_factory.mktemp("campaign"))
    change(
        folder,
        ("UPDATE campaign SET name = ?, verdict = ?", (NASTY, f"converged: {NASTY}")),
        ("UPDATE system SET name = ?", (NASTY,)),
        ("UPDATE config_version SET source = ?", (f"name: {NASTY}\n",)),
        (
            "UPDATE config_version SET resolved = ?",
            (json.dumps({"target": {"force_rmse": "250 meV/A"}}),),
        ),
        ("UPDATE trajectory SET route = ?, temperature = 100 * trajectory_id", (NASTY,)),
        ("UPDATE label_attempt SET error_text = ? WHERE status = 'failed'", (NASTY,)),
        ("UPDATE environment SET host = ?", (NASTY,)),
        OPEN,
        ("UPDATE spacetime_model SET metrics = ?, reason = ?", (json.dumps(METRICS), NASTY)),
        ("DELETE FROM spacetime_exclusion", ()),
        ("INSERT INTO spacetime_exclusion VALUES (1, 2, ?)", (NASTY,)),
    )
    return folder


@pytest.fixture(scope="module")
def page(directory: Path) -> Page:
    return read(directory)


@pytest.fixture
def ask(directory: Path):
    engine = open_readonly(directory)

    def rows(question: str) -> list[dict[str, object]]:
        result = run(engine, question)
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

    yield rows
    engine.dispose()


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert page.addresses
    assert all(address.startswith(("#s", "data:image/png;base64,")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "b", "i", "u", "base"}
    assert len(page.pictures()) == 4
    assert all(data.startswith(b"\x89PNG") for data in page.pictures())


def test_what_users_write_is_shown_as_they_wrote_it(page, directory):
    blanks = " ".join(NASTY.split())
    assert f"Campaign {blanks}" in page.text
    assert f"converged: {blanks}" in page.text
    assert page.table("system", "charge / e")[0]["system"] == NASTY
    assert {row["route"] for row in page.table("route", "completed")} == {NASTY}
    assert page.table("host", "packages")[0]["host"] == NASTY
    assert NASTY in [row["example"] for row in page.table("code", "example")]
    assert f"name: {blanks}" in page.text
    assert NASTY not in write_report(directory).read_text(encoding="utf-8")


def test_the_learning_curve_is_that_of_the_ledger(page, ask):
    shown, known = page.table("n labels", "audit force rmse"), ask("learning_curve")
    assert len(shown) == len(known) == 2
    for row, truth in zip(shown, known, strict=True):
        assert set(row) == {name.replace("_", " ") for name in truth}
        for name, value in truth.items():
            shown_as = row[name.replace("_", " ")]
            assert (shown_as == value) if isinstance(value, str) else number(
                shown_as
            ) == close(value)  # fmt: skip


def test_generations_are_those_of_the_ledger(page, ask):
    shown = page.table("generation", "audit force RMSE")
    known = ask(
        "SELECT g.number, count(l.label_id) AS labels, sum(l.status = 'failed') AS failed,"
        " (SELECT n_labels FROM snapshot s WHERE s.generation_id = g.generation_id) AS trained"
        " FROM generation g LEFT JOIN label l USING (generation_id) GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(int(v) for v in list(row.values())[:4]) for row in shown] == [
        tuple(row.values()) for row in known
    ]
    assert shown[1]["failed"] == "1"
    (audit,) = ask("SELECT * FROM evaluation WHERE kind = 'audit' AND generation_id = 2")
    assert shown[1]["audit force RMSE"] == "{:.3f} [{:.3f}, {:.3f}] eV/Å".format(
        *(audit[name] for name in ("force_rmse", "force_low", "force_high"))
    )
    assert number(shown[1]["within the bound"]) == close(0.93)


def test_labels_and_their_failures_are_counted(page, ask):
    counts = ask("SELECT status, count(*) AS n FROM label GROUP BY status")
    words = ", ".join(f"{row['n']} {row['status']}" for row in counts)
    assert f"Labels: {words}." in page.text
    shown, known = page.table("code", "example"), ask("failures")
    assert [(row["kind"], row["code"], int(row["n"])) for row in shown] == [
        (row["kind"], row["code"], row["n"]) for row in known
    ]
    assert ("label", "scf_not_converged", 4) in [
        (row["kind"], row["code"], int(row["n"])) for row in shown
    ]


def test_decisions_are_counted_by_generation(page, ask):
    shown = page.table("decision", "rule")
    for truth in ask("decisions"):
        (row,) = [
            r for r in shown if (r["decision"], r["rule"]) == (truth["action"], truth["rule"])
        ]
        assert int(row[f"generation {truth['generation']}"]) == truth["n"]
    n_shown = sum(int(v) for r in shown for v in list(r.values())[2:] if v != "–")
    assert n_shown == ask("SELECT count(*) AS n FROM decision")[0]["n"] == 12


def test_time_is_summed_by_kind_of_task(page, ask):
    shown = {row["task"]: row for row in page.table("task", "processor s")}
    known = ask(
        "SELECT kind, count(*) AS n, sum(seconds) AS s, sum(cpu_seconds) AS cpu, sum(tries) AS t"
        " FROM task WHERE status = 'done' GROUP BY kind"
    )
    assert set(shown) == {row["kind"] for row in known}
    for row in known:
        cells = shown[row["kind"]]
        assert int(cells["finished"]) == row["n"]
        assert int(cells["failed tries"]) == row["t"]
        assert number(cells["s"]) == close(row["s"])
        assert number(cells["processor s"]) == close(row["cpu"])
    assert shown["label"]["s"] == "20"
    assert page.table("generation", "train", "label")[1]["label"] == "10"


def test_the_timeline_has_every_task_and_its_share_of_the_workers(page, ask):
    shown, known = page.table("wait seconds", "core hours"), ask("utilisation")
    assert [row["task"] for row in ask("SELECT count(*) AS task FROM task")] == [12]
    assert "12 tasks, a bar for each" in page.text
    assert [(row["tier"], row["kind"]) for row in shown] == [
        (row["tier"] or "–", row["kind"]) for row in known
    ]
    for row, truth in zip(shown, known, strict=True):
        assert number(row["core hours"]) == close(truth["core_hours"])
        assert number(row["percent"]) == close(truth["percent"])
    assert "Time of all workers, 1 (most at once)" in page.text


_ALLOOP = (
    "import signal; from alloop.cli.main import main;"
    # A shell that runs the tests in its background has them, and all below, ignore it.
    "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
)


class Watching:
    """A real ``alloop status --watch`` of a campaign that this process drives."""

    def __init__(self, folder: Path, **more: object) -> None:
        words = [sys.executable, "-c", _ALLOOP, "status", "--watch", "0.2", "-c", str(folder)]
        self.process = subprocess.Popen(words, text=True, stderr=subprocess.STDOUT, **more)

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def running_sample(folder: Path) -> Path:
    write_sample(folder)
    change(folder, ("UPDATE campaign SET state = 'running', verdict = NULL, exit_code = NULL", ()))
    return folder


def test_a_campaign_of_another_process_is_watched_to_its_end(tmp_path):
    folder = running_sample(tmp_path)
    with Watching(folder, stdout=subprocess.PIPE) as watcher:
        with CampaignLock(folder):
            first = watcher.stdout.readline()
            assert "water: running; generation 1 of tier xtb; labels 9 done, 1 failed;" in first
            change(folder, ("UPDATE task SET status = 'running' WHERE task_id = 14", ()))
            taken = folder / "outbox" / f"{digest('task', 14)}.running"
            taken.parent.mkdir()
            taken.write_text("1")
            while "at work 1 score" not in (line := watcher.stdout.readline()):
                assert line  # it was looked at between the two changes
            change(folder, ("UPDATE campaign SET verdict = 'budget spent', state = 'budget'", ()))
            assert watcher.stdout.readline().endswith("; budget spent\n")
            assert watcher.poll() is None  # its driver still lives
        assert "budget, nobody drives it" in watcher.communicate(timeout=30)[0]
        assert watcher.returncode == 0


def test_ctrl_c_ends_the_watching_only(tmp_path):
    folder = running_sample(tmp_path)
    terminal, screen = pty.openpty()
    with CampaignLock(folder), Watching(folder, stdout=screen) as watcher:
        os.close(screen)
        shown = ""
        while shown.count("read at") < 2:  # drawn, and drawn again
            assert select.select([terminal], [], [], 30.0)[0], shown
            shown += os.read(terminal, 65536).decode()
        watcher.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(terminal, 65536).decode():
                shown += more
        assert watcher.wait(timeout=30) == 0
        assert holder(folder) is not None
    os.close(terminal)
    assert "label: 2 done" in shown
    assert "Traceback" not in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("words", [("--watch", "--json"), ("5",), ("--watch", "0")])
def test_a_watch_that_makes_no_sense_is_refused(directory, words):
    outcome = alloop_says("status", "-c", directory, *words)
    assert outcome.exit_code == 2


def test_trajectories_say_how_they_ended(page, ask):
    (row,) = page.table("route", "completed")
    (all_of_them,) = ask(
        "SELECT count(*) AS n, sum(duration) / 1000 AS ps, sum(reason = 'completed') AS completed"
        " FROM trajectory"
    )
    assert int(row["trajectories"]) == all_of_them["n"] > 1
    assert int(row["completed"]) == all_of_them["completed"] == all_of_them["n"] - 1
    assert number(row["ps"]) == close(all_of_them["ps"])
    assert (row["ended early"], row["temperatures / K"]) == ("1 contact", "100, 200, 300")


def test_the_calibration_is_that_of_the_ledger(page, ask):
    shown, known = page.table("estimator", "alpha"), ask("calibration")
    assert [number(row["alpha"]) for row in shown] == [row["alpha"] for row in known] == [1.6, 1.6]
    labelled = len([row for row in ask("spread_and_error") if row["force_rmse"]])
    assert f"{labelled} frames that were predicted before they were labelled" in page.text


def test_the_4d_model_has_its_errors_gate_and_probes(page, ask):
    whole, ends = [rows for rows in page.tables if "segments" in rows[0]]
    by_who = {row[4]: dict(zip(whole[0], row, strict=True)) for row in whole[1:4]}
    assert {(row["model"], row["generation"]) for row in by_who.values()} == {("1", "1")}
    for who, name in (
        ("ensemble", "ensemble"), ("one network", "member"), ("uniform motion", "ballistic"),
    ):  # fmt: skip
        assert (by_who[who]["trajectories"], by_who[who]["segments"]) == ("3", "77")
        for head, score in (("bond / Å", "bond"), ("angle / rad", "angle")):
            assert number(by_who[who][head]) == close(SCORES[name][score])
    assert number(by_who["ensemble"]["angle rate / rad/fs"]) == 0.0012
    assert by_who["one network"]["angle rate / rad/fs"] == "–"
    assert number(dict(zip(ends[0], ends[1], strict=True))["rmsd / Å"]) == close(0.0456789)
    assert page.table("promoted", "ratio")[0] == {
        "model": "1", "generation": "1", "promoted": "no", "reason": "<u>worse</u> by half",
        "ratio": "1.5",
    }  # fmt: skip
    assert number(page.table("energy drift")[0]["energy drift"]) == 0.00321


def test_4d_models_have_their_judgement_and_trajectories(page, ask):
    shown, known = page.table("status", "n flagged"), ask("spacetime_models")
    assert len(known) == 2
    for row, truth in zip(shown, known, strict=True):
        assert (row["status"], row["reason"]) == (truth["status"], NASTY)
        assert number(row["n flagged"]) == truth["n_flagged"]
    used = [truth for truth in known if truth["status"] == "promoted"][-1]
    assert f"In use: model {used['spacetime_model_id']}, to 10 fs" in page.text
    assert used["sha256"] in page.text
    made_of = {row["model"]: row for row in page.table("left out, and why")}
    for row in ask("SELECT spacetime_model_id, s.split AS split, count(*) AS n,"
                   " sum(duration) / 1000 AS ps"
                   " FROM spacetime_trajectory s JOIN trajectory USING (trajectory_id)"
                   " GROUP BY 1, s.split"):  # fmt: skip
        cells = made_of[str(row["spacetime_model_id"])]
        assert int(cells[row["split"]]) == row["n"]
        assert number(cells[f"{row['split']}, ps"]) == close(row["ps"])
    assert made_of["1"]["validation"] == "0"
    assert made_of["1"]["left out, and why"] == f"1 {NASTY}"
    assert made_of["2"]["left out, and why"] == "2 contact, 1 <i>torn</i>"
    numbers = ask("SELECT trajectory_id AS t FROM spacetime_trajectory"
                  " WHERE spacetime_model_id = 2 AND split = 'train'")  # fmt: skip
    listed = ranges([row["t"] for row in numbers])
    assert f"Trajectories of model 2, train: {listed}." in page.text


def test_a_4d_model_that_could_not_be_tested_is_said_so(tmp_path):
    folder = write_sample(tmp_path)
    change(folder, OPEN, ("UPDATE spacetime_model SET metrics = '{}'", ()))
    page = read(folder)
    assert "No trajectory was left to test it on." in page.text
    assert len(page.pictures()) == 3


def test_several_4d_models_are_told_apart(tmp_path):
    folder = write_sample(tmp_path)
    later = {"gate": {"promoted": True, "against": 1}, "test": None}
    change(
        folder,
        OPEN,
        ("UPDATE spacetime_model SET metrics = ?, status = 'promoted'", (json.dumps(METRICS),)),
        (
            "UPDATE spacetime_model SET metrics = ?, cutoff = 7.5 WHERE spacetime_model_id = 2",
            (json.dumps(later),),
        ),
    )
    page = read(folder)
    gates = page.table("promoted", "against")
    assert [(g["model"], g["promoted"], g["reason"], g["against"]) for g in gates] == [
        ("1", "no", "<u>worse</u> by half", "–"),
        ("2", "yes", "–", "1"),
    ]
    assert "In use: model 2, to 7.5 fs" in page.text


def test_a_ledger_of_the_first_alloop_still_has_a_report(tmp_path):
    old = Path(__file__).parents[1] / "regression" / "ledgers" / "0001.sqlite"
    (tmp_path / LEDGER).write_bytes(old.read_bytes())
    page = read(tmp_path)
    assert "In use: model 1, to 10 fs" in page.text
    assert (tmp_path / LEDGER).read_bytes() == old.read_bytes()


def fresh(directory: Path) -> Path:
    """Make a campaign as ``start`` does, before anything has run."""
    engine = open_ledger(directory, create=True)
    store = Store(engine, ArtifactStore(directory / "artifacts"))
    store.create(
        name="new",
        seed=1,
        version=alloop.__version__,
        systems={"water": Frame(numbers=NUMBERS, positions=REST)},
        methods={"xtb": {"engine": "tblite", "model": "GFN2-xTB"}},
    )
    store.begin_epoch(ConfigRecord("0" * 64, "schema: 1\n", '{"schema":1}'), [])
    engine.dispose()
    return directory


def test_a_campaign_that_has_just_begun_has_a_report(tmp_path):
    page = read(fresh(tmp_path))
    assert page.pictures() == []
    assert "no verdict yet: running, nobody drives it" in page.text
    for words in ("No committee has been judged", "No task has been finished yet", "Labels: none"):
        assert words in page.text
    assert page.table("system", "formula")[0]["formula"] == "H2O"


def test_a_ledger_without_a_campaign_is_refused_in_one_line(tmp_path):
    open_ledger(tmp_path, create=True).dispose()
    with pytest.raises(LedgerError, match="still empty; `alloop start` fills it"):
        write_report(tmp_path)
    with pytest.raises(LedgerError, match="there is no ledger"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "report.html").exists()


def test_a_campaign_that_runs_is_read_without_disturbing_it(tmp_path):
    folder = write_sample(tmp_path)
    change(folder, ("UPDATE campaign SET state = 'running', verdict = NULL, exit_code = NULL", ()))
    engine = open_ledger(folder, create=False)
    with CampaignLock(folder), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE campaign SET seed = 4711")  # not committed yet
        page = read(folder)
        connection.exec_driver_sql("UPDATE campaign SET seed = 4712")
    engine.dispose()
    assert "no verdict yet: running, driven by" in page.text
    assert "went on while this page was written" in page.text
    assert "4711" not in page.text
    assert "4712" in read(folder).text


def test_the_verb_writes_where_it_is_told(directory, tmp_path):
    before = (directory / LEDGER).read_bytes()
    outcome = alloop_says("report", "-c", directory, "-o", tmp_path / "one" / "page.html")
    assert outcome.exit_code == 0, outcome.output
    assert str(tmp_path / "one" / "page.html") in outcome.output.replace("\n", "")
    Page((tmp_path / "one" / "page.html").read_text(encoding="utf-8"))
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["page.html"]
    assert (directory / LEDGER).read_bytes() == before
    with pytest.raises(DataError, match="is a folder"):
        write_report(directory, tmp_path)


def two_tiers(folder: Path, *, forces: bool = True) -> Path:
    """Return the sample with a whole second tier, whose price somebody is to approve."""
    tiers = [
        {"id": "xtb", "budget": {"labels": 100, "core_time": None}, "target": None},
        {
            "id": "dft",
            "budget": {"labels": 20, "core_time": "2 h"},
            "target": {"force_rmse": "50 meV/A", "energy_rmse": "2 meV/atom"},
            "escalate": {"approve": True},
        },
    ]
    resolved = {"target": {"force_rmse": "0.25 eV/A", "energy_rmse": None}, "tiers": tiers}
    engine = open_ledger(write_sample(folder), create=False)
    add_tier(engine, forces=forces)
    engine.dispose()
    change(
        folder,
        ("UPDATE config_version SET resolved = ?", (json.dumps(resolved),)),
        ("UPDATE campaign SET state = 'paused'", ()),
        *UNTESTED,
    )
    return folder


@pytest.fixture(scope="module")
def laddered(tmp_path_factory) -> tuple[Path, Page, list[tuple[object, ...]]]:
    """Return a campaign with two tiers, its page, and what its learning curves were drawn from."""
    return drawn(two_tiers(tmp_path_factory.mktemp("ladder")))


def drawn(folder: Path) -> tuple[Path, Page, list[tuple[object, ...]]]:
    given, draw = [], plots.learning_curve
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "learning_curve", lambda *all_: given.append(all_) or draw(*all_))
        return folder, read(folder), given


def test_one_tier_is_not_told_apart(tmp_path):
    folder = write_sample(tmp_path)
    change(
        folder,
        ("DELETE FROM promotion", ()),
        ("DELETE FROM mode_score", ()),
        ("DELETE FROM level_of_theory WHERE level_of_theory_id = 2", ()),
        *UNTESTED,
    )
    page = read(folder)
    assert "Tiers" not in page.text
    for table in page.tables:
        if "audit force rmse" in table[0] or "example" in table[0] or "estimator" in table[0]:
            assert not {"tier", "mode", "level of theory"} & set(table[0])
    assert "tier" not in page.table("generation", "audit force RMSE")[0]
    words = status_words(folder)
    assert "tier" not in words
    assert "best mode" not in words


def test_each_tier_has_its_curve_and_target(laddered):
    _, page, given = laddered
    (lower, lower_target), (upper, upper_target) = given
    assert (lower_target, upper_target) == (0.25, 0.05)
    assert [point.error for point in lower["audit: frames drawn at random"]] == [0.4, 0.2]
    (points,) = upper.values()
    assert points == [plots.Point(3, e, 0.9 * e, 1.1 * e) for e in (0.1, 0.04)]
    assert "Tier dft, wB97X/6-31G*. Root-mean-square error of a force component" in page.text
    assert len(page.pictures()) == 5  # learning, spread and error, for each tier; the timeline
    assert "Tier dft, wB97X/6-31G*: 1 frames that were predicted" in page.text
    assert "Tier xtb, GFN2-xTB: 5 frames that were predicted" in page.text


def test_tiers_have_their_price_rounds_and_modes(laddered):
    page = laddered[1]
    lower, upper = page.table("s a label", "target")
    assert (lower["labels"], lower["given up"], lower["budget"]) == ("9", "1", "100")
    assert (upper["labels"], upper["given up"], upper["budget"]) == ("4", "1", "20")
    assert number(upper["s a label"]) == close(5 * PAID / 4)
    assert number(upper["core-hours"]) == close(5 * PAID / 3600)
    assert upper["budget, core-hours"] == "2"
    assert upper["audit error"] == "0.040 [0.036, 0.044] eV/Å"
    assert upper["target"] == "0.050 eV/Å, 2.00 meV/atom"
    first, second = page.table("to tier", "core-hours paid")
    assert (first["core-hours expected"], first["error before"]) == ("–", "–")
    assert second["core-hours expected"] == "0.0111 [0.00833, 0.0153]"
    assert (second["error before"], second["error after"]) == ("100.0 meV/Å", "40.0 meV/Å")
    bought = (
        "1 labels at wB97X/6-31G* (0.01 core-hours) bought 6e+03 meV/Å per core-hour: the audit"
        " force error fell from 100 to 40 meV/Å."
    )
    assert bought in page.text
    modes = page.table("mode", "kept")
    assert [(row["generation"], row["mode"], row["kept"]) for row in modes] == [
        ("2", "delta", "yes"), ("2", "finetune", "no"), ("3", "delta", "yes"),
        ("3", "finetune", "no"),
    ]  # fmt: skip
    assert "Best mode in generation 3: delta, 40.0 meV/Å on 2 audit frames" in page.text


def test_what_programs_say_of_labels_has_its_worst_frame(laddered):
    gap, t1 = laddered[1].table("diagnostic", "worst frame")
    assert (gap["diagnostic"], gap["frames"], gap["worst frame"]) == ("gap", "4", "11")
    assert (gap["least"], gap["median"], gap["largest"]) == ("-1", "3.5", "9")
    assert (t1["diagnostic"], t1["worst frame"], t1["largest"]) == ("t1", "11", "0.011")


def test_a_method_without_forces_is_judged_by_energies(tmp_path):
    folder, page, given = drawn(two_tiers(tmp_path, forces=False))
    curves, target, quantity = given[-1]
    assert (target, quantity) == (2.0, "energy RMSE / meV/atom")
    (points,) = curves.values()
    assert [point.error for point in points] == pytest.approx([4 / 3, 1.0])
    assert page.table("s a label", "target")[1]["audit error"] == "1.00 meV/atom"
    assert "the audit energy error fell from 1.33 to 1 meV/atom" in page.text
    assert "1.00 meV/atom, target 2.00 meV/atom" in status_words(folder)


def status_words(folder: Path) -> str:
    outcome = alloop_says("status", "-c", folder)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_status_tells_each_tier(laddered):
    words = status_words(laddered[0]).splitlines()
    for line in (
        "generation 3 of tier dft, 120 s of wall time",
        "  xtb (GFN2-xTB): 9 done, 1 failed, 0 to go of 100; 0.0035 core-hours (1.4 s a label);"
        " audit 0.200 [0.160, 0.240] eV/Å, target 0.250 eV/Å",
        "  dft (wB97X/6-31G*): 4 done, 1 failed, 0 to go of 20; 0.05 of 2 core-hours (45 s a"
        " label); audit 0.040 [0.036, 0.044] eV/Å, target 0.050 eV/Å",
        "best mode in generation 3: delta, 40.0 meV/Å on 2 audit frames; errors of the others as"
        " multiples of that: finetune 1.5",
    ):
        assert line in words
    table = [line.split() for line in words if line.startswith("         ")]
    # Trained on: labels of the generation's own tier.
    assert [(row[3], row[-1]) for row in table] == [
        ("4", "xtb"), ("7", "xtb"), ("3", "dft"), ("3", "dft"),
    ]  # fmt: skip
    assert not any("waiting" in line for line in words)  # no label is pending


def test_status_asks_for_approval_until_it_is_given(tmp_path):
    folder = two_tiers(tmp_path)
    pending = (
        "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
        " VALUES (?, 2, 4, 'pending', 0)"
    )
    change(folder, (pending, (2,)), (pending, (3,)))
    asked = "waiting for approval: 2 labels of tier dft for about 0.0111 [0.00833, 0.0153] core-"
    assert asked in status_words(folder)
    assert asked[1:] in read(folder).text
    told = json.loads(alloop_says("status", "-c", folder, "--json").output)
    assert (told["approval"]["tier"], told["approval"]["labels"]) == ("dft", 2)
    assert told["tier"] == "dft"
    assert [tier["to_go"] for tier in told["tiers"]] == [0, 2]
    assert told["modes"][0]["mode"] == "delta"

    change(folder, ("UPDATE campaign SET state = 'running'", ()))
    assert "waiting" not in status_words(folder)
    approved = "INSERT INTO event (at, kind, text, details) VALUES ('x', 'approval', 'x', ?)"
    change(
        folder,
        ("UPDATE campaign SET state = 'paused'", ()),
        (approved, (json.dumps({"generation": 2}),)),  # of another round
    )
    assert asked in status_words(folder)
    change(folder, (approved, (json.dumps({"generation": 3}),)))
    assert "waiting" not in status_words(folder)


def test_a_price_that_was_unknown_is_that_of_the_labels_made(tmp_path):
    folder = two_tiers(tmp_path)
    change(
        folder,
        ("DROP TRIGGER promotion_update", ()),
        ("UPDATE promotion SET seconds = NULL, seconds_low = NULL, seconds_high = NULL", ()),
        (
            "INSERT INTO label (frame_id, level_of_theory_id, generation_id, status, tries)"
            " VALUES (2, 2, 4, 'pending', 0)",
            (),
        ),
    )
    assert "1 labels of tier dft for about 0.0125 core-hours" in status_words(folder)  # 45 s


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Return a function that lets ``alloop start`` come to its verdict at once."""
    (tmp_path / "water.xyz").write_text(
        "3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
    )
    written = alloop_says("init", tmp_path / "water.xyz", "-o", tmp_path / "config.yaml")
    assert written.exit_code == 0, written.output
    write_sample(tmp_path / "runs" / "water")
    verdict = Verdict("budget", "budget spent")
    monkeypatch.setattr(alloop.campaign.start, "start", lambda *_, **__: verdict)
    return lambda: alloop_says("start", tmp_path / "config.yaml")


def test_a_campaign_ends_with_a_report(started, tmp_path):
    outcome = started()
    assert outcome.exit_code == 3
    assert "report: " in outcome.output
    assert "Campaign water" in Page((tmp_path / "runs/water/report.html").read_text()).text


@pytest.mark.parametrize("fault", [RuntimeError("no\nroom"), KeyboardInterrupt()])
def test_a_report_that_fails_changes_no_verdict(started, monkeypatch, fault):
    def fail(*_):
        raise fault

    monkeypatch.setattr("alloop.report.html.write_report", fail)
    outcome = started()
    assert outcome.exit_code == 3
    warnings = [line for line in outcome.output.splitlines() if "no report" in line]
    assert warnings == [f"warning: no report was written: {type(fault).__name__}"
                        + " no room" * isinstance(fault, RuntimeError)]  # fmt: skip
    assert "more: alloop status" in outcome.output


def test_the_learning_curve_shows_points_intervals_and_target():
    known = [plots.Point(10, 0.4, 0.3, 0.6), plots.Point(20, 0.2, 0.1, math.inf)]
    broken = [plots.Point(30, math.nan, None, None), plots.Point(40, 0.0, None, None)]
    figure = plots.learning_curve({"audit": known + broken}, target=0.05)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["audit"].get_xdata()) == [10, 20]
    assert list(lines["audit"].get_ydata()) == [0.4, 0.2]
    assert list(lines["target"].get_ydata()) == [0.05, 0.05]
    (bars,) = [c for c in axes.containers if c.has_yerr]
    assert [tuple(ends[:, 1]) for ends in bars[2][0].get_segments()] == [pytest.approx((0.3, 0.6))]
    open_markers = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in open_markers] == [[20]]
    assert plots.png(figure).startswith(b"\x89PNG")
    assert axes.get_ylim() == pytest.approx((0.05 / 1.3, 0.6 * 1.3))


def test_an_interval_without_evidence_does_not_flatten_the_learning_curve():
    points = [plots.Point(10, 0.4, 1e-9, 1e300), plots.Point(20, 0.2, 0.2, 0.2)]
    axes = plots.learning_curve({"audit": points}).axes[0]
    assert axes.get_ylim() == pytest.approx((0.002 / 1.3, 40.0 * 1.3))


def test_the_calibration_plot_leaves_out_what_has_no_place():
    seen = [plots.Blind(0.1, 0.2, True), plots.Blind(0.4, 0.1, False), plots.Blind(0.2, 0.3, False)]
    broken = [plots.Blind(math.inf, 0.2, True), plots.Blind(0.3, math.nan, False)]
    figure = plots.calibration(seen + broken, expected=2.0, bound=math.inf)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"chosen (2)", "drawn at random (1)", "error to expect"}
    assert list(lines["error to expect"].get_ydata()) == pytest.approx([0.2, 0.8])
    assert list(lines["drawn at random (1)"].get_ydata()) == [0.2]


def test_the_plots_show_what_the_ledger_holds(directory, tmp_path, monkeypatch, ask):
    given = {}
    for draw in (plots.learning_curve, plots.calibration, plots.spacetime_errors):

        def listen(*values, draw=draw):
            given[draw.__name__] = values
            return draw(*values)

        monkeypatch.setattr(plots, draw.__name__, listen)
    write_report(directory, tmp_path / "page.html")
    curves, target = given["learning_curve"]
    assert target == 0.25  # 250 meV/Å
    audit, blind = curves.values()
    assert audit == [
        plots.Point(
            row["n_labels"], *(row[f"audit_force_{end}"] for end in ("rmse", "low", "high"))
        )
        for row in ask("learning_curve")
    ]
    assert [point.error for point in blind] == pytest.approx([0.6, 0.3])
    frames, *factors = given["calibration"]
    truth = ask("spread_and_error")
    assert [(frame.spread, frame.error) for frame in frames] == [
        (row["force_spread_max"], row["force_rmse"]) for row in truth
    ]
    assert [f.random for f in frames] == [row["split"] == "audit" for row in truth]
    assert factors == [1.6, 3.0]
    turns, panels = given["spacetime_errors"]
    assert list(turns) == [1, 1]
    assert panels["bond / Å"] == {
        name: [SCORES[who]["bond"]] * 2
        for name, who in (
            ("ensemble", "ensemble"), ("one network", "member"), ("uniform motion", "ballistic"),
        )
    }  # fmt: skip


def test_4d_errors_have_a_panel_for_each_kind():
    series = {"ensemble": [0.01, None], "uniform motion": [0.1, math.nan]}
    figure = plots.spacetime_errors([3, 6], {"bond / Å": series, "angle / rad": series})
    assert [axes.get_title() for axes in figure.axes] == ["bond / Å", "angle / rad"]
    (first, _) = figure.axes[0].lines
    assert list(first.get_xdata()) == [3, 6]
    assert first.get_ydata()[0] == 0.01
    assert math.isnan(first.get_ydata()[1])
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    # No two series look the same on paper without colour.
    assert len({(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}) == 2


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.011, 0.6, {"0.02", "0.05", "0.1", "0.5"}), (0.0011, 9e4, {"0.1", "10", "1000"})],
)
def test_logarithmic_axes_have_plain_numbers_that_do_not_overlap(low, high, shown):
    points = [plots.Point(10, low, None, None), plots.Point(20, high, None, None)]
    figure = plots.learning_curve({"audit": points})
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    labels = {text.get_text() for text in axis.get_majorticklabels()}
    assert shown <= labels
    bottom, top = figure.axes[0].get_ylim()
    assert 3 <= len([tick for tick in axis.get_majorticklocs() if bottom <= tick <= top]) <= 9
    assert {text.get_text() for text in axis.get_minorticklabels()} <= {""}


def test_runs_of_numbers_become_ranges():
    assert ranges([5, 1, 2, 3, 7, 8]) == "1-3, 5, 7-8"
    assert ranges([4]) == "4"
