"""Hollow marks are models with a fallback, and nothing else, in every figure of quantized models."""

from collections.abc import Callable

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coolbits.figures.names import FIGURES
from coolbits.figures.registry import plot
from coolbits.figures.style import theme

SENTENCE = "Hollow marks: in at least one module the quantizer fell back to another method."
ENTRY = "with a fallback"
# Those drawn from quantized models and the tables of `make_tables`; the others show none, or have tables of their own.
ELSEWHERE = ("states", "norms", "quantizers")
NAMES = [name for name, tables in FIGURES.items() if tables[0] in ("loss", "tasks") and name not in ELSEWHERE]
Tables = dict[str, pd.DataFrame]


@pytest.fixture(params=[1, 3], ids=["one seed", "three seeds"])
def fallen(request: pytest.FixtureRequest, make_tables: Callable[[int], Tables]) -> Callable[[int], Tables]:
    """Return a function that gives all tables, every quantized model with so many fallbacks."""

    def tables(fallbacks: int) -> Tables:
        own = make_tables(request.param)
        scored = {name: own[name].copy() for name in ("loss", "tasks")}
        for table in scored.values():
            table["fallbacks"] = fallbacks * (table.quantizer != "none")
        return own | scored

    return tables


def drawn(name: str, tables: Tables) -> Figure:
    with theme():
        return plot(name).draw(tables, {})


def entries(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_fallback_nothing_is_hollow(
    name: str, fallen: Callable[[int], Tables], hollow_in: Callable[[Axes], int]
) -> None:
    figure = drawn(name, fallen(0))
    assert sum(hollow_in(panel) for panel in figure.axes) == 0
    assert ENTRY not in entries(figure)
    assert "ollow" not in plot(name).caption(fallen(0), {}, "tiny")


@pytest.mark.parametrize("name", NAMES)
def test_with_fallbacks_marks_are_hollow_and_legend_and_caption_say_why(
    name: str, fallen: Callable[[int], Tables], hollow_in: Callable[[Axes], int]
) -> None:
    figure = drawn(name, fallen(1))
    assert sum(hollow_in(panel) for panel in figure.axes) > 0
    assert ENTRY in entries(figure)
    assert SENTENCE in plot(name).caption(fallen(1), {}, "tiny")


def test_of_tasks_only_the_quantized_model_is_hollow_and_only_where_it_fell_back(
    fallen: Callable[[int], Tables], hollow_in: Callable[[Axes], int]
) -> None:
    tables = fallen(0)
    tables["tasks"].loc[tables["tasks"].average == "lawa", "fallbacks"] = 1
    accuracy, drop = drawn("tasks", tables).axes
    assert (hollow_in(accuracy), hollow_in(drop)) == (3, 3)  # a mark a task
    ticks = [line for line in accuracy.lines if line.get_marker() == "|"]
    assert len(ticks) == 12  # full precision: of each kind of model and task, fallback or not


def test_a_fallback_of_the_second_quantizer_is_said_too(fallen: Callable[[int], Tables]) -> None:
    tables, both = fallen(0), {"quantizers": ["gptq-w3", "gptq-w4"]}
    tables["loss"].loc[tables["loss"].quantizer == "gptq-w4", "fallbacks"] = 1
    with theme():
        figure = plot("tokens").draw(tables, both)
    assert ENTRY in entries(figure)
    assert SENTENCE in plot("tokens").caption(tables, both, "tiny")
