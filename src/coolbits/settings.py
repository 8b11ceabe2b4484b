"""Which rows of a study's table compare: those of one setting and horizon; the main and the best ones of a study.

A *setting* is all that says how a run was trained but for its schedule, a *horizon* the schedule, its length and its
decay. A null is a value like any other in both: SGD has no beta2, a cosine no length of its own. An optimizer and the
precision of its states make a *variant*.
"""

from collections.abc import Collection, Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.rows import decays, runs, trunks
from coolbits.study.optimizer_names import display_name

VARIANT = ("optimizer", "states")
TUNED = ("peak_lr", "weight_decay", "beta2")
SETTING = ("model", *VARIANT, "beta2", "weight_decay", "peak_lr")
HORIZON = ("schedule", "budget_tokens", "decay")
FULL_STATES = "32"
SEEDS = ("seed", "data_seed")


def of_optimizers(table: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """Return the rows of optimizers called so, as in `Muon-32`."""
    return table[[display_name(*pair) in names for pair in zip(table.optimizer, table.states, strict=True)]]


def main_setting(table: pd.DataFrame) -> dict[str, object]:
    """Return the setting with the most decays that left a trunk; among equals one with 32-bit states, and of AdamW.

    Raises:
        CoolbitsError: if no trunk has a decay.
    """
    branches = decays(table)
    if branches.empty:
        raise CoolbitsError(
            "the study's table has no cooldown from a trunk; add `cooldowns` to a constant run, or a wsd run"
        )
    return largest_group(branches.groupby(list(SETTING), dropna=False).trajectory.nunique())


def of_main_run(whole: pd.DataFrame) -> pd.DataFrame:
    """Return, of `runs`, those under the study's name with most of them: a trunk's cooldowns, not a soup's."""
    paths = whole.groupby("run").path.nunique()
    return whole[whole.run == paths.idxmax()] if len(paths) else whole


def of_main_decay(whole: pd.DataFrame, budgets: Collection[int] = ()) -> pd.DataFrame:
    """Return, of `runs` of one schedule, the most with decays of one shape and end, and of one length or one share.

    Those come first that end at most of the `budgets`, at which there are runs to compare them with.
    """
    shares = (whole.decay_tokens / whole.budget_tokens).astype("float64").round(2)
    every = whole.assign(share=shares, matched=whole.path.where(whole.budget_tokens.isin(list(budgets))))
    lengths = (["decay"], ["decay_shape", "final_fraction", "share"])
    counts = [every.groupby(keys, dropna=False)[["matched", "path"]].nunique() for keys in lengths]
    # Paths of all groups together count less than one that matches.
    ranks = [found.matched + found.path / (found.path.sum() + 1) for found in counts]
    most = max(ranks, key=lambda found: found.max())
    return of_setting(every, largest_group(most)).drop(columns=["share", "matched"])


def of_main_decays(whole: pd.DataFrame) -> list[pd.DataFrame]:
    """Return, of `runs` of several schedules, those of each schedule's main run and decay, a frame a schedule.

    Of several decays that is meant which ends at budgets that the other schedules have.
    """
    mains = {schedule: of_main_run(of_kind) for schedule, of_kind in whole.groupby("schedule")}
    return [
        of_main_decay(main, set(whole.budget_tokens[whole.schedule != schedule])) for schedule, main in mains.items()
    ]


def main_rows(table: pd.DataFrame, every_decay: bool = False) -> pd.DataFrame:
    """Return trunk, decays and averages of the setting and run with the most decays; no rows if nothing decays.

    The decays are alike, as `of_main_decay` has it, or with `every_decay` all that the run has.
    """
    whole = runs(table)
    whole = whole[whole.schedule == "wsd"]
    if whole.empty:
        return table.iloc[:0]
    main = of_main_run(of_setting(whole, main_setting(table)))
    main = main if every_decay else of_main_decay(main)
    branches, trunk = decays(table), trunks(table)
    averaged = table[(table.source == "average") & table.family.isin(main.family)]
    parts = [trunk[trunk.family.isin(main.family)], branches[branches.trajectory.isin(main.path)], averaged]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def largest_group(counts: pd.Series) -> dict[str, object]:
    """Return the keys of the largest of the groups that `counts` counts, by the name of the grouping column.

    Of several the last, but 32-bit states before others, and AdamW, of which paper A speaks.
    """
    keys = counts[counts == counts.max()].index.to_frame(index=False)
    for name, first in (("states", FULL_STATES), ("optimizer", "adamw")):
        if name in keys and (keys[name] == first).any():
            keys = keys[keys[name] == first]
    return {str(name): value for name, value in keys.iloc[-1].items()}


def best_settings(finished: pd.DataFrame) -> pd.DataFrame:
    """Return for each variant of comparable ends the peak rate, weight decay and beta2 of lowest full-precision loss.

    Settings are compared on the seeds that most of a variant's settings have; one in which fewer runs diverged comes
    first. A variant all of whose runs diverged has no best setting.
    """
    variant, tuned = list(VARIANT), [*VARIANT, *TUNED]
    numbered = finished.assign(setting=finished.groupby(tuned, dropna=False).ngroup())
    tried = numbered.groupby([*variant, "seed"]).setting.transform("nunique")
    shared = numbered[tried == tried.groupby([numbered[name] for name in variant]).transform("max")]
    shared = shared.assign(lost=shared.base_loss.isna())
    losses = shared.groupby(tuned, dropna=False).agg(base_loss=("base_loss", "mean"), lost=("lost", "mean"))
    ranked = losses.reset_index().dropna(subset=["base_loss"]).sort_values(["lost", "base_loss"])
    return ranked.drop_duplicates(variant)[tuned]


def of_best_settings(finished: pd.DataFrame) -> pd.DataFrame:
    """Return the comparable ends that have their variant's best setting."""
    best = best_settings(finished)
    return finished.merge(best, on=list(best))


def by_seed(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the seeds that both have, paired in order.

    Of one seed those that read the data in one order (`data_seed`, if there is such a column) are pairs; if no two did,
    each is paired with each.
    """
    one, other = (rows.reset_index(drop=True) for rows in (first, second))
    names = [name for name in SEEDS if name in one and name in other]
    pairs = one[names].reset_index().merge(other[names].reset_index(), on="seed")
    if "data_seed" in names:
        together = pairs.data_seed_x == pairs.data_seed_y
        pairs = pairs[together | ~together.groupby(pairs.seed).transform("any")]
    return one.iloc[pairs.index_x], other.iloc[pairs.index_y]


def of_setting(table: pd.DataFrame, setting: dict[str, object], but: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows that agree with `setting` in every column not named in `but`; null agrees with all."""
    for name, value in setting.items():
        if name not in but:
            table = table[(table[name] == value) | table[name].isna()]
    return table
