"""Marks: the points of a figure know the rows of the tables that they stand for, and no picture changes for it."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from coolbits.figures.marks import ROW, find_marks, gathered, number_rows, stand_for
from coolbits.figures.names import FIGURES
from coolbits.figures.registry import PLOTS
from coolbits.figures.style import theme

Tables = dict[str, pd.DataFrame]
SCORED = [
    name for name, tables in FIGURES.items() if tables[0] in ("loss", "tasks") and name not in ("quantizers", "norms")
]
POINTS_PER_INCH = 72


def _own(name: str, tables: Tables) -> Tables:
    return {role: tables[role] for role in FIGURES[name]}


def _drawn(name: str, tables: Tables) -> tuple[Figure, dict]:
    """Draw and lay out a figure of numbered rows; return it and its marks."""
    own = _own(name, tables)
    with theme():
        figure = PLOTS[name].draw(tables | number_rows(own), {})
        figure.draw_without_rendering()
        return figure, find_marks(figure, own)


@pytest.mark.parametrize("name", SCORED)
def test_numbering_the_rows_changes_no_picture(name: str, make_tables: Callable[[int], Tables]) -> None:
    tables, pictures = make_tables(3), []
    own = _own(name, tables)
    with theme():
        for rows in (tables, tables | number_rows(own)):
            figure, svg = PLOTS[name].draw(rows, {}), BytesIO()
            figure.savefig(svg, format="svg", metadata={"Date": None})
            pictures.append(svg.getvalue())
    assert pictures[0] == pictures[1]
    assert len(find_marks(figure, own)["marks"]) > 10


@pytest.mark.parametrize("name", ["tokens", "peak-rate", "schedules", "averages"])
def test_a_mark_stands_where_the_mean_of_its_rows_is(name: str, tables: Tables) -> None:
    figure, found = _drawn(name, tables)
    losses, checked = tables["loss"], 0
    for mark in found["marks"]:
        rows = losses.iloc[mark["rows"]["loss"]]
        if (rows.outcome == "diverged").any():
            continue  # a cross at the top of its panel
        pixels = np.array([mark["x"], found["height"] - mark["y"]]) * figure.dpi / POINTS_PER_INCH
        panel = next(axes for axes in figure.axes if axes.bbox.padded(2).contains(*pixels) and axes.lines)
        x, y = panel.transData.inverted().transform(pixels)
        assert np.isclose([rows.tokens.mean(), rows.base_loss.mean()], x, rtol=5e-3, atol=1e-2).any()
        heights = [rows.loss.mean(), rows.base_loss.mean(), 100 * rows.relative_error.mean()]
        assert np.isclose(heights, y, rtol=5e-3, atol=1e-2).any()
        assert rows.tokens.nunique() == 1 and rows.quantizer.nunique() == 1
        checked += 1
    assert checked > 30


def test_a_mark_is_on_the_picture(make_tables: Callable[[int], Tables]) -> None:
    _, found = _drawn("optimizers", make_tables(1))
    assert set(found["marks"][0]["rows"]) <= {"loss", "metrics"}
    assert {role for mark in found["marks"] for role in mark["rows"]} == {"loss", "metrics"}
    for mark in found["marks"]:
        assert 0 < mark["x"] < found["width"] and 0 < mark["y"] < found["height"] and mark["size"] >= 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
def test_a_number_leads_back_to_its_table_and_row(sizes: list[int], data: st.DataObject) -> None:
    tables = {str(place): pd.DataFrame({"x": range(size)}) for place, size in enumerate(sizes)}
    every = [(name, row) for name, table in tables.items() for row in range(len(table))]
    numbered = number_rows(tables)
    assert [number for table in numbered.values() for number in table[ROW]] == list(range(len(every)))
    if not every:
        return
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    rows = pd.concat([numbered[name][row : row + 1] for name, row in chosen])
    figure = Figure()
    stand_for(figure.subplots().plot([1.0], [1.0], "o"), rows, together=True)
    (mark,) = find_marks(figure, tables)["marks"]
    assert sorted((name, row) for name, found in mark["rows"].items() for row in found) == sorted(chosen)


def test_groups_means_and_bars_stand_for_all_of_their_rows() -> None:
    tables = {"loss": pd.DataFrame({"x": [1, 1, 2], "y": [0.0, 1.0, 2.0]})}
    rows = number_rows(tables)["loss"]
    means = rows.groupby("x", as_index=False).agg({"y": "mean", **gathered(rows)})
    for draw in (
        lambda axes: stand_for(axes.plot(means.x, means.y, "o"), means),
        lambda axes: stand_for(axes.plot(means.x, means.y, "o"), rows, by="x"),
        lambda axes: [stand_for(axes.bar(x, 2), own, together=True) for x, own in rows.groupby("x")],
    ):
        figure = Figure()
        draw(figure.subplots())
        assert [mark["rows"]["loss"] for mark in find_marks(figure, tables)["marks"]] == [[0, 1], [2]]


def test_a_line_without_marks_is_thinned_and_what_is_off_the_panel_left_out() -> None:
    tables = {"metrics": pd.DataFrame({"x": np.arange(1000.0)})}
    rows = number_rows(tables)["metrics"]
    figure = Figure()
    axes = figure.subplots()
    stand_for(axes.plot(rows.x, rows.x), rows)
    marks = find_marks(figure, tables)["marks"]
    assert len(marks) == 24 and marks[0]["rows"] == {"metrics": [0]} and marks[-1]["rows"] == {"metrics": [999]}
    axes.set_xlim(0, 499)
    assert len(find_marks(figure, tables)["marks"]) == 12


def test_rows_without_numbers_have_no_marks_and_a_wrong_count_is_an_error() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0]})
    figure = Figure()
    line = figure.subplots().plot(table.x, table.x, "o")
    stand_for(line, table)
    assert gathered(table) == {} and find_marks(figure, {"loss": table})["marks"] == []
    stand_for(line, number_rows({"loss": table})["loss"][:1])
    with pytest.raises(ValueError, match="2 points drawn for 1 rows"):
        find_marks(figure, {"loss": table})
