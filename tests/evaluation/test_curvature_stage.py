"""Curvature, prediction and landscape through a store: right weights, right files, and what diverged."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.data.shards import open_stream, write_shard
from coolbits.evaluation import stage
from coolbits.evaluation.objective import objective_of
from coolbits.models.files import load_model, save_model
from coolbits.study.recipes.evaluation import Curvature, Evaluation, Landscape, Loss, Prediction
from coolbits.study.recipes.methods import RTN, Grid
from coolbits.study.recipes.ptq import Quantized

ON = {"windows": 3, "sequence_length": 16, "batch_size": 2}
LOSS = Loss(**ON)
CURVATURE = Curvature(**ON, probes=2, eigenvalues=2, iterations=3)
PREDICTION = Prediction(**ON, probes=2)
LANDSCAPE = Landscape(**ON, points=2)


def write_shards(out: Path) -> dict:
    tokens = np.random.default_rng(0).integers(0, 300, 500)
    header = write_shard(out / "validation-00000.bin", [tokens], 300)
    entry = {"file": "validation-00000.bin", "tokens": 500, "sha256": header.digest}
    index = {"vocabulary_size": 300, "end_of_text_id": 0, "train": [], "validation": [entry]}
    (out / "index.json").write_text(json.dumps(index | {"bytes_per_token": {"train": 2.0, "validation": 3.0}}))
    return {}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", Slice("coolbits.evaluation.stage", {}))


@pytest.fixture
def parents(store, tokenizer, tiny_model, monkeypatch) -> dict[str, Node]:
    """A model, the one before it, shards, and a quantized form: the model with a first layer of zeros."""

    def flatten(model: torch.nn.Module, directory: Path) -> None:
        with torch.no_grad():
            model.get_parameter("gpt_neox.layers.0.mlp.dense_4h_to_h.weight").zero_()

    monkeypatch.setattr(stage, "apply_quantized", flatten)
    rounded = Quantized(method=RTN(grid=Grid(bits=2)))
    nodes = {"shards": make_node("shards", "shards", {}, {})}
    nodes["quantized"] = make_node("quantized", "quantized", rounded.identity(), {})
    nodes |= {role: make_node("checkpoint", role, {}, {}) for role in ("model", "previous")}
    store.ensure(nodes["shards"], write_shards)
    store.ensure(nodes["quantized"], lambda out: {})
    for seed, role in enumerate(("model", "previous")):
        store.ensure(nodes[role], lambda out, seed=seed: save_model(tiny_model(seed), tokenizer, out) or {})
    return nodes


def evaluation(parents: dict[str, Node], measure, *roles: str) -> Node:
    refs = {role: parents[role].ref for role in ("model", "shards", *roles)}
    return make_node("evaluation", "-".join((measure.kind, *roles)), Evaluation(measure=measure).identity(), refs)


@pytest.fixture
def job(parents) -> Job:
    nodes = (
        evaluation(parents, LOSS),
        evaluation(parents, CURVATURE),
        evaluation(parents, PREDICTION, "quantized"),
        evaluation(parents, LANDSCAPE, "quantized", "previous"),
        evaluation(parents, CURVATURE, "quantized"),
    )
    return Job("evaluation", "curves", nodes, {"device": "cpu"})


def test_a_job_measures_all_of_a_model_and_the_loss_is_what_it_was(store, job, parents):
    assert stage.run(job, store) == 5
    loss, curvature, prediction, landscape, rounded = (
        read_manifest(store.directory(node)).summary for node in job.nodes
    )
    for summary in (curvature, prediction, landscape):
        assert summary["loss"] == pytest.approx(loss["loss"], rel=1e-5)
    assert prediction["quantized_loss"] == pytest.approx(rounded["loss"], rel=1e-6) != pytest.approx(loss["loss"])
    assert landscape["quantized_loss"] == pytest.approx(rounded["loss"], rel=1e-6)
    assert landscape["previous_loss"] != landscape["quantized_loss"]
    modules = pd.read_parquet(store.directory(job.nodes[2]) / "modules.parquet")
    assert modules.module.tolist() == ["gpt_neox.layers.0.mlp.dense_4h_to_h"]
    assert stage.run(job, store) == 0


def test_numbers_are_those_of_the_weights_on_disk(store, job, parents):
    stage.run(job, store)
    model = load_model(store.directory(parents["model"]))
    stream = open_stream(store.directory(parents["shards"]), "validation")
    objective = objective_of(model, stream, PREDICTION)
    weights = load_file(store.directory(parents["model"]) / "model.safetensors")
    removed = weights["gpt_neox.layers.0.mlp.dense_4h_to_h.weight"]
    summary = read_manifest(store.directory(job.nodes[2])).summary
    assert summary["squared_norm"] == pytest.approx(float((removed**2).sum()), rel=1e-6)
    slope = objective.split(objective.gradient())["gpt_neox.layers.0.mlp.dense_4h_to_h.weight"]
    assert summary["linear"] == pytest.approx(-float((slope * removed).sum()), rel=1e-4)


def test_a_model_that_gives_no_numbers_is_recorded(store, parents, job, monkeypatch):
    def break_down(*arguments):
        model = load_model(*arguments)
        with torch.no_grad():
            model.get_parameter("gpt_neox.layers.0.mlp.dense_4h_to_h.weight").fill_(torch.nan)
        return model

    monkeypatch.setattr(stage, "load_model", break_down)
    curvature = job.nodes[1]
    assert stage.run(Job("evaluation", "curves", (curvature,)), store) == 1
    manifest = read_manifest(store.directory(curvature))
    for name in ("loss", "trace", "trace_error", "top_eigenvalue", "largest_residual"):
        assert manifest.summary[name] is None
    eigenvalues = pd.read_parquet(store.directory(curvature) / "eigenvalues.parquet")
    assert eigenvalues["rank"].tolist() == [1] and eigenvalues.value.isna().all()


@pytest.mark.parametrize("role", ["model", "quantized", "previous"])
def test_what_diverged_is_recorded_without_files(store, parents, job, role, monkeypatch):
    (store.directory(parents[role]) / "manifest.json").unlink()
    (store.directory(parents[role]) / "record.json").unlink()
    store.ensure(parents[role], lambda out: {"outcome": "diverged", "diverged_step": 70})
    monkeypatch.setattr(stage, "load_model", lambda *_: pytest.fail("there are no weights to load"))
    nodes = [node for node in job.nodes if role in node.parents]
    assert stage.run(Job("evaluation", "curves", tuple(nodes)), store) == len(nodes)
    for node in nodes:
        manifest = read_manifest(store.directory(node))
        assert (manifest.summary["outcome"], manifest.files) == ("diverged", {})
