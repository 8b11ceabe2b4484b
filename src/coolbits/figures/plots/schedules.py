"""Cosine against WSD: error along training, losses, error at the end of each budget (paper A, Figures 5, 22)."""

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, drawing, palette, selection, style
from coolbits.figures.selection import Options, Tables
from coolbits.rows import runs
from coolbits.settings import SETTING, largest_group, of_main_decays, of_setting

NAME = "schedules"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error against tokens, quantized against full-precision loss, and error against the budget."""
    rows = _rows(tables, options)
    figure, (*along, budgets) = style.panels(3)
    groups = [
        (look, of_kind) for kind, look in palette.SCHEDULES.items() if len(of_kind := rows[rows.schedule == kind])
    ]
    drawing.views(
        along, (drawing.ERROR_ALONG, drawing.LOSSES), groups, selection.quantizer_label(rows), drawing.fan_of_runs
    )
    for look, of_kind in groups:
        drawing.points(budgets, of_kind[of_kind.final.astype(bool)], "relative_error", look, joined=True)
    budgets.set(ylabel="Error at the end (%)")
    style.token_axis(budgets, "Token budget")
    style.say_if_empty(budgets)
    style.legend(figure, drawing.handles(look for look, _ in groups) + drawing.notes(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    kinds = ", ".join(look.label for kind, look in palette.SCHEDULES.items() if (rows.schedule == kind).any())
    return (
        f"Schedules compared under {selection.quantizer_label(rows)}: {kinds}. a: relative "
        "quantization error along each run, its end marked. b: quantized against full-precision loss along the same "
        "runs; the dashed line is a quantizer without error. c: error at the end against the token budget. "
        f"{captions.setting_label(rows)}. {captions.evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return whole runs of the setting with most schedules, then most runs; of each schedule with one decay."""
    (rows,) = selection.of_quantizers(NAME, tables["loss"], options)
    whole = runs(rows)
    selection.demand(NAME, whole[whole.schedule == "cosine"], "run with a cosine schedule")
    selection.demand(NAME, whole[whole.schedule == "wsd"], "run with a decay (wsd, or cooldowns of a constant run)")
    groups = whole.groupby(list(SETTING), dropna=False)
    schedules, paths = groups.schedule.nunique(), groups.path.nunique()
    if schedules.max() < 2:
        selection.demand(NAME, whole.iloc[:0], "setting (model, optimizer, weight decay, peak rate) with two schedules")
    chosen = of_setting(whole, largest_group(paths[schedules == schedules.max()]))
    return pd.concat(of_main_decays(chosen), ignore_index=True)
