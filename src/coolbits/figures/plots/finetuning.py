"""Supervised fine-tuning with each optimizer: the loss on held-out answers, along training and at its end (paper B)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures import crosses, drawing, palette, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables, check_options, demand, names_in, variant_looks
from coolbits.figures.variants import peak_rates, settings_shown
from coolbits.study.optimizer_names import display_name

NAME = "finetuning"
_LOSS = "oss on held-out answers"
_UNIT = "(nats per token)"
_MARGIN = 0.05  # share of the losses shown


def draw(tables: Tables, options: Options) -> Figure:
    """Draw the loss on held-out answers over the updates, and at the end, each variant in its look."""
    rows = _rows(tables, options)
    looks = _looks(rows)
    figure, (along, end) = style.panels(2)
    for place, (variant, look) in enumerate(looks.items()):
        own = rows[rows.variant == variant]
        whole, lost = own[own.outcome != "diverged"], own[own.outcome == "diverged"]
        _curves(along, whole, lost, look)
        _ends(end, whole[whole["last"]], lost, look, place)
    if rows.loss.notna().any():
        # A run about to diverge may be far above all others: it leaves the panel at the top.
        shown = rows[(rows.step == 0) | (rows.outcome != "diverged")].loss
        low, high = float(rows.loss.min()), float(shown.max())
        along.set_ylim(low - _MARGIN * (high - low), high + _MARGIN * (high - low))
        crosses.make_room(along)
    along.set(xlabel="Updates", ylabel=f"L{_LOSS}\n{_UNIT}")
    end.set_yticks(range(len(looks)), [look.label for look in looks.values()])
    end.set(xlabel=f"Final l{_LOSS} {_UNIT}", ylim=(len(looks) - 0.5, -0.5))
    if not rows["last"].any():
        end.set_xticks([])
    style.legend(figure, drawing.handles(looks.values()) + crosses.entry(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, marks and scale."""
    rows = _rows(tables, options)
    ends = rows[rows["last"]]
    count, seeds = rows.trajectory.nunique(), rows.seed.nunique()
    repeats = len(rows[["seed", "data_seed"]].drop_duplicates())
    orders = f" in {repeats} orders of the conversations" if repeats > seeds else ""
    means = ends.groupby("variant", sort=False)[["loss", "exact"]].mean()
    finals = ", ".join(f"{name} {row.loss:.3f} ({100 * row.exact:.0f} %)" for name, row in means.iterrows())
    lost = rows[rows.outcome == "diverged"].trajectory.nunique()
    died = f" Crosses, in b at the edge: {lost} fine-tuning{'s' * (lost > 1)} diverged." if lost else ""
    start = rows[rows.step == 0].loss.mean()
    return (
        f"Supervised fine-tuning ({', '.join(rows.run.unique())}), each variant at the setting of lowest final loss "
        f"among those tried ({peak_rates(rows)}). a: loss on held-out answers over the updates, from {start:.3f} "
        f"nats a token before the first. b: the same at the end; means, and answers predicted whole: "
        f"{finals or 'none'}. n = {count} fine-tuning{'s' * (count > 1)}, {seeds} seed{'s' * (seeds > 1)}{orders}; "
        f"thick lines and large marks: means, thin lines and small marks: single fine-tunings.{died} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the losses of the fine-tunings asked for, each variant in the setting of its lowest mean final loss."""
    check_options(NAME, options)
    table = demand(NAME, tables["finetuning"], "fine-tuned models")
    counts = table.groupby("run", sort=False).trajectory.nunique()
    names = list(counts.sort_values(ascending=False, kind="stable").index)
    asked = names_in(options.get("run", names[0]))
    for run in asked:
        demand(NAME, table[table.run == run], f"fine-tuning {run!r}, only {', '.join(names)}")
    # Entries of the study may share fine-tunings; of those drawn together each is drawn once.
    rows = table[table.run.isin(asked)].drop_duplicates(["trajectory", "step"])
    pairs = zip(rows.optimizer, rows.states, strict=True)
    rows = rows.assign(variant=[display_name(kind, states) for kind, states in pairs])
    ends = rows.sort_values("step").drop_duplicates("trajectory", keep="last")
    # As claims have it, trainings of one start in several orders of the conversations are repeats.
    repeats = ends.seed.astype("str") + "/" + ends.data_seed.astype("str")
    settings = settings_shown(ends.assign(base_loss=ends.loss.where(ends["last"]), seed=repeats))
    return rows.merge(settings, on=list(settings))


def _looks(rows: pd.DataFrame) -> dict[str, palette.Look]:
    return {look.label: look for look in variant_looks(rows).values()}


def _curves(axes: Axes, whole: pd.DataFrame, lost: pd.DataFrame, look: palette.Look) -> None:
    """Draw each fine-tuning, the mean of those that did not diverge, and a cross where one did."""
    line = {"color": look.color, "linestyle": look.line}
    for _, one in pd.concat([whole, lost]).groupby("trajectory"):
        stand_for(axes.plot(one.step.astype(float), one.loss, linewidth=0.6, alpha=0.5, **line), one)
    mean = whole.groupby("step").loss.mean()
    axes.plot(mean.index.astype(float), mean, **line)
    marks = axes.plot(mean.index.astype(float), mean, look.marker, color=look.color, markersize=3.2)
    stand_for(marks, whole, by="step")
    ends = lost.drop_duplicates("trajectory")
    crosses.cross(axes, ends.diverged_step.astype(float), ends, look)


def _ends(axes: Axes, last: pd.DataFrame, lost: pd.DataFrame, look: palette.Look, place: int) -> None:
    """Draw a variant's final losses on a row of their own, and a cross at the right if any diverged."""
    small = axes.plot(last.loss, [place] * len(last), look.marker, **drawing.SINGLE, color=look.color)
    stand_for(small, last)
    if len(last):
        mean = axes.plot(last.loss.mean(), place, look.marker, color=look.color, markersize=5)
        stand_for(mean, last, together=True)
    if len(lost):
        beside = axes.get_yaxis_transform()
        cross = axes.plot(0.97, place, "x", color=look.color, transform=beside, markersize=5, markeredgewidth=1.3)
        stand_for(cross, lost.drop_duplicates("trajectory"), together=True)
