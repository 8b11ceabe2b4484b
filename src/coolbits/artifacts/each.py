"""The simplest run of a job: its nodes one after the other, with progress."""

from collections.abc import Callable

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress


def make_each(job: Job, unit: str, make: Callable[[Node], bool]) -> int:
    """Call `make` for every node of a job, which says whether it made something; return how many times it did."""
    made = 0
    with Progress(job.name, len(job.nodes), unit) as progress:
        for node in job.nodes:
            made += make(node)
            progress.advance(note=node.name)
    return made
