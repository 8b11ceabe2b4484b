"""What the artifacts of a table's rows hold, read and made into columns: losses, tasks, metrics, ledgers.

Each function returns a frame whose column `row` counts the rows of the recipe from 0.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import read_manifest
from coolbits.resampling import Floats, percentiles, resampled_means
from coolbits.rows import is_accuracy
from coolbits.study.recipes.results import Table

_LOSS_COLUMNS = (
    *("loss", "base_loss", "relative_error", "relative_low", "relative_high"),
    *("absolute_error", "absolute_low", "absolute_high", "scored_tokens", "documents"),
)
_TASK_COLUMNS = (
    *("task", "metric", "value", "base_value", "value_low", "value_high"),
    *("relative_drop", "relative_drop_low", "relative_drop_high", "samples", "requests", "cut_requests"),
)
# What is no mean of the samples, from their mean: lm-eval keeps the log-likelihood of each as its perplexity.
_AGGREGATES: Mapping[str, Callable[[Floats], Floats]] = {"perplexity": lambda means: np.exp(-means)}


@dataclass(frozen=True)
class Measurement:
    """A row's artifact: its place, the base's place, what its manifest says.

    `outcome` and `diverged_step` are as known by now; if later than the artifact was made, `summary` is empty.
    `measure` is, of an evaluation, what was measured, as canonical JSON.
    """

    place: Path
    base: Path | None
    summary: dict[str, Any]
    fallbacks: int
    outcome: str
    diverged_step: int | None
    measure: str = ""


def losses(measured: Sequence[Measurement], recipe: Table) -> tuple[pd.DataFrame, pa.Table]:
    """Return the loss columns, and the tokens and nats of each row's documents.

    Relative error is CE(quantized) / CE(base) - 1, absolute error CE(quantized) - CE(base), in nats per token;
    intervals are percentile bootstraps over documents, paired (paper A, section 3.1). A row without a base is its
    own: its errors are 0. A quantized model whose loss is not finite keeps its row, without numbers.

    Raises:
        CoolbitsError: if a row and its base were not scored on the same documents.
    """
    cache: dict[Path, dict[str, np.ndarray]] = {}
    scored = {row: _paired_documents(item, cache) for row, item in enumerate(measured) if item.outcome == "complete"}
    blocks = []
    for count in sorted({len(frame["tokens"]) for frame in scored.values()}):
        rows = [row for row, frame in scored.items() if len(frame["tokens"]) == count]
        blocks.append(_loss_columns([scored[row] for row in rows], recipe).assign(row=rows))
    found = pd.concat(blocks) if blocks else pd.DataFrame(columns=["row", *_LOSS_COLUMNS])
    columns = _outcomes(measured).merge(found, on="row", how="left")
    columns["fallbacks"] = _integers([item.fallbacks for item in measured])
    columns["bits_per_byte"] = pd.to_numeric(pd.Series([item.summary.get("bits_per_byte") for item in measured]))
    kinds = {"tokens": pa.int32(), "nats": pa.float64(), "base_nats": pa.float64()}
    lists = {name: pa.array([item[name] for item in scored.values()], pa.list_(kind)) for name, kind in kinds.items()}
    return columns, pa.table({"row": pa.array(list(scored), pa.int32()), **lists})


def tasks(measured: Sequence[Measurement], recipe: Table) -> pd.DataFrame:
    """Return one row a task and metric: value, base value, relative accuracy drop, with intervals over samples.

    The drop is (acc - acc_q) / (1 - acc) (paper A, section 3.2); a metric that is no accuracy has none (NaN). A model
    that gave scores which are not finite keeps its rows, without numbers: lm-eval counts answers even among NaN.
    `cut_requests` of the `requests` of a task were longer than the model's context, and lost their beginning.

    Raises:
        CoolbitsError: if one measure was taken on other samples of a task, or its requests were not counted.
    """
    cache: dict[Path, pd.DataFrame] = {}
    outcomes = _outcomes(measured).assign(
        fallbacks=_integers([item.fallbacks for item in measured]), taken=[item.measure for item in measured]
    )
    pairs = []
    for row, item in enumerate(measured):
        if item.outcome == "complete":
            own = _samples(item.place, cache)
            base = own if item.base is None else _samples(item.base, cache)
            _demand_same(own.index.equals(base.index), item, "samples")
            pairs.append(own.assign(base=base["value"], row=row, taken=item.measure).reset_index())
    if not pairs:
        return outcomes.drop(columns="taken").reindex(columns=[*outcomes.columns.drop("taken"), *_TASK_COLUMNS])
    groups = pd.concat(pairs, ignore_index=True).groupby(["taken", "task", "metric"], sort=True)
    columns = [_task_columns(str(task), str(metric), group, recipe) for (_, task, metric), group in groups]
    found = pd.concat(columns).merge(_requests(measured), on=["row", "task"], how="left").merge(outcomes, on="row")
    asked = found[["taken", "task", "metric"]].drop_duplicates()
    lost = outcomes[outcomes.outcome == "diverged"].merge(asked, on="taken", how="left")
    every = pd.concat([found, lost], ignore_index=True).drop(columns="taken")
    return every.sort_values("row", kind="stable")


def metrics(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return the training metrics of every row's trajectory up to its checkpoint, one row a logged step."""
    frames = []
    for row, item in enumerate(measured):
        path = item.place / "metrics.parquet"
        if path.is_file():
            frame = pd.read_parquet(path)
        elif item.outcome == "diverged":
            frame = pd.DataFrame({"step": [item.diverged_step], "tokens": [pd.NA], "loss": [np.nan]})
        else:
            raise CoolbitsError(f"{path}: no metrics; a table of metrics takes the last checkpoint of a trajectory")
        frames.append(frame.assign(row=row))
    return pd.concat(frames, ignore_index=True).drop(columns="data_digest", errors="ignore").merge(_outcomes(measured))


def ledgers(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return the ledgers of the quantized models, one row a module; a diverged model has none."""
    whole = [(row, item) for row, item in enumerate(measured) if item.outcome == "complete"]
    frames = [pd.read_parquet(item.place / "ledger.parquet").assign(row=row) for row, item in whole]
    found = pd.concat(frames, ignore_index=True).merge(_outcomes(measured)) if frames else pd.DataFrame()
    lost = _outcomes(measured).query("outcome == 'diverged'")
    return pd.concat([found, lost], ignore_index=True).sort_values("row", kind="stable")


def _outcomes(measured: Sequence[Measurement]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(len(measured)),
            "outcome": pd.array([item.outcome for item in measured], dtype="str"),
            "diverged_step": _integers([item.diverged_step for item in measured]),
        }
    )


def _integers(values: Sequence[Any]) -> pd.api.extensions.ExtensionArray:
    return pd.array(values, dtype="Int64")


def _errors(tokens: Floats, nats: Floats, base: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    loss, full = nats / tokens, base / tokens
    return loss, full, loss / full - 1, loss - full


def _loss_columns(scored: Sequence[Mapping[str, np.ndarray]], recipe: Table) -> pd.DataFrame:
    """Return estimates and intervals of models scored on equally many documents."""
    arrays = [np.stack([item[name] for item in scored]).astype(np.float64) for name in ("tokens", "nats", "base_nats")]
    estimates = _errors(*(values.mean(axis=1, keepdims=True) for values in arrays))
    drawn = _errors(*(resampled_means(values, recipe.bootstrap_samples, recipe.seed) for values in arrays))
    columns = {"loss": estimates[0][:, 0], "base_loss": estimates[1][:, 0]}
    for name, estimate, draws in zip(("relative", "absolute"), estimates[2:], drawn[2:], strict=True):
        low, high = percentiles(draws, recipe.confidence)
        columns |= {f"{name}_error": estimate[:, 0], f"{name}_low": low, f"{name}_high": high}
    scored_tokens, documents = arrays[0].sum(axis=1), [arrays[0].shape[1]] * len(scored)
    return pd.DataFrame(columns | {"scored_tokens": _integers(scored_tokens), "documents": _integers(documents)})


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
    return pd.DataFrame(columns).assign(samples=_integers([own.shape[1]] * len(own)))


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


def _paired_documents(item: Measurement, cache: dict[Path, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return tokens, nats and the base's nats of each document, as arrays: thousands of rows make frames too slow."""
    own = _documents(item.place, cache)
    base = own if item.base is None else _documents(item.base, cache)
    _demand_same(all(np.array_equal(own[name], base[name]) for name in ("document", "tokens")), item, "documents")
    return {"tokens": own["tokens"], "nats": own["nats"], "base_nats": base["nats"]}


def _documents(place: Path, cache: dict[Path, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if place not in cache:
        names = ["document", "tokens", "nats"]
        table = _read(place / "documents.parquet", names)
        cache[place] = {name: table.column(name).to_numpy() for name in names}
    return cache[place]


def _samples(place: Path, cache: dict[Path, pd.DataFrame]) -> pd.DataFrame:
    if place not in cache:
        names = ["task", "metric", "sample", "value"]
        table = _read(place / "samples.parquet", names).select(names)
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
        raise _missing(path) from None


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _demand_same(same: bool, item: Measurement, what: str) -> None:
    if not same:
        raise CoolbitsError(f"{item.place}: scored on other {what} than its base {item.base}; evaluate both alike")


def _read(path: Path, names: list[str]) -> pa.Table:
    try:
        table = pq.read_table(path, use_threads=False)
    except FileNotFoundError:
        raise _missing(path) from None
    absent = [name for name in names if name not in table.column_names]
    if absent or not len(table):
        raise CoolbitsError(f"{path}: {'no column ' + ', '.join(absent) if absent else 'no rows'}; score it again")
    return table


def _missing(path: Path) -> CoolbitsError:
    return CoolbitsError(f"{path}: no such file; its evaluation is complete and should have written it")
