"""Scales of the axes of values, such that every number drawn has a place on them, and its labels have room."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from coolbits.resampling import Floats

_EVERY, _FEW = tuple(range(1, 10)), (1, 2, 5)
_PLAIN = (1e-4, 1e5)  # beyond, powers of ten are shorter
_LINEAR = (5, 3, 2, 1)  # parts of an axis
_SAME = 1e-9  # relative; numbers no further apart are one
_LINE, _GAP = 1.5, 0.9  # of the size of a label: from line to line, between neighbours in a line


def log_ticks(
    axis: Axis,
    label: Callable[[float], str] | None = None,
    choices: Sequence[Sequence[int]] = (_EVERY, _FEW, (1,)),
) -> None:
    """Label a logarithmic axis as densely as its length allows: the first of `choices` of which no labels touch.

    A choice is the multiples of each power of ten that have a label; after the last, every second power has one, then
    every third and so on. Labels are what `label` says, by default plain numbers, or powers of ten on an axis on which
    plain ones would be long.
    """
    written = label or partial(_number, axis)
    axis.set_major_locator(_Roomy(axis, written, choices))
    axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axis.set_minor_formatter(NullFormatter())


class _Roomy(LogLocator):
    """Ticks of a logarithmic axis whose labels have room."""

    def __init__(self, axis: Axis, label: Callable[[float], str], choices: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._along, self._label, self._choices = axis, label, choices

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the places of ticks from `vmin` to `vmax`, both above 0."""
        low, high = sorted((vmin, vmax))
        candidates = self._candidates(low, high)
        return next(ticks.tolist() for ticks in candidates if self._have_room(ticks, np.log10(high / low)))

    def _candidates(self, low: float, high: float) -> Iterator[Floats]:
        """Yield ticks, ever fewer, at last none; where no two of powers of ten have room, those of a linear axis."""
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        chosen = [np.outer(powers, multiples).ravel() for multiples in self._choices]
        chosen += [powers[::step] for step in range(2, len(powers))]
        yield from (inside for ticks in chosen if len(inside := _between(low, high, ticks)) > 1)
        for bins in _LINEAR:
            yield _between(low, high, np.asarray(MaxNLocator(bins).tick_values(low, high)))
        yield powers[:0]

    def _have_room(self, ticks: Floats, decades: float) -> bool:
        """Return whether no two labels of an axis of so many decades come too close."""
        panel, font = self._along.axes, FontProperties(size=mpl.rcParams["xtick.labelsize"])
        size = font.get_size_in_points()
        if isinstance(self._along, YAxis):
            length, room = panel.bbox.height, np.full(len(ticks), _LINE * size)
        else:
            length, room = panel.bbox.width, np.array([_width(self._label(tick), size) for tick in ticks]) + _GAP * size
        distances = np.diff(np.log10(ticks)) * length / decades / (panel.figure.dpi / 72)
        return bool((distances >= (room[1:] + room[:-1]) / 2).all())


@cache
def _width(text: str, size: float) -> float:
    """Return the points that a text of this size is wide; measuring one takes a millisecond."""
    return float(TextPath((0, 0), text, prop=FontProperties(size=size)).get_extents().width)


def _between(low: float, high: float, ticks: Floats) -> Floats:
    return ticks[(ticks >= low * (1 - _SAME)) & (ticks <= high * (1 + _SAME))]


def _number(axis: Axis, value: float) -> str:
    """Return a number on an axis as short text: `0.05`, or `5 × 10^-6` where plain digits would be many."""
    ends = np.abs(axis.get_view_interval())
    if ends.min() >= _PLAIN[0] and ends.max() < _PLAIN[1]:
        return f"{value:g}"
    power = int(np.floor(np.log10(value) + _SAME))
    factor = f"{value / 10.0**power:g}"
    return rf"$\mathdefault{{{'' if factor == '1' else factor + ' × '}10^{{{power}}}}}$"


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
