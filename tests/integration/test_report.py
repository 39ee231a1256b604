"""The report: one page that needs nothing else, whose numbers are those of the ledger."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import alloop
import alloop.campaign.start
from alloop.artifacts import ArtifactStore
from alloop.campaign.verdict import Verdict
from alloop.errors import DataError, LedgerError
from alloop.frames import Frame
from alloop.report import plots
from alloop.report.html import write_report
from alloop.report.spacetime import ranges
from alloop_db.ledger import LEDGER, open_ledger, open_readonly
from alloop_db.lock import CampaignLock
from alloop_db.queries import run
from alloop_db.store import ConfigRecord, Store
from tests.ledger_rows import NUMBERS, REST
from tests.ledger_sample import write_sample
from tests.report_pages import OPEN, UNTESTED, Page, alloop_says, change, close, number, read

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
    change(folder, *UNTESTED)
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
