"""Claims about averages of weights: LAWA against cooldowns, soups against their ingredients (paper A, section 5)."""

import pandas as pd

from coolbits.claims.contrasts import paired
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.rows import SETTING, averages, decay_names, ends

_ALIKE = [*SETTING, "decay", "tokens"]


def averaging_beats_decay_at_low_bits(evidence: Evidence) -> Effect | None:
    """Quantized loss at the end of each cooldown less that of LAWA on its trunk after no more tokens."""
    average, end = _lawa_and_ends(evidence)
    return paired(evidence, average, end, "quantized")


def averaging_lowers_error(evidence: Evidence) -> Effect | None:
    """Error at the end of each cooldown less that of LAWA on its trunk after no more tokens."""
    average, end = _lawa_and_ends(evidence)
    return paired(evidence, average, end, "error")


def soup_beats_ingredients(evidence: Evidence) -> Effect | None:
    """Lowest error among a soup's ingredients less that of the soup."""
    finished = evidence.ends
    found = []
    for _, soup in averages(evidence.rows, "soup").groupby("evidence"):
        alike = finished.merge(soup.assign(decay=decay_names(soup))[_ALIKE], on=_ALIKE)
        ingredients = _ingredients(alike, soup.family.iloc[0], soup.window.iloc[0])
        if ingredients is not None:
            found.append(evidence.of(ingredients, "error").min(axis=0) - evidence.of(soup, "error")[0])
    return Effect({f"soup {place}": values for place, values in enumerate(found)}, len(found)) if found else None


def _ingredients(alike: pd.DataFrame, family: str, members: int) -> pd.DataFrame | None:
    """Return the ends that a soup was made of: those of one run of the study, on one trunk or over several."""
    own = alike[alike.family == family]
    groups = [group for rows in (own, alike) for _, group in rows.groupby("run") if len(group) == members]
    return groups[0] if groups else None


def _lawa_and_ends(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return averages and ends of cooldowns, paired: the latest average between the branch and the cooldown's end.

    Of several windows the one with the lowest full-precision loss is taken: chosen without a look at the quantized one.
    """
    rows = evidence.main
    lawa, finished = averages(rows, "lawa"), ends(rows)
    finished = finished[finished.schedule == "wsd"].reset_index(drop=True)
    if len(lawa):
        lawa = lawa[lawa.window == lawa.groupby("window").base_loss.mean().idxmin()]
    limits = finished[["family", "branch_tokens", "tokens"]].rename(
        columns={"branch_tokens": "earliest", "tokens": "latest"}
    )
    both = limits.reset_index().merge(lawa.drop(columns="branch_tokens"), on="family")
    both = both[(both.tokens >= both.earliest) & (both.tokens <= both.latest)]
    both = both.sort_values("tokens").drop_duplicates("index", keep="last").sort_values("index")
    return both, finished.loc[both["index"]]
