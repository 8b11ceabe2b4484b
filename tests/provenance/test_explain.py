"""The page says what a reader wants to know, each thing once, from manifests and records alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.provenance.explain import explain
from coolbits.provenance.lineage import trace
from coolbits.provenance.page import page
from coolbits.provenance.recipes import contrast, flatten, values

FIGURE = ("figure", "tiny/tokens")


@pytest.fixture
def explained(lab):
    lineage = trace(lab.root, [FIGURE])
    return explain(lineage.artifacts[FIGURE], lineage)


def test_it_counts_what_it_took(explained, lab):
    assert explained.caption == "What it shows."
    assert explained.tokens == 20 * 256
    assert explained.seeds == [0]
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
        "snakemake --cores all --configfile STUDY.yaml results/figure/tiny/tokens/manifest.json",
    ]


def test_the_recipe_is_said_by_run_and_what_is_common_once(explained):
    checkpoints = explained.recipes["checkpoint"]
    assert [label for label, _ in checkpoints.groups] == ["trunk"]
    assert checkpoints.common["peak_lr"] == 0.01
    assert explained.recipes["quantized"].common["method.grid.bits"] == 3


def test_the_page_is_plain_text_that_fits_a_screen(explained):
    text = page(explained)
    assert text.startswith("figure/tiny/tokens\n  What it shows.\n")
    for part in ("9 artifacts", "5.12k tokens trained, seeds 0", "peak_lr 0.01", f"commit {'c' * 40} (9 artifacts)"):
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


def test_json_has_all_of_it(explained):
    read = json.loads(json.dumps(explained.to_json()))
    assert read["recipes"]["table"]["common"] == {"content": "loss"}
    assert read["tokens"] == 5120


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
