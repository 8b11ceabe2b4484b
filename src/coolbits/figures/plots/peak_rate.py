"""Peak learning rates compared: error along training, and full-precision against quantized loss (paper A, Figure 6)."""

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
from coolbits.rows import largest_group, of_quantizer, of_setting, runs
from coolbits.study.units import si

NAME = "peak-rate"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error against tokens, and quantized loss and error against full-precision loss (option `quantizers`)."""
    rows = _rows(tables, options)
    figure, (error, losses, exchange) = style.panels(3, height=2.6)
    rates = sorted(rows.peak_lr.unique())
    looks = [
        style.Look(rate_label(rate), color, marker)
        for rate, color, marker in zip(rates, style.shades(len(rates)), "osD^vP<>" * len(rates), strict=False)
    ]
    for rate, look in zip(rates, looks, strict=True):
        of_rate = rows[rows.peak_lr == rate]
        last = of_rate[of_rate.final.astype(bool)]
        drawing.curve(error, of_rate, "relative_error", look)
        drawing.diverged(error, of_rate, look)
        drawing.curve(losses, of_rate, "loss", look, x="base_loss")
        drawing.points(losses, last, "loss", look, x="base_loss")
        drawing.curve(exchange, of_rate, "relative_error", look, x="base_loss")
        drawing.points(exchange, last, "relative_error", look, x="base_loss")
    starts = rows.branch_tokens.dropna()
    if starts.nunique() == 1:
        error.axvspan(float(starts.iloc[0]), float(rows.tokens.max()), color="0.93", zorder=0)
        error.annotate("decay", (float(starts.iloc[0]), 0.02), xycoords=("data", "axes fraction"), color=style.GREY)
    error.set(ylabel=style.ERROR)
    style.token_axis(error)
    drawing.diagonal(losses)
    losses.set(xlabel=f"Full-precision {style.LOSS.lower()}", ylabel=f"{quantizer_label(rows)} loss")
    exchange.set(xlabel=f"Full-precision {style.LOSS.lower()}", ylabel=style.ERROR)
    exchange.invert_xaxis()
    style.legend(figure, drawing.handles(looks) + drawing.notes(rows), title="Peak learning rate")
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    return (
        f"Peak learning rates compared under {quantizer_label(rows)}, runs of {si(int(rows.tokens.max()))} tokens with "
        "a decay at the end. a: relative quantization error along training. b: quantized against full-precision "
        "loss along the same runs; the dashed line is a quantizer without error, the large mark the end of a run. "
        "c: the error against full-precision loss (better to the right): at equal loss, the lower the better. "
        f"{evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the runs with a decay of the setting and budget that most peak rates share."""
    check_options(NAME, options, ["quantizers"])
    table = tables["loss"]
    (quantizer,) = chosen_quantizers(NAME, table, options, most=1)
    rows = of_quantizer(table, quantizer)
    whole = runs(rows)
    whole = demand(NAME, whole[whole.schedule == "wsd"], "run with a decay (wsd, or cooldowns of a constant run)")
    shared = ["model", "optimizer", "weight_decay", "budget_tokens"]
    counts = whole.groupby(shared, dropna=False).peak_lr.nunique()
    if counts.max() < 2:
        demand(NAME, whole.iloc[:0], "two peak learning rates with decays of equal budget")
    setting = largest_group(counts)
    chosen = of_setting(whole, setting)
    # A run that diverged on its trunk has no decay to be found by; it is shown beside those that did not.
    lost = of_setting(rows[rows.outcome == "diverged"], setting, but=["budget_tokens"])
    return pd.concat([chosen, lost[~lost.trajectory.isin(chosen.trajectory)]], ignore_index=True)
