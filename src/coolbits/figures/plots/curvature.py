"""Curvature of the loss along training: sharpness, trace, largest eigenvalues (paper A, Figures 9 and 26)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coolbits.figures import captions, crosses, drawing, palette, scales, selection, style
from coolbits.figures.marks import stand_for
from coolbits.figures.palette import Look
from coolbits.figures.plots.averages import draw_average, of_each_kind
from coolbits.figures.selection import Options, Tables, check_options
from coolbits.rows import full_precision, runs, trunks
from coolbits.settings import HORIZON, SETTING, largest_group, main_rows, of_setting

NAME = "curvature"
_LABELS = ("Largest eigenvalue", "Trace", "Largest eigenvalues")
_ALIKE = [name for name in (*SETTING, *HORIZON) if name not in ("peak_lr", "schedule")]


def draw(tables: Tables, options: Options) -> Figure:
    """Draw a trunk, its cooldowns and averages, and below them, where there are several, peak rates with one decay."""
    table = _table(tables, options)
    main, rates = _main(table), _rates(table)
    averaged, checkpoints = of_each_kind(main), table[table.source == "checkpoint"]
    figure, axes = style.panels(3, height=2.4 if rates.empty else 4.6, rows=1 if rates.empty else 2)
    for panel, y in zip(axes, ("top_eigenvalue", "trace"), strict=False):
        drawing.fan(panel, runs(main), y, None, palette.DECAY)
        drawing.curve(panel, trunks(main), y, palette.TRUNK)
        for look, own in averaged:
            draw_average(panel, own, y, look)
    _spectrum_along(axes[2], checkpoints, main)
    values = sorted(rates.peak_lr.unique())
    swept = palette.swept([f"peak rate {selection.rate_label(rate)}" for rate in values])
    looks = dict(zip(values, swept, strict=True))
    for panel in axes[:3]:
        crosses.diverged(panel, main, palette.TRUNK)
    for rate, look in looks.items():
        own = rates[rates.peak_lr == rate]
        for panel, y in zip(axes[3:], ("top_eigenvalue", "trace"), strict=False):
            drawing.curve(panel, own, y, look)
            crosses.diverged(panel, own, look)
        _spectrum(axes[5], checkpoints, own, look)
    for place, panel in enumerate(axes):
        panel.set_ylabel(_LABELS[place % 3])
        if place < 3:
            scales.from_zero(panel)
            panel.set_ylim(top=1.05 * panel.get_ylim()[1])
        else:
            scales.scale_values(panel)
        crosses.make_room(panel)
        if place < 5:
            style.token_axis(panel)
    shown = [palette.TRUNK, palette.DECAY, *(look for look, _ in averaged), *looks.values()]
    style.legend(figure, [*drawing.handles(shown), *crosses.entry(pd.concat([main, rates]))])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, of what loss, how exactly, and scale."""
    table = _table(tables, options)
    main, rates, count = _main(table), _rates(table), int(table["rank"].max())
    seeds = main.seed.nunique()
    averaged, less = (", and averages of weights", ", without averages") if of_each_kind(main) else ("", "")
    below = (
        f" d to f: the same of runs at {rates.peak_lr.nunique()} peak rates with one decay and budget; f: the "
        "eigenvalues at their ends, by rank."
        if len(rates)
        else ""
    )
    shares = (table.trace_error / table.trace.abs()).dropna()
    error = f" (standard error at most {100 * shares.max():.1f} %)" if len(shares) else ""
    residual = 100 * (table.residual / table.top_eigenvalue).max()
    thin = "; thick lines: means, thin ones: single seeds" if seeds > 1 else ""
    return (
        "Hessian of the held-out loss (nats per token) in all weights, along a trunk at a constant rate and its "
        f"cooldowns{averaged}. a: its largest eigenvalue, the sharpness. b: its trace by Hutchinson's estimate{error}. "
        f"c: its {count} largest eigenvalues by Lanczos' method (residual at most {residual:.2g} % of the largest)"
        f"{less}.{below} {captions.setting_label(main)}. n = {main.trace.count()} models from {seeds} "
        f"seed{'s' * (seeds > 1)}{thin}.{captions.measure_note(table, tables[NAME])} {scale}."
    )


def _table(tables: Tables, options: Options) -> pd.DataFrame:
    check_options(NAME, options)
    return full_precision(tables["curvature"])


def _models(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model."""
    return table[(table["rank"] == 1) | table["rank"].isna()]


def _main(table: pd.DataFrame) -> pd.DataFrame:
    rows = main_rows(_models(table), every_decay=True)
    return selection.demand(NAME, rows, "measure of curvature along a trunk with a decay")


def _rates(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with a decay that most peak rates share, or no rows."""
    whole = runs(_models(table))
    whole = whole[whole.schedule == "wsd"]
    counts = whole.groupby(_ALIKE, dropna=False).peak_lr.nunique()
    return of_setting(whole, largest_group(counts)) if counts.max() > 1 else whole.iloc[:0]


def _spectrum_along(axes: Axes, table: pd.DataFrame, main: pd.DataFrame) -> None:
    """Draw each eigenvalue's mean over seeds along the trunk and its cooldowns."""
    spectra = table[["trajectory", "step", "rank", "eigenvalue"]].drop_duplicates(["trajectory", "step", "rank"])
    whole = runs(main)
    lines = [(palette.TRUNK, trunks(main))]
    lines += [(palette.DECAY, run[run.tokens >= run.branch_tokens]) for _, run in whole.groupby("budget_tokens")]
    for look, models in lines:
        for _, own in models.drop(columns=["rank", "eigenvalue"]).merge(spectra).groupby("rank"):
            drawing.curve(axes, own, "eigenvalue", look, marked=False, seeds=False)
    for line in axes.lines:
        line.set_linewidth(0.8)


def _spectrum(axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, look: Look) -> None:
    """Draw the eigenvalues at the ends of runs against their rank, mean over seeds."""
    ends = rows[rows.final.astype(bool)]
    own = table[table.trajectory.isin(ends.trajectory) & table.final.astype(bool)]
    means = own.groupby("rank").eigenvalue.mean()
    lines = {"linestyle": look.line, "color": look.color, "markersize": 2.5}
    stand_for(axes.plot(means.index.astype(float), means, look.marker, **lines), own, by="rank")
    axes.set_xlabel("Rank")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
