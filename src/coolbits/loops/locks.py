"""One process a piece of long work: a lock that goes with the process that holds it, however that ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from coolbits.artifacts.errors import CoolbitsError

LOCK = "lock"
# What file systems say that have no locks: NFS without its daemon, many that run in user space, Lustre mounted without.
_LOCKLESS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, in which stands who holds it.

    Raises:
        CoolbitsError: if another process holds it, or the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        _take(lock, folder)
        lock.truncate(0)
        lock.write(_holder())
        lock.flush()
        # Another machine that shares the folder reads it, too.
        os.fsync(lock.fileno())
        yield


def demand_free(path: Path) -> None:
    """Demand that no process holds the lock at `path`.

    Raises:
        CoolbitsError: if one does, or the file system has no locks.
    """
    with path.open("a+") as lock:
        _take(lock, path)


def _holder() -> str:
    """Name this process so that a person finds it on a cluster."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{os.getpid()} on {socket.gethostname()}" + (f", SLURM job {job}," if job else "")


def _take(lock: TextIO, place: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise CoolbitsError(f"{place}: process {holder} works here now; wait for it, or stop it") from None
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise
        raise CoolbitsError(
            f"{place}: the file system cannot lock files ({os.strerror(error.errno)}), so two jobs could spoil each "
            "other's work; put results on one that can"
        ) from None
