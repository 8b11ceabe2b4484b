"""What the artifacts of a table's rows hold, read and made into columns: losses, metrics, ledgers.

Each function returns a frame whose column `row` counts the rows of the recipe from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.resampling import Floats, percentiles, resampled_means
from coolbits.study.recipes.results import Table

_LOSS_COLUMNS = (
    *("loss", "base_loss", "relative_error", "relative_low", "relative_high"),
    *("absolute_error", "absolute_low", "absolute_high", "scored_tokens", "documents"),
)


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
    columns = outcomes(measured).merge(found, on="row", how="left")
    columns["fallbacks"] = integers([item.fallbacks for item in measured])
    columns["bits_per_byte"] = pd.to_numeric(pd.Series([item.summary.get("bits_per_byte") for item in measured]))
    kinds = {"tokens": pa.int32(), "nats": pa.float64(), "base_nats": pa.float64()}
    lists = {name: pa.array([item[name] for item in scored.values()], pa.list_(kind)) for name, kind in kinds.items()}
    return columns, pa.table({"row": pa.array(list(scored), pa.int32()), **lists})


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
    return pd.concat(frames, ignore_index=True).drop(columns="data_digest", errors="ignore").merge(outcomes(measured))


def ledgers(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return the ledgers of the quantized models, one row a module; a diverged model has none."""
    whole = [(row, item) for row, item in enumerate(measured) if item.outcome == "complete"]
    frames = [pd.read_parquet(item.place / "ledger.parquet").assign(row=row) for row, item in whole]
    found = pd.concat(frames, ignore_index=True).merge(outcomes(measured)) if frames else pd.DataFrame()
    lost = outcomes(measured).query("outcome == 'diverged'")
    return pd.concat([found, lost], ignore_index=True).sort_values("row", kind="stable")


def outcomes(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return how each row's model ended, and since when it has diverged."""
    return pd.DataFrame(
        {
            "row": range(len(measured)),
            "outcome": pd.array([item.outcome for item in measured], dtype="str"),
            "diverged_step": integers([item.diverged_step for item in measured]),
        }
    )


def integers(values: Sequence[Any]) -> pd.api.extensions.ExtensionArray:
    """Return whole numbers, of which some may be missing."""
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
    return pd.DataFrame(columns | {"scored_tokens": integers(scored_tokens), "documents": integers(documents)})


def _paired_documents(item: Measurement, cache: dict[Path, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return tokens, nats and the base's nats of each document, as arrays: thousands of rows make frames too slow."""
    own = _documents(item.place, cache)
    base = own if item.base is None else _documents(item.base, cache)
    demand_same(all(np.array_equal(own[name], base[name]) for name in ("document", "tokens")), item, "documents")
    return {"tokens": own["tokens"], "nats": own["nats"], "base_nats": base["nats"]}


def _documents(place: Path, cache: dict[Path, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if place not in cache:
        names = ["document", "tokens", "nats"]
        table = read_columns(place / "documents.parquet", names)
        cache[place] = {name: table.column(name).to_numpy() for name in names}
    return cache[place]


def demand_same(same: bool, item: Measurement, what: str) -> None:
    """Refuse a row that was not scored as its base was."""
    if not same:
        raise CoolbitsError(f"{item.place}: scored on other {what} than its base {item.base}; evaluate both alike")


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Read a file of an evaluation, which must have these columns and a row at least; others may be there."""
    try:
        table = pq.read_table(path, use_threads=False)
    except FileNotFoundError:
        raise missing(path) from None
    absent = [name for name in names if name not in table.column_names]
    if absent or not len(table):
        raise CoolbitsError(f"{path}: {'no column ' + ', '.join(absent) if absent else 'no rows'}; score it again")
    return table


def missing(path: Path) -> CoolbitsError:
    """Return what to say of a file that a complete evaluation has not."""
    return CoolbitsError(f"{path}: no such file; its evaluation is complete and should have written it")
