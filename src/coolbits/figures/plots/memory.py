"""Bytes of optimizer states by model and optimizer, and what 8-bit states save (paper B's memory footprint)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from coolbits.figures import palette, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables, check_options, demand
from coolbits.study.units import si

NAME = "memory"
_GIB = 2**30
_CODED = 0.45  # opacity of what is stored in codes
_LEAST = 0.001  # share; a smaller saving is none
_ALIKE = 0.01  # share; savings no further apart share a line
_MOST = 5
_ROW, _NAME = 0.15, 0.125  # inches of an optimizer's bar, of its name beside a line
_FEWEST_ROWS = 5
_LEAST_TOP = 119  # percent
_BAR = ["model", "optimizer"]


def draw(tables: Tables, options: Options) -> Figure:
    """Draw stacked bars, a panel a model and a bar an optimizer, and last what each optimizer saves by model size.

    Of one model, or where nothing is saved, there is no such last panel.
    """
    table = _rows(tables, options)
    models, optimizers = list(dict.fromkeys(table.model)), list(dict.fromkeys(table.optimizer))
    rows = max(_FEWEST_ROWS, len(optimizers))
    figure, panels, columns = style.grid(len(models) + _has_savings(table), 0.6 + _ROW * rows, above=0.35)
    for place, (panel, model) in enumerate(zip(panels, models, strict=False)):
        _bars(panel, table[table.model == model], optimizers)
        panel.set_title(model)
        panel.tick_params(labelleft=place % columns == 0)
    if _has_savings(table):
        _savings(panels[-1], table, name_height=_NAME / (_ROW * rows))
    patches = [Patch(color=look.color, label=look.label) for look in palette.PLACES.values()]
    style.legend(figure, [*patches, Patch(color=palette.GREY, alpha=_CODED, label="stored in 8 bits")])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is counted and what is exempt."""
    table = _rows(tables, options)
    counts = table.groupby("model", sort=False).parameters.first()
    others = _chosen(tables, options).model.nunique() - len(counts)
    left_out = f"; {others} more model{'s' * (others > 1)} left out" if others else ""
    sizes = ", ".join(f"{model} {si(int(count))}" for model, count in counts.items())
    exempt = (table.groupby(_BAR).exempt_bytes.sum() / table.groupby(_BAR).total_bytes.first()).max()
    last = "Last panel: the saving by model size. " if _has_savings(table) else ""
    return (
        f"Bytes of optimizer states, counted on real optimizers of whole models (parameters: {sizes}{left_out}). Bars: "
        "all states, in GiB; behind them the saving against the same optimizer with float32 states. Pale: 8-bit codes "
        f"and their float32 scales. {last}Tensors too small for codes stay float32 and are counted: "
        f"at most {100 * exempt:.1g} % of an optimizer's bytes. {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the first of the models asked for, as many as there are panels."""
    table = _chosen(tables, options)
    return table[table.model.isin(list(dict.fromkeys(table.model))[:_MOST])]


def _chosen(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the models and optimizers asked for."""
    check_options(NAME, options)
    table = tables["memory"]
    for column, key in (("model", "models"), ("optimizer", "optimizers")):
        if options.get(key):
            wanted = [options[key]] if isinstance(options[key], str) else list(options[key])
            table = demand(NAME, table[table[column].isin(wanted)], f"{key} {', '.join(wanted)} in its analysis")
    return table


def _has_savings(table: pd.DataFrame) -> bool:
    """Whether some optimizer saves something, on models of several sizes."""
    return table.parameters.nunique() > 1 and bool((table.cut > _LEAST).any())


def _bars(axes: Axes, rows: pd.DataFrame, optimizers: list[str]) -> None:
    """Draw the bars of one model, with size and saving behind each."""
    longest = float(rows.total_bytes.max()) / _GIB
    for height, optimizer in enumerate(optimizers):
        own, left = rows[rows.optimizer == optimizer], 0.0
        for place, look in palette.PLACES.items():
            for coded in (True, False):
                part = own[(own.place == place) & ((own.stored != "float32") == coded)]
                kept = part.bytes - part.exempt_bytes if coded else part.bytes
                left = _segment(axes, height, left, float(kept.sum()) / _GIB, part, look, coded)
            part = own[own.place == place]
            left = _segment(axes, height, left, float(part.exempt_bytes.sum()) / _GIB, part, look, coded=False)
        cut = float(own.cut.iloc[0])
        size = f"{left:.2f}" if left >= 0.1 else f"{left:.2g}"
        saved = f"  −{100 * cut:.1f} %" if cut > _LEAST else ""
        axes.text(left + 0.02 * longest, height, size + saved, va="center", fontsize=7)
    axes.set(xlim=(0, 1.2 * longest), xlabel="Optimizer states (GiB)")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_yticks(range(len(optimizers)), optimizers)
    axes.set_ylim(len(optimizers) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _segment(
    axes: Axes, height: int, left: float, width: float, rows: pd.DataFrame, look: palette.Look, coded: bool
) -> float:
    """Draw one piece of a bar; return where it ends."""
    alpha = _CODED if coded else 1
    bar = axes.barh(height, width, left=left, height=0.72, color=look.color, alpha=alpha, linewidth=0)
    if width > 0:
        stand_for(bar, rows, together=True)
    return left + width


def _savings(axes: Axes, table: pd.DataFrame, name_height: float) -> None:
    """Draw the saving of the optimizers with 8-bit states against model size; those that save alike share a line.

    The names stand above the beginning of the highest line, and below the end of the others. One takes the share
    `name_height` of the panel's height.
    """
    bars = table.drop_duplicates(_BAR)
    saved = bars[bars.cut > _LEAST].pivot(index="parameters", columns="optimizer", values="cut")
    order = [name for name in dict.fromkeys(bars.optimizer) if name in saved]
    alike: list[list[str]] = []
    for optimizer in order:
        for names in alike:
            if np.allclose(saved[optimizer], saved[names[0]], rtol=0, atol=_ALIKE, equal_nan=True):
                names.append(optimizer)
                break
        else:
            alike.append([optimizer])
    highest = max(alike, key=lambda names: saved[names[0]].iloc[0])
    top = float(_LEAST_TOP)
    for place, names in enumerate(alike):
        line = 100 * saved[names[0]]
        marks = axes.plot(line.index.astype(float), line, marker="osD^v"[place % 5], color=str(0.25 * (place % 3)))
        stand_for(marks, bars[bars.optimizer.isin(names)], by="parameters")
        above = names is highest
        if above:
            top = max(top, float(line.iloc[0]) / (1 - min((len(names) + 1) * name_height, 0.8)))
        position = (line.index[0], line.iloc[0]) if above else (line.index[-1], line.iloc[-1])
        axes.annotate(
            "\n".join(names),
            position,
            xytext=(0, 5 if above else -6),
            textcoords="offset points",
            ha="left" if above else "right",
            va="bottom" if above else "top",
            fontsize=7,
        )
    sizes = sorted(set(bars.parameters))
    axes.set(xscale="log", xlabel="Parameters", ylabel="Saved (%)", ylim=(0, top))
    axes.set_yticks(range(0, 101, 25))
    slanted = style.SLANTED | {"rotation": 30}
    axes.set_xticks([float(size) for size in sizes], [si(int(size)) for size in sizes], **slanted)
    axes.minorticks_off()
