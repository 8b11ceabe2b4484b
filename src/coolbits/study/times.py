"""Modification times: the workflow engine goes by them, and copying a folder mixes them up."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import time_ns

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST, read_manifest
from coolbits.artifacts.store import Store

_APART = 1000  # nanoseconds


def bring_back(jobs: Iterable[Job], root: Path) -> None:
    """Give files of the future the times just gone, in the order that they are in.

    A clock that was set back makes them. The workflow engine takes a job for failed that has just written what is older
    than its inputs.
    """
    now = time_ns()
    times = {path: _time(path) for job in jobs for path in _files(job, root)}
    ahead = {path: time for path, time in times.items() if time is not None and time > now}
    places = {time: place for place, time in enumerate(sorted(set(ahead.values()), reverse=True))}
    for path, time in ahead.items():
        _set_time(path, now - places[time] * _APART)


def put_in_order(job: Job, store: Store) -> None:
    """Give a job's files the time of its newest input where they look older, but are whole and made from just these.

    Jobs must come after those that they depend on. Nothing is opened unless times are out of order; what is damaged, or
    was made by other code or from other inputs, keeps its time.
    """
    inputs = {ref.directory(store.root) / MANIFEST for node in job.nodes for ref in node.parents.values()}
    made = [time for path in inputs if (time := _time(path)) is not None]
    newest = max(made, default=0)
    late = [path for path in _files(job, store.root) if (time := _time(path)) is not None and time < newest]
    if late and len(made) == len(inputs) and all(map(store.is_current, job.nodes)):
        for path in late:
            _set_time(path, newest)


def put_behind(path: Path, newer: Path) -> None:
    """Give a file a time before that of another one, which says that it is outdated."""
    moment, own = _time(newer), _time(path)
    if moment is not None and own is not None and own >= moment:
        _set_time(path, moment - _APART)


def put_pages_in_order(pages: dict[Path, Path]) -> None:
    """Give pages the time of the newest artifact that one of them is about, if some look older but none is.

    One that is about another artifact than the one that is there gets a time before that one's: of what was copied here
    times say nothing.

    Args:
        pages: the artifact's folder of each page, in which the digest of that artifact's manifest stands
    """
    digests = {page: _digest(directory) for page, directory in pages.items()}
    outdated = [page for page, digest in digests.items() if digest is not None and not says(page, digest)]
    for page in outdated:
        put_behind(page, pages[page] / MANIFEST)
    times = {page: _time(page) for page in pages}
    if outdated or None in digests.values() or None in times.values():
        return
    newest = max((time for directory in pages.values() if (time := _time(directory / MANIFEST)) is not None), default=0)
    for page, time in times.items():
        if time is not None and time < newest:
            _set_time(page, newest)


def _digest(directory: Path) -> str | None:
    try:
        return read_manifest(directory).digest
    except CoolbitsError:
        return None


def says(page: Path, digest: str) -> bool:
    """Whether a digest stands in a page, that of what the page is about; or the page is not there."""
    try:
        return digest in page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return True


def _time(path: Path) -> int | None:
    """Return a file's time, or None where there is none: another run may put something else there just now."""
    try:
        return path.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None


def _set_time(path: Path, moment: int) -> None:
    with suppress(OSError):  # what can only be read keeps its time
        os.utime(path, ns=(moment, moment))


def _files(job: Job, root: Path) -> Iterator[Path]:
    for node in job.nodes:
        directory = node.directory(root)
        if node.kind in ("figure", "claims"):
            with suppress(FileNotFoundError):
                yield from directory.glob("*")
        else:
            yield directory / MANIFEST
