"""Figures can be read: labels do not touch, nothing is cut off or hides data, what differs looks different."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from coolbits.figures import palette, scales, style
from coolbits.figures.names import FIGURES
from coolbits.figures.plots import memory, states, tokens
from coolbits.figures.registry import plot
from coolbits.figures.style import theme

Tables = dict[str, pd.DataFrame]
OF_TRAINING = [name for name, tables in FIGURES.items() if tables[0] in ("loss", "tasks") and name != "quantizers"]


@pytest.fixture(autouse=True)
def _theme() -> Iterator[None]:
    with theme():
        yield


def labels(axis: Axis) -> list[Text]:
    """Return the labels of an axis that are drawn, but for slanted ones, whose boxes are wider than they."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    found = [
        label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible() and label.get_text()
    ]
    return [label for label in found if label.get_rotation() % 90 == 0]


def touching(texts: list[Text]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(one, other) for (one, own), (other, its) in combinations(boxes, 2) if Bbox.intersection(own, its)]


def cut_off(figure: Figure) -> list[str]:
    """Return the texts that stand out of the figure."""
    of_axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    ticks = {label for axis in of_axes for label in axis.get_ticklabels(which="both")}
    shown = [text for text in figure.findobj(Text) if text not in ticks] + [
        text for axis in of_axes for text in labels(axis)
    ]
    boxes = {
        text.get_text(): text.get_window_extent() for text in shown if text.get_visible() and text.get_text().strip()
    }
    whole = figure.bbox.padded(1)
    return [name for name, box in boxes.items() if not all(whole.contains(x, y) for x, y in box.corners())]


def drawn(name: str, tables: Tables, **options: Any) -> Figure:
    figure = plot(name).draw(tables, options)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("name", OF_TRAINING)
def test_no_labels_of_an_axis_touch_and_no_text_is_cut_off(name: str, make_tables: Callable[[int], Tables]) -> None:
    figure = drawn(name, make_tables(1))
    for panel in figure.axes:
        assert not touching(labels(panel.xaxis)) and not touching(labels(panel.yaxis))
    assert not cut_off(figure)


@pytest.mark.parametrize("decades", [0.05, 0.9, 2, 8, 15])
@pytest.mark.parametrize("low", [3e-9, 0.37])
def test_a_logarithmic_axis_has_labels_and_they_do_not_touch(low: float, decades: float) -> None:
    figure, (panel, *_) = style.panels(3)
    ends = (low, low * 10**decades)
    panel.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (panel.xaxis, panel.yaxis):
        scales.log_ticks(axis)
    figure.draw_without_rendering()
    for axis in (panel.xaxis, panel.yaxis):
        assert len(labels(axis)) >= 2 and not touching(labels(axis))


@pytest.mark.parametrize("last", [3e5, 3e8, 1e11, 1e13])
def test_tokens_from_the_first_step_to_the_last_can_be_read(last: float) -> None:
    figure, (panel, *_) = style.panels(3)
    panel.plot([2048, last], [1, 2])
    style.token_axis(panel, logarithmic=True)
    figure.draw_without_rendering()
    assert len(labels(panel.xaxis)) >= 3 and not touching(labels(panel.xaxis))


def test_marks_of_what_begins_late_are_whole() -> None:
    _, (panel, *_) = style.panels(3)
    panel.plot([9.5e9, 9.6e9], [1, 2], "o")
    style.token_axis(panel)
    assert panel.get_xlim() == (0, pytest.approx(1.02 * 9.6e9))


def test_the_word_over_a_short_decay_stands_above_its_panel(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    losses = tables["loss"].copy()
    inside = losses.branch_tokens.notna()
    losses.loc[inside, "branch_tokens"] = losses.budget_tokens[inside] - 100_000
    losses.loc[inside & (losses.phase == "decay") & ~losses.final.astype(bool), "tokens"] = 5_950_000
    figure = drawn("weight-decay", {"loss": losses})
    (word,) = [text for text in figure.axes[0].texts if text.get_text() == "decay"]
    assert word.get_window_extent().y0 >= figure.axes[0].bbox.y1 and not cut_off(figure)


def test_quantizers_of_one_kind_are_told_apart_by_their_names(make_tables: Callable[[int], Tables]) -> None:
    losses = make_tables(1)["loss"]
    rotated = losses[losses.quantizer == "gptq-w3"].assign(quantizer="rotated-gptq-w3")
    tables = {"loss": pd.concat([losses, rotated], ignore_index=True)}
    caption = tokens.caption(tables, {"quantizers": ["rotated-gptq-w3", "rtn-w3"]}, "tiny")
    assert "(3-bit GPTQ (rotated-gptq-w3) and 3-bit RTN)" in caption
    assert "(3-bit GPTQ and 3-bit RTN)" in tokens.caption({"loss": losses}, {"quantizers": ["gptq-w3", "rtn-w3"]}, "")
    for name in ("tokens", "averages", "peak-rate"):
        figure = drawn(name, tables, quantizers="rotated-gptq-w3")
        assert not cut_off(figure)
        for panel in figure.axes:
            title, letter = panel.title, panel._left_title
            assert not title.get_text() or title.get_window_extent().x0 > letter.get_window_extent().x1


def test_many_tasks_differ_in_colour_or_mark() -> None:
    looks = [palette.nth_look("", place) for place in range(24)]
    assert len({(look.color, look.marker) for look in looks}) == 24


def test_values_of_one_knob_differ_in_marks_too() -> None:
    looks = palette.swept([str(rate) for rate in range(6)])
    assert len({look.marker for look in looks}) == len({look.color for look in looks}) == 6


def test_two_variants_leave_the_label_of_the_loss_whole(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    losses = tables["loss"].copy()  # whole, since documents are found by place
    losses.loc[(losses.optimizer != "sgd") | (losses.source != "checkpoint"), "model"] = "another"
    figure = states.draw(tables | {"loss": losses}, {"model": "micro-neox"})
    figure.draw_without_rendering()
    assert len(figure.axes[0].get_yticks()) == 2 and not cut_off(figure)


def bars_of_memory(*cuts: tuple[str, str, int, float]) -> pd.DataFrame:
    rows = [
        {"model": model, "optimizer": optimizer, "parameters": size, "cut": cut, "place": "matrices"}
        | {"stored": "float32", "bytes": 2**30, "exempt_bytes": 0, "total_bytes": 2**30}
        for model, optimizer, size, cut in cuts
    ]
    return pd.DataFrame(rows)


def test_names_of_lines_above_half_do_not_overlap() -> None:
    sizes = (("a", 10**9), ("b", 3 * 10**9))
    cuts = [(model, name, size, cut) for model, size in sizes for name, cut in (("AdamW-8L", 0.75), ("Muon-8L", 0.62))]
    figure = memory.draw({"memory": bars_of_memory(*cuts)}, {})
    figure.draw_without_rendering()
    names = figure.axes[-1].texts
    assert {name.get_text() for name in names} == {"AdamW-8L", "Muon-8L"} and not touching(names)


def test_savings_of_one_model_are_not_drawn_by_size() -> None:
    table = bars_of_memory(("a", "AdamW-8L", 10**9, 0.75), ("a", "AdamW-32", 10**9, 0.0))
    assert len(memory.draw({"memory": table}, {}).axes) == 1
    assert "Last panel" not in memory.caption({"memory": table}, {}, "tiny")
