"""Modification times: the workflow engine goes by them, and copying a folder mixes them up."""

import os
from collections.abc import Iterator
from pathlib import Path

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST
from coolbits.artifacts.store import Store


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
            os.utime(path, ns=(newest, newest))


def _files(job: Job, root: Path) -> Iterator[Path]:
    for node in job.nodes:
        directory = node.directory(root)
        yield from directory.glob("*") if node.kind in ("figure", "claims") else (directory / MANIFEST,)
