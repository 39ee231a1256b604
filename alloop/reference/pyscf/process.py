"""The parent's side: a child process that is started when needed and replaced when it is lost."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from typing import IO, Any, Final

from alloop.reference.engine import EngineError
from alloop.reference.failures import FailureCode
from alloop.reference.pyscf.child import OUT_OF_MEMORY

CHILD: Final = "alloop.reference.pyscf.child"
_LAST_WORDS: Final = 400
_ALLOCATION: Final = re.compile(r"malloc\(\d+\) failed|MemoryError|bad_alloc")


class ChildProcess:
    """A process that answers one job at a time; it ends with this object, and with its parent."""

    def __init__(self) -> None:
        self._running: _Running | None = None

    def ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the reply to a job.

        Raises
        ------
        EngineError
            The process died (``out_of_memory``, ``engine_error``), or took longer than ``seconds``
            (``timeout``) and was killed. The next job gets a fresh one.

        """
        if self._running is None or not self._running.is_alive():
            self.close()
            self._running = _Running()
        try:
            reply = self._running.ask(job, seconds)
        except BaseException:
            self.close()  # also after an interruption: its reply would be taken for the next one's
            raise
        return reply

    @property
    def pid(self) -> int | None:
        """Process id while one is running."""
        return self._running.process.pid if self._running and self._running.is_alive() else None

    def close(self) -> None:
        """End the process, if there is one."""
        if self._running is not None:
            self._running.end()
            self._running = None


class _Running:
    """One life of the child."""

    def __init__(self) -> None:
        scratch = tempfile.mkdtemp(prefix="alloop-pyscf-")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        # -P: a folder called pyscf where the worker happens to stand must not be imported.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(scratch),
        )
        self.end = weakref.finalize(self, _end, self.process, self._errors, scratch)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        sent, received = self.process.stdin, self.process.stdout
        if sent is None or received is None:
            raise ValueError("the child process was started without pipes")
        try:
            sent.write(json.dumps(job).encode() + b"\n")
            sent.flush()
        except BrokenPipeError:
            raise self._death() from None
        line = b""
        while not line.endswith(b"\n"):
            if not _is_ready(received, until - time.monotonic()):
                words = f"killed after {seconds:g} s, the most allowed (max_seconds)"
                raise EngineError(FailureCode.TIMEOUT, words)
            chunk = os.read(received.fileno(), 1 << 20)
            if not chunk:
                raise self._death()
            line += chunk
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _death(self) -> EngineError:
        """Return why the process has died, in the words of the system and its own last ones."""
        code = self.process.wait()
        how = f"PySCF ended with status {code}"
        if code < 0:
            how = f"PySCF was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        self._errors.seek(0)
        words = " ".join(self._errors.read().decode(errors="replace").split())[-_LAST_WORDS:]
        memory = code in (-signal.SIGKILL, OUT_OF_MEMORY) or _ALLOCATION.search(words)
        kind = FailureCode.OUT_OF_MEMORY if memory else FailureCode.ENGINE_ERROR
        return EngineError(kind, f"{how}; {words}".rstrip("; "))


def _is_ready(stream: IO[bytes], seconds: float) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(0.0, 1000.0 * seconds)))


def _environment(scratch: str) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]  # "4,2" nests them
    return os.environ | {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYSCF_TMPDIR": scratch,
        "PYSCF_CONFIG_FILE": os.devnull,  # a user's own defaults would change what a level means
    }


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], scratch: str) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:  # what was still to be sent, nobody reads any more
                continue
    shutil.rmtree(scratch, ignore_errors=True)
