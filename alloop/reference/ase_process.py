"""An ASE calculator in a process of its own for each frame, killed when it takes too long.

With all that it has started: programs behind calculators hang, and neither compiled code nor a
program can be interrupted from within Python. Parent and child are both in this module; the child
is ``python -m alloop.reference.ase_process FOLDER PARENT``, with its job in the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alloop.errors import LabelError
from alloop.frames import Frame
from alloop.reference.engine import Answer, EngineError
from alloop.reference.failures import FailureCode

if TYPE_CHECKING:
    from alloop.reference.method import MethodSpec

LIMIT: Final = "max_seconds"
"""Option of a method: most time of a frame, s."""
_JOB, _REPLY, _WORDS = "job.json", "reply.json", "words"
_LAST_WORDS: Final = 400
_LOOK_EVERY_S: Final = 0.5


class LimitedSinglePoint:
    """Energy and forces by an ASE calculator, which gets ``seconds`` for a frame.

    Attributes
    ----------
    method : without the limit: what the child is to use.
    seconds : time after which the child, and all that it has started, is killed.

    """

    def __init__(self, method: MethodSpec, seconds: float) -> None:
        self.method, self.seconds = method, seconds

    def __call__(self, frame: Frame, attempt: int) -> Answer:
        """Compute in a fresh process; raise EngineError if that gives nothing."""
        job = {"method": self.method.to_json(), "attempt": attempt, "frame": _plain(frame)}
        with tempfile.TemporaryDirectory(prefix="alloop-ase-", ignore_cleanup_errors=True) as own:
            folder = Path(own)
            (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")
            self._run(folder)
            reply = json.loads((folder / _REPLY).read_text(encoding="utf-8"))
        if "code" in reply:
            raise EngineError(FailureCode(reply["code"]), reply["words"])
        return Answer(reply["energy"], np.array(reply["forces"], dtype=np.float64))

    def _run(self, folder: Path) -> None:
        path = os.pathsep.join(one for one in sys.path if one)
        # Not through pipes: a program that is left behind would keep them open.
        with (folder / _WORDS).open("wb") as words:
            # -P: a folder called ase where the worker happens to stand must not be imported.
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(folder), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        try:
            status = child.wait(self.seconds)
        except subprocess.TimeoutExpired:
            said = f"killed after {self.seconds:g} s, the most allowed (max_time)"
            raise EngineError(FailureCode.TIMEOUT, said) from None
        finally:
            _kill_group(child.pid)
            child.wait()
        if status != 0:
            said = (folder / _WORDS).read_text(encoding="utf-8", errors="replace")
            said = f"its process ended with {status}; {' '.join(said.split())[-_LAST_WORDS:]}"
            raise EngineError(FailureCode.ENGINE_ERROR, said)


def _plain(frame: Frame) -> dict[str, Any]:
    return {
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "charge": frame.charge,
        "multiplicity": frame.multiplicity,
        "cell": None if frame.cell is None else frame.cell.tolist(),
        "pbc": list(frame.pbc),
    }


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended, and so has all that it had started


# -- the child -----------------------------------------------------------------------------------


def main(folder: Path, parent: int) -> None:
    """Carry out the job in a folder, and end with the parent."""
    from alloop.reference.method import MethodSpec, build_reference

    threading.Thread(target=_follow, args=(folder, parent), daemon=True).start()
    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    given = job["frame"]
    frame = Frame(**given | {name: np.array(given[name]) for name in ("numbers", "positions")})
    reference = build_reference(
        MethodSpec.from_json(job["method"]), frame.numbers, frame.charge, frame.multiplicity
    )
    try:
        label = reference.label(frame, job["attempt"])
        reply = {"energy": label.energy, "forces": np.asarray(label.forces).tolist()}
    except LabelError as error:
        reply = {"code": error.code, "words": error.reason}
    (folder / _REPLY).write_text(json.dumps(reply), encoding="utf-8")


def _follow(folder: Path, parent: int) -> None:
    """End when the parent has died, and take along what was started."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
