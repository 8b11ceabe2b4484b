"""Claims about the peak learning rate, the weight decay and the optimizer (paper A, sections 4 and 5; Muon: none)."""

from itertools import pairwise

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import at_equal_loss, by_unit, most_varied, over_seeds, paired, slope
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats
from coolbits.rows import best_settings, ends, runs

WELL_TRAINED = 1.05  # a rate counts if its final loss is at most this times the best rate's
ADAMC_MARGIN = 10.0  # percent of AdamW's error
_ALIKE = ["model", "optimizer", "weight_decay", "schedule", "budget_tokens"]


def higher_rate_lowers_error(evidence: Evidence) -> Effect | None:
    """Fall of the final error with each tenfold peak rate, among well-trained rates."""
    rows = _rates(evidence)

    def fall(rows: pd.DataFrame) -> Floats | None:
        if rows.peak_lr.nunique() < 2:
            return None
        return -slope(evidence.of(rows, "error"), np.log10(rows.peak_lr.to_numpy(float)))

    return over_seeds(rows, fall, len(rows))


def higher_rate_lowers_error_at_equal_loss(evidence: Evidence) -> Effect | None:
    """Error of the lower less that of the next higher peak rate at equal full-precision loss along whole runs."""
    rows, whole = _rates(evidence), runs(evidence.rows)

    def fall(rows: pd.DataFrame) -> Floats | None:
        paths = rows.sort_values("peak_lr").path
        found = [
            at_equal_loss(evidence, whole[whole.path == higher], whole[whole.path == lower])
            for lower, higher in pairwise(paths)
        ]
        matched = [values for values in found if values is not None]
        return np.mean(matched, axis=0) if matched else None

    return over_seeds(rows, fall, len(rows))


def larger_weight_decay_lowers_error(evidence: Evidence) -> Effect | None:
    """Final error with the smallest less that with the largest weight decay."""
    alike = ["model", "optimizer", "peak_lr", "schedule", "budget_tokens"]
    rows = most_varied(ends(evidence.rows), alike, "weight_decay")
    return _compare(evidence, rows, "weight_decay", rows.weight_decay.max(), rows.weight_decay.min())


def adamc_equals_adamw(evidence: Evidence) -> Effect | None:
    """Final error under AdamC relative to that under AdamW, less 1, in percent."""
    rows = ends(evidence.rows)
    rows = rows[rows.optimizer.isin(["adamw", "adamc"])]
    rows = most_varied(rows, ["model", "weight_decay", "peak_lr", "schedule", "budget_tokens"], "optimizer")
    first, second = _matched(rows, "optimizer", "adamw", "adamc")
    if first.empty:
        return None
    ratio = 100 * (evidence.of(second, "error") / evidence.of(first, "error") - 1)
    return Effect(by_unit(first.seed, ratio), len(first), ADAMC_MARGIN)


def muon_vs_adamw(evidence: Evidence) -> Effect | None:
    """Final error under Muon less that under AdamW, each at its best peak rate."""
    return _compare(evidence, _best(evidence), "optimizer", "adamw", "muon")


def muon_vs_adamw_at_equal_loss(evidence: Evidence) -> Effect | None:
    """Error under Muon less that under AdamW at equal full-precision loss, each at its best peak rate."""
    first, second = _matched(_best(evidence), "optimizer", "adamw", "muon")
    whole = runs(evidence.rows)
    pairs = [
        (seed, at_equal_loss(evidence, whole[whole.path == adamw], whole[whole.path == muon]))
        for seed, adamw, muon in zip(first.seed, first.path, second.path, strict=True)
    ]
    found = [(seed, values) for seed, values in pairs if values is not None]
    if not found:
        return None
    return Effect(by_unit([seed for seed, _ in found], np.stack([values for _, values in found])), len(found))


def _rates(evidence: Evidence) -> pd.DataFrame:
    """Return ends of runs that differ in the peak rate alone, rates that trained badly left out."""
    rows = most_varied(ends(evidence.rows), _ALIKE, "peak_lr")
    losses = rows.groupby("peak_lr").base_loss.mean()
    trained = rows[rows.peak_lr.isin(losses.index[losses <= WELL_TRAINED * losses.min()])]
    return trained.drop_duplicates(["seed", "peak_lr"])


def _best(evidence: Evidence) -> pd.DataFrame:
    """Return ends under AdamW and Muon with equal model, schedule and budget, each at the rate of lowest loss."""
    rows = ends(evidence.rows)
    rows = rows[rows.optimizer.isin(["adamw", "muon"])]
    rows = most_varied(rows, ["model", "schedule", "budget_tokens"], "optimizer")
    best = best_settings(rows)
    return rows.merge(best, on=list(best))


def _matched(rows: pd.DataFrame, column: str, first: object, second: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with either value of `column`, paired by seed."""
    one, other = (
        rows[rows[column] == value].drop_duplicates("seed").set_index("seed", drop=False) for value in (first, second)
    )
    seeds = one.index.intersection(other.index)
    return one.loc[seeds], other.loc[seeds]


def _compare(evidence: Evidence, rows: pd.DataFrame, column: str, first: object, second: object) -> Effect | None:
    return paired(evidence, *_matched(rows, column, first, second), "error")
