"""Runs that differ in what no column of a table tells: figures and claims would take them for one setting."""

import json
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.names import BESIDES, FIGURES
from coolbits.study.measurements import Measured
from coolbits.study.recipes.results import WHOLE_SCHEDULES
from coolbits.study.recipes.training import Cooldown
from coolbits.study.schema import Study
from coolbits.study.track import Track
from coolbits.study.units import three_digits

# Tables of measures that claims are judged on.
_JUDGED = ("loss", "tasks")
# Columns by which neither figures nor claims tell settings apart: names, seeds, and what follows from other columns.
NO_SETTING = {"run", "parameters", "seed", "data_seed", "branch_tokens", "source", "average", "window"}
# Fields of a recipe that may differ: seeds; what changes no weight; what columns say, rounded to three digits.
_FREE = {"seed", "data_seed", "log_steps", "telemetry", "schedule"}
_Fields = dict[str, Any]


def check_mixtures(study: Study, tracks: list[Track], measured: Measured) -> None:
    """Refuse trajectories in tables of figures or claims that only a field without a column tells apart.

    Raises:
        CoolbitsError: naming the run, or two, and the field.
    """
    tables = {table for choice in study.figures.values() for table in _tables(choice.figure)}
    tables.update(_JUDGED if study.claims else ())
    shown = {row.columns["trajectory"] for row in measured.rows if row.measure.kind in tables}
    first: dict[tuple[Any, ...], Track] = {}
    for track in tracks:
        if track.name in shown:
            known = first.setdefault(_setting(track), track)
            _check_alike(known, track)


def _tables(figure: str) -> tuple[str, ...]:
    return (*FIGURES[figure], *BESIDES.get(figure, ()))


def _setting(track: Track) -> tuple[Any, ...]:
    """Return all by which figures and claims tell the trajectory from others, seeds aside (`coolbits.rows`)."""
    columns = {name: value for name, value in track.columns.items() if name not in NO_SETTING}
    if isinstance(track.recipe.schedule, Cooldown):
        columns["schedule"] = "wsd"
    if columns["schedule"] in WHOLE_SCHEDULES:
        columns["decay_tokens"] = None
    for length in ("budget_tokens", "decay_tokens"):
        if columns[length] is not None:
            columns[length] = three_digits(columns[length])
    return tuple(sorted(columns.items()))


def _check_alike(one: Track, other: Track) -> None:
    if one.name == other.name:
        return
    first, second = _told_by_no_column(one), _told_by_no_column(other)
    for field in first | second:
        if (value := first.get(field)) != (differs := second.get(field)):
            run, second_run = one.columns["run"], other.columns["run"]
            place = f" in runs.{second_run}" if second_run != run else ""
            raise CoolbitsError(
                f"runs.{run}.{field}: is {_said(value)}, and {_said(differs)}{place}, which no column of the tables "
                "tells apart, so that figures and claims would take both for one setting; give each value a study of "
                "its own, or leave `figures` and `claims` out"
            )


def _told_by_no_column(track: Track) -> _Fields:
    """Return the fields that make a setting and have no column, in the study's words, the model's own last."""
    recipe = track.recipe.model_dump(mode="json", exclude=_FREE | {"model"})
    # Their label has codec, block size and smallest tensor.
    recipe["optimizer"].pop("states")
    warmup = {"schedule.warmup": three_digits(track.recipe.schedule.warmup_steps * track.recipe.batch_tokens)}
    return warmup | _flat(recipe) | _flat({"model": {"config": track.recipe.model.config}})


def _flat(fields: _Fields, above: str = "") -> _Fields:
    flat: _Fields = {}
    for key, value in fields.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _said(value: Any) -> str:
    """Return a value as the study file has it."""
    if value is None or isinstance(value, str):
        return value or "the default"
    return f"{value:,}" if type(value) is int else json.dumps(value)
