"""Whatever is killed, and whenever: a study that is run again ends as if nothing had happened."""

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

KILLED = -signal.SIGKILL
# Stages of which each run takes long, or changes much: not every moment of theirs gets a process of its own.
STRIDE = {"tokenizer": 2, "shards": 2, "checkpoint": 5, "quantized": 3, "evaluation": 2, "figure": 17, "claims": 18}
OTHER_KINDS = {"pretrained": 5, "conversations": 2, "finetuned": 9, "images": 2, "classifier": 11, "analysis": 3}
KINDS = ("corpus", "average", "calibration", "table")


def test_thirty_kills_of_jobs_at_random_moments_change_nothing(empty, finished, tmp_path, counted):
    random, kills = Random(5), []
    for job in empty.jobs:
        seconds, wanted = empty.seconds(job), len(kills) + (4 if job.kind == "checkpoint" else 2)
        while len(kills) < wanted:
            process = empty.start(job)
            process.join(random.uniform(0, seconds))
            number = random.choice([signal.SIGKILL, signal.SIGTERM])
            process.kill() if number == signal.SIGKILL else process.terminate()
            process.join()
            if process.exitcode == 0:  # it was faster
                seconds *= 0.7
                empty.forget(job)
            else:
                kills.append((job.kind, number))
            empty.demand_whole()
        assert empty.run(job) == 0
    assert len(kills) >= 30
    assert {number for _, number in kills} == {signal.SIGKILL, signal.SIGTERM}
    empty.finish()
    project = finished.copy_to(tmp_path / "project")
    for kind in {node.kind for node in empty.plan.nodes}:
        shutil.rmtree(project.results / kind)
        shutil.copytree(empty.root / kind, project.results / kind)
    assert project.planned() == []
    counted("kills survived", len(kills))


def kill_before_changes(lab, job, stride, counted):
    """Kill a job of one node before each so many changes; the artifact must end as it ever was."""
    lab.forget(job)
    statuses = []
    for number in range(1, 1000, stride):
        statuses.append(lab.run(job, lab.kill_at(number)))
        lab.demand_whole()
        if statuses[-1] != KILLED:
            break
    assert statuses[-1] == 0, lab.said()
    assert len(statuses) * stride > 10
    lab.demand_whole(every=True)
    counted("kills survived", len(statuses) - 1)


@pytest.mark.parametrize("kind", [*KINDS, *STRIDE])
def test_killed_before_each_change_to_the_results_an_artifact_ends_the_same(lab, kind, counted):
    kill_before_changes(lab, lab.job(kind, nodes=1), STRIDE.get(kind, 1), counted)


def test_so_does_a_quantization_that_keeps_its_finished_blocks(lab, counted):
    job = lab.job("quantized")
    node = next(node for node in job.nodes if "calibration" in node.parents)
    kill_before_changes(lab, replace(job, nodes=(node,)), 3, counted)
    assert not any("not used" in line for line in lab.said())
    assert not (lab.root / "work" / "quantized" / node.name).exists()


@pytest.mark.parametrize(("kind", "stride"), OTHER_KINDS.items())
def test_so_does_one_of_the_kinds_that_only_the_other_study_has(other_lab, kind, stride, counted):
    kill_before_changes(other_lab, other_lab.job(kind, nodes=1), stride, counted)


def until(found, process):
    """Return what is found, once something is; the process must not end before."""
    for _ in range(2400):
        if result := found():
            return result
        assert process.poll() is None
        time.sleep(0.05)  # a look at all processes takes a core for milliseconds
    raise AssertionError


def at_work(project, kind):
    """Return the number of the process that makes artifacts of a kind in the project's folder, if there is one."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            made = words[2] if len(words) > 2 and words[1].endswith(b"/coolbits") else None
            if made == kind.encode() and (place / "cwd").resolve() == project.folder.resolve():
                return int(place.name)
        except OSError:  # it has ended
            continue
    return None


def group(process, _project, _kind):
    os.killpg(process.pid, signal.SIGKILL)


def snakemake_alone(process, _project, _kind):
    process.kill()


def job_alone(_process, project, kind):
    os.kill(at_work(project, kind), signal.SIGKILL)


def asked_to_end(process, _project, _kind):
    process.terminate()


def interrupted(process, _project, _kind):
    os.killpg(process.pid, signal.SIGINT)


def test_snakemake_killed_in_every_way_goes_on_in_a_folder_of_any_name(project_anywhere, finished, counted):
    project, random, figure = project_anywhere, Random(1), "results/figure/tiny/tokens/manifest.json"
    endings = {
        "shards": group,
        "checkpoint": snakemake_alone,
        "quantized": job_alone,
        "table": asked_to_end,
        "figure": interrupted,
    }
    for kind, end in endings.items():
        process = project.start("snakemake", "--cores", "2", figure)
        until(lambda kind=kind: at_work(project, kind), process)
        if kind == "shards":
            second = project.run("snakemake", "--cores", "1")
            assert second.returncode == 1
            assert "cannot be locked" in second.stdout + second.stderr
        time.sleep(random.random())
        end(process, project, kind)
        assert process.wait() != 0
        if end in (group, snakemake_alone):
            project.snakemake("--unlock")
        expected = finished.manifests()
        for name, path in project.manifests().items():
            assert path.read_bytes() == expected[name].read_bytes()
    project.snakemake(figure)
    made = {name: path.read_bytes() for name, path in project.manifests().items()}
    whole = {name: path.read_bytes() for name, path in finished.manifests().items()}
    assert made.items() < whole.items()
    assert whole.keys() - made.keys() == {"claims/tiny/claims", "table/tiny/ledger", "table/tiny/metrics"}
    assert project.planned(figure) == []
    counted("kills survived", len(endings))
