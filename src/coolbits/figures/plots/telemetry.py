"""Inside the optimizer: what is lost of its states and what their spectra are, over training (paper B's reviewers)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import drawing, style
from coolbits.figures.marks import stand_for
from coolbits.figures.plots.telemetry_panels import (
    DEFAULT,
    SECOND,
    Panel,
    descriptions,
    letters_of,
    panels_of,
    scale_axes,
    values_of,
)
from coolbits.figures.plots.telemetry_rows import rates, variant_rows
from coolbits.figures.selection import Options, Tables, names_in, of_variant, variant_looks
from coolbits.figures.style import Look

NAME = "telemetry"


def draw(tables: Tables, options: Options) -> Figure:
    """Draw measures of the states along training, by default zeros, errors, spectra and changes of Newton-Schulz.

    Options: `runs`, names; `measures`, columns of the telemetry in place of the default's.
    """
    rows, shown = variant_rows(NAME, tables, options), _panels(options)
    columns = 2 if len(shown) in (2, 4) else min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = style.panels(columns, height=2.1 * lines + (0.3 if lines == 1 else 0), rows=lines)
    looks = variant_looks(rows)
    for panel, place in zip(axes, shown, strict=False):
        for variant, look in looks.items():
            own = of_variant(rows, variant)
            _band(panel, own, place, look)
            drawing.diverged(panel, own, look)
        scale_axes(panel, place)
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    style.legend(figure, [*drawing.handles(looks.values(), marked=False), *drawing.diverged_entry(rows)])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale, and when runs diverged."""
    rows, shown = variant_rows(NAME, tables, options), _panels(options)
    second = letters_of(shown, states=SECOND)
    tables_of_muon = f"; those of Muon runs in {second} belong to its embeddings and head" if second else ""
    seeds, count, tensors = rows.seed.nunique(), rows.family.nunique(), rows.groupby("family").parameter.nunique().max()
    return (
        f"Optimizer states during training, by variant and peak rate ({rates(rows)}). {descriptions(shown)} The states "
        f"are Muon's or SGD's momentum, or AdamW's moments{tables_of_muon}. Lines: median over tensors and seeds; "
        f"bands: their range. n = {count} run{'s' * (count > 1)} from {seeds} seed{'s' * (seeds > 1)}, "
        f"{tensors} tensors each.{_ends(rows)} {scale}."
    )


def _panels(options: Options) -> list[Panel]:
    return panels_of(NAME, names_in(options.get("measures", DEFAULT)))


def _ends(rows: pd.DataFrame) -> str:
    """Say which runs diverged at which step, and the share of second moments stored as 0 when last measured before."""
    sentences = []
    for variant, own in rows[rows.outcome == "diverged"].groupby("variant"):
        steps = " or ".join(str(step) for step in sorted(own.diverged_step.unique()))
        squares = own[own.state == "exp_avg_sq"]
        last = squares[squares.step == squares.groupby("family").step.transform("max")].zero_share
        share = f", {100 * last.median():.2g} % of its second moments stored as 0 just before" if len(last) else ""
        sentences.append(f" {variant} diverged at step {steps} (crosses){share}.")
    return "".join(sentences)


def _band(axes: Axes, rows: pd.DataFrame, panel: Panel, look: Look) -> None:
    """Draw the median over tensors and seeds at each step, and their range as a band."""
    drawn = values_of(rows, panel)
    if drawn.empty:
        return
    groups = drawn.groupby(rows.tokens[drawn.index].astype(float))
    low, middle, high = groups.min(), groups.median(), groups.max()
    axes.fill_between(low.index, low, high, color=look.color, alpha=0.07, linewidth=0)
    line = axes.plot(middle.index, middle, color=look.color, linestyle=look.line)
    stand_for(line, rows.loc[drawn.index], by="tokens")
