"""Contrasts between rows that several claims take: pairs, trends, comparisons at equal loss."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.settings import HORIZON, SEEDS, SETTING, TUNED, of_best_settings

# What cooldowns of a trunk, and runs of one schedule, have in common at all budgets.
_AT_ALL_BUDGETS = (*SETTING, "run", "schedule", "decay_shape", "final_fraction")
_GRID = 32

Mask = NDArray[np.bool_]  # of comparisons


def all_but(*names: str) -> list[str]:
    """Return the columns in which runs must agree that are to differ in `names` alone."""
    return [name for name in (*SETTING, *HORIZON) if name not in names]


def paired(evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame, column: str) -> Effect | None:
    """Return the effect `second - first` of rows paired in order, a unit a seed; None without rows.

    `second` are ends of runs, and all seeds are compared at the same of their horizons, see `even`.
    """
    if first.empty:
        return None
    one, other = even(evidence, first, second)
    values = evidence.of(other, column) - evidence.of(one, column)
    return Effect(by_unit(one.seed, values), len(one), uneven=len(first) - len(one))


def even(
    evidence: Evidence, first: pd.DataFrame, second: pd.DataFrame, least: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs, in order, that have their like in every unit; `second` says at which model and horizon.

    So each unit's mean, or slope over `least` horizons, is over the same ones.
    """
    kept = in_every_unit(evidence.units(second)[0], second[list(evidence.cells)], least)
    return first[kept], second[kept]


def in_every_unit(units: Iterable[object], cells: pd.DataFrame, least: int = 1) -> Mask:
    """Return which comparisons make a full table of units and cells: of most units, then of most cells.

    Args:
        units: of each comparison
        cells: columns in which it agrees with its like in other units
        least: cells that a unit must have
    """
    table = pd.DataFrame({"unit": list(units), "cell": cells.groupby(list(cells), dropna=False).ngroup().to_numpy()})
    having = {cell: frozenset(own) for cell, own in table.groupby("cell").unit}
    common = dict.fromkeys(one & other for one in having.values() for other in having.values())
    full = [(some, [cell for cell, own in having.items() if some <= own]) for some in common if some]
    enough = [(some, shared) for some, shared in full if len(shared) >= least]
    most, kept = max(enough, key=lambda choice: (len(choice[0]), len(choice[1])), default=(frozenset(), []))
    return (table.unit.isin(most) & table.cell.isin(kept)).to_numpy()


def along_runs(
    evidence: Evidence,
    first: pd.DataFrame,
    second: pd.DataFrame,
    measure: Callable[[pd.DataFrame, pd.DataFrame], Floats | None],
) -> Effect | None:
    """Return `measure` of whole runs that end in the rows of `first` and `second`, paired in order, a unit a seed.

    Pairs of which there is no measure (None) are left out, and those that are not `even`.
    """
    whole = dict(iter(evidence.runs.groupby("path")))
    measured = [measure(whole[one], whole[other]) for one, other in zip(first.path, second.path, strict=True)]
    found = dict(enumerate(values for values in measured if values is not None))
    if not found:
        return None
    known = second[[values is not None for values in measured]].reset_index(drop=True)
    kept, _ = even(evidence, known, known)
    values = np.stack([found[place] for place in kept.index])
    return Effect(by_unit(kept.seed, values), len(kept), uneven=len(known) - len(kept))


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


def beside_lost(
    effect: Effect | None, evidence: Evidence, compared: pd.DataFrame, alike: Sequence[str] = _AT_ALL_BUDGETS
) -> Effect | None:
    """Return `effect`, and how many runs `alike` with the ends `compared` diverged; by default those of any budget."""
    if effect is None:
        return None
    kinds = compared[list(alike)].drop_duplicates()
    lost = evidence.outcomes.query("outcome == 'diverged'").merge(kinds, on=list(alike))
    return replace(effect, lost=lost.trajectory.nunique())


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
    rows: pd.DataFrame, measure: Callable[[pd.DataFrame], Floats | None], compared: pd.DataFrame, uneven: int = 0
) -> Effect | None:
    """Return `measure` of the rows of each seed, and how many were `compared`; seeds that lack rows are in neither.

    `uneven` were left out before, see `even`.
    """
    found = {seed: measure(group) for seed, group in rows.groupby("seed")}
    units = {seed: values for seed, values in found.items() if values is not None}
    n = int(compared.seed.isin(list(units)).sum())
    return Effect({str(seed): values for seed, values in units.items()}, n, uneven=uneven) if units else None


def over_orders(measure: Callable[[pd.DataFrame], Floats | None]) -> Callable[[pd.DataFrame], Floats | None]:
    """Return `measure` as the mean over the orders in which runs of one seed read the data; None if none has any."""

    def mean(rows: pd.DataFrame) -> Floats | None:
        measured = [measure(group) for _, group in rows.groupby("data_seed")]
        found = [values for values in measured if values is not None]
        return np.mean(found, axis=0) if found else None

    return mean
