"""The figures of analyses, on tables that the analyses made."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from coolbits.analysis.memory import build_memory
from coolbits.analysis.rows import table
from coolbits.analysis.theory import random_rows
from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.registry import plot
from coolbits.figures.stage import build_figure
from coolbits.figures.style import DOUBLE, theme
from coolbits.models.presets import preset
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.analysis import Memory, Theory
from coolbits.study.recipes.results import Figure

SCALE = "micro: nothing is trained"
NAMES = ("memory", "theory")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Tables of two small models, and of small random matrices with a run's momentum made up from them."""
    out = tmp_path_factory.mktemp("memory")
    models = [{"name": name, "model": preset(name, 512, 64)} for name in ("micro-neox", "pythia-70m")]
    names = ("AdamW-32", "AdamW-8L", "Muon-32", "Muon-8L", "Muon-8L+AdamW-8L")
    optimizers = [{"name": name, "optimizer": optimizer_preset(name)} for name in names]
    build_memory(Memory(models=models, optimizers=optimizers), out)
    random = table(random_rows(Theory(rows=16, columns=32, seeds=2, block_size=64, adam_block_sizes=(64, 256))))
    run = random[random.step == 1].assign(source="muon", trajectory="t", optimizer="Muon-32", tensor="layer.0", step=9)
    return {"memory": pd.read_parquet(out / "table.parquet"), "theory": pd.concat([random, run], ignore_index=True)}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_as_wide_as_a_page_and_says_what_it_counts(
    name: str, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    source = tmp_path / "table.parquet"
    tables[name].to_parquet(source)
    out = tmp_path / "figure"
    out.mkdir()
    build_figure(Figure(figure=name, scale=SCALE), {name: source}, "0" * 64, out)
    with Image.open(out / f"{name}.png") as picture:
        assert picture.width == pytest.approx(DOUBLE * 300, abs=2)
    assert (out / "caption.txt").read_text().strip().endswith(f"{SCALE}.")


@pytest.mark.parametrize("name", NAMES)
def test_text_is_at_least_seven_points(name: str, tables: dict[str, pd.DataFrame]) -> None:
    with theme():
        figure = plot(name).draw(tables, {})
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name: str, tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(CoolbitsError, match="no option 'colour'"):
        plot(name).draw(tables, {"colour": "red"})


def test_bars_say_their_saving_and_models_can_be_chosen(tables: dict[str, pd.DataFrame]) -> None:
    figure = plot("memory").draw(tables, {"models": ["pythia-70m"], "optimizers": ["Muon-32", "Muon-8L"]})
    (bars,) = figure.axes
    row = tables["memory"].query("model == 'pythia-70m' and optimizer == 'Muon-8L'").iloc[0]
    assert [text.get_text() for text in bars.texts][1].endswith(f"−{100 * row.cut:.1f} %")
    with pytest.raises(CoolbitsError, match="gpt-9"):
        plot("memory").draw(tables, {"models": ["gpt-9"]})


def test_a_caption_says_how_many_models_have_no_panel(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["memory"]
    six = pd.concat([table[table.model == "micro-neox"].assign(model=name) for name in "abcdef"], ignore_index=True)
    assert "; 1 more model left out)" in plot("memory").caption({"memory": six}, {}, SCALE)
    assert "left out" not in plot("memory").caption({"memory": six}, {"models": list("abcde")}, SCALE)


def test_the_widths_of_a_bars_pieces_add_up_to_its_bytes(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["memory"].query("model == 'pythia-70m'")
    bars = plot("memory").draw(tables, {"models": ["pythia-70m"]}).axes[0]
    widths: dict[float, float] = {}
    for piece in bars.patches:
        widths[piece.get_y()] = widths.get(piece.get_y(), 0.0) + piece.get_width()
    wanted = rows.drop_duplicates("optimizer").total_bytes / 2**30
    assert list(widths.values()) == pytest.approx(list(wanted))


def test_the_caption_counts_the_bounds_that_hold(tables: dict[str, pd.DataFrame]) -> None:
    theory = tables["theory"].copy()
    checked = int(theory.holds.notna().sum())
    assert f"{checked} of {checked} bounds hold" in plot("theory").caption({"theory": theory}, {}, SCALE)
    theory.loc[theory.holds.notna().idxmax(), "holds"] = False
    assert f"{checked - 1} of {checked} bounds hold" in plot("theory").caption({"theory": theory}, {}, SCALE)


def test_zeros_of_a_single_block_size_can_be_seen(tables: dict[str, pd.DataFrame]) -> None:
    theory = tables["theory"]
    one = theory[(theory.check != "adam") | (theory.block == 64)]
    for rows, count in ((theory, 0), (one, 9)):  # three sources, three codecs
        zeros = plot("theory").draw({"theory": rows}, {}).axes[1]
        lines = [segment for bar in zeros.collections for segment in bar.get_segments()]
        assert len(lines) == count and all(start[0] < 64 < end[0] for start, end in lines)


def test_many_names_beside_a_line_stay_within_the_panel(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["memory"]
    coded = table[table.optimizer != "AdamW-32"].assign(cut=0.75)
    with theme():
        figure = plot("memory").draw({"memory": coded}, {})
        figure.draw_without_rendering()
        savings = figure.axes[-1]
    (names,) = savings.texts
    assert len(names.get_text().splitlines()) == 4
    assert names.get_window_extent().y1 <= savings.bbox.y1
    alone = table[table.optimizer == "AdamW-32"]
    assert plot("memory").draw({"memory": alone}, {}).get_figheight() > 1.5


def test_training_runs_are_in_the_legend_only_if_there_are_some(tables: dict[str, pd.DataFrame]) -> None:
    def labels(theory: pd.DataFrame) -> list[str]:
        return [text.get_text() for text in plot("theory").draw({"theory": theory}, {}).legends[0].get_texts()]

    assert "training runs" in labels(tables["theory"])
    assert "training runs" not in labels(tables["theory"].query("trajectory.isna()"))


def test_optimizers_that_save_alike_share_a_line_whatever_the_second_digit(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["memory"]
    cuts = {"AdamW-8L": 0.746, "Muon-8L+AdamW-8L": 0.744, "Muon-8L": 0.5}
    with theme():
        *_, savings = plot("memory").draw({"memory": table.assign(cut=table.optimizer.map(cuts).fillna(0))}, {}).axes
    assert {text.get_text() for text in savings.texts} == {"AdamW-8L\nMuon-8L+AdamW-8L", "Muon-8L"}


def test_no_legend_of_the_theory_hides_data_and_no_mark_stands_above_its_bound(
    tables: dict[str, pd.DataFrame],
) -> None:
    rows = tables["theory"]
    rounded = (rows.check == "rounding") & (rows.quantity == "relative_error") & rows.trajectory.notna()
    runs = pd.concat([rows, *[rows[rounded].assign(value=rows.value * k, bound=rows.bound * k) for k in (3, 9)]])
    with theme():
        figure = plot("theory").draw({"theory": runs}, {})
    assert not any(panel.get_legend() for panel in figure.axes) and len(figure.legends) == 1
    tops: dict[tuple[str, float], list[float]] = {}
    for line in figure.axes[0].lines:
        kind = "bound" if line.get_marker() == "_" else "mark"
        for x, y in zip(*line.get_data(), strict=True):
            tops.setdefault((kind, round(float(x), 2)), []).append(float(y))
    places = {x for kind, x in tops if kind == "mark"}
    assert places and all(max(tops["mark", x]) <= max(tops["bound", x]) for x in places)
    assert figure.axes[1].get_ylim()[0] < 0  # marks at 0 are whole
