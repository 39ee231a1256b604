"""The child process: reads jobs, one JSON line each, and answers each with one line.

Started by :mod:`alloop.reference.pyscf.process` as ``python -m alloop.reference.pyscf.child``. It
ends with its parent: a thread sees that the pipe is closed or that another process has become the
parent, removes the scratch folder and ends the process, whatever is being computed.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import signal
import sys
import threading
from typing import Any, Final

OUT_OF_MEMORY: Final = 75
"""Exit status of a process that used more memory than allowed."""

UNTOUCHED: Final = 8 * 1024**3
"""Address space, bytes, that each thread gets beside its memory: for gradients PySCF's integral
driver reserves 1.6 GB at a time, up to four times, and touches next to nothing of it.
"""

_POLL_S: Final = 0.2


def main() -> None:
    """Answer jobs until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Terminals and queues send them to all: the parent answers, and ends this process with it.
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what PySCF's compiled parts print is no reply
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(jobs, os.getppid()), daemon=True)
    reader.start()
    _prepare()
    while True:
        data = json.loads(jobs.get())
        reply, spent = _answer(data)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        if spent:
            _leave()


def _prepare() -> None:
    from pyscf import cc, dft, lib, mp, scf
    from pyscf.cc import ccsd_t, ccsd_t_lambda
    from pyscf.grad import ccsd, mp2, rks, uks

    # Loaded now, so that they do not count against the memory of the first job.
    del cc, dft, mp, scf, ccsd_t, ccsd_t_lambda, ccsd, mp2, rks, uks
    lib.num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _answer(data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the reply, and whether the process is worth nothing after it."""
    from alloop.reference.pyscf.job import Job
    from alloop.reference.pyscf.single_point import answer

    job = Job.from_json(data)
    limit_memory(job.options.memory)
    try:
        reply = answer(job)
    except MemoryError as error:
        words = f"MemoryError: {error}" if str(error) else "MemoryError"
        limit = f"limit {job.options.memory:g} MB"
        return {"code": "out_of_memory", "words": f"{words} ({limit})"}, True
    return reply, reply.get("code") == "out_of_memory"


def limit_memory(megabytes: float) -> None:
    """Refuse single allocations that cannot fit, where the system can, and watch what is used."""
    import resource

    if _allowed or not sys.platform.startswith("linux"):
        return
    most = int(megabytes * 1024**2)
    space = _pages(0) + most + UNTOUCHED * int(os.environ["OMP_NUM_THREADS"])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or space < hard:
        resource.setrlimit(resource.RLIMIT_AS, (space, hard))
    _allowed.append(most)


_allowed: list[int] = []


def _pages(column: int) -> int:
    """Return bytes of address space (column 0) or of resident memory (column 1)."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  not a file of ours
        return int(file.read().split()[column]) * os.sysconf("SC_PAGE_SIZE")


def _check_memory() -> None:
    if _allowed and (used := _pages(1)) > _allowed[0]:
        mega = 1024**2
        words = f"PySCF uses {used / mega:.0f} MB, {_allowed[0] / mega:.0f} MB are allowed\n"
        os.write(2, words.encode())
        _leave(OUT_OF_MEMORY)


def _read(jobs: queue.SimpleQueue[str], parent: int) -> None:
    """Pass lines on; leave when nobody can send any more, or too much memory is used."""
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], _POLL_S)
        if os.getppid() != parent:  # a copy of the pipe may live on in another process
            _leave()
        _check_memory()
        if not ready:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            _leave()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            jobs.put(line.decode())


def _leave(status: int = 0) -> None:
    """End at once, from any thread, and leave no files."""
    shutil.rmtree(os.environ["PYSCF_TMPDIR"], ignore_errors=True)
    os._exit(status)


if __name__ == "__main__":
    main()
