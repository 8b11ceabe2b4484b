"""What each quantizer costs a pretrained model: held-out loss, and accuracy where the study asks tasks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from coolbits.figures import drawing, style
from coolbits.figures.marks import stand_for
from coolbits.figures.selection import Options, Tables, check_options, demand, fallback_note
from coolbits.figures.style import Look
from coolbits.study.units import si

NAME = "quantizers"
_LINEAR = 1.0  # percent: errors below, which may be negative, are drawn to scale, those above by their logarithm
_MEAN = Look("mean of the tasks", "black", "|", "")


def draw(tables: Tables, options: Options) -> Figure:
    """Draw a column of panels a model, a line a quantizer: relative error of the loss, and accuracy drop by task."""
    errors, drops = _errors(tables, options), _drops(tables, options)
    models, names = list(dict.fromkeys(errors.run)), list(dict.fromkeys(errors.quantizer))
    kinds = 1 if drops is None else 2
    columns, rows = (kinds, 1) if len(models) == 1 else (len(models), kinds)
    figure, panels = style.panels(columns, rows=rows, height=rows * (0.7 + 0.17 * len(names)))
    for place, model in enumerate(models):
        panel = panels[place]
        _loss(panel, errors[errors.run == model], names)
        if len(models) > 1:
            panel.set_title(model)
        if drops is not None:
            _accuracy(panels[place + len(models)], drops[drops.run == model], names, _looks(drops))
    for number, panel in enumerate(panels):
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.axvline(0, color=style.GREY, linewidth=0.7)
        panel.tick_params(labelleft=number % columns == 0)
    looks = [] if drops is None else [*_looks(drops).values(), _MEAN]
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
    parts = [
        f"What each quantizer costs: {named}.",
        f"Relative quantization error of the cross-entropy on {int(errors.documents.max())} held-out documents, "
        f"CE(q) / CE - 1, to scale below {_LINEAR:g} % and logarithmic above; bars: {confidence} bootstrap interval "
        "over documents, base and quantized model paired.",
    ]
    if drops is not None:
        sizes = ", ".join(f"{task} {int(count)}" for task, count in drops.groupby("task").samples.max().items())
        parts.append(f"Relative accuracy drop (acc - acc_q) / (1 - acc) by task and its mean. Samples: {sizes}.")
    parts[-1] += fallback_note(errors if drops is None else pd.concat([errors, drops]))
    if lost := sorted(set(errors[errors.relative_error.isna()].quantizer)):
        parts.append(f"No mark, since the loss is not finite: {', '.join(lost)}.")
    return " ".join([*parts, f"{scale}."])


def _errors(tables: Tables, options: Options) -> pd.DataFrame:
    check_options(NAME, options)
    return _chosen(demand(NAME, tables["loss"], "loss evaluations"), options)


def _drops(tables: Tables, options: Options) -> pd.DataFrame | None:
    """Return the rows of accuracies, if the study asks tasks."""
    if "tasks" not in tables:
        return None
    table = tables["tasks"]
    return _chosen(table[(table.metric == "acc") & table.relative_drop.notna()], options)


def _chosen(table: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return the quantized forms of the models of the option `runs`, by default all pretrained ones."""
    rows = table[(table.quantizer != "none") & table.final.astype(bool)]
    rows = rows[rows.run.isin(options["runs"])] if "runs" in options else rows[rows.source == "pretrained"]
    rows = rows[rows.quantizer.isin(options["quantizers"])] if "quantizers" in options else rows
    return demand(NAME, rows, "quantized pretrained model")


def _looks(drops: pd.DataFrame) -> dict[str, Look]:
    return {task: style.nth_look(str(task), place) for place, task in enumerate(dict.fromkeys(drops.task))}


def _loss(panel: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    for place, name in enumerate(names):
        own = rows[rows.quantizer == name]
        panel.hlines([place] * len(own), 100 * own.relative_low, 100 * own.relative_high, color="black", linewidth=1.1)
        fallen = drawing.fell_back(own)
        for part, face in ((own[~fallen], "black"), (own[fallen], "white")):
            mark = panel.plot(100 * part.relative_error, [place] * len(part), "ok", markerfacecolor=face, zorder=3)
            stand_for(mark, part)
    panel.set_xscale("symlog", linthresh=_LINEAR)
    panel.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=_LINEAR))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    panel.set_xlabel(style.ERROR)


def _accuracy(panel: Axes, rows: pd.DataFrame, names: list[str], looks: dict[str, Look]) -> None:
    for place, name in enumerate(names):
        own = rows[rows.quantizer == name]
        for task, of_task in own.groupby("task"):
            look, drop = looks[str(task)], of_task.relative_drop.mean()
            face = "white" if drawing.fell_back(of_task).any() else look.color
            mark = panel.plot(100 * drop, place, look.marker, color=look.color, markerfacecolor=face, alpha=0.8)
            stand_for(mark, of_task, together=True)
        mean = 100 * own.relative_drop.mean()
        mark = panel.plot(mean, place, _MEAN.marker, color=_MEAN.color, markersize=9, zorder=3)
        stand_for(mark, own, together=True)
    panel.set_xlabel("Relative accuracy drop (%)")
