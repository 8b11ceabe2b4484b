"""Small checkpoints of real optimizers, as the training stage would write them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coolbits.artifacts.files import write_json
from coolbits.artifacts.manifest import Manifest
from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.optim.build import build_optimizer
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.training import Checkpoint, Constant, Trajectory

STEPS = 3


def trajectory_of(name: str) -> Trajectory:
    """A trajectory of a tiny model by the optimizer of that name."""
    return Trajectory(
        model=preset("micro-neox", 128, 16),
        optimizer=optimizer_preset(name),
        schedule=Constant(warmup_steps=0),
        peak_lr=1e-2,
        seed=5,
        data_seed=5,
        sequence_length=16,
        batch_tokens=64,
    )


def write_manifest(out: Path, name: str, outcome: str) -> None:
    """Write the manifest of a checkpoint after three updates."""
    recipe = Checkpoint(trajectory=trajectory_of(name), step=STEPS).identity()
    manifest = Manifest("checkpoint", name, "0" * 64, recipe, {}, {}, {"outcome": outcome})
    write_json(out / "manifest.json", manifest.to_json())


@pytest.fixture(scope="session")
def lost_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a checkpoint of AdamW-8L that diverged."""
    out = tmp_path_factory.mktemp("diverged")
    write_manifest(out, "AdamW-8L", "diverged")
    return out


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function of an optimizer's name: a checkpoint's directory, after three updates by random gradients."""

    @cache
    def make(name: str) -> Path:
        out = tmp_path_factory.mktemp("checkpoint")
        trajectory = trajectory_of(name)
        model = build_model(trajectory.model, seed=5)
        optimizer = build_optimizer(model, trajectory.optimizer, trajectory.peak_lr)
        torch.manual_seed(0)
        for _ in range(STEPS):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step(1e-2)
        save_file(
            {key: value.contiguous() for key, value in optimizer.state_tensors().items()}, out / "state.safetensors"
        )
        write_manifest(out, name, "complete")
        return out

    return make
