"""A results folder with token shards and a tokenizer, and the smallest models that still have every part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref, fingerprint_of, make_node
from coolbits.artifacts.store import Store
from coolbits.data.shards import write_shard
from coolbits.study.execution import Execution
from coolbits.study.recipes.training import AdamW, Checkpoint, Constant, Model, Trajectory
from coolbits.training.loop import Training
from coolbits.training.stage import run, start_training

torch.set_num_threads(1)

VOCABULARY, LENGTH, SEQUENCES = 64, 16, 4
NEOX = Model(
    architecture="gpt_neox",
    config={
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": LENGTH,
    },
)
CODE = Slice("coolbits.training.stage", {"coolbits.training.stage": "one"})


def trajectory(**changes: Any) -> Trajectory:
    """A recipe of a few weights and four sequences a step, changed as asked."""
    defaults = {
        "model": NEOX,
        "optimizer": AdamW(),
        "schedule": Constant(warmup_steps=2),
        "peak_lr": 0.01,
        "seed": 0,
        "data_seed": 0,
        "sequence_length": LENGTH,
        "batch_tokens": LENGTH * SEQUENCES,
        "precision": "float32",
        "log_steps": 3,
    }
    return Trajectory(**defaults | changes)


def write_shards(out: Path) -> None:
    """Write a made language: each token is the one before it plus a small step, so that there is something to learn."""
    steps = np.random.default_rng(0).integers(0, 3, 4000)
    header = write_shard(out / "train-00000.bin", [np.cumsum(steps) % VOCABULARY], VOCABULARY)
    train = [{"file": "train-00000.bin", "tokens": header.tokens, "sha256": header.digest}]
    index = {"train": train, "validation": [], "end_of_text_id": 0, "vocabulary_size": VOCABULARY}
    (out / "index.json").write_text(json.dumps(index))


class Lab:
    """A results folder in which trajectories can be trained by real jobs."""

    def __init__(self, root: Path, code: Slice = CODE) -> None:
        self.store = Store(root, code)
        self.data = {"shards": self._parent("shards", write_shards), "tokenizer": self._parent("tokenizer", _tokenizer)}

    def _parent(self, kind: str, write: Callable[[Path], None]) -> Ref:
        node = make_node(kind, "made", {}, {})

        def build(out: Path) -> dict[str, Any]:
            write(out)
            return {}

        self.store.ensure(node, build)
        return node.ref

    def nodes(self, recipe: Trajectory, *steps: int, start: Node | None = None) -> tuple[Node, ...]:
        """Return the checkpoints of a trajectory as a plan would name them."""
        parents = self.data | ({"start": start.ref} if start else {})
        folder = f"tiny-{fingerprint_of('trajectory', recipe.identity(), parents)[:8]}"
        recipes = {step: Checkpoint(trajectory=recipe, step=step).identity() for step in steps}
        return tuple(
            Node("checkpoint", f"{folder}/step_{step:07d}", made, parents, fingerprint_of("checkpoint", made, parents))
            for step, made in recipes.items()
        )

    def train(self, nodes: tuple[Node, ...], **execution: Any) -> list[Path]:
        """Run the job of these checkpoints; return their directories."""
        settings = Execution(device="cpu", **execution).identity()
        run(Job("checkpoint", "test", nodes, settings), self.store)
        return [self.store.directory(node) for node in nodes]

    def metrics(self, directory: Path) -> pd.DataFrame:
        """Return the metrics of a checkpoint."""
        return pd.read_parquet(directory / "metrics.parquet")

    def differences(self, one: Path, other: Path) -> list[str]:
        """Return the names of the files that differ between two checkpoints, or are in one only."""
        own, given = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (one, other))
        names = (own.keys() | given.keys()) - {"record.json", "throughput.parquet"}
        return sorted(name for name in names if own.get(name) != given.get(name))

    def equal_training(self, one: Path, other: Path) -> bool:
        """Whether checkpoints, maybe of different recipes, hold the same weights, optimizer and memory, to the bit."""
        for name in ("model.safetensors", "state.safetensors"):
            own, given = load_file(one / name), load_file(other / name)
            if own.keys() != given.keys() or any(not own[key].equal(given[key]) for key in own):
                return False
        return (one / "state.json").read_text() == (other / "state.json").read_text()

    def checkpoint(self, recipe: Trajectory, step: int, **execution: Any) -> Path:
        """Train a trajectory up to one checkpoint; return its directory."""
        return self.train(self.nodes(recipe, step), **execution)[0]


def _tokenizer(out: Path) -> None:
    (out / "tokenizer.json").write_text("{}")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "results")


@pytest.fixture
def other_lab(tmp_path: Path) -> Lab:
    """A second results folder: what is made here shares nothing with the first."""
    return Lab(tmp_path / "elsewhere")


@pytest.fixture
def recipe() -> Callable[..., Trajectory]:
    """A function that gives the recipe of a tiny trajectory, changed as asked."""
    return trajectory


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Training]:
    """A function that opens a trajectory before its first update."""
    write_shards(tmp_path)

    def start(recipe: Trajectory, **execution: Any) -> Training:
        return start_training(recipe, tmp_path, Execution(device="cpu", **execution))

    return start
