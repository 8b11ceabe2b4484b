"""Telemetry watches and decides nothing, and is whole whatever interrupts, extends or forks a trajectory."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import read_manifest
from coolbits.models.build import build_model
from coolbits.optim.groups import parameter_roles
from coolbits.study.recipes.training import (
    SGD,
    WSD,
    AdamStates,
    AdamW,
    Cooldown,
    Divergence,
    MomentumStates,
    Muon,
    MuonStates,
    Optimizer,
    Storage,
    Telemetry,
    Trajectory,
)
from coolbits.training.loop import Training
from coolbits.training.saved import read_training, write_training
from coolbits.training.state_measures import MEASURES, relative_error
from coolbits.training.telemetry import Observer, sample, telemetry_frame

Recipe = Callable[..., Trajectory]
Start = Callable[..., Training]

LINEAR = Storage(codec="linear", block_size=64, smallest=0)
DYNAMIC = Storage(codec="dynamic", block_size=64, smallest=0)
ADAM = AdamW(states=AdamStates(exp_avg=DYNAMIC, exp_avg_sq=DYNAMIC))
VARIANTS: dict[str, Optimizer] = {
    "AdamW-32": AdamW(),
    "AdamW-8D": ADAM,
    "SGDM-8L": SGD(states=MomentumStates(momentum=LINEAR)),
    "Muon-8L": Muon(states=MuonStates(momentum=LINEAR)),
    "Muon-8L+AdamW-8D": Muon(states=MuonStates(momentum=LINEAR, exp_avg=DYNAMIC, exp_avg_sq=DYNAMIC)),
}
EVERY = Telemetry(every_steps=5, tensors=4)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    return request.param


def telemetry(directory: Path) -> pd.DataFrame:
    """Return the telemetry of a checkpoint."""
    return pd.read_parquet(directory / "telemetry.parquet")


def test_weights_are_the_same_bits_with_and_without(optimizer: Optimizer, recipe: Recipe, start: Start) -> None:
    plain, watched = start(recipe(optimizer=optimizer)), start(recipe(optimizer=optimizer, telemetry=EVERY))
    for training in (plain, watched):
        list(training.train(12))
    assert watched.observer.rows
    assert not plain.observer.rows
    for own, given in (
        (plain.model.state_dict(), watched.model.state_dict()),
        (plain.optimizer.state_tensors(), watched.optimizer.state_tensors()),
    ):
        assert all(own[name].equal(given[name]) for name in own)


def test_a_resumed_trajectory_has_the_telemetry_of_an_uninterrupted_one(
    optimizer: Optimizer, lab: Any, other_lab: Any, recipe: Recipe
) -> None:
    made = recipe(optimizer=optimizer, telemetry=EVERY)
    lab.checkpoint(made, 7)
    resumed, whole = lab.checkpoint(made, 15), other_lab.checkpoint(made, 15)
    assert {"telemetry.parquet", "shadows.safetensors"} <= read_manifest(resumed).files.keys()
    assert [name for name in lab.differences(resumed, whole) if name != "throughput.parquet"] == []
    assert sorted(set(telemetry(resumed).step)) == [1, 2, 4, 5, 10, 15]


def test_a_trajectory_without_telemetry_writes_none(lab: Any, recipe: Recipe) -> None:
    files = read_manifest(lab.checkpoint(recipe(), 3)).files
    assert not {"telemetry.parquet", "shadows.safetensors"} & files.keys()


def test_a_branch_of_a_trunk_is_the_tail_of_the_whole_schedule(lab: Any, other_lab: Any, recipe: Recipe) -> None:
    watched = {"optimizer": ADAM, "telemetry": EVERY}
    branch = recipe(schedule=Cooldown(warmup_steps=2, start_step=7, decay_steps=13), **watched)
    whole = recipe(schedule=WSD(warmup_steps=2, total_steps=20, decay_steps=13), **watched)
    (fork,) = lab.nodes(recipe(**watched), 7)
    lab.train((fork,))
    (end,) = lab.train(lab.nodes(branch, 20, start=fork))
    monolith = other_lab.checkpoint(whole, 20)
    tail = telemetry(monolith).query("step > 7").reset_index(drop=True)
    pd.testing.assert_frame_equal(telemetry(end), tail, check_exact=True)
    own, given = (load_file(place / "shadows.safetensors") for place in (end, monolith))
    assert own.keys() == given.keys()
    assert all(own[name].equal(given[name]) for name in own)


@pytest.mark.parametrize("change", [Tensor.bfloat16, lambda shadow: shadow[:1]], ids=["dtype", "shape"])
def test_shadows_that_would_be_cast_or_spread_are_refused(
    change: Callable[[Tensor], Tensor], recipe: Recipe, start: Start, tmp_path: Path
) -> None:
    watched = recipe(optimizer=ADAM, telemetry=EVERY)
    written = start(watched)
    list(written.train(2))
    write_training(written, tmp_path / "no-tokenizer", tmp_path / "saved")
    place = tmp_path / "saved" / "shadows.safetensors"
    shadows = load_file(place)
    name = next(iter(shadows))
    save_file(shadows | {name: change(shadows[name]).contiguous()}, place)
    with pytest.raises(CoolbitsError, match=r"shadows\.safetensors: not the shadows of what telemetry looks at here"):
        read_training(start(watched), tmp_path / "saved")


def test_a_shadow_is_what_the_rule_makes_of_the_gradients_without_rounding(recipe: Recipe, start: Start) -> None:
    training = start(recipe(optimizer=VARIANTS["Muon-8L+AdamW-8D"], telemetry=EVERY))
    gradients: dict[str, list[torch.Tensor]] = {}
    step = training.optimizer.step

    def noting(lr: float) -> None:
        for name, parameter in training.model.named_parameters():
            gradients.setdefault(name, []).append(parameter.grad.double().clone())
        step(lr)

    training.optimizer.step = noting
    list(training.train(6))
    shadows = training.observer.shadows
    assert {name.rpartition(".")[2] for name in shadows} == {"momentum", "exp_avg", "exp_avg_sq"}
    for name, shadow in shadows.items():
        parameter, _, state = name.rpartition(".")
        ages = reversed(range(6))
        equations = {
            "momentum": lambda gradient, age: 0.95**age * gradient,
            "exp_avg": lambda gradient, age: 0.1 * 0.9**age * gradient,
            "exp_avg_sq": lambda gradient, age: 0.05 * 0.95**age * gradient.square(),
        }
        expected = sum(map(equations[state], gradients[parameter], ages))
        assert relative_error(shadow, expected) < 1e-6
        assert not shadow.equal(training.optimizer.states_of(parameter)[state])


def test_rows_tell_which_state_of_which_tensor_they_measure(recipe: Recipe, start: Start) -> None:
    training = start(recipe(optimizer=VARIANTS["Muon-8L"], telemetry=EVERY))
    list(training.train(5))
    rows = telemetry_frame(training.observer.rows)
    last = rows[rows.step == 5].set_index(["parameter", "state"])
    assert set(rows.tokens / rows.step) == {64}
    embedding = last.loc[("gpt_neox.embed_in.weight", "exp_avg_sq")]
    assert (embedding.role, embedding.rule, embedding.codec) == ("embedding", "adamw", "float32")
    assert pd.isna(embedding.layer)
    assert embedding.rounding_error == embedding.shadow_error == 0 < embedding.rounding_error_linear
    assert math.isnan(embedding.condition)
    second_moment = training.optimizer.states_of("gpt_neox.embed_in.weight")["exp_avg_sq"]
    assert embedding.norm == pytest.approx(float(second_moment.double().square().sum().sqrt()), rel=1e-12)
    matrix = last.xs("momentum", level="state").iloc[0]
    assert (matrix.role, matrix.layer, matrix.rule, matrix.codec) == ("matrix", 0, "muon", "linear")
    assert 0 < matrix.rounding_error < 0.02
    assert matrix.shadow_error > matrix.rounding_error
    assert matrix.condition == pytest.approx(matrix.sigma_max / matrix.sigma_min)
    assert matrix.stable_rank == pytest.approx((matrix.norm / matrix.sigma_max) ** 2)
    assert matrix.newton_schulz_error == matrix.newton_schulz_error_linear > 0
    assert matrix[list(MEASURES)].notna().all()
    assert set(rows[rows.condition.notna()].groupby(["role", "state"]).groups) == {("matrix", "momentum")}


def test_the_rounding_error_is_that_of_the_update_alone(recipe: Recipe, start: Start) -> None:
    training = start(recipe(optimizer=VARIANTS["SGDM-8L"], telemetry=Telemetry(every_steps=1, tensors=9)))
    list(training.train(8))
    rows = telemetry_frame(training.observer.rows)
    first, last = rows[rows.step == 1], rows[rows.step == 8]
    assert first.rounding_error.to_numpy() == pytest.approx(first.shadow_error.to_numpy())
    assert (last.shadow_error > last.rounding_error).all()
    assert (last.rounding_error < 0.02).all()


def test_a_diverged_trajectory_keeps_what_was_measured_before(lab: Any, recipe: Recipe) -> None:
    rule = Divergence(loss_factor=1.01, window_steps=2)
    made = recipe(optimizer=ADAM, peak_lr=30.0, divergence=rule, telemetry=Telemetry(every_steps=3, tensors=3))
    for directory in lab.train(lab.nodes(made, 30, 40)):
        diverged = read_manifest(directory).summary["diverged_step"]
        steps = set(telemetry(directory).step)
        assert 1 in steps
        assert max(steps) < diverged


def test_losses_read_late_leave_the_same_rows(recipe: Recipe, start: Start) -> None:
    rule = Divergence(loss_factor=1.01, window_steps=2)
    made = recipe(optimizer=ADAM, peak_lr=30.0, divergence=rule, telemetry=EVERY, log_steps=100)
    prompt, late = start(made), start(made)
    late.read_late = True
    for training in (prompt, late):
        list(training.train(30))
    assert prompt.memory.diverged_step == late.memory.diverged_step
    assert prompt.memory.diverged_step is not None
    pd.testing.assert_frame_equal(telemetry_frame(prompt.observer.rows), telemetry_frame(late.observer.rows))


def test_a_sample_is_spread_evenly_from_the_first_tensor_to_the_last(recipe: Recipe) -> None:
    model = recipe().model
    deep = model.model_copy(update={"config": model.config | {"num_hidden_layers": 4}})
    roles = parameter_roles(build_model(deep, seed=0))
    chosen = sample(roles, 6)
    assert [name.removeprefix("gpt_neox.").removesuffix(".weight") for name in chosen] == [
        "embed_in",
        "layers.0.mlp.dense_h_to_4h",
        "layers.1.mlp.dense_h_to_4h",
        "layers.2.attention.dense",
        "layers.3.attention.dense",
        "lm_head",
    ]
    assert len(sample(roles, 99)) == 18
    assert "vector" not in sample(roles, 99).values()


def test_the_first_updates_are_measured_at_powers_of_two(recipe: Recipe, start: Start) -> None:
    observer = start(recipe(telemetry=Telemetry(every_steps=20, tensors=1))).observer
    assert [number for number in range(1, 61) if observer.is_due(number)] == [1, 2, 4, 8, 16, 20, 40, 60]
    assert not Observer().is_due(1)


def test_rows_have_fixed_columns_also_when_there_are_none() -> None:
    frame = telemetry_frame([])
    assert len(frame) == 0
    assert list(frame)[:4] == ["step", "tokens", "parameter", "layer"]
    assert set(MEASURES) < set(frame)
