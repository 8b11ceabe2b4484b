"""Norms of gradient and weights along training, optimizers compared (paper A, Figure 20)."""

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import crosses, drawing, scales, selection, style, variants
from coolbits.figures.selection import Options, Tables
from coolbits.figures.training import smoothed
from coolbits.rows import full_precision
from coolbits.study.units import si

NAME = "norms"
_LABELS = {"grad_norm": "Gradient norm", "weight_norm": "Weight norm"}


def draw(tables: Tables, options: Options) -> Figure:
    """Draw both norms against tokens, each optimizer at its best rate.

    Options: `model`, of several; `optimizers`, names; `peak_lr`.
    """
    rows = _compared(tables, options).shown
    looks = selection.variant_looks(rows)
    training = smoothed(NAME, tables["metrics"], rows, list(_LABELS))
    figure, axes = style.panels(2)
    for panel, (norm, label) in zip(axes, _LABELS.items(), strict=True):
        for variant, look in looks.items():
            drawing.curve(panel, selection.of_variant(training, variant), norm, look, marked=False)
            crosses.diverged(panel, selection.of_variant(rows, variant), look)
        panel.set_ylabel(label)
        style.token_axis(panel)
    scales.scale_values(axes[0])  # the first gradients are many times the others
    lasting = _lasting_beside_lost(rows)
    for panel, norm in zip(axes, _LABELS, strict=True):
        if len(lasting):  # what blew up must not hide the rest
            scales.show(panel, training[training.trajectory.isin([*lasting.family, *lasting.path])][norm])
        crosses.make_room(panel)
    style.legend(figure, drawing.handles(looks.values(), marked=False) + crosses.entry(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n and scale."""
    compared = _compared(tables, options)
    rows, seeds = compared.shown, compared.ends.seed.nunique()
    thin = "; thick lines: means, thin ones: single seeds" if seeds > 1 else ""
    beyond = "; what runs that diverged have beyond the others is off the panels"
    cut = beyond if len(_lasting_beside_lost(rows)) else ""
    return (
        f"Norms along training of {rows.model.iloc[0]}, runs of {si(int(rows.tokens.max()))} tokens, each optimizer at "
        f"the setting with the lowest full-precision loss among those tried ({variants.peak_rates(compared.ends)}). "
        "a: Euclidean norm of the gradient of all weights, before it is clipped. b: that of the weights, after the "
        f"update. Both are smoothed over 1 % of the steps{cut}. n = {compared.ends.path.nunique()} runs from {seeds} "
        f"seed{'s' * (seeds > 1)}{thin}.{compared.lost()} {scale}."
    )


def _lasting_beside_lost(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that did not diverge where others did, to whose norms the panels are scaled; else none."""
    lost = rows[rows.outcome == "diverged"]
    return rows[~rows.path.isin(lost.path)] if len(lost) else lost


def _compared(tables: Tables, options: Options) -> variants.Compared:
    selection.check_options(NAME, options)
    return variants.compared(NAME, selection.asked_for(NAME, full_precision(tables["loss"]), options))
