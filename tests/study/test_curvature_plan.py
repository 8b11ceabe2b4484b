"""Curvature, prediction and landscape in a study: what is measured of which models, and what it costs."""

from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.durations import job_seconds
from coolbits.study.footprint import job_megabytes
from coolbits.study.load import load_study
from coolbits.study.measure_cost import kept_vectors
from coolbits.study.plan import resolve
from coolbits.study.recipes.evaluation import Evaluation

STUDIES = Path(__file__).resolve().parents[2] / "workflow" / "studies"
ON = {"windows": 4, "sequence_length": 16}


def only(tiny, kind, measure=None, **choice):
    """The tiny study with one evaluation, called `own`, and the figure of its table."""
    figures = {kind: {"figure": kind}}
    evaluations = {"own": {"measure": {"kind": kind, **ON, **(measure or {})}, **choice}}
    return tiny | {"evaluations": evaluations, "figures": figures}


def rows(plan, kind):
    (table,) = [node for node in plan.of_kind("table") if node.name.endswith(f"/{kind}")]
    return [(row["columns"], table.parents[row["evaluation"]].name) for row in table.recipe["rows"]]


def test_curvature_is_of_the_full_precision_models_unless_quantizers_are_named(tiny, planned):
    alone = planned(only(tiny, "curvature"))
    named = planned(only(tiny, "curvature", quantizers=["rtn-w3"]))
    assert not alone.of_kind("quantized")
    assert {columns["quantizer"] for columns, _ in rows(alone, "curvature")} == {"none"}
    assert {columns["quantizer"] for columns, _ in rows(named, "curvature")} == {"none", "rtn-w3"}


@pytest.mark.parametrize("kind", ["prediction", "landscape"])
def test_comparisons_are_of_quantized_models_alone(tiny, planned, kind):
    plan = planned(only(tiny, kind))
    assert {columns["quantizer"] for columns, _ in rows(plan, kind)} == {"rtn-w3", "gptq-w4"}
    assert all({"model", "quantized", "shards"} <= set(node.parents) for node in plan.of_kind("evaluation"))


def test_a_figure_is_drawn_from_the_table_of_its_measure(tiny, planned):
    plan = planned(only(tiny, "landscape", of="final"))
    (figure,) = plan.of_kind("figure")
    assert {role: ref.name for role, ref in figure.parents.items()} == {"landscape": "tiny/landscape"}
    with pytest.raises(CoolbitsError, match=r"figures\.prediction: needs the table 'prediction'"):
        planned(only(tiny, "landscape") | {"figures": {"prediction": {"figure": "prediction"}}})


def test_a_landscape_looks_back_to_the_checkpoint_before(tiny, planned):
    plan = planned(only(tiny, "landscape", quantizers=["rtn-w3"], runs=["trunk"], averages=[]))
    previous = {node.parents["model"].name: node.parents["previous"].name for node in plan.of_kind("evaluation")}
    trunk, *branches = [track for track in plan.tracks if track.columns["run"] == "trunk"]
    for earlier, later in zip(trunk.steps, trunk.steps[1:], strict=False):
        assert previous[trunk.checkpoint(later).name] == trunk.checkpoint(earlier).name
    assert trunk.checkpoint(trunk.steps[0]).name not in previous
    for branch in branches:
        assert previous[branch.checkpoint(branch.steps[0]).name] == branch.parents["start"].name


def test_averages_have_no_landscape_but_a_prediction(tiny, planned):
    sources = [
        {columns["source"] for columns, _ in rows(planned(only(tiny, kind)), kind)}
        for kind in ("landscape", "prediction")
    ]
    assert sources == [{"checkpoint"}, {"checkpoint", "average"}]


def test_a_stride_keeps_its_multiples_and_the_last(tiny, planned):
    every = rows(planned(only(tiny, "curvature", runs=["trunk"], averages=[])), "curvature")
    thin = rows(planned(only(tiny, "curvature", runs=["trunk"], averages=[], stride=640)), "curvature")
    of_trunk = [
        [columns["tokens"] for columns, _ in found if columns["schedule"] == "constant"] for found in (every, thin)
    ]
    assert of_trunk == [[320, 640, 960, 1280], [640, 1280]]
    assert [columns["final"] for columns, _ in thin if columns["schedule"] == "cooldown"] == [True, True]


def test_seeds_can_be_chosen(tiny, planned):
    tiny["defaults"]["seed"] = [0, 1]
    both, one = (planned(only(tiny, "curvature", **choice)) for choice in ({}, {"seeds": [1]}))
    assert {columns["seed"] for columns, _ in rows(both, "curvature")} == {0, 1}
    assert {columns["seed"] for columns, _ in rows(one, "curvature")} == {1}
    assert 2 * len(rows(one, "curvature")) == len(rows(both, "curvature"))


def test_thinning_changes_no_fingerprint_of_what_is_left(tiny, planned):
    every, thin = (planned(only(tiny, "curvature", **choice)) for choice in ({}, {"of": "final", "seeds": [0]}))
    assert {node.fingerprint for node in thin.of_kind("evaluation")} < {
        node.fingerprint for node in every.of_kind("evaluation")
    }


@pytest.mark.parametrize(
    ("kind", "key", "few", "many"),
    [
        ("curvature", "probes", 4, 400),
        ("curvature", "iterations", 20, 1000),
        ("prediction", "probes", 1, 100),
        ("landscape", "points", 3, 40),
        ("landscape", "windows", 4, 400),
    ],
)
def test_more_to_measure_takes_longer(tiny, planned, kind, key, few, many):
    seconds = []
    for value in (few, many):
        plan = planned(only(tiny, kind, {key: value}))
        seconds.append(sum(job_seconds(job, plan) for job in plan.jobs("evaluation")))
    assert seconds[0] < seconds[1]


def test_lanczos_vectors_are_counted_as_memory(tiny, planned):
    tiny["defaults"]["model"] = "gpt-162m"
    megabytes = []
    for iterations in (20, 30):
        plan = planned(only(tiny, "curvature", {"iterations": iterations}))
        megabytes.append(job_megabytes(plan.jobs("evaluation")[0], plan))
    weights = 4 * plan.tracks[0].columns["parameters"] / 1e6
    assert megabytes[1] - megabytes[0] == pytest.approx(1.3 * 10 * weights, rel=0.01)


@pytest.mark.parametrize("extent", [[0, 1], [1], [-1, 2]])
def test_an_extent_has_two_positive_lengths(tiny, planned, extent):
    with pytest.raises(ValidationError, match="extent"):
        planned(only(tiny, "landscape", {"extent": extent}))


@cache
def own_study(name):
    """The plan of a study of the repository."""
    path = STUDIES / f"{name}.yaml"
    return resolve(load_study(path), path.parent)


def measures(plan, kind):
    """The measures of a kind, each once."""
    found = {str(node.recipe): Evaluation.read(node.recipe).measure for node in plan.of_kind("evaluation")}
    return [measure for measure in found.values() if measure.kind == kind]


@pytest.mark.parametrize("name", ["paper-a-160m", "paper-a-10b", "mini-gpu"])
def test_the_studies_for_a_gpu_draw_curvature_prediction_and_landscapes_at_both_precisions(name):
    plan = own_study(name)
    drawn = {node.recipe["figure"] for node in plan.of_kind("figure")}
    assert {"curvature", "prediction", "landscape"} <= drawn
    for kind in ("prediction", "landscape"):
        assert {columns["bits"] for columns, _ in rows(plan, kind)} == {3, 4}
    assert {columns["average"] for columns, _ in rows(plan, "curvature")} == {None, "lawa"}
    decayed = [columns["peak_lr"] for columns, _ in rows(plan, "landscape") if columns["phase"] == "decay"]
    assert len(set(decayed)) >= 3 and len(decayed) == len(rows(plan, "landscape"))


@pytest.mark.parametrize("name", ["paper-a-160m", "paper-a-10b", "mini-gpu"])
def test_the_vectors_of_lanczos_leave_room_on_an_80_gb_gpu(name):
    plan = own_study(name)
    weights = 4 * max(columns["parameters"] for columns, _ in rows(plan, "curvature"))
    assert max(kept_vectors(measure) for measure in measures(plan, "curvature")) * weights < 50e9


def test_the_papers_own_size_has_the_papers_own_settings():
    plan = own_study("paper-a-160m")
    (curvature,), (prediction,), (landscape,) = (
        measures(plan, kind) for kind in ("curvature", "prediction", "landscape")
    )
    assert {(each.windows, each.sequence_length) for each in (curvature, prediction, landscape)} == {(100, 2048)}
    assert curvature.eigenvalues == 25 and landscape.points**2 == pytest.approx(1000, rel=0.05)


def test_the_papers_own_size_is_measured_every_4000_steps_and_every_10000_across_rates():
    found = [columns for columns, _ in rows(own_study("paper-a-160m"), "curvature")]
    strides = {"trunk": 4000, "lawa20": 4000, "rates": 10_000}
    for run, stride in strides.items():
        steps = [columns["step"] for columns in found if columns["run"] == run and not columns["final"]]
        assert steps and all(step % stride == 0 for step in steps)
    assert {columns["peak_lr"] for columns in found if columns["run"] == "rates"} == {3e-4, 1e-3, 3e-3, 1e-2}


def test_the_papers_landscapes_look_back_2000_steps():
    nodes = [node for node in own_study("paper-a-160m").of_kind("evaluation") if "previous" in node.parents]
    steps = [[int(node.parents[role].name.rpartition("_")[2]) for role in ("model", "previous")] for node in nodes]
    assert steps == [[190_000, 188_000]] * 8  # four rates at two precisions
