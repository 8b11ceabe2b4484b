"""The figures of telemetry, on a made table: two optimizers in three precisions, one of which diverges."""

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.plots import telemetry_layers as by_layer
from coolbits.figures.plots import telemetry_panels as panels
from coolbits.figures.plots.telemetry import caption, draw
from coolbits.figures.style import theme
from coolbits.study.recipes.results import TRAJECTORY_COLUMNS
from coolbits.training.state_measures import MEASURES as STATE_MEASURES

BATCH = 2048
STEPS = (1, 2, 4, 8, 16, 20, 40, 60)
CODECS = {"32": "float32", "8L": "linear", "8D": "dynamic"}
ROUNDED = {"linear": 0.01, "dynamic": 0.014}
ZEROS = {"linear": 0.25, "dynamic": 0.002}
LOST = ("adamw", "8L")
WOULD_BE = "float32, if it were 8L"
DIVERGED_STEP = 30


def _row(optimizer: str, states: str, step: int, layer: int, state: str, noise: np.random.Generator) -> dict[str, Any]:
    codec, second = CODECS[states], state == "exp_avg_sq"
    row = {"step": step, "tokens": step * BATCH, "parameter": f"layers.{layer}.{state}", "layer": layer}
    row |= {"role": "matrix", "state": state, "rule": optimizer, "codec": codec}
    row |= {"shadow_error": 0.0 if codec == "float32" else ROUNDED[codec] * math.log2(step + 1)}
    for suffix in ("", "_linear", "_dynamic"):
        kind = suffix[1:] or codec
        zeros = ZEROS.get(kind, 0) * (1 + noise.random()) if second else 0.0
        row |= {f"zero_share{suffix}": zeros, f"rounding_error{suffix}": ROUNDED.get(kind, 0.0)}
        row |= {f"newton_schulz_error{suffix}": math.nan if second else 20 * ROUNDED.get(kind, 0.0)}
    row |= {f"block_{name}": share * 2.0**-step for name, share in {"min": 1e-4, "median": 1e-3, "max": 1e-2}.items()}
    spectrum = {"condition": 1e4 * (1 + noise.random()), "stable_rank": 3 + noise.random()}
    spectrum |= {"sigma_max": 1.0 + noise.random(), "sigma_min": 1e-4 * (1 + layer)}
    return row | {name: math.nan if second else value for name, value in spectrum.items()}


def _run(optimizer: str, states: str, seed: int, **changes: Any) -> pd.DataFrame:
    noise = np.random.default_rng(seed)
    moments = ("momentum",) if optimizer == "muon" else ("exp_avg", "exp_avg_sq")
    lost = (optimizer, states) == LOST
    steps = [step for step in STEPS if not lost or step < DIVERGED_STEP]
    rows = [
        _row(optimizer, states, step, layer, state, noise) for step in steps for layer in range(3) for state in moments
    ]
    name = f"{optimizer}-{states}-{seed}"
    columns = {"run": "lowbit", "trajectory": name, "family": name, "model": "micro-neox", "parameters": 262_144}
    columns |= {"optimizer": optimizer, "states": states, "beta2": 0.95, "weight_decay": 0.3, "peak_lr": 1e-2}
    columns |= {"schedule": "constant", "seed": seed, "outcome": "diverged" if lost else "complete"}
    columns |= {"diverged_step": DIVERGED_STEP if lost else None} | changes
    return pd.DataFrame(rows).assign(**dict.fromkeys(TRAJECTORY_COLUMNS) | columns)


@cache
def telemetry_table(seeds: int) -> pd.DataFrame:
    """Return the telemetry of two optimizers in three precisions; AdamW-8L diverges."""
    runs = [
        _run(optimizer, states, seed) for optimizer in ("adamw", "muon") for states in CODECS for seed in range(seeds)
    ]
    table = pd.concat(runs, ignore_index=True)
    return table.astype(TRAJECTORY_COLUMNS | {"outcome": "str", "diverged_step": "Int64", "layer": "Int64"})


def labels(figure: Figure) -> list[str]:
    """Return the legend's entries."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(params=[1, 3], ids=["one seed", "three seeds"])
def tables(request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    return {"telemetry": telemetry_table(request.param)}


def test_every_variant_is_drawn_in_the_optimizers_colour_with_a_line_for_its_states(
    tables: dict[str, pd.DataFrame],
) -> None:
    with theme():
        figure = draw(tables, {})
    assert len(figure.axes) == 6
    assert labels(figure) == ["AdamW-32", "AdamW-8D", "AdamW-8L", "Muon-32", "Muon-8D", "Muon-8L", WOULD_BE, "diverged"]
    adamw, muon = figure.legends[0].get_lines()[:3], figure.legends[0].get_lines()[3:6]
    for lines in (adamw, muon):
        assert len({line.get_linestyle() for line in lines}) == 3
        assert len({line.get_color() for line in lines}) == 1
    assert adamw[0].get_color() != muon[0].get_color()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def test_the_first_panel_shows_the_median_share_of_zeros_with_what_linear_codes_would_do_to_32_bits(
    tables: dict[str, pd.DataFrame],
) -> None:
    rows = tables["telemetry"]
    with theme():
        panel = draw(tables, {}).axes[0]
    adamw = rows[(rows.state == "exp_avg_sq") & (rows.optimizer == "adamw")]
    columns = {"32": "zero_share_linear", "8D": "zero_share", "8L": "zero_share"}
    drawn = [line.get_ydata() for line in panel.lines if line.get_linestyle() != "None"]
    for line, (states, column) in zip(drawn, columns.items(), strict=True):
        expected = adamw[adamw.states == states].groupby("step")[column].median() * 100
        assert line == pytest.approx(expected.to_numpy())


def test_what_linear_codes_would_do_to_float32_is_thin_and_named_in_the_legend(
    tables: dict[str, pd.DataFrame],
) -> None:
    with theme():
        figure = draw(tables, {})
        layers = by_layer.draw(tables, {"optimizers": ["Muon-32", "Muon-8L"]})
    zeros, *_, condition, _, newton_schulz = figure.axes
    for panel, thin in ((zeros, [0]), (newton_schulz, [0, 3]), (condition, [])):  # 32-bit AdamW, and Muon
        widths = [line.get_linewidth() for line in panel.lines if line.get_marker() == "None"]
        assert [place for place, width in enumerate(widths) if width < 1] == thin
    thin, kept = layers.axes
    assert max(line.get_linewidth() for line in thin.lines) < min(line.get_linewidth() for line in kept.lines)
    assert WOULD_BE in labels(figure) and WOULD_BE in labels(layers)
    with theme():
        assert WOULD_BE not in labels(draw(tables, {"measures": "sigma_max"}))
        low = {"telemetry": tables["telemetry"].query("states == '8L'")}
        assert WOULD_BE not in labels(draw(low, {}))


def test_of_many_variants_only_those_in_32_bits_have_bands_of_quartiles(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["telemetry"]
    few = {"telemetry": rows[rows.optimizer == "muon"]}
    for table, count, words in ((tables, 2, "bands, of 32-bit states alone: their"), (few, 3, "seeds; bands: their")):
        with theme():
            panel = draw(table, {"measures": "stable_rank"}).axes[0]
        assert len(panel.collections) == count
        assert f"{words} quartiles" in caption(table, {}, "micro")
    first = rows[(rows.optimizer == "muon") & (rows.states == "32") & (rows.step == 1)].stable_rank
    vertices = panel.collections[0].get_paths()[0].vertices
    ends = vertices[vertices[:, 0] == BATCH][:, 1]
    assert (ends.min(), ends.max()) == pytest.approx(tuple(first.quantile([0.25, 0.75])))


MEASURES = ["block_max", "sigma_max", "sigma_min"]


def test_other_measures_can_be_asked_for() -> None:
    rows = pd.concat([_run("adamw", "32", seed) for seed in range(2)]).astype({"diverged_step": "Int64"})
    with theme():
        axes = draw({"telemetry": rows}, {"measures": MEASURES}).axes
    wanted = [("exp_avg_sq", "block_max"), *(("exp_avg", name) for name in MEASURES)]
    for panel, (state, column) in zip(axes, wanted, strict=True):
        (line,) = panel.lines
        assert line.get_ydata() == pytest.approx(rows[rows.state == state].groupby("step")[column].median().to_numpy())
    text = caption({"telemetry": rows}, {"measures": MEASURES}, "micro")
    assert "a and b: largest magnitude" in text and "c: largest singular value" in text and "d: smallest" in text
    assert "stored as 0" not in text and "linear codes" not in text


@pytest.mark.parametrize("measure", panels.MEASURES)
def test_every_measure_is_a_column_and_draws_something(measure: str, tables: dict[str, pd.DataFrame]) -> None:
    assert measure in STATE_MEASURES
    with theme():
        axes = draw(tables, {"measures": measure}).axes
    assert all(any(len(line.get_ydata()) > 1 for line in panel.lines) for panel in axes)


def test_measures_that_are_not_there_or_too_many_are_refused(tables: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(CoolbitsError, match=r"figure telemetry: no measure 'heat'; there are zero_share, shadow_error"):
        draw(tables, {"measures": "heat"})
    for asked, count in ((["block_min", "block_max", "shadow_error", "condition"], 7), ([], 0)):
        with pytest.raises(CoolbitsError, match=f"figure telemetry: `measures` asks for {count} panels"):
            draw(tables, {"measures": asked})


def test_the_caption_says_who_diverged_when_and_what_was_seen_before(tables: dict[str, pd.DataFrame]) -> None:
    text = caption(tables, {}, "micro: 0.2M parameters")
    rows = tables["telemetry"]
    seeds = rows.seed.nunique()
    assert f"n = {6 * seeds} runs from {seeds} seed" in text
    assert text.endswith("micro: 0.2M parameters.")
    assert "AdamW-8L diverged at step 30 (crosses)" in text
    last = rows[(rows.states == "8L") & (rows.state == "exp_avg_sq") & (rows.step == 20)].zero_share
    assert f"{100 * last.median():.2g} % of its second moments stored as 0" in text


def test_a_variant_is_shown_at_the_rate_that_most_variants_share(tables: dict[str, pd.DataFrame]) -> None:
    other = _run("adamw", "32", 7, peak_lr=1e-3)
    alone = _run("sgd", "8L", 7, peak_lr=0.5).assign(state="momentum")
    text = caption({"telemetry": pd.concat([tables["telemetry"], other, alone])}, {}, "micro")
    assert "AdamW-32 0.01, " in text
    assert "SGDM-8L 0.5" in text


def test_branches_of_a_trunk_are_left_out_and_the_decay_of_a_wsd_run_is_not(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["telemetry"]
    branch = rows[rows.optimizer == "muon"].assign(schedule="cooldown", trajectory="branch", tokens=10**9)
    for schedule, end in (("cooldown", 60 * BATCH), ("constant", 10**9)):
        with theme():
            panel = draw({"telemetry": pd.concat([rows, branch.assign(schedule=schedule, step=10**6)])}, {}).axes[3]
        assert max(line.get_xdata().max() for line in panel.lines) == end


def test_runs_can_be_chosen_and_what_is_not_there_is_refused(tables: dict[str, pd.DataFrame]) -> None:
    both = pd.concat([tables["telemetry"], _run("sgd", "8L", 0, run="other").assign(state="momentum")])
    assert "n = 1 run " in caption({"telemetry": both}, {"runs": "other"}, "micro")
    with pytest.raises(CoolbitsError, match=r"figure telemetry: no telemetry of the runs \['nowhere'\]"):
        draw(tables, {"runs": ["nowhere"]})
    with pytest.raises(CoolbitsError, match="no option 'colour'"):
        draw(tables, {"colour": "red"})
    with pytest.raises(CoolbitsError, match="figure telemetry: the study has no runs with telemetry"):
        draw({"telemetry": tables["telemetry"].iloc[:0]}, {})


def test_each_layer_is_a_line_in_a_panel_of_each_variant(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["telemetry"]
    embedding = rows[rows.layer == 0].assign(layer=None, parameter="embedding", sigma_max=7.0).astype(dict(rows.dtypes))
    rows = pd.concat([rows, embedding], ignore_index=True)
    with theme():
        figure = by_layer.draw({"telemetry": rows}, {"measure": "sigma_max"})
    assert labels(figure) == ["layer 0", "layer 1", "layer 2", "embeddings and head", "diverged"]
    variants = ["AdamW-32", "AdamW-8D", "AdamW-8L", "Muon-32", "Muon-8D", "Muon-8L"]
    assert [panel.get_title() for panel in figure.axes] == variants
    muon = rows[(rows.optimizer == "muon") & (rows.states == "8L")]
    for layer, line in enumerate(figure.axes[5].lines[:3]):
        expected = muon[muon.layer == layer].groupby("step").sigma_max.median()
        assert line.get_ydata() == pytest.approx(expected.to_numpy())
    assert set(figure.axes[5].lines[3].get_ydata()) == {7.0}
    assert len({line.get_color() for line in figure.axes[5].lines}) == 4
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in figure.axes}) == 1


def test_panels_of_layers_show_the_values_of_all_variants(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["telemetry"]
    apart = rows.assign(sigma_max=rows.sigma_max * np.where(rows.optimizer == "muon", 1e-3, 1))
    with theme():
        figure = by_layer.draw({"telemetry": apart}, {"measure": "sigma_max"})
    low, high = figure.axes[0].get_ylim()
    drawn = np.concatenate([line.get_ydata() for panel in figure.axes for line in panel.lines[:3]])
    assert low < drawn.min() < 1e-2 and 1 < drawn.max() < high


def test_the_caption_of_the_layers_says_measure_tensors_and_runs(tables: dict[str, pd.DataFrame]) -> None:
    seeds = tables["telemetry"].seed.nunique()
    text = by_layer.caption(tables, {"optimizers": ["Muon-32", "Muon-8L"]}, "micro")
    assert "relative change of Newton-Schulz' result when a momentum is rounded once" in text
    assert "32-bit states show, by thin lines, what linear codes would do to them" in text and "a:" not in text
    assert f"n = {2 * seeds} runs from {seeds} seed" in text and "1 tensor a layer" in text


def test_the_legend_names_a_few_layers_of_a_deep_model() -> None:
    one = _run("muon", "8L", 0).query("layer == 0")
    deep = pd.concat([one.assign(layer=layer, parameter=f"layers.{layer}") for layer in range(24)])
    with theme():
        figure = by_layer.draw({"telemetry": deep}, {})
    assert labels(figure) == [f"layer {number}" for number in (0, 5, 9, 14, 18, 23)]
    assert len(figure.axes[0].lines) == 24


def test_too_many_variants_or_none_are_refused_with_those_there_are(tables: dict[str, pd.DataFrame]) -> None:
    more = pd.concat([tables["telemetry"], _run("sgd", "8L", 0).assign(state="momentum", newton_schulz_error=0.1)])
    with pytest.raises(CoolbitsError, match=r"telemetry-layers: 7 variants .* at most 6; .*there are AdamW-32, .*SGDM"):
        by_layer.draw({"telemetry": more}, {})
    with pytest.raises(CoolbitsError, match="telemetry-layers: the study has no telemetry of AdamW-4"):
        by_layer.draw(tables, {"optimizers": "AdamW-4"})
    with pytest.raises(CoolbitsError, match="telemetry-layers: no measure 'heat'"):
        by_layer.draw(tables, {"measure": "heat"})
    with pytest.raises(CoolbitsError, match="telemetry-layers: the study has no states of which condition could be"):
        by_layer.draw({"telemetry": tables["telemetry"].assign(condition=math.nan)}, {"measure": "condition"})


def test_a_panel_without_values_says_so_and_keeps_its_crosses(tables: dict[str, pd.DataFrame]) -> None:
    """A scale of logarithms has no place for zeros and infinities; matplotlib refuses to draw an axis of nothing."""
    none = tables["telemetry"].assign(condition=math.inf)
    with theme():
        figure = draw({"telemetry": none}, {"measures": ["condition", "stable_rank"]})
        figure.draw_without_rendering()
    empty, ranks = figure.axes
    assert [text.get_text() for text in empty.texts] == ["no values"] and not ranks.texts
    assert [line.get_marker() for line in empty.lines] == ["x"]


def test_of_a_single_step_there_are_marks(tables: dict[str, pd.DataFrame]) -> None:
    first = tables["telemetry"][tables["telemetry"].step == 1]
    with theme():
        panel, *_ = draw({"telemetry": first}, {"measures": ["stable_rank"]}).axes
        layers, *_ = by_layer.draw({"telemetry": first}, {"measure": "stable_rank"}).axes
    assert [line.get_marker() for line in panel.lines].count("None") == 0
    assert [line.get_marker() for line in layers.lines] == ["o"] * 3


def test_a_cross_beyond_the_last_measure_is_in_the_panel(tables: dict[str, pd.DataFrame]) -> None:
    lost = tables["telemetry"][tables["telemetry"].outcome == "diverged"]
    with theme():
        panel, *_ = draw({"telemetry": lost}, {}).axes
    assert lost.tokens.max() < DIVERGED_STEP * BATCH < panel.get_xlim()[1]
