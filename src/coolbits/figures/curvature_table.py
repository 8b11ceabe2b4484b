"""Curvature, its predictions and landscapes, read and made into columns: what belongs to a model stands in each row.

Each function returns a frame whose column `row` counts the rows of the recipe from 0. A model that diverged keeps one
row, without numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.measurements import Measurement

_CURVATURE = ("loss", "trace", "trace_error", "probes", "top_eigenvalue", "weights")
_PREDICTION = (
    *("loss", "quantized_loss", "increase", "predicted", "linear", "quadratic"),
    *("squared_norm", "curvature", "random", "random_error", "weights"),
)
_LANDSCAPE = (
    *("loss", "previous_loss", "quantized_loss"),
    *("previous_distance", "quantized_distance", "cosine"),
)


def curvatures(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return one row an eigenvalue, from the largest: `rank` (from 1), `eigenvalue`, `residual`, and the trace."""
    names = {"rank": "rank", "value": "eigenvalue", "residual": "residual"}
    return _joined(measured, "eigenvalues.parquet", names, _CURVATURE).astype({"rank": "Int64"})


def predictions(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return one row a module: its parts of prediction and error as `module_...`, and those of the whole model."""
    own = ("weights", "squared_norm", "linear", "quadratic")
    names = {"module": "module"} | {name: f"module_{name}" for name in own}
    return _joined(measured, "modules.parquet", names, _PREDICTION)


def landscapes(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return one row a point of the grid, `x`, `y` and `grid_loss`, and where the three models lie."""
    names = {"x": "x", "y": "y", "loss": "grid_loss"}
    return _joined(measured, "grid.parquet", names, _LANDSCAPE)


def _joined(
    measured: Sequence[Measurement], file: str, names: Mapping[str, str], summary: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of every artifact's file, columns renamed, beside values of its summary; None is NaN."""
    frames = []
    for row, item in enumerate(measured):
        own = pd.DataFrame(dict.fromkeys(names), index=[0])
        if item.outcome == "complete":
            own = _read(item, file)[list(names)]
        values: dict[str, Any] = {name: item.summary.get(name) for name in summary}
        values |= {"row": row, "outcome": item.outcome, "diverged_step": item.diverged_step}
        values["fallbacks"] = item.fallbacks
        frames.append(own.rename(columns=names).assign(**values))
    table = pd.concat(frames, ignore_index=True)
    numbers = [name for name in (*names.values(), *summary) if name != "module"]
    table[numbers] = table[numbers].astype("float64")
    return table.astype({"outcome": "str", "diverged_step": "Int64", "fallbacks": "Int64"})


def _read(item: Measurement, file: str) -> pd.DataFrame:
    path = item.place / file
    if not path.is_file():
        raise CoolbitsError(f"{path}: no such file; its evaluation is complete and should have written it")
    return pd.read_parquet(path)
