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

    A `wsd` run keeps its trunk's last checkpoint, so the decay began at the latest trunk checkpoint before its first.
    """
    rows = _ordered(table[(table.source == "checkpoint") & (table.phase == "decay")])
    rows = rows[rows.schedule.isin(["wsd", "cooldown"])]
    unknown = (
        rows[rows.branch_tokens.isna()].groupby("trajectory", as_index=False).agg({"family": "first", "tokens": "min"})
    )
    stem = trunks(table)[["family", "tokens"]].rename(columns={"tokens": "fork"})
    forks = unknown.merge(stem, on="family").query("fork < tokens").groupby("trajectory").fork.max()
    return rows.assign(branch_tokens=rows.branch_tokens.fillna(rows.trajectory.map(forks)))


def averages(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the rows of averages of one kind: soup, lawa, merge or ema."""
    return _ordered(table[(table.source == "average") & (table.average == kind)])


def runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return every run to the end of its schedule, whole: column `path` names the run, `schedule` is wsd or cosine ...

    The rows of a decay come with those of its trunk up to the branch, so a trunk with six branches gives six runs.
    """
    branches = decays(table)
    heads = branches[["trajectory", "family", "branch_tokens", "budget_tokens", "run"]].drop_duplicates("trajectory")
    heads = heads.rename(columns={"trajectory": "path"})
    stems = trunks(table).drop(columns=["branch_tokens", "budget_tokens", "run"]).merge(heads, on="family")
    stems = stems[stems.tokens <= stems.branch_tokens]
    whole = _ordered(table[(table.source == "checkpoint") & table.schedule.isin(WHOLE_SCHEDULES)])
    parts = [
        stems.assign(schedule="wsd", final=False),
        branches.assign(schedule="wsd", path=branches.trajectory),
        whole.assign(path=whole.trajectory),
    ]
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True).sort_values(
        ["path", "tokens"], kind="stable", ignore_index=True
    )


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
    counts = branches.groupby(list(SETTING), sort=True).trajectory.nunique()
    return dict(zip(SETTING, counts.idxmax(), strict=True))


def of_setting(table: pd.DataFrame, setting: dict[str, object], but: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows that agree with `setting` in every column not named in `but`; null agrees with all."""
    for name, value in setting.items():
        if name not in but:
            table = table[(table[name] == value) | table[name].isna()]
    return table


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    same = [name for name in _SAME if name in rows]
    return rows.drop_duplicates(same).sort_values(["trajectory", "tokens"], kind="stable")
