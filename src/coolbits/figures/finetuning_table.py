"""The validation losses of fine-tuned models, read and made into columns: one row a loss that was taken."""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.measurements import Measurement

_FILE = "validation.parquet"
_TYPES = {"step": "Int64", "loss": "float64", "exact": "float64", "scored_tokens": "Int64"}


def validations(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return the validation losses taken in every row's fine-tuning, those before it diverged included.

    Column `row` counts the rows of the recipe from 0; `last` marks the loss at the end of a fine-tuning that has one.
    One whose start diverged has a single row, without numbers.

    Raises:
        CoolbitsError: if a fine-tuning that did not diverge has no such losses.
    """
    frames = []
    for row, item in enumerate(measured):
        path, lost = item.place / _FILE, item.outcome == "diverged"
        if not path.is_file() and not lost:
            raise CoolbitsError(f"{path}: no such file; its fine-tuning is complete and should have written it")
        frame = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"step": [item.diverged_step]})
        frame = frame.rename(columns={"tokens": "scored_tokens"}).reindex(columns=list(_TYPES)).astype(_TYPES)
        last = (frame.step == frame.step.max()) & (not lost)
        frames.append(frame.assign(row=row, last=last, outcome=item.outcome, diverged_step=item.diverged_step))
    return pd.concat(frames, ignore_index=True).astype({"outcome": "str", "diverged_step": "Int64", "last": "bool"})
