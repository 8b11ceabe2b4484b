"""The words of a study's rows: trunk, decay, run, end, average; what figures and claims select from a table.

A `wsd` run and a cooldown of a constant run are the same thing here: a trunk, and a decay that left it. `family`
names the trunk of both. A trunk shared by several runs of the study appears once.

Rows are compared within a *setting*, all that says how a run was trained but for its schedule, and within a *horizon*,
the schedule, its length and its decay. A null is a value like any other in both: SGD has no beta2, a cosine no length
of its own. An optimizer and the precision of its states make a *variant*.
"""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.results import WHOLE_SCHEDULES
from coolbits.study.units import si, three_digits

VARIANT = ("optimizer", "states")
TUNED = ("peak_lr", "weight_decay", "beta2")
SETTING = ("model", *VARIANT, "beta2", "weight_decay", "peak_lr")
HORIZON = ("schedule", "budget_tokens", "decay")
FULL_STATES = "32"
DECAY = ("decay_tokens", "decay_shape", "final_fraction")
_SEEDS = ("seed", "data_seed")
_MODEL = ("trajectory", "step", "source", "average", "window")
_MEASURE = ("quantizer", "task", "metric")


def quantizers(table: pd.DataFrame) -> list[str]:
    """Return the quantizers of a table: GPTQ and its kin before round-to-nearest, fewest bits first."""
    found = table.loc[table.quantizer != "none", ["quantizer", "method", "bits"]].drop_duplicates()
    found = found.assign(plain=found.method == "rtn").sort_values(["plain", "bits", "quantizer"])
    return list(dict.fromkeys(found.quantizer))


def of_quantizer(table: pd.DataFrame, quantizer: str) -> pd.DataFrame:
    """Return the rows of one quantizer.

    Raises:
        CoolbitsError: if the table has none.
    """
    chosen = table[table.quantizer == quantizer]
    if chosen.empty:
        known = ", ".join(quantizers(table)) or "none"
        raise CoolbitsError(f"quantizer {quantizer!r}: the study's table has no such rows; it has {known}")
    return chosen


def full_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models that were not quantized, by one measure: that of most final models, then most tokens.

    A model is scored beside every quantized form of it, and losses on other documents do not compare.
    """
    rows = table[table.quantizer == "none"]
    if "evaluation" not in rows or rows.empty:
        return rows
    finals = rows.final.astype(bool) & ~rows.source.isin(["finetuned", "pretrained"])
    scored = rows.assign(finals=finals).groupby("evaluation", sort=False)
    sizes = scored.agg(finals=("finals", "sum"), tokens=("scored_tokens", "max"))
    return rows[rows.evaluation == sizes.sort_values(["finals", "tokens"], ascending=False, kind="stable").index[0]]


def of_each_model(rows: pd.DataFrame, measure: Sequence[str] = ()) -> pd.DataFrame:
    """Return the first row of each model, and of each value of the columns `measure`: runs may share checkpoints.

    Averages of as many members along one trunk may differ in what lies between these: their name, `run`, tells.
    """
    named = rows[[*_MODEL, *measure]].assign(name=rows.run.where(rows.source == "average"))
    return rows[~named.duplicated()]


def trunks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the checkpoints of constant-rate trunks, warmup included."""
    rows = table[(table.source == "checkpoint") & table.schedule.isin(["constant", "wsd"]) & (table.phase != "decay")]
    return _ordered(rows)


def decays(table: pd.DataFrame) -> pd.DataFrame:
    """Return the checkpoints of decays that left a trunk, `branch_tokens` filled in where the table has none.

    The part of a `wsd` run before its decay ends with the checkpoint that the decay starts from.
    """
    checkpoints = table[(table.source == "checkpoint") & table.schedule.isin(["wsd", "cooldown"])]
    run = ["run", "family", "budget_tokens"]
    stems = checkpoints[(checkpoints.schedule == "wsd") & (checkpoints.phase != "decay")]
    forks = stems.groupby(run, as_index=False).agg(fork=("tokens", "max"))
    rows = checkpoints[checkpoints.phase == "decay"].merge(forks, on=run, how="left")
    return _ordered(rows.assign(branch_tokens=rows.branch_tokens.fillna(rows.fork)).drop(columns="fork"))


def averages(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the rows of averages of one kind: soup, lawa, merge or ema."""
    return _ordered(table[(table.source == "average") & (table.average == kind)])


def runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return every run to the end of its schedule, whole: column `path` names the run, `schedule` is wsd or cosine ...

    The rows of a decay come with those of its trunk up to the branch, so a trunk with six branches gives six runs.
    `budget_tokens` becomes the tokens at the end of the run, to three digits: budgets that differ by the rounding to
    whole steps are one budget. Column `decay` says the same of the run's decay, see `decay_names`.
    """
    branches = decays(table)
    own = ["branch_tokens", "run", *DECAY]
    heads = branches[["trajectory", "family", *own]].drop_duplicates("trajectory")
    heads = heads.rename(columns={"trajectory": "path"})
    stems = trunks(table).drop(columns=own).merge(heads, on="family")
    whole = _ordered(table[(table.source == "checkpoint") & table.schedule.isin(WHOLE_SCHEDULES)])
    parts = [
        stems[stems.tokens <= stems.branch_tokens].assign(schedule="wsd", final=False),
        branches.assign(schedule="wsd", path=branches.trajectory),
        whole.assign(path=whole.trajectory),
    ]
    every = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    budgets = every.groupby("path").tokens.max().map(three_digits)
    every["budget_tokens"] = every.path.map(budgets).astype("Int64")
    every["decay"] = decay_names(every)
    return every.sort_values(["path", "tokens"], kind="stable", ignore_index=True)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last checkpoint of every run to the end of its schedule."""
    every = runs(table)
    return every[every.final.astype(bool)].reset_index(drop=True)


def decay_names(table: pd.DataFrame) -> pd.Series:
    """Return each row's decay in words, `linear over 410k to 0`; null at a constant rate.

    Lengths have three digits, so that those that differ by the rounding to whole steps are one. A schedule that decays
    from its warmup to its end has no length: its budget says it.
    """
    lengths = table.decay_tokens.mask(table.schedule.isin(WHOLE_SCHEDULES))
    rows = zip(lengths, table.decay_shape, table.final_fraction, strict=True)
    return pd.Series([_decay_name(*row) for row in rows], index=table.index, dtype="str")


def main_setting(table: pd.DataFrame) -> dict[str, object]:
    """Return the setting with the most decays that left a trunk; among equals one with 32-bit states.

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


def of_main_decay(whole: pd.DataFrame) -> pd.DataFrame:
    """Return, of `runs` of one schedule, the most with decays of one shape and end, and of one length or one share."""
    shares = (whole.decay_tokens / whole.budget_tokens).astype("float64").round(2)
    every = whole.assign(share=shares)
    lengths = (["decay"], ["decay_shape", "final_fraction", "share"])
    counts = [every.groupby(keys, dropna=False).path.nunique() for keys in lengths]
    most = max(counts, key=lambda found: found.max())
    return of_setting(every, largest_group(most)).drop(columns="share")


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

    Of several the last, but 32-bit states before others.
    """
    keys = counts[counts == counts.max()].index.to_frame(index=False)
    if "states" in keys and (keys.states == FULL_STATES).any():
        keys = keys[keys.states == FULL_STATES]
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
    names = [name for name in _SEEDS if name in one and name in other]
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


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    measure = [name for name in _MEASURE if name in rows]
    return of_each_model(rows, measure).sort_values(["trajectory", "tokens"], kind="stable")


def _decay_name(tokens: float, shape: str | None, final_fraction: float) -> str | None:
    if shape is None or pd.isna(shape):
        return None
    length = "" if pd.isna(tokens) else f" over {si(three_digits(tokens))}"
    return f"{shape}{length} to {final_fraction:g}"
