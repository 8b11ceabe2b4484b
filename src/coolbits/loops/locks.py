"""One process a piece of long work: a lock that goes with the process that holds it, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from coolbits.artifacts.errors import CoolbitsError

LOCK = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        CoolbitsError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        _take(lock, folder)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def demand_free(path: Path) -> None:
    """Demand that no process holds the lock at `path`.

    Raises:
        CoolbitsError: if one does.
    """
    with path.open("a+") as lock:
        _take(lock, path)


def _take(lock: TextIO, place: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise CoolbitsError(f"{place}: process {holder} works here now; wait for it, or stop it") from None
