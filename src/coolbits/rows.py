"""The words of a study's rows: trunk, decay, run, end, average; what figures and claims select from a table.

A `wsd` run and a cooldown of a constant run are the same thing here: a trunk, and a decay that left it. `family`
names the trunk of both. A trunk shared by several runs of the study appears once.
"""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError

SETTING = ("model", "optimizer", "weight_decay", "peak_lr")
WHOLE_SCHEDULES = ("cosine", "linear")
_SAME = ("trajectory", "step", "source", "average", "window", "quantizer", "task", "metric")


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
    whole steps are one budget.
    """
    branches = decays(table)
    heads = branches[["trajectory", "family", "branch_tokens", "run"]].drop_duplicates("trajectory")
    heads = heads.rename(columns={"trajectory": "path"})
    stems = trunks(table).drop(columns=["branch_tokens", "run"]).merge(heads, on="family")
    whole = _ordered(table[(table.source == "checkpoint") & table.schedule.isin(WHOLE_SCHEDULES)])
    parts = [
        stems[stems.tokens <= stems.branch_tokens].assign(schedule="wsd", final=False),
        branches.assign(schedule="wsd", path=branches.trajectory),
        whole.assign(path=whole.trajectory),
    ]
    every = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    budgets = every.groupby("path").tokens.max().map(lambda tokens: round(float(f"{tokens:.3g}")))
    every["budget_tokens"] = every.path.map(budgets).astype("Int64")
    return every.sort_values(["path", "tokens"], kind="stable", ignore_index=True)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last checkpoint of every run to the end of its schedule."""
    every = runs(table)
    return every[every.final.astype(bool)].reset_index(drop=True)


def main_setting(table: pd.DataFrame) -> dict[str, object]:
    """Return the setting (model, optimizer, weight decay, peak rate) with the most decays that left a trunk.

    Raises:
        CoolbitsError: if no trunk has a decay.
    """
    branches = decays(table)
    if branches.empty:
        raise CoolbitsError(
            "the study's table has no cooldown from a trunk; add `cooldowns` to a constant run, or a wsd run"
        )
    return largest_group(branches.groupby(list(SETTING), sort=True).trajectory.nunique())


def of_main_run(whole: pd.DataFrame) -> pd.DataFrame:
    """Return, of `runs`, those under the study's name with most of them: a trunk's cooldowns, not a soup's."""
    paths = whole.groupby("run").path.nunique()
    return whole[whole.run == paths.idxmax()] if len(paths) else whole


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return trunk, decays and averages of the setting and run with the most decays; no rows if nothing decays."""
    whole = runs(table)
    whole = whole[whole.schedule == "wsd"]
    if whole.empty:
        return table.iloc[:0]
    main = of_main_run(of_setting(whole, main_setting(table)))
    branches, trunk = decays(table), trunks(table)
    averaged = table[(table.source == "average") & table.family.isin(main.family)]
    parts = [trunk[trunk.family.isin(main.family)], branches[branches.trajectory.isin(main.path)], averaged]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def largest_group(counts: pd.Series) -> dict[str, object]:
    """Return the keys of the largest of the groups that `counts` counts, by the name of the grouping column."""
    keys = counts[counts == counts.max()].index.to_frame(index=False).iloc[-1]
    return {str(name): value for name, value in keys.items()}


def best_settings(finished: pd.DataFrame) -> pd.DataFrame:
    """Return for each optimizer of comparable ends the peak rate and weight decay of lowest full-precision loss."""
    tuned = ["optimizer", "peak_lr", "weight_decay"]
    losses = finished.groupby(tuned)[["base_loss"]].mean().reset_index().dropna()
    return losses.sort_values("base_loss").drop_duplicates("optimizer")[tuned]


def of_setting(table: pd.DataFrame, setting: dict[str, object], but: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows that agree with `setting` in every column not named in `but`; null agrees with all."""
    for name, value in setting.items():
        if name not in but:
            table = table[(table[name] == value) | table[name].isna()]
    return table


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    same = [name for name in _SAME if name in rows]
    return rows.drop_duplicates(same).sort_values(["trajectory", "tokens"], kind="stable")
