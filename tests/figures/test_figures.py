"""Every figure on synthetic tables: it draws, says what it is made from, and refuses what it cannot draw."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.figures import stage
from coolbits.figures.names import FIGURES
from coolbits.figures.registry import PLOTS, plot
from coolbits.figures.style import DOUBLE, theme
from coolbits.study.recipes.results import Figure

SCALE = "micro: 0.2M parameters, 12M tokens, 3 seeds"
Tables = dict[str, pd.DataFrame]


def _figure_node(store: Store, name: str, tables: Tables, **options: object) -> Node:
    parents = {}
    for role in FIGURES[name]:
        table = make_node("table", role, {"table": role}, {})
        store.ensure(table, lambda out, role=role: tables[role].to_parquet(out / "table.parquet") or {"rows": 1})
        parents[role] = table.ref
    return make_node("figure", name, Figure(figure=name, options=options, scale=SCALE).identity(), parents)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Slice("test", {}))


def test_the_names_that_plans_know_are_the_figures_there_are() -> None:
    assert list(FIGURES) == list(PLOTS)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_and_its_caption_are_made_and_carry_their_lineage(name: str, tables: Tables, store: Store) -> None:
    node = _figure_node(store, name, tables)
    assert stage.run(Job("figure", name, (node,)), store) == 1
    directory = node.directory(store.root)
    lineage = read_manifest(directory).summary["lineage"]
    assert lineage == stage.lineage_digest(node, store)

    svg = ElementTree.parse(directory / f"{name}.svg")
    identifier = svg.find(".//{http://purl.org/dc/elements/1.1/}identifier")
    assert identifier is not None and identifier.text == f"coolbits:{lineage}"
    assert svg.find(".//{http://purl.org/dc/elements/1.1/}date") is None
    with Image.open(directory / f"{name}.png") as picture:
        assert picture.info["coolbits"] == lineage
        assert picture.width == pytest.approx(DOUBLE * 300, abs=2)

    caption = (directory / "caption.txt").read_text()
    seeds = tables["loss"].seed.nunique()
    assert caption.strip().endswith(f"{SCALE}.")
    assert f"from {seeds} seed" in caption
    assert ("mean over 3 seeds" if seeds == 3 else "95 % bootstrap interval") in caption


def test_equal_tables_give_equal_bytes(make_tables: Callable[[int], Tables], tmp_path: Path) -> None:
    tables, files = make_tables(1), []
    for run in ("one", "two"):
        store = Store(tmp_path / run, Slice("test", {}))
        node = _figure_node(store, "tasks", tables)
        stage.run(Job("figure", "tasks", (node,)), store)
        files.append([(node.directory(store.root) / f"tasks.{kind}").read_bytes() for kind in ("svg", "png")])
    assert files[0] == files[1]


def test_the_lineage_follows_the_tables(make_tables: Callable[[int], Tables], store: Store) -> None:
    node = _figure_node(store, "tokens", make_tables(1))
    before = stage.lineage_digest(node, store)
    table = node.parents["loss"]
    manifest = table.directory(store.root) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 1', '"rows": 2'))
    assert stage.lineage_digest(node, store) != before


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_at_least_seven_points(name: str, make_tables: Callable[[int], Tables]) -> None:
    with theme():
        figure = plot(name).draw(make_tables(3), {})
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def test_a_quantizer_can_be_chosen(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    for name in FIGURES:
        wanted = "gptq-w3" if name == "tasks" else "rtn-w3"
        assert "3-bit" in plot(name).caption(tables, {"quantizers": [wanted]}, SCALE)
        with pytest.raises(CoolbitsError, match=r"'awq'.*gptq-w3"):
            plot(name).draw(tables, {"quantizers": ["awq"]})
        with pytest.raises(CoolbitsError, match="no option 'colour'"):
            plot(name).draw(tables, {"colour": "red"})


LACKING = {
    "tokens": ("loss", lambda table: table[table.schedule != "cooldown"][lambda t: t.phase != "decay"], "cooldown"),
    "peak-rate": ("loss", lambda table: table[table.peak_lr == 1e-2], "two peak learning rates"),
    "schedules": ("loss", lambda table: table[table.schedule != "cosine"], "cosine"),
    "averages": ("loss", lambda table: table[table.source != "average"], "average"),
    "optimizers": ("loss", lambda table: table[table.optimizer == "adamw"], "two optimizers"),
    "tasks": ("tasks", lambda table: table[table.quantizer == "none"], "quantized"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_the_runs_is_told_which_it_lacks(name: str, make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    role, without, message = LACKING[name]
    with pytest.raises(CoolbitsError, match=f"figure {name}.*{message}"):
        plot(name).draw(tables | {role: without(tables[role])}, {})


def test_an_unknown_figure_is_refused_with_those_there_are() -> None:
    with pytest.raises(CoolbitsError, match=r"'pie'.*tokens, peak-rate"):
        plot("pie")


def test_diverged_runs_and_fallbacks_are_in_the_legend(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(3)
    with theme():
        labels = [text.get_text() for text in plot("peak-rate").draw(tables, {}).legends[0].get_texts()]
        assert labels[:4] == ["0.003", "0.01", "0.03", "0.1"] and labels[-1] == "diverged"
        labels = [text.get_text() for text in plot("tokens").draw(tables, {}).legends[0].get_texts()]
        assert "with a fallback" in labels and "learning rate" in labels
