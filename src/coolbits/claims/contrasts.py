"""Contrasts between rows that several claims take: pairs by seed, trends, comparisons at equal loss."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats

_GRID = 32


def by_unit(units: Iterable[Any], values: Floats) -> dict[str, Floats]:
    """Return the mean of `values`, shape [comparisons, 1 + samples], over the comparisons of each unit."""
    labels = np.array([str(unit) for unit in units])
    return {label: values[labels == label].mean(axis=0) for label in dict.fromkeys(labels)}


def paired(evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame, column: str) -> Effect | None:
    """Return the effect `second - first` of rows paired in order, a unit a seed; None without rows."""
    if first.empty:
        return None
    values = evidence.of(second, column) - evidence.of(first, column)
    return Effect(by_unit(first.seed, values), len(first))


def slope(values: Floats, x: Floats) -> Floats:
    """Return the least-squares slope of `values`, shape [rows, samples], on `x`, shape [rows]."""
    centred = x - x.mean()
    return (centred / (centred**2).sum()) @ values


def at_equal_loss(evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame) -> Floats | None:
    """Return the error of run `second` less that of run `first` at the same full-precision loss: [1 + samples].

    Errors are interpolated between checkpoints on a grid over the losses that both runs passed; the mean over the grid
    is taken. Losses are matched by their estimates: a resample of the documents moves all of them together.
    None if the runs share no losses.
    """
    losses = [evidence.of(run, "full")[:, 0] for run in (first, second)]
    low, high = max(loss.min() for loss in losses), min(loss.max() for loss in losses)
    if low >= high:
        return None
    grid = np.linspace(low, high, _GRID)
    of_first, of_second = (
        mean_weights(loss, grid) @ evidence.of(run, "error") for loss, run in zip(losses, (first, second), strict=True)
    )
    difference: Floats = of_second - of_first
    return difference


def mean_weights(x: Floats, grid: Floats) -> Floats:
    """Return the weight of each row, at `x`, in the mean over `grid` of the linear interpolation through the rows."""
    order = np.argsort(x)
    hats = np.eye(len(x))
    return np.array([np.interp(grid, x[order], hats[row][order]).mean() for row in range(len(x))])


def most_varied(rows: pd.DataFrame, alike: list[str], varied: str) -> pd.DataFrame:
    """Return the rows of the group, equal in `alike`, with most values of `varied`; empty if no group has two."""
    counts = rows.groupby(alike, dropna=False)[varied].nunique()
    if counts.empty or counts.max() < 2:
        return rows.iloc[:0]
    best = pd.DataFrame([counts.idxmax()], columns=alike).astype(rows[alike].dtypes)
    return rows.merge(best, on=alike)


def over_seeds(rows: pd.DataFrame, measure: Callable[[pd.DataFrame], Floats | None], n: int) -> Effect | None:
    """Return `measure` of the rows of each seed as an effect of `n` comparisons; seeds that lack rows are left out."""
    found = {str(seed): measure(group) for seed, group in rows.groupby("seed")}
    units = {seed: values for seed, values in found.items() if values is not None}
    return Effect(units, n) if units else None
