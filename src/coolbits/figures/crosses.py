"""Crosses: where runs diverged, at the top of a panel, those of each group below those of the groups before it."""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from coolbits.figures.marks import stand_for
from coolbits.figures.palette import GREY, Look

_MARKER = "x"
_SIZE, _EDGE = 5, 1.3  # points
_STEP = 6 / 72  # inches from a group's crosses to the next, so that none hides another


def diverged(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    """Put a cross where each diverged trajectory of `rows` diverged, along an axis of tokens."""
    lost = rows[rows.outcome == "diverged"].drop_duplicates("family")
    cross(axes, (lost.diverged_step * lost.tokens / lost.step).astype(float), lost, look)


def cross(axes: Axes, x: pd.Series, lost: pd.DataFrame, look: Look) -> None:
    """Put a cross at each `x`, for the rows `lost` in order."""
    if lost.empty:
        return
    down = ScaledTranslation(0, -_STEP * count(axes), axes.figure.dpi_scale_trans)
    mark = {"color": look.color, "transform": axes.get_xaxis_transform() + down}
    stand_for(axes.plot(x, [0.96] * len(lost), _MARKER, markersize=_SIZE, markeredgewidth=_EDGE, **mark), lost)
    # matplotlib does not widen the x axis for what is moved by points: where nothing else is as far it would be cut
    axes.update_datalim([(place, 1) for place in x], updatey=False)
    axes.autoscale_view(scaley=False)


def count(axes: Axes) -> int:
    """Return how many groups have crosses in the panel."""
    return sum(line.get_marker() == _MARKER for line in axes.lines)


def make_room(axes: Axes) -> None:
    """Raise the top of the y axis, once it has its scale, so that crosses stand above what is drawn."""
    if not count(axes):
        return
    # before the layout a panel is a little taller than after it
    height = axes.bbox.height / axes.figure.dpi
    share = _STEP * (count(axes) + 0.5) / height
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    axes.set_ylim(top=scale.inverted().transform([high + share * (high - low)])[0])


def entry(rows: pd.DataFrame) -> list[Artist]:
    """Return the legend entry for crosses; none if no run of `rows` diverged."""
    mark = Line2D([], [], color=GREY, marker=_MARKER, markeredgewidth=_EDGE, linestyle="", label="diverged")
    return [mark] if (rows.outcome == "diverged").any() else []
