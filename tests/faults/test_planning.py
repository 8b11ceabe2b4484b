"""What it costs to look at a large study grows as its nodes do: benchmarks/planning.py has the seconds."""

import cProfile
import importlib.util
import itertools
import pstats
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coolbits.study.plan import KINDS, make_plan
from coolbits.study.show import print_plan
from coolbits.study.workflow import Workflow

_spec = importlib.util.spec_from_file_location("planning", Path(__file__).parents[2] / "benchmarks" / "planning.py")
planning = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(planning)


@pytest.fixture
def fabricated(tmp_path, monkeypatch):
    """A function that gives a workflow of about so many nodes, all of them made."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    monkeypatch.setattr(planning, "RATES", 1)

    def fabricate(nodes):
        folder = tmp_path / str(nodes)
        folder.mkdir()
        (folder / "study.yaml").write_text(planning.yaml.safe_dump(planning.study(nodes)))
        flow = Workflow.read(folder / "study.yaml", folder / "results")
        planning.fabricate(flow)
        return flow

    return fabricate


def opened_by(work):
    """How many files were opened for something."""
    seen = []
    sys.addaudithook(lambda event, arguments: seen.append(arguments[0]) if event == "open" and counting else None)
    counting = [True]
    work()
    counting.clear()
    return len(seen)


def calls_of(work, flow):
    """How many calls of functions something takes."""
    profile = cProfile.Profile()
    profile.runcall(work, flow)
    return pstats.Stats(profile).total_calls


def lines_of(work):
    """How many lines of Python run for something: turns of a comprehension's loop count, which calls do not."""
    seen, before = itertools.count(), sys.gettrace()

    def trace(_frame, event, _given):
        if event == "line":
            next(seen)
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return next(seen)


def look(flow):
    """What a dry run asks of a workflow."""
    flow.settle()
    flow.targets()
    planning.ask(flow)


def test_a_dry_run_opens_no_shared_artifact_and_does_the_same_for_each_node(fabricated, capsys):
    small, large = fabricated(240), fabricated(480)
    look(small)  # reads the code
    ratio = len(large.plan.nodes) / len(small.plan.nodes)
    assert len(small.plan.nodes) > 200
    few, many = (opened_by(lambda flow=flow: look(replace(flow))) for flow in (small, large))
    assert few == many  # code, and manifests of the study's own results
    fresh = [Workflow(make_plan(flow.source), flow.root, flow.source) for flow in (small, large)]
    for work in (look, lambda flow: print_plan(flow.plan, flow.root)):
        few, many = (calls_of(work, flow) for flow in fresh)
        assert many < 1.2 * ratio * few
    capsys.readouterr()


def long_trunk(folder, checkpoints):
    """Write a study of one trunk that keeps so many checkpoints, and nothing else; return the file."""
    study = planning.study(1) | {"quantizers": {}, "evaluations": {}, "figures": {}}
    batch = study["defaults"]["batch_tokens"]
    study["runs"]["trunk"] |= {"peak_lr": 0.01, "tokens": batch * checkpoints, "checkpoints": {"every": batch}}
    path = folder / f"{checkpoints}.yaml"
    path.write_text(planning.yaml.safe_dump(study))
    return path


def test_a_trunk_of_thousands_of_checkpoints_costs_the_same_for_each(tmp_path):
    short, long = (long_trunk(tmp_path, checkpoints) for checkpoints in (1000, 2000))
    plans = [make_plan(path) for path in (short, long)]
    assert [len(plan.of_kind("checkpoint")) for plan in plans] == [1000, 2000]
    few, many = (lines_of(lambda path=path: make_plan(path)) for path in (short, long))
    assert many < 1.2 * 2 * few


@pytest.mark.parametrize("late", ["coolbits plan", "snakemake -n"])
def test_the_benchmark_names_the_command_that_took_too_long(late):
    took = dict(planning.MOST_SECONDS)
    assert planning.too_long(took) == []
    most = planning.MOST_SECONDS[late]
    assert planning.too_long(took | {late: most + 0.5}) == [f"{late}: {most}.5 s, at most {most} s wanted"]


def test_a_start_reads_each_record_and_each_manifest_once(fabricated):
    flow = fabricated(240)
    written = len([task for kind in KINDS for task in flow.tasks(kind)]) + 1  # recipes of jobs, and the board
    assert opened_by(flow.start) <= 2 * len(flow.plan.nodes) + 3 * written
