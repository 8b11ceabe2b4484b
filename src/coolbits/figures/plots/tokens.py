"""Error and loss along training: one trunk, its cooldowns, the learning rate (paper A, Figures 1 and 4)."""

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
from coolbits.rows import decays, main_rows, main_setting, of_quantizer, runs, trunks

NAME = "tokens"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error panels, one a quantizer (option `quantizers`, two at most), and a panel of the losses."""
    per_quantizer = _rows(tables, options)
    figure, axes = style.panels(len(per_quantizer) + 1)
    full = style.Look("full precision", style.GREY, "")
    quantized = style.Look(quantizer_label(per_quantizer[0]), style.GREY, "", "--")
    for panel, rows in zip(axes, per_quantizer, strict=False):
        _fan(panel, rows, "relative_error")
        drawing.rates(panel, runs(rows))
        panel.set_title(quantizer_label(rows))
        panel.set_ylabel(style.ERROR)
        panel.set_ylim(bottom=0)
    _fan(axes[-1], per_quantizer[0], "base_loss")
    _fan(axes[-1], per_quantizer[0], "loss", line="--")
    axes[-1].set_ylabel(style.LOSS)
    for panel in axes:
        style.token_axis(panel)
        drawing.diverged(panel, per_quantizer[0], style.TRUNK)
    entries = drawing.handles([style.TRUNK, style.DECAY]) + drawing.handles([full, quantized], marked=False)
    style.legend(figure, entries + drawing.notes(pd.concat(per_quantizer), rate=True))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    per_quantizer = _rows(tables, options)
    names = " and ".join(quantizer_label(rows) for rows in per_quantizer)
    return (
        f"Quantization error ({names}) and loss against training tokens. One trunk at a constant rate, and "
        f"cooldowns that leave it and take the rate to its end (learning rate dotted, right axis). Relative error is "
        f"CE(quantized) / CE(full) - 1. {setting_label(main_setting(per_quantizer[0]))}. "
        f"{evidence(per_quantizer[0], tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> list[pd.DataFrame]:
    """Return trunk and decays of the main setting, a frame a quantizer."""
    check_options(NAME, options, ["quantizers"])
    table = tables["loss"]
    demand(NAME, decays(table), "cooldown from a constant-rate trunk")
    demand(NAME, trunks(table), "constant-rate trunk")
    chosen = chosen_quantizers(NAME, table, options, most=2)
    frames = [main_rows(of_quantizer(table, name)) for name in chosen]
    return [rows[rows.source == "checkpoint"] for rows in frames]


def _fan(axes: style.Axes, rows: pd.DataFrame, y: str, line: style.Line = "-") -> None:
    """Draw the whole trunk, also past its last branch, and the cooldowns."""
    trunk = style.Look("", style.TRUNK.color, line=line)
    decay = style.Look("", style.DECAY.color, style.DECAY.marker, line)
    drawing.fan(axes, runs(rows), y, None, decay)
    drawing.curve(axes, trunks(rows), y, trunk, marked=line == "-")
