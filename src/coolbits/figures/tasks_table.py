"""The scores of tasks, read and made into columns: a row a task and metric of each row of the recipe."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import read_manifest
from coolbits.figures.measurements import Measurement, demand_same, integers, missing, outcomes, read_columns
from coolbits.resampling import Floats, percentiles, resampled_means
from coolbits.rows import is_accuracy
from coolbits.study.recipes.results import Table

_TASK_COLUMNS = (
    *("task", "metric", "value", "base_value", "value_low", "value_high"),
    *("relative_drop", "relative_drop_low", "relative_drop_high", "samples", "requests", "cut_requests"),
)
# What is no mean of the samples, from their mean: lm-eval keeps the log-likelihood of each as its perplexity.
_AGGREGATES: Mapping[str, Callable[[Floats], Floats]] = {"perplexity": lambda means: np.exp(-means)}


def tasks(measured: Sequence[Measurement], recipe: Table) -> pd.DataFrame:
    """Return one row a task and metric: value, base value, relative accuracy drop, with intervals over samples.

    The drop is (acc - acc_q) / (1 - acc) (paper A, section 3.2); a metric that is no accuracy has none (NaN). A model
    that gave scores which are not finite keeps its rows, without numbers: lm-eval counts answers even among NaN.
    `cut_requests` of the `requests` of a task were longer than the model's context, and lost their beginning.

    Raises:
        CoolbitsError: if one measure was taken on other samples of a task, or its requests were not counted.
    """
    cache: dict[Path, pd.DataFrame] = {}
    ended = outcomes(measured).assign(
        fallbacks=integers([item.fallbacks for item in measured]), taken=[item.measure for item in measured]
    )
    pairs = []
    for row, item in enumerate(measured):
        if item.outcome == "complete":
            own = _samples(item.place, cache)
            base = own if item.base is None else _samples(item.base, cache)
            demand_same(own.index.equals(base.index), item, "samples")
            pairs.append(own.assign(base=base["value"], row=row, taken=item.measure).reset_index())
    if not pairs:
        return ended.drop(columns="taken").reindex(columns=[*ended.columns.drop("taken"), *_TASK_COLUMNS])
    groups = pd.concat(pairs, ignore_index=True).groupby(["taken", "task", "metric"], sort=True)
    columns = [_task_columns(str(task), str(metric), group, recipe) for (_, task, metric), group in groups]
    found = pd.concat(columns).merge(_requests(measured), on=["row", "task"], how="left").merge(ended, on="row")
    asked = found[["taken", "task", "metric"]].drop_duplicates()
    lost = ended[ended.outcome == "diverged"].merge(asked, on="taken", how="left")
    every = pd.concat([found, lost], ignore_index=True).drop(columns="taken")
    return every.sort_values("row", kind="stable")


def _task_columns(task: str, metric: str, group: pd.DataFrame, recipe: Table) -> pd.DataFrame:
    """Return estimates and intervals of one task and metric for every row that was scored on it."""
    own, base = (group.pivot(index="row", columns="sample", values=name) for name in ("value", "base"))
    if len(group) < own.size:  # a value may be NaN, and its sample is there all the same
        raise CoolbitsError(f"task {task}: the rows of the table were scored on different samples; score all alike")
    aggregate = _AGGREGATES.get(metric.partition(",")[0], lambda means: means)
    value, base_value = (aggregate(frame.to_numpy(np.float64).mean(axis=1)) for frame in (own, base))
    drawn, base_drawn = (
        aggregate(resampled_means(frame.to_numpy(np.float64), recipe.bootstrap_samples, recipe.seed))
        for frame in (own, base)
    )
    accuracy = is_accuracy(metric)
    low, high = percentiles(drawn, recipe.confidence)
    drop_low, drop_high = percentiles(_drop(drawn, base_drawn, accuracy), recipe.confidence)
    columns = {"row": own.index, "task": task, "metric": metric, "value": value, "base_value": base_value}
    columns |= {"value_low": low, "value_high": high, "relative_drop": _drop(value, base_value, accuracy)}
    columns |= {"relative_drop_low": drop_low, "relative_drop_high": drop_high}
    return pd.DataFrame(columns).assign(samples=integers([own.shape[1]] * len(own)))


def _requests(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return how many requests of each task each complete row made, and how many of them were cut."""
    rows = []
    for row, item in enumerate(measured):
        if item.outcome == "complete":
            if "requests" not in item.summary:
                raise CoolbitsError(f"{item.place}: its summary does not count requests that were cut; score it again")
            counted = item.summary["requests"].items()
            rows += [(row, task, counts["made"], counts["cut"]) for task, counts in counted]
    frame = pd.DataFrame(rows, columns=["row", "task", "requests", "cut_requests"])
    return frame.astype({"requests": "Int64", "cut_requests": "Int64"})


def _drop(value: Floats, base: Floats, accuracy: bool) -> Floats:
    """Return the relative accuracy drop; NaN for another metric, or where the base model makes no error."""
    room = np.where((base < 1) & accuracy, 1 - base, np.nan)
    return (base - value) / room


def _samples(place: Path, cache: dict[Path, pd.DataFrame]) -> pd.DataFrame:
    if place not in cache:
        names = ["task", "metric", "sample", "value"]
        table = read_columns(place / "samples.parquet", names).select(names)
        samples = table.to_pandas().set_index(names[:3]).sort_index()
        broken = samples.index.get_level_values("task").isin(_broken_tasks(place))
        cache[place] = samples.assign(value=samples["value"].mask(broken))
    return cache[place]


def _broken_tasks(place: Path) -> set[str]:
    """Return the tasks with an answer among scores that are not finite, which are null in the lines of the samples."""
    if not read_manifest(place).summary.get("non_finite"):
        return set()
    path = place / "samples.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            return {line["task"] for line in map(json.loads, lines) if _has_null(line["resps"])}
    except FileNotFoundError:
        raise missing(path) from None


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None
