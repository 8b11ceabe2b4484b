"""What each quantizer costs a pretrained model: held-out loss, and accuracy where the study asks tasks."""

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from coolbits.figures import drawing, palette, style
from coolbits.figures.captions import documents, fallback_note, measure_note, tasks_note
from coolbits.figures.marks import stand_for
from coolbits.figures.palette import Look
from coolbits.figures.selection import (
    Options,
    Tables,
    accuracies,
    check_options,
    demand,
    of_one_measure,
)
from coolbits.rows import by_measure
from coolbits.study.units import si

NAME = "quantizers"
_LINEAR = 1.0  # percent: errors below, which may be negative, are drawn to scale, those above by their logarithm
_MEAN = Look("mean of the tasks", "black", "|", "")
_ROW, _TASK_ROW = 0.17, 0.065  # inches of a quantizer's row, of each task in it
_ABOVE, _PAGE = 0.85, 9.2  # inches around the rows of a panel, of a page
_COLUMNS = 2  # panels side by side: names and numbers need the width
_EDGE = "0.85"
_LEAST_MARK = 1.8  # points: of a task among many
_SPREAD = 0.8  # of a row, over which its tasks stand


def draw(tables: Tables, options: Options) -> Figure:
    """Draw panels of each model, a line a quantizer: relative error of the loss, and accuracy drop by task."""
    errors, drops = _errors(tables, options), _drops(tables, options)
    models, names = list(dict.fromkeys(errors.run)), list(dict.fromkeys(errors.quantizer))
    kinds = 1 if drops is None else 2
    tasks = {} if drops is None else _looks(drops)
    columns = min(_COLUMNS, kinds * len(models))
    rows = ceil(kinds * len(models) / columns)
    tall = _row_height(len(tasks), len(names), rows)
    figure, panels = style.panels(columns, rows=rows, height=rows * (_ABOVE + len(names) * tall))
    for place, model in enumerate(models):
        loss, *accuracy = _of_model(panels, place, kinds, len(models))
        loss.set_title(model)
        _loss(loss, errors[errors.run == model], names, _wide(errors))
        if drops is not None:
            _accuracy(accuracy[0], drops[drops.run == model], names, tasks, tall)
            accuracy[0].set_title(model if len(models) != _COLUMNS else "")
    for spare in panels[kinds * len(models) :]:
        spare.remove()
    for number, panel in enumerate(panels[: kinds * len(models)]):
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(labelleft=number % columns == 0)
        panel.grid(visible=False, axis="y")
        for edge in range(len(names) - 1):
            panel.axhline(edge + 0.5, color=_EDGE, linewidth=0.5)
    looks = [*tasks.values(), _MEAN] if tasks else []
    hollow = drawing.fallback_entry(errors if drops is None else pd.concat([errors, drops]))
    if looks or hollow:
        style.legend(
            figure, [*drawing.handles([Look(each.label, each.color, each.marker, "") for each in looks]), *hollow]
        )
    return figure


def caption(tables: Tables, options: Options, scale: str) -> str:
    """Say what is seen, n, intervals and scale, and what has no mark."""
    errors, drops = _errors(tables, options), _drops(tables, options)
    models = errors.drop_duplicates("run")
    named = ", ".join(
        f"{run} ({si(parameters)} parameters, {si(tokens)} tokens)"
        for run, parameters, tokens in zip(models.run, models.parameters, models.tokens, strict=True)
    )
    confidence = f"{100 * tables['loss'].attrs.get('confidence', 0.95):g} %"
    scaled = f", to scale below {_LINEAR:g} % (shaded) and logarithmic above" if _wide(errors) else ""
    parts = [
        f"What each quantizer costs: {named}.",
        f"Relative quantization error of the cross-entropy on {documents(errors)}, "
        f"CE(q) / CE - 1{scaled}; bars: {confidence} bootstrap interval over documents, base and quantized model "
        "paired.",
    ]
    if drops is not None:
        parts.append(
            "Relative accuracy drop (acc - acc_q) / (1 - acc) by task, bars: the same over samples; and its mean, of "
            f"quantizers that have all. {tasks_note(drops, tables['tasks'])}"
        )
    parts[1] += measure_note(errors, tables["loss"], lambda own: ", ".join(dict.fromkeys(own.run)))
    parts[-1] += fallback_note(errors if drops is None else pd.concat([errors, drops]))
    if lost := sorted(set(errors[errors.relative_error.isna()].quantizer)):
        parts.append(f"No mark, since the loss is not finite: {', '.join(lost)}.")
    if drops is not None and (silent := drops[drops.relative_drop.isna()]).size:
        tasks = silent.groupby("quantizer").task.unique()
        named = ", ".join(f"{name} ({', '.join(own)})" for name, own in tasks.items())
        parts.append(f"No accuracy drop, since scores are not finite: {named}.")
    return " ".join([*parts, f"{scale}."])


def _errors(tables: Tables, options: Options) -> pd.DataFrame:
    """Return the rows of losses, of each model those of one measure: the one that has most of them."""
    check_options(NAME, options)
    rows = _chosen(demand(NAME, tables["loss"], "loss evaluations"), options)
    models = demand(NAME, rows, "quantized pretrained model").groupby("run", sort=False)
    return pd.concat([max(by_measure(own).values(), key=len) for _, own in models])


def _drops(tables: Tables, options: Options) -> pd.DataFrame | None:
    """Return the rows of accuracies, if the study asks tasks; of a model without an error there is none to lose."""
    if "tasks" not in tables:
        return None
    table = tables["tasks"]
    rows = accuracies(table)
    models = _chosen(rows[rows.outcome == "complete"], options).groupby("run", sort=False)
    return pd.concat([of_one_measure(own) for _, own in models]) if len(models) else None


def _chosen(table: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return the quantized forms of the models of the option `runs`, by default all pretrained ones."""
    rows = table[(table.quantizer != "none") & table.final.astype(bool)]
    rows = rows[rows.run.isin(options["runs"])] if "runs" in options else rows[rows.source == "pretrained"]
    return rows[rows.quantizer.isin(options["quantizers"])] if "quantizers" in options else rows


def _of_model(panels: Sequence[Axes], place: int, kinds: int, models: int) -> Sequence[Axes]:
    """Return the panels of a model: two models stand side by side, their kinds below each other, others in turn."""
    return panels[place::models] if models == _COLUMNS else panels[place * kinds : (place + 1) * kinds]


def _looks(drops: pd.DataFrame) -> dict[str, Look]:
    return {task: palette.nth_look(str(task), place) for place, task in enumerate(dict.fromkeys(drops.task))}


def _wide(errors: pd.DataFrame) -> bool:
    """Whether some error is beyond those drawn to scale, so that the axis has a logarithmic part."""
    return bool((100 * errors.relative_error.abs() > _LINEAR).any())


def _loss(panel: Axes, rows: pd.DataFrame, names: list[str], wide: bool) -> None:
    for place, name in enumerate(names):
        own = rows[rows.quantizer == name]
        panel.hlines([place] * len(own), 100 * own.relative_low, 100 * own.relative_high, color="black", linewidth=1.1)
        fallen = drawing.fell_back(own)
        for part, face in ((own[~fallen], "black"), (own[fallen], "white")):
            mark = panel.plot(100 * part.relative_error, [place] * len(part), "ok", markerfacecolor=face, zorder=3)
            stand_for(mark, part)
    if not wide:
        panel.axvline(0, color=palette.GREY, linewidth=0.7)
        panel.set_xlabel(style.ERROR)
        return
    panel.set_xscale("symlog", linthresh=_LINEAR)
    panel.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=_LINEAR))
    panel.xaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=_LINEAR, subs=range(2, 10)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    panel.axvline(0, color=palette.GREY, linewidth=0.7)
    limits = panel.get_xlim()
    panel.axvspan(-_LINEAR, _LINEAR, color=_EDGE, alpha=0.4, linewidth=0, zorder=0)
    panel.set(xlim=limits)
    panel.set_xlabel(f"{style.ERROR},\nlogarithmic above {_LINEAR:g}")  # beside long names the panel is narrow


def _row_height(tasks: int, quantizers: int, rows: int) -> float:
    """Return the inches of a quantizer's row, in which so many tasks stand above each other.

    Tasks stand closer where as many quantizers in so many rows of panels would not fit on a page.
    """
    return max(_ROW, min(_TASK_ROW * tasks, (_PAGE / rows - _ABOVE) / quantizers))


def _accuracy(panel: Axes, rows: pd.DataFrame, names: list[str], looks: dict[str, Look], height: float) -> None:
    """Draw the drops of each quantizer, in rows of so many inches, and their mean."""
    tall = _SPREAD * 72 * height
    size = max(_LEAST_MARK, min(mpl.rcParams["lines.markersize"], tall / len(looks)))
    for place, name in enumerate(names):
        own = rows[rows.quantizer == name]
        if own[own.relative_drop.notna()].task.nunique() == rows.task.nunique():  # of fewer it would be another mean
            mark = panel.plot(100 * own.relative_drop.mean(), place, _MEAN.marker, color=_MEAN.color, markersize=tall)
            stand_for(mark, own, together=True)
        for number, (task, look) in enumerate(looks.items()):
            _drop(panel, own[own.task == task], place + _SPREAD * ((number + 0.5) / len(looks) - 0.5), look, size)
    panel.axvline(0, color=palette.GREY, linewidth=0.7, zorder=1)
    panel.set_xlabel("Relative accuracy drop (%)")


def _drop(panel: Axes, rows: pd.DataFrame, height: float, look: Look, size: float) -> None:
    """Draw the drop of one task, a mark of this size, and its interval."""
    if rows.empty:
        return
    panel.hlines(height, 100 * rows.relative_drop_low, 100 * rows.relative_drop_high, color=look.color, linewidth=0.9)
    face = "white" if drawing.fell_back(rows).any() else look.color
    mark_style = {"color": look.color, "markerfacecolor": face, "markersize": size}
    mark = panel.plot(100 * rows.relative_drop.mean(), height, look.marker, **mark_style)
    stand_for(mark, rows, together=True)
