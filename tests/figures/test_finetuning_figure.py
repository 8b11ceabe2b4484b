"""Fine-tuning in tables and figures: what is read, what is drawn, and that the other figures do not see it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.finetuning_table import validations
from coolbits.figures.measurements import Measurement
from coolbits.figures.names import FIGURES
from coolbits.figures.registry import plot
from coolbits.figures.style import theme
from coolbits.rows import full_precision
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

SCALE = "micro: 266k parameters, 2,000 conversations, 2 seeds"
# `quantizers` is of pretrained models alone, which these tables have none of.
OTHERS = [name for name, tables in FIGURES.items() if tables[0] in ("loss", "tasks") and name != "quantizers"]
Tables = dict[str, pd.DataFrame]


def measurement(place: Path, diverged_step: int | None = None) -> Measurement:
    outcome = "complete" if diverged_step is None else "diverged"
    return Measurement(place, None, {}, 0, outcome, diverged_step)


def write(place: Path, losses: list[float]) -> Path:
    place.mkdir()
    steps = [10 * number for number in range(len(losses))]
    frame = pd.DataFrame({"step": steps, "loss": losses, "exact": 0.5, "tokens": 99})
    frame.to_parquet(place / "validation.parquet")
    return place


def test_each_loss_is_a_row_and_the_last_of_a_whole_one_is_marked(tmp_path: Path) -> None:
    whole, lost = write(tmp_path / "whole", [5.0, 3.0, 2.5]), write(tmp_path / "lost", [5.0, np.inf])
    (tmp_path / "never").mkdir()
    table = validations([measurement(whole), measurement(lost, 17), measurement(tmp_path / "never", 4)])
    assert table.row.tolist() == [0, 0, 0, 1, 1, 2]
    assert table.step.tolist() == [0, 10, 20, 0, 10, 4]
    assert table["last"].tolist() == [False, False, True, False, False, False]
    assert table.loss.iloc[-1] is pd.NA or np.isnan(table.loss.iloc[-1])
    assert table.diverged_step.dropna().tolist() == [17, 17, 4]
    assert table.scored_tokens.iloc[0] == 99


def test_a_whole_one_without_losses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CoolbitsError, match=r"validation\.parquet: no such file"):
        validations([measurement(tmp_path)])


def tuned(seeds: int, loses: bool = True) -> pd.DataFrame:
    """A table of four variants at two rates, of which linear AdamW diverges."""
    frames = []
    for optimizer, states, gain in (
        ("adamw", "32", 0.0),
        ("adamw", "8D", 0.02),
        ("adamw", "8L", 0.4),
        ("muon", "8L", -0.05),
    ):
        for rate in (1e-3, 3e-3):
            for seed in range(seeds):
                name = f"{optimizer}-{states}-{rate}-{seed}"
                columns = dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS) | {"run": "qa", "trajectory": name}
                columns |= {"family": f"start{seed}", "optimizer": optimizer, "states": states, "peak_lr": rate}
                columns |= {"weight_decay": 0.0, "seed": seed, "data_seed": seed, "source": "finetuned", "final": True}
                columns |= {"model": "micro", "tokens": 10_000, "quantizer": "none", "schedule": "cosine"}
                lost = loses and states == "8L" and optimizer == "adamw"
                step = np.arange(0, 30 if lost else 70, 10)
                loss = 2.4 + 3.6 * np.exp(-step / 12) + gain + 0.1 * (rate == 1e-3) + 0.01 * seed
                frame = pd.DataFrame({"step": step, "loss": loss, "exact": 0.1, "scored_tokens": 900})
                frame["last"] = (frame.step == frame.step.max()) & (not lost)
                outcome = {"outcome": "diverged" if lost else "complete", "diverged_step": 27 if lost else None}
                columns.pop("step")
                frames.append(frame.assign(**columns, **outcome))
    types = TRAJECTORY_COLUMNS | MODEL_COLUMNS | {"outcome": "str", "diverged_step": "Int64"}
    return pd.concat(frames, ignore_index=True).astype(types)


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_variant_is_drawn_at_its_best_rate(seeds: int) -> None:
    tables = {"finetuning": tuned(seeds)}
    with theme():
        figure = plot("finetuning").draw(tables, {})
    end = figure.axes[1]
    assert [tick.get_text() for tick in end.get_yticklabels()] == ["AdamW-32", "AdamW-8D", "AdamW-8L", "Muon-8L"]
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["AdamW-32", "AdamW-8D", "AdamW-8L", "Muon-8L", "diverged"]
    finals = [line.get_xdata()[0] for line in end.lines if line.get_markersize() == 5 and line.get_marker() != "x"]
    best = 2.4 + 3.6 * np.exp(-5) + 0.005 * (seeds - 1)
    assert finals == pytest.approx([best, best + 0.02, best - 0.05])
    caption = plot("finetuning").caption(tables, {}, SCALE)
    assert "AdamW-32 at 0.003; AdamW-8D" in caption and f"n = {4 * seeds} fine-tunings, {seeds} seed" in caption
    assert "AdamW-8L at 0.001, where it lasted longest; Muon-8L at 0.003)" in caption
    assert f"Crosses, in b at the edge: {seeds} fine-tuning" in caption and caption.endswith(f"{SCALE}.")
    assert "AdamW-8L 2" not in caption


def test_fine_tunings_that_differ_in_beta2_are_other_settings() -> None:
    """Not repeats of one, of which the mean is taken."""
    one = tuned(2)
    worse = one.assign(beta2=0.999, loss=one.loss + 1, trajectory=one.trajectory + "-999")
    both = pd.concat([one.assign(beta2=0.95), worse], ignore_index=True)
    captions = [plot("finetuning").caption({"finetuning": table}, {}, SCALE) for table in (one, both)]
    assert captions[0] == captions[1]


def test_a_variant_that_always_diverged_is_drawn_where_it_lasted_longest() -> None:
    table = tuned(1)
    longer = (table.peak_lr == 3e-3) & (table.outcome == "diverged")
    later = table.assign(diverged_step=table.diverged_step.mask(longer, 29))
    assert "AdamW-8L at 0.003, where" in plot("finetuning").caption({"finetuning": later}, {}, SCALE)


def test_settings_are_compared_on_the_seeds_that_most_have() -> None:
    """As in claims: a rate that ran with the better seed alone is not the best for that."""
    table = tuned(2)
    other = (table.states == "8D") & (table.peak_lr == 1e-3)
    lower = table.assign(loss=table.loss.mask((table.states == "8D") & (table.seed == 1), table.loss + 1))
    once = lower[~other | (lower.seed == 0)]
    assert "AdamW-8D at 0.003;" in plot("finetuning").caption({"finetuning": once}, {}, SCALE)


def test_orders_of_the_conversations_are_no_seeds() -> None:
    table = tuned(2)
    one = table.assign(data_seed=table.seed, seed=0)
    caption = plot("finetuning").caption({"finetuning": one}, {}, SCALE)
    assert "n = 8 fine-tunings, 1 seed in 2 orders of the conversations; thick" in caption


def test_a_study_in_which_nothing_diverged_has_no_crosses() -> None:
    tables = {"finetuning": tuned(2, loses=False)}
    assert "Crosses" not in plot("finetuning").caption(tables, {}, SCALE)
    with theme():
        labels = [text.get_text() for text in plot("finetuning").draw(tables, {}).legends[0].get_texts()]
    assert "diverged" not in labels


def test_several_runs_can_be_drawn_together() -> None:
    """As those of an optimizer whose rates are another's times a hundred."""
    two = tuned(1).query("states == '32'").assign(run="sgd", optimizer="sgd")
    two = two.assign(trajectory=two.trajectory.str.replace("adamw", "sgd"))
    tables = {"finetuning": pd.concat([tuned(1), two], ignore_index=True)}
    with theme():
        end = plot("finetuning").draw(tables, {"run": ["qa", "sgd"]}).axes[1]
    assert [tick.get_text() for tick in end.get_yticklabels()][-1] == "SGDM-32"
    assert "Supervised fine-tuning (qa, sgd)" in plot("finetuning").caption(tables, {"run": ["qa", "sgd"]}, SCALE)


def test_a_fine_tuning_that_two_entries_share_is_drawn_and_counted_once() -> None:
    shared = tuned(2)
    tables = {"finetuning": pd.concat([shared, shared.assign(run="again")], ignore_index=True)}
    both = {"run": ["qa", "again"]}
    with theme():
        lines = [len(plot("finetuning").draw(tables, options).axes[0].lines) for options in (both, {"run": "qa"})]
    assert lines[0] == lines[1]
    captions = [plot("finetuning").caption(tables, options, SCALE) for options in (both, {"run": "qa"})]
    assert captions[0] == captions[1]


def test_a_fine_tuning_that_is_not_there_is_refused_with_those_there_are() -> None:
    with pytest.raises(CoolbitsError, match=r"figure finetuning: .*'qb', only qa"):
        plot("finetuning").draw({"finetuning": tuned(1)}, {"run": "qb"})
    with pytest.raises(CoolbitsError, match="no option 'colour'"):
        plot("finetuning").draw({"finetuning": tuned(1)}, {"colour": "red"})


@pytest.mark.parametrize("name", OTHERS)
def test_other_figures_do_not_see_fine_tuned_models(name: str, make_tables: Callable[[int], Tables]) -> None:
    """Not even such as look like the ends of cosine runs, or diverged."""
    tables = make_tables(1)
    with_tuned = tables | {role: _with_tuned(tables[role]) for role in ("loss", "tasks")}
    assert plot(name).caption(with_tuned, {}, SCALE) == plot(name).caption(tables, {}, SCALE)
    with theme():
        drawn = [_lines(plot(name).draw(each, {})) for each in (tables, with_tuned)]
    assert drawn[0] == drawn[1]


def test_an_evaluation_of_fine_tuned_models_alone_is_not_taken_for_the_study_s(
    make_tables: Callable[[int], Tables],
) -> None:
    table = make_tables(1)["loss"].assign(measure="loss")
    joined = _with_tuned(table)
    joined.loc[joined.source == "finetuned", "measure"] = "answers"
    many = pd.concat([joined, *[joined[joined.source == "finetuned"]] * 9], ignore_index=True)
    assert set(full_precision(many).measure) == {"loss"}


def _with_tuned(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the ends of its runs a second and third time, as fine-tuned models, some diverged."""
    ends = table[table.final.astype(bool) & (table.source == "checkpoint")]
    own: dict[str, Any] = {"source": "finetuned", "run": "qa", "schedule": "cosine"}
    ends = ends.assign(**own, trajectory="tuned-" + ends.trajectory)
    lost = ends.head(20).assign(outcome="diverged", diverged_step=3)
    joined = pd.concat([table, ends, lost], ignore_index=True).astype(table.dtypes)
    joined.attrs = table.attrs
    return joined


def _lines(figure: Any) -> list[Any]:
    return [np.asarray(line.get_xydata(), float).tolist() for axes in figure.axes for line in axes.lines]


def test_a_loss_that_rises_above_its_start_is_in_the_panel() -> None:
    """That of a fine-tuning that overfits; one that diverges may leave the panel at the top."""
    table = tuned(1)
    worse = table.assign(loss=table.loss.mask(table.optimizer == "muon", 6 + table.step / 20))
    with theme():
        along, _ = plot("finetuning").draw({"finetuning": worse}, {}).axes
    assert along.get_ylim()[1] > worse.loss.max() == 9


def test_where_none_came_to_its_end_there_are_crosses_and_no_numbers() -> None:
    table = tuned(1)
    lost = table[table.outcome == "diverged"]
    with theme():
        along, end = plot("finetuning").draw({"finetuning": lost}, {}).axes
    assert along.get_xlim()[1] > lost.diverged_step.max() > lost.step.max()
    assert not len(end.get_xticks())
