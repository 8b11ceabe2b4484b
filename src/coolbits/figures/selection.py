"""What figures share before drawing: options, the choice of quantizer, words for captions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from coolbits import settings
from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.drawing import fell_back
from coolbits.figures.names import OPTIONS
from coolbits.figures.palette import Look, optimizer_color, told_apart, variant_look
from coolbits.rows import DECAY, of_each_model, of_quantizer, quantizers
from coolbits.settings import SETTING, VARIANT
from coolbits.study.optimizer_names import display_name

Tables = Mapping[str, pd.DataFrame]
Options = Mapping[str, Any]
_HORIZON = ("schedule", "budget_tokens", *DECAY)


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

    Raises:
        CoolbitsError: for an unknown option, or a quantizer that the table lacks.
    """
    check_options(figure, options)
    return [of_quantizer(table, name) for name in chosen_quantizers(figure, table, options, most)]


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
    """Return what a reader calls the rows' quantizer: `3-bit GPTQ`."""
    row = rows.iloc[0]
    return f"{row.bits}-bit {str(row.method).upper()}"


def rate_label(rate: float) -> str:
    """Return a learning rate as short text: `0.003`, or `3e-05`."""
    return f"{rate:g}"


def setting_label(rows: pd.DataFrame, varied: str = "") -> str:
    """Return the setting of the rows in words, for a caption, without the column that varies."""
    setting = rows.iloc[0]
    optimizer = display_name(setting["optimizer"], setting["states"]).removesuffix("-32")
    numbers = {"peak_lr": f"peak rate {rate_label(setting['peak_lr'])}"}
    numbers["weight_decay"] = f"weight decay {setting['weight_decay']:g}"
    return ", ".join([setting["model"], optimizer, *(text for name, text in numbers.items() if name != varied)])


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


def evidence(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return the caption's account of n, of the intervals shown and of marks a reader must know."""
    scored = rows[rows.outcome != "diverged"]
    seeds, models = rows.seed.nunique(), len(of_each_model(scored))
    confidence = f"{100 * table.attrs.get('confidence', 0.95):g} %"
    units = "the samples of each task" if "task" in rows else documents(rows)
    interval = f"{confidence} bootstrap interval over {'samples' if 'task' in rows else 'documents'}"
    sentences = [f"n = {models} models from {seeds} seed{'s' * (seeds > 1)}, scored on {units}."]
    fewest, most = _seeds_of_means(scored)
    if most > 1:
        several = f"{most}" if fewest == most else f"{fewest} to {most}"
        alone = f"; bands and bars, where there is one: {interval}" if fewest == 1 else ""
        orders = ", each the mean over its orders of the data" if _has_orders(scored) else ""
        sentences.append(
            f"Thick lines and large marks: mean over {several} seeds; thin lines and small marks: single seeds{orders}"
            f"{alone}."
        )
    else:
        orders = ", and the mean over its orders of the data" if _has_orders(scored) else ""
        sentences.append(
            f"Bands and bars: {interval}, base and quantized model paired; one seed{' each' * (seeds > 1)}{orders}, so "
            "no spread over seeds is shown."
        )
    if (rows.outcome == "diverged").any():
        sentences.append("Crosses: where a run diverged.")
    if lost := len(of_each_model(scored[scored["relative_drop" if "task" in rows else "relative_error"].isna()])):
        sentences.append(f"No marks of the quantized form of {lost} of the models: its scores are not finite.")
    return " ".join(sentences) + ("" if "task" in rows else measure_note(rows, table)) + fallback_note(rows)


def documents(rows: pd.DataFrame) -> str:
    """Say on how many documents models were scored."""
    counts = sorted({int(rows.documents.min()), int(rows.documents.max())})
    return f"{' to '.join(map(str, counts))} held-out documents"


def measure_note(rows: pd.DataFrame, table: pd.DataFrame, name: Callable[[pd.DataFrame], str] = quantizer_label) -> str:
    """Return what a caption says of the measures drawn, as a sentence after a space; nothing if the table has but one.

    `name` says what the rows of one measure are, where several are drawn: of quantizers, which may have one each.
    """
    if "measure" not in table or table.measure.nunique() < 2:
        return ""
    drawn = {measure: name(rows[rows.measure == measure]) for measure in dict.fromkeys(rows.measure)}
    if len(drawn) > 1:
        named = " and ".join(f"{measure} ({what})" for measure, what in drawn.items())
        return f" Measured by the evaluations {named}, which do not compare."
    others = ", ".join(measure for measure in dict.fromkeys(table.measure) if measure not in drawn)
    return f" Measured by the evaluation {next(iter(drawn))}; numbers of {others} do not compare with these."


def _seeds_of_means(scored: pd.DataFrame) -> tuple[int, int]:
    """Return over how many seeds the means of a figure are, at least and at most; `scored` models have numbers.

    A line is the mean of the seeds of its setting, a large mark that of those that came to it.
    """
    ends = scored[scored.final.astype(bool) | (scored.source == "average")]
    alike = [*SETTING, *_HORIZON, "source", "average", "window"]
    counts = [
        scored.groupby(alike, dropna=False).seed.nunique(),
        ends.groupby([*alike, "tokens"], dropna=False).seed.nunique(),
    ]
    every = pd.concat(counts)
    return (int(every.min()), int(every.max())) if len(every) else (1, 1)


def _has_orders(scored: pd.DataFrame) -> bool:
    """Return whether runs of one seed, alike in all else, read the data in several orders."""
    if "data_seed" not in scored:
        return False
    ends = scored[scored.final.astype(bool) & (scored.source == "checkpoint")]
    return bool((ends.groupby([*SETTING, *_HORIZON, "seed"], dropna=False).data_seed.nunique() > 1).any())


def tasks_note(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return what a caption says of tasks: their accuracies and samples, and requests longer than the model's context.

    And of those that the table has by several measures, which one is drawn.
    """
    tasks, metrics = rows.groupby("task"), rows.groupby("metric").task.unique()
    of_tasks = [f"{metric} of {', '.join(names)}" for metric, names in metrics.items()]
    taken = "; ".join(of_tasks) if len(metrics) > 1 else rows.metric.iloc[0]
    sizes = ", ".join(f"{task} {int(count)}" for task, count in tasks.samples.max().items())
    counts = tasks[["cut_requests", "requests"]].max().itertuples()
    cut = ", ".join(f"{task} {lost:,} of {made:,}" for task, lost, made in counts if lost)
    sentences = [f"Accuracy: {taken}. Samples: {sizes}."]
    if "measure" in table:
        asked = table[table.task.isin(rows.task)].groupby("task").measure.nunique()
        several = rows[rows.task.map(asked) > 1].groupby("task").measure.unique()
        drawn = ", ".join(f"{task} by {' and '.join(names)}" for task, names in several.items())
        sentences += [f"Of several evaluations of a task one is drawn: {drawn}."] * bool(drawn)
    sentences += [f"Requests longer than the model's context lost their beginning: {cut}."] * bool(cut)
    return " ".join(sentences)


def fallback_note(rows: pd.DataFrame) -> str:
    """Return what a caption says of hollow marks, as a sentence after a space; nothing if no model has a fallback."""
    if not fell_back(rows).any():
        return ""
    return " Hollow marks: in at least one module the quantizer fell back to another method."
