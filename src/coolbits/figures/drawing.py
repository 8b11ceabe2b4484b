"""Marks shared by the figures: curves and points with seeds or intervals, learning rates.

With one seed the uncertainty shown is the bootstrap interval over documents; with several it is the seeds themselves,
one thin line or small mark each, and their mean. A hollow mark has a module whose quantization fell back; nothing else
is hollow in a figure of quantized models.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from coolbits.figures import crosses
from coolbits.figures.marks import gathered, stand_for
from coolbits.figures.palette import GREY, Look
from coolbits.figures.style import ERROR, LOSS, say_if_empty, token_axis

_INTERVALS = {"relative_error": ("relative_low", "relative_high"), "absolute_error": ("absolute_low", "absolute_high")}
_SHORT = 12  # letters of `3-bit GPTQ`, and some
SINGLE: dict[str, Any] = {"markersize": 2, "alpha": 0.5, "markeredgewidth": 0}  # a seed's mark beside the mean's
PERCENT = {"relative_error": 100.0, "relative_drop": 100.0}


class View(NamedTuple):
    """What a panel shows of runs: two columns of the table."""

    x: str
    y: str


ERROR_ALONG = View("tokens", "relative_error")
FULL_ALONG, QUANTIZED_ALONG = View("tokens", "base_loss"), View("tokens", "loss")
LOSSES = View("base_loss", "loss")
ERROR_AT_LOSS = View("base_loss", "relative_error")


def views(
    panels: Sequence[Axes],
    chosen: Sequence[View],
    groups: Iterable[tuple[Look, pd.DataFrame]],
    quantized: str,
    mark: Callable[[Axes, pd.DataFrame, View, Look], None] | None = None,
) -> None:
    """Draw each group of rows in each view, a panel a view, and say along the axes what they show.

    `quantized` is what a reader calls the quantizer. `mark` draws a group in a panel, by default as curves with a
    large mark where a run ends. Where the x axis is tokens, crosses show where runs diverged.
    """
    drawn, losses = list(groups), LOSS.lower()
    beside = "\n" if len(quantized) > _SHORT else " "  # on one line it would be longer than the panel
    names = {"base_loss": f"Full-precision {losses}", "loss": f"{quantized}{beside}{losses}", "relative_error": ERROR}
    for panel, view in zip(panels, chosen, strict=True):
        for look, rows in drawn:
            (mark or run_curves)(panel, rows, view, look)
            if view.x == "tokens":
                crosses.diverged(panel, rows, look)
        panel.set_ylabel(names[view.y])
        if view.x == "tokens":
            token_axis(panel)
            crosses.make_room(panel)
        else:
            panel.set_xlabel(names[view.x])
        if not say_if_empty(panel) and view == LOSSES:
            diagonal(panel)
        if view == ERROR_AT_LOSS:
            panel.invert_xaxis()


def run_curves(axes: Axes, rows: pd.DataFrame, view: View, look: Look) -> None:
    """Draw whole runs as curves; the end of a run, where no token axis says it, carries a large mark."""
    curve(axes, rows, view.y, look, view.x)
    if view.x != "tokens":
        points(axes, rows[rows.final.astype(bool)], view.y, look, view.x)


def curve(
    axes: Axes, rows: pd.DataFrame, y: str, look: Look, x: str = "tokens", marked: bool = True, seeds: bool = True
) -> None:
    """Draw `y` against `x` along training: a line of each seed, mean on top; or, in a crowd, the mean alone."""
    rows = _finite(rows, x, y)
    if rows.empty:
        return
    mean = _mean(rows, x, y)
    style = {"color": look.color, "linestyle": look.line}
    if rows.seed.nunique() > 1:
        for along in _of_seeds(rows, x, y) if seeds else ():
            stand_for(axes.plot(*_xy(along, x, y), linewidth=0.6, alpha=0.5, **style), along)
    elif y in _INTERVALS and x == "tokens":
        low, high = (mean[end] * PERCENT.get(y, 1.0) for end in _INTERVALS[y])
        axes.fill_between(mean[x].astype(float), low, high, color=look.color, alpha=0.18, linewidth=0)
    line = axes.plot(*_xy(mean, x, y), **style)
    if marked:
        _marks(axes, mean, x, y, look)
    else:
        stand_for(line, mean)


def fan_of_runs(axes: Axes, rows: pd.DataFrame, view: View, look: Look) -> None:
    """Draw whole runs as `fan` does, trunk and decays alike."""
    fan(axes, rows, view.y, look, look, view.x)


def fan(
    axes: Axes, whole: pd.DataFrame, y: str, trunk: Look | None, decay: Look, x: str = "tokens", marked: bool = True
) -> None:
    """Draw the runs of one setting: the trunk once, then each decay from where it left; or each run without a trunk.

    Ends carry a large mark, what is before them a small one if `marked`. Without a `trunk` only decays are drawn.
    """
    if trunk is not None:
        stems = whole[whole.branch_tokens.notna() & (whole.tokens <= whole.branch_tokens)]
        curve(axes, stems.drop_duplicates(["family", "step"]), y, trunk, x, marked)
    tails = whole[whole.branch_tokens.isna() | (whole.tokens > whole.branch_tokens)]
    for budget, tail in tails.groupby("budget_tokens"):
        forks = whole[(whole.budget_tokens == budget) & (whole.tokens == whole.branch_tokens)]
        curve(axes, pd.concat([forks, tail]), y, decay, x, marked=False)
        if marked:
            marks(axes, tail, y, decay, x)
    for _, end in whole[whole.final.astype(bool)].groupby("budget_tokens"):
        points(axes, end, y, decay, x)


def points(axes: Axes, rows: pd.DataFrame, y: str, look: Look, x: str = "tokens", joined: bool = False) -> None:
    """Draw `y` at the ends of runs, or of averages: mean over seeds at each `tokens`, seeds as small marks."""
    rows = _finite(rows, x, y)
    if rows.empty:
        return
    mean = _mean(rows, x, y, every_seed=False)
    if rows.seed.nunique() > 1:
        single = pd.concat(_of_seeds(rows, x, y))
        stand_for(axes.plot(*_xy(single, x, y), look.marker, color=look.color, **SINGLE), single)
    elif y in _INTERVALS:
        low, high = (mean[end] * PERCENT.get(y, 1.0) for end in _INTERVALS[y])
        axes.vlines(mean[x].astype(float), low, high, color=look.color, linewidth=0.9)
    if joined:
        axes.plot(*_xy(mean, x, y), color=look.color, linestyle=look.line)
    _marks(axes, mean, x, y, look, size=4.6)


def rates(axes: Axes, rows: pd.DataFrame) -> None:
    """Overlay the learning rate, dotted, on an axis of its own at the right; `rows` are whole runs."""
    twin = axes.twinx()
    for _, path in rows.groupby("path"):
        twin.plot(path.tokens.astype(float), path.lr, color=GREY, linestyle=(0, (1, 1.6)), linewidth=0.9)
    peak = float(rows.lr.max())
    twin.set_ylim(0, 1.35 * peak)
    twin.set_yticks([0, peak / 2, peak])
    twin.set_ylabel("Learning rate", color=GREY)
    twin.tick_params(axis="y", colors=GREY)
    twin.grid(visible=False)
    twin.spines["right"].set(visible=True, color=GREY, linewidth=0.5)
    twin.yaxis.set_major_formatter("{x:g}")
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)


def diagonal(axes: Axes) -> None:
    """Draw y = x, where a quantizer without error would be."""
    low = max(axes.get_xlim()[0], axes.get_ylim()[0])
    axes.axline((low, low), slope=1, color=GREY, linestyle="--", linewidth=0.8, zorder=1)


def entry(label: str, marker: str, hollow: bool, size: float | None = None) -> Artist:
    """Return a legend entry for a kind of mark, in grey."""
    face = "white" if hollow else GREY
    return Line2D([], [], color=GREY, marker=marker, markerfacecolor=face, markersize=size, linestyle="", label=label)


def handles(looks: Iterable[Look], marked: bool = True) -> list[Artist]:
    """Return legend entries for groups."""
    return [
        Line2D([], [], color=look.color, linestyle=look.line, marker=look.marker if marked else "", label=look.label)
        for look in looks
    ]


def notes(rows: pd.DataFrame, rate: bool = False) -> list[Artist]:
    """Return legend entries for the learning rate, fallbacks and diverged runs, as far as `rows` have them."""
    dotted = Line2D([], [], color=GREY, linestyle=(0, (1, 1.6)), linewidth=0.9, label="learning rate")
    return [*([dotted] if rate else []), *fallback_entry(rows), *crosses.entry(rows)]


def fallback_entry(rows: pd.DataFrame, marker: str = "o") -> list[Artist]:
    """Return the legend entry for marks of models with a fallback; none if `rows` have no such model."""
    return [entry("with a fallback", marker, hollow=True)] if fell_back(rows).any() else []


def fell_back(rows: pd.DataFrame) -> pd.Series:
    """Return for each row whether the quantization of a module of its model fell back to another method."""
    return rows.fallbacks.fillna(0) > 0


def marks(axes: Axes, rows: pd.DataFrame, y: str, look: Look, x: str = "tokens") -> None:
    """Mark each mean over seeds, as `curve` does, without its line."""
    rows = _finite(rows, x, y)
    if len(rows):
        _marks(axes, _mean(rows, x, y), x, y, look)


def scattered(axes: Axes, rows: pd.DataFrame, x: str, y: str, look: Look, size: float) -> None:
    """Mark each row."""
    _marks(axes, rows, x, y, look, size)


def _finite(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    return rows[rows[x].notna() & rows[y].notna()]


def _mean(rows: pd.DataFrame, x: str, y: str, every_seed: bool = True) -> pd.DataFrame:
    """Average over seeds at equal tokens; with `every_seed` only where no seed is missing, so that no mean jumps."""
    numbers = dict.fromkeys({x, y, *_INTERVALS.get(y, ())} - {"tokens"}, "mean")
    # A full-precision loss is what it is, whatever the quantizer did afterwards.
    fallbacks = {"fallbacks": "max"} if "fallbacks" in rows and y != "base_loss" else {}
    mean = rows.groupby("tokens", as_index=False).agg({**numbers, **fallbacks, **gathered(rows), "seed": "nunique"})
    return mean[mean.seed == rows.seed.nunique()] if every_seed else mean


def _of_seeds(rows: pd.DataFrame, x: str, y: str) -> list[pd.DataFrame]:
    """Return the points of each seed along training; of one that read the data in several orders their mean."""
    seeds = [seed for _, seed in rows.groupby("seed")]
    return [seed.sort_values("tokens") if seed.tokens.is_unique else _mean(seed, x, y) for seed in seeds]


def _xy(rows: pd.DataFrame, x: str, y: str) -> tuple[pd.Series, pd.Series]:
    return rows[x].astype(float), rows[y].astype(float) * PERCENT.get(y, 1.0)


def _marks(axes: Axes, mean: pd.DataFrame, x: str, y: str, look: Look, size: float = 3.2) -> None:
    fallen = fell_back(mean) if "fallbacks" in mean else pd.Series(False, index=mean.index)
    for group, face in ((mean[~fallen], look.color), (mean[fallen], "white")):
        drawn = axes.plot(
            *_xy(group, x, y),
            look.marker,
            color=look.color,
            markerfacecolor=face,
            markersize=size,
            markeredgewidth=0.9,
            zorder=3,
        )
        stand_for(drawn, group)
