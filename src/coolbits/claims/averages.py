"""Claims about averages of weights: LAWA against cooldowns, soups against their ingredients (paper A, section 5)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import beside_lost, independent, paired
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import by_unit
from coolbits.rows import averages, ends


def averaging_beats_decay_at_low_bits(evidence: Evidence) -> Effect | None:
    """Quantized loss at the end of each cooldown less that of LAWA on its trunk after no more tokens."""
    return _beside_cooldowns(evidence, "quantized")


def averaging_lowers_error(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that of LAWA on its trunk after no more tokens."""
    return _beside_cooldowns(evidence, "error")


def decay_beats_averaging_at_full_precision(evidence: Evidence) -> Effect | None:
    """Full-precision loss of LAWA less that at the end of each cooldown that ended after no fewer tokens."""
    effect = _beside_cooldowns(evidence, "full")
    return effect and replace(effect, units={unit: -values for unit, values in effect.units.items()})


def soup_beats_ingredients(evidence: Evidence) -> Effect | None:
    """Lowest error among a soup's ingredients less that of the soup; soups that share seeds are one unit."""
    rows = evidence.rows
    checkpoints = rows[rows.source == "checkpoint"]
    found, seeds = [], []
    for _, soup in averages(rows, "soup").groupby("trajectory"):
        members = soup.members.iloc[0].split()
        last = checkpoints[checkpoints.trajectory.isin(members) & (checkpoints.step == soup.step.iloc[0])]
        # A checkpoint that two runs of the study share has a row for each.
        ingredients = last.drop_duplicates("trajectory")
        if len(ingredients) == len(members):
            found.append(evidence.of(ingredients, "error").min(axis=0) - evidence.of(soup, "error")[0])
            seeds.append([str(seed) for seed in ingredients.seed])
    return Effect(by_unit(independent(seeds), np.stack(found)), len(found)) if found else None


def _beside_cooldowns(evidence: Evidence, column: str) -> Effect | None:
    average, end = _lawa_and_ends(evidence)
    return beside_lost(paired(evidence, average, end, column), evidence, end)


def _lawa_and_ends(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return averages and ends of cooldowns, paired: the latest average between the branch and the cooldown's end.

    Of several averages, by window or by what lies between members, the one with the lowest full-precision loss is
    taken for each cooldown: chosen without a look at the quantized one, and beside each other, for a long window has
    averages only late in training, where losses are low.
    """
    rows = evidence.main
    lawa, finished = averages(rows, "lawa"), ends(rows)
    finished = finished[finished.schedule == "wsd"].reset_index(drop=True)
    limits = finished[["family", "branch_tokens", "tokens"]].rename(
        columns={"branch_tokens": "earliest", "tokens": "latest"}
    )
    both = limits.reset_index().merge(lawa.drop(columns="branch_tokens"), on="family")
    both = both[(both.tokens >= both.earliest) & (both.tokens <= both.latest)]
    latest = both.sort_values("tokens").drop_duplicates(["index", "run"], keep="last")
    best = latest.sort_values("base_loss").drop_duplicates("index").sort_values("index")
    return best, finished.loc[best["index"]]
