import subprocess
import sys

import pytest

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.manifest import compose, write_manifest
from coolbits.artifacts.store import accept
from coolbits.stages import STAGES
from coolbits.study.standing import key_of, standing, stands


@pytest.fixture
def plan(tiny, planned, finish):
    """The plan of the tiny study with a claim, all of it made."""
    plan = planned(tiny | {"claims": "all"})
    finish(plan, *plan.nodes)
    return plan


def fallen(plan, root):
    """Return the kinds of the nodes that do not stand."""
    kept = standing(plan, root)
    return {node.kind for node in plan.nodes if not stands(node, kept)}


def test_all_that_was_made_stands(plan, tmp_path):
    assert standing(plan, tmp_path) == {key_of(node) for node in plan.nodes}


def test_where_nothing_was_made_nothing_stands(plan, tmp_path):
    assert standing(plan, tmp_path / "elsewhere") == frozenset()


def test_results_of_another_recipe_under_the_same_name_do_not_stand(plan, tiny, planned, tmp_path):
    changed = planned(tiny | {"claims": "all", "bootstrap_samples": 200})
    assert {key_of(node) for node in changed.nodes} == {key_of(node) for node in plan.nodes}
    assert fallen(changed, tmp_path) == {"table", "figure", "claims"}


def test_what_other_code_made_falls_with_all_that_hangs_on_it(tiny, planned, finish, tmp_path):
    plan = planned(tiny)
    finish(plan, *plan.nodes, code=lambda kind: "other" if kind == "quantized" else code_slice(STAGES[kind]).digest)
    assert fallen(plan, tmp_path) == {"quantized", "evaluation", "table", "figure"}
    for node in plan.of_kind("quantized"):
        accept(node.directory(tmp_path), code_slice(STAGES["quantized"]), "someone", "a log line")
    assert fallen(plan, tmp_path) == set()


def test_what_is_lost_falls_with_all_that_hangs_on_it(plan, tmp_path):
    (plan.of_kind("evaluation")[0].directory(tmp_path) / "manifest.json").unlink()
    assert fallen(plan, tmp_path) == {"evaluation", "table", "figure", "claims"}


@pytest.mark.parametrize(
    ("kind", "lost"), [("figure", "tokens.svg"), ("figure", "tokens.png"), ("claims", "claims.html")]
)
def test_what_people_look_at_stands_with_its_pictures_and_pages(plan, tmp_path, kind, lost):
    (plan.of_kind(kind)[0].directory(tmp_path) / lost).unlink()
    assert fallen(plan, tmp_path) == {kind}


def test_what_was_made_from_a_parent_as_it_was_falls(plan, tmp_path):
    # As a run leaves it that was stopped between the two: other code may give the same recipe other bytes.
    parent = plan.of_kind("table")[-1]
    directory = parent.directory(tmp_path)
    again = compose(parent, tmp_path, directory, {"rows": 1})
    write_manifest(directory, again, {"code": {"digest": code_slice(STAGES["table"]).digest}})
    children = [node for node in plan.nodes if parent.ref in node.parents.values()]
    kept = standing(plan, tmp_path)
    assert children
    assert [node for node in plan.nodes if not stands(node, kept)] == children


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_what_says_nothing_readable_does_not_stand(plan, tmp_path, name):
    corpus = plan.of_kind("corpus")[0]
    (corpus.directory(tmp_path) / name).write_text("{")
    assert not stands(corpus, standing(plan, tmp_path))


def test_what_stands_is_told_without_torch():
    code = "import sys, coolbits.study.cost, coolbits.study.standing; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
