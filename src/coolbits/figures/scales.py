"""Scales of the axes of values, such that every number drawn has a place on them."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter


def log_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, 1, 2 and 5 of each decade; of less than one more."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def scale_values(axes: Axes) -> None:
    """Make the y axis logarithmic if all that is drawn along it is positive; else it stays linear and shows all."""
    if axes.dataLim.y0 > 0:
        axes.set_yscale("log")
        log_ticks(axes.yaxis)


def from_zero(axes: Axes) -> None:
    """Let the y axis begin at 0, or below what is drawn where some of it is negative."""
    axes.set_ylim(bottom=0 if axes.dataLim.y0 >= 0 else axes.get_ylim()[0])


def show(axes: Axes, values: pd.Series) -> None:
    """Let the y axis, once it has its scale, end a little beyond these values."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform([values.min(), values.max()])
    edge = 0.05 * (high - low)
    axes.set_ylim(*scale.inverted().transform([low - edge, high + edge]))
