"""Optimizers and the precision of their states: training loss, quantization error along training and at equal loss."""

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, crosses, drawing, palette, selection, style, variants
from coolbits.figures.selection import Options, Tables
from coolbits.figures.training import smoothed
from coolbits.study.units import si

NAME = "optimizers"
_CROWD = 4  # variants beyond which single seeds are left out of the loss curves
_FAR = 1.4  # losses above this times the lowest are off the panel: an explosion must not hide the rest


def draw(tables: Tables, options: Options) -> Figure:
    """Draw loss curves, error against tokens and against loss, each variant at its best rate.

    Options: `quantizers`, one; `model`, of several; `optimizers`, names such as AdamC-32; `peak_lr`.
    """
    rows = _compared(tables, options).shown
    looks = selection.variant_looks(rows)
    figure, (curves, *errors) = style.panels(3, height=2.6)
    groups = [(look, selection.of_variant(rows, variant)) for variant, look in looks.items()]
    training = smoothed(NAME, tables["metrics"], rows, ["loss"])
    for variant, look in looks.items():
        drawing.curve(
            curves, selection.of_variant(training, variant), "loss", look, marked=False, seeds=len(looks) <= _CROWD
        )
        crosses.diverged(curves, selection.of_variant(rows, variant), look)
    shown = (drawing.ERROR_ALONG, drawing.ERROR_AT_LOSS)
    drawing.views(errors, shown, groups, selection.quantizer_label(rows), _runs)
    started = training[training.tokens > 0.05 * training.tokens.max()].loss
    curves.set_ylim(float(started.min()) - 0.05, min(float(started.max()) + 0.1, _FAR * float(started.min())))
    crosses.make_room(curves)
    curves.set(ylabel=f"Training {style.LOSS.lower()}")
    style.token_axis(curves)
    early = (
        drawing.handles([palette.pale(palette.Look("before the decay (c)", palette.GREY))]) if _phases(rows) > 1 else []
    )
    style.legend(figure, drawing.handles(looks.values()) + early + drawing.notes(rows))
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale."""
    compared = _compared(tables, options)
    rows, rates = compared.shown, variants.peak_rates(compared.ends)
    pale = ", pale before its decay" if _phases(rows) > 1 else ""
    crowd = rows.seed.nunique() > 1 and len(selection.variant_looks(rows)) > _CROWD
    alone = ", means without single seeds" if crowd else ""
    return (
        f"Optimizers and the precision of their states compared under {selection.quantizer_label(rows)}, "
        f"{rows.model.iloc[0]}, runs of {si(int(rows.tokens.max()))} tokens, each at the setting with the lowest "
        f"full-precision loss among those tried ({rates}). a: training loss, smoothed over 1 % "
        f"of the steps{alone}; the highest losses, as of the first steps, are off the panel. b: relative quantization "
        "error along training. c: the same error against full-precision loss "
        f"(better to the right), each run{pale}, its end with the large mark.{compared.lost()} "
        f"{captions.evidence(rows, tables['loss'])} {scale}."
    )


def _compared(tables: Tables, options: Options) -> variants.Compared:
    (rows,) = selection.of_quantizers(NAME, tables["loss"], options)
    return variants.compared(NAME, selection.asked_for(NAME, rows, options))


def _phases(rows: pd.DataFrame) -> int:
    """Return the number of kinds of checkpoints, before decays and in them."""
    return int((rows.phase == "decay").nunique())


def _runs(axes: style.Axes, rows: pd.DataFrame, view: drawing.View, look: palette.Look) -> None:
    """Draw whole runs; at equal loss those before their decay are pale, for a decay moves error and loss alike."""
    if view.x == "tokens":
        drawing.run_curves(axes, rows, view, look)
    else:
        drawing.fan(axes, rows, view.y, palette.pale(look), look, view.x)
