"""Moves: how the numbers of two tables differ, row by row."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.pairs import Columns, match_rows
from coolbits.study.recipes.results import TABLE

_ORDER = ("run", "model", "optimizer", "states", "peak_lr", "seed", "average", "step", "quantizer", "task", "metric")
_NO_MEASURE = ("row", "diverged_step")
_BOUNDS = ("_low", "_high")


@dataclass(frozen=True)
class Move:
    """How a column moved: rows whose value changed, and the rows where it moved most, by difference and by ratio.

    `largest` and `largest_relative` are (where, value before, value after).
    """

    column: str
    rows: int
    moved: int
    largest: tuple[str, float, float]
    largest_relative: tuple[str, float, float]


@dataclass(frozen=True)
class Moves:
    """Two tables side by side: how many rows answer to each other, how many are in one only, and what moved."""

    table: str
    rows: int
    only_first: int
    only_second: int
    outcomes: int
    columns: tuple[Move, ...]


def compare_tables(label: str, one: Path, two: Path, described: set[str]) -> Moves:
    """Compare `table.parquet` of two tables; `described` names the columns that come from recipes, not measurements.

    Raises:
        CoolbitsError: if one of them cannot be read.
    """
    first, second = _read(one / TABLE), _read(two / TABLE)
    shared = [str(name) for name in first if name in second]
    measured = [name for name in shared if name not in described and _is_measured(name, first)]
    places = match_rows(_keys(first, measured), _keys(second, measured))
    left = first.iloc[[place for place, _ in places]].reset_index(drop=True)
    right = second.iloc[[place for _, place in places]].reset_index(drop=True)
    outcomes = int((left["outcome"] != right["outcome"]).sum()) if "outcome" in left and "outcome" in right else 0
    shown = [name for name in measured if not name.endswith(_BOUNDS)]
    moves = [move for name in shown if (move := _move(name, left, right))]
    return Moves(label, len(places), len(first) - len(places), len(second) - len(places), outcomes, tuple(moves))


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise CoolbitsError(f"{path}: not readable as a table ({error}); `coolbits audit` says more") from None


def _is_measured(name: str, table: pd.DataFrame) -> bool:
    numeric = is_numeric_dtype(table[name]) and not is_bool_dtype(table[name])
    return numeric and name not in ("step", "tokens", *_NO_MEASURE)


def _keys(table: pd.DataFrame, measured: list[str]) -> list[Columns]:
    return table.drop(columns=[*measured, "outcome", *_NO_MEASURE], errors="ignore").to_dict("records")  # type: ignore[return-value]


def _move(name: str, left: pd.DataFrame, right: pd.DataFrame) -> Move | None:
    before, after = left[name].astype("float64"), right[name].astype("float64")
    both = before.notna() & after.notna()
    difference = (after - before).abs()[both]
    if not (difference > 0).any():
        return None
    relative = (difference / before.abs()[both]).where(before[both] != 0)
    rows = left[both].reset_index(drop=True)
    values = before[both].tolist(), after[both].tolist()
    places = (int(difference.argmax()), int(relative.fillna(0).argmax()))
    largest = [(_where(rows, place), values[0][place], values[1][place]) for place in places]
    return Move(name, len(rows), int((difference > 0).sum()), largest[0], largest[1])


def _where(rows: pd.DataFrame, place: int) -> str:
    """Name a row by what tells it from the others."""
    names = [name for name in _ORDER if name in rows and rows[name].nunique(dropna=False) > 1]
    row = rows.iloc[place]
    return ", ".join(f"{name} {row[name]}" for name in names if pd.notna(row[name]))
