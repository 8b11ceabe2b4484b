"""What the precision of the states does to the loss: final losses against the 32-bit form, and the sweep of rates."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from coolbits.figures import captions, crosses, drawing, palette, selection, style, variants
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables
from coolbits.resampling import Floats, by_unit, interval_of_mean, resampled_means
from coolbits.rows import full_precision
from coolbits.settings import FULL_STATES, by_seed, of_setting
from coolbits.study.optimizer_names import display_name
from coolbits.study.units import si

NAME = "states"
Align = Literal["left", "center", "right"]
_FAR = 5.0  # percent: a variant that lost more stands at the edge of the panel, its number beside it
_BELOW = 0.28  # of a row: single seeds stand below their mean
_ALONE: palette.Line = (0, (1, 1))  # the bar of one seed among variants of several
_MANY_RATES = 6  # whose labels still stand side by side
_HIGH = 1.3  # a final loss above this times the lowest stands at the top of its panel


def draw(tables: Tables, options: Options) -> Figure:
    """Draw final losses relative to the 32-bit form of the optimizer, and final loss against the rate.

    Option: `model`, of several.
    """
    compared = _compared(tables, options)
    looks, pairs = selection.variant_looks(compared.tried), _pairs(compared)
    most = _most_seeds(pairs)
    figure, (relative, sweep) = style.panels(2, height=1.5 + 0.17 * len(looks))
    for place, (variant, look) in enumerate(looks.items()):
        if len(own := pairs[variant]):
            drawn = _increases(own, tables)
            bar = replace(look, line=_ALONE if len(drawn) == 1 < most else "-")
            _relative_loss(relative, own, drawn[:, 0], _interval(drawn, tables), place, bar)
            fewer = f", n = {len(drawn)}" if len(drawn) < most else ""
            loss = own.groupby("seed").base_loss.mean().mean()
            _say(relative, f"{loss:.3f}{fewer}", 1, place, 5, "left")
        else:
            _say_lost(relative, selection.of_variant(compared.tried, variant), place)
    relative.set_yticks(range(len(looks)), [look.label for look in looks.values()])
    relative.set_ylim(len(looks) - 0.5, -0.5)
    relative.grid(visible=False, axis="y")
    relative.axvline(0, color=palette.GREY, linewidth=0.8, zorder=1)
    relative.set_xlabel("Final loss relative to 32-bit states (%)")
    _sweep(sweep, compared, looks)
    style.legend(figure, drawing.handles(looks.values()) + drawing.notes(compared.tried))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    compared = _compared(tables, options)
    ends, pairs = compared.ends, _pairs(compared)
    seeds, counts = _most_seeds(pairs), {variant: own.seed.nunique() for variant, own in pairs.items()}
    fewer = [f"{display_name(*variant)}: {count}" for variant, count in counts.items() if 0 < count < seeds]
    but = f" ({', '.join(fewer)})" if fewer else ""
    marks = f"; large marks: mean over {seeds} seeds{but}, small marks: single seeds" if seeds > 1 else ""
    alone = "; dotted, of one seed, over documents" if any(count == 1 < seeds for count in counts.values()) else ""
    of_seeds = "seeds (Student's t) and documents (bootstrap), as claims take it"
    over = f"interval over {of_seeds}{alone}" if seeds > 1 else "bootstrap interval over documents"
    dashes = ", dashes: single seeds" if seeds > 1 else ""
    models = {variant: own.position.nunique() for variant, own in pairs.items()}
    orders = " and order of the data" if models != counts else ""
    every, rates = ends.seed.nunique(), variants.peak_rates(ends)
    return (
        f"Full-precision loss by optimizer and precision of its states, {ends.model.iloc[0]}, runs of "
        f"{si(int(ends.tokens.max()))} tokens. a: final loss relative to that of the same optimizer with 32-bit "
        f"states, paired by seed{orders}, each at the setting of lowest loss among those tried ({rates}); "
        f"at the right the loss itself{marks}; bars: {100 * _confidence(tables):g} % {over}; "
        f"beyond {_FAR:g} % at the edge; × where no run came to its end. b: final loss against the peak rate{dashes}; "
        f"above {_HIGH:g} times the lowest, at the top; crosses: diverged.{compared.lost()} n = "
        f"{sum(models.values())} models in a from {every} seed{'s' * (every > 1)}, scored on "
        f"{captions.documents(ends)}.{captions.measure_note(ends, tables['loss'])} {scale}."
    )


def _compared(tables: Tables, options: Options) -> variants.Compared:
    selection.check_options(NAME, options)
    rows = full_precision(tables["loss"].reset_index(names="position"))
    return variants.compared(NAME, selection.asked_for(NAME, rows, options))


def _pairs(compared: variants.Compared) -> dict[tuple[str, str], pd.DataFrame]:
    """Return each variant's runs that came to their end, with the place of the row of their twin, the 32-bit form's.

    Twins have seed and order of the data in common, see `by_seed`. Seeds that either lacks are left out.
    """
    ends = compared.ends[compared.ends.outcome == "complete"]
    pairs = {}
    for optimizer, states in selection.variant_looks(compared.tried):
        rows = (selection.of_variant(ends, (optimizer, precision)) for precision in (states, FULL_STATES))
        own, twins = by_seed(*rows)
        paired = own.assign(position_reference=twins.position.to_numpy())
        pairs[optimizer, states] = paired.sort_values("seed", kind="stable")
    return pairs


def _most_seeds(pairs: dict[tuple[str, str], pd.DataFrame]) -> int:
    return max(own.seed.nunique() for own in pairs.values())


def _increases(both: pd.DataFrame, tables: Tables) -> Floats:
    """Return by how many percent the loss of each seed exceeds the reference's: [seeds, 1 + samples].

    The first is the estimate, the others are resamples of the documents. Of a seed it is the mean over its pairs.
    """
    nats = tables["documents"].set_index("row").nats
    samples = tables["loss"].attrs.get("bootstrap_samples", 1000)
    tested, beside = (np.stack([nats[row] for row in both[name]]) for name in ("position", "position_reference"))
    ratios = [
        tested.mean(axis=1, keepdims=True) / beside.mean(axis=1, keepdims=True),
        resampled_means(tested, samples, seed=0) / resampled_means(beside, samples, seed=0),
    ]
    return np.stack([*by_unit(both.seed, 100 * (np.concatenate(ratios, axis=1) - 1)).values()])


def _confidence(tables: Tables) -> float:
    return float(tables["loss"].attrs.get("confidence", 0.95))


def _interval(increases: Floats, tables: Tables) -> tuple[float, float]:
    """Return the interval of the mean increase, over seeds and documents; of one seed over documents alone."""
    return interval_of_mean(increases, _confidence(tables))


def _relative_loss(
    axes: style.Axes,
    own: pd.DataFrame,
    increases: Floats,
    interval: tuple[float, float],
    place: int,
    look: palette.Look,
) -> None:
    """Draw one variant's row: the mean over its seeds and their interval, and single seeds if there are several."""
    mean = float(increases.mean())
    if abs(mean) > _FAR:
        side = 1 if mean > 0 else 0
        mark = axes.plot(side, place, "<>"[side], color=look.color, transform=axes.get_yaxis_transform())
        stand_for(mark, own, together=True)
        _say(axes, f"{mean:+.0f} %", side, place, 8 - 16 * side, "right" if side else "left")
        return
    axes.hlines(place, *interval, color=look.color, linewidth=1.0, linestyle=look.line)
    stand_for(axes.plot(mean, place, look.marker, color=look.color, markersize=4.6), own, together=True)
    if len(increases) > 1:
        seeds = {"color": look.color, **drawing.SINGLE}
        stand_for(axes.plot(increases, [place + _BELOW] * len(increases), look.marker, **seeds), own, by="seed")


def _say_lost(axes: style.Axes, tried: pd.DataFrame, place: int) -> None:
    """Write in a variant's row, which has no mark, how many of its runs at all settings diverged, and when."""
    lost = tried[tried.outcome == "diverged"]
    if lost.empty:
        return
    steps = sorted({lost.diverged_step.min(), lost.diverged_step.max()})
    when = f"step{'s' * (len(steps) > 1)} {'–'.join(map(str, steps))}"
    runs = f"{len(lost)} of {len(tried)} run{'s' * (len(tried) > 1)}"
    said = _say(axes, f"× {runs} diverged, {when}", 0.5, place, 0, "center")
    said.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # the line at 0 must not strike it out
    said.set_in_layout(False)  # what stands inside the panel must not push its neighbour away


def _say(axes: style.Axes, text: str, share: float, place: int, shift: float, align: Align) -> Annotation:
    """Write `text` in a variant's row, at a share of the panel's width and `shift` points beside it.

    In black: pale colours of variants cannot be read, and the row has the variant's name.
    """
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
    )


def _sweep(axes: style.Axes, compared: variants.Compared, looks: dict[tuple[str, str], palette.Look]) -> None:
    """Draw the final loss against the peak rate, a line a variant, at its best weight decay and beta2."""
    lowest = float(compared.tried.base_loss.min())
    top = min(float(compared.tried.base_loss.max()) + 0.02 * lowest, _HIGH * lowest)
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
        lost = own[own.outcome == "diverged"]
        crosses.cross(axes, lost.peak_lr, lost, look)
    axes.set_xscale("log")
    rates = sorted(compared.tried.peak_lr.unique())
    beside = (rates[-1] / rates[0]) ** 0.05 if len(rates) > 1 else 2.0
    axes.set_xlim(rates[0] / beside, rates[-1] * beside)  # also where all runs diverged, of which no mark is left
    slant = style.SLANTED | {"rotation": 45} if len(rates) > _MANY_RATES else {}
    axes.set_xticks(rates, [selection.rate_label(rate) for rate in rates], **slant)
    axes.minorticks_off()
    axes.set_ylim(top=top + 0.05 * (top - lowest))
    crosses.make_room(axes)
    axes.set(xlabel="Peak learning rate", ylabel="Final full-precision loss\n(nats per token)")
