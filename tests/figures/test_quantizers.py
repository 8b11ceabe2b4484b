"""The figure of pretrained models: a line a quantizer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.plots import quantizers
from coolbits.figures.style import theme
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

ERRORS = {"rtn-w3": 0.5, "gptq-w3": 0.12, "w8a8": -0.001, "rtn-w2": 400.0}


def row(run: str, quantizer: str, **measured: Any) -> dict[str, Any]:
    """Return a row of a pretrained model: null in every column but those that a study knows."""
    columns: dict[str, Any] = dict.fromkeys((*TRAJECTORY_COLUMNS, *MODEL_COLUMNS))
    columns |= {"run": run, "model": run, "parameters": 134_515_008, "tokens": 2 * 10**12, "source": "pretrained"}
    return columns | {"final": True, "quantizer": quantizer, "outcome": "complete", **measured}


def losses(*runs: str) -> pd.DataFrame:
    full = {"relative_error": 0.0, "relative_low": 0.0, "relative_high": 0.0, "fallbacks": 0, "documents": 60}
    rows = [row(run, "none", **full) for run in runs]
    for run in runs:
        for name, error in ERRORS.items():
            bounds = {"relative_low": error - 0.1 * abs(error), "relative_high": error + 0.1 * abs(error)}
            rows.append(row(run, name, **full | {"relative_error": error} | bounds))
    return pd.DataFrame(rows)


def tasks(*runs: str) -> pd.DataFrame:
    return pd.DataFrame(
        row(run, name, task=task, metric=metric, samples=200, requests=800, cut_requests=0, fallbacks=0, **bounds(drop))
        for run in runs
        for name in ERRORS
        for task, metric, drop in (("piqa", "acc", 0.2), ("sciq", "acc", -0.05), ("piqa", "acc_norm", 0.9))
    )


def bounds(drop: float) -> dict[str, float]:
    return {"relative_drop": drop, "relative_drop_low": drop - 0.1, "relative_drop_high": drop + 0.15}


def panels(tables: dict[str, pd.DataFrame], **options: Any) -> list[Any]:
    with theme():
        return quantizers.draw(tables, options).axes


def marks(panel: Any) -> list[tuple[float, float]]:
    """Return where the round marks are."""
    lines = [line for line in panel.lines if line.get_marker() == "o"]
    return sorted((y, x) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_one_model_has_a_line_a_quantizer_in_the_order_of_the_study() -> None:
    (panel,) = panels({"loss": losses("smol")})
    assert [label.get_text() for label in panel.get_yticklabels()] == list(ERRORS)
    assert marks(panel) == [(place, pytest.approx(100 * error)) for place, error in enumerate(ERRORS.values())]


def test_tasks_stand_beside_the_loss_where_the_study_asks_them() -> None:
    (_, drop) = panels({"loss": losses("smol"), "tasks": tasks("smol")})
    assert marks(drop) == [(pytest.approx(place - 0.2), pytest.approx(20)) for place in range(len(ERRORS))]
    means = [line.get_xdata()[0] for line in drop.lines if line.get_marker() == "|"]
    assert means == [pytest.approx(7.5)] * len(ERRORS)


@pytest.mark.parametrize(("models", "asked", "most"), [(1, 4, 5), (1, 12, 9.3), (6, 12, 21)])
def test_many_quantizers_models_and_tasks_take_a_page_or_as_little_as_lines_can(
    models: int, asked: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ERRORS", {f"gptq-{place}": 0.1 for place in range(15)})
    runs = [f"model-{place}" for place in range(models)]
    rows = tasks(*runs)
    several = [rows[rows.task == "sciq"].assign(task=f"task-{place}") for place in range(asked)]
    with theme():
        figure = quantizers.draw({"loss": losses(*runs), "tasks": pd.concat(several, ignore_index=True)}, {})
    assert 0.8 * most < figure.get_figheight() <= most


def test_tasks_of_a_quantizer_stand_above_each_other_in_its_row_with_their_intervals() -> None:
    (_, drop) = panels({"loss": losses("smol"), "tasks": tasks("smol")})
    bars = [segment.tolist() for bar in drop.collections for segment in bar.get_segments()]
    assert len(bars) == 2 * len(ERRORS)
    for place in range(len(ERRORS)):
        for middle, height in ((20, place - 0.2), (-5, place + 0.2)):
            assert [pytest.approx([middle - 10, height]), pytest.approx([middle + 15, height])] in bars
    assert "by task, bars: the same over samples" in quantizers.caption(
        {"loss": losses("smol"), "tasks": tasks("smol")}, {}, "tiny"
    )


def test_where_the_axis_turns_logarithmic_is_to_be_seen() -> None:
    (panel,) = panels({"loss": losses("smol")})
    assert panel.get_xlabel() == "Quantization error (%),\nlogarithmic above 1"
    (shade,) = panel.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (-1, 1)
    assert -1 < panel.get_xlim()[0] < -0.11  # errors are there, and the shade moves no limit
    minor = panel.xaxis.get_minorticklocs()
    assert {2, 9, 20, 90} <= set(minor.round(6)) and not ((minor > 0.1) & (minor < 1)).any()


def test_a_quantizer_that_fell_back_is_hollow_in_both_panels(hollow_in: Callable[[Any], int]) -> None:
    tables = {"loss": losses("smol"), "tasks": tasks("smol")}
    for table in tables.values():
        table.loc[table.quantizer == "gptq-w3", "fallbacks"] = 1
    with theme():
        figure = quantizers.draw(tables, {})
    assert [hollow_in(panel) for panel in figure.axes] == [1, 2]  # its loss, its two tasks
    assert figure.legends[0].get_texts()[-1].get_text() == "with a fallback"
    assert "the quantizer fell back to another method." in quantizers.caption(tables, {}, "tiny")


def test_of_several_measures_each_model_has_one_mark_a_quantizer_and_a_task() -> None:
    """Losses on other windows and tasks with other shots, of one model both, of another one alone."""
    loss = pd.concat([losses("smol").assign(measure="short"), losses("smol", "other").assign(measure="long")])
    short = loss.measure == "short"
    loss = loss.assign(
        scored_tokens=np.where(short, 9, 99),
        documents=np.where(short, 6, 60),
        relative_error=loss.relative_error + short,
    )
    asked = pd.concat([tasks("smol").assign(measure="few"), tasks("smol", "other").assign(measure="none")])
    asked = asked.assign(relative_drop=asked.relative_drop + 0.5 * (asked.measure == "none"))
    both, alone = {"loss": loss, "tasks": asked}, {"loss": losses("smol", "other"), "tasks": tasks("smol", "other")}
    drawn = [[marks(panel) for panel in panels(tables)] for tables in (both, alone)]
    assert drawn[0][:2] == drawn[1][:2]  # the measure of more tokens
    assert [len(marked) for marked in drawn[0]] == [len(marked) for marked in drawn[1]]
    text = quantizers.caption(both, {}, "tiny")
    assert "on 60 held-out documents" in text and "paired. Measured by the evaluation long; numbers of short do" in text
    assert "Of several evaluations of a task one is drawn: piqa by few and none, sciq by few and none." in text
    assert "Accuracy: acc. Samples: piqa 200, sciq 200." in text


def test_models_with_a_measure_each_are_named_with_it() -> None:
    own = losses("smol", "other")
    own = own.assign(measure=own.run, scored_tokens=9, documents=np.where(own.run == "smol", 6, 60))
    text = quantizers.caption({"loss": own}, {}, "tiny")
    assert "on 6 to 60 held-out documents" in text
    assert "evaluations smol (smol) and other (other), which do not compare." in text


def test_each_model_has_a_column() -> None:
    found = panels({"loss": losses("smol", "other"), "tasks": tasks("smol", "other")})
    assert len(found) == 4
    assert [panel.get_title() for panel in found] == ["smol", "other", "", ""]
    assert [panel.get_title() for panel in panels({"loss": losses("smol"), "tasks": tasks("smol")})] == ["smol"] * 2


def test_options_choose_models_and_quantizers() -> None:
    (panel,) = panels({"loss": losses("smol", "other")}, runs=["other"], quantizers=["rtn-w3", "w8a8"])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["rtn-w3", "w8a8"]
    with pytest.raises(CoolbitsError, match="figure quantizers: the study has no quantized pretrained model"):
        panels({"loss": losses("smol")}, runs=["none"])
    with pytest.raises(CoolbitsError, match="figure quantizers: no option 'colour'"):
        panels({"loss": losses("smol")}, colour="red")


def test_the_caption_says_n_intervals_and_what_has_no_mark() -> None:
    table = losses("smol")
    table.loc[table.quantizer == "rtn-w2", ["relative_error", "relative_low", "relative_high"]] = float("nan")
    text = quantizers.caption({"loss": table, "tasks": tasks("smol")}, {}, "tiny")
    for part in ("smol (135M parameters, 2T tokens)", "60 held-out documents", "95 % bootstrap", "piqa 200, sciq 200"):
        assert part in text
    assert "not finite: rtn-w2." in text and text.endswith("tiny.")
    assert "Hollow" not in text and "beginning" not in text


def test_where_a_task_has_no_number_no_mean_is_drawn_and_the_caption_says_so() -> None:
    table = tasks("smol")
    lost = (table.quantizer == "rtn-w2") | ((table.quantizer == "rtn-w3") & (table.task == "piqa"))
    table.loc[lost, [*bounds(0.0)]] = float("nan")
    tables = {"loss": losses("smol"), "tasks": table}
    (_, drop) = panels(tables)
    assert [line.get_ydata()[0] for line in drop.lines if line.get_marker() == "|"] == [1, 2]  # gptq-w3 and w8a8
    assert [text.get_text() for text in drop.figure.legends[0].get_texts()][:2] == ["piqa", "sciq"]
    text = quantizers.caption(tables, {}, "tiny")
    assert "and its mean, of quantizers that have all." in text
    assert "No accuracy drop, since scores are not finite: rtn-w2 (piqa, sciq), rtn-w3 (piqa). tiny." in text
    assert "No accuracy drop" not in quantizers.caption({"loss": losses("smol"), "tasks": tasks("smol")}, {}, "tiny")


def test_a_task_without_a_plain_accuracy_is_shown_by_the_one_that_it_has() -> None:
    table = tasks("smol")
    table["metric"] = table.metric.mask(table.task == "sciq", "exact_match")
    (_, drop) = panels({"loss": losses("smol"), "tasks": table})
    assert [text.get_text() for text in drop.figure.legends[0].get_texts()][:2] == ["piqa", "sciq"]
    assert marks(drop) == [(pytest.approx(place - 0.2), pytest.approx(20)) for place in range(len(ERRORS))]


def test_labels_of_panels_beside_long_names_do_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    long = {f"{name}-asymmetric-actorder-group-of-128-columns": error for name, error in ERRORS.items()}
    monkeypatch.setitem(globals(), "ERRORS", long)
    figure = panels({"loss": losses("smol", "other"), "tasks": tasks("smol", "other")})[0].figure
    figure.draw_without_rendering()
    left, right = (panel.xaxis.label.get_window_extent() for panel in figure.axes[:2])
    assert left.x1 < right.x0 and right.x1 <= figure.bbox.width


def test_the_caption_says_which_tasks_did_not_fit_the_context() -> None:
    asked = tasks("smol")
    cut = asked.assign(cut_requests=asked.cut_requests.mask(asked.task == "sciq", 792))
    text = quantizers.caption({"loss": losses("smol"), "tasks": cut}, {}, "tiny")
    assert "sciq 200. Requests longer than the model's context lost their beginning: sciq 792 of 800. tiny." in text


def test_errors_of_less_than_a_percent_have_an_ordinary_axis() -> None:
    table = losses("smol")
    small = {"relative_error": table.relative_error.clip(-0.002, 0.004)}
    table = table.assign(**small, relative_low=small["relative_error"], relative_high=small["relative_error"])
    (panel,) = panels({"loss": table})
    assert panel.get_xscale() == "linear" and panel.get_xlabel() == "Quantization error (%)"
    assert "logarithmic" not in quantizers.caption({"loss": table}, {}, "SCALE")
    assert "logarithmic above;" in quantizers.caption({"loss": losses("smol")}, {}, "SCALE")


@pytest.mark.parametrize("asked", [False, True])
def test_many_models_stand_in_rows_of_two_panels_each_with_its_letter_and_name(asked: bool) -> None:
    names = ("SmolLM2-1.7B-Instruct", "Qwen3-0.6B-Base", "Llama-3.2-3B-Instruct", "OLMo-2-0425-1B", "phi-4")
    drawn = panels({"loss": losses(*names)} | ({"tasks": tasks(*names)} if asked else {}))
    assert [panel.get_title("left") for panel in drawn] == list("abcdefghij"[: len(drawn)])
    assert [panel.get_title() for panel in drawn] == [name for name in names for _ in range(1 + asked)]
    figure = drawn[0].figure
    figure.draw_without_rendering()
    labels = [panel.xaxis.label.get_window_extent() for panel in drawn]
    assert all(left.x1 < right.x0 for left, right in zip(labels[::2], labels[1::2], strict=False))
