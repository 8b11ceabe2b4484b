"""What quantization costs, predicted from the loss at full precision: error size times curvature along the error."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import drawing, selection, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables
from coolbits.figures.style import Look
from coolbits.rows import averages, decays, main_rows, runs, trunks

NAME = "prediction"
_MODEL = ["trajectory", "step", "source", "average", "window"]


def draw(tables: Tables, options: Options) -> Figure:
    """Draw predicted against measured increase (option `quantizers`, two at most), and of the first its two factors."""
    chosen = _rows(tables, options)
    figure, (scatter, size, curvature) = style.panels(3, height=2.7)
    shown = [_scatter(scatter, rows, hollow=place > 0) for place, rows in enumerate(chosen)]
    scatter.set(
        xscale="log", yscale="log", xlabel="Predicted increase (nats per token)", ylabel="Measured increase (nats)"
    )
    low = max(scatter.get_xlim()[0], scatter.get_ylim()[0])
    scatter.axline((low, low), (10 * low, 10 * low), color=style.GREY, linestyle="--", linewidth=0.8, zorder=1)
    main = _main(chosen[0])
    _fan(size, main, "squared_norm")
    _fan(curvature, main, "curvature")
    _fan(curvature, main, "random_curvature", line=":")
    size.set_ylabel("Squared error |dW|²")
    size.set_ylim(bottom=0)
    curvature.set(yscale="log", ylabel="Curvature along the error dW")
    for panel in (size, curvature):
        style.token_axis(panel)
        drawing.diverged(panel, main, style.TRUNK)
    random = Look("random error", style.GREY, "", ":")
    looks = {look.label: look for looks in shown for look in looks}
    kinds = [drawing.entry(selection.quantizer_label(rows), "o", hollow=place > 0) for place, rows in enumerate(chosen)]
    style.legend(figure, [*drawing.handles(looks.values()), *kinds, *drawing.handles([random], marked=False)])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, how good the prediction is, n, and scale."""
    chosen = _rows(tables, options)
    rows = pd.concat(chosen).dropna(subset=["increase", "predicted"])
    names = " and ".join(selection.quantizer_label(own) for own in chosen)
    ratio = (rows.increase / rows.predicted)[rows.predicted > 0]
    hidden = int(((rows.increase <= 0) | (rows.predicted <= 0)).sum())
    lost = f" Models without an increase, which logarithmic axes cannot show: {hidden}." if hidden else ""
    middle = f"{ratio.median():.2f} ({ratio.quantile(0.1):.2f} to {ratio.quantile(0.9):.2f}: from the 10th to the 90th"
    seeds, main = rows.seed.nunique(), _main(chosen[0])
    return (
        f"Is the cost of quantization ({names}) curvature times error? a: held-out loss L(w + dW) - L(w), with w the "
        "weights and dW what quantization changes, against g'dW + dW'H dW / 2 with gradient g and Hessian H at w; "
        f"dashed: equal. Median of measured over predicted: {middle} percentile).{lost} b, c: the factors of "
        f"dW'H dW = |dW|² times curvature along dW, under {selection.quantizer_label(chosen[0])}, along a trunk at a "
        "constant rate and its cooldowns; dotted: the curvature along random errors of the same size in every "
        f"module. {selection.setting_label(main)}. n = {len(rows)} quantized models from {seeds} "
        f"seed{'s' * (seeds > 1)}. {scale}."
    )


def _rows(tables: Tables, options: Options) -> list[pd.DataFrame]:
    """Return one row a model, a frame a quantizer."""
    frames = selection.of_quantizers(NAME, tables["prediction"], options, most=2)
    models = [rows.drop_duplicates(_MODEL) for rows in frames]
    return [rows.assign(random_curvature=2 * rows.random / rows.squared_norm) for rows in models]


def _main(models: pd.DataFrame) -> pd.DataFrame:
    rows = main_rows(models, every_decay=True)
    return selection.demand(NAME, rows[rows.source == "checkpoint"], "prediction along a trunk with a decay")


def _groups(models: pd.DataFrame) -> list[tuple[Look, pd.DataFrame]]:
    """Return what the models are, each once."""
    checkpoints = models[models.source == "checkpoint"]
    whole = [name for name in style.SCHEDULES if name != "wsd"]
    return [
        (style.TRUNK, trunks(models)),
        (style.DECAY, decays(models)),
        *((style.SCHEDULES[name], checkpoints[checkpoints.schedule == name]) for name in whole),
        *((look, averages(models, kind)) for kind, look in style.AVERAGES.items()),
    ]


def _scatter(axes: Axes, models: pd.DataFrame, hollow: bool) -> list[Look]:
    """Draw a mark a model; return the looks that were used, as the legend shows them."""
    used = []
    for look, rows in _groups(models):
        seen = rows[(rows.increase > 0) & (rows.predicted > 0)]
        if len(seen):
            face = "white" if hollow else look.color
            faces = {"color": look.color, "markerfacecolor": face}
            stand_for(axes.plot(seen.predicted, seen.increase, look.marker, zorder=3, **faces), seen)
            used.append(replace(look, line=""))
    return used


def _fan(axes: Axes, rows: pd.DataFrame, y: str, line: style.Line = "-") -> None:
    """Draw the trunk and its cooldowns."""
    drawing.fan(axes, runs(rows), y, None, replace(style.DECAY, line=line))
    drawing.curve(axes, trunks(rows), y, replace(style.TRUNK, line=line), marked=line == "-")
