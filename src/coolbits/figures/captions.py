"""Sentences that captions share: the setting, n, intervals, measures, tasks, fallbacks."""

from collections.abc import Callable

import pandas as pd

from coolbits.figures.drawing import fell_back
from coolbits.figures.selection import quantizer_label, rate_label
from coolbits.rows import DECAY, of_each_model
from coolbits.settings import SETTING
from coolbits.study.optimizer_names import display_name

_HORIZON = ("schedule", "budget_tokens", *DECAY)


def setting_label(rows: pd.DataFrame, varied: str = "") -> str:
    """Return the setting of the rows in words, for a caption, without the column that varies."""
    setting = rows.iloc[0]
    optimizer = display_name(setting["optimizer"], setting["states"]).removesuffix("-32")
    numbers = {"peak_lr": f"peak rate {rate_label(setting['peak_lr'])}"}
    numbers["weight_decay"] = f"weight decay {setting['weight_decay']:g}"
    return ", ".join([setting["model"], optimizer, *(text for name, text in numbers.items() if name != varied)])


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
