"""Analyses in a study: resolved to recipes, checkpoints as parents, refused in one sentence."""

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.analysis import Analysis

MEMORY = {"analysis": {"kind": "memory", "models": ["gpt-162m"], "optimizers": ["AdamW-32", "Muon-8L+AdamW-8D"]}}


def theory(**other):
    return {"analysis": {"kind": "theory", "rows": 8, "columns": 16, "seeds": 1}, **other}


def test_names_of_models_and_optimizers_become_recipes(tiny, planned):
    (node,) = planned(tiny | {"analyses": {"memory": MEMORY}}).of_kind("analysis")
    memory = Analysis.read(node.recipe).analysis
    assert memory.models[0].model.config["vocab_size"] == 50_257
    assert memory.models[0].model.config["hidden_size"] == 768
    plain, hybrid = memory.optimizers
    assert (plain.name, plain.optimizer.kind, plain.optimizer.states.exp_avg.codec) == ("AdamW-32", "adamw", "float32")
    assert (hybrid.optimizer.states.momentum.codec, hybrid.optimizer.states.exp_avg_sq.codec) == ("linear", "dynamic")
    assert not node.parents


def test_theory_looks_at_the_last_checkpoint_of_each_run(tiny, planned):
    plan = planned(tiny | {"analyses": {"theory": theory(runs=["trunk"])}})
    (node,) = plan.of_kind("analysis")
    wanted = {
        track.checkpoint(track.steps[-1]).ref
        for track in plan.tracks
        if track.columns["run"] == "trunk" and track.ends_run
    }
    assert set(node.parents.values()) == wanted
    sources = Analysis.read(node.recipe).analysis.sources
    assert {source.optimizer for source in sources} == {"AdamW-32"}
    assert {node.parents[source.role].name.partition("/")[0] for source in sources} == {s.trajectory for s in sources}


def test_theory_without_runs_has_no_parents_and_all_means_all(tiny, planned):
    (alone,) = planned(tiny | {"analyses": {"theory": theory()}}).of_kind("analysis")
    plan = planned(tiny | {"analyses": {"theory": theory(runs="all")}})
    (every,) = plan.of_kind("analysis")
    assert not alone.parents
    assert len(every.parents) == len({track.name for track in plan.tracks if track.ends_run and len(track.steps)})


def test_figures_are_drawn_from_the_analyses(tiny, planned):
    tiny |= {"analyses": {"bytes": MEMORY, "theory": theory()}}
    tiny["figures"] = {"memory": {"figure": "memory"}, "theory": {"figure": "theory"}}
    plan = planned(tiny)
    of_kind = {node.recipe["analysis"]["kind"]: node.ref for node in plan.of_kind("analysis")}
    figures = {node.recipe["figure"]: node.parents for node in plan.of_kind("figure")}
    assert figures == {"memory": {"memory": of_kind["memory"]}, "theory": {"theory": of_kind["theory"]}}
    assert not any(ref.kind == "analysis" for node in plan.of_kind("claims") for ref in node.parents.values())


def test_analyses_change_nothing_but_themselves(tiny, planned):
    before = {node.fingerprint for node in planned(tiny).nodes}
    after = {node.fingerprint: node.kind for node in planned(tiny | {"analyses": {"memory": MEMORY}}).nodes}
    assert {kind for fingerprint, kind in after.items() if fingerprint not in before} == {"analysis"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figures": {"bytes": {"figure": "memory"}}}, r"figures\.bytes: needs an analysis of kind 'memory'"),
        ({"analyses": {"a": MEMORY, "b": MEMORY}}, r"analyses\.b: a second analysis of kind 'memory'"),
        ({"analyses": {"a": MEMORY | {"runs": ["trunk"]}}}, r"analyses\.a\.runs: an analysis of memory looks at no"),
        ({"analyses": {"a": theory(runs=["stem"])}}, r"analyses\.a\.runs: no 'stem'; there are trunk, wsd"),
        (
            {"analyses": {"a": {"analysis": MEMORY["analysis"] | {"models": ["gpt-1t"]}}}},
            r"analyses\.a\.analysis\.models: the preset 'gpt-1t' is unknown",
        ),
        (
            {"analyses": {"a": {"analysis": MEMORY["analysis"] | {"optimizers": ["Adam"]}}}},
            r"analyses\.a\.analysis\.optimizers: no 'Adam'; allowed are",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tiny, planned, changes, message):
    with pytest.raises(CoolbitsError, match=message):
        planned(tiny | changes)
