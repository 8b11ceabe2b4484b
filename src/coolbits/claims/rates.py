"""Claims about the peak learning rate, the weight decay and the optimizer (paper A, sections 4 and 5; Muon: none)."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import (
    all_but,
    along_runs,
    at_best,
    at_equal_loss,
    beside_lost,
    completed,
    in_every_unit,
    most_varied,
    over_orders,
    over_seeds,
    paired,
    slope,
    while_constant,
    with_equal_losses,
    with_lost,
    without_lost_twins,
)
from coolbits.claims.evidence import Evidence
from coolbits.claims.states import LOSS_MARGIN
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.settings import FULL_STATES, HORIZON, by_seed

WELL_TRAINED = 1.05  # a rate, or a decay, counts if its final loss is at most this times that of the best
ADAMC_MARGIN = 10.0  # percent of AdamW's error


def higher_rate_lowers_error(evidence: Evidence) -> Effect | None:
    """Fall of the final error with each tenfold peak rate, among well-trained rates."""
    return fall_with_rate(evidence, "error")


def fall_with_rate(evidence: Evidence, column: str) -> Effect | None:
    """Return the fall of the final value with each tenfold peak rate, among well-trained rates."""
    every, rows = _rates(evidence)

    def fall(rows: pd.DataFrame) -> Floats | None:
        if rows.peak_lr.nunique() < 2:
            return None
        return -slope(evidence.of(rows, column), np.log10(rows.peak_lr.to_numpy(float)))

    effect = over_seeds(rows, over_orders(fall), rows, uneven=len(every) - len(rows))
    return beside_lost(effect, evidence, every, all_but("peak_lr"))


def higher_rate_lowers_error_at_equal_loss(evidence: Evidence) -> Effect | None:
    """Error of the lower less that of the next higher peak rate at equal full-precision loss along whole runs."""
    (every, rows), whole = _rates(evidence), evidence.runs

    def fall(rows: pd.DataFrame) -> Floats | None:
        paths = rows.sort_values("peak_lr").path
        found = [
            at_equal_loss(evidence, whole[whole.path == higher], whole[whole.path == lower])
            for lower, higher in pairwise(paths)
        ]
        matched = [values for values in found if values is not None]
        return np.mean(matched, axis=0) if matched else None

    effect = over_seeds(rows, over_orders(fall), rows, uneven=len(every) - len(rows))
    return beside_lost(effect, evidence, every, all_but("peak_lr"))


def larger_weight_decay_lowers_error(evidence: Evidence) -> Effect | None:
    """Final error with the smallest less that with the largest weight decay, among those that trained well."""
    rows = _well_trained(_swept(evidence.ends, "weight_decay"), "weight_decay")
    if rows.weight_decay.nunique() < 2:
        return None
    largest, smallest = (rows[rows.weight_decay == end] for end in (rows.weight_decay.max(), rows.weight_decay.min()))
    effect = paired(evidence, *by_seed(largest, smallest), "error")
    return beside_lost(effect, evidence, rows, all_but("weight_decay"))


def adamc_equals_adamw(evidence: Evidence) -> Effect | None:
    """Final error under AdamC relative to that under AdamW, less 1, in percent."""
    rows = evidence.outcomes
    rows = most_varied(rows[rows.optimizer.isin(["adamw", "adamc"])], all_but("optimizer"), "optimizer")

    def ratio(adamw: pd.DataFrame, adamc: pd.DataFrame) -> Effect | None:
        if adamw.empty:
            return None
        values = 100 * (evidence.of(adamc, "error") / evidence.of(adamw, "error") - 1)
        return Effect(by_unit(adamw.seed, values), len(adamw), ADAMC_MARGIN)

    return _beside_adamw(rows, "adamc", ratio)


def muon_vs_adamw(evidence: Evidence) -> Effect | None:
    """Final error under Muon less that under AdamW, each at its best peak rate."""
    return _beside_adamw(_muon_and_adamw(evidence), "muon", lambda adamw, muon: paired(evidence, adamw, muon, "error"))


def muon_vs_adamw_at_equal_loss_after_cooldown(evidence: Evidence) -> Effect | None:
    """The same of pairs whose final losses are within the margin of parity of each other."""

    def difference(adamw: pd.DataFrame, muon: pd.DataFrame) -> Effect | None:
        return paired(evidence, *with_equal_losses(evidence, adamw, muon, LOSS_MARGIN), "error")

    return _beside_adamw(_muon_and_adamw(evidence), "muon", difference)


def muon_vs_adamw_at_equal_loss_at_constant_rate(evidence: Evidence) -> Effect | None:
    """Error under Muon less that under AdamW at equal loss along runs before the decay, each at its best peak rate."""

    def difference(adamw: pd.DataFrame, muon: pd.DataFrame) -> Floats | None:
        return at_equal_loss(evidence, while_constant(adamw), while_constant(muon))

    return _beside_adamw(
        _muon_and_adamw(evidence), "muon", lambda adamw, muon: along_runs(evidence, adamw, muon, difference)
    )


def _swept(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return ends that differ in `column` alone: of AdamW with 32-bit states, as in the paper, or else of another."""
    own = rows[(rows.optimizer == "adamw") & (rows.states == FULL_STATES)]
    swept = most_varied(own, all_but(column), column)
    return swept if len(swept) else most_varied(rows, all_but(column), column)


def _well_trained(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows without those at values of `column` that trained badly."""
    losses = rows.groupby(column).base_loss.mean()
    return rows[rows[column].isin(losses.index[losses <= WELL_TRAINED * losses.min()])]


def _rates(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ends of runs that differ in the peak rate alone, rates that trained badly left out.

    Second those of them at rates that all seeds have, two or more.
    """
    rows = _swept(evidence.ends, "peak_lr")
    every = _well_trained(rows, "peak_lr").drop_duplicates(["seed", "data_seed", "peak_lr"])
    return every, every[in_every_unit(every.seed, every[["peak_lr"]], least=2)]


def _muon_and_adamw(evidence: Evidence) -> pd.DataFrame:
    """Return the ends under AdamW and Muon, 32-bit states, alike but for what is tuned, those too that diverged."""
    rows = evidence.outcomes
    rows = rows[rows.optimizer.isin(["adamw", "muon"]) & (rows.states == FULL_STATES)]
    return most_varied(rows, ["model", *HORIZON], "optimizer")


def _beside_adamw(
    rows: pd.DataFrame, optimizer: str, contrast: Callable[[pd.DataFrame, pd.DataFrame], Effect | None]
) -> Effect | None:
    """Return `contrast` of the ends in `rows` under AdamW and `optimizer`, each at its best setting, paired by seed.

    Runs that diverged have a say in which setting that is, and are counted.
    """
    adamw, other = (rows[rows.optimizer == name] for name in ("adamw", optimizer))
    peers, tried = at_best(adamw), at_best(other)
    effect = contrast(*by_seed(completed(peers), completed(tried)))
    return with_lost(effect, without_lost_twins(adamw, tried), peers)
