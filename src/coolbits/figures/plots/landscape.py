"""The loss on the plane of a checkpoint, the one before it and its quantized form (paper A, Figures 8 and 25)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from coolbits.figures import captions, drawing, selection, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables
from coolbits.rows import runs
from coolbits.settings import HORIZON, SETTING, largest_group, of_setting
from coolbits.study.units import si

NAME = "landscape"
_LEVELS = (-0.01, 0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)  # nats
_COLORS = colormaps["viridis_r"]
_MOST = 6
_MODEL = ["trajectory", "step"]
_ALIKE = [name for name in (*SETTING, *HORIZON) if name not in ("peak_lr", "schedule")]
_QUANTIZED = "quantized weights"
_MARKS = {"checkpoint": "o", "previous checkpoint": "<", _QUANTIZED: "v"}


def draw(tables: Tables, options: Options) -> Figure:
    """Draw a panel for the last model of each run, of one seed: peak rates with one decay, or the first six runs.

    Options: `quantizers`, a name; `runs`, names.
    """
    table = _rows(tables, options)
    models = table.drop_duplicates(_MODEL)
    figure, axes, columns = style.grid(len(models), height=2.2, above=0.5)
    for panel, (_, model) in zip(axes, models.iterrows(), strict=True):
        grid = table[(table.trajectory == model.trajectory) & (table.step == model.step)]
        _contours(panel, grid)
        _points(panel, grid)
        panel.set_title(_title(model, models.peak_lr.nunique() == 1), loc="right")  # clear of the letter
        panel.set(xlim=(grid.x.min(), grid.x.max()), ylim=(grid.y.min(), grid.y.max()))
        panel.set_xlabel("To the previous checkpoint")
    for panel in axes[::columns]:
        panel.set_ylabel("To the quantized weights")
    scale = ScalarMappable(_norm(), _COLORS)
    bar = figure.colorbar(scale, ax=axes, label="Loss increase (nats per token)", format="{x:g}")
    bar.ax.minorticks_off()
    entries = [drawing.entry(label, marker, hollow=False) for label, marker in _MARKS.items()]
    style.legend(figure, entries + drawing.fallback_entry(models, _MARKS[_QUANTIZED]))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, which models, and scale."""
    table = _rows(tables, options)
    models = table.drop_duplicates(_MODEL)
    points = len(table) // len(models)
    others = len(_models(tables, options)[1]) - len(models)
    left_out = f" ({others} more left out)" if others else ""
    cosine = models.cosine.abs().max()
    return (
        "Held-out loss on the plane through a checkpoint at the end of training (circle, the origin), the checkpoint "
        f"before it and its quantized weights ({selection.quantizer_label(models)}), above the loss of the checkpoint. "
        f"Axes: Euclidean distances in the space of weights along the two differences, whose cosine is at most "
        f"{cosine:.2g}; {points} points a panel, {_axes(table)} and one scale of colours for all. "
        f"{captions.setting_label(models, 'peak_lr' if models.peak_lr.nunique() > 1 else '')}. n = {len(models)} "
        f"model{'s' * (len(models) > 1)} of one seed{left_out}.{captions.measure_note(models, tables[NAME])}"
        f"{captions.fallback_note(models)} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the grids of the models to draw, the first of those there are."""
    whole, models = _models(tables, options)
    return models[:_MOST].merge(whole.drop_duplicates([*_MODEL, "x", "y"]), on=_MODEL)


def _models(tables: Tables, options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all grids of the first seed, and of which models they can be drawn, by peak rate and tokens."""
    (table,) = selection.of_quantizers(NAME, tables["landscape"], options)
    if "runs" in options:
        table = table[table.run.isin(selection.names_in(options["runs"]))]
    whole = table[table.outcome == "complete"]
    selection.demand(NAME, whole, "landscape of a run that did not diverge")
    whole = whole[whole.seed == whole.seed.min()]
    latest = whole.tokens == whole.groupby("trajectory").tokens.transform("max")
    models = whole[latest].drop_duplicates(_MODEL)
    ends = runs(models)
    counts = ends.groupby(_ALIKE, dropna=False).peak_lr.nunique()
    if len(counts) and counts.max() > 1:
        models = of_setting(ends, largest_group(counts))
    return whole, models.sort_values(["peak_lr", "tokens"], kind="stable")[_MODEL]


def _title(model: pd.Series, one_rate: bool) -> str:
    """Say what tells the model from others: its peak rate, or where all have one the schedule; and its tokens."""
    what = model.schedule if one_rate else f"rate {selection.rate_label(model.peak_lr)}"
    return f"{what}, {si(int(model.tokens))} tokens"


def _axes(table: pd.DataFrame) -> str:
    """Say whether the grids span the same distances; where they do not, shared axes would leave panels empty."""
    spans = table.groupby(_MODEL)[["x", "y"]].agg(["min", "max"])
    return "equal axes" if len(spans.drop_duplicates()) == 1 else "each on axes of its own"


def _norm() -> BoundaryNorm:
    """Return the scale of colours, the same for all panels: equal steps from level to level."""
    return BoundaryNorm(_LEVELS, _COLORS.N, extend="both")


def _contours(axes: Axes, grid: pd.DataFrame) -> None:
    """Fill between the levels, and draw their lines; what lies above the last is as dark as it gets."""
    above = grid.pivot(index="y", columns="x", values="grid_loss") - grid.loss.iloc[0]
    above = above.where(np.isfinite(above), 2 * _LEVELS[-1])  # a loss that overflowed is above all levels
    across, up = above.columns.to_numpy(), above.index.to_numpy()
    axes.contour(across, up, above, levels=_LEVELS, colors="white", linewidths=0.4)
    axes.contourf(across, up, above, levels=_LEVELS, cmap=_COLORS, norm=_norm(), extend="both")


def _points(axes: Axes, grid: pd.DataFrame) -> None:
    first = grid[:1]
    model = first.iloc[0]
    places = [(0, 0), (model.previous_distance, 0), (0, model.quantized_distance)]
    fallen = bool(drawing.fell_back(first).iloc[0])
    for (x, y), (label, marker) in zip(places, _MARKS.items(), strict=True):
        # black on the dark ground and the light one alike needs an edge of white
        face, edge = ("white", "black") if fallen and label == _QUANTIZED else ("black", "white")
        colors: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": edge}
        mark = axes.plot(x, y, marker, clip_on=False, zorder=4, markersize=5, markeredgewidth=0.9, **colors)
        stand_for(mark, first)
