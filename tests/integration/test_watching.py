"""``alloop status --watch``: it follows a campaign of another process and leaves it alone."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alloop_db.lock import CampaignLock, holder
from tests.ledger_rows import digest
from tests.ledger_sample import write_sample
from tests.report_pages import alloop_says, change

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
def test_a_watch_that_makes_no_sense_is_refused(tmp_path, words):
    outcome = alloop_says("status", "-c", write_sample(tmp_path), *words)
    assert outcome.exit_code == 2
