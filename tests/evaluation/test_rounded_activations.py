"""Activations rounded while a quantized model runs count in its scores, and in no other's."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.data.shards import write_shard
from coolbits.evaluation import stage
from coolbits.models.files import save_model
from coolbits.ptq.checkpoint import build_quantized
from coolbits.study.recipes.evaluation import Evaluation, Loss
from coolbits.study.recipes.methods import RTN, Codebook, Grid, Int8
from coolbits.study.recipes.ptq import Activations, Quantized

WEIGHTS = RTN(grid=Grid(bits=8, group_size=None))
QUANTIZERS = {
    "w8": Quantized(method=WEIGHTS),
    "w8a8": Quantized(method=WEIGHTS, activations=Activations(bits=8)),
    "w8a4": Quantized(method=WEIGHTS, activations=Activations(bits=4, symmetric=False)),
    "int8": Quantized(method=Int8(threshold=1.0)),
    "nf4": Quantized(method=Codebook(kind="nf4")),
}


def write_shards(out: Path) -> dict[str, Any]:
    tokens = np.random.default_rng(0).integers(0, 300, 500)
    header = write_shard(out / "validation-00000.bin", [tokens], 300)
    entry = {"file": "validation-00000.bin", "tokens": 500, "sha256": header.digest}
    index = {"vocabulary_size": 300, "end_of_text_id": 0, "train": [], "validation": [entry]}
    (out / "index.json").write_text(json.dumps(index | {"bytes_per_token": {"train": 2.0, "validation": 3.0}}))
    return {}


@pytest.fixture
def losses(tmp_path: Path, tokenizer: Path, tiny_model: Callable[..., PreTrainedModel]) -> dict[str, float]:
    """Score a model, its quantized forms and the model again in one job."""
    store = Store(tmp_path / "results", Slice("coolbits.evaluation.stage", {}))
    shards, model = make_node("shards", "shards", {}, {}), make_node("checkpoint", "model", {}, {})
    store.ensure(shards, write_shards)
    store.ensure(model, lambda out: save_model(tiny_model(), tokenizer, out) or {})
    roles = {"model": model.ref, "shards": shards.ref}
    measure = Evaluation(measure=Loss(windows=6, sequence_length=16, batch_size=4)).identity()
    nodes = {"base": make_node("evaluation", "base", measure, roles)}
    for name, recipe in QUANTIZERS.items():
        quantized = make_node("quantized", name, recipe.identity(), {"model": model.ref})
        store.ensure(quantized, partial(build_quantized, recipe, store.directory(model), None))
        nodes[name] = make_node("evaluation", f"of-{name}", measure, roles | {"quantized": quantized.ref})
    nodes["base again"] = make_node("evaluation", "z-base", measure, roles)
    stage.run(Job("evaluation", "scores", tuple(nodes.values()), {"device": "cpu"}), store)
    return {name: read_manifest(store.directory(node)).summary["loss"] for name, node in nodes.items()}


def test_rounded_activations_count_in_the_loss_of_their_quantizer_alone(losses: dict[str, float]) -> None:
    assert losses["base"] == losses["base again"]
    errors = {name: abs(losses[name] - losses["base"]) for name in QUANTIZERS}
    assert len(set(losses.values())) == len(QUANTIZERS) + 1
    assert errors["w8a8"] < errors["w8a4"]
