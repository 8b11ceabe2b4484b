"""Inside the optimizer: what is lost of its states and what their spectra are, over training (paper B's reviewers)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import crosses, drawing, style
from coolbits.figures.marks import stand_for
from coolbits.figures.palette import Look
from coolbits.figures.plots.telemetry_panels import (
    DEFAULT,
    SECOND,
    Panel,
    descriptions,
    letters_of,
    line_style,
    panels_of,
    scale_axes,
    values_of,
    would_be_entry,
)
from coolbits.figures.plots.telemetry_rows import rates, variant_rows
from coolbits.figures.selection import Options, Tables, names_in, of_variant, variant_looks
from coolbits.settings import FULL_STATES

NAME = "telemetry"
_CROWD = 4  # variants beyond which bands, but for those of 32-bit states, would hide each other


def draw(tables: Tables, options: Options) -> Figure:
    """Draw measures of the states along training, by default zeros, errors, spectra and changes of Newton-Schulz.

    Options: `runs`, names; `measures`, columns of the telemetry in place of the default's.
    """
    rows, shown = variant_rows(NAME, tables, options), _panels(options)
    figure, axes, _ = style.grid(len(shown), height=2.1, above=0.3)
    looks = variant_looks(rows)
    for panel, place in zip(axes, shown, strict=True):
        for (kind, states), look in looks.items():
            own = of_variant(rows, (kind, states))
            _line(panel, own, place, look, band=len(looks) <= _CROWD or states == FULL_STATES)
            crosses.diverged(panel, own, look)
        scale_axes(panel, place)
        crosses.make_room(panel)
    notes = [*would_be_entry(rows, shown), *crosses.entry(rows)]
    style.legend(figure, [*drawing.handles(looks.values(), marked=False), *notes])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale, and when runs diverged."""
    rows, shown = variant_rows(NAME, tables, options), _panels(options)
    second = letters_of(shown, states=SECOND)
    tables_of_muon = f"; those of Muon runs in {second} belong to its embeddings and head" if second else ""
    bands = "bands" if rows.variant.nunique() <= _CROWD else "bands, of 32-bit states alone"
    seeds, count, tensors = rows.seed.nunique(), rows.family.nunique(), rows.groupby("family").parameter.nunique().max()
    return (
        f"Optimizer states during training, by variant and peak rate ({rates(rows)}). {descriptions(shown)} The states "
        f"are Muon's or SGD's momentum, or AdamW's moments{tables_of_muon}. Lines: median over tensors and seeds; "
        f"{bands}: their quartiles. n = {count} run{'s' * (count > 1)} from {seeds} seed{'s' * (seeds > 1)}, "
        f"{tensors} tensors each.{_ends(rows)} {scale}."
    )


def _panels(options: Options) -> list[Panel]:
    return panels_of(NAME, names_in(options.get("measures", DEFAULT)))


def _ends(rows: pd.DataFrame) -> str:
    """Say which runs diverged at which step, and the share of second moments stored as 0 when last measured before."""
    sentences = []
    for variant, own in rows[rows.outcome == "diverged"].groupby("variant"):
        steps = " or ".join(str(step) for step in sorted(own.diverged_step.unique()))
        squares = own[(own.state == "exp_avg_sq") & (own.step < own.diverged_step)]
        last = squares[squares.step == squares.groupby("family").step.transform("max")].zero_share
        share = f", {100 * last.median():.2g} % of its second moments stored as 0 just before" if len(last) else ""
        sentences.append(f" {variant} diverged at step {steps} (crosses){share}.")
    return "".join(sentences)


def _line(axes: Axes, rows: pd.DataFrame, panel: Panel, look: Look, band: bool) -> None:
    """Draw the median over tensors and seeds at each step, and with `band` their quartiles."""
    drawn = values_of(rows, panel)
    if drawn.empty:
        return
    own = rows.loc[drawn.index]
    groups = drawn.groupby(own.tokens.astype(float))
    low, middle, high = (groups.quantile(share) for share in (0.25, 0.5, 0.75))
    if band:
        axes.fill_between(low.index, low, high, color=look.color, alpha=0.12, linewidth=0)
    stand_for(axes.plot(middle.index, middle, **line_style(own, panel, look)), own, by="tokens")
