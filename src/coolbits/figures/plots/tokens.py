"""Error and loss along training: one trunk, its cooldowns, the learning rate (paper A, Figures 1 and 4)."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, crosses, drawing, palette, scales, selection, style
from coolbits.figures.selection import Options, Tables
from coolbits.rows import decays, runs, trunks
from coolbits.settings import main_rows

NAME = "tokens"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error panels, one a quantizer (option `quantizers`, two at most), and a panel of the losses."""
    per_quantizer = _rows(tables, options)
    figure, axes = style.panels(len(per_quantizer) + 1)
    full = palette.Look("full precision", palette.GREY, "")
    quantized = palette.Look(selection.quantizer_label(per_quantizer[0]), palette.GREY, "", "--")
    looks = _decay_looks(per_quantizer[0])
    for panel, rows in zip(axes, per_quantizer, strict=False):
        _fan(panel, rows, "relative_error", looks)
        drawing.rates(panel, runs(rows))
        panel.set_title(selection.quantizer_label(rows).replace(" (", "\n("))
        panel.set_ylabel(style.ERROR)
        scales.from_zero(panel)
    _fan(axes[-1], per_quantizer[0], "base_loss", looks)
    _fan(axes[-1], per_quantizer[0], "loss", looks, line="--")
    axes[-1].set_ylabel(style.LOSS)
    for panel in axes:
        crosses.diverged(panel, per_quantizer[0], palette.TRUNK)
        crosses.make_room(panel)
        style.token_axis(panel)
    right = max(panel.get_xlim()[1] for panel in axes)
    for panel in axes:
        panel.set_xlim(right=right)
        style.say_if_empty(panel)
    entries = drawing.handles([palette.TRUNK, *looks.values()]) + drawing.handles([full, quantized], marked=False)
    style.legend(figure, entries + drawing.notes(pd.concat(per_quantizer), rate=True))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    per_quantizer = _rows(tables, options)
    names = " and ".join(selection.quantizer_label(rows) for rows in per_quantizer)
    return (
        f"Quantization error ({names}) and loss against training tokens. One trunk at a constant rate, and "
        f"cooldowns that leave it and take the rate to its end (learning rate dotted, right axis). Relative error is "
        f"CE(quantized) / CE(full) - 1. {captions.setting_label(per_quantizer[0])}. "
        f"{captions.evidence(pd.concat(per_quantizer), tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> list[pd.DataFrame]:
    """Return trunk and all decays of the main setting, a frame a quantizer."""
    table = tables["loss"]
    chosen = selection.of_quantizers(NAME, table, options, most=2)
    selection.demand(NAME, decays(table), "cooldown from a constant-rate trunk")
    selection.demand(NAME, trunks(table), "constant-rate trunk")
    frames = [main_rows(rows, every_decay=True) for rows in chosen]
    return [rows[rows.source == "checkpoint"] for rows in frames]


def _decay_looks(rows: pd.DataFrame) -> dict[str, palette.Look]:
    """Return a look for each kind of decay, named only where there are several."""
    names = sorted(runs(rows).decay.dropna().unique())
    if len(names) < 2:
        return dict.fromkeys(names, palette.DECAY)
    return {name: palette.decay_look(f"cooldown, {name}", place) for place, name in enumerate(names)}


def _fan(
    axes: style.Axes, rows: pd.DataFrame, y: str, looks: Mapping[str, palette.Look], line: palette.Line = "-"
) -> None:
    """Draw the whole trunk, also past its last branch, and the cooldowns."""
    whole = runs(rows)
    for name, look in looks.items():
        drawing.fan(axes, whole[whole.decay == name], y, None, replace(look, label="", line=line), marked=line == "-")
    drawing.curve(axes, trunks(rows), y, replace(palette.TRUNK, label="", line=line), marked=line == "-")
