"""Inside the optimizer: what is lost of its states and what their spectra are, over training (paper B's reviewers)."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures import drawing, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables, check_options, demand, of_variant, rate_label, variant_looks
from coolbits.figures.style import Look
from coolbits.study.optimizer_names import display_name

NAME = "telemetry"
_SETTING = ["model", "schedule", "peak_lr", "weight_decay", "beta2"]
_MOMENTA = ("momentum", "exp_avg")


class _Panel(NamedTuple):
    """A quantity, of which states, and how it is written along the y axis."""

    quantity: str
    states: tuple[str, ...]
    label: str
    factor: float = 1.0
    logarithmic: bool = True


_PANELS = (
    _Panel("lost", ("exp_avg_sq",), "Second moments stored as 0 (%)", 100, logarithmic=False),
    _Panel("shadow_error", ("exp_avg_sq",), "Error of second moments (%)", 100),
    _Panel("shadow_error", _MOMENTA, "Error of momenta (%)", 100),
    _Panel("condition", _MOMENTA, "Condition number"),
    _Panel("stable_rank", _MOMENTA, "Stable rank", logarithmic=False),
    _Panel("turned", _MOMENTA, "Change of NS(M) (%)", 100),
)


def draw(tables: Tables, options: Options) -> Figure:
    """Draw zeros among second moments, errors against the shadows, spectra, and what rounding does to Newton-Schulz."""
    rows = _rows(tables, options)
    figure, axes = style.panels(3, height=4.2, rows=2)
    looks = variant_looks(rows)
    for panel, place in zip(axes, _PANELS, strict=True):
        for variant, look in looks.items():
            own = of_variant(rows, variant)
            _band(panel, own[own.state.isin(place.states)], place, look)
            drawing.diverged(panel, own, look)
        panel.set(ylabel=place.label, yscale="log" if place.logarithmic else "linear")
        if place.logarithmic and place.factor > 1:
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        style.token_axis(panel, logarithmic=True)
    cross = [drawing.entry("diverged", "x", hollow=False)] if (rows.outcome == "diverged").any() else []
    style.legend(figure, [*drawing.handles(looks.values(), marked=False), *cross])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale, and when runs diverged."""
    rows = _rows(tables, options)
    settings = rows.drop_duplicates("variant").sort_values("variant")
    pairs = zip(settings.variant, settings.peak_lr, strict=True)
    rates = ", ".join(f"{variant} {rate_label(rate)}" for variant, rate in pairs)
    seeds, count, tensors = rows.seed.nunique(), rows.family.nunique(), rows.groupby("family").parameter.nunique().max()
    return (
        f"Optimizer states during training, by variant and peak rate ({rates}). a: share of second moments not 0 in "
        "float32 that are stored as 0. b, c: relative error of stored second moments and momenta against a float32 "
        "shadow fed the same gradients; 32-bit states have none. d: condition number and e: stable rank of the momenta "
        "of matrices. f: relative change of Newton-Schulz' result when a momentum is rounded once. In a and f 32-bit "
        "states show what linear codes would do to them. The states are Muon's or SGD's momentum, or AdamW's moments; "
        "those of Muon runs in a and b belong to its embeddings and head. Lines: median over tensors "
        f"and seeds; bands: their range. n = {count} run{'s' * (count > 1)} from {seeds} seed{'s' * (seeds > 1)}, "
        f"{tensors} tensors each.{_ends(rows)} {scale}."
    )


def _ends(rows: pd.DataFrame) -> str:
    """Say which runs diverged at which step, and the share of second moments stored as 0 when last measured before."""
    sentences = []
    for variant, own in rows[rows.outcome == "diverged"].groupby("variant"):
        steps = " or ".join(str(step) for step in sorted(own.diverged_step.unique()))
        squares = own[own.state == "exp_avg_sq"]
        last = squares[squares.step == squares.groupby("family").step.transform("max")].lost
        share = f", {100 * last.median():.2g} % of its second moments stored as 0 just before" if len(last) else ""
        sentences.append(f" {variant} diverged at step {steps} (crosses){share}.")
    return "".join(sentences)


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return each variant's runs at the setting that most variants share, whole: a trunk, then its decay if it has one.

    Column `variant` is the optimizer's name in paper B; `lost` and `turned` are the share of zeros and the change of
    Newton-Schulz under the variant's own codes, or under linear ones if its states are float32.
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
    rows = rows.assign(
        variant=named,
        lost=np.where(float32, rows.zero_share_linear, rows.zero_share),
        turned=np.where(float32, rows.newton_schulz_error_linear, rows.newton_schulz_error),
    )
    counts = rows.groupby(_SETTING, dropna=False).variant.nunique().rename("variants").reset_index()
    rows = rows.merge(counts, on=_SETTING)
    ranked = rows.sort_values(["variants", *_SETTING], ascending=[False, *[True] * len(_SETTING)], kind="stable")
    model = ranked.model.iloc[0]
    chosen = ranked[ranked.model == model].drop_duplicates("variant")[["variant", *_SETTING]]
    return rows.merge(chosen, on=list(chosen)).sort_values(["variant", "family", "tokens"], kind="stable")


def _band(axes: Axes, rows: pd.DataFrame, panel: _Panel, look: Look) -> None:
    """Draw the median over tensors and seeds at each step, and their range as a band."""
    values = rows[panel.quantity] * panel.factor
    shown = np.isfinite(values) & ((values > 0) | (not panel.logarithmic))
    if not shown.any():
        return
    groups = values[shown].groupby(rows.tokens[shown].astype(float))
    low, middle, high = groups.min(), groups.median(), groups.max()
    axes.fill_between(low.index, low, high, color=look.color, alpha=0.07, linewidth=0)
    line = axes.plot(middle.index, middle, color=look.color, linestyle=look.line)
    stand_for(line, rows[shown], by="tokens")
