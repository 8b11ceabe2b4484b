"""What is kept of lm-eval's results: every sample, the metrics, nothing that changes from run to run."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coolbits.artifacts.files import write_json, write_text

_KEPT = ("doc", "target", "resps", "filter", "doc_hash", "prompt_hash", "target_hash")
_RESULTS = ("results", "versions", "n-shot", "higher_is_better", "n-samples", "requests")

Results = dict[str, Any]
Leaves = dict[str, tuple[str, ...]]


def write_results(results: Results, leaves: Leaves, directory: Path) -> dict[str, Any]:
    """Write samples.parquet, samples.jsonl and results.json, and return the summary {task: {metric: value}}.

    The summary has `requests` besides, {task: {made, cut}}: how many requests were made, and how many of these were
    longer than the model's context and lost their beginning.

    `leaves` maps a name asked for to lm-eval's tasks behind it: samples of a group are numbered through, under the
    group's name. A value that is no finite number is null in JSON (NaN and infinities stay in the parquet file), and
    the summary then has `non_finite`: true.
    """
    samples = list(_samples(results["samples"], leaves))
    metrics = [row for name, number, _, sample in samples for row in _metric_rows(name, number, sample)]
    frame = pd.DataFrame(metrics, columns=["task", "sample", "metric", "value"])
    frame.astype({"sample": "int64", "value": "float64"}).to_parquet(directory / "samples.parquet", index=False)
    write_text(directory / "samples.jsonl", "".join(f"{_line(*each)}\n" for each in samples))
    write_json(directory / "results.json", _plain({key: results[key] for key in _RESULTS if key in results}))
    scores = results["results"] | results.get("groups", {})
    summary: dict[str, Any] = {name: _plain(_metrics(scores[name])) for name in leaves}
    summary["requests"] = {name: _requests(results["requests"], tasks) for name, tasks in leaves.items()}
    finite = all(_finite(sample["resps"]) for *_, sample in samples)
    return summary if finite else summary | {"non_finite": True}


def _samples(by_task: dict[str, list[Results]], leaves: Leaves) -> Iterator[tuple[str, int, str, Results]]:
    """Yield name asked for, number within it, lm-eval's task and the sample."""
    for name, tasks in leaves.items():
        number = 0
        for task in tasks:
            for sample in by_task[task]:
                yield name, number, task, sample
                number += 1


def _metric_rows(name: str, number: int, sample: Results) -> Iterator[tuple[str, int, str, float]]:
    for metric in sample["metrics"]:
        if isinstance(sample[metric], int | float | np.number | np.bool_):
            yield name, number, _label(metric, sample["filter"]), float(sample[metric])


def _label(metric: str, task_filter: str) -> str:
    return metric if task_filter == "none" else f"{metric},{task_filter}"


def _metrics(scores: Results) -> dict[str, float]:
    """Return lm-eval's aggregated metrics by our names: "acc,none" becomes "acc"; error bars are left out."""
    return {
        _label(*key.split(",", 1)): value
        for key, value in scores.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }


def _requests(by_task: dict[str, dict[str, int]], tasks: tuple[str, ...]) -> dict[str, int]:
    return {count: sum(by_task[task][count] for task in tasks) for count in ("made", "cut")}


def _line(name: str, number: int, task: str, sample: Results) -> str:
    kept = {key: sample[key] for key in (*_KEPT, *sample["metrics"])}
    return json.dumps(_plain({"task": name, "sample": number, "subtask": task, **kept}), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return `value` as JSON holds it: lists for tuples, plain numbers for NumPy's, null for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
