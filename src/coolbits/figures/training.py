"""Metrics along training, run by run."""

from collections.abc import Sequence

import pandas as pd

from coolbits.figures.selection import demand

_SMOOTHED_OVER = 0.01  # share of a curve's steps


def smoothed(figure: str, metrics: pd.DataFrame, rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the columns `names` of the metrics of the runs in `rows`, smoothed; a trunk's up to where the run left it.

    Raises:
        CoolbitsError: if there are no metrics of these runs.
    """
    parts = []
    for path, run in rows.groupby("path"):
        trunk = metrics[metrics.trajectory == run.family.iloc[0]]
        forked = run.branch_tokens.dropna()
        stem = trunk[trunk.tokens <= forked.iloc[0]] if len(forked) else trunk
        tail = metrics[metrics.trajectory == path]
        curve = pd.concat([stem, tail]).drop_duplicates("step", keep="last").sort_values("step")
        window = max(1, round(_SMOOTHED_OVER * len(curve)))
        own = {name: curve[name].rolling(window, center=True, min_periods=1).mean() for name in names}
        parts.append(curve.assign(**own))
    return demand(figure, pd.concat(parts, ignore_index=True), "metrics of the runs compared")
