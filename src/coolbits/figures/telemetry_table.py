"""The telemetry of trajectories, read and made into columns: one row a step, parameter and state of its optimizer."""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.measurements import Measurement

_FILE = "telemetry.parquet"
_TYPES = {"step": "Int64", "tokens": "Int64", "outcome": "str", "diverged_step": "Int64"}


def telemetry(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return what was measured inside the optimizer along every row's trajectory, up to its checkpoint.

    Column `row` counts the rows of the recipe from 0. One that diverged keeps what was measured until that was
    noticed; one of which nothing was has one row that says so.

    Raises:
        CoolbitsError: if a checkpoint has no telemetry, though its trajectory did not diverge.
    """
    frames = []
    for row, item in enumerate(measured):
        path = item.place / _FILE
        lost = item.outcome == "diverged"
        if not path.is_file() and not lost:
            raise CoolbitsError(f"{path}: no telemetry; a table of it takes checkpoints of runs that have `telemetry`")
        frame = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        if frame.empty and lost:
            frame = pd.DataFrame({"step": [item.diverged_step], "tokens": [_tokens_when_lost(item)]})
        frames.append(frame.assign(row=row, outcome=item.outcome, diverged_step=item.diverged_step).astype(_TYPES))
    return pd.concat(frames, ignore_index=True)


def _tokens_when_lost(item: Measurement) -> int | None:
    """Return the tokens read by the step of divergence, if anything was logged of the training."""
    path = item.place / "metrics.parquet"
    logged = pd.read_parquet(path, columns=["step", "tokens"]) if path.is_file() else pd.DataFrame()
    if logged.empty or item.diverged_step is None:
        return None
    return item.diverged_step * int(logged.tokens.iloc[-1]) // int(logged.step.iloc[-1])
