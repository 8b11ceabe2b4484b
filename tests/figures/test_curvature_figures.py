"""Tables and figures of curvature, prediction and landscape: artifacts made into rows, rows into pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from PIL import Image

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures import curvature_table
from coolbits.figures.measurements import Measurement
from coolbits.figures.registry import plot
from coolbits.figures.stage import build_figure
from coolbits.figures.style import DOUBLE, theme
from coolbits.study.recipes.results import Figure

SCALE = "micro: 0.2M parameters, 12M tokens, 3 seeds"
NAMES = ("curvature", "prediction", "landscape")
Tables = dict[str, pd.DataFrame]
_READERS: dict[str, tuple[Callable[..., pd.DataFrame], str, str]] = {
    "curvature": (curvature_table.curvatures, "eigenvalues.parquet", "eigenvalue"),
    "prediction": (curvature_table.predictions, "modules.parquet", "module_quadratic"),
    "landscape": (curvature_table.landscapes, "grid.parquet", "grid_loss"),
}


def _curvature(losses: pd.DataFrame) -> pd.DataFrame:
    rows = losses[losses.quantizer == "none"]
    sharp = 40 * rows.relative_error + 0.05 / rows.peak_lr + rows.tokens / 1e7
    own = rows.assign(trace=100 * sharp, trace_error=sharp, probes=10.0, top_eigenvalue=sharp, weights=262_144.0)
    ranked = [own.assign(rank=rank, eigenvalue=own.top_eigenvalue / rank, residual=0.01) for rank in (1, 2, 3)]
    table = pd.concat(ranked, ignore_index=True).astype({"rank": "Int64"})
    lost = table.outcome == "diverged"
    table.loc[lost, ["rank", "eigenvalue", "residual", "trace", "trace_error", "top_eigenvalue"]] = np.nan
    return table[~lost | ~table.duplicated(["trajectory", "step"])]


def _prediction(losses: pd.DataFrame) -> pd.DataFrame:
    rows = losses[losses.quantizer != "none"]
    increase = rows.absolute_error.where(rows.outcome == "complete")
    own = rows.assign(increase=increase, predicted=0.9 * increase, squared_norm=50.0 / rows.bits)
    own = own.assign(curvature=2 * own.predicted / own.squared_norm, random=5 * own.predicted)
    return pd.concat([own.assign(module=name) for name in ("layers.0", "layers.1")], ignore_index=True)


def _landscape(losses: pd.DataFrame) -> pd.DataFrame:
    rows = losses[(losses.quantizer == "gptq-w3") & (losses.phase == "decay") & (losses.source == "checkpoint")]
    frames = []
    for _, row in rows.iterrows():
        far = 400 * row.peak_lr
        x, y = (each.ravel() for each in np.meshgrid(*2 * [np.linspace(-far / 2, 1.5 * far, 5)]))
        grid = pd.DataFrame([row] * len(x)).reset_index(drop=True)
        frames.append(grid.assign(x=x, y=y, grid_loss=row.loss + (x**2 + 0.1 * y**2) / far))
    frames.append(pd.DataFrame([row]).assign(outcome="diverged", x=np.nan, y=np.nan, trajectory="lost"))
    places = {"previous_distance": 1.0, "quantized_distance": 1.0, "cosine": 0.01}
    return pd.concat(frames, ignore_index=True).astype(losses.dtypes.to_dict()).assign(**places)


_MAKERS = {"curvature": _curvature, "prediction": _prediction, "landscape": _landscape}


@pytest.fixture(scope="module")
def own(make_tables: Callable[[int], Tables]) -> Tables:
    """Tables of the three measures, of a study with one seed."""
    return {name: make(make_tables(1)["loss"]) for name, make in _MAKERS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_as_wide_as_a_page_and_says_its_scale(
    name: str, make_tables: Callable[[int], Tables], tmp_path: Path
) -> None:
    _MAKERS[name](make_tables(3)["loss"]).to_parquet(tmp_path / "table.parquet")
    build_figure(Figure(figure=name, scale=SCALE), {name: tmp_path / "table.parquet"}, "0" * 64, tmp_path)
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width == pytest.approx(DOUBLE * 300, abs=2)
    caption = (tmp_path / "caption.txt").read_text().strip()
    assert caption.endswith(f"{SCALE}.") and "n = " in caption and "nan" not in caption


@pytest.mark.parametrize("name", NAMES)
def test_text_is_at_least_seven_points(name: str, own: Tables) -> None:
    with theme():
        figure = plot(name).draw(own, {})
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(name: str, own: Tables) -> None:
    with pytest.raises(CoolbitsError, match="no option 'colour'"):
        plot(name).draw(own, {"colour": "red"})
    lacking = own[name][own[name].outcome == "diverged"]
    lacking = lacking if name == "landscape" else own[name][own[name].schedule == "cosine"]
    with pytest.raises(CoolbitsError, match=f"figure {name}: the study has no"):
        plot(name).draw({name: lacking}, {})


def test_rates_are_a_second_row_of_panels_only_if_there_are_several(own: Tables) -> None:
    table = own["curvature"]
    assert len(plot("curvature").draw(own, {}).axes) == 6
    assert len(plot("curvature").draw({"curvature": table[table.peak_lr == 1e-2]}, {}).axes) == 3


def test_averages_have_a_curve_beside_the_trunks_and_no_part_in_its_spectrum(own: Tables) -> None:
    table = own["curvature"].query("peak_lr == 0.01")
    flat = table.assign(
        **{name: table[name].where(table.average != "lawa", 0.5) for name in ("top_eigenvalue", "trace")}
    )
    flat["eigenvalue"] = flat.eigenvalue.where(flat.average != "lawa", 0.5)
    # Averages first: they have the trajectory and the step of the checkpoint that they end with.
    shown = {"curvature": flat.sort_values("source", kind="stable")}
    with theme():
        sharpness, trace, spectrum = plot("curvature").draw(shown, {}).axes
    for panel in (sharpness, trace):
        assert [0.5] * 4 in [list(line.get_ydata()) for line in panel.lines]  # an average at each of four checkpoints
    assert all(0.5 not in line.get_ydata() for line in spectrum.lines)
    assert "and averages of weights" in plot("curvature").caption(shown, {}, SCALE)
    alone = {"curvature": table[table.source == "checkpoint"]}
    assert "averages" not in plot("curvature").caption(alone, {}, SCALE)


@pytest.mark.parametrize("name", NAMES)
def test_of_two_measures_one_is_drawn_and_named(name: str, own: Tables) -> None:
    """That of most models: here the other has ends alone, whose numbers are twice as large."""
    table = own[name].assign(measure="wide")
    ends = table[table.final.astype(bool) & (table.budget_tokens == 6_000_000)].assign(measure="narrow")
    numbers = [
        column for column in ("eigenvalue", "top_eigenvalue", "trace", "increase", "grid_loss") if column in ends
    ]
    ends = ends.assign(**{column: 2 * ends[column] for column in numbers})
    both = {name: pd.concat([ends, table], ignore_index=True)}
    with theme():
        drawn = [_drawn(plot(name).draw(each, {})) for each in (both, {name: table})]
    assert np.array_equal(*drawn)
    said = " Measured by the evaluation wide; numbers of narrow do not compare with these."
    captions = [plot(name).caption(each, {}, SCALE) for each in (both, {name: table})]
    assert captions[0].replace(said, "") == captions[1] and said in captions[0]


def test_a_prediction_is_drawn_once_a_model_whatever_its_modules(own: Tables) -> None:
    scatter = plot("prediction").draw(own, {"quantizers": ["gptq-w3"]}).axes[0]
    rows = own["prediction"].query("quantizer == 'gptq-w3' and increase > 0")
    shown = rows[rows.schedule != "linear"].drop_duplicates(["trajectory", "step", "source", "average", "window"])
    marks = [line for line in scatter.lines if line.get_linestyle() == "None" or line.get_marker() not in ("None", "")]
    assert sum(len(line.get_xdata()) for line in marks) == len(shown)
    caption = plot("prediction").caption(own, {"quantizers": ["gptq-w3"]}, SCALE)
    assert "measured over predicted: 1.11 (1.11 to 1.11" in caption


def _panels(figure: Canvas) -> list[Axes]:
    return [panel for panel in figure.axes if panel.get_title("right") != ""]


def test_landscapes_are_in_the_order_of_rates_and_of_one_seed(own: Tables) -> None:
    titles = [panel.get_title("right") for panel in _panels(plot("landscape").draw(own, {}))]
    assert titles == [f"rate {rate}, 6M tokens" for rate in ("0.003", "0.01", "0.03")]
    assert "of one seed" in plot("landscape").caption(own, {}, SCALE)


def test_landscapes_of_chosen_runs_say_the_schedule_where_all_have_one_rate(own: Tables) -> None:
    titles = [panel.get_title("right") for panel in _panels(plot("landscape").draw(own, {"runs": "trunk"}))]
    assert titles == [f"cooldown, {tokens}M tokens" for tokens in (3.6, 6, 8.4, 10.8)]
    assert "n = 4 models of one seed. " in plot("landscape").caption(own, {"runs": ["trunk"]}, SCALE)
    with pytest.raises(CoolbitsError, match="figure landscape: the study has no"):
        plot("landscape").draw(own, {"runs": ["soup"]})


def test_a_caption_says_how_many_landscapes_have_no_panel(own: Tables) -> None:
    one_rate = own["landscape"].query("outcome == 'complete'").assign(peak_lr=0.01)
    others = one_rate.trajectory.nunique() - 6
    caption = plot("landscape").caption({"landscape": one_rate}, {}, SCALE)
    assert f"n = 6 models of one seed ({others} more left out)." in caption


def test_a_landscape_fills_its_panel_whatever_its_extent(own: Tables) -> None:
    table = own["landscape"].query("run == 'rates' and seed == 0 and optimizer + states == 'adamw32' and final")
    spans = table.groupby("peak_lr").x.agg(["min", "max"])
    limits = [panel.get_xlim() for panel in _panels(plot("landscape").draw(own, {}))]
    rates = (3e-3, 1e-2, 3e-2)
    assert limits[0] == tuple(spans.loc[rates[0]]) and limits[2] == tuple(spans.loc[rates[2]])
    assert len(set(limits)) == len(rates)
    assert "each on axes of its own" in plot("landscape").caption(own, {}, SCALE)


def test_landscapes_of_one_extent_have_equal_axes(own: Tables) -> None:
    table = own["landscape"]
    places = table[["x", "y"]].mul(1e-2 / table.peak_lr, axis=0).round(9)
    alike = {"landscape": table.assign(**places)}
    panels = _panels(plot("landscape").draw(alike, {}))
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in panels}) == 1
    assert "equal axes" in plot("landscape").caption(alike, {}, SCALE)


@pytest.mark.parametrize("name", ["prediction", "landscape"])
@pytest.mark.parametrize("fallbacks", [0, 1])
def test_hollow_is_what_fell_back_and_nothing_else(
    name: str, fallbacks: int, own: Tables, hollow_in: Callable[[Axes], int]
) -> None:
    tables = {name: own[name].assign(fallbacks=fallbacks)}
    with theme():
        figure = plot(name).draw(tables, {})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    caption = plot(name).caption(tables, {}, SCALE)
    hollow = [hollow_in(panel) for panel in (figure.axes if name == "prediction" else _panels(figure))]
    assert all(count > 0 for count in hollow) if fallbacks else sum(hollow) == 0
    assert ("with a fallback" in labels) == ("fell back to another method" in caption) == bool(fallbacks)


def test_two_quantizers_are_told_apart_by_the_size_of_their_marks(own: Tables) -> None:
    with theme():
        figure = plot("prediction").draw(own, {"quantizers": ["gptq-w3", "gptq-w4"]})
    sizes = {line.get_label(): line.get_markersize() for line in figure.legends[0].legend_handles}
    assert sizes["3-bit GPTQ"] > sizes["4-bit GPTQ"]
    marked = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    assert {line.get_markersize() for line in marked} == {sizes["3-bit GPTQ"], sizes["4-bit GPTQ"]}
    assert "(large and small marks)" in plot("prediction").caption(own, {"quantizers": ["gptq-w3", "gptq-w4"]}, SCALE)


def _measurement(place: Path, summary: dict[str, Any], **other: Any) -> Measurement:
    fields = {"base": None, "fallbacks": 1, "outcome": "complete", "diverged_step": None}
    return Measurement(place, summary=summary, **(fields | other))


@pytest.mark.parametrize("kind", NAMES)
def test_artifacts_become_rows_beside_what_belongs_to_the_model(kind: str, tmp_path: Path) -> None:
    read, file, column = _READERS[kind]
    frames = {
        "curvature": {"rank": [1, 2], "value": [3.0, 2.0], "residual": [0.1, 0.2]},
        "prediction": {
            "module": ["a", "b"],
            "weights": [1, 2],
            "squared_norm": [1.0, 2.0],
            "linear": [0.1, 0.2],
            "quadratic": [3.0, 2.0],
        },
        "landscape": {"x": [0.0, 1.0], "y": [0.0, 1.0], "loss": [3.0, 2.0]},
    }
    pd.DataFrame(frames[kind]).to_parquet(tmp_path / file)
    summary = {"loss": 2.5, "quantized_loss": None, "trace": 7.0}
    lost = _measurement(tmp_path, {}, outcome="diverged", diverged_step=70)
    table = read([_measurement(tmp_path, summary), lost])
    assert table["row"].tolist() == [0, 0, 1]
    assert table[column].tolist()[:2] == [3.0, 2.0] and np.isnan(table[column][2])
    assert table.loss.tolist()[:2] == [2.5, 2.5]
    assert table.outcome.tolist() == ["complete", "complete", "diverged"]
    assert table.diverged_step[2] == 70 and table.fallbacks.tolist() == [1, 1, 1]
    if kind != "curvature":
        assert table.quantized_loss.isna().all() and table.quantized_loss.dtype == "float64"
    (tmp_path / file).unlink()
    with pytest.raises(CoolbitsError, match=file):
        read([_measurement(tmp_path, summary)])


def test_a_diverged_run_has_a_cross_in_the_colour_of_its_rate_above_the_curves(own: Tables) -> None:
    with theme():
        figure = plot("curvature").draw(own, {})
    hottest = figure.legends[0].get_lines()[-2]
    assert hottest.get_label() == "peak rate 0.1"
    for panel in figure.axes[3:5]:
        (cross,) = [line for line in panel.lines if line.get_marker() == "x"]
        assert cross.get_color() == hottest.get_color()
        top = max(max(line.get_ydata()) for line in panel.lines if line is not cross and len(line.get_ydata()))
        height = cross.get_transform().transform(cross.get_xydata())[0, 1]
        assert height - panel.transData.transform((1e6, top))[1] > 2 * figure.dpi / 72


def test_the_caption_of_curvature_counts_models_that_have_one(own: Tables) -> None:
    table = own["curvature"].copy()
    lost = (table.branch_tokens == 9_600_000).fillna(False)
    table.loc[lost, ["rank", "eigenvalue", "trace", "trace_error", "top_eigenvalue"]] = np.nan
    table.loc[lost, ["outcome", "diverged_step"]] = ["diverged", 2400]
    counts = [
        int(plot("curvature").caption({"curvature": rows}, {}, SCALE).partition(" n = ")[2].partition(" ")[0])
        for rows in (own["curvature"], table[~lost | ~table.duplicated(["trajectory", "step"])])
    ]
    assert counts == [21, 19]


def test_numbers_below_zero_are_in_their_panels(own: Tables) -> None:
    """A trace may be negative early on, and so may the curvature along an error: no logarithm shows them."""
    table = own["curvature"]
    sunk = table.assign(trace=table.trace - 560, eigenvalue=table.eigenvalue.where(table["rank"] < 3, -1.0))
    with theme():
        curved = plot("curvature").draw({"curvature": sunk}, {}).axes
        table = own["prediction"]
        along = plot("prediction").draw({"prediction": table.assign(curvature=table.curvature - 0.011)}, {}).axes[2]
    for panel in (*(curved[place] for place in (1, 2, 4, 5)), along):
        lowest = min(min(line.get_ydata()) for line in panel.lines if len(line.get_ydata()))
        assert panel.get_yscale() == "linear" and panel.get_ylim()[0] < lowest < 0
    assert curved[0].get_ylim()[0] == 0 and curved[3].get_yscale() == "log"


def test_both_axes_of_a_prediction_have_the_unit(own: Tables) -> None:
    scatter = plot("prediction").draw(own, {}).axes[0]
    assert all("nats per token" in axis.get_label_text() for axis in (scatter.xaxis, scatter.yaxis))


@pytest.mark.parametrize("name", ["curvature", "prediction"])
def test_captions_say_what_thin_lines_are(name: str, make_tables: Callable[[int], Tables], own: Tables) -> None:
    thin = "3 seeds; thick lines: means, thin ones: single seeds."
    assert thin in plot(name).caption({name: _MAKERS[name](make_tables(3)["loss"])}, {}, SCALE)
    assert "thin ones" not in plot(name).caption(own, {}, SCALE)


@pytest.mark.parametrize("lost", [np.inf, np.nan])
def test_a_loss_that_overflowed_is_as_dark_as_it_gets(lost: float, own: Tables) -> None:
    table = own["landscape"]
    far = table.x == table.groupby("trajectory").x.transform("max")
    with theme():
        figure = plot("landscape").draw({"landscape": table.assign(grid_loss=table.grid_loss.mask(far, lost))}, {})
        figure.draw_without_rendering()
        pixels = np.asarray(_drawn(figure))
    panel = figure.axes[0]
    right, middle = panel.transAxes.transform((0.97, 0.3))
    assert tuple(pixels[len(pixels) - round(middle), round(right)][:3]) == (68, 1, 84)  # the darkest of viridis


def _drawn(figure: Canvas) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
