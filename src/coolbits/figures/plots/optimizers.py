"""Optimizers compared: training loss, quantization error along training and at equal loss. No paper has this figure."""

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import drawing, style
from coolbits.figures.selection import (
    Options,
    Tables,
    check_options,
    chosen_quantizers,
    demand,
    evidence,
    quantizer_label,
    rate_label,
)
from coolbits.rows import best_settings, ends, largest_group, of_quantizer, of_setting, runs
from coolbits.study.units import si

NAME = "optimizers"
_SMOOTHED_OVER = 0.01  # share of a curve's steps


def draw(tables: Tables, options: Options) -> Figure:
    """Draw loss curves, error against tokens and error against full-precision loss, each optimizer at its best rate."""
    rows, lost = _rows(tables, options)
    figure, (curves, error, exchange) = style.panels(3)
    kinds = sorted(set(rows.optimizer) | set(lost.optimizer))
    looks = {kind: style.optimizer_look(kind, kinds) for kind in kinds}
    training = _training(tables["metrics"], rows)
    for kind, look in looks.items():
        own, died = rows[rows.optimizer == kind], lost[lost.optimizer == kind]
        smooth = training[training.optimizer == kind]
        drawing.curve(curves, smooth, "loss", look, marked=False)
        drawing.curve(error, own, "relative_error", look)
        drawing.curve(exchange, own, "relative_error", look, x="base_loss")
        drawing.points(exchange, own[own.final.astype(bool)], "relative_error", look, x="base_loss")
        for panel in (curves, error):
            drawing.diverged(panel, died, look)
    started = training[training.tokens > 0.05 * training.tokens.max()].loss
    curves.set_ylim(float(started.min()) - 0.05, float(started.max()) + 0.1)
    curves.set(ylabel=f"Training {style.LOSS.lower()}")
    error.set(ylabel=style.ERROR)
    exchange.set(xlabel=f"Full-precision {style.LOSS.lower()}", ylabel=style.ERROR)
    exchange.invert_xaxis()
    for panel in (curves, error):
        style.token_axis(panel)
    style.legend(figure, drawing.handles(looks.values()) + drawing.notes(pd.concat([rows, lost])))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows, lost = _rows(tables, options)
    best = rows.drop_duplicates("optimizer")
    rates = ", ".join(f"{kind} {rate_label(rate)}" for kind, rate in zip(best.optimizer, best.peak_lr, strict=True))
    count = lost.family.nunique()
    died = f" {count} further run{'s' * (count > 1)} of other settings diverged (crosses)." if count else ""
    return (
        f"Optimizers compared under {quantizer_label(rows)}, runs of {si(int(rows.tokens.max()))} tokens, each at the "
        f"peak rate with the lowest full-precision loss among those tried ({rates}). a: training loss, smoothed over "
        "1 % of the steps. b: relative quantization error along training. c: the same error against full-precision "
        f"loss (better to the right), the large mark the end of a run.{died} {evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each optimizer's best runs at the budget and schedule that most optimizers share, and diverged rows."""
    check_options(NAME, options, ["quantizers"])
    table = tables["loss"]
    (quantizer,) = chosen_quantizers(NAME, table, options, most=1)
    rows = of_quantizer(table, quantizer)
    whole, last = runs(rows), ends(rows)
    alike = ["model", "schedule", "budget_tokens"]
    counts = last[last.base_loss.notna()].groupby(alike).optimizer.nunique()
    if counts.empty or counts.max() < 2:
        demand(NAME, rows.iloc[:0], "two optimizers with runs of equal model, schedule and budget")
    shared = largest_group(counts)
    best = best_settings(of_setting(last, shared))
    chosen = of_setting(whole, shared).merge(best, on=list(best))
    lost = rows[(rows.outcome == "diverged") & ~rows.family.isin(chosen.family)]
    return chosen, lost


def _training(metrics: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the smoothed loss curves of the runs in `rows`, a trunk's up to where the run left it."""
    parts = []
    for path, run in rows.groupby("path"):
        trunk = metrics[metrics.trajectory == run.family.iloc[0]]
        forked = run.branch_tokens.dropna()
        stem = trunk[trunk.tokens <= forked.iloc[0]] if len(forked) else trunk
        tail = metrics[metrics.trajectory == path]
        curve = pd.concat([stem, tail]).drop_duplicates("step", keep="last").sort_values("step")
        window = max(1, round(_SMOOTHED_OVER * len(curve)))
        parts.append(curve.assign(loss=curve.loss.rolling(window, center=True, min_periods=1).mean()))
    return demand(NAME, pd.concat(parts, ignore_index=True), "metrics of the runs compared")
