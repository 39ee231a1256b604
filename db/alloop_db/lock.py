"""One driver for each campaign: a lock that dies with its process, and a lease between hosts.

On one host the kernel's ``flock`` decides: it vanishes with the process, also on ``kill -9``. On
a network filesystem it may not reach other hosts, so there the owner also renews a heartbeat
file; a driver elsewhere is refused while that is fresh and takes over when it is stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil

from alloop.errors import LedgerBusyError, LedgerError
from alloop_db.filesystem import filesystem_of
from alloop_db.schema import now

LOCK = "lock"
HEARTBEAT = "heartbeat"
STALE_AFTER_S = 120.0
"""A heartbeat older than this belongs to a dead driver; NFS may show files up to 60 s late."""
RENEW_EVERY_S = 10.0
SETTLE_S = 2.0
"""How long a lease must stay ours after it was written, against two hosts that write at once."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Holder:
    """The driver that a lock file names.

    Attributes
    ----------
    host : host name.
    pid : process id there.
    boot : what tells one boot of the host from the next.
    process_started : start of the process, s since 1970: a pid may be used again.
    started_at : when it took the lock, ISO 8601.
    epoch : how many drivers have held the campaign, None before the ledger was read.
    token : unlike that of any other holder.

    """

    host: str
    pid: int
    boot: str
    process_started: float
    started_at: str
    epoch: int | None
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.started_at}"

    @property
    def runs_here(self) -> bool:
        """Whether this very process is alive on this host."""
        if (self.host, self.boot) != (socket.gethostname(), _boot()):
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started) < 2.0
        except psutil.NoSuchProcess:
            return False


class CampaignLock:
    """Context manager that holds a campaign for one driver.

    Entering raises LedgerBusyError, naming the owner, if another driver holds it, and
    LedgerError if the lock file cannot be written. ``note`` then tells of a takeover, if any.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.note: str | None = None
        self._holder = _this_process()
        self._descriptor: int | None = None
        self._lease: _Lease | None = None

    def __enter__(self) -> CampaignLock:
        network = filesystem_of(self.directory).network
        descriptor = _open(self.directory / LOCK)
        try:
            _flock(descriptor, self.directory, network)
            if network:
                self._lease = _Lease(self.directory, self._holder)
                self.note = self._lease.take()
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        # A child made by fork shares the lock: it would hold it on after a kill -9 of this driver.
        os.register_at_fork(after_in_child=self._forget)
        _write(descriptor, self._holder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is None:
            return
        if self._lease is not None:
            self._lease.release()
        os.ftruncate(self._descriptor, 0)
        self._forget()

    def announce(self, epoch: int) -> None:
        """Write the ledger's epoch of this driver into the lock file, for people."""
        if self._descriptor is None:
            raise LedgerError(f"campaign {self.directory} is not locked by this process")
        values = asdict(self._holder) | {"epoch": epoch}
        self._holder = Holder(**values)
        _write(self._descriptor, self._holder)

    def check(self) -> None:
        """Raise LedgerBusyError if a driver on another host has taken the campaign over."""
        if self._lease is not None and self._lease.lost_to is not None:
            raise LedgerBusyError(
                f"campaign {self.directory} was taken over by {self._lease.lost_to}, because this"
                f" driver gave no sign for {STALE_AFTER_S:.0f} s; what it committed is kept"
            )

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(directory: Path) -> Holder | None:
    """Return who drives a campaign now, without disturbing; None if nobody does.

    A driver on another host is believed while its heartbeat is fresh.
    """
    found = _read(directory / LOCK)
    return found if found is not None and _alive(found, _age(directory)) else None


class _Lease:
    """A heartbeat file that its owner renews from a thread."""

    def __init__(self, directory: Path, owner: Holder) -> None:
        self.path = directory / HEARTBEAT
        self.owner = owner
        self.lost_to: Holder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="alloop heartbeat", daemon=True)

    def take(self) -> str | None:
        """Take the lease and return what there is to say of a previous owner."""
        before, age = _read(self.path), _age(self.path.parent)
        if before is not None and _alive(before, age):
            raise _busy(self.path.parent, before, age)
        self._beat()
        time.sleep(SETTLE_S)
        winner = _read(self.path)
        if winner is not None and winner.token != self.owner.token:
            raise _busy(self.path.parent, winner)
        self._thread.start()
        if before is None:
            return None
        return f"took over from {before}, whose last sign of life was {age:.0f} s ago"

    def release(self) -> None:
        """Stop renewing and give the lease back, unless somebody else has it."""
        self._stop.set()
        self._thread.join()
        found = _read(self.path)
        if found is not None and found.token == self.owner.token:
            self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_EVERY_S):
            found = _read(self.path)
            if found is not None and found.token != self.owner.token:
                self.lost_to = found
                return
            # A server that is away for a moment is no loss: the next beat tries again.
            with contextlib.suppress(OSError):
                self._beat()

    def _beat(self) -> None:
        temporary = self.path.with_name(f".{HEARTBEAT}-{self.owner.token}")
        temporary.write_text(json.dumps(asdict(self.owner)))
        temporary.replace(self.path)


def _alive(owner: Holder, age: float) -> bool:
    if (owner.host, owner.boot) == (socket.gethostname(), _boot()):
        return owner.runs_here
    return age <= STALE_AFTER_S


def _age(directory: Path) -> float:
    """Return the age of the heartbeat, s; infinite if there is none."""
    try:
        beaten = (directory / HEARTBEAT).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return _clock(directory) - beaten


def _clock(directory: Path) -> float:
    """Return the time by the clock of the server that dates the files, s since 1970."""
    probe = directory / f".clock-{uuid.uuid4().hex}"
    try:
        probe.touch()
        instant = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()  # a reader who may not write here
    return instant


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LedgerError(
            f"campaign directory {path.parent} cannot be used: {error.strerror};"
            " make it writable or choose another `campaign.directory`"
        ) from error


def _flock(descriptor: int, directory: Path, network: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(directory, _read(directory / LOCK)) from None
    except OSError as error:
        if not (network and error.errno in _NO_LOCKS):
            raise LedgerError(
                f"campaign directory {directory} cannot be locked: {error.strerror}"
            ) from error


def _busy(directory: Path, owner: Holder | None, age: float | None = None) -> LedgerBusyError:
    remedy = "stop that one first (Ctrl-C, or `alloop pause`)"
    if age is not None:
        left = max(STALE_AFTER_S - age, 0.0)
        remedy += (
            f"; if it is dead, start again in {left:.0f} s (last sign of life {age:.0f} s ago)"
        )
    return LedgerBusyError(
        f"campaign {directory} is already driven by {owner or 'another process'}; {remedy}"
    )


def _this_process() -> Holder:
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        boot=_boot(),
        process_started=psutil.Process(pid).create_time(),
        started_at=now(),
        epoch=None,
        token=uuid.uuid4().hex,
    )


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _write(descriptor: int, owner: Holder) -> None:
    content = json.dumps(asdict(owner)).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # missing, empty, or caught while it was being written
