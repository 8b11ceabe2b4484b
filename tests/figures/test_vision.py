"""The vision table and its figure: from classifiers' files to rows, and what the picture and its caption say."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.measurements import Measurement
from coolbits.figures.plots import vision
from coolbits.figures.style import theme
from coolbits.figures.vision_table import vision as vision_rows
from coolbits.study.recipes.results import VISION_COLUMNS

VARIANTS = [(kind, states) for kind in ("sgd", "adamw") for states in ("32", "8L", "8D")]
LOST_AT = 37


def training(kind: str, states: str, seed: int, lr: float, better: float) -> pd.DataFrame:
    """Return the rows of one training; AdamW with linear codes diverges."""
    noise = np.random.default_rng(seed)
    columns = {
        **{"run": kind, "trajectory": f"{kind}-{states}-{lr}-{seed}", "images": "digits", "model": "resnet-micro"},
        **{"optimizer": kind, "states": states, "beta2": 0.999 if kind == "adamw" else None, "weight_decay": 0.01},
        **{"schedule": "cosine", "peak_lr": lr, "seed": seed, "epochs": 8, "batch_images": 64},
    }
    lost = (kind, states) == ("adamw", "8L")
    steps = np.arange(10, (LOST_AT if lost else 180) + 1, 10)
    steps = np.append(steps, LOST_AT) if lost else steps
    train = pd.DataFrame({"step": steps, "epoch": steps / 22.5, "split": "train", "lr": lr, "grad_norm": 1.0})
    train["loss"] = 2.3 * np.exp(-steps / 30) * np.exp(noise.normal(0, 0.2, len(steps))) if not lost else 1 + steps / 9
    epochs = np.arange(1, 2 if lost else 9)
    test = pd.DataFrame({"step": np.round(epochs * 22.5), "epoch": epochs, "split": "test", "loss": 0.1})
    test["accuracy"] = better - 0.5 * np.exp(-epochs) + noise.normal(0, 0.002, len(epochs))
    rows = pd.concat([train, test]).assign(**columns, parameters=309_354, train_images=1438)
    outcome = "diverged" if lost else "complete"
    rows = rows.assign(outcome=outcome, diverged_step=LOST_AT if lost else None)
    return rows.astype(VISION_COLUMNS | {"diverged_step": "Int64", "step": "Int64", "outcome": "str"})


@pytest.fixture(params=[1, 2], ids=["one seed", "two seeds"])
def table(request: pytest.FixtureRequest) -> pd.DataFrame:
    """Six variants, each at two rates of which 0.03 is the better one."""
    frames = [
        training(kind, states, seed, lr, better)
        for kind, states in VARIANTS
        for seed in range(request.param)
        for lr, better in ((0.03, 0.99), (0.1, 0.95))
    ]
    return pd.concat(frames, ignore_index=True)


def test_each_variant_is_drawn_at_its_best_rate(table):
    chosen = vision._rows({"vision": table}, {})
    assert set(zip(chosen.optimizer, chosen.states, strict=True)) == set(VARIANTS)
    finished = chosen[chosen.outcome == "complete"]
    assert set(finished.peak_lr) == {0.03}
    assert chosen.groupby(["optimizer", "states"]).peak_lr.nunique().max() == 1


def test_a_variant_that_always_diverged_is_drawn_where_it_lasted_longest(table):
    """And not at the rate of the highest accuracy on its way there."""
    longer = (table.states == "8L") & (table.optimizer == "adamw") & (table.peak_lr == 0.1)
    later = table.assign(diverged_step=table.diverged_step.mask(longer, LOST_AT + 3))
    assert "AdamW-8L at 0.1, where it lasted longest" in vision.caption({"vision": later}, {}, "tiny")


def test_a_rate_that_ran_once_is_not_the_best_for_that():
    """Its seed is the better one at the other rate, too, where a second seed makes the mean worse."""
    runs = ((0, 0.03, 0.99), (1, 0.03, 0.90), (0, 0.1, 0.97))
    table = pd.concat([training("sgd", "32", *run) for run in runs], ignore_index=True)
    assert set(vision._rows({"vision": table}, {}).peak_lr) == {0.03}


def test_a_rate_at_which_a_run_diverged_is_scored_by_those_that_did_not():
    """What a run reached before it diverged is no accuracy at the end."""
    lost = training("adamw", "8L", 1, 0.03, 0.9)
    lost = pd.concat([lost, training("adamw", "8L", 1, 0.1, 0.9)], ignore_index=True)
    whole = pd.concat([training("adamw", "32", 0, rate, better) for rate, better in ((0.03, 0.97), (0.1, 0.96))])
    early = (lost.peak_lr == 0.1) & (lost.split == "test")
    lost = lost.assign(accuracy=lost.accuracy.mask(early, 0.999))
    table = pd.concat([whole.assign(states="8L", trajectory="whole-" + whole.trajectory), lost], ignore_index=True)
    assert set(vision._rows({"vision": table}, {}).peak_lr) == {0.03}


def test_the_figure_shows_every_variant_and_where_one_diverged(table):
    with theme():
        figure = vision.draw({"vision": table}, {})
    losses, _, ends = figure.axes
    labels = [text.get_text() for text in ends.get_yticklabels()]
    assert labels == ["AdamW-32", "AdamW-8D", "AdamW-8L", "SGDM-32", "SGDM-8D", "SGDM-8L"]
    seeds = table.seed.nunique()
    crosses = [line for line in losses.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in crosses] == [seeds]
    assert crosses[0].get_xdata()[0] == pytest.approx(LOST_AT / 22.5)
    thin = [line for line in losses.lines if line.get_linewidth() < 1 and line.get_marker() == "None"]
    assert len(thin) == (6 * seeds if seeds > 1 else 0)


def test_names_of_many_variants_do_not_overlap_and_leave_the_panels_their_height():
    kinds = [(kind, states) for kind in ("sgd", "adamw") for states in ("32", "8D", *(f"8D-b{2**n}" for n in range(8)))]
    many = pd.concat([training(kind, states, 0, 0.03, 0.9) for kind, states in kinds], ignore_index=True)
    with theme():
        figure = vision.draw({"vision": many}, {})
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[2].get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == len(kinds)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert figure.axes[0].bbox.height > figure.bbox.height / 3


def test_the_caption_says_n_rates_and_what_diverged(table):
    said = vision.caption({"vision": table}, {}, "tiny: resnet-micro on digits")
    seeds = table.seed.nunique()
    assert "resnet-micro (309k parameters) on digits (1,438 images for training)" in said
    assert "SGDM-8L at 0.03" in said and "AdamW-32 at 0.03" in said
    assert "AdamW-8L at 0.03, where it lasted longest; SGDM-32" in said
    assert "Crosses, in c at the edge: diverged" in said
    assert f"n = {6 * seeds} runs from {seeds} seed" in said
    assert f"diverged (AdamW-8L{', 2 runs,' if seeds > 1 else ''} at step 37)" in said
    assert said.endswith("tiny: resnet-micro on digits.")


def test_a_training_that_two_entries_share_is_drawn_once(table):
    """A mean over seeds in which one counts twice would be another."""
    shared = table[(table.seed == 0) & (table.states == "32")].assign(run="again")
    both = pd.concat([table, shared], ignore_index=True)
    one, other = (vision._rows({"vision": rows}, {}) for rows in (table, both))
    pd.testing.assert_frame_equal(one, other)


def test_options_choose_images_and_model(table):
    other = table.assign(images="fashion", trajectory=table.trajectory + "-fashion")
    both = {"vision": pd.concat([table, other], ignore_index=True)}
    assert set(vision._rows(both, {"images": "digits"}).images) == {"digits"}
    with pytest.raises(CoolbitsError, match="has no images 'cats'"):
        vision.draw(both, {"images": "cats"})
    with pytest.raises(CoolbitsError, match="no option 'colour'; it takes images, model"):
        vision.draw(both, {"colour": "red"})


def write_classifier(place: Path, images: int = 40) -> Measurement:
    place.mkdir()
    metrics = {"step": [2, 4], "images": [16, 32], "loss": [1.0, 0.5], "lr": [0.1, 0.05], "grad_norm": [1.0, 2.0]}
    pd.DataFrame(metrics).to_parquet(place / "metrics.parquet")
    scored = {"step": [5], "epoch": [1], "split": ["test"], "loss": [0.4], "accuracy": [0.9]}
    pd.DataFrame(scored).to_parquet(place / "evaluation.parquet")
    summary = {"parameters": 7, "train_images": images}
    return Measurement(place, None, summary, fallbacks=0, outcome="complete", diverged_step=None)


def test_the_table_has_updates_and_evaluations(tmp_path):
    rows = vision_rows([write_classifier(tmp_path / "one"), write_classifier(tmp_path / "two", images=16)])
    assert rows.row.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.split.tolist() == ["train", "train", "test"] * 2
    assert rows.epoch.tolist() == [0.4, 0.8, 1.0, 1.0, 2.0, 1.0]
    assert rows.loss.tolist() == [1.0, 0.5, 0.4] * 2
    assert rows.accuracy.notna().tolist() == [False, False, True] * 2
    assert set(rows.parameters) == {7}


def test_one_that_diverged_before_anything_was_scored_keeps_its_updates(tmp_path):
    whole = write_classifier(tmp_path / "lost")
    scored = pd.read_parquet(whole.place / "evaluation.parquet").iloc[:0]
    scored.to_parquet(whole.place / "evaluation.parquet")
    lost = Measurement(whole.place, None, whole.summary, fallbacks=0, outcome="diverged", diverged_step=4)
    rows = vision_rows([lost])
    assert rows.step.tolist() == [2, 4]
    assert rows.diverged_step.tolist() == [4, 4]


def test_one_that_diverged_before_anything_was_logged_has_a_row(tmp_path):
    whole = write_classifier(tmp_path / "lost")
    for name in ("metrics", "evaluation"):
        path = whole.place / f"{name}.parquet"
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    lost = Measurement(whole.place, None, whole.summary, fallbacks=0, outcome="diverged", diverged_step=1)
    (row,) = vision_rows([lost]).to_dict("records")
    assert (row["step"], row["diverged_step"], row["outcome"], row["split"]) == (1, 1, "diverged", "train")


def test_a_classifier_without_its_files_is_an_error(tmp_path):
    whole = write_classifier(tmp_path / "spoilt")
    (whole.place / "evaluation.parquet").unlink()
    with pytest.raises(CoolbitsError, match="no such file; a table of vision takes classifiers"):
        vision_rows([whole])


def test_runs_that_diverged_apart_are_said_by_the_first_and_the_last_step():
    lost = [training("adamw", "8L", seed, 0.03, 0.9).assign(diverged_step=40 + seed) for seed in range(30)]
    said = vision.caption({"vision": pd.concat(lost, ignore_index=True)}, {}, "tiny")
    assert "(AdamW-8L, 30 runs, at steps 40 to 69)" in said


def test_one_evaluation_has_a_mark_where_a_line_would_have_no_length():
    table = training("sgd", "32", 0, 0.03, 0.9)
    with theme():
        _, accuracies, _ = vision.draw({"vision": table[(table.split == "train") | (table.epoch == 8)]}, {}).axes
    assert [line.get_marker() for line in accuracies.lines] == ["o"]
    assert "n = 1 run from 1 seed" in vision.caption({"vision": table}, {}, "tiny")


def test_where_no_run_came_to_its_end_the_last_panel_has_no_numbers():
    with theme():
        *_, ends = vision.draw({"vision": training("adamw", "8L", 0, 0.03, 0.9)}, {}).axes
    assert not len(ends.get_xticks()) and [line.get_marker() for line in ends.lines] == ["x"]
