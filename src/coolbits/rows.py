"""The words of a study's rows: trunk, decay, run, end, average; what figures and claims select from a table.

A `wsd` run and a cooldown of a constant run are the same thing here: a trunk, and a decay that left it. `family`
names the trunk of both. A trunk shared by several runs of the study appears once. Which rows compare with which:
`coolbits.settings`.
"""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.results import WHOLE_SCHEDULES
from coolbits.study.units import si, three_digits

DECAY = ("decay_tokens", "decay_shape", "final_fraction")
# The metrics of lm-eval that are shares of right answers. Of several that a task has the first in the alphabet counts.
ACCURACIES = ("acc", "acc_bytes", "acc_mutual_info", "acc_norm", "exact_match")
_MODEL = ("trajectory", "step", "source", "average", "window")
_MEASURE = ("quantizer", "task", "metric")


def quantizers(table: pd.DataFrame) -> list[str]:
    """Return the quantizers of a table: GPTQ and its kin before round-to-nearest, fewest bits first."""
    found = table.loc[table.quantizer != "none", ["quantizer", "method", "bits"]].drop_duplicates()
    found = found.assign(plain=found.method == "rtn").sort_values(["plain", "bits", "quantizer"])
    return list(dict.fromkeys(found.quantizer))


def of_quantizer(table: pd.DataFrame, quantizer: str) -> pd.DataFrame:
    """Return the rows of one quantizer, but of tasks those of one measure: the one that has most of them.

    Raises:
        CoolbitsError: if the table has none.
    """
    chosen = table[table.quantizer == quantizer]
    if chosen.empty:
        known = ", ".join(quantizers(table)) or "none"
        raise CoolbitsError(f"quantizer {quantizer!r}: the study's table has no such rows; it has {known}")
    return chosen if "task" in chosen else max(by_measure(chosen).values(), key=len)


def full_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models that were not quantized, by one measure: the first of `by_measure`.

    A model is scored beside every quantized form of it.
    """
    rows = table[table.quantizer == "none"]
    return next(iter(by_measure(rows).values()), rows)


def by_measure(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of a table by their measure: first that of most final models, then, of losses, of most tokens.

    Numbers from other documents, or in another precision, do not compare. A measure goes by the name of the first
    evaluation of the study that takes it.
    """
    if "measure" not in rows:
        return {"": rows}
    finals = rows.final.astype(bool) & ~rows.source.isin(["finetuned", "pretrained"])
    tokens = rows.scored_tokens if "scored_tokens" in rows else 0
    measured = rows.assign(finals=finals, scored=tokens).groupby("measure", sort=False)
    sizes = measured.agg(finals=("finals", "sum"), tokens=("scored", "max"))
    ranked = sizes.sort_values(["finals", "tokens"], ascending=False, kind="stable").index
    return {str(name): rows[rows.measure == name] for name in ranked}


def is_accuracy(metric: str) -> bool:
    """Whether a metric of tasks is an accuracy; its name may end in that of a filter: `exact_match,strict-match`."""
    return metric.partition(",")[0] in ACCURACIES


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


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    measure = [name for name in _MEASURE if name in rows]
    return of_each_model(rows, measure).sort_values(["trajectory", "tokens"], kind="stable")


def _decay_name(tokens: float, shape: str | None, final_fraction: float) -> str | None:
    if shape is None or pd.isna(shape):
        return None
    length = "" if pd.isna(tokens) else f" over {si(three_digits(tokens))}"
    return f"{shape}{length} to {final_fraction:g}"
