"""Averages of weights against cooldowns and trunk: both losses and the error (paper A, Figure 7)."""

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
from coolbits.rows import averages, decays, main_rows, main_setting, of_quantizer, runs, trunks

NAME = "averages"
_ALONG_A_TRUNK = ("lawa", "ema")
_LINES: tuple[style.Line, ...] = ("-", "--", ":", "-.")


def draw(tables: Tables, options: Options) -> Figure:
    """Draw full-precision loss, quantized loss and error against tokens (option `quantizers`, one)."""
    rows = _rows(tables, options)
    figure, axes = style.panels(3)
    looks = [style.TRUNK, style.DECAY]
    drawn = [(trunks(rows), style.TRUNK)]
    for kind, look in style.AVERAGES.items():
        of_kind = averages(rows, kind)
        windows = sorted(of_kind.window.unique())
        for window, line in zip(windows, _LINES * len(windows), strict=False):
            own = style.Look(f"{look.label}, {window} members", look.color, look.marker, line)
            drawn.append((of_kind[of_kind.window == window], own))
            looks.append(own)
    for panel, y in zip(axes, ("base_loss", "loss", "relative_error"), strict=True):
        drawing.fan(panel, runs(rows), y, None, style.DECAY)
        for group, look in drawn:
            single = look.label and not group.average.isin(_ALONG_A_TRUNK).any() and look is not style.TRUNK
            (drawing.points if single else drawing.curve)(panel, group, y, look)
        style.token_axis(panel)
    quantized = quantizer_label(rows)
    for panel, title in zip(axes, ("full precision", quantized, quantized), strict=True):
        panel.set(title=title, ylabel=style.ERROR if panel is axes[-1] else style.LOSS)
    style.legend(figure, drawing.handles(looks) + drawing.notes(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    return (
        f"Weight averages against learning-rate cooldowns under {quantizer_label(rows)}. a: loss at full precision. "
        "b: loss once quantized. c: relative quantization error. Each cooldown leaves the trunk; its end has the large "
        f"mark. {setting_label(main_setting(rows))}. {evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return trunk, decays and averages of the main setting."""
    check_options(NAME, options, ["quantizers"])
    table = tables["loss"]
    (quantizer,) = chosen_quantizers(NAME, table, options, most=1)
    rows = of_quantizer(table, quantizer)
    demand(NAME, decays(rows), "cooldown from a constant-rate trunk")
    kept = main_rows(rows)
    demand(NAME, kept[kept.source == "average"], "average (lawa, soup, ema or merge) of its trunk")
    return kept
