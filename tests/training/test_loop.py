"""The loop against one update made by hand, and its metrics against what they claim to be."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from coolbits import products
from coolbits.data.batches import NO_BATCHES, roll_digest
from coolbits.models.build import build_model
from coolbits.optim.schedules import learning_rate
from coolbits.study.recipes.training import SGD, AdamC, AdamW, Cosine, Divergence, Muon, Optimizer, Trajectory
from coolbits.training import stage
from coolbits.training.loop import Training
from coolbits.training.memory import metrics_frame

Recipe = Callable[..., Trajectory]
Start = Callable[..., Training]


def train(training: Training, until: int) -> Training:
    """Run the loop to its end."""
    assert list(training.train(until)) == list(range(1, training.memory.step + 1))
    return training


def test_an_update_of_sgd_is_the_clipped_gradient_times_the_rate(recipe: Recipe, start: Start) -> None:
    sgd = SGD(momentum=0.0, weight_decay=0.0)
    training = train(start(recipe(optimizer=sgd, clip_norm=0.25, log_steps=1)), 1)
    model = build_model(training.recipe.model, seed=0).double()
    batch = torch.from_numpy(training.batches.batch(0))
    logits = model(input_ids=batch[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    norm = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in model.parameters()))
    assert norm > 0.25
    lr = 0.01 / 2
    for trained, initial in zip(training.model.parameters(), model.parameters(), strict=True):
        expected = initial - lr * 0.25 / norm * initial.grad
        torch.testing.assert_close(trained.double(), expected, rtol=1e-5, atol=1e-7)
    row = training.memory.rows[0]
    assert (row["loss"], row["grad_norm"], row["lr"]) == (pytest.approx(loss.item()), pytest.approx(norm, rel=1e-5), lr)
    weights = math.sqrt(sum(parameter.double().square().sum().item() for parameter in training.model.parameters()))
    assert row["weight_norm"] == pytest.approx(weights, rel=1e-6)


def test_metrics_have_a_row_at_every_logged_step_with_rate_tokens_and_order_of_data(
    recipe: Recipe, start: Start
) -> None:
    schedule = Cosine(warmup_steps=2, total_steps=8)
    training = train(start(recipe(schedule=schedule)), 8)
    frame = metrics_frame(training.memory.rows)
    assert frame.step.tolist() == [3, 6]
    assert frame.tokens.tolist() == [3 * 64, 6 * 64]
    assert frame.lr.tolist() == [learning_rate(schedule, 0.01, step) for step in (2, 5)]
    digest = NO_BATCHES
    for step in range(6):
        digest = roll_digest(digest, training.batches.batch(step))
    assert frame.data_digest.iloc[-1] == digest


@pytest.mark.parametrize("optimizer", [AdamW(), AdamC(), SGD(), Muon()], ids=lambda optimizer: optimizer.kind)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_optimizer_learns(optimizer: Optimizer, precision: str, recipe: Recipe, start: Start) -> None:
    peak = {"sgd": 0.2}.get(optimizer.kind, 0.02)
    training = train(start(recipe(optimizer=optimizer, peak_lr=peak, precision=precision)), 30)
    recent = training.memory.history.recent
    assert sum(recent[-5:]) / 5 < training.memory.history.first - 0.5


def test_where_the_processor_has_no_bfloat16_it_trains_alike(
    recipe: Recipe, start: Start, widened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(precision="bfloat16", optimizer=Muon(), log_steps=1)
    here = train(start(made, compile=True), 3).memory.rows
    assert widened
    monkeypatch.setattr(products, "has_bfloat16", lambda: True)
    for row, own in zip(here, train(start(made), 3).memory.rows, strict=True):
        assert row["loss"] == pytest.approx(own["loss"], rel=2e-3)
        assert row["grad_norm"] == pytest.approx(own["grad_norm"], rel=2e-2)


def test_nothing_is_compiled_there_and_it_says_so(
    recipe: Recipe, start: Start, widened: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "can_compile", lambda device: True)
    compiled = []
    monkeypatch.setattr(stage, "summed_loss", lambda model, precision, compile: compiled.append(compile))
    caplog.set_level("INFO")
    for precision in ("bfloat16", "float32"):
        start(recipe(precision=precision), compile=True)
    assert compiled == [False, True]
    assert caplog.text.count("no bfloat16 products on this processor") == 1


def test_micro_batches_train_alike(recipe: Recipe, start: Start) -> None:
    made = recipe(optimizer=SGD(), peak_lr=0.2)
    whole = train(start(made), 5)
    for micro in (1, 3):
        parts = train(start(made, micro_batch_sequences=micro), 5)
        torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict(), rtol=1e-4, atol=1e-5)


def test_two_data_seeds_see_other_data_from_the_same_weights(recipe: Recipe, start: Start) -> None:
    one, same, other = (train(start(recipe(data_seed=seed)), 4).memory for seed in (1, 1, 2))
    assert one.data_digest == same.data_digest
    assert one.rows == same.rows
    assert one.data_digest != other.data_digest
    assert one.history.first != other.history.first


def _poison(training: Training) -> None:
    with torch.no_grad():
        training.model.get_output_embeddings().weight[0, 0] = math.nan


def test_a_loss_that_is_not_finite_ends_the_trajectory_before_its_update(recipe: Recipe, start: Start) -> None:
    training = start(recipe())
    for step in training.train(9):
        if step == 4:
            _poison(training)
            poisoned = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    assert (training.memory.step, training.memory.diverged_step) == (4, 5)
    torch.testing.assert_close(training.model.state_dict(), poisoned, rtol=0, atol=0, equal_nan=True)
    assert math.isnan(training.last_row()["loss"])


def test_a_rate_far_too_high_diverges(recipe: Recipe, start: Start) -> None:
    rule = Divergence(loss_factor=1.5, window_steps=3)
    training = train(start(recipe(peak_lr=30.0, divergence=rule)), 40)
    history, step = training.memory.history, training.memory.diverged_step
    assert step is not None
    assert sum(history.recent[-3:]) / 3 > 1.5 * history.first
    late = training.memory.last.step - step  # updates after the one at which it began
    assert late < 3
    assert history.recent[-1 - late] > 1.5 * history.first


@pytest.mark.parametrize("changes", [{}, {"peak_lr": 30.0, "divergence": Divergence(window_steps=4)}])
def test_reading_losses_late_finds_the_same(changes: dict[str, Any], recipe: Recipe, start: Start) -> None:
    prompt, late = start(recipe(**changes)), start(recipe(**changes))
    late.read_late = True
    train(prompt, 20)
    list(late.train(20))
    assert late.memory.diverged_step == prompt.memory.diverged_step
    assert (late.memory.last, late.memory.history) == (prompt.memory.last, prompt.memory.history)
    assert late.memory.rows == prompt.memory.rows


def test_a_divergence_read_late_tells_no_norm_of_weights_past_it(recipe: Recipe, start: Start) -> None:
    late = start(recipe(peak_lr=30.0, divergence=Divergence(window_steps=4), log_steps=20))
    late.read_late = True
    list(late.train(20))
    row = late.last_row()
    assert late.memory.step > row["step"] == late.memory.last.step
    assert math.isnan(row["weight_norm"])
    assert row["loss"] == late.memory.last.loss
