"""Every figure on synthetic tables: it draws, says what it is made from, and refuses what it cannot draw."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_doctree
from jinja2 import Template
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from PIL import Image

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.claims.evidence import FULL, gather
from coolbits.claims.states import loss_increase
from coolbits.claims.verdict import judge
from coolbits.figures import crosses, palette, stage, style
from coolbits.figures.names import FIGURES
from coolbits.figures.registry import PLOTS, plot
from coolbits.figures.style import DOUBLE, theme
from coolbits.study.recipes.results import Figure

SCALE = "micro: 0.2M parameters, 12M tokens, 3 seeds"
BATCH, DIVERGED_STEP = 4096, 900
Tables = dict[str, pd.DataFrame]
# Figures of quantized models; the others have tests of their own.
SCORED = [
    name for name, tables in FIGURES.items() if tables[0] in ("loss", "tasks") and name not in ("quantizers", "norms")
]


def _figure_node(store: Store, name: str, tables: Tables, **options: object) -> Node:
    parents = {}
    for role in FIGURES[name]:
        table = make_node("table", role, {"table": role}, {})
        store.ensure(table, lambda out, role=role: _write(tables, role, out))
        parents[role] = table.ref
    return make_node("figure", name, Figure(figure=name, options=options, scale=SCALE).identity(), parents)


def _write(tables: Tables, role: str, out: Path) -> dict[str, int]:
    tables[role].to_parquet(out / "table.parquet")
    if role == "loss":
        tables["documents"].to_parquet(out / "documents.parquet")
    return {"rows": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Slice("test", {}))


def test_the_names_that_plans_know_are_the_figures_there_are() -> None:
    assert list(FIGURES) == list(PLOTS)


@pytest.mark.parametrize("name", SCORED)
def test_a_figure_and_its_caption_are_made_and_carry_their_lineage(
    name: str, make_tables: Callable[[int], Tables], store: Store
) -> None:
    tables = make_tables(3)
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

    assert (directory / "caption.txt").read_text() == plot(name).caption(tables, {}, SCALE) + "\n"


@pytest.mark.parametrize("name", SCORED)
def test_a_caption_ends_with_the_scale_and_says_what_intervals_are_of(name: str, tables: Tables) -> None:
    caption = plot(name).caption(tables, {}, SCALE)
    seeds = tables["loss"].seed.nunique()
    assert caption.endswith(f"{SCALE}.")
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


@pytest.mark.parametrize("name", SCORED)
def test_text_is_at_least_seven_points(name: str, make_tables: Callable[[int], Tables]) -> None:
    with theme():
        figure = plot(name).draw(make_tables(3), {})
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def test_a_quantizer_can_be_chosen(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    for name in set(SCORED) - {"states"}:
        wanted = "gptq-w3" if name == "tasks" else "rtn-w3"
        assert "3-bit" in plot(name).caption(tables, {"quantizers": [wanted]}, SCALE)
        with pytest.raises(CoolbitsError, match=r"'awq'.*gptq-w3"):
            plot(name).draw(tables, {"quantizers": ["awq"]})
        with pytest.raises(CoolbitsError, match="no option 'colour'"):
            plot(name).draw(tables, {"colour": "red"})


LACKING = {
    "tokens": ("loss", lambda table: table[table.schedule != "cooldown"][lambda t: t.phase != "decay"], "cooldown"),
    "peak-rate": ("loss", lambda table: table[table.peak_lr == 1e-2], "two peak learning rates"),
    "weight-decay": ("loss", lambda table: table[table.weight_decay == 0.1], "two weight decays"),
    "schedules": ("loss", lambda table: table[table.schedule != "cosine"], "cosine"),
    "averages": ("loss", lambda table: table[table.source != "average"], "average"),
    "optimizers": ("loss", lambda table: table[table.optimizer + table.states == "adamw32"], "two optimizers"),
    "states": ("loss", lambda table: table[table.optimizer + table.states == "adamw32"], "two optimizers"),
    "tasks": ("tasks", lambda table: table[table.quantizer == "none"], "quantized"),
}


@pytest.mark.parametrize("name", SCORED)
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


def test_the_optimizer_with_most_peak_rates_is_one_whose_runs_came_to_their_end(
    make_tables: Callable[[int], Tables],
) -> None:
    """One that diverged at every rate, however many were tried, has nothing to compare."""
    tables = make_tables(1)
    loss = tables["loss"]
    tried = [
        loss[(loss.peak_lr == 1e-2) & (loss.optimizer == "adamw")].assign(peak_lr=rate, states="8L")
        for rate in (1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4)
    ]
    lost = pd.concat(tried).assign(outcome="diverged", diverged_step=9, loss=np.nan, base_loss=np.nan)
    for name in ("trajectory", "family"):
        lost[name] += "-8l-" + lost.peak_lr.astype(str)
    both = tables | {"loss": pd.concat([loss, lost.astype(loss.dtypes)], ignore_index=True)}
    with theme():
        labels = _legend(plot("peak-rate").draw(both, {}))
        assert "0.0001" not in labels and "0.03" in labels
        with pytest.raises(CoolbitsError, match="run of Muon-9"):
            plot("peak-rate").draw(both, {"optimizer": "Muon-9"})
        with pytest.raises(CoolbitsError, match="two peak learning rates"):
            plot("peak-rate").draw(both, {"optimizer": "AdamW-8L"})


def test_decays_of_another_length_are_another_thing(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    long = tables["loss"][tables["loss"].peak_lr == 3e-2].copy()
    for name in ("trajectory", "family"):
        long[name] += "-long"
    long.loc[long.decay_tokens.notna(), "decay_tokens"] = 2_400_000
    both = tables | {"loss": pd.concat([tables["loss"], long.assign(peak_lr=5e-2)], ignore_index=True)}
    with theme():
        labels = _legend(plot("peak-rate").draw(both, {}))
    assert "0.03" in labels and "0.05" not in labels
    assert "linear over 1.2M to 0" in plot("peak-rate").caption(both, {}, SCALE)


def test_several_decays_of_one_trunk_are_told_apart(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    losses = tables["loss"].copy()
    losses.loc[(losses.schedule == "cooldown") & (losses.budget_tokens > 6_000_000), "decay_tokens"] = 900_000
    with theme():
        labels = _legend(plot("tokens").draw(tables | {"loss": losses}, {}))
    assert {"cooldown, linear over 1.2M to 0", "cooldown, linear over 900k to 0"} <= set(labels)


@pytest.mark.parametrize("name", ["optimizers", "states"])
def test_each_optimizer_and_precision_is_a_thing_of_its_own(name: str, tables: Tables) -> None:
    with theme():
        figure = plot(name).draw(tables, {"model": "micro-neox"})
    labels = _legend(figure)
    assert labels[:3] == ["AdamW-32", "AdamW-8D", "AdamW-8L"] and "SGDM-8L" in labels and labels[-1] == "diverged"
    assert "Muon-8L+AdamW-8D" in labels
    top = figure.legends[0].get_window_extent()
    assert top.x0 >= 0 and top.x1 <= figure.bbox.width
    with pytest.raises(CoolbitsError, match=f"figure {name}.*model 'gpt-162m'"):
        plot(name).draw(tables, {"model": "gpt-162m"})


@pytest.mark.parametrize("name", ["optimizers", "norms"])
def test_optimizers_are_chosen_by_name_and_compared_at_one_rate(name: str, tables: Tables) -> None:
    both = {"optimizers": ["AdamW-32", "Muon-32"]}
    with theme():
        assert _legend(plot(name).draw(tables, both))[:2] == ["AdamW-32", "Muon-32"]
    text = plot(name).caption(tables, both | {"peak_lr": 3e-3}, SCALE)
    assert "(AdamW-32 at 0.003; Muon-32 at 0.003)" in text
    with pytest.raises(CoolbitsError, match=f"figure {name}.*run of Muon-9"):
        plot(name).draw(tables, {"optimizers": "Muon-9"})
    with pytest.raises(CoolbitsError, match=f"figure {name}.*run at peak rate 0.5"):
        plot(name).draw(tables, {"peak_lr": 0.5})
    with pytest.raises(CoolbitsError, match=f"figure {name}.*two optimizers"):
        plot(name).draw(tables, {"optimizers": "Muon-32"})


def test_norms_are_those_of_the_metrics(tables: Tables, store: Store) -> None:
    """Of gradient and weights, of each variant's best run, the trunk and what left it as one curve."""
    with theme():
        gradient, weights = plot("norms").draw(tables, {"optimizers": ["AdamW-32", "Muon-32"]}).axes
    seeds = tables["loss"].seed.nunique()
    for panel, last in ((gradient, 0.5), (weights, 30 + 1e-3 * 6e6 / BATCH)):
        lines = [line for line in panel.lines if line.get_linewidth() > 1]
        assert len(lines) == 2 and len(panel.lines) == 2 * (1 + seeds * (seeds > 1))
        for line in lines:
            assert line.get_ydata()[-1] == pytest.approx(last, rel=1e-2)
            assert line.get_xdata()[-1] == pytest.approx(6e6, rel=1e-2) and np.all(np.diff(line.get_xdata()) > 0)
    assert gradient.lines[0].get_ydata()[0] > 1
    text = plot("norms").caption(tables, {}, SCALE)
    assert text.endswith(f"{SCALE}.") and f"from {seeds} seed" in text and "before it is clipped" in text
    assert f"Runs that diverged, of all tried: AdamW-32 {seeds} of {4 * seeds}" in text
    node = _figure_node(store, "norms", tables)
    assert stage.run(Job("figure", "norms", (node,)), store) == 1
    with pytest.raises(CoolbitsError, match="no option 'quantizers'"):
        plot("norms").draw(tables, {"quantizers": "gptq-w3"})


def test_norms_of_a_run_that_blows_up_do_not_hide_the_others(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    loss, metrics = (tables[name].copy() for name in ("loss", "metrics"))
    families = loss[loss.optimizer == "muon"].family.unique()
    lost = loss.family.isin(families)
    loss.loc[lost, "outcome"], loss.loc[lost, "diverged_step"] = "diverged", 50
    blown = metrics.trajectory.isin(loss[lost].trajectory)
    metrics.loc[blown, ["grad_norm", "weight_norm"]] *= 1e6
    blown_up = tables | {"loss": loss, "metrics": metrics}
    with theme():
        for panel, norm in zip(plot("norms").draw(blown_up, {}).axes, ("grad_norm", "weight_norm"), strict=True):
            others = metrics[~blown][norm]
            assert panel.get_ylim()[0] < others.min() and panel.get_ylim()[1] < 3 * others.max()
    assert "beyond the others is off the panels" in plot("norms").caption(blown_up, {}, SCALE)


def test_weight_decays_are_a_line_each_and_the_caption_leaves_them_out(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    with theme():
        figure = plot("weight-decay").draw(tables, {})
    assert _legend(figure)[:3] == ["0", "0.1", "0.3"] and figure.legends[0].get_title().get_text() == "Weight decay"
    text = plot("weight-decay").caption(tables, {}, SCALE)
    assert text.startswith("Weight decays compared under 3-bit GPTQ, runs of 6M tokens")
    assert "micro-neox, AdamW, peak rate 0.01. a:" in text and "n = 18 models" in text
    with pytest.raises(CoolbitsError, match="run of Muon-9"):
        plot("weight-decay").draw(tables, {"optimizer": "Muon-9"})


def test_a_variant_that_always_diverged_is_shown_where_it_did(tables: Tables) -> None:
    with theme():
        curves, *_ = plot("optimizers").draw(tables, {}).axes
        relative, *_ = plot("states").draw(tables, {}).axes
    seeds = tables["loss"].seed.nunique()
    texts = [text.get_text() for text in relative.texts]
    assert f"× {2 * seeds} of {2 * seeds} runs diverged, step {DIVERGED_STEP}" in texts  # at both rates
    crosses = [line for line in curves.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [pytest.approx(DIVERGED_STEP * BATCH, rel=1e-3)]
    assert curves.get_ylim()[1] < 5
    for name in ("optimizers", "states"):
        text = plot(name).caption(tables, {}, SCALE)
        assert f"Runs that diverged, of all tried: AdamW-32 {seeds} of {4 * seeds}, AdamW-8L {2 * seeds} of" in text
        assert "AdamW-8L at 0.03, where it lasted longest; Muon-32 at 0.01;" in text


def test_the_caption_of_tasks_says_which_did_not_fit_the_context(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    rows = tables["tasks"]
    cut = tables | {"tasks": rows.assign(cut_requests=rows.requests.where(rows.task == "blimp_agreement", 0))}
    said = "Requests longer than the model's context lost their beginning: blimp_agreement 900 of 900."
    assert said in plot("tasks").caption(cut, {}, SCALE)
    assert "beginning" not in plot("tasks").caption(tables, {}, SCALE)


def test_a_caption_says_over_how_many_seeds_means_are(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(3)
    losses = tables["loss"]
    mixed = losses.states == "8L+8D"

    def said(rows: pd.DataFrame) -> str:
        return plot("optimizers").caption(tables | {"loss": rows}, {}, SCALE)

    assert "large marks: mean over 3 seeds; thin lines and small marks: single seeds. Crosses" in said(losses)
    alone = "mean over 1 to 3 seeds; thin lines and small marks: single seeds; bands and bars, where there is one: 95 %"
    assert alone in said(losses[~mixed | (losses.seed == 0)])
    lost = losses.assign(outcome=losses.outcome.mask(mixed & (losses.seed == 0) & losses.final, "diverged"))
    assert "mean over 2 to 3 seeds; thin lines and small marks: single seeds." in said(lost)
    each = losses[losses.seed == np.where(mixed, 1, 0)]
    assert "from 2 seeds, scored" in said(each) and "one seed each, so no spread over seeds is shown" in said(each)


def test_seeds_in_several_orders_of_the_data_are_a_line_each(make_tables: Callable[[int], Tables]) -> None:
    both = {name: _in_orders(table) for name, table in make_tables(3).items() if name in ("loss", "metrics", "tasks")}
    for name in ("tokens", "averages", "tasks"):
        with theme():
            figure = plot(name).draw(both, {})
        thin = [line for panel in figure.axes for line in panel.lines if line.get_linewidth() == 0.6]
        assert all(np.all(np.diff(line.get_xdata()) > 0) for line in thin) and (thin or name == "tasks")
        said = "mean over 2 seeds; thin lines and small marks: single seeds, each the mean over its orders of the data."
        assert said in plot(name).caption(both, {}, SCALE)


def test_one_seed_in_several_orders_has_a_mark_a_task(make_tables: Callable[[int], Tables]) -> None:
    table = make_tables(3)["tasks"].assign(data_seed=lambda rows: rows.seed, seed=0)
    with theme():
        _, drop = plot("tasks").draw({"tasks": table}, {}).axes
    bars = [segment for bar in drop.collections for segment in bar.get_segments()]
    marks = [line for line in drop.lines if line.get_marker() not in ("None", "")]
    assert len(bars) == len(marks) == 12  # three tasks, four kinds of models
    assert "one seed, and the mean over its orders of the data, so no" in plot("tasks").caption(
        {"tasks": table}, {}, ""
    )


def test_of_a_task_with_two_accuracies_the_plain_one_is_shown(make_tables: Callable[[int], Tables]) -> None:
    table = make_tables(1)["tasks"]
    shifted = {name: table[name] + 0.1 for name in ("value", "base_value", "relative_drop")}
    both = pd.concat([table, table.assign(metric="acc_norm", **shifted)], ignore_index=True)
    both.attrs = table.attrs
    drawn = []
    for rows in (table, both):
        with theme():
            panels = plot("tasks").draw({"tasks": rows}, {}).axes
        drawn.append([line.get_xdata()[0] for panel in panels for line in panel.lines])
    assert drawn[0] == drawn[1]
    assert plot("tasks").caption({"tasks": both}, {}, "") == plot("tasks").caption({"tasks": table}, {}, "")


@pytest.mark.parametrize("name", ["tokens", "peak-rate", "schedules", "averages", "optimizers", "states"])
def test_a_caption_names_the_measure_where_the_table_has_several(
    name: str, make_tables: Callable[[int], Tables]
) -> None:
    """Losses at full precision are those of most tokens, quantized ones those of most models."""
    tables = make_tables(1)
    losses = tables["loss"].assign(measure="loss")
    finals = losses[losses.final.astype(bool)].assign(measure="validation", scored_tokens=99_999, documents=480)
    both = pd.concat([losses, finals], ignore_index=True)
    drawn, other = ("validation", "loss") if name == "states" else ("loss", "validation")
    text = plot(name).caption(tables | {"loss": both}, {}, SCALE)
    assert f" Measured by the evaluation {drawn}; numbers of {other} do not compare with these." in text
    assert f"scored on {480 if name == 'states' else 240} held-out documents." in text
    assert plot(name).caption(tables | {"loss": losses}, {}, SCALE) == plot(name).caption(tables, {}, SCALE)


def test_quantizers_with_a_measure_each_are_named_with_it(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    own = {"gptq-w4": "validation", "gptq-w3": "loss"}
    losses = tables["loss"].assign(measure=tables["loss"].quantizer.map(own).fillna("loss"))
    text = plot("tokens").caption(tables | {"loss": losses}, {}, SCALE)
    assert "evaluations loss (3-bit GPTQ) and validation (4-bit GPTQ), which do not compare." in text
    # One of them shares its method and bits with another.
    rotated = losses[losses.quantizer == "gptq-w3"].assign(quantizer="rotated-gptq-w3")
    several = pd.concat([losses, rotated], ignore_index=True)
    text = plot("tokens").caption(tables | {"loss": several}, {"quantizers": ["gptq-w3", "gptq-w4"]}, SCALE)
    assert "loss (3-bit GPTQ (gptq-w3)) and validation (4-bit GPTQ), which do not compare." in text


def test_of_a_task_asked_in_two_ways_one_is_drawn_and_named(make_tables: Callable[[int], Tables]) -> None:
    """That of most models, though the other comes first."""
    table = make_tables(1)["tasks"].assign(measure="tasks")
    cloze = table[(table.task == "coolbits_cloze") & table.final.astype(bool)]
    few = cloze.assign(measure="few", samples=9, **{name: cloze[name] + 0.1 for name in ("value", "relative_drop")})
    both = pd.concat([few, table], ignore_index=True)
    both.attrs = table.attrs
    drawn = []
    for rows in (table, both):
        with theme():
            panels = plot("tasks").draw({"tasks": rows}, {}).axes
        drawn.append([sorted(line.get_xdata()[0] for line in panel.lines) for panel in panels])
    assert drawn[0] == drawn[1]
    text = plot("tasks").caption({"tasks": both}, {}, SCALE)
    assert "Of several evaluations of a task one is drawn: coolbits_cloze by tasks." in text
    assert "several evaluations" not in plot("tasks").caption({"tasks": table}, {}, SCALE)


def test_the_caption_of_tasks_says_which_accuracy_is_drawn(make_tables: Callable[[int], Tables]) -> None:
    table = make_tables(1)["tasks"]
    assert " Accuracy: acc. Samples: " in plot("tasks").caption({"tasks": table}, {}, SCALE)
    exact = table.assign(metric=table.metric.mask(table.task == "coolbits_cloze", "exact_match,strict-match"))
    said = "Accuracy: acc of blimp_agreement, coolbits_choice; exact_match,strict-match of coolbits_cloze. Samples"
    assert said in plot("tasks").caption({"tasks": exact}, {}, SCALE).replace(
        "coolbits_choice, blimp_agreement", "blimp_agreement, coolbits_choice"
    )


def test_what_is_written_beside_rows_can_be_read(make_tables: Callable[[int], Tables]) -> None:
    """Not in a variant's colour, which may be pale, nor struck out by the line at 0."""
    with theme():
        relative, *_ = plot("states").draw(make_tables(1), {}).axes
        assert {text.get_color() for text in relative.texts} == {mpl.rcParams["text.color"]}
    lost = [text for text in relative.texts if "diverged" in text.get_text()]
    assert lost and all(text.get_bbox_patch() is not None for text in lost)


@pytest.mark.parametrize("name", ["tokens", "peak-rate", "schedules", "averages", "optimizers"])
def test_a_quantizer_whose_losses_are_not_finite_leaves_its_panels_empty_and_both_say_so(
    name: str, make_tables: Callable[[int], Tables]
) -> None:
    tables = make_tables(1)
    losses = tables["loss"].copy()
    losses.loc[losses.quantizer == "gptq-w3", ["loss", "relative_error", "relative_low", "relative_high"]] = np.nan
    lost = tables | {"loss": losses}
    with theme():
        figure = plot(name).draw(lost, {})
    empty = [panel for panel in figure.axes if "no values" in [text.get_text() for text in panel.texts]]
    assert len(empty) == {"tokens": 1, "peak-rate": 3, "schedules": 3, "averages": 2, "optimizers": 2}[name]
    assert not any(len(panel.get_yticks()) for panel in empty)
    text = plot(name).caption(lost, {}, SCALE)
    count = text.partition(" n = ")[2].partition(" ")[0]
    assert f"No marks of the quantized form of {count} of the models: its scores are not finite." in text
    assert "not finite" not in plot(name).caption(tables, {}, SCALE)


def test_of_a_model_whose_answers_are_no_accuracy_the_tick_remains(make_tables: Callable[[int], Tables]) -> None:
    table = make_tables(1)["tasks"].copy()
    lost = (table.quantizer == "gptq-w3") & (table.average == "soup")
    table.loc[lost, ["value", "value_low", "value_high", "relative_drop"]] = np.nan
    with theme():
        accuracy, _ = plot("tasks").draw({"tasks": table}, {}).axes
    ticks, marks = ([line for line in accuracy.lines if line.get_marker() == marker] for marker in "|P")
    assert len(ticks) == 12 and np.isfinite([line.get_xdata()[0] for line in ticks]).all()
    assert np.isnan([line.get_xdata()[0] for line in marks]).all()
    text = plot("tasks").caption({"tasks": table}, {}, SCALE)
    assert "No marks of the quantized form of 1 of the models: its scores are not finite." in text


def test_at_equal_loss_a_run_is_pale_before_its_decay(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    with theme():
        figure = plot("optimizers").draw(tables, {"quantizers": "gptq-w3"})
    own = tables["loss"].query("optimizer == 'muon' and states == '8L' and peak_lr == 0.01 and quantizer == 'gptq-w3'")
    marks = [line for line in figure.axes[2].lines if line.get_marker() == "^"]
    muon = palette.variant_look("Muon-8L", palette.optimizer_color("muon", []), "8L")
    for look, rows in ((palette.pale(muon), own[own.phase == "stable"]), (muon, own[own.phase == "decay"])):
        drawn = [x for line in marks if same_color(line.get_color(), look.color) for x in line.get_xdata()]
        assert sorted(set(drawn)) == pytest.approx(sorted(rows.base_loss)) and len(rows) > 1
    assert "before the decay (c)" in _legend(figure)
    text = plot("optimizers").caption(tables, {}, SCALE)
    assert "pale before its decay" in text
    assert "1 % of the steps; the highest losses, as of the first steps, are off the panel. b:" in text
    several = plot("optimizers").caption(make_tables(3), {}, SCALE)
    assert "1 % of the steps, means without single seeds; the highest" in several


def test_where_only_ends_were_scored_nothing_is_pale(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    ends = tables | {"loss": tables["loss"][tables["loss"].final.astype(bool)]}
    with theme():
        assert "before the decay (c)" not in _legend(plot("optimizers").draw(ends, {}))
    assert "pale" not in plot("optimizers").caption(ends, {}, SCALE)


def test_losses_are_relative_to_the_same_optimizer_in_32_bits(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(3)
    losses = tables["loss"].query("final and quantizer == 'none' and budget_tokens == 6_000_000 and peak_lr == 0.01")
    muon, low = (
        losses.query(f"optimizer == 'muon' and states == '{states}'").set_index("seed") for states in ("32", "8L")
    )
    with theme():
        relative, *_ = plot("states").draw(tables, {}).axes
    place = [label.get_text() for label in relative.get_yticklabels()].index("Muon-8L")
    (mean,) = [line.get_xdata()[0] for line in relative.lines if list(line.get_ydata()) == [place]]
    assert mean == pytest.approx((100 * (low.base_loss / muon.base_loss - 1)).mean())


@pytest.mark.parametrize("shift", [None, 0.5], ids=["one order of the data", "two orders"])
def test_a_bar_is_the_interval_on_which_the_claim_rests(shift: float | None, tables: Tables) -> None:
    both = tables if shift is None else _two_orders(tables, shift)
    losses = both["loss"]
    full = losses[losses.quantizer == FULL]
    evidence = gather(full, both["documents"], samples=losses.attrs["bootstrap_samples"], seed=0)
    with theme():
        relative, *_ = plot("states").draw(both, {}).axes
    variants = (("Muon-8L", "muon", "8L"), ("Muon-8L+AdamW-8D", "muon", "8L+8D"), ("AdamW-8D", "adamw", "8D"))
    for label, optimizer, states in variants:
        effect = loss_increase((optimizer, "32"), (optimizer, states), evidence)
        assert effect is not None
        judged = judge(effect, "equivalence", confidence=0.95)
        assert _bars(relative)[label][:2] == pytest.approx((judged.low, judged.high), rel=1e-6)


def test_runs_in_several_orders_of_the_data_are_one_mark_a_seed(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(3)
    both = _two_orders(tables, 0.5)
    with theme():
        counts = [
            [
                len(line.get_xdata())
                for line in plot("states").draw(each, {}).axes[0].lines
                if line.get_markersize() == 2
            ]
            for each in (tables, both)
        ]
    assert counts[0] == counts[1] and set(counts[0]) == {3}
    alone, several = (plot("states").caption(each, {}, SCALE) for each in (tables, both))
    assert "paired by seed, each" in alone and "paired by seed and order of the data, each" in several
    assert [int(text.partition(" n = ")[2].partition(" ")[0]) for text in (alone, several)] == [27, 54]
    assert "large marks: mean over 3 seeds, small marks: single seeds" in several


def test_two_seeds_lie_within_the_bar_and_a_variant_with_fewer_says_so(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(3)
    losses = tables["loss"].copy()
    lacking = (losses.seed == 2) | ((losses.states == "8L+8D") & (losses.seed > 0))
    losses.loc[lacking, "quantizer"] = "none of these"  # in its place, since documents are found by place
    two = tables | {"loss": losses}
    with theme():
        relative, *_ = plot("states").draw(two, {}).axes
    seeds = [line for line in relative.lines if line.get_markersize() == 2 and len(set(line.get_xdata())) > 1]
    bars = sorted(_bars(relative).values(), key=lambda bar: bar[2])
    bars = [bar for bar in bars if bar[0] < bar[1] and bar[3]]
    assert len(seeds) == len(bars) == 5
    for line, (low, high, place, _) in zip(seeds, bars, strict=True):
        assert round(line.get_ydata()[0]) == place and low < min(line.get_xdata()) and max(line.get_xdata()) < high
    assert not _bars(relative)["Muon-8L+AdamW-8D"][3]  # dotted: documents alone
    assert [text.get_text() for text in relative.texts if "n =" in text.get_text()] == ["2.628, n = 1"]
    text = plot("states").caption(two, {}, SCALE)
    assert "large marks: mean over 2 seeds (Muon-8L+AdamW-8D: 1), small marks" in text
    assert "interval over seeds (Student's t) and documents (bootstrap), as claims take it; dotted, of one seed" in text


def test_averages_alike_but_for_what_lies_between_their_members_have_a_line_each(make_tables) -> None:
    tables = make_tables(1)
    losses = tables["loss"]
    wide = losses[losses.average == "lawa"].assign(run="wide", base_loss=losses.base_loss + 0.1)
    both = pd.concat([losses, wide], ignore_index=True)
    both.attrs = losses.attrs
    with theme():
        labels = _legend(plot("averages").draw(tables | {"loss": both}, {}))
        assert "LAWA, 5 members" in _legend(plot("averages").draw(tables, {}))
    assert {"LAWA, 5 members (trunk)", "LAWA, 5 members (wide)"} <= set(labels)
    counts = [
        plot("averages").caption(tables | {"loss": rows}, {}, SCALE).partition(" n = ")[2] for rows in (losses, both)
    ]
    assert int(counts[1].split()[0]) == int(counts[0].split()[0]) + 4


def test_a_figure_counts_the_models_that_were_scored(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    assert " n = 21 models from 1 seed" in plot("peak-rate").caption(tables, {}, SCALE)  # of 24: 3 had diverged


def test_errors_below_zero_are_in_the_panel(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    losses = tables["loss"].assign(relative_error=tables["loss"].relative_error - 0.1)
    with theme():
        panel, *_ = plot("tokens").draw(tables | {"loss": losses}, {}).axes
        above, *_ = plot("tokens").draw(tables, {}).axes
    assert panel.get_ylim()[0] < min(min(line.get_ydata()) for line in panel.lines if len(line.get_ydata())) < 0
    assert above.get_ylim()[0] == 0


@pytest.mark.parametrize("name", ["peak-rate", "optimizers", "tokens"])
def test_crosses_stand_above_what_is_drawn(name: str, make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    losses = tables["loss"].copy()
    hot = losses.run == "hot" if name == "peak-rate" else losses.schedule == "cooldown"
    losses.loc[hot & losses.base_loss.notna(), "relative_error"] = 0.2  # above all others
    if name == "tokens":
        losses.loc[hot & (losses.branch_tokens == 9_600_000), ["outcome", "diverged_step"]] = ["diverged", 2400]
    with theme():
        figure = plot(name).draw(tables | {"loss": losses}, {})
    panel = figure.axes[1 if name == "optimizers" else 0]
    lines = [line for line in panel.lines if len(line.get_xdata())]
    heights = {kind: [] for kind in (True, False)}
    for line in lines:
        places = line.get_transform().transform(line.get_xydata())
        heights[line.get_marker() == "x"].extend(places[:, 1])
    assert min(heights[True]) - max(heights[False]) > 2 * figure.dpi / 72


def test_a_cross_is_in_the_panel_where_nothing_else_is_as_far(make_tables: Callable[[int], Tables]) -> None:
    losses = make_tables(1)["loss"]
    axes = Canvas().subplots()
    axes.plot([1e5, 1e6], [1, 2])
    crosses.diverged(axes, losses[losses.run == "hot"], palette.TRUNK)
    assert axes.get_xlim()[1] > DIVERGED_STEP * BATCH and axes.get_ylim()[1] < 3


def test_many_variants_are_told_apart_and_leave_the_panels_their_height(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    frames = [(name, tables[name], tables[name].trajectory.str.contains("muon-8L-wsd")) for name in ("loss", "metrics")]
    more = {}
    for name, table, chosen in frames:
        added = [
            table[chosen].assign(states=states, **{key: table[key] + states for key in ("trajectory", "family")})
            for states in (f"{kind}-b{block}" for kind in ("8L", "8D", "8L+8D") for block in (128, 256, 512, 1024))
        ]
        more[name] = pd.concat([table, *added], ignore_index=True)
    with theme():
        few, many = (plot("optimizers").draw(tables | changed, {}) for changed in ({}, more))
        for figure in (few, many):
            figure.draw_without_rendering()
    box = many.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= many.bbox.width
    assert many.axes[0].bbox.height == pytest.approx(few.axes[0].bbox.height, rel=0.1)
    lines = [line for line in many.legends[0].get_lines() if line.get_label() != "diverged"]
    looks = {(line.get_marker(), line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines) > 20


def test_looks_that_are_alike_get_other_marks_and_colours_in_turn() -> None:
    alike = [palette.Look(label, "0.5") for label in "abc"]
    first, *others = palette.told_apart([*alike, palette.Look("d", "0.5", "s")])
    assert first == alike[0] and others[-1] == palette.Look("d", "0.5", "s")
    assert len({look.marker for look in (first, *others)}) == len({str(look.color) for look in (first, *others)}) + 1


def test_crosses_of_several_variants_do_not_hide_each_other(make_tables: Callable[[int], Tables]) -> None:
    losses = make_tables(1)["loss"]
    hot = losses[losses.run == "hot"]
    figure = Canvas()
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.plot([1e5, 5e6], [1, 100])
    for color in ("blue", "orange", "red"):
        crosses.diverged(axes, hot, palette.Look(color, color))
        crosses.diverged(axes, hot[hot.outcome == "complete"], palette.Look("none lost", color))
    crosses.make_room(axes)
    heights = [line.get_transform().transform(line.get_xydata())[0, 1] for line in axes.lines[1:]]
    assert len(heights) == crosses.count(axes) == 3
    points = np.diff(heights) * 72 / figure.dpi
    assert points == pytest.approx([-6, -6])  # and a cross is 5 high
    assert axes.transData.transform((1, 100))[1] < heights[-1] - 2.5 * figure.dpi / 72


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2), (7, 3, 3)]
)
def test_panels_stand_in_rows_of_three_and_four_in_two_rows(count: int, columns: int, rows: int) -> None:
    figure, axes, across = style.grid(count, height=2.0, above=0.5)
    assert len(axes) == len(figure.axes) == count and across == columns
    assert figure.get_figheight() == 2.0 * rows + 0.5


def _in_orders(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of three seeds as one of two, the first of which was trained in two orders of the data."""
    orders = table.assign(data_seed=table.seed, seed=table.seed.where(table.seed != 2, 0))
    orders.attrs = table.attrs
    return orders


def _two_orders(tables: Tables, shift: float) -> Tables:
    """Return tables in which every run was trained in a second order of the data, to a loss higher by `shift`."""
    losses = tables["loss"].assign(data_seed=0)
    again = losses.assign(data_seed=1, **{name: losses[name] + "-again" for name in ("trajectory", "family")})
    again = again.assign(loss=again.loss + shift, base_loss=again.base_loss + shift)
    documents, first = tables["documents"], len(losses)
    moved = documents.assign(row=documents.row + first)
    for name in ("nats", "base_nats"):
        moved[name] = [np.add(nats, 60 * shift) for nats in documents[name]]
    both = pd.concat([losses, again], ignore_index=True)
    both.attrs = tables["loss"].attrs
    return tables | {"loss": both, "documents": pd.concat([documents, moved], ignore_index=True)}


def _bars(panel: Axes) -> dict[str, tuple[float, float, int, bool]]:
    """Return the ends of each variant's bar, its row and whether it is solid."""
    names = [label.get_text() for label in panel.get_yticklabels()]
    found = {}
    for bar in panel.collections:
        ((low, row), (high, _)) = bar.get_segments()[0]
        found[names[int(row)]] = (low, high, int(row), bar.get_linestyle()[0][1] is None)
    return found


def _legend(figure: Canvas) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    "text", ["|NS(A)| <= 485 |A|", "a*b*c `d`_ e_ \\f", "{{ config }} {% if x %} {# y #}", "95 % of #1: |x|_2 **bold**"]
)
def test_a_caption_reads_in_the_report_as_it_was_written(text: str) -> None:
    rendered = Template(stage.escaped(text)).render(config="wrong")
    document = publish_doctree(rendered, settings_overrides={"report_level": 5})
    assert document.astext() == text


def test_panels_over_tokens_have_one_range(make_tables: Callable[[int], Tables]) -> None:
    tables = make_tables(1)
    loss = tables["loss"]
    later = loss[(loss.quantizer != "gptq-w4") | (loss.tokens > loss.tokens.median())]
    figure = plot("tokens").draw(tables | {"loss": later}, {"quantizers": ["gptq-w3", "gptq-w4"]})
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len({axes.get_xlim() for axes in panels}) == 1
