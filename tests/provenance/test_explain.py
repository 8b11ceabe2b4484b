"""The page says what a reader wants to know, each thing once, from manifests and records alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.provenance.explain import explain
from coolbits.provenance.lineage import trace
from coolbits.provenance.page import page
from coolbits.provenance.recipes import contrast, flatten, values
from coolbits.provenance.trained import Trained, say_trained, trained, trajectories

FIGURE = ("figure", "tiny/tokens")


@pytest.fixture
def explained(lab):
    lineage = trace(lab.root, [FIGURE])
    return explain(lineage.artifacts[FIGURE], lineage)


def test_it_counts_what_it_took(explained, lab):
    assert explained.caption == "What it shows."
    assert explained.trained == {"checkpoint": Trained(1, 20, "tokens", 20 * 256, [0])}
    assert explained.shares["evaluation"].artifacts == 2
    assert explained.shares["checkpoint"].bytes == len("weights 20 0.01") + len("{}")
    assert explained.commits == {"c" * 40: 9}
    assert explained.versions["torch"] == ["2.13.0"]
    assert list(explained.hours) == ["cpu (Some CPU)"]


def test_core_hours_are_seconds_times_threads_and_those_of_accelerators_are_not(lab):
    for path in lab.root.rglob("record.json"):
        lab.rewrite(path, lambda record: record.update(seconds=900.0))
        lab.rewrite(path, lambda record: record["environment"].update(threads="4"))
    trained = lab.one("checkpoint", "*/step_0000020") / "record.json"
    lab.rewrite(trained, lambda record: record["environment"].update(device="NVIDIA H200"))
    lineage = trace(lab.root, [FIGURE])
    assert explain(lineage.artifacts[FIGURE], lineage).hours == {"NVIDIA H200": 0.25, "cpu (Some CPU)": 8 * 1.0}


def test_the_commands_make_just_this_figure(explained):
    assert explained.commands == [
        f"git checkout {'c' * 40}",
        "snakemake --cores all results/figure/tiny/tokens/manifest.json --configfile STUDY.yaml",
    ]


@pytest.mark.parametrize("dirty", [False, True])
def test_the_commit_to_check_out_is_the_figures_own_if_it_was_made_from_one(lab, dirty):
    for kind in ("corpus", "figure"):
        made = {"commit": "d" * 40, "dirty": dirty and kind == "figure"}
        lab.rewrite(lab.one(kind) / "record.json", lambda record, git=made: record["environment"].update(git=git))
    lineage = trace(lab.root, [FIGURE])
    *checkout, _ = explain(lineage.artifacts[FIGURE], lineage).commands
    assert checkout == ([] if dirty else [f"git checkout {'d' * 40}"])


def test_the_recipe_is_said_by_run_and_what_is_common_once(explained):
    checkpoints = explained.recipes["checkpoint"]
    assert [label for label, _ in checkpoints.groups] == ["trunk"]
    assert checkpoints.common["peak_lr"] == 0.01
    assert explained.recipes["quantized"].common["method.grid.bits"] == 3


def test_the_page_is_plain_text_that_fits_a_screen(explained):
    text = page(explained)
    assert text.startswith("figure/tiny/tokens\n  What it shows.\n")
    for part in ("9 artifacts", "pretrained on 5.12k tokens in 20", "peak_lr 0.01", f"commit {'c' * 40} (9 artifacts)"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_what_is_damaged_is_explained_as_far_as_it_can_be(lab):
    for path in lab.root.rglob("record.json"):
        path.unlink()
    (lab.one("quantized") / "manifest.json").write_text("{")
    lineage = trace(lab.root, [FIGURE])
    explained = explain(lineage.artifacts[FIGURE], lineage)
    assert "quantized" not in explained.shares
    assert "no times recorded" in page(explained)


def test_a_caption_that_was_edited_is_not_shown_as_the_figures_own(lab):
    (lab.one("figure") / "caption.txt").write_text("What it does not show.\n")
    lineage = trace(lab.root, [FIGURE])
    assert explain(lineage.artifacts[FIGURE], lineage).caption.endswith(
        "tiny/tokens/caption.txt: not the file that its manifest declares; `coolbits audit` says what else is wrong"
    )


def test_json_has_all_of_it(explained):
    read = json.loads(json.dumps(explained.to_json()))
    assert read["recipes"]["table"]["common"] == {"content": "loss"}
    assert read["trained"]["checkpoint"]["seen"] == 5120


def behind(lab, *nodes):
    """The lineage of some artifacts."""
    return trace(lab.root, [(node.kind, node.name) for node in nodes])


def trained_behind(lab, *nodes):
    """What was trained behind some artifacts."""
    lineage = behind(lab, *nodes)
    return trained(lineage, trajectories(lineage))


def classifier(lab, seed, summary):
    recipe = {"seed": seed, "batch_images": 16, "epochs": 2}
    return lab.shared("classifier", f"resnet-s{seed}", recipe, {}, summary=summary)


def finetuned(lab, summary, start=None, seed=3):
    recipe = {"seed": seed, "hub": None if start else {"id": "owner/model", "revision": "main"}, "steps": 40}
    return lab.shared("finetuned", "tuned", recipe, {"start": start.ref} if start else {}, summary=summary)


def test_classifiers_count_by_updates_and_images(empty):
    ends = ({"step": 20}, {"outcome": "diverged", "diverged_step": 5})
    found = trained_behind(empty, *(classifier(empty, seed, end) for seed, end in enumerate(ends, 7)))
    assert found == {"classifier": Trained(2, 25, "images", 25 * 16, [7, 8])}
    assert say_trained(found) == "classifiers trained on 400 images in 25 updates, seeds 7, 8"


def test_fine_tunings_of_models_that_others_trained_count_as_such(empty):
    node = finetuned(empty, {"step": 40, "tokens": 12_000})
    lineage = behind(empty, node)
    assert trained(lineage, {}) == {"finetuned": Trained(1, 40, "tokens", 12_000, [3])}
    text = page(explain(lineage.artifacts[node.kind, node.name], lineage))
    assert "fine-tuned on 12k tokens in 40 updates, seeds 3" in text
    assert "nothing trained" not in text


def test_fine_tunings_of_a_run_count_beside_it(empty):
    recipe = {"trajectory": {"seed": 1, "batch_tokens": 256}, "step": 10}
    start = empty.named("checkpoint", "track/step_0000010", recipe, {})
    found = trained_behind(empty, finetuned(empty, {"step": 40, "tokens": 12_000}, start))
    assert say_trained(found) == (
        "pretrained on 2.56k tokens in 10 updates, seeds 1; fine-tuned on 12k tokens in 40 updates, seeds 3"
    )


def test_a_fine_tuning_from_a_start_that_diverged_trained_nothing(empty):
    lost = {"outcome": "diverged", "diverged_step": 7}
    recipe = {"trajectory": {"seed": 1, "batch_tokens": 256}, "step": 10}
    start = empty.named("checkpoint", "track/step_0000010", recipe, {}, summary=lost)
    assert trained_behind(empty, finetuned(empty, lost, start)).keys() == {"checkpoint"}


def test_where_nothing_was_trained_the_page_says_so(empty):
    node = empty.shared("analysis", "memory", {"analysis": {"kind": "memory"}}, {})
    lineage = behind(empty, node)
    assert "; nothing trained; " in page(explain(lineage.artifacts[node.kind, node.name], lineage))


RECIPES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0, 1, "x", None, [1]]), max_size=4),
    min_size=1,
    max_size=5,
)


@given(RECIPES)
def test_common_is_what_every_recipe_has_and_nothing_else(recipes):
    found = contrast([(str(place), [fields]) for place, fields in enumerate(recipes)])
    shared = {name: value for name, value in recipes[0].items() if all(name in r and r[name] == value for r in recipes)}
    assert found.common == shared
    for fields, (_, row) in zip(recipes, found.groups, strict=True):
        assert row.keys() == {name for recipe in recipes for name in recipe} - shared.keys()
        assert all(row[name] == (values([fields[name]]) if name in fields else "") for name in row)


def test_nested_fields_get_dotted_names_and_lists_stay_whole():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([3, 3], "3"),
        ([10, 9, 1.5], "1.5, 9, 10"),
        (["b", "a", None], "a, b, null"),
        (range(1, 8), "1 to 7 (7)"),
        ("abcdef", "a, b, c and 3 others"),
        ([], ""),
    ],
)
def test_the_values_of_a_field_fit_a_cell(found, said):
    assert values(found) == said
