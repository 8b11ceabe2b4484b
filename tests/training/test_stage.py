"""The training stage: whatever interrupts, extends or forks a trajectory, its bytes are those of one long run."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from random import Random
from typing import Any

import pandas as pd
import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.loops.guards import can_compile
from coolbits.loops.locks import alone_in
from coolbits.study.recipes.training import WSD, Constant, Cooldown, Divergence, Muon, Trajectory
from coolbits.training import stage
from coolbits.training.sources import Sources

Recipe = Callable[..., Trajectory]
advance = Progress.advance
OFTEN = {"state_every_seconds": 0.001}


def in_another_process(work: Callable[[], Any]) -> BaseProcess:
    """Start `work` in a child of its own; forked, so that it need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def wait_for_state(lab: Any, node: Node) -> None:
    """Return once a state was saved."""
    states = lab.store.work_directory(node).parent / "states"
    while not any(states.glob("step_*")):
        time.sleep(0.005)


@pytest.fixture
def updates_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the updates made from now on."""
    from coolbits.training.loop import Training

    numbers: list[int] = []
    train = Training.train

    def noted(training: Training, until: int) -> Any:
        for number in train(training, until):
            numbers.append(number)
            yield number

    monkeypatch.setattr(Training, "train", noted)
    return numbers


def test_a_checkpoint_has_weights_state_metrics_and_a_summary(lab: Any, recipe: Recipe) -> None:
    first, last = lab.train(lab.nodes(recipe(), 0, 7))
    assert {path.name for path in last.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "state.safetensors",
        "state.json",
        "metrics.parquet",
    }
    assert lab.metrics(first).empty
    assert lab.metrics(last).step.tolist() == [3, 6, 7]
    assert list(lab.metrics(last)) == ["step", "tokens", "loss", "lr", "grad_norm", "weight_norm", "data_digest"]
    row = lab.metrics(last).iloc[-1]
    summary = {"outcome": "complete", "step": 7, "tokens": 7 * 64, "loss": row.loss, "data_digest": row.data_digest}
    assert read_manifest(last).summary == summary


def test_tokens_a_second_are_kept_whole_over_resumes_and_are_no_content(lab: Any, recipe: Recipe) -> None:
    lab.checkpoint(recipe(), 5)
    directory = lab.checkpoint(recipe(), 10)
    paces = pd.read_parquet(directory / "throughput.parquet")
    assert paces.step.tolist() == [3, 6, 9]
    # The first update of the second process is not counted, and was the one to log.
    assert (paces.tokens_per_second > 0).tolist() == [True, False, True]
    assert "throughput.parquet" not in read_manifest(directory).files


def test_a_second_run_of_the_job_makes_nothing(lab: Any, recipe: Recipe, updates_made: list[int]) -> None:
    nodes = lab.nodes(recipe(), 3, 6)
    lab.train(nodes)
    assert updates_made == [1, 2, 3, 4, 5, 6]
    lab.train(nodes)
    assert updates_made == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("optimizer", [None, Muon()], ids=["adamw", "muon"])
def test_an_extended_trajectory_is_one_long_one(
    optimizer: Muon | None, lab: Any, other_lab: Any, recipe: Recipe, updates_made: list[int]
) -> None:
    made = recipe(**{"optimizer": optimizer} if optimizer else {})
    lab.checkpoint(made, 5)
    extended = lab.checkpoint(made, 10)
    assert updates_made == list(range(1, 11))
    assert lab.differences(extended, other_lab.checkpoint(made, 10)) == []


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler or no headers of Python")
def test_a_compiled_trajectory_resumed_is_one_long_one(
    lab: Any, other_lab: Any, recipe: Recipe, updates_made: list[int]
) -> None:
    made = recipe(precision="bfloat16")
    half, whole = lab.train(lab.nodes(made, 5, 10), compile=True)
    shutil.copytree(half, other_lab.store.root / half.relative_to(lab.store.root))
    extended = other_lab.checkpoint(made, 10, compile=True)
    assert updates_made == [*range(1, 11), *range(6, 11)]
    assert lab.differences(extended, whole) == []


def test_a_checkpoint_added_in_between_starts_from_the_one_before(
    lab: Any, other_lab: Any, recipe: Recipe, updates_made: list[int]
) -> None:
    lab.train(lab.nodes(recipe(), 4, 12))
    del updates_made[:]
    added, _ = lab.train(lab.nodes(recipe(), 8, 12))
    assert updates_made == [5, 6, 7, 8]
    assert lab.differences(added, other_lab.checkpoint(recipe(), 8)) == []


def test_a_damaged_checkpoint_is_passed_over(lab: Any, recipe: Recipe, updates_made: list[int]) -> None:
    lab.train(lab.nodes(recipe(), 3, 6))
    path = lab.store.directory(lab.nodes(recipe(), 6)[0]) / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    del updates_made[:]
    lab.checkpoint(recipe(), 9)
    assert updates_made == [4, 5, 6, 7, 8, 9]


def test_what_people_lay_beside_checkpoints_is_none(lab: Any, other_lab: Any, recipe: Recipe) -> None:
    first = lab.checkpoint(recipe(), 3)
    first.with_name("step_0000003.tar").write_bytes(b"packed")
    shutil.copytree(first, first.with_name("step_0000003-kept"))
    extended = lab.checkpoint(recipe(), 6)
    assert lab.differences(extended, other_lab.checkpoint(recipe(), 6)) == []
    assert (first.with_name("step_0000003-kept") / "model.safetensors").is_file()


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(
    seed: int, lab: Any, other_lab: Any, recipe: Recipe
) -> None:
    nodes, random = lab.nodes(recipe(), 20, 40), Random(seed)
    for _ in range(5):
        process = in_another_process(lambda: lab.train(nodes, **OFTEN))
        time.sleep(random.uniform(0.02, 0.5))
        process.kill()
        process.join()
    resumed = lab.train(nodes)
    for own, given in zip(resumed, other_lab.train(nodes), strict=True):
        assert lab.differences(own, given) == []
    assert not list((lab.store.work_directory(nodes[0]).parent / "states").iterdir())
    assert not list(lab.store.directory(nodes[0]).parent.glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_state_and_ends_in_order(
    number: signal.Signals, lab: Any, other_lab: Any, recipe: Recipe, updates_made: list[int], capfd: Any
) -> None:
    nodes = lab.nodes(recipe(), 3000)
    process = in_another_process(lambda: lab.train(nodes, **OFTEN))
    wait_for_state(lab, nodes[0])
    os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode == 1
    assert f"stopped by {number.name} after step" in capfd.readouterr().err
    source = Sources(nodes[0], lab.store).newest(-1, 3000)
    assert source is not None
    after = source.step + 4
    resumed = lab.checkpoint(recipe(), after)
    assert updates_made == list(range(source.step + 1, after + 1))
    assert lab.differences(resumed, other_lab.checkpoint(recipe(), after)) == []


@pytest.mark.parametrize("at", [3, 6], ids=["of the first trajectory", "the last of the first trajectory"])
def test_a_signal_while_a_checkpoint_is_written_ends_the_job_once_it_is_stored(
    at: int, lab: Any, other_lab: Any, recipe: Recipe, updates_made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (lab.nodes(recipe(seed=seed), 3, 6) for seed in (0, 1))
    write = stage.write_training

    def write_and_hear(training: Any, *places: Any) -> None:
        write(training, *places)
        if training.memory.step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="stopped by SIGTERM; what was made"):
        patched.setattr(stage, "write_training", write_and_hear)
        lab.train((*first, *second))
    assert updates_made == list(range(1, at + 1))
    assert [lab.store.is_current(node) for node in (*first, *second)] == [True, at == 6, False, False]
    resumed = lab.train((*first, *second))
    for own, given in zip(resumed, other_lab.train((*first, *second)), strict=True):
        assert lab.differences(own, given) == []


def test_a_signal_while_the_last_checkpoint_of_the_job_is_written_finds_nothing_to_stop(
    lab: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = stage.write_training

    def write_and_hear(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(*arguments)

    monkeypatch.setattr(stage, "write_training", write_and_hear)
    (node,) = lab.nodes(recipe(), 3)
    lab.train((node,))
    assert lab.store.is_current(node)


def test_a_state_of_other_code_is_not_used(lab: Any, recipe: Recipe, updates_made: list[int]) -> None:
    nodes = lab.nodes(recipe(), 3000)
    process = in_another_process(lambda: lab.train(nodes, **OFTEN))
    wait_for_state(lab, nodes[0])
    process.kill()
    process.join()
    edited = type(lab)(lab.store.root, Slice("coolbits.training.stage", {"coolbits.training.stage": "two"}))
    assert Sources(nodes[0], edited.store).has_stale_state()
    edited.checkpoint(recipe(), 2)
    assert updates_made == [1, 2]
    assert not Sources(nodes[0], edited.store).has_stale_state()


def test_a_branch_of_a_trunk_is_the_tail_of_the_whole_schedule(lab: Any, other_lab: Any, recipe: Recipe) -> None:
    trunk = recipe(schedule=Constant(warmup_steps=2))
    branch = recipe(schedule=Cooldown(warmup_steps=2, start_step=7, decay_steps=5, decay_shape="sqrt"))
    whole = recipe(schedule=WSD(warmup_steps=2, total_steps=12, decay_steps=5, decay_shape="sqrt"))
    fork, later = lab.nodes(trunk, 7, 9)
    lab.train((fork, later))
    (end,) = lab.train(lab.nodes(branch, 12, start=fork))
    monolith = other_lab.checkpoint(whole, 12)
    assert lab.equal_training(end, monolith)
    tail = lab.metrics(monolith).query("step > 7").reset_index(drop=True)
    pd.testing.assert_frame_equal(lab.metrics(end), tail, check_exact=True)


def test_a_resumed_branch_is_the_uninterrupted_one(lab: Any, other_lab: Any, recipe: Recipe) -> None:
    branch = recipe(schedule=Cooldown(warmup_steps=2, start_step=4, decay_steps=8), data_seed=3)
    ends = []
    for place, steps in ((lab, (6, 12)), (other_lab, (12,))):
        (fork,) = place.nodes(recipe(), 4)
        place.train((fork,))
        for step in steps:
            (end,) = place.train(place.nodes(branch, step, start=fork))
        ends.append(end)
    assert lab.differences(*ends) == []


def test_divergence_is_a_result(lab: Any, recipe: Recipe, updates_made: list[int]) -> None:
    wild = recipe(peak_lr=30.0, divergence=Divergence(window_steps=3))
    nodes = lab.nodes(wild, 1, 30, 40)
    healthy, diverged, later = lab.train(nodes)
    step = read_manifest(diverged).summary["diverged_step"]
    assert read_manifest(healthy).summary["outcome"] == "complete"
    found = updates_made[-1] + 1
    assert updates_made == list(range(1, found))
    assert found - 3 < step <= found
    for directory in (diverged, later):
        assert read_manifest(directory).summary == {"outcome": "diverged", "diverged_step": step}
        assert {path.name for path in directory.iterdir()} == {"metrics.parquet", "manifest.json", "record.json"}
        assert lab.metrics(directory).step.iloc[-1] == found
    branch = recipe(schedule=Cooldown(warmup_steps=2, start_step=40, decay_steps=5))
    (child,) = lab.train(lab.nodes(branch, 45, start=nodes[-1]))
    assert read_manifest(child).summary == {"outcome": "diverged", "diverged_step": step}


def test_what_was_kept_before_a_divergence_was_noticed_stays(lab: Any, recipe: Recipe) -> None:
    wild = recipe(peak_lr=30.0, divergence=Divergence(window_steps=3))
    manifests = [read_manifest(place) for place in lab.train(lab.nodes(wild, *range(1, 13)))]
    (since,) = {manifest.summary["diverged_step"] for manifest in manifests if manifest.diverged}
    kept = [manifest for manifest in manifests if not manifest.diverged]
    assert since <= kept[-1].summary["step"] < since + 3
    assert all("model.safetensors" in manifest.files for manifest in kept)


def test_a_trajectory_known_to_have_diverged_is_not_trained_again(
    lab: Any, recipe: Recipe, updates_made: list[int]
) -> None:
    wild = recipe(peak_lr=30.0, divergence=Divergence(window_steps=3))
    lab.checkpoint(wild, 30)
    del updates_made[:]
    assert read_manifest(lab.checkpoint(wild, 50)).diverged
    assert updates_made == []


def test_one_process_at_a_time_trains_a_trajectory(lab: Any, recipe: Recipe) -> None:
    nodes = lab.nodes(recipe(), 2)
    with (
        alone_in(lab.store.work_directory(nodes[0]).parent),
        pytest.raises(CoolbitsError, match="works here now"),
    ):
        lab.train(nodes)


def test_what_is_saved_does_not_depend_on_how_often(lab: Any, other_lab: Any, recipe: Recipe) -> None:
    assert lab.differences(lab.checkpoint(recipe(), 8), other_lab.checkpoint(recipe(), 8, **OFTEN)) == []


def test_metrics_are_json_safe_and_finite(lab: Any, recipe: Recipe) -> None:
    directory = lab.checkpoint(recipe(), 6)
    assert all(math.isfinite(value) for value in lab.metrics(directory)[["loss", "grad_norm", "weight_norm"]].stack())
    assert json.loads((directory / "state.json").read_text())["step"] == 6


def test_progress_counts_from_where_training_goes_on(lab: Any, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        Progress, "advance", lambda self, units, note: (advance(self, units), lines.append(self.line(note)))
    )
    lab.train(lab.nodes(recipe(), 4))
    assert "step 4 of 4, loss " in lines[-1]
    lab.train(lab.nodes(recipe(), 8, 9))
    assert "(from step 4): step 5 of 9, loss " in lines[4]
    assert "step 9 of 9, loss " in lines[-1]
