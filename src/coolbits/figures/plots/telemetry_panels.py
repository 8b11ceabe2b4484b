"""The measures of telemetry that a figure can show: the panels of each, their axes, and what captions say of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.palette import GREY, Look
from coolbits.figures.scales import log_ticks
from coolbits.figures.style import say_if_empty, token_axis

SECOND = ("exp_avg_sq",)
MOMENTA = ("momentum", "exp_avg")
_FLOAT32 = "float32"
DEFAULT = ("zero_share", "shadow_error", "condition", "stable_rank", "newton_schulz_error")
_THIN = 0.6  # points: lines of states that are not stored so
LETTERS = "abcdef"  # of a figure's panels, no more than these


@dataclass(frozen=True)
class Panel:
    """A measure, of which states, and how it is written along the y axis.

    Of a measure in percent the values are shares. Of one `by_codec` 32-bit states show what linear codes would do.
    """

    measure: str
    states: tuple[str, ...]
    label: str
    percent: bool = False
    logarithmic: bool = True
    by_codec: bool = False


def _both(measure: str, label: str, percent: bool = False, by_codec: bool = False) -> tuple[Panel, Panel]:
    """Return the panels of a measure of second moments and of momenta; `label` has the place of their name."""
    return (
        Panel(measure, SECOND, label.format("second moments"), percent, by_codec=by_codec),
        Panel(measure, MOMENTA, label.format("momenta"), percent, by_codec=by_codec),
    )


_PANELS: dict[str, tuple[Panel, ...]] = {
    "zero_share": (Panel("zero_share", SECOND, "Second moments\nstored as 0 (%)", True, False, by_codec=True),),
    "shadow_error": _both("shadow_error", "Error of\n{} (%)", True),
    "rounding_error": _both("rounding_error", "Rounding of\n{} (%)", True, by_codec=True),
    "block_min": _both("block_min", "Least scale of\n{}"),
    "block_median": _both("block_median", "Median scale of\n{}"),
    "block_max": _both("block_max", "Largest scale of\n{}"),
    "sigma_max": (Panel("sigma_max", MOMENTA, "Largest singular value"),),
    "sigma_min": (Panel("sigma_min", MOMENTA, "Smallest singular value"),),
    "condition": (Panel("condition", MOMENTA, "Condition number"),),
    "stable_rank": (Panel("stable_rank", MOMENTA, "Stable rank", logarithmic=False),),
    "newton_schulz_error": (Panel("newton_schulz_error", MOMENTA, "Change of NS(M) (%)", True, by_codec=True),),
}
MEASURES = tuple(_PANELS)
BY_CODEC = tuple(name for name, panels in _PANELS.items() if panels[0].by_codec)
_SAYS = {
    "zero_share": "share of second moments not 0 in float32 that are stored as 0",
    "shadow_error": "relative error of stored second moments and momenta against a float32 shadow fed the same "
    "gradients; 32-bit states have none",
    "rounding_error": "relative error of second moments and momenta by rounding them once",
    "block_min": "smallest of the largest magnitudes of the blocks of second moments and of momenta",
    "block_median": "median of the largest magnitudes of the blocks of second moments and of momenta",
    "block_max": "largest magnitude of second moments and of momenta",
    "sigma_max": "largest singular value of the momenta of matrices",
    "sigma_min": "smallest singular value of the momenta of matrices",
    "condition": "condition number of the momenta of matrices",
    "stable_rank": "stable rank of the momenta of matrices",
    "newton_schulz_error": "relative change of Newton-Schulz' result when a momentum is rounded once",
}


def panels_of(figure: str, measures: Sequence[str]) -> list[Panel]:
    """Return the panels of the measures, in their order.

    Raises:
        CoolbitsError: for an unknown measure, or more panels than the figure has letters.
    """
    for name in measures:
        if name not in _PANELS:
            raise CoolbitsError(f"figure {figure}: no measure {name!r}; there are {', '.join(_PANELS)}")
    found = [panel for name in measures for panel in _PANELS[name]]
    if not 0 < len(found) <= len(LETTERS):
        raise CoolbitsError(f"figure {figure}: `measures` asks for {len(found)} panels; it has 1 to {len(LETTERS)}")
    return found


def values_of(rows: pd.DataFrame, panel: Panel) -> pd.Series:
    """Return the panel's measure of its states as it is drawn, by the rows' index; what has no place is left out."""
    values = rows.loc[rows.state.isin(panel.states), panel.measure] * (100 if panel.percent else 1)
    return values[np.isfinite(values) & ((values > 0) | (not panel.logarithmic))]


def line_style(rows: pd.DataFrame, panel: Panel, look: Look) -> dict[str, Any]:
    """Return how the line of `rows` is drawn: thin where it shows what linear codes would do to float32 states.

    Of a single step there is a mark, since there is no line.
    """
    style = {"color": look.color, "linestyle": look.line}
    style |= {"marker": look.marker} if rows.step.nunique() == 1 else {}
    return style | ({"linewidth": _THIN} if _would_be(rows, panel) else {})


def would_be_entry(rows: pd.DataFrame, panels: Sequence[Panel]) -> list[Artist]:
    """Return the legend entry for thin lines; none if no panel shows any."""
    thin = Line2D([], [], color=GREY, linewidth=_THIN, label="float32, if it were 8L")
    shown = (rows[rows.state.isin(panel.states)] for panel in panels if panel.by_codec)
    return [thin] if any((own.codec == _FLOAT32).any() for own in shown) else []


def _would_be(rows: pd.DataFrame, panel: Panel) -> bool:
    return panel.by_codec and bool((rows.codec == _FLOAT32).all())


def scale_axes(axes: Axes, panel: Panel) -> None:
    """Label and scale the axes of a panel, the measure against training tokens, or say that it has no values."""
    axes.set_ylabel(panel.label)
    if say_if_empty(axes):
        axes.set(xlabel="Training tokens", xticks=[])
        return
    if panel.logarithmic:
        axes.set_yscale("log")
    if panel.logarithmic and panel.percent:
        log_ticks(axes.yaxis)
    token_axis(axes, logarithmic=True)


def descriptions(panels: Sequence[Panel]) -> str:
    """Say what each panel shows, by its letter: `a: share of ... b, c: relative error of ...`."""
    names = dict.fromkeys(panel.measure for panel in panels)
    sentences = [f"{letters_of(panels, measure=name)}: {_SAYS[name]}." for name in names]
    if codes := letters_of(panels, by_codec=True):
        sentences.append(f"In {codes} 32-bit states show, by thin lines, what linear codes would do to them.")
    return " ".join(sentences)


def letters_of(panels: Sequence[Panel], **wanted: object) -> str:
    """Return the letters of the panels with these values, `a, b and f`; empty if there are none."""
    pairs = zip(LETTERS, panels, strict=False)
    found = [letter for letter, panel in pairs if all(getattr(panel, name) == value for name, value in wanted.items())]
    return " and ".join(filter(None, (", ".join(found[:-1]), *found[-1:])))
