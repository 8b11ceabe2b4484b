"""A knob of training swept, all else equal: error along training, and full-precision against quantized loss."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from coolbits.figures import captions, drawing, palette, selection, style
from coolbits.figures.selection import Options, Tables
from coolbits.rows import runs
from coolbits.settings import HORIZON, SETTING, largest_group, of_setting
from coolbits.study.units import si


@dataclass(frozen=True)
class Sweep:
    """The figure `name` of runs that differ in the table's `column`, of which `one` is a value in words."""

    name: str
    column: str
    one: str
    many: str
    label: Callable[[float], str]

    def draw(self, tables: Tables, options: Options) -> Figure:
        """Draw error against tokens, and quantized loss and error against full-precision loss.

        Options: `quantizers`; `optimizer`, a name such as Muon-32, by default the one with the most values.
        """
        rows = self._rows(tables, options)
        figure, axes = style.panels(3, height=2.6)
        values = sorted(rows[self.column].unique())
        looks = palette.swept([self.label(value) for value in values])
        groups = [(look, rows[rows[self.column] == value]) for value, look in zip(values, looks, strict=True)]
        starts = rows.branch_tokens.dropna()
        if starts.nunique() == 1:
            start = float(starts.iloc[0])
            end = float(rows.tokens.max())
            axes[0].axvspan(start, end, color="0.93", zorder=0)
            above = axes[0].get_xaxis_transform()  # inside the panel the word would hide data, or stand out of it
            axes[0].text(
                (start + end) / 2, 1.01, "decay", transform=above, ha="center", va="bottom", color=palette.GREY
            )
        shown = (drawing.ERROR_ALONG, drawing.LOSSES, drawing.ERROR_AT_LOSS)
        drawing.views(axes, shown, groups, selection.quantizer_label(rows))
        style.legend(figure, drawing.handles(looks) + drawing.notes(rows), title=self.one.capitalize())
        return figure

    def caption(self, tables: Tables, options: Options, scale: str) -> str:
        """Say what is seen, n, intervals and scale."""
        rows = self._rows(tables, options)
        length, decay = si(int(rows.tokens.max())), rows.decay.dropna().iloc[0]
        return (
            f"{self.many.capitalize()} compared under {selection.quantizer_label(rows)}, runs of {length} tokens with "
            f"a decay at the end ({decay}). {captions.setting_label(rows, self.column)}. a: relative quantization "
            "error along training. b: quantized against full-precision loss along the same runs; the dashed line is a "
            "quantizer without error, the large mark the end of a run. c: the error against full-precision loss "
            "(better to the right): at equal loss, the lower the better. "
            f"{captions.evidence(rows, tables['loss'])} {scale}."
        )

    def _rows(self, tables: Tables, options: Options) -> pd.DataFrame:
        """Return the runs with a decay of the setting, budget and decay in which most values came to their end."""
        (rows,) = selection.of_quantizers(self.name, tables["loss"], options)
        if name := options.get("optimizer"):
            rows = selection.of_optimizers(self.name, rows, [name])
        whole = runs(rows)
        whole = selection.demand(
            self.name, whole[whole.schedule == "wsd"], "run with a decay (wsd, or cooldowns of a constant run)"
        )
        ended = whole[~whole.trajectory.isin(whole[whole.outcome == "diverged"].trajectory)]
        alike = [name for name in (*SETTING, *HORIZON) if name not in (self.column, "schedule")]
        counts = ended.groupby(alike, dropna=False)[self.column].nunique()
        if ended.empty or counts.max() < 2:
            selection.demand(self.name, whole.iloc[:0], f"two {self.many} with decays of equal budget and length")
        setting = largest_group(counts)
        chosen = of_setting(whole, setting)
        # A run that diverged on its trunk has no decay to be found by; it is shown beside those that did not.
        lost = of_setting(rows[(rows.source == "checkpoint") & (rows.outcome == "diverged")], setting, but=HORIZON)
        return pd.concat([chosen, lost[~lost.trajectory.isin(chosen.trajectory)]], ignore_index=True)
