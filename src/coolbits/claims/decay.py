"""Claims about the decay of the learning rate and what tokens alone do not do (paper A, sections 3 and 4)."""

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import (
    beside_lost,
    even,
    in_every_unit,
    mean_weights,
    most_varied,
    over_orders,
    over_seeds,
    paired,
    slope,
)
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.rows import ends, trunks
from coolbits.settings import SETTING, of_main_decays


def decay_raises_error(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that where it left the trunk."""
    return since_branch(evidence, "error")


def decay_raises_error_at_equal_tokens(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that of the trunk after as many tokens."""
    return beside_trunk(evidence, "error")


def decay_lowers_loss(evidence: Evidence) -> Effect | None:
    """Full-precision loss of the trunk after as many tokens less that at the end of each cooldown."""
    return beside_trunk(evidence, "full", -1.0)


def flat_while_constant(evidence: Evidence) -> Effect | None:
    """Rise of the error in a cooldown less twice the size of its drift at a constant rate over as many tokens.

    The drift comes from the slope of the error in log tokens, fitted to the stable part of the trunk; an error that
    falls is no flatter than one that rises.
    """
    every = _pairs(evidence)
    start, end = even(evidence, *every)
    trunk = trunks(evidence.main)
    trunk = trunk[trunk.phase == "stable"]

    def excess(trunk: pd.DataFrame) -> Floats | None:
        same = (start.seed == trunk.seed.iloc[0]) & (start.data_seed == trunk.data_seed.iloc[0])
        own = start[same]
        if own.empty or trunk.tokens.nunique() < 3:
            return None
        after = end.loc[own.index]
        doublings = np.log2(after.tokens.to_numpy(float) / own.tokens.to_numpy(float))
        drift = slope(evidence.of(trunk, "error"), _log2(trunk.tokens)) * doublings.mean()
        rise = (evidence.of(after, "error") - evidence.of(own, "error")).mean(axis=0)
        return rise - 2 * np.abs(drift)

    effect = over_seeds(trunk, over_orders(excess), start, uneven=len(every[0]) - len(start))
    return beside_lost(effect, evidence, end)


def decay_not_tokens(evidence: Evidence) -> Effect | None:
    """Mean rise of the error in a cooldown less the size of its end's change from the smallest to the largest budget.

    The change comes from the slope of the error at the ends in log tokens, fitted to all budgets; an error that falls
    is no more the same than one that rises.
    """
    every = _pairs(evidence)
    start, end = even(evidence, *every, least=2)

    def excess(end: pd.DataFrame) -> Floats | None:
        if end.tokens.nunique() < 2:
            return None
        errors, tokens = evidence.of(end, "error"), _log2(end.tokens)
        growth = slope(errors, tokens) * np.ptp(tokens)
        return (errors - evidence.of(start.loc[end.index], "error")).mean(axis=0) - np.abs(growth)

    effect = over_seeds(end, over_orders(excess), end, uneven=len(every[0]) - len(end))
    return beside_lost(effect, evidence, end)


def wsd_vs_cosine(evidence: Evidence) -> Effect | None:
    """Growth of the error at the end with each doubling of the budget: cosine less WSD."""
    rows = evidence.ends
    rows = most_varied(rows[rows.schedule.isin(["wsd", "cosine"])], list(SETTING), "schedule")
    kinds = of_main_decays(rows)
    every = pd.concat(kinds or [rows])
    shared = [kind[in_every_unit(kind.seed, kind[["budget_tokens"]], least=2)] for kind in kinds]
    rows = pd.concat(shared or [rows])

    def growth(rows: pd.DataFrame) -> Floats | None:
        return slope(evidence.of(rows, "error"), _log2(rows.tokens)) if rows.tokens.nunique() > 1 else None

    def difference(rows: pd.DataFrame) -> Floats | None:
        wsd, cosine = (over_orders(growth)(rows[rows.schedule == schedule]) for schedule in ("wsd", "cosine"))
        return None if wsd is None or cosine is None else cosine - wsd

    return beside_lost(over_seeds(rows, difference, rows, uneven=len(every) - len(rows)), evidence, every)


def since_branch(evidence: Evidence, column: str) -> Effect | None:
    """Return the value at the end of each cooldown less that where it left the trunk."""
    start, end = _pairs(evidence)
    return beside_lost(paired(evidence, start, end, column), evidence, end)


def beside_trunk(evidence: Evidence, column: str, sign: float = 1.0) -> Effect | None:
    """Return `sign` times the value at each cooldown's end less that of its trunk after as many tokens.

    Between two checkpoints of the trunk the value is interpolated; a cooldown that ends beyond its trunk is left out.
    """
    rows = evidence.main
    trunk, finished = trunks(rows), ends(rows)
    reach = finished.join(trunk.groupby("family").tokens.agg(first="min", last="max"), on="family")
    every = finished[(finished.schedule == "wsd") & reach.tokens.between(reach["first"], reach["last"])]
    if every.empty:
        return None
    kept, _ = even(evidence, every, every)

    def beside(family: str, tokens: float) -> Floats:
        stem = trunk[trunk.family == family]
        return mean_weights(stem.tokens.to_numpy(dtype=np.float64), np.array([tokens])) @ evidence.of(stem, column)

    trunks_own = np.stack([beside(*pair) for pair in zip(kept.family, kept.tokens.astype(float), strict=True)])
    values = sign * (evidence.of(kept, column) - trunks_own)
    effect = Effect(by_unit(kept.seed, values), len(kept), uneven=len(every) - len(kept))
    return beside_lost(effect, evidence, every)


def _pairs(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return where cooldowns left their trunk and where they ended: rows of trunks and of ends, paired by position."""
    rows = evidence.main
    finished = ends(rows)
    finished = finished[finished.schedule == "wsd"]
    left = finished[["family", "branch_tokens"]].rename(columns={"branch_tokens": "tokens"})
    both = left.reset_index().merge(trunks(rows), on=["family", "tokens"], how="inner")
    return both.set_index("index"), finished.loc[both["index"]]


def _log2(tokens: pd.Series) -> Floats:
    return np.log2(tokens.to_numpy(dtype=np.float64))
