"""What the precision of the states does to the loss: final losses against the 32-bit form, and the sweep of rates."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from coolbits.figures import drawing, selection, style, variants
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables
from coolbits.resampling import Floats, percentiles, resampled_means
from coolbits.rows import FULL_STATES, full_precision, of_setting
from coolbits.study.units import si

NAME = "states"
Align = Literal["left", "center", "right"]
_FAR = 5.0  # percent: a variant that lost more stands at the edge of the panel, its number beside it
_BELOW = 0.28  # of a row: single seeds stand below their mean
_HIGH = 1.3  # a final loss above this times the lowest stands at the top of its panel


def draw(tables: Tables, options: Options) -> Figure:
    """Draw final losses relative to the 32-bit form of the optimizer, and final loss against the rate.

    Option: `model`, of several.
    """
    compared = _compared(tables, options)
    looks = selection.variant_looks(compared.tried)
    figure, (relative, sweep) = style.panels(2, height=1.5 + 0.17 * len(looks))
    for place, (variant, look) in enumerate(looks.items()):
        own = selection.of_variant(compared.ends, variant)
        reference = selection.of_variant(compared.ends, (variant[0], FULL_STATES))
        pairs = _paired(own, reference)
        _final_losses(relative, own, pairs, _increases(pairs, tables), place, look)
    relative.set_yticks(range(len(looks)), [look.label for look in looks.values()])
    relative.set_ylim(len(looks) - 0.5, -0.5)
    relative.grid(visible=False, axis="y")
    relative.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
    relative.set_xlabel("Final loss relative to 32-bit states (%)")
    _sweep(sweep, compared, looks)
    style.legend(figure, drawing.handles(looks.values()) + drawing.notes(compared.tried))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    compared = _compared(tables, options)
    ends, seeds = compared.ends, compared.ends.seed.nunique()
    marks = f"; large marks: mean over {seeds} seeds, small marks: single seeds" if seeds > 1 else ""
    return (
        f"Full-precision loss by optimizer and precision of its states, {ends.model.iloc[0]}, runs of "
        f"{si(int(ends.tokens.max()))} tokens. a: final loss relative to that of the same optimizer with 32-bit "
        f"states, paired by seed, each at the setting of lowest loss among those tried ({compared.rates()}); "
        f"at the right the loss itself{marks}; bars: 95 % bootstrap interval over documents; beyond {_FAR:g} % at the "
        f"edge. b: final loss against the peak rate; above {_HIGH:g} times the lowest, at the top; crosses: diverged."
        f"{compared.others_lost()} n = {len(ends)} models from {seeds} seed{'s' * (seeds > 1)}, scored on "
        f"{int(ends.documents.max())} held-out documents. {scale}."
    )


def _compared(tables: Tables, options: Options) -> variants.Compared:
    selection.check_options(NAME, options)
    rows = full_precision(tables["loss"].reset_index(names="position"))
    return variants.compared(NAME, selection.of_model(NAME, rows, options))


def _paired(own: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that did not diverge, each with the place of the reference's row; without seeds either lacks."""
    complete = [rows[rows.outcome == "complete"] for rows in (own, reference)]
    return complete[0].merge(complete[1][["seed", "position"]], on="seed", suffixes=("", "_reference"))


def _increases(both: pd.DataFrame, tables: Tables) -> Floats:
    """Return by how many percent the loss of each seed exceeds the reference's: [seeds, 1 + samples].

    The first is the estimate, the others are resamples of the documents.
    """
    if both.empty:
        return np.empty((0, 1))
    nats = tables["documents"].set_index("row").nats
    samples = tables["loss"].attrs.get("bootstrap_samples", 1000)
    tested, beside = (np.stack([nats[row] for row in both[name]]) for name in ("position", "position_reference"))
    ratios = [
        tested.mean(axis=1, keepdims=True) / beside.mean(axis=1, keepdims=True),
        resampled_means(tested, samples, seed=0) / resampled_means(beside, samples, seed=0),
    ]
    return 100 * (np.concatenate(ratios, axis=1) - 1)


def _final_losses(
    axes: style.Axes, own: pd.DataFrame, pairs: pd.DataFrame, increases: Floats, place: int, look: style.Look
) -> None:
    """Draw one variant's row: seeds, mean and interval, the loss itself, and where its runs diverged."""
    lost = own[own.outcome == "diverged"]
    if len(increases):
        mean, low, high = increases[:, 0].mean(), *percentiles(increases[:, 1:].mean(axis=0), 0.95)
        if abs(mean) > _FAR:
            side = 1 if mean > 0 else 0
            mark = axes.plot(side, place, "<>"[side], color=look.color, transform=axes.get_yaxis_transform())
            stand_for(mark, pairs, together=True)
            _say(axes, f"{mean:+.0f} %", side, place, 8 - 16 * side, "right" if side else "left", look)
        else:
            axes.hlines(place, low, high, color=look.color, linewidth=1.0)
            stand_for(axes.plot(mean, place, look.marker, color=look.color, markersize=4.6), pairs, together=True)
            seeds = {"color": look.color, "markersize": 2, "alpha": 0.5, "markeredgewidth": 0}
            stand_for(axes.plot(increases[:, 0], [place + _BELOW] * len(increases), look.marker, **seeds), pairs)
        _say(axes, f"{own.base_loss.mean():.3f}", 1, place, 5, "left", look)
    if len(lost):
        steps = "–".join(str(step) for step in sorted({lost.diverged_step.min(), lost.diverged_step.max()}))
        said = _say(axes, f"× {len(lost)} of {len(own)} diverged, step {steps}", 0.5, place, 0, "center", look)
        said.set_in_layout(False)  # what stands inside the panel must not push its neighbour away


def _say(
    axes: style.Axes, text: str, share: float, place: int, shift: float, align: Align, look: style.Look
) -> Annotation:
    """Write `text` in a variant's row, at a share of the panel's width and `shift` points beside it."""
    across = ("axes fraction", "data")
    return axes.annotate(
        text,
        (share, place),
        (shift, 0),
        xycoords=across,
        textcoords="offset points",
        va="center",
        ha=align,
        fontsize=7,
        color=look.color,
    )


def _sweep(axes: style.Axes, compared: variants.Compared, looks: dict[tuple[str, str], style.Look]) -> None:
    """Draw the final loss against the peak rate, a line a variant, at its best weight decay and beta2."""
    lowest = float(compared.tried.base_loss.min())
    top = min(float(compared.tried.base_loss.max()) + 0.02 * lowest, _HIGH * lowest)
    crossed = 0
    for variant, look in looks.items():
        tuned = selection.of_variant(compared.ends, variant).iloc[0][["weight_decay", "beta2"]]
        own = of_setting(selection.of_variant(compared.tried, variant), dict(tuned))
        shown = own[own.base_loss.notna()]
        losses = shown.groupby("peak_lr").base_loss.mean().clip(upper=top)
        line = axes.plot(losses.index, losses, look.marker, linestyle=look.line, color=look.color)
        stand_for(line, shown, by="peak_lr")
        if own.seed.nunique() > 1:
            dashes = axes.plot(own.peak_lr, own.base_loss.clip(upper=top), "_", color=look.color, markersize=4)
            stand_for(dashes, own)
        lost = own.loc[own.outcome == "diverged", "peak_lr"].unique()
        if len(lost):
            height = [0.97 - 0.05 * crossed] * len(lost)
            axes.plot(lost, height, "x", color=look.color, transform=axes.get_xaxis_transform(), markeredgewidth=1.3)
            crossed += 1
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(compared.tried.peak_lr.unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: selection.rate_label(rate)))
    axes.set_ylim(top=top + (0.05 + 0.06 * crossed) * (top - lowest))
    axes.set(xlabel="Peak learning rate", ylabel=f"Final full-precision {style.LOSS.lower()}")
