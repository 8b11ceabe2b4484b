"""Inside the optimizer: what is lost of its states and what their spectra are, over training (paper B's reviewers)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures import drawing, style
from coolbits.figures.marks import stand_for
from coolbits.figures.plots.telemetry_panels import (
    BY_CODEC,
    DEFAULT,
    SECOND,
    Panel,
    descriptions,
    letters_of,
    panels_of,
)
from coolbits.figures.selection import Options, Tables, check_options, demand, of_variant, rate_label, variant_looks
from coolbits.figures.style import Look
from coolbits.study.optimizer_names import display_name

NAME = "telemetry"
_SETTING = ["model", "schedule", "peak_lr", "weight_decay", "beta2"]


def draw(tables: Tables, options: Options) -> Figure:
    """Draw measures of the states along training, by default zeros, errors, spectra and changes of Newton-Schulz.

    Options: `runs`, names; `measures`, columns of the telemetry in place of the default's.
    """
    rows, shown = _rows(tables, options), _panels(options)
    columns = 2 if len(shown) in (2, 4) else min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = style.panels(columns, height=2.1 * lines + (0.3 if lines == 1 else 0), rows=lines)
    looks = variant_looks(rows)
    for panel, place in zip(axes, shown, strict=False):
        for variant, look in looks.items():
            own = of_variant(rows, variant)
            _band(panel, own[own.state.isin(place.states)], place, look)
            drawing.diverged(panel, own, look)
        panel.set(ylabel=place.label, yscale="log" if place.logarithmic else "linear")
        if place.logarithmic and place.percent:
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        style.token_axis(panel, logarithmic=True)
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    style.legend(figure, [*drawing.handles(looks.values(), marked=False), *drawing.diverged_entry(rows)])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale, and when runs diverged."""
    rows, shown = _rows(tables, options), _panels(options)
    second = letters_of(shown, states=SECOND)
    tables_of_muon = f"; those of Muon runs in {second} belong to its embeddings and head" if second else ""
    settings = rows.drop_duplicates("variant").sort_values("variant")
    pairs = zip(settings.variant, settings.peak_lr, strict=True)
    rates = ", ".join(f"{variant} {rate_label(rate)}" for variant, rate in pairs)
    seeds, count, tensors = rows.seed.nunique(), rows.family.nunique(), rows.groupby("family").parameter.nunique().max()
    return (
        f"Optimizer states during training, by variant and peak rate ({rates}). {descriptions(shown)} The states are "
        f"Muon's or SGD's momentum, or AdamW's moments{tables_of_muon}. Lines: median over tensors and seeds; bands: "
        f"their range. n = {count} run{'s' * (count > 1)} from {seeds} seed{'s' * (seeds > 1)}, "
        f"{tensors} tensors each.{_ends(rows)} {scale}."
    )


def _panels(options: Options) -> list[Panel]:
    asked = options.get("measures", DEFAULT)
    return panels_of(NAME, [asked] if isinstance(asked, str) else list(asked))


def _ends(rows: pd.DataFrame) -> str:
    """Say which runs diverged at which step, and the share of second moments stored as 0 when last measured before."""
    sentences = []
    for variant, own in rows[rows.outcome == "diverged"].groupby("variant"):
        steps = " or ".join(str(step) for step in sorted(own.diverged_step.unique()))
        squares = own[own.state == "exp_avg_sq"]
        last = squares[squares.step == squares.groupby("family").step.transform("max")].zero_share
        share = f", {100 * last.median():.2g} % of its second moments stored as 0 just before" if len(last) else ""
        sentences.append(f" {variant} diverged at step {steps} (crosses){share}.")
    return "".join(sentences)


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return each variant's runs at the setting that most variants share, whole: a trunk, then its decay if it has one.

    Column `variant` is the optimizer's name in paper B. What codes do is what the variant's own do, or linear ones if
    its states are float32.
    """
    check_options(NAME, options)
    rows = demand(NAME, tables["telemetry"], "runs with telemetry")
    if "runs" in options:
        asked = [options["runs"]] if isinstance(options["runs"], str) else list(options["runs"])
        rows = rows[rows.run.isin(asked)]
        if rows.empty:
            raise CoolbitsError(f"figure {NAME}: no telemetry of the runs {asked}; give names of runs that have it")
    rows = rows[rows.schedule != "cooldown"].drop_duplicates(["family", "step", "parameter", "state"], keep="last")
    named = [display_name(kind, states) for kind, states in zip(rows.optimizer, rows.states, strict=True)]
    float32 = rows.codec == "float32"
    by_codec = {name: np.where(float32, rows[f"{name}_linear"], rows[name]) for name in BY_CODEC}
    rows = rows.assign(variant=named, **by_codec)
    counts = rows.groupby(_SETTING, dropna=False).variant.nunique().rename("variants").reset_index()
    rows = rows.merge(counts, on=_SETTING)
    ranked = rows.sort_values(["variants", *_SETTING], ascending=[False, *[True] * len(_SETTING)], kind="stable")
    model = ranked.model.iloc[0]
    chosen = ranked[ranked.model == model].drop_duplicates("variant")[["variant", *_SETTING]]
    return rows.merge(chosen, on=list(chosen)).sort_values(["variant", "family", "tokens"], kind="stable")


def _band(axes: Axes, rows: pd.DataFrame, panel: Panel, look: Look) -> None:
    """Draw the median over tensors and seeds at each step, and their range as a band."""
    values = rows[panel.measure] * (100 if panel.percent else 1)
    shown = np.isfinite(values) & ((values > 0) | (not panel.logarithmic))
    if not shown.any():
        return
    groups = values[shown].groupby(rows.tokens[shown].astype(float))
    low, middle, high = groups.min(), groups.median(), groups.max()
    axes.fill_between(low.index, low, high, color=look.color, alpha=0.07, linewidth=0)
    line = axes.plot(middle.index, middle, color=look.color, linestyle=look.line)
    stand_for(line, rows[shown], by="tokens")
