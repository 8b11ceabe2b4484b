"""The stage of classifiers: it learns, is the same whatever interrupts it, and says when it diverged."""

import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.store import Store
from coolbits.optim import compiled
from coolbits.optim.optimizer import Optimizer
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.training import SGD
from coolbits.study.recipes.vision import EpochSchedule, Shift
from coolbits.vision import stage
from coolbits.vision.saved import read_state, write_state
from coolbits.vision.training import Training, steps_of

WIDE = {"embedding_size": 8, "hidden_sizes": [8, 32], "depths": [1, 1], "layer_type": "basic"}
OFTEN = {"state_every_seconds": 1e-6}
FILES = ["config.json", "evaluation.parquet", "metrics.parquet", "model.safetensors"]


def files_of(directory):
    names = sorted(path.name for path in directory.iterdir() if path.name not in ("manifest.json", "record.json"))
    return {name: (directory / name).read_bytes() for name in names}


def test_a_classifier_learns_what_is_easy(lab, recipe):
    directory = lab("results").train(recipe(epochs=8))
    evaluation = pd.read_parquet(directory / "evaluation.parquet")
    assert evaluation.epoch.tolist() == list(range(1, 9))
    assert evaluation.step.tolist() == list(range(5, 45, 5))
    assert set(evaluation.split) == {"test"}
    assert evaluation.accuracy.iloc[-1] > 0.9
    assert read_manifest(directory).summary["accuracy"] == evaluation.accuracy.iloc[-1]


def test_the_metrics_follow_the_schedule(lab, recipe, start):
    directory = lab("results").train(recipe())
    metrics = pd.read_parquet(directory / "metrics.parquet")
    assert metrics.step.tolist() == [2, 4, 6, 8, 10]
    assert metrics.images.tolist() == [16, 32, 48, 64, 80]
    schedule = steps_of(recipe(), start(recipe()).train)
    assert (schedule.warmup_steps, schedule.total_steps) == (1, 10)
    assert metrics.lr.is_monotonic_decreasing and metrics.lr.iloc[-1] > 0


def test_the_directory_opens_with_transformers_and_scores_the_same(lab, recipe, start):
    directory = lab("results").train(recipe())
    assert sorted(files_of(directory)) == FILES
    training = start(recipe())
    model, report = AutoModelForImageClassification.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values())
    training.model = model
    assert training.evaluate()["accuracy"] == read_manifest(directory).summary["accuracy"]


def test_the_same_recipe_gives_the_same_bytes(lab, recipe):
    changed = recipe(augmentation=Shift(pixels=1), optimizer=SGD(weight_decay=0.01, nesterov=True))
    assert files_of(lab("one").train(changed)) == files_of(lab("other").train(changed, **OFTEN))


@pytest.mark.parametrize("name", ["SGDM-8L", "SGDM-8D", "AdamW-8L", "AdamW-8D", "AdamW-32"])
def test_a_training_killed_anywhere_ends_with_the_bytes_of_one_that_was_not(lab, recipe, monkeypatch, name):
    optimizer = optimizer_preset(name)
    for state in optimizer["states"].values():
        state["smallest"] = 64
    changed = recipe(optimizer=optimizer, peak_lr=0.01)
    whole = files_of(lab("whole").train(changed))
    interrupted, run = lab("interrupted"), Training.run

    def dying(training):
        for step in run(training):
            yield step
            if step == 7:
                raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Training, "run", dying)
        interrupted.train(changed, **OFTEN)
    assert (interrupted.state(changed) / "state.json").exists()
    assert files_of(interrupted.train(changed)) == whole
    assert not interrupted.state(changed).exists()


def test_a_signal_saves_the_state_and_says_where(lab, recipe):
    place, changed = lab("results"), recipe(epochs=5000)
    process = multiprocessing.get_context("fork").Process(target=lambda: place.train(changed))
    process.start()
    while not (place.state(changed).parent / "lock").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 1
    assert (place.state(changed) / "state.safetensors").exists()


def test_a_signal_while_a_classifier_is_written_ends_the_job_once_it_is_stored(lab, recipe, monkeypatch):
    place, write = lab("results"), stage.write_result
    first, second = (place.node(recipe(seed=seed)) for seed in (0, 1))

    def write_and_hear(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return write(*arguments)

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="stopped by SIGTERM; what was made"):
        patched.setattr(stage, "write_result", write_and_hear)
        stage.run(Job("classifier", "test", (first, second), {"device": "cpu"}), place.store)
    assert [place.store.is_current(node) for node in (first, second)] == [True, False]


def test_a_kill_while_a_classifier_is_written_leaves_the_saved_state(lab, recipe, monkeypatch):
    place = lab("results")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Store, "record", die)
        place.train(recipe(), **OFTEN)
    assert (place.state(recipe()) / "state.json").exists()
    place.train(recipe())
    assert not place.state(recipe()).exists()


def test_a_state_of_other_images_is_not_used(lab, recipe, monkeypatch):
    place, changed = lab("results"), recipe()
    place.train(changed)
    whole = files_of(place.store.directory(place.node(changed)))
    state = place.state(changed)
    state.mkdir()
    (state / "owner.json").write_text('{"node": "another"}')
    (place.store.directory(place.node(changed)) / "record.json").unlink()
    assert files_of(place.train(changed)) == whole


def test_a_state_that_cannot_be_read_is_named(start, recipe, tmp_path):
    with pytest.raises(CoolbitsError, match=r"model\.safetensors: no such file; delete its directory to train again"):
        read_state(start(recipe()), tmp_path)
    write_state(start(recipe()), tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(CoolbitsError, match=r"not readable .*; delete it to train again"):
        read_state(start(recipe()), tmp_path)


def test_a_state_of_another_dtype_is_not_cast(start, recipe, tmp_path):
    training = start(recipe())
    next(training.run())
    write_state(training, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = max(weights, key=lambda each: weights[each].numel())
    save_file(weights | {name: weights[name].bfloat16()}, tmp_path / "model.safetensors")
    with pytest.raises(CoolbitsError, match=rf"{name} is torch.bfloat16, but training keeps weights in torch.float32"):
        read_state(start(recipe()), tmp_path)


def test_divergence_is_a_result_with_its_step(lab, recipe):
    changed = recipe(peak_lr=1e4, schedule=EpochSchedule(kind="constant", warmup_epochs=0), clip_norm=None, epochs=9)
    changed = changed.model_copy(
        update={"divergence": changed.divergence.model_copy(update={"window_steps": 2, "loss_factor": 2.0})}
    )
    directory = lab("results").train(changed)
    manifest = read_manifest(directory)
    assert manifest.diverged
    assert sorted(manifest.files) == ["evaluation.parquet", "metrics.parquet"]
    metrics = pd.read_parquet(directory / "metrics.parquet")
    assert metrics.step.iloc[-1] == manifest.summary["diverged_step"]
    assert not metrics.loss.iloc[-1] < 2 * np.log(3)


@pytest.mark.parametrize(("broken_at", "evaluated"), [(5, 1), (10, 2)])
def test_weights_that_break_after_the_last_loss_of_an_epoch_diverged_at_its_end(
    lab, recipe, monkeypatch, broken_at, evaluated
):
    """No later update judges them: what the held-out images say does."""
    step, made = Optimizer.step, itertools.count(1)

    def breaking(optimizer, lr):
        step(optimizer, lr)
        if next(made) == broken_at:
            with torch.no_grad():
                next(iter(optimizer.groups[0].parameters.values())).fill_(torch.nan)

    monkeypatch.setattr(Optimizer, "step", breaking)
    directory = lab("results").train(recipe())
    manifest = read_manifest(directory)
    assert manifest.diverged and manifest.summary["diverged_step"] == broken_at
    assert sorted(manifest.files) == ["evaluation.parquet", "metrics.parquet"]
    losses = pd.read_parquet(directory / "evaluation.parquet").loss
    assert len(losses) == evaluated and losses.isna().tolist() == [False] * (evaluated - 1) + [True]


def test_gradients_are_clipped_only_if_asked(start, recipe):
    def moved(clip_norm):
        training = start(recipe(clip_norm=clip_norm, optimizer=SGD(momentum=0.0, weight_decay=0.0)))
        before = [parameter.detach().clone() for parameter in training.model.parameters()]
        next(training.run())
        pairs = zip(training.model.parameters(), before, strict=True)
        return torch.sqrt(sum(((now - then) ** 2).sum() for now, then in pairs)).item()

    assert moved(0.01) == pytest.approx(0.01 * 0.05, rel=1e-3)
    assert moved(None) > 0.05 * 0.05


def test_label_smoothing_is_of_the_training_loss_alone(start, recipe):
    plain, smoothed = (start(recipe(label_smoothing=share)) for share in (0.0, 0.5))
    assert plain.evaluate() == smoothed.evaluate()
    next(plain.run()), next(smoothed.run())
    assert plain.memory.history.first != smoothed.memory.history.first


def test_a_batch_larger_than_all_epochs_is_refused(start, recipe):
    with pytest.raises(CoolbitsError, match="batch_images: 400 is too many, for 40 images in 2 epochs"):
        start(recipe(batch_images=400))


@pytest.mark.skipif("not compiled.available()", reason="no C++ compiler")
def test_without_a_compiler_the_bytes_are_the_same(lab, recipe, monkeypatch):
    optimizer = optimizer_preset("AdamW-8D")
    changed = recipe(optimizer=optimizer, model=recipe().model.model_copy(update={"config": WIDE}), epochs=1)
    fast = files_of(lab("compiled").train(changed))
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert files_of(lab("plain").train(changed)) == fast


def test_the_log_says_how_states_are_stored(start, recipe, caplog):
    caplog.set_level("INFO", "coolbits.vision.stage")
    start(recipe(optimizer=optimizer_preset("SGDM-8L")))
    assert [line.partition(",")[0] for line in caplog.messages] == ["states: 20 tensors float32 (under 4"]


def test_a_warmup_longer_than_the_run_is_refused(recipe):
    with pytest.raises(ValueError, match=r"schedule\.warmup: 3 epochs, but the run has 2"):
        recipe(schedule=EpochSchedule(kind="linear", warmup_epochs=3))


def test_where_the_processor_has_no_bfloat16_its_products_are_made_in_float32(start, recipe, widened):
    training = start(recipe(precision="float32"))
    next(training.run())
    assert not widened
    training = start(recipe(precision="bfloat16"))
    next(training.run())
    learned = len(widened)
    training.evaluate()
    assert 0 < learned < len(widened)
