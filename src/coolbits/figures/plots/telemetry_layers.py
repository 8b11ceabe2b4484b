"""Inside the optimizer, layer by layer: one measure of its states over training, a panel for each variant."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures import crosses, drawing, palette, style
from coolbits.figures.marks import stand_for
from coolbits.figures.palette import Look
from coolbits.figures.plots.telemetry_panels import (
    LETTERS,
    Panel,
    descriptions,
    line_style,
    panels_of,
    scale_axes,
    values_of,
    would_be_entry,
)
from coolbits.figures.plots.telemetry_rows import rates, variant_rows
from coolbits.figures.selection import Options, Tables, demand, names_in, of_variant, variant_looks

NAME = "telemetry-layers"
_MEASURE = "newton_schulz_error"
_OUTSIDE = -1  # the layer of embeddings and head
_NAMED = 6  # layers of a deep model that the legend names


def draw(tables: Tables, options: Options) -> Figure:
    """Draw a line a layer, a panel a variant, all on the same axes.

    Options: `runs`, names; `optimizers`, names of variants; `measure`, a column of the telemetry, by default
    `newton_schulz_error`, drawn of momenta if it has them.
    """
    rows, shown = _rows(tables, options)
    looks, variants = _looks(rows), variant_looks(rows)
    figure, axes, columns = style.grid(len(variants), height=2.1, above=0.4)
    for place, (panel, (variant, look)) in enumerate(zip(axes, variants.items(), strict=True)):
        own = of_variant(rows, variant)
        for layer, layer_look in looks.items():
            _line(panel, own[own.layer == layer], shown, layer_look)
        crosses.diverged(panel, own, Look(look.label, palette.GREY))
        scale_axes(panel, shown)
        crosses.make_room(panel)
        panel.set_title(look.label)
        if place % columns:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
    for name in ("xlim", "ylim"):
        lows, highs = zip(*(getattr(panel, f"get_{name}")() for panel in axes), strict=True)
        for panel in axes:
            panel.set(**{name: (min(lows), max(highs))})
    notes = [*would_be_entry(rows, [shown]), *crosses.entry(rows)]
    style.legend(figure, [*drawing.handles(_named(looks), marked=False), *notes])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, of which tensors, n and scale."""
    rows, shown = _rows(tables, options)
    seeds, count = rows.seed.nunique(), rows.family.nunique()
    tensors = rows.groupby(["family", "layer"]).parameter.nunique()
    each = " to ".join(str(number) for number in sorted({tensors.min(), tensors.max()}))
    what = descriptions([shown]).removeprefix("a: ").replace("In a 32-bit", "32-bit")
    return (
        f"Optimizer states layer by layer during training, by variant and peak rate ({rates(rows)}): {what} "
        f"Lines: median over a layer's tensors and seeds; layers from the first, light, to the last, dark. "
        f"n = {count} run{'s' * (count > 1)} from {seeds} seed{'s' * (seeds > 1)}, {each} "
        f"tensor{'s' * (each != '1')} a layer. {scale}."
    )


def _rows(tables: Tables, options: Options) -> tuple[pd.DataFrame, Panel]:
    """Return the rows that have a value to draw, in the column `drawn`, and the panel's measure."""
    rows = variant_rows(NAME, tables, options)
    asked = names_in(options.get("optimizers") or list(dict.fromkeys(rows.variant)))
    rows = demand(NAME, rows[rows.variant.isin(asked)], f"telemetry of {', '.join(asked)}")
    shown = panels_of(NAME, [options.get("measure", _MEASURE)])[-1]
    drawn = values_of(rows, shown)
    rows = demand(NAME, rows.loc[drawn.index], f"states of which {shown.measure} could be measured")
    if (count := rows.variant.nunique()) > len(LETTERS):
        raise CoolbitsError(
            f"figure {NAME}: {count} variants have telemetry, and it shows at most {len(LETTERS)}; choose some by its "
            f"options `optimizers` or `runs`: there are {', '.join(sorted(rows.variant.unique()))}"
        )
    return rows.assign(drawn=drawn, layer=rows.layer.fillna(_OUTSIDE).astype(int)), shown


def _looks(rows: pd.DataFrame) -> dict[int, Look]:
    layers = sorted(set(rows.layer) - {_OUTSIDE})
    looks = {
        layer: Look(f"layer {layer}", color) for layer, color in zip(layers, palette.shades(len(layers)), strict=True)
    }
    outside = {_OUTSIDE: Look("embeddings and head", palette.GREY, line="--")} if (rows.layer == _OUTSIDE).any() else {}
    return looks | outside


def _named(looks: Mapping[int, Look]) -> list[Look]:
    """Return the looks that the legend names: of many layers a few, evenly, the first and the last among them."""
    inside = [look for layer, look in looks.items() if layer != _OUTSIDE]
    count = min(_NAMED, len(inside))
    places = {round(number * (len(inside) - 1) / max(count - 1, 1)) for number in range(count)}
    chosen = [look for place, look in enumerate(inside) if place in places]
    return chosen + [look for layer, look in looks.items() if layer == _OUTSIDE]


def _line(axes: Axes, rows: pd.DataFrame, panel: Panel, look: Look) -> None:
    if rows.empty:
        return
    middle = rows.groupby(rows.tokens.astype(float)).drawn.median()
    stand_for(axes.plot(middle.index, middle, **line_style(rows, panel, look)), rows, by="tokens")
