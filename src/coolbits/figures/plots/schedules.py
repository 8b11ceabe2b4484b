"""Cosine against WSD: error along training, losses, error at the end of each budget (paper A, Figures 5, 22)."""

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
    setting_label,
)
from coolbits.rows import SETTING, largest_group, of_main_run, of_quantizer, of_setting, runs

NAME = "schedules"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error against tokens, quantized against full-precision loss, and error against the budget."""
    rows = _rows(tables, options)
    figure, (error, losses, budgets) = style.panels(3)
    found = [kind for kind in style.SCHEDULES if kind in set(rows.schedule)]
    for kind in found:
        look, of_kind = style.SCHEDULES[kind], rows[rows.schedule == kind]
        last = of_kind[of_kind.final.astype(bool)]
        drawing.fan(error, of_kind, "relative_error", look, look)
        drawing.fan(losses, of_kind, "loss", look, look, x="base_loss")
        drawing.points(budgets, last, "relative_error", look, joined=True)
        drawing.diverged(error, of_kind, look)
    error.set(ylabel=style.ERROR)
    style.token_axis(error)
    drawing.diagonal(losses)
    losses.set(xlabel=f"Full-precision {style.LOSS.lower()}", ylabel=f"{quantizer_label(rows)} loss")
    budgets.set(ylabel="Error at the end (%)")
    style.token_axis(budgets, "Token budget")
    style.legend(figure, drawing.handles(style.SCHEDULES[kind] for kind in found) + drawing.notes(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    setting = {name: rows.iloc[0][name] for name in SETTING}
    return (
        f"Schedules compared under {quantizer_label(rows)}: {', '.join(sorted(rows.schedule.unique()))}. a: relative "
        "quantization error along each run, its end marked. b: quantized against full-precision loss along the same "
        "runs; the dashed line is a quantizer without error. c: error at the end against the token budget. "
        f"{setting_label(setting)}. {evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return whole runs of the setting with most schedules, then most runs."""
    check_options(NAME, options, ["quantizers"])
    table = tables["loss"]
    (quantizer,) = chosen_quantizers(NAME, table, options, most=1)
    whole = runs(of_quantizer(table, quantizer))
    demand(NAME, whole[whole.schedule == "cosine"], "run with a cosine schedule")
    demand(NAME, whole[whole.schedule == "wsd"], "run with a decay (wsd, or cooldowns of a constant run)")
    groups = whole.groupby(list(SETTING))
    schedules, paths = groups.schedule.nunique(), groups.path.nunique()
    if schedules.max() < 2:
        demand(NAME, whole.iloc[:0], "setting (model, optimizer, weight decay, peak rate) with two schedules")
    chosen = of_setting(whole, largest_group(paths[schedules == schedules.max()]))
    return pd.concat([of_main_run(of_kind) for _, of_kind in chosen.groupby("schedule")], ignore_index=True)
