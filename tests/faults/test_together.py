"""Several at once in one results folder: one of them may be refused, nothing is mixed up."""

import multiprocessing
import os
from random import Random

import pytest

from coolbits.artifacts.files import replacing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

NAMES = ("a", "b", "c")
context = multiprocessing.get_context("fork")


def replace_often(target, mark):
    for _ in range(40):
        with replacing(target) as directory:
            for name in NAMES:
                (directory / name).write_text(mark * 1000)


def read_one(target):
    """Read all files of the directory that is there now, or nothing if it is taken away meanwhile."""
    try:
        folder = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        return set()
    try:
        found = set()
        for name in NAMES:
            with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder)) as file:
                found.add(file.read())
    except FileNotFoundError:
        return set()
    finally:
        os.close(folder)
    return found


def test_of_directories_put_in_one_place_at_once_readers_see_one_whole(tmp_path):
    target = tmp_path / "artifact"
    writers = [context.Process(target=replace_often, args=(target, mark)) for mark in "wxyz"]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        found = read_one(target)
        assert len(found) <= 1
        assert all(len(content) == 1000 for content in found)
        seen += len(found)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert seen
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_two_workflows_without_a_lock_end_as_one(empty):
    random, refused = Random(6), []
    for job in empty.jobs:
        manifests = [node.directory(empty.root) / "manifest.json" for node in job.nodes]
        first = empty.start(job)
        first.join(random.uniform(0, empty.seconds(job)))
        # Before a job, and after one that failed, Snakemake removes what it is to make.
        for path in manifests:
            path.unlink(missing_ok=True)
        second = empty.start(job)
        for process in (first, second):
            process.join()
        if {first.exitcode, second.exitcode} != {0}:
            assert {first.exitcode, second.exitcode} <= {0, 2}
            refused += [line for line in empty.said() if line.startswith("coolbits: ")]
            for path in manifests:
                path.unlink(missing_ok=True)
            assert empty.run(job) == 0
        empty.demand_whole()
    assert any("works here now; wait for it, or stop it" in line for line in refused)
    empty.finish()
