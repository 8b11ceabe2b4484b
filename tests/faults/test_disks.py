"""Disks that are full, or may not be written to: one sentence, nothing half-written, and the study can go on later."""

import os
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

SIZES = (200, 500, 900, 1500, 2500)
REFUSED = 2


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


def unmount(place):
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


@pytest.fixture
def small(empty):
    """The empty laboratory on a disk of its own, of `SIZES[0]` KiB."""
    if not mount("-t", "tmpfs", "-o", f"size={SIZES[0]}k", "tmpfs", empty.root):
        pytest.skip("a disk can be mounted only by root, and not in every container")
    yield empty
    unmount(empty.root)


@pytest.fixture
def closed():
    """A function that gives a context in which a laboratory's results can only be read."""
    bound = []

    @contextmanager
    def close(lab):
        if lab.root not in bound and mount("--bind", lab.root, lab.root):
            bound.append(lab.root)
        if lab.root in bound and mount("-o", "remount,bind,ro", lab.root):
            try:
                yield
            finally:
                assert mount("-o", "remount,bind,rw", lab.root)
            return
        if os.geteuid() == 0:
            pytest.skip("nothing is read-only to root but a disk, and none can be mounted in this container")
        folders = [lab.root, *(path for path in lab.root.rglob("*") if path.is_dir())]
        [path.chmod(0o555) for path in folders]
        try:
            yield
        finally:
            [path.chmod(0o755) for path in folders]

    yield close
    for place in bound:
        unmount(place)


def refusal(lab):
    """The one sentence that a job said."""
    (line,) = [line for line in lab.said() if line.startswith("coolbits: ")]
    return line


def test_a_study_on_a_disk_that_fills_goes_on_where_there_is_room_again(small):
    refused = []
    for size in SIZES:
        assert mount("-o", f"remount,size={size}k", small.root)
        for job in small.jobs:
            if small.run(job) != 0:
                assert "No space left on device; what is finished stays" in refusal(small)
                refused.append(job.kind)
                break
        small.demand_whole()
    assert len(refused) >= 3, refused
    assert mount("-o", "remount,size=100m", small.root)
    small.finish()


@pytest.mark.parametrize(("kind", "stride"), [("shards", 2), ("checkpoint", 5), ("quantized", 2), ("figure", 9)])
def test_a_disk_that_is_full_from_any_moment_on_leaves_nothing_half_written(lab, kind, stride):
    job = lab.job(kind, nodes=1)
    lab.forget(job)
    number = 1
    while (status := lab.run(job, lab.fill_from(number))) != 0:
        assert status == REFUSED
        assert "No space left on device" in refusal(lab)
        assert not job.nodes[0].directory(lab.root).exists()
        number += stride
    assert number > 4
    lab.demand_whole(every=True)


@pytest.mark.parametrize("kind", ["corpus", "tokenizer", "shards", "checkpoint", "quantized", "evaluation", "figure"])
def test_files_that_may_not_grow_are_refused_in_one_sentence(lab, kind):
    job = lab.job(kind, nodes=1)
    lab.forget(job)
    statuses = set()
    for size in (1000, 4000, 16_000, 1_000_000):
        lab.said()
        status = lab.run(job, lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        if status != 0:
            assert re.search("File too large|Input/output error", refusal(lab))
        statuses.add(status)
    assert statuses == {0, REFUSED}
    lab.demand_whole(every=True)


def demand_refused_as_read_only(lab):
    assert any(words in refusal(lab) for words in ("Read-only file system", "Permission denied"))


def test_read_only_results_stay_as_they_are(lab, closed):
    with closed(lab):
        for job in lab.jobs:
            # Long work takes its lock first, even where nothing is left to do.
            if lab.run(job) != 0:
                assert job.kind in ("shards", "checkpoint")
                demand_refused_as_read_only(lab)
        lab.demand_whole(every=True)
    shutil.rmtree(lab.root / "evaluation")
    lab.finish()


@pytest.mark.parametrize("which", ["lab", "other_lab"])
def test_what_is_missing_in_read_only_results_is_refused_in_one_sentence_whatever_its_kind(which, closed, request):
    lab = request.getfixturevalue(which)
    for kind in dict.fromkeys(node.kind for node in lab.plan.nodes):
        job = lab.job(kind)
        node = job.nodes[-1]
        lost = node.directory(lab.root)
        shutil.rmtree(lost)
        with closed(lab):
            assert lab.run(job) == REFUSED, kind
            demand_refused_as_read_only(lab)
            assert not lost.exists()
        shutil.copytree(node.directory(lab.whole), lost)
    lab.demand_whole(every=True)
