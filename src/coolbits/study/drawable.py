"""Whether the rows that a study plans can fill its figures, told before anything runs.

A figure selects rows by the columns that describe them, all of which the plan knows. Each is asked here for the rows
that it would find if no run diverged: without those it cannot be drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node
from coolbits.figures.names import FIGURES
from coolbits.rows import quantizers, runs, trunks
from coolbits.settings import HORIZON, SETTING, main_rows, of_optimizers
from coolbits.study.optimizer_names import display_name
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS, VISION_COLUMNS
from coolbits.study.schema import Study

Options = Mapping[str, Any]
# What a figure looks for, one thing after the other, and what the study lacks if it is empty.
Wanted = Iterator[tuple[Sized, str]]
_Wants = Callable[[pd.DataFrame, Options], Wanted]
_TYPES = TRAJECTORY_COLUMNS | MODEL_COLUMNS | VISION_COLUMNS
_DECAY = "a run with a decay (wsd, or cooldowns of a constant run)"


def check_drawable(study: Study, results: Iterable[Node]) -> None:
    """Refuse figures for which a study plans no rows; `results` are its tables, among others.

    Raises:
        CoolbitsError: naming the figure and what the study lacks, or its option that asks for too much.
    """
    recipes = {node.name.rpartition("/")[2]: node.recipe for node in results if node.kind == "table"}
    for name, choice in study.figures.items():
        table, *_ = FIGURES[choice.figure]
        if wants := _WANTS.get(choice.figure):
            try:
                _check(choice.figure, table, wants(_planned(recipes[table]), choice.options))
            except CoolbitsError as error:
                raise CoolbitsError(f"figures.{name}{error}") from None


def _check(figure: str, table: str, wanted: Wanted) -> None:
    for found, what in wanted:
        if not len(found):
            raise CoolbitsError(
                f": {figure} needs {what}, and the study's table {table!r} will have none; add it to runs, averages, "
                "quantizers or evaluations, or leave the figure out"
            )


def _planned(recipe: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of a table as they will be described."""
    table = pd.DataFrame([row["columns"] for row in recipe["rows"]])
    return table.astype({name: kind for name, kind in _TYPES.items() if name in table})


def _quantized(wants: _Wants, most: int = 1) -> _Wants:
    """Return what is wanted of the rows of each quantizer shown: those asked for, or the first of the table."""

    def wanted(table: pd.DataFrame, options: Options) -> Wanted:
        asked = _names(options.get("quantizers") or quantizers(table)[:most])
        yield asked, "a quantized model"
        if len(asked) > most:
            raise CoolbitsError(f".options.quantizers: {len(asked)} of them, but the figure shows at most {most}")
        for name in asked:
            own = table[table.quantizer == name]
            yield own, f"a model quantized by {name!r}"
            yield from wants(own, options)

    return wanted


def _tokens(table: pd.DataFrame, options: Options) -> Wanted:
    yield from _quantized(_decay, most=2)(table, options)
    yield (
        trunks(table),
        "a checkpoint of a constant-rate trunk (evaluations of every checkpoint, not of the final ones)",
    )


def _decay(own: pd.DataFrame, _options: Options) -> Wanted:
    yield main_rows(own, every_decay=True), _DECAY


def _swept(column: str, one: str) -> _Wants:
    """Return what is wanted of runs that differ in `column`, of which `one` is a value in words."""

    def wanted(own: pd.DataFrame, options: Options) -> Wanted:
        if name := options.get("optimizer"):
            own = of_optimizers(own, [name])
            yield own, f"a run of {name}"
        whole = runs(own)
        whole = whole[whole.schedule == "wsd"]
        yield whole, _DECAY
        alike = [name for name in (*SETTING, *HORIZON) if name not in (column, "schedule")]
        yield _several(whole, alike, column), f"a second {one}, with a decay of equal budget and length"

    return wanted


def _schedules(own: pd.DataFrame, _options: Options) -> Wanted:
    whole = runs(own)
    yield whole[whole.schedule == "cosine"], "a run with a cosine schedule"
    yield whole[whole.schedule == "wsd"], _DECAY
    yield (
        _several(whole, list(SETTING), "schedule"),
        "a second schedule in a setting (model, optimizer, peak rate, ...)",
    )


def _averages(own: pd.DataFrame, _options: Options) -> Wanted:
    kept = main_rows(own)
    yield kept, _DECAY
    yield kept[kept.source == "average"], "an average (lawa, soup, ema or merge) of the trunk with most decays"


def _variants(own: pd.DataFrame, options: Options) -> Wanted:
    if "model" in options:
        own = own[own.model == options["model"]]
        yield own, f"a model {options['model']!r}"
    if "optimizers" in options:
        own = of_optimizers(own, _names(options["optimizers"]))
        yield own, "a run of the optimizers in its options"
    if "peak_lr" in options:
        own = own[own.peak_lr == options["peak_lr"]]
        yield own, f"a run at peak rate {options['peak_lr']}"
    last = runs(own)
    last = last[last.final.astype(bool)]
    last = last.assign(variant=last.optimizer + "-" + last.states)
    what = "a second optimizer, or precision of states, with equal model, schedule and budget"
    yield _several(last, ["model", *HORIZON], "variant"), what


def _full_precision(table: pd.DataFrame, options: Options) -> Wanted:
    return _variants(table[table.quantizer == "none"], options)


def _quantizers(table: pd.DataFrame, options: Options) -> Wanted:
    own = table[(table.quantizer != "none") & table.final.astype(bool)]
    asked = "runs" in options
    own = own[own.run.isin(_names(options["runs"]))] if asked else own[own.source == "pretrained"]
    yield own, "a quantized model of the runs in its options" if asked else "a quantized pretrained model"
    if "quantizers" in options:
        yield own[own.quantizer.isin(_names(options["quantizers"]))], "a model of the quantizers in its options"


def _curvature(table: pd.DataFrame, options: Options) -> Wanted:
    return _decay(table[table.quantizer == "none"], options)


def _landscape(own: pd.DataFrame, options: Options) -> Wanted:
    yield own[own.run.isin(_names(options.get("runs", own.run)))], "a model of the runs in its options"


def _vision(table: pd.DataFrame, options: Options) -> Wanted:
    for key in ("model", "images"):
        table = table[table[key] == options.get(key, table[key])]
        yield table, f"a training with {key} {options.get(key)!r}"


def _finetuning(table: pd.DataFrame, options: Options) -> Wanted:
    for run in _names(options.get("run", [])):
        yield table[table.run == run], f"a fine-tuning {run!r}"


def _telemetry(table: pd.DataFrame, options: Options) -> Wanted:
    table = table[table.run.isin(_names(options.get("runs", table.run)))]
    yield table, "a run with telemetry among those in its options"
    shown = {display_name(kind, states) for kind, states in zip(table.optimizer, table.states, strict=True)}
    yield shown.intersection(_names(options.get("optimizers") or shown)), "a run of the optimizers in its options"


def _several(table: pd.DataFrame, alike: list[str], name: str) -> Sized:
    """Return the groups of rows that agree in the columns `alike` and have several values in the column `name`."""
    counts = table.groupby(alike, dropna=False)[name].nunique()
    return counts[counts > 1]


def _names(option: str | Iterable[str]) -> list[str]:
    return [option] if isinstance(option, str) else list(option)


_WANTS: dict[str, _Wants] = {
    "tokens": _tokens,
    "peak-rate": _quantized(_swept("peak_lr", "peak learning rate")),
    "weight-decay": _quantized(_swept("weight_decay", "weight decay")),
    "schedules": _quantized(_schedules),
    "averages": _quantized(_averages),
    "optimizers": _quantized(_variants),
    "norms": _full_precision,
    "states": _full_precision,
    "tasks": _quantized(_decay),
    "quantizers": _quantizers,
    "curvature": _curvature,
    "prediction": _quantized(_decay, most=2),
    "landscape": _quantized(_landscape),
    "vision": _vision,
    "finetuning": _finetuning,
    "telemetry": _telemetry,
    "telemetry-layers": _telemetry,
}
