"""How figures are laid out and written: sizes of a printed column, legends, token axes, deterministic files.

Every figure file names what it was made from. A figure's own manifest holds the digests of its files, so a file
cannot hold the digest of that manifest; it holds the *lineage digest* instead: the digest of the figure's fingerprint
and of its parents' manifest digests. The manifest's summary has the same digest under `lineage`, so a figure found
in a paper leads to its manifest, and from there down to the bytes. In an SVG it is the Dublin Core identifier
`coolbits:DIGEST`, in a PNG the text chunk `coolbits`.

Text is drawn as outlines (`svg.fonttype` "path"): a reader without the font sees the same figure as everyone else,
and nothing shifts; what can be searched and copied is the caption beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import ceil
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from coolbits.artifacts.files import write_bytes
from coolbits.figures.palette import GREY
from coolbits.figures.scales import log_ticks
from coolbits.study.units import si

DOUBLE = 6.9  # inches: two columns of a printed page
_PIXELS_PER_INCH = 300
_MARGIN = 0.02  # of the tokens shown, beyond the last
_COLUMNS = 3  # panels side by side on a page
_ENTRY, _ENTRY_ROW = 0.44, 0.16  # inches of a legend: handle and spaces of an entry, a row
_ENTRY_ROWS = 3  # for which the heights of figures leave room
SLANTED: dict[str, Any] = {"ha": "right", "va": "top", "rotation_mode": "anchor"}  # of tick labels
ERROR, LOSS = "Quantization error (%)", "Loss (nats per token)"
_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "coolbits",
    "figure.constrained_layout.w_pad": 0.06,
}


@contextmanager
def theme() -> Iterator[None]:
    """Draw and save inside this context."""
    with mpl.rc_context(rc=sns.axes_style("ticks") | _RC):
        yield


def panels(columns: int, height: float = 2.4, width: float = DOUBLE, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of `columns` panels side by side in each of `rows` rows, each with its letter."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for letter, panel in zip(ascii_lowercase, axes, strict=False):
        panel.set_title(letter, loc="left", fontweight="bold", fontsize=9)
    return figure, axes


def grid(count: int, height: float, above: float) -> tuple[Figure, list[Axes], int]:
    """Return a figure of `count` panels in rows of at most three, four in two rows of two; and how many stand in a row.

    `height` is that of a row, `above` what the legend needs, in inches.
    """
    columns = 2 if count == 4 else min(_COLUMNS, count)
    rows = ceil(count / columns)
    figure, axes = panels(columns, height=rows * height + above, rows=rows)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count], columns


def token_axis(axes: Axes, label: str = "Training tokens", logarithmic: bool = False) -> None:
    """Write tokens as 2M or 1.5B along the x axis."""
    if logarithmic:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, _tokens, ((1, 3), (1,)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: _tokens(tokens)))
        last = float(axes.dataLim.x1)
        # a margin of the data alone would cut the marks of what begins late
        axes.set_xlim(0, max(axes.get_xlim()[1], (1 + _MARGIN) * last) if np.isfinite(last) else None)
    axes.set_xlabel(label)


def _tokens(count: float) -> str:
    return si(round(count)) if count else "0"


def say_if_empty(axes: Axes) -> bool:
    """Write in a panel in which nothing has a height that it has no values, in place of ticks; return whether it is so.

    Ticks of an x axis on which something lies, a cross or a learning rate, stay.
    """
    if np.isfinite(axes.dataLim.y0):
        return False
    axes.set_yticks([])
    if not any(np.isfinite(panel.dataLim.x0) for panel in axes.get_shared_x_axes().get_siblings(axes)):
        axes.set_xticks([])
    axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=GREY)
    return True


def legend(figure: Figure, handles: Sequence[Artist], title: str = "") -> None:
    """Put one legend for all panels above them, in as many equal rows as its entries need.

    The figure grows by the rows beyond the usual, so that many entries do not leave the panels flat.
    """
    font = FontProperties(size=mpl.rcParams["legend.fontsize"])
    widths = [_ENTRY + TextPath((0, 0), str(handle.get_label()), prop=font).get_extents().x1 / 72 for handle in handles]
    room = figure.get_figwidth()
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    rows = ceil(len(handles) / columns)
    columns = ceil(len(handles) / rows)
    figure.set_figheight(figure.get_figheight() + _ENTRY_ROW * max(rows - _ENTRY_ROWS, 0))
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, columnspacing=1.4, title=title)


def save(figure: Figure, directory: Path, name: str, lineage: str) -> None:
    """Write `NAME.svg` and `NAME.png`: equal bytes for an equal figure, `lineage` in their metadata."""
    identifier = f"coolbits:{lineage}"
    _write(figure, directory / f"{name}.svg", {"Identifier": identifier, "Title": name, "Date": None})
    _write(figure, directory / f"{name}.png", {"coolbits": lineage, "Title": name, "Software": None})


def _write(figure: Figure, path: Path, metadata: Mapping[str, str | None]) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=_PIXELS_PER_INCH, metadata=dict(metadata))
    write_bytes(path, buffer.getvalue())
