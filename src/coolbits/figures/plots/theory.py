"""What rounding a state does to one update, against the theorems' bounds (paper B's theory, checked in numbers)."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coolbits.figures import drawing, palette, scales, style
from coolbits.figures.marks import stand_for
from coolbits.figures.palette import Look
from coolbits.figures.selection import Options, Tables, check_options

NAME = "theory"
_CODECS = ("linear", "dynamic")
_UPDATES = {"adam": "AdamW", "sgd": "SGDM", "muon": "Muon"}
_SECOND: dict[str, tuple[str, palette.Line]] = {
    "linear-unsigned": ("linear", "-"),
    "dynamic-unsigned": ("dynamic", "--"),
    "linear": ("linear, signed (b)", ":"),
}
_WIDE = 1.2  # factor by which the line of a single block size reaches to either side
_FACTORS = {"polar_change": ("polar factor", "o"), "ns5_change": ("5 Newton-Schulz steps", "^")}


def draw(tables: Tables, options: Options) -> Figure:
    """Draw errors of codecs, AdamW's zeros, the change of the next update, and Muon's change against its bounds."""
    table = _rows(tables, options)
    figure, (errors, zeros, updates, bounds) = style.panels(2, height=4.9, rows=2)
    _errors(errors, table)
    _zeros(zeros, table)
    _updates(updates, table)
    _bounds(bounds, table)
    looks = [Look(look.label, look.color, "o", "") for look in _looks(table).values()]
    kinds = [drawing.entry(f"{label} (d)", marker, hollow=False) for label, marker in _FACTORS.values()]
    style.legend(figure, [*drawing.handles(looks), *map(_codec_entry, _SECOND), *kinds])
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, how many bounds held, and scale."""
    table = _rows(tables, options)
    random = table[table.trajectory.isna()]
    size, seeds = random.iloc[0], random.seed.nunique()
    checked, held = int(table.holds.notna().sum()), int(table.holds.sum())
    return (
        f"What 8-bit codes do to a state and to the update made from it. Random matrices of {size['rows']} x "
        f"{size['columns']}, {seeds} seed{'s' * (seeds > 1)} (one mark each; lines: means), blocks of {_block(table)} "
        f"unless said otherwise.{_lent(table)} a: relative error of a momentum; bars: the largest of the bounds, every "
        "entry as far off as its block's scale allows. b: share of AdamW's second moments that become zero, of random "
        "gradients after the first; an update from those is the gradient divided by eps, and no bound holds. c: "
        "relative change of the second update when the states are rounded after the first. d: relative change of "
        "Muon's update against its bound: of the exact polar factor 2|A - B| / (sigma_min(A) + sigma_min(B)), of five "
        "Newton-Schulz steps (float64) the polynomial's steepest slope times the change of M / |M|. "
        f"{held} of {checked} bounds hold. {scale}."
    )


def _lent(table: pd.DataFrame) -> str:
    """Say what training runs lent, and what Muon's momenta are like there."""
    lent = table[table.trajectory.notna()]
    rounded = lent[lent.codec.notna()]
    if rounded.empty:
        return ""
    runs = rounded.trajectory.nunique()
    count = f"{runs} trajector{'ies' if runs > 1 else 'y'}"
    middle = lent.groupby("quantity").value.median()
    spectra = (
        f"; Muon's momenta there have median condition number {middle['condition']:.0f} and stable rank "
        f"{middle['stable_rank']:.1f}"
        if "condition" in middle
        else ""
    )
    return f" Training runs: matrices of the last checkpoints of {count} with float32 states{spectra}."


def _rows(tables: Tables, options: Options) -> pd.DataFrame:
    check_options(NAME, options)
    table = tables["theory"]
    return table.assign(look=table.source.where(table.trajectory.isna(), "runs"))


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    return {name: look for name, look in palette.SOURCES.items() if (table["look"] == name).any()}


def _block(table: pd.DataFrame) -> int:
    return int(table[table.check == "rounding"].block.iloc[0])


def _errors(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[(table.check == "rounding") & (table.quantity == "relative_error")]
    looks = _looks(rows)
    for place, (name, look) in enumerate(looks.items()):
        for shift, codec in zip((-0.17, 0.17), _CODECS, strict=True):
            own = rows[(rows["look"] == name) & (rows.codec == codec)]
            _dots(axes, place + shift, 100 * own.value, own, look, hollow=codec == "dynamic")
            axes.plot(place + shift, 100 * own.bound.max(), "_", color=look.color, markersize=11)
    axes.set(yscale="log", ylabel="Error of the momentum (%)")
    scales.log_ticks(axes.yaxis)
    _names(axes, [look.label.replace(", ", ",\n").replace(" and ", "\nand ") for look in looks.values()])


def _zeros(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[(table.check == "adam") & (table.quantity == "zeros")]
    for name, look in _looks(rows).items():
        for codec, (_, line) in _SECOND.items():
            own = rows[(rows["look"] == name) & (rows.codec == codec)]
            if name != "runs":
                shares = 100 * own.groupby("block").value.mean()
                stand_for(axes.plot(shares.index.astype(float), shares, line, color=look.color), own, by="block")
                if len(shares) == 1:  # a line of one point cannot be seen
                    block = float(shares.index[0])
                    axes.hlines(shares, block / _WIDE, block * _WIDE, color=look.color, linestyle=line)
            elif codec != "linear":
                _dots(axes, own.block.astype(float), 100 * own.value, own, look, hollow=codec == "dynamic-unsigned")
    blocks = sorted(set(rows.block))
    axes.set(xscale="log", xlabel="Elements that share a scale", ylabel="Second moments stored as 0 (%)")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(-0.015, 120)  # marks at 0 are whole
    axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    axes.set_xticks([float(block) for block in blocks], [f"{block:,}" for block in blocks])
    axes.minorticks_off()


def _updates(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[(table.step == 2) & table.trajectory.isna() & (table.quantity == "relative_change")]
    looks = _looks(rows)
    for place, check in enumerate(_UPDATES):
        for step, (name, look) in enumerate(looks.items()):
            for shift, codec in zip((-0.06, 0.06), _CODECS, strict=True):
                own = rows[(rows.check == check) & (rows["look"] == name) & rows.codec.str.startswith(codec)]
                across = place + 0.26 * (step - (len(looks) - 1) / 2) + shift
                _dots(axes, across, 100 * own.value, own, look, codec != "linear")
    axes.set(yscale="log", ylabel="Change of the next update (%)")
    scales.log_ticks(axes.yaxis)
    _names(axes, list(_UPDATES.values()))


def _bounds(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[(table.check == "muon") & table.quantity.isin(_FACTORS) & np.isfinite(table.bound)]
    for (name, codec, quantity), own in rows.groupby(["look", "codec", "quantity"], sort=False):
        look = palette.SOURCES[name]
        _dots(axes, 100 * own.bound, 100 * own.value, own, look, codec != "linear", marker=_FACTORS[quantity][1])
    axes.set(xscale="log", yscale="log", xlabel="Bound (%)", ylabel="Change of Muon's update (%)")
    for axis in (axes.xaxis, axes.yaxis):
        scales.log_ticks(axis)
    axes.axline((1, 1), (10, 10), color=palette.GREY, linestyle="--", linewidth=0.8, zorder=1)


def _dots(
    axes: Axes, x: float | pd.Series, y: pd.Series, rows: pd.DataFrame, look: Look, hollow: bool, marker: str = "o"
) -> None:
    """Draw one mark a row, small for training runs, which have many."""
    places = [x] * len(y) if isinstance(x, float | int) else x
    face = "white" if hollow else look.color
    size = 2.2 if look is palette.SOURCES["runs"] else 3.6
    faces = {"color": look.color, "markerfacecolor": face, "markersize": size, "markeredgewidth": 0.7}
    stand_for(axes.plot(places, y, marker, zorder=3, **faces), rows)


def _codec_entry(codec: str) -> Artist:
    """Return the legend entry of a codec: its mark, hollow if dynamic, and its line of second moments."""
    label, line = _SECOND[codec]
    marker, face = "" if codec == "linear" else "o", "white" if codec == "dynamic-unsigned" else palette.GREY
    return Line2D([], [], color=palette.GREY, marker=marker, markerfacecolor=face, linestyle=line, label=label)


def _names(axes: Axes, names: list[str]) -> None:
    """Write names along the x axis, one a place."""
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
