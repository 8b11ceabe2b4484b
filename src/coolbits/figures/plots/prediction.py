"""What quantization costs, predicted from the loss at full precision: error size times curvature along the error."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import captions, crosses, drawing, palette, scales, selection, style
from coolbits.figures.palette import Look
from coolbits.figures.selection import Options, Tables
from coolbits.rows import averages, decays, of_each_model, runs, trunks
from coolbits.settings import main_rows

NAME = "prediction"
_SIZES = (4.8, 2.6)  # of the marks of the first quantizer and of the second


def draw(tables: Tables, options: Options) -> Figure:
    """Draw predicted against measured increase (option `quantizers`, two at most), and of the first its two factors."""
    chosen = _rows(tables, options)
    figure, (scatter, length, curvature) = style.panels(3, height=2.7)
    shown = [_scatter(scatter, rows, size) for rows, size in zip(chosen, _SIZES, strict=False)]
    scatter.set(
        xscale="log",
        yscale="log",
        xlabel="Predicted increase (nats per token)",
        ylabel="Measured increase\n(nats per token)",
    )
    for axis in (scatter.xaxis, scatter.yaxis):
        scales.log_ticks(axis)
    low = max(scatter.get_xlim()[0], scatter.get_ylim()[0])
    scatter.axline((low, low), (10 * low, 10 * low), color=palette.GREY, linestyle="--", linewidth=0.8, zorder=1)
    main = _main(chosen[0])
    _fan(length, main, "squared_norm")
    _fan(curvature, main, "curvature")
    _fan(curvature, main, "random_curvature", line=":")
    length.set_ylabel("Squared error |dW|²")
    scales.from_zero(length)
    curvature.set_ylabel("Curvature along the error dW")
    scales.scale_values(curvature)
    for panel in (length, curvature):
        crosses.diverged(panel, main, palette.TRUNK)
        crosses.make_room(panel)
        style.token_axis(panel)
    random = Look("random error", palette.GREY, "", ":")
    looks = {look.label: look for looks in shown for look in looks}
    kinds = [
        drawing.entry(selection.quantizer_label(rows), "o", hollow=False, size=size)
        for rows, size in zip(chosen, _SIZES, strict=False)
        if len(chosen) > 1  # one is in the caption; its mark would be that of the trunk
    ]
    others = [*drawing.handles([random], marked=False), *drawing.fallback_entry(_measured(chosen))]
    entries = [*drawing.handles(looks.values()), *kinds, *others, *crosses.entry(main)]
    style.legend(figure, entries)
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, how good the prediction is, n, and scale."""
    chosen = _rows(tables, options)
    rows = _measured(chosen)
    names = " and ".join(selection.quantizer_label(own) for own in chosen)
    ratio = (rows.increase / rows.predicted)[rows.predicted > 0]
    hidden = int(((rows.increase <= 0) | (rows.predicted <= 0)).sum())
    lost = f" Models without an increase, which logarithmic axes cannot show: {hidden}." if hidden else ""
    sizes = " (large and small marks)" if len(chosen) > 1 else ""
    middle = f"{ratio.median():.2f} ({ratio.quantile(0.1):.2f} to {ratio.quantile(0.9):.2f}: from the 10th to the 90th"
    seeds, main = rows.seed.nunique(), _main(chosen[0])
    thin = "; thick lines: means, thin ones: single seeds" if main.seed.nunique() > 1 else ""
    return (
        f"Is the cost of quantization ({names}) curvature times error? a{sizes}: held-out loss L(w + dW) - L(w), with "
        "w the weights and dW what quantization changes, against g'dW + dW'H dW / 2 with gradient g and Hessian H at "
        f"w; dashed: equal. Median of measured over predicted: {middle} percentile).{lost} b, c: the factors of "
        f"dW'H dW = |dW|² times curvature along dW, under {selection.quantizer_label(chosen[0])}, along a trunk at a "
        "constant rate and its cooldowns; dotted: the curvature along random errors of the same size in every "
        f"module. {captions.setting_label(main)}. n = {len(rows)} quantized models from {seeds} "
        f"seed{'s' * (seeds > 1)}{thin}.{captions.measure_note(rows, tables[NAME])}{captions.fallback_note(rows)} "
        f"{scale}."
    )


def _rows(tables: Tables, options: Options) -> list[pd.DataFrame]:
    """Return one row a model, a frame a quantizer."""
    frames = selection.of_quantizers(NAME, tables["prediction"], options, most=2)
    models = [of_each_model(rows) for rows in frames]
    return [rows.assign(random_curvature=2 * rows.random / rows.squared_norm) for rows in models]


def _measured(chosen: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the models of all quantizers that have both numbers: those that did not diverge."""
    return pd.concat(chosen).dropna(subset=["increase", "predicted"])


def _main(models: pd.DataFrame) -> pd.DataFrame:
    rows = main_rows(models, every_decay=True)
    return selection.demand(NAME, rows[rows.source == "checkpoint"], "prediction along a trunk with a decay")


def _groups(models: pd.DataFrame) -> list[tuple[Look, pd.DataFrame]]:
    """Return what the models are, each once."""
    checkpoints = models[models.source == "checkpoint"]
    whole = [name for name in palette.SCHEDULES if name != "wsd"]
    return [
        (palette.TRUNK, trunks(models)),
        (palette.DECAY, decays(models)),
        *((palette.SCHEDULES[name], checkpoints[checkpoints.schedule == name]) for name in whole),
        *((look, averages(models, kind)) for kind, look in palette.AVERAGES.items()),
    ]


def _scatter(axes: Axes, models: pd.DataFrame, size: float) -> list[Look]:
    """Draw a mark a model; return the looks that were used, as the legend shows them."""
    used = []
    for look, rows in _groups(models):
        seen = rows[(rows.increase > 0) & (rows.predicted > 0)]
        if len(seen):
            drawing.scattered(axes, seen, "predicted", "increase", look, size)
            used.append(replace(look, line=""))
    return used


def _fan(axes: Axes, rows: pd.DataFrame, y: str, line: palette.Line = "-") -> None:
    """Draw the trunk and its cooldowns."""
    drawing.fan(axes, runs(rows), y, None, replace(palette.DECAY, line=line), marked=line == "-")
    drawing.curve(axes, trunks(rows), y, replace(palette.TRUNK, line=line), marked=line == "-")
