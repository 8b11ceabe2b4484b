"""Task accuracy of full-precision and quantized models, and the relative accuracy drop (paper A, Figures 3 and 16)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, drawing, palette, selection, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables
from coolbits.rows import averages, decays, trunks
from coolbits.settings import main_rows

NAME = "tasks"
_FULL = "|"  # the mark of full precision, whatever the kind of model


def draw(tables: Tables, options: Options) -> Figure:
    """Draw accuracy before and after quantization, and the drop, a row a task, a colour a kind of model."""
    groups = _groups(tables, options)
    names = list(dict.fromkeys(task for _, rows in groups for task in rows.task))
    height = 1.1 + 0.11 * len(names) * (len(groups) + 1)
    figure, (accuracy, drop) = style.panels(2, height=height)
    for place, (look, rows) in enumerate(groups):
        offset = (place - (len(groups) - 1) / 2) * 0.8 / len(groups)
        for position, name in enumerate(names):
            _dumbbell(accuracy, drop, rows[rows.task == name], position + offset, look)
    for panel in (accuracy, drop):
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(visible=False, axis="y")
        for edge in np.arange(0.5, len(names) - 1):
            panel.axhline(edge, color="0.85", linewidth=0.5)
    drop.tick_params(labelleft=False)
    drop.axvline(0, color=palette.GREY, linewidth=0.7)
    accuracy.set_xlabel("Accuracy")
    drop.set_xlabel("Relative accuracy drop (%)")
    kinds = drawing.handles([palette.Look(look.label, look.color, look.marker, "") for look, _ in groups])
    every = pd.concat([rows for _, rows in groups])
    precision = [
        drawing.entry("full precision", _FULL, hollow=False, size=6),
        drawing.entry(selection.quantizer_label(every), "o", hollow=False),
    ]
    style.legend(figure, kinds + precision + drawing.fallback_entry(every))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    groups = _groups(tables, options)
    rows = pd.concat([rows for _, rows in groups])
    return (
        f"Task accuracy of the last model of each kind under {selection.quantizer_label(rows)}. a: before (tick) and "
        "after (mark) quantization. b: relative accuracy drop (acc - acc_q) / (1 - acc); above 0, quantization hurt. "
        f"{captions.setting_label(rows)}. {captions.tasks_note(rows, tables['tasks'])} "
        f"{captions.evidence(rows, tables['tasks'])} {scale}."
    )


def _groups(tables: Tables, options: Options) -> list[tuple[palette.Look, pd.DataFrame]]:
    """Return the latest trunk checkpoint, decay end and averages of the main setting, as far as they were scored."""
    table = selection.accuracies(selection.demand(NAME, tables["tasks"], "task evaluations"))
    table = selection.demand(NAME, table[table.outcome == "complete"], "tasks with an accuracy")
    (rows,) = selection.of_quantizers(NAME, table, options)
    rows = main_rows(selection.of_one_measure(rows))
    kinds = [(palette.TRUNK, trunks(rows)), (palette.DECAY, decays(rows).query("final"))]
    kinds += [(look, averages(rows, kind)) for kind, look in palette.AVERAGES.items()]
    return [(look, group[group.tokens == group.tokens.max()]) for look, group in kinds if len(group)]


def _dumbbell(accuracy: style.Axes, drop: style.Axes, rows: pd.DataFrame, height: float, look: palette.Look) -> None:
    """Draw one task of one kind of model in both panels."""
    if rows.empty:
        return
    known = rows[rows.value.notna()]
    rows = known if len(known) else rows  # of what has no accuracy once quantized the tick remains
    base, value = rows.base_value.mean(), rows.value.mean()
    accuracy.plot([base, value], [height] * 2, color=look.color, linewidth=1.0, alpha=0.6)
    face = "white" if drawing.fell_back(rows).any() else look.color
    quantized = {"color": look.color, "markerfacecolor": face, "zorder": 3}
    means = [
        *accuracy.plot(base, height, _FULL, color=look.color, markersize=6, markeredgewidth=1.2, zorder=3),
        *accuracy.plot(value, height, look.marker, **quantized),
        *drop.plot(100 * rows.relative_drop.mean(), height, look.marker, **quantized),
    ]
    stand_for(means, rows, together=True)
    if rows.seed.nunique() > 1:
        single = 100 * rows.groupby("seed").relative_drop.mean()
        stand_for(
            drop.plot(single, [height] * len(single), look.marker, color=look.color, **drawing.SINGLE), rows, by="seed"
        )
    else:
        ends = rows[["value_low", "value_high", "relative_drop_low", "relative_drop_high"]].mean()
        accuracy.hlines(height, ends.value_low, ends.value_high, color=look.color, linewidth=0.7)
        drop.hlines(
            height, 100 * ends.relative_drop_low, 100 * ends.relative_drop_high, color=look.color, linewidth=0.9
        )
