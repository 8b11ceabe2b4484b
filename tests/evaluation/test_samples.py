"""What is kept of lm-eval's results: groups numbered through, filters named, only finite numbers in JSON."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from coolbits.evaluation.samples import write_results

HASHES = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}


def sample(acc: float, response: float = -1.0, task_filter: str = "none") -> dict:
    return {
        "doc": {"q": "?"},
        "target": 0,
        "resps": [[(response, False)]],
        "filter": task_filter,
        "metrics": ["acc", "f1"],
        "acc": acc,
        "f1": (0, np.int64(1)),
        **HASHES,
    }


def results(**changes) -> dict:
    return {
        "results": {"leaf_a": {"acc,none": 0.5}, "leaf_b": {"acc,none": 1.0}},
        "groups": {"group": {"alias": "group", "acc,none": 2 / 3, "acc_stderr,none": "N/A", "sample_len": 3}},
        "samples": {"leaf_a": [sample(0), sample(1)], "leaf_b": [sample(1)]},
        "requests": {"leaf_a": {"made": 8, "cut": 3}, "leaf_b": {"made": 4, "cut": 0}},
        "config": {"model": "/a/path"},
        "date": 1.0,
    } | changes


def test_samples_of_a_group_are_numbered_through(tmp_path):
    summary = write_results(results(), {"group": ("leaf_a", "leaf_b")}, tmp_path)
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert frame.to_dict("list") == {
        "task": ["group"] * 3,
        "sample": [0, 1, 2],
        "metric": ["acc"] * 3,
        "value": [0.0, 1.0, 1.0],
    }
    assert summary == {"group": {"acc": 2 / 3}, "requests": {"group": {"made": 12, "cut": 3}}}
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(line["task"], line["subtask"], line["sample"]) for line in lines] == [
        ("group", "leaf_a", 0),
        ("group", "leaf_a", 1),
        ("group", "leaf_b", 2),
    ]
    assert lines[0]["f1"] == [0, 1]


def test_what_changes_from_run_to_run_is_left_out(tmp_path):
    write_results(results(), {"leaf_a": ("leaf_a",)}, tmp_path)
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"results", "requests"}


def test_filters_are_part_of_a_metrics_name(tmp_path):
    found = results(
        results={"leaf": {"acc,strict": 1.0, "acc_stderr,strict": 0.0}},
        samples={"leaf": [sample(1, task_filter="strict")]},
        requests={"leaf": {"made": 1, "cut": 0}},
    )
    assert write_results(found, {"leaf": ("leaf",)}, tmp_path)["leaf"] == {"acc,strict": 1.0}
    assert pd.read_parquet(tmp_path / "samples.parquet")["metric"].tolist() == ["acc,strict"]


@pytest.mark.parametrize("value", [True, np.True_, np.int64(1), np.float32(1)], ids=lambda value: type(value).__name__)
def test_a_metric_is_kept_whatever_type_its_number_has(tmp_path, value):
    found = results(samples={"leaf_a": [sample(value)], "leaf_b": [sample(1)]})
    write_results(found, {"leaf_a": ("leaf_a",)}, tmp_path)
    assert pd.read_parquet(tmp_path / "samples.parquet").to_dict("list") == {
        "task": ["leaf_a"],
        "sample": [0],
        "metric": ["acc"],
        "value": [1.0],
    }


def test_what_is_not_finite_is_null_and_said(tmp_path):
    found = results(
        results={"leaf": {"acc,none": math.nan}},
        samples={"leaf": [sample(math.nan, -math.inf)]},
        requests={"leaf": {"made": 1, "cut": 0}},
    )
    summary = write_results(found, {"leaf": ("leaf",)}, tmp_path)
    assert summary["leaf"] == {"acc": None} and summary["non_finite"]
    assert json.loads((tmp_path / "samples.jsonl").read_text())["resps"] == [[[None, False]]]
    assert pd.read_parquet(tmp_path / "samples.parquet")["value"].isna().all()
