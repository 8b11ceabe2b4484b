"""Contrasts between rows that several claims take: pairs, trends, comparisons at equal loss."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.settings import HORIZON, SEEDS, SETTING, TUNED, of_best_settings

_GRID = 32


def all_but(*names: str) -> list[str]:
    """Return the columns in which runs must agree that are to differ in `names` alone."""
    return [name for name in (*SETTING, *HORIZON) if name not in names]


def paired(evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame, column: str) -> Effect | None:
    """Return the effect `second - first` of rows paired in order, a unit a seed; None without rows."""
    if first.empty:
        return None
    values = evidence.of(second, column) - evidence.of(first, column)
    return Effect(by_unit(first.seed, values), len(first))


def along_runs(
    evidence: Evidence,
    first: pd.DataFrame,
    second: pd.DataFrame,
    measure: Callable[[pd.DataFrame, pd.DataFrame], Floats | None],
) -> Effect | None:
    """Return `measure` of whole runs that end in the rows of `first` and `second`, paired in order, a unit a seed.

    Pairs of which there is no measure (None) are left out.
    """
    whole = dict(iter(evidence.runs.groupby("path")))
    pairs = zip(first.seed, first.path, second.path, strict=True)
    measured = [(seed, measure(whole[one], whole[other])) for seed, one, other in pairs]
    found = [(seed, values) for seed, values in measured if values is not None]
    if not found:
        return None
    return Effect(by_unit([seed for seed, _ in found], np.stack([values for _, values in found])), len(found))


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
    if first.empty or second.empty:
        return None
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


def with_equal_losses(
    evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame, margin: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs, in order, whose full-precision losses are within `margin` percent of each other.

    For ends of runs: a run has one, so that there is nothing to interpolate between.
    """
    loss, other = (evidence.of(rows, "full")[:, 0] for rows in (first, second))
    equal = np.abs(other / loss - 1) <= margin / 100
    return first[equal], second[equal]


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that did not diverge."""
    return rows[rows.outcome == "complete"]


def at_best(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the ends at the variant's best setting, all of them if every run diverged."""
    best = of_best_settings(rows)
    return best if len(best) else rows


def with_lost(effect: Effect | None, on_trial: pd.DataFrame, peers: pd.DataFrame) -> Effect | None:
    """Return `effect`, and how many of the runs `on_trial`, and of the `peers` that they are compared with, diverged.

    If every run on trial did, the effect has no units. What two entries of the study share counts once.
    """
    tried, beside = (rows.drop_duplicates("trajectory").outcome == "diverged" for rows in (on_trial, peers))
    if effect is None and (tried.empty or not tried.all()):
        return None
    return replace(effect or Effect({}, 0), diverged=int(tried.sum()), runs=len(tried), lost_peers=int(beside.sum()))


def without_lost_twins(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `second` without those at a setting, seed and order of the data at which `first` diverged."""
    same = [name for name in (*TUNED, *SEEDS) if name in first and name in second]
    lost = first.loc[first.outcome == "diverged", same].drop_duplicates()
    beside = second.merge(lost, on=same, how="left", indicator="twin")
    return beside[beside.twin == "left_only"]


def while_constant(run: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a run between its warmup and its decay."""
    return run[run.phase == "stable"]


def mean_weights(x: Floats, grid: Floats) -> Floats:
    """Return the weight of each row, at `x`, in the mean over `grid` of the linear interpolation through the rows."""
    order = np.argsort(x)
    hats = np.eye(len(x))
    return np.array([np.interp(grid, x[order], hats[row][order]).mean() for row in range(len(x))])


def most_varied(rows: pd.DataFrame, alike: list[str], varied: str) -> pd.DataFrame:
    """Return the rows of the group, equal in `alike`, with most values of `varied`, of several the one with most runs.

    Runs that diverged count only where no group has two values without them. No rows if none has two with them. A null
    in `alike` equals a null.
    """
    finished = rows.assign(finished=rows[varied].where(rows.outcome == "complete"))
    groups = finished.groupby(alike, dropna=False)
    counts = groups.agg(tried=(varied, "nunique"), values=("finished", "nunique"), runs=("finished", "count"))
    ranked = counts[counts.tried > 1].sort_values(["values", "runs"], ascending=False, kind="stable")
    if ranked.empty:
        return rows.iloc[:0]
    most = ranked.index[:1].to_frame(index=False)
    return rows.merge(most.astype(rows[alike].dtypes), on=alike)


def independent(sets: Sequence[Collection[str]]) -> list[str]:
    """Return a label for each set: the same for those that share a member, with each other or by way of others."""
    unions: list[set[str]] = []
    for own in map(set, sets):
        shared = [union for union in unions if union & own]
        unions = [*(union for union in unions if not union & own), own.union(*shared)]
    return [" ".join(sorted(union)) for own in sets for union in unions if union.issuperset(own)]


def over_seeds(
    rows: pd.DataFrame, measure: Callable[[pd.DataFrame], Floats | None], compared: pd.DataFrame
) -> Effect | None:
    """Return `measure` of the rows of each seed, and how many were `compared`; seeds that lack rows are in neither."""
    found = {seed: measure(group) for seed, group in rows.groupby("seed")}
    units = {seed: values for seed, values in found.items() if values is not None}
    n = int(compared.seed.isin(list(units)).sum())
    return Effect({str(seed): values for seed, values in units.items()}, n) if units else None


def over_orders(measure: Callable[[pd.DataFrame], Floats | None]) -> Callable[[pd.DataFrame], Floats | None]:
    """Return `measure` as the mean over the orders in which runs of one seed read the data; None if none has any."""

    def mean(rows: pd.DataFrame) -> Floats | None:
        measured = [measure(group) for _, group in rows.groupby("data_seed")]
        found = [values for values in measured if values is not None]
        return np.mean(found, axis=0) if found else None

    return mean
