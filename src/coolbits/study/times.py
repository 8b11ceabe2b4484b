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
    ahead = {path: time for job in jobs for path in _files(job, root) if (time := _time(path)) > now}
    places = {time: place for place, time in enumerate(sorted(set(ahead.values()), reverse=True))}
    for path, time in ahead.items():
        _set_time(path, now - places[time] * _APART)


def put_in_order(job: Job, store: Store) -> None:
    """Give a job's files the time of its newest input where they look older, but are whole and made from just these.

    Jobs must come after those that they depend on. Nothing is opened unless times are out of order; what is damaged, or
    was made by other code or from other inputs, keeps its time.
    """
    inputs = {ref.directory(store.root) / MANIFEST for node in job.nodes for ref in node.parents.values()}
    newest = max((path.stat().st_mtime_ns for path in inputs if path.exists()), default=0)
    late = [path for path in _files(job, store.root) if path.exists() and path.stat().st_mtime_ns < newest]
    if late and all(path.exists() for path in inputs) and all(map(store.is_current, job.nodes)):
        for path in late:
            _set_time(path, newest)


def put_behind(path: Path, newer: Path) -> None:
    """Give a file a time before that of another one, which says that it is outdated."""
    moment = newer.stat().st_mtime_ns
    if path.stat().st_mtime_ns >= moment:
        _set_time(path, moment - _APART)


def put_pages_in_order(pages: dict[Path, Path]) -> None:
    """Give pages the time of the newest artifact that one of them is about, if some look older but none is.

    Args:
        pages: the artifact's folder of each page, in which the digest of that artifact's manifest stands
    """
    manifests = [directory / MANIFEST for directory in pages.values()]
    if not all(path.exists() for path in (*pages, *manifests)):
        return
    newest = max((path.stat().st_mtime_ns for path in manifests), default=0)
    late = [page for page in pages if page.stat().st_mtime_ns < newest]
    if late and all(_is_about(page, directory) for page, directory in pages.items()):
        for page in late:
            _set_time(page, newest)


def _is_about(page: Path, directory: Path) -> bool:
    try:
        return says(page, read_manifest(directory).digest)
    except CoolbitsError:
        return False


def says(page: Path, digest: str) -> bool:
    """Whether a digest stands in a page: that of what the page is about."""
    return digest in page.read_text(encoding="utf-8", errors="replace")


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _set_time(path: Path, moment: int) -> None:
    with suppress(OSError):  # what can only be read keeps its time
        os.utime(path, ns=(moment, moment))


def _files(job: Job, root: Path) -> Iterator[Path]:
    for node in job.nodes:
        directory = node.directory(root)
        yield from directory.glob("*") if node.kind in ("figure", "claims") else (directory / MANIFEST,)
