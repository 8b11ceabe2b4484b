"""What figures share before drawing: options, the choice of rows, what readers call them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from coolbits import settings
from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.names import OPTIONS
from coolbits.figures.palette import Look, optimizer_color, told_apart, variant_look
from coolbits.rows import of_quantizer, quantizers
from coolbits.settings import VARIANT
from coolbits.study.optimizer_names import display_name

Tables = Mapping[str, pd.DataFrame]
Options = Mapping[str, Any]


def check_options(figure: str, options: Options) -> None:
    """Refuse an option that the figure does not know.

    Raises:
        CoolbitsError: naming it and those allowed.
    """
    for name in options:
        if name not in OPTIONS[figure]:
            raise CoolbitsError(f"figure {figure}: no option {name!r}; it takes {', '.join(OPTIONS[figure]) or 'none'}")


def names_in(option: str | Sequence[str]) -> list[str]:
    """Return the names that an option holds: one, or several."""
    return [option] if isinstance(option, str) else list(option)


def chosen_quantizers(figure: str, table: pd.DataFrame, options: Options, most: int) -> list[str]:
    """Return the quantizers to draw: `options["quantizers"]`, or the best of the table, at most `most`.

    Raises:
        CoolbitsError: if the table has no quantized model, or not the one asked for.
    """
    asked = names_in(options.get("quantizers") or quantizers(table)[:most])
    if not asked:
        raise CoolbitsError(f"figure {figure}: the study's table has no quantized model; add `quantizers` to the study")
    if len(asked) > most:
        raise CoolbitsError(f"figure {figure}: {len(asked)} quantizers asked for; it shows at most {most}")
    for name in asked:
        of_quantizer(table, name)
    return asked


def of_quantizers(figure: str, table: pd.DataFrame, options: Options, most: int = 1) -> list[pd.DataFrame]:
    """Return the rows of each quantizer to draw, as the figure's option `quantizers` says.

    Column `called` has its name where another of the table has its method and bits, as GPTQ without rotation; else "".

    Raises:
        CoolbitsError: for an unknown option, or a quantizer that the table lacks.
    """
    check_options(figure, options)
    kinds = table.groupby(["method", "bits"]).quantizer.nunique()
    chosen = [of_quantizer(table, name) for name in chosen_quantizers(figure, table, options, most)]
    return [rows.assign(called=rows.quantizer if kinds[_kind(rows)] > 1 else "") for rows in chosen]


def asked_for(figure: str, table: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return the rows of the options `model`, a preset, `optimizers`, names, and `peak_lr`; all without these.

    Raises:
        CoolbitsError: if the table has no such rows.
    """
    if "model" in options:
        table = demand(figure, table[table.model == options["model"]], f"model {options['model']!r}")
    if "optimizers" in options:
        table = of_optimizers(figure, table, names_in(options["optimizers"]))
    if "peak_lr" in options:
        table = demand(figure, table[table.peak_lr == options["peak_lr"]], f"run at peak rate {options['peak_lr']}")
    return table


def of_optimizers(figure: str, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows of optimizers called so, as in `Muon-32`.

    Raises:
        CoolbitsError: if the table has none.
    """
    return demand(figure, settings.of_optimizers(table, names), f"run of {' or '.join(names)}")


def demand(figure: str, rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return `rows`, or say what the study lacks.

    Raises:
        CoolbitsError: if there are none.
    """
    if rows.empty:
        raise CoolbitsError(f"figure {figure}: the study has no {what}; add them to its runs, averages or evaluations")
    return rows


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one accuracy a task, `acc` before all others, those of models without a number included.

    A metric of which no model has a relative drop is no accuracy, or one that leaves full precision no error.
    """
    known = table[table.groupby(["task", "metric"]).relative_drop.transform("count") > 0]
    return known[known.metric == known.groupby("task").metric.transform("min")]


def of_one_measure(rows: pd.DataFrame) -> pd.DataFrame:
    """Return of each task the rows of one measure: the one that has most of them, of several the first."""
    if "measure" not in rows:
        return rows
    most = rows.groupby("task").measure.agg(lambda names: Counter(names).most_common(1)[0][0])
    return rows[rows.measure == rows.task.map(most)]


def quantizer_label(rows: pd.DataFrame) -> str:
    """Return what a reader calls the rows' quantizer: `3-bit GPTQ`, and its name where that does not tell it."""
    method, bits = _kind(rows)
    name = rows.called.iloc[0] if "called" in rows else ""
    return f"{bits}-bit {method.upper()}" + (f" ({name})" if name else "")


def _kind(rows: pd.DataFrame) -> tuple[str, int]:
    """Return method and bits of the rows' quantizer."""
    return rows.method.iloc[0], rows.bits.iloc[0]


def rate_label(rate: float) -> str:
    """Return a learning rate as short text: `0.003`, or `3e-05`."""
    return f"{rate:g}"


def variant_looks(rows: pd.DataFrame) -> dict[tuple[str, str], Look]:
    """Return the looks of the rows' variants, optimizer and states: by optimizer, 32-bit states first."""
    variants = sorted(set(zip(*(rows[name] for name in VARIANT), strict=True)))
    kinds = [kind for kind, _ in variants]
    looks = [
        variant_look(display_name(kind, states), optimizer_color(kind, kinds), states) for kind, states in variants
    ]
    return dict(zip(variants, told_apart(looks), strict=True))


def of_variant(rows: pd.DataFrame, variant: tuple[str, str]) -> pd.DataFrame:
    """Return the rows of one variant, optimizer and states."""
    return rows[(rows.optimizer == variant[0]) & (rows.states == variant[1])]
