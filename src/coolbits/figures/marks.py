"""Marks: which rows of which tables each point of a figure stands for, so that a reader can go from it to its runs.

The rows of a figure's tables are numbered, through all tables, before it is drawn. The number is a column like any
other: it survives selections and merges, and a mean over seeds gathers those of its rows. Whoever draws says with
`stand_for` what the points of a line, or a bar, stand for. Of a figure whose tables have no numbers nothing is known.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from coolbits.resampling import Floats

MARKS = "marks.json"
ROW = "row_drawn"
_POINTS_PER_INCH = 72
_THIN_POINTS = 24  # of a line without marks, which may have thousands
_LEAST_SIZE = 3.0
_SLACK = 0.5  # points by which a mark may stand out of its panel

Numbers = list[list[int]]
_stands: WeakKeyDictionary[Artist, Numbers] = WeakKeyDictionary()


def number_rows(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables with the numbers of their rows, counted through all of them, in the column `ROW`."""
    firsts = accumulate((len(table) for table in tables.values()), initial=0)
    numbered = {}
    for (name, table), first in zip(tables.items(), firsts, strict=False):
        numbered[name] = table.assign(**{ROW: range(first, first + len(table))})
        numbered[name].attrs = table.attrs
    return numbered


def gathered(rows: pd.DataFrame) -> dict[str, Any]:
    """Return how `groupby(...).agg` keeps the numbers of rows that become one; nothing where there are none."""
    return {ROW: list} if ROW in rows else {}


def stand_for(artists: Iterable[Artist], rows: pd.DataFrame, by: str | None = None, together: bool = False) -> None:
    """Remember that the points of each artist stand for `rows`: one each, one for each value of `by`, or one for all.

    Artists are lines, whose points count, or bars, each one point. Where rows have no numbers nothing is remembered.
    """
    if ROW not in rows:
        return
    numbers: Numbers
    if by is not None:
        numbers = [_flat(frame[ROW]) for _, frame in rows.groupby(by)]
    else:
        numbers = [_flat(rows[ROW])] if together else [_flat([cell]) for cell in rows[ROW]]
    for artist in artists:
        _stands[artist] = numbers


def find_marks(figure: Figure, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return where each mark of a figure that was laid out is, and the places of its rows in the tables, by role.

    Lengths are points (1/72 inch) from the upper left corner, as in the figure's SVG. What lies outside of its panel is
    left out; of lines without marks some points, evenly, are in.
    """
    width, height = (_POINTS_PER_INCH * float(inches) for inches in figure.get_size_inches())
    filled = {name: len(table) for name, table in tables.items() if len(table)}
    firsts = dict(zip(filled, accumulate(filled.values(), initial=0), strict=False))
    marks = [
        {"x": round(x * width, 2), "y": round((1 - y) * height, 2), "size": size, "rows": _rows(numbers, firsts)}
        for artist in figure.findobj(lambda artist: artist in _stands)
        for x, y, size, numbers in _places(artist, figure)
    ]
    return {"width": round(width, 2), "height": round(height, 2), "marks": marks}


def _flat(cells: Iterable[Any]) -> list[int]:
    """Return the numbers in cells that have one each, or a list of them."""
    return [int(number) for cell in cells for number in np.atleast_1d(cell)]


def _rows(numbers: Sequence[int], firsts: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the rows of each table that numbers mean; `firsts` has the number of each table's first row."""
    found: dict[str, list[int]] = {}
    for number in sorted(set(numbers)):
        name, first = max((pair for pair in firsts.items() if pair[1] <= number), key=lambda pair: pair[1])
        found.setdefault(name, []).append(number - first)
    return found


def _places(artist: Artist, figure: Figure) -> Iterator[tuple[float, float, float, list[int]]]:
    """Yield the places of an artist's points as shares of the figure, their size in points and what they stand for."""
    numbers, axes = _stands[artist], artist.axes
    points, size, kept = _points(artist)
    if len(points) != len(numbers):
        raise ValueError(f"{len(points)} points drawn for {len(numbers)} rows or groups")
    inside = axes.bbox.padded(_SLACK * figure.dpi / _POINTS_PER_INCH) if axes and artist.get_clip_on() else figure.bbox
    for place in kept:
        across, up = (float(length) for length in points[place])
        if np.isfinite([across, up]).all() and inside.contains(across, up):
            yield across / figure.bbox.width, up / figure.bbox.height, round(size, 1), numbers[place]


def _points(artist: Artist) -> tuple[Floats, float, Sequence[int]]:
    """Return an artist's points in pixels, [points, 2], their size, and the places of those that become marks."""
    if isinstance(artist, Line2D):
        points = artist.get_transform().transform(np.asarray(artist.get_xydata()))
        every = range(len(points))
        if artist.get_marker() not in ("None", "", " ", None):
            return points, max(_LEAST_SIZE, float(artist.get_markersize())), every
        thinned = np.linspace(0, len(points) - 1, min(len(points), _THIN_POINTS)).round().astype(int)
        return points, _LEAST_SIZE, thinned.tolist()
    if isinstance(artist, Rectangle):
        centre = (artist.get_x() + artist.get_width() / 2, artist.get_y() + artist.get_height() / 2)
        return artist.get_data_transform().transform([centre]), _LEAST_SIZE, range(1)
    raise TypeError(f"no points are known of a {type(artist).__name__}")
