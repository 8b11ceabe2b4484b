"""Image classifiers trained with each optimizer: training loss, held-out accuracy (paper B's ImageNet experiment)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import crosses, drawing, scales, style
from coolbits.figures.marks import gathered, stand_for
from coolbits.figures.palette import Look
from coolbits.figures.selection import (
    Options,
    Tables,
    asked_for,
    check_options,
    demand,
    of_variant,
    variant_looks,
)
from coolbits.figures.variants import peak_rates, settings_shown
from coolbits.settings import largest_group, of_setting
from coolbits.study.units import si

NAME = "vision"
_ALIKE = ["images", "model", "schedule", "epochs", "batch_images"]
_ROW = 0.14  # inches of a variant's row
_SMOOTHED_OVER = 0.04  # share of a training's logged updates


def draw(tables: Tables, options: Options) -> Figure:
    """Draw the training loss and the held-out accuracy along training, and the accuracy at its end by variant."""
    rows = _rows(tables, options)
    looks = variant_looks(rows)
    figure, (losses, accuracies, ends) = style.panels(3, height=max(2.4, 1.2 + _ROW * len(looks)))
    smooth = _smoothed(rows[rows.split == "train"])
    for place, (variant, look) in enumerate(looks.items()):
        for panel, curves, y in ((losses, smooth, "loss"), (accuracies, rows[rows.split == "test"], "accuracy")):
            _curves(panel, of_variant(curves, variant), y, look)
            _crosses(panel, of_variant(rows, variant), look)
        _ends(ends, of_variant(rows, variant), place, look)
    losses.set(yscale="log", ylabel="Training loss (nats per image)")
    scales.log_ticks(losses.yaxis)
    for panel in (losses, accuracies):
        crosses.make_room(panel)
        panel.set(xlabel="Epochs", xlim=(0, None))
    accuracies.set(ylabel="Held-out accuracy (%)")
    ends.set(xlabel="Final held-out accuracy (%)", ylim=(len(looks) - 0.5, -0.5))
    ends.set_yticks(range(len(looks)), [look.label for look in looks.values()])
    if not (rows.outcome == "complete").any():
        ends.set_xticks([])
    style.legend(figure, [*drawing.handles(looks.values(), marked=False), *crosses.entry(rows)])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale, and which runs diverged when."""
    rows = _rows(tables, options)
    first, seeds, runs = rows.iloc[0], rows.seed.nunique(), rows.trajectory.nunique()
    several = "mean over seeds, thin lines and small marks single seeds" if seeds > 1 else "one seed each"
    return (
        f"{first.model} ({si(int(first.parameters))} parameters) on {first.images} ({int(first.train_images):,} images "
        f"for training) by optimizer and precision of its states, each at the setting of highest accuracy at the end "
        f"among those tried ({peak_rates(rows)}). a: cross-entropy of training batches, smoothed. b: accuracy on "
        "held-out images after each epoch. "
        f"c: the same after the last epoch. Lines and large marks: {several}. n = {runs} "
        f"run{'s' * (runs > 1)} from {seeds} seed{'s' * (seeds > 1)}.{_lost(rows)} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return each variant's best runs among those of the images, model and length that most variants share."""
    check_options(NAME, options)
    once = tables["vision"].drop_duplicates(["trajectory", "step", "split"])  # entries of the study may share trainings
    table = asked_for(NAME, once, options)
    if "images" in options:
        table = demand(NAME, table[table.images == options["images"]], f"images {options['images']!r}")
    table = table.assign(variant=table.optimizer + table.states)
    alike = of_setting(table, largest_group(table.groupby(_ALIKE).variant.nunique()))
    tests = alike[alike.split == "test"].sort_values("step").drop_duplicates("trajectory", keep="last")
    scores = 1 - tests[tests.outcome == "complete"].set_index("trajectory").accuracy
    ends = alike.drop_duplicates("trajectory")
    settings = settings_shown(ends.assign(base_loss=ends.trajectory.map(scores)))
    return alike.merge(settings, on=list(settings))


def _smoothed(rows: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for _, run in rows.sort_values("step").groupby("trajectory"):
        window = max(1, round(_SMOOTHED_OVER * len(run)))
        parts.append(run.assign(loss=run.loss.rolling(window, center=True, min_periods=1).mean()))
    return pd.concat(parts, ignore_index=True)


def _curves(axes: Axes, rows: pd.DataFrame, y: str, look: Look) -> None:
    factor, style_ = 100.0 if y == "accuracy" else 1.0, {"color": look.color, "linestyle": look.line}
    rows = rows[rows[y].notna()]
    if rows.seed.nunique() > 1:
        for _, run in rows.groupby("trajectory"):
            stand_for(axes.plot(run.epoch, factor * run[y], linewidth=0.5, alpha=0.45, **style_), run)
    mean = rows.groupby("epoch", as_index=False).agg({y: "mean", "seed": "nunique", **gathered(rows)})
    mean = mean[mean.seed == rows.seed.nunique()]
    marker = look.marker if len(mean) == 1 else ""
    stand_for(axes.plot(mean.epoch, factor * mean[y], marker=marker, **style_), mean)


def _crosses(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    """Put a cross where each run diverged, at the top of the panel."""
    lost = rows[rows.outcome == "diverged"].sort_values("step").drop_duplicates("trajectory", keep="last")
    crosses.cross(axes, lost.epoch * lost.diverged_step / lost.step, lost, look)


def _ends(axes: Axes, rows: pd.DataFrame, place: int, look: Look) -> None:
    tests = rows[(rows.split == "test") & (rows.outcome == "complete")].sort_values("step")
    ends = tests.drop_duplicates("trajectory", keep="last")
    final = 100 * ends.accuracy
    if len(final):
        small = axes.plot(final, [place] * len(final), look.marker, **drawing.SINGLE, color=look.color)
        stand_for(small, ends)
        mean = axes.plot([final.mean()], [place], look.marker, color=look.color, markersize=5)
        stand_for(mean, ends, together=True)
    lost = rows[rows.outcome == "diverged"]
    if len(lost):
        beside = axes.get_yaxis_transform()
        cross = axes.plot([0.04], [place], "x", color=look.color, transform=beside, markersize=5, markeredgewidth=1.3)
        stand_for(cross, lost.drop_duplicates("trajectory"), together=True)


def _lost(rows: pd.DataFrame) -> str:
    lost = rows[rows.outcome == "diverged"].drop_duplicates("trajectory")
    found = []
    for variant, look in variant_looks(lost).items():
        own = of_variant(lost, variant)
        steps = sorted(own.diverged_step.unique())
        when = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        found.append(f"{look.label}{f', {len(own)} runs,' * (len(own) > 1)} at {when}")
    return f" Crosses, in c at the edge: diverged ({'; '.join(found)})." if found else ""
