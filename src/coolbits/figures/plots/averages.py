"""Averages of weights against cooldowns and trunk: both losses and the error (paper A, Figure 7)."""

from collections import Counter

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, drawing, palette, selection, style
from coolbits.figures.selection import Options, Tables
from coolbits.rows import averages, decays, runs, trunks
from coolbits.settings import main_rows

NAME = "averages"
_ALONG_A_TRUNK = ("lawa", "ema")
_LINES: tuple[palette.Line, ...] = ("-", "--", ":", "-.")


def draw(tables: Tables, options: Options) -> Figure:
    """Draw full-precision loss, quantized loss and error against tokens (option `quantizers`, one)."""
    rows = _rows(tables, options)
    figure, axes = style.panels(3)
    groups = [(palette.TRUNK, trunks(rows)), (palette.DECAY, runs(rows)), *of_each_kind(rows)]
    shown = (drawing.FULL_ALONG, drawing.QUANTIZED_ALONG, drawing.ERROR_ALONG)
    drawing.views(axes, shown, groups, selection.quantizer_label(rows), _mark)
    style.legend(figure, drawing.handles(look for look, _ in groups) + drawing.notes(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    return (
        f"Weight averages against learning-rate cooldowns under {selection.quantizer_label(rows)}. a: loss at full "
        "precision. b: loss once quantized. c: relative quantization error. Each cooldown leaves the trunk; its end "
        f"has the large mark. {captions.setting_label(rows)}. {captions.evidence(rows, tables['loss'])} {scale}."
    )


def of_each_kind(rows: pd.DataFrame) -> list[tuple[palette.Look, pd.DataFrame]]:
    """Return the averages among the rows by kind, number of members and name, each group with its look."""
    groups = []
    for kind, look in palette.AVERAGES.items():
        of_kind = averages(rows, kind)
        named = list(of_kind.groupby(["window", "run"]))
        sizes = Counter(window for (window, _), _ in named)
        for ((window, name), own), line in zip(named, _LINES * len(named), strict=False):
            label = f"{look.label}, {window} members" + f" ({name})" * (sizes[window] > 1)
            groups.append((palette.Look(label, look.color, look.marker, line), own))
    looks = palette.told_apart([look for look, _ in groups])
    return [(look, rows) for look, (_, rows) in zip(looks, groups, strict=True)]


def draw_average(axes: style.Axes, rows: pd.DataFrame, y: str, look: palette.Look) -> None:
    """Draw averages along a trunk as a curve against tokens, averages of cooldowns as points."""
    along = rows.average.isin(_ALONG_A_TRUNK).any()
    (drawing.curve if along else drawing.points)(axes, rows, y, look)


def _mark(axes: style.Axes, rows: pd.DataFrame, view: drawing.View, look: palette.Look) -> None:
    """Draw cooldowns as branches, the trunk and averages along it as curves, averages of cooldowns as points."""
    if look is palette.DECAY:
        drawing.fan(axes, rows, view.y, None, look)
    elif look is palette.TRUNK:
        drawing.curve(axes, rows, view.y, look)
    else:
        draw_average(axes, rows, view.y, look)


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return trunk, decays and averages of the main setting."""
    (rows,) = selection.of_quantizers(NAME, tables["loss"], options)
    selection.demand(NAME, decays(rows), "cooldown from a constant-rate trunk")
    kept = main_rows(rows)
    selection.demand(NAME, kept[kept.source == "average"], "average (lawa, soup, ema or merge) of its trunk")
    return kept
