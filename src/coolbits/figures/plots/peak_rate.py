"""Peak learning rates compared: error along training, and full-precision against quantized loss (paper A, Figure 6)."""

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import drawing, palette, selection, style
from coolbits.figures.selection import Options, Tables
from coolbits.rows import runs
from coolbits.settings import HORIZON, SETTING, largest_group, of_setting
from coolbits.study.optimizer_names import display_name
from coolbits.study.units import si

NAME = "peak-rate"
_SHARED = [name for name in (*SETTING, *HORIZON) if name not in ("peak_lr", "schedule")]


def draw(tables: Tables, options: Options) -> Figure:
    """Draw error against tokens, and quantized loss and error against full-precision loss.

    Options: `quantizers`; `optimizer`, a name such as Muon-32, by default the one with the most rates.
    """
    rows = _rows(tables, options)
    figure, axes = style.panels(3, height=2.6)
    rates = sorted(rows.peak_lr.unique())
    looks = [
        palette.Look(selection.rate_label(rate), color, marker)
        for rate, color, marker in zip(rates, palette.shades(len(rates)), "osD^vP<>" * len(rates), strict=False)
    ]
    groups = [(look, rows[rows.peak_lr == rate]) for rate, look in zip(rates, looks, strict=True)]
    starts = rows.branch_tokens.dropna()
    if starts.nunique() == 1:
        axes[0].axvspan(float(starts.iloc[0]), float(rows.tokens.max()), color="0.93", zorder=0)
        axes[0].annotate("decay", (float(starts.iloc[0]), 0.02), xycoords=("data", "axes fraction"), color=palette.GREY)
    shown = (drawing.ERROR_ALONG, drawing.LOSSES, drawing.ERROR_AT_LOSS)
    drawing.views(axes, shown, groups, selection.quantizer_label(rows))
    style.legend(figure, drawing.handles(looks) + drawing.notes(rows), title="Peak learning rate")
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    rows = _rows(tables, options)
    length, decay = si(int(rows.tokens.max())), rows.decay.dropna().iloc[0]
    return (
        f"Peak learning rates compared under {selection.quantizer_label(rows)}, runs of {length} tokens with a decay "
        f"at the end ({decay}). {selection.setting_label(rows, rate=False)}. a: relative quantization error along "
        "training. b: quantized against full-precision loss along the same runs; the dashed line is a quantizer "
        "without error, the large mark the end of a run. c: the error against full-precision loss "
        "(better to the right): at equal loss, the lower the better. "
        f"{selection.evidence(rows, tables['loss'])} {scale}."
    )


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the runs with a decay of the setting, budget and decay in which most peak rates came to their end."""
    (rows,) = selection.of_quantizers(NAME, tables["loss"], options)
    if name := options.get("optimizer"):
        names = [display_name(*pair) for pair in zip(rows.optimizer, rows.states, strict=True)]
        rows = selection.demand(NAME, rows[[own == name for own in names]], f"run of {name}")
    whole = runs(rows)
    whole = selection.demand(
        NAME, whole[whole.schedule == "wsd"], "run with a decay (wsd, or cooldowns of a constant run)"
    )
    ended = whole[~whole.trajectory.isin(whole[whole.outcome == "diverged"].trajectory)]
    counts = ended.groupby(_SHARED, dropna=False).peak_lr.nunique()
    if ended.empty or counts.max() < 2:
        selection.demand(NAME, whole.iloc[:0], "two peak learning rates with decays of equal budget and length")
    setting = largest_group(counts)
    chosen = of_setting(whole, setting)
    # A run that diverged on its trunk has no decay to be found by; it is shown beside those that did not.
    lost = of_setting(rows[(rows.source == "checkpoint") & (rows.outcome == "diverged")], setting, but=HORIZON)
    return pd.concat([chosen, lost[~lost.trajectory.isin(chosen.trajectory)]], ignore_index=True)
