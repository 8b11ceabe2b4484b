"""Claims about the peak learning rate, the weight decay and the optimizer (paper A, sections 4 and 5; Muon: none)."""

from itertools import pairwise

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import (
    all_but,
    along_runs,
    at_equal_loss,
    completed,
    most_varied,
    over_orders,
    over_seeds,
    paired,
    slope,
    while_constant,
    with_equal_losses,
)
from coolbits.claims.evidence import Evidence
from coolbits.claims.states import LOSS_MARGIN
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.settings import FULL_STATES, HORIZON, by_seed, of_best_settings

WELL_TRAINED = 1.05  # a rate counts if its final loss is at most this times the best rate's
ADAMC_MARGIN = 10.0  # percent of AdamW's error


def higher_rate_lowers_error(evidence: Evidence) -> Effect | None:
    """Fall of the final error with each tenfold peak rate, among well-trained rates."""
    rows = _rates(evidence)

    def fall(rows: pd.DataFrame) -> Floats | None:
        if rows.peak_lr.nunique() < 2:
            return None
        return -slope(evidence.of(rows, "error"), np.log10(rows.peak_lr.to_numpy(float)))

    return over_seeds(rows, over_orders(fall), rows)


def higher_rate_lowers_error_at_equal_loss(evidence: Evidence) -> Effect | None:
    """Error of the lower less that of the next higher peak rate at equal full-precision loss along whole runs."""
    rows, whole = _rates(evidence), evidence.runs

    def fall(rows: pd.DataFrame) -> Floats | None:
        paths = rows.sort_values("peak_lr").path
        found = [
            at_equal_loss(evidence, whole[whole.path == higher], whole[whole.path == lower])
            for lower, higher in pairwise(paths)
        ]
        matched = [values for values in found if values is not None]
        return np.mean(matched, axis=0) if matched else None

    return over_seeds(rows, over_orders(fall), rows)


def larger_weight_decay_lowers_error(evidence: Evidence) -> Effect | None:
    """Final error with the smallest less that with the largest weight decay."""
    rows = most_varied(evidence.ends, all_but("weight_decay"), "weight_decay")
    return _compare(evidence, rows, "weight_decay", rows.weight_decay.max(), rows.weight_decay.min())


def adamc_equals_adamw(evidence: Evidence) -> Effect | None:
    """Final error under AdamC relative to that under AdamW, less 1, in percent."""
    rows = evidence.ends
    rows = rows[rows.optimizer.isin(["adamw", "adamc"])]
    rows = most_varied(rows, all_but("optimizer"), "optimizer")
    first, second = _matched(rows, "optimizer", "adamw", "adamc")
    if first.empty:
        return None
    ratio = 100 * (evidence.of(second, "error") / evidence.of(first, "error") - 1)
    return Effect(by_unit(first.seed, ratio), len(first), ADAMC_MARGIN)


def muon_vs_adamw(evidence: Evidence) -> Effect | None:
    """Final error under Muon less that under AdamW, each at its best peak rate."""
    return _compare(evidence, _best(evidence), "optimizer", "adamw", "muon")


def muon_vs_adamw_at_equal_loss_after_cooldown(evidence: Evidence) -> Effect | None:
    """The same of pairs whose final losses are within the margin of parity of each other."""
    pairs = _matched(_best(evidence), "optimizer", "adamw", "muon")
    return paired(evidence, *with_equal_losses(evidence, *pairs, LOSS_MARGIN), "error")


def muon_vs_adamw_at_equal_loss_at_constant_rate(evidence: Evidence) -> Effect | None:
    """Error under Muon less that under AdamW at equal loss along runs before the decay, each at its best peak rate."""
    pairs = _matched(_best(evidence), "optimizer", "adamw", "muon")

    def difference(adamw: pd.DataFrame, muon: pd.DataFrame) -> Floats | None:
        return at_equal_loss(evidence, while_constant(adamw), while_constant(muon))

    return along_runs(evidence, *pairs, difference)


def _rates(evidence: Evidence) -> pd.DataFrame:
    """Return ends of runs that differ in the peak rate alone, rates that trained badly left out."""
    rows = most_varied(evidence.ends, all_but("peak_lr"), "peak_lr")
    losses = rows.groupby("peak_lr").base_loss.mean()
    trained = rows[rows.peak_lr.isin(losses.index[losses <= WELL_TRAINED * losses.min()])]
    return trained.drop_duplicates(["seed", "data_seed", "peak_lr"])


def _best(evidence: Evidence) -> pd.DataFrame:
    """Return ends under AdamW and Muon, 32-bit states, alike but for what is tuned, each at the rate of lowest loss.

    Runs that diverged have a say in which rate that is.
    """
    rows, alike = evidence.outcomes, ["model", *HORIZON]
    rows = rows[rows.optimizer.isin(["adamw", "muon"]) & (rows.states == FULL_STATES)]
    compared = most_varied(completed(rows), alike, "optimizer")
    return completed(of_best_settings(rows.merge(compared[alike].drop_duplicates(), on=alike)))


def _matched(rows: pd.DataFrame, column: str, first: object, second: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with either value of `column`, paired by seed."""
    return by_seed(rows[rows[column] == first], rows[rows[column] == second])


def _compare(evidence: Evidence, rows: pd.DataFrame, column: str, first: object, second: object) -> Effect | None:
    return paired(evidence, *_matched(rows, column, first, second), "error")
