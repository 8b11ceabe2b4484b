"""The rows that a claim is judged on, each with its resamples: what a contrast between rows can be taken over.

All rows are scored on the same held-out documents, so one resample of the documents serves all of them, and what two
models share cancels in their difference. Seeds come on top of documents, see `coolbits.claims.verdict`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, resampled_means
from coolbits.rows import ends, of_each_model, runs
from coolbits.settings import HORIZON, main_rows

FULL = "none"
BROKEN = "broken"
_OF_QUANTIZED = ("error", "quantized")


@dataclass(frozen=True)
class Evidence:
    """Rows of one quantizer in a table, and their values.

    `values[column]` has shape [rows, 1 + samples]: the estimate, then a value for each resample of the documents.
    Columns of losses: `error` (relative quantization error, %), `full` and `quantized` (nats per token). Of other
    tables nothing is resampled: values have the shape [rows, 1].
    `rows` counts from 0 in step with the values; rows that have none are in `lost`: diverged ones, and those of which a
    loss is not finite, with the outcome BROKEN, whose full-precision loss has a say in which settings are best. Their
    models are counted by `broken`. `asked` collects the rows whose quantized models were looked at, see `measured`.
    """

    rows: pd.DataFrame
    values: Mapping[str, Floats]
    lost: pd.DataFrame
    broken: int = field(default=0, kw_only=True)
    asked: set[int] = field(default_factory=set, kw_only=True, compare=False)

    @property
    def alike(self) -> tuple[str, ...]:
        """Columns in which ends must agree for optimizers to be compared: what is not tuned."""
        return ("model", *HORIZON)

    @property
    def cells(self) -> tuple[str, ...]:
        """Columns in which comparisons must agree for units that have them to be means over the same."""
        return self.alike

    def units(self, chosen: pd.DataFrame) -> tuple[list[str], str]:
        """Return the unit of each of the rows `chosen`, its seed, and what a reader must know of them, if anything."""
        return [str(seed) for seed in chosen.seed], ""

    def of(self, chosen: pd.DataFrame, column: str) -> Floats:
        """Return the values of `chosen`, rows selected from this evidence: [chosen, 1 + samples]."""
        places = chosen.evidence.to_numpy(dtype=int)
        if column in _OF_QUANTIZED:
            self.asked.update(places.tolist())
        return self.values[column][places]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Whole runs to the end of their schedules."""
        return runs(self.rows)

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The last checkpoints of whole runs."""
        return ends(self.rows)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The ends of all runs, those too that have no number."""
        return ends(pd.concat([self.rows, self.lost])) if len(self.lost) else self.ends

    @cached_property
    def main(self) -> pd.DataFrame:
        """Trunk, decays and averages of the study's main setting."""
        return main_rows(self.rows)


def measured(measure: Callable[[Evidence], Effect | None], evidence: Evidence) -> tuple[Effect | None, pd.DataFrame]:
    """Return what `measure` makes of the evidence, and the quantized models behind it, a row each."""
    evidence.asked.clear()
    effect = measure(evidence)
    behind = evidence.rows.iloc[sorted(evidence.asked)]
    return effect, of_each_model(behind) if len(behind) else behind


def gather(every: pd.DataFrame, documents: pd.DataFrame, samples: int, seed: int) -> Evidence:
    """Return the evidence of one quantizer, or of full precision, from rows of a loss table and their documents.

    Args:
        every: the rows of one quantizer, or of FULL, by one measure; their index is their place in the table
        documents: columns row (place in the table), tokens, nats, base_nats (lists, one entry a document)
        samples: resamples of the documents
        seed: of the resamples

    Raises:
        CoolbitsError: if a row with a finite error has no documents.
    """
    whole = every[every.outcome == "complete"]
    finite = np.isfinite(whole.relative_error.astype("float64"))
    rows, broken = whole[finite], whole[~finite].assign(outcome=BROKEN)
    lists = documents.set_index("row")
    missing = rows.index.difference(lists.index)
    if len(missing):
        raise CoolbitsError(f"documents.parquet: no documents of row {missing[0]} of the table; make it again")
    lists = lists.loc[rows.index]
    tokens, nats, base = (_drawn(lists[name], samples, seed) for name in ("tokens", "nats", "base_nats"))
    values = {"full": base / tokens, "quantized": nats / tokens, "error": 100 * (nats / base - 1)}
    lost = pd.concat([every[every.outcome == "diverged"], broken])
    rows = rows.reset_index(drop=True).assign(evidence=np.arange(len(rows)))
    return Evidence(rows, values, lost, broken=len(of_each_model(broken)))


def _drawn(lists: pd.Series, samples: int, seed: int) -> Floats:
    """Return estimate and resamples of the mean of each list; lists of one length are drawn together."""
    found = np.empty((len(lists), 1 + samples))
    lengths = np.array([len(entry) for entry in lists])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        values = np.stack([np.asarray(lists.iloc[place], dtype=np.float64) for place in places])
        found[places, 0] = values.mean(axis=1)
        found[places, 1:] = resampled_means(values, samples, seed)
    return found
