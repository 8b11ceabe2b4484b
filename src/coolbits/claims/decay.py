"""Claims about the decay of the learning rate and what tokens alone do not do (paper A, sections 3 and 4)."""

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import most_varied, over_seeds, paired, slope
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats
from coolbits.rows import SETTING, ends, main_rows, of_main_run, trunks


def decay_raises_error(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that where it left the trunk."""
    return paired(evidence, *_pairs(evidence, "branch_tokens"), "error")


def decay_raises_error_at_equal_tokens(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that of the trunk after as many tokens."""
    return paired(evidence, *_pairs(evidence, "tokens"), "error")


def decay_lowers_loss(evidence: Evidence) -> Effect | None:
    """Full-precision loss of the trunk after as many tokens less that at the end of each cooldown."""
    trunk, end = _pairs(evidence, "tokens")
    return paired(evidence, end, trunk, "full")


def flat_while_constant(evidence: Evidence) -> Effect | None:
    """Rise of the error in a cooldown less twice its drift at a constant rate over as many tokens.

    The drift comes from the slope of the error in log tokens, fitted to the stable part of the trunk.
    """
    start, end = _pairs(evidence, "branch_tokens")
    trunk = trunks(main_rows(evidence.rows))
    trunk = trunk[trunk.phase == "stable"]

    def excess(trunk: pd.DataFrame) -> Floats | None:
        seed = trunk.seed.iloc[0]
        own, after = start[start.seed == seed], end[end.seed == seed]
        if own.empty or trunk.tokens.nunique() < 3:
            return None
        doublings = np.log2(after.tokens.to_numpy(float) / own.tokens.to_numpy(float))
        drift = slope(evidence.of(trunk, "error"), _log2(trunk.tokens)) * doublings.mean()
        rise = (evidence.of(after, "error") - evidence.of(own, "error")).mean(axis=0)
        return rise - 2 * drift

    return over_seeds(trunk, excess, len(start))


def decay_not_tokens(evidence: Evidence) -> Effect | None:
    """Mean rise of the error in a cooldown less the growth of its end from the smallest to the largest budget.

    The growth comes from the slope of the error at the ends in log tokens, fitted to all budgets.
    """
    start, end = _pairs(evidence, "branch_tokens")

    def excess(end: pd.DataFrame) -> Floats | None:
        if end.tokens.nunique() < 2:
            return None
        errors, tokens = evidence.of(end, "error"), _log2(end.tokens)
        growth = slope(errors, tokens) * np.ptp(tokens)
        return (errors - evidence.of(start.loc[end.index], "error")).mean(axis=0) - growth

    return over_seeds(end, excess, len(end))


def wsd_vs_cosine(evidence: Evidence) -> Effect | None:
    """Growth of the error at the end with each doubling of the budget: cosine less WSD."""
    rows = ends(evidence.rows)
    rows = most_varied(rows[rows.schedule.isin(["wsd", "cosine"])], list(SETTING), "schedule")

    def difference(rows: pd.DataFrame) -> Floats | None:
        growth = {}
        for schedule, group in rows.groupby("schedule"):
            group = of_main_run(group)
            if group.tokens.nunique() < 2:
                return None
            growth[schedule] = slope(evidence.of(group, "error"), _log2(group.tokens))
        return growth["cosine"] - growth["wsd"] if len(growth) == 2 else None

    return over_seeds(rows, difference, len(rows))


def _pairs(evidence: Evidence, at: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trunk rows and ends of cooldowns, paired by position: the trunk after `at` of the end's tokens."""
    rows = main_rows(evidence.rows)
    finished = ends(rows)
    finished = finished[finished.schedule == "wsd"].assign(match=lambda frame: frame[at])
    trunk = trunks(rows).assign(match=lambda frame: frame.tokens)
    both = finished[["family", "match"]].reset_index().merge(trunk, on=["family", "match"], how="inner")
    return both.set_index("index"), finished.loc[both["index"]]


def _log2(tokens: pd.Series) -> Floats:
    return np.log2(tokens.to_numpy(dtype=np.float64))
