"""The board: which jobs a run of the workflow has to do, so that each finished one can say how much time is left."""

import json
from dataclasses import dataclass
from pathlib import Path
from time import time

from coolbits.artifacts.files import write_json
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST
from coolbits.artifacts.progress import duration

_SHARE_FOR_ESTIMATE = 0.03


@dataclass(frozen=True)
class Board:
    """Where the board lies. It holds the start and, for each job to do, its estimated seconds and its manifests."""

    path: Path

    def post(self, jobs: list[tuple[Job, float]], root: Path) -> None:
        """Write down the jobs to do, with their estimated seconds, and the time."""
        waiting = {job.name: {"seconds": seconds, "manifests": _manifests(job, root)} for job, seconds in jobs}
        write_json(self.path, {"started": time(), "jobs": waiting})

    def line(self, finished: str) -> str | None:
        """Return one line on how far the study is once the job named `finished` is done; None if that is not known."""
        try:
            board = json.loads(self.path.read_bytes())
        except (OSError, ValueError):  # whatever it is, the job's work is done
            return None
        jobs = board["jobs"]
        done = {
            name
            for name, job in jobs.items()
            if name == finished or all(_written_since(board["started"], manifest) for manifest in job["manifests"])
        }
        if finished not in jobs:
            return None
        total = sum(job["seconds"] for job in jobs.values())
        share = sum(jobs[name]["seconds"] for name in done) / total
        state = f"study: {len(done)} of {len(jobs)} jobs, {share:.0%} of the work done"
        if share < _SHARE_FOR_ESTIMATE:
            return state
        left = (time() - board["started"]) * max(0.0, 1 - share) / share  # a sum of shares may exceed 1 by a bit
        return f"{state}, about {duration(left)} left"


def _written_since(started: float, manifest: str) -> bool:
    try:
        return Path(manifest).stat().st_mtime >= started
    except OSError:
        return False


def _manifests(job: Job, root: Path) -> list[str]:
    return [str(node.directory(root) / MANIFEST) for node in job.nodes]
