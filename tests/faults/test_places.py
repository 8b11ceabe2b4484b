"""Results that were moved, times that are wrong: with the real Snakefile."""

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

MONTH = 30 * 24 * 3600
MEMORY = Path("/dev/shm")


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system than the one of temporary files, where there is one."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        yield tmp_path
        return
    folder = Path(mkdtemp(dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


def test_results_moved_to_another_disk_have_nothing_to_do_and_are_whole(finished, other_disk):
    project = finished.copy_to(other_disk / "moved")
    assert project.planned() == []
    said = project.run("coolbits.cli", "audit", "results")
    assert said.returncode == 0, said.stdout
    assert said.stdout.splitlines()[-1].startswith("clean: ")


def test_with_the_clock_set_back_what_is_lost_is_made_again_and_nothing_else(finished, tmp_path):
    project = finished.copy_to(tmp_path / "project")
    lost = next(project.results.glob("evaluation/loss-rtn-*"))
    for path in project.results.rglob("*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + MONTH))
    figure = project.results / "figure" / "tiny" / "tokens"
    for place in (lost, figure):
        shutil.rmtree(place)
    # What stands between results that are there is made again only where it is asked for.
    assert project.planned() == ["figure_tiny_tokens"]
    said = project.snakemake(*(f"{place.relative_to(project.folder)}/manifest.json" for place in (lost, figure)))
    evaluations = len(project.plan().of_kind("evaluation"))
    assert project.made_and_kept(said) == {
        "evaluation": (1, evaluations - 1),
        "table": (0, 1),
        "figure": (1, 0),
    }
    assert project.planned() == []
    assert {name: path.read_bytes() for name, path in project.manifests().items()} == {
        name: path.read_bytes() for name, path in finished.manifests().items()
    }
