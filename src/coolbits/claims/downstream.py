"""Evidence from the table of tasks: the mean accuracy of each finished run, beside its full-precision loss.

An accuracy is one number a run here; nothing is resampled. The best of the settings tried is found by the loss, as for
the claims on losses, and not by the accuracies that are compared.

An evaluation may be limited to some runs. A mean over tasks compares with another over the same tasks only: it is
taken over those that all runs of one model, optimizer and horizon were asked, with states of any precision.
"""

import numpy as np
import pandas as pd

from coolbits.claims.evidence import FULL, Evidence
from coolbits.rows import ends, full_precision, is_accuracy
from coolbits.settings import HORIZON

_MODEL = ["trajectory", "step"]
_ASKED = ("measure", "task")
_COMPARED = ["model", "optimizer", *HORIZON]


def of_tasks(table: pd.DataFrame, losses: pd.DataFrame) -> Evidence:
    """Return the ends of runs, scored by 100 less their mean accuracy over tasks at full precision, in %.

    Runs that have no task in common with all they are compared with are left out.

    Args:
        table: the table of tasks. A task counts by its accuracy, by the normalized one only where it has no other;
            metrics that are no accuracies do not count.
        losses: the loss table, which says what each model's full-precision loss is
    """
    finals = table[(table.quantizer == FULL) & table.final.astype(bool) & (table.source == "checkpoint")]
    finals = finals.drop(columns=["loss", "base_loss"], errors="ignore")
    models = finals.drop_duplicates(_MODEL).drop(columns=["task", "metric"])
    known = full_precision(losses).drop_duplicates(_MODEL)[[*_MODEL, "base_loss"]]
    scored = models.merge(_accuracies(finals, ends(models)), on=_MODEL, how="left").merge(known, on=_MODEL, how="left")
    complete = (scored.outcome == "complete") & scored.accuracy.notna() & scored.base_loss.notna()
    rows = scored[complete].reset_index(drop=True)
    values = {"full": 100 * (1 - rows[["accuracy"]].to_numpy(dtype="float64"))}
    lost = scored[scored.outcome == "diverged"]
    return Evidence(rows.assign(evidence=np.arange(len(rows))), values, lost, broken=_without_numbers(finals))


def _accuracies(rows: pd.DataFrame, finished: pd.DataFrame) -> pd.DataFrame:
    """Return the mean accuracy of each model over the tasks that all it is compared with were asked in one evaluation.

    A model without such a task is left out, and what is no end of a run, as of a trunk.

    `finished`: the ends of runs, which say what their horizons are.
    """
    asked = [name for name in _ASKED if name in rows]
    scored = rows[rows.value.notna()].drop(columns=[*HORIZON], errors="ignore")
    known = scored.merge(finished[[*_MODEL, *HORIZON]], on=_MODEL)
    accuracies = known[known.metric.map(is_accuracy).astype(bool)]
    # In the order of the alphabet, `acc` first, as figures have it.
    one = accuracies.sort_values("metric", kind="stable").drop_duplicates([*_MODEL, *asked])
    one = one.assign(end=one.groupby(_MODEL).ngroup())
    keys = (_COMPARED, [*_COMPARED, *asked])
    models, askers = (one.groupby(by, dropna=False).end.transform("nunique") for by in keys)
    return one[models == askers].groupby(_MODEL, as_index=False).agg(accuracy=("value", "mean"))


def _without_numbers(rows: pd.DataFrame) -> int:
    """Return how many models were asked tasks and have no finite score."""
    known = rows[rows.outcome == "complete"].groupby(_MODEL).value.count()
    return int((known == 0).sum())
