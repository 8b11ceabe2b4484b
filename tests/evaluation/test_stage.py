"""The stage: evaluations of base and quantized models through a store, each set of weights loaded once."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.data.shards import open_stream, write_shard
from coolbits.evaluation import stage
from coolbits.evaluation.loss import document_losses, summarize
from coolbits.models.blocks import decoder_linears
from coolbits.models.files import load_model, save_model
from coolbits.models.layers import IntegerLayer, neighbouring_groups
from coolbits.models.quantized import QuantizedModel, apply_quantized, write_quantized
from coolbits.study.recipes.comparison import why_incomparable
from coolbits.study.recipes.evaluation import Curvature, Evaluation, Loss, Prediction, Tasks
from coolbits.study.recipes.methods import AWQ, RTN, Grid, Int8
from coolbits.study.recipes.ptq import Activations, Quantized

LOSS = Loss(windows=6, sequence_length=16, batch_size=4)
TASKS = Tasks(tasks=("coolbits_cloze",), limit=4, batch_size=4)


def write_shards(out: Path) -> dict:
    tokens = np.random.default_rng(0).integers(0, 300, 500)
    header = write_shard(out / "validation-00000.bin", [tokens], 300)
    entry = {"file": "validation-00000.bin", "tokens": 500, "sha256": header.digest}
    index = {"vocabulary_size": 300, "end_of_text_id": 0, "train": [], "validation": [entry]}
    (out / "index.json").write_text(json.dumps(index | {"bytes_per_token": {"train": 2.0, "validation": 3.0}}))
    return {}


def write_rounded(model: torch.nn.Module, out: Path) -> dict:
    """Write every decoder linear rounded to 2 bits."""
    layers = {}
    for name, linear in decoder_linears(model).items():
        weight = linear.weight.detach()
        outputs, inputs = weight.shape
        scales = 2 * weight.abs().amax(1, keepdim=True) / 3
        codes = (weight / scales + 2).round().clamp(0, 3).to(torch.uint8)
        zeros = torch.full((outputs, 1), 2, dtype=torch.uint8)
        layers[name] = IntegerLayer(2, True, codes, scales, zeros, neighbouring_groups(inputs, inputs))
    write_quantized(QuantizedModel(layers), out)
    return {}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", Slice("coolbits.evaluation.stage", {}))


@pytest.fixture
def parents(store, corpus, tokenizer, tiny_model) -> dict[str, Node]:
    """Make every parent artifact: a model, its rounded form, shards, tokenizer, corpus."""

    def copy(source: Path, out: Path) -> dict:
        for path in source.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        return {}

    nodes = {role: make_node(role, role, {}, {}) for role in ("corpus", "tokenizer", "shards")}
    nodes["model"] = make_node("checkpoint", "model", {}, {})
    nodes["quantized"] = make_node("quantized", "rounded", {}, {"model": nodes["model"].ref})
    store.ensure(nodes["corpus"], lambda out: copy(corpus, out))
    store.ensure(nodes["tokenizer"], lambda out: copy(tokenizer, out))
    store.ensure(nodes["shards"], write_shards)
    store.ensure(nodes["model"], lambda out: save_model(tiny_model(), tokenizer, out) or {})
    store.ensure(nodes["quantized"], lambda out: write_rounded(tiny_model(), out))
    return nodes


def evaluation(parents: dict[str, Node], measure: Loss | Tasks, *roles: str) -> Node:
    refs = {role: parents[role].ref for role in roles}
    return make_node("evaluation", "-".join((measure.kind, *roles)), Evaluation(measure=measure).identity(), refs)


@pytest.fixture
def job(parents) -> Job:
    nodes = (
        evaluation(parents, LOSS, "model", "shards"),
        evaluation(parents, LOSS, "model", "quantized", "shards"),
        evaluation(parents, TASKS, "model", "tokenizer", "corpus"),
        evaluation(parents, TASKS, "model", "quantized", "tokenizer", "corpus"),
    )
    return Job("evaluation", "scores", nodes, {"device": "cpu"})


@pytest.mark.parametrize("measure", [LOSS, TASKS], ids=["loss", "tasks"])
def test_onednn_makes_the_products_of_a_measure_where_it_is_faster(store, parents, measure, by_onednn):
    node = evaluation(parents, measure, "model", "tokenizer", "corpus", "shards")
    assert stage.run(Job("evaluation", "scores", (node,), {"device": "cpu"}), store) == 1
    model = load_model(parents["model"].directory(store.root))
    shapes = {tuple(weight.shape) for _, weight in by_onednn}
    assert shapes >= {tuple(linear.weight.shape) for linear in decoder_linears(model).values()}
    if measure is LOSS:
        losses = document_losses(model, open_stream(parents["shards"].directory(store.root), "validation"), LOSS)
        assert read_manifest(store.directory(node)).summary["loss"] == pytest.approx(summarize(losses, 1.0)["loss"])


def test_a_job_makes_all_evaluations_and_loads_each_set_of_weights_once(store, job, monkeypatch):
    loaded = []
    monkeypatch.setattr(stage, "load_model", lambda *arguments: loaded.append(arguments) or load_model(*arguments))
    assert stage.run(job, store) == 4
    assert len(loaded) == 2
    assert stage.run(job, store) == 0
    assert len(loaded) == 2
    loss, rounded_loss, tasks, rounded_tasks = (read_manifest(store.directory(node)) for node in job.nodes)
    assert {*loss.files} == {"documents.parquet"}
    assert {*tasks.files} == {"samples.parquet", "samples.jsonl", "results.json"}
    assert loss.summary["outcome"] == "complete"
    assert loss.summary["tokens"] == rounded_loss.summary["tokens"] == 96
    assert loss.summary["loss"] != rounded_loss.summary["loss"]
    assert {*tasks.summary["coolbits_cloze"]} == {"acc", "loglikelihood"}
    assert tasks.summary != rounded_tasks.summary


def test_scores_are_those_of_the_weights_on_disk(store, job, parents):
    stage.run(job, store)
    model = load_model(store.directory(parents["model"]))
    shards = store.directory(parents["shards"])
    for node in job.nodes[:2]:
        losses = document_losses(model, open_stream(shards, "validation"), LOSS)
        pd.testing.assert_frame_equal(pd.read_parquet(store.directory(node) / "documents.parquet"), losses)
        expected = {"outcome": "complete"} | summarize(losses, bytes_per_token=3.0)
        assert read_manifest(store.directory(node)).summary == expected
        apply_quantized(model, store.directory(parents["quantized"]))


def test_only_what_is_missing_is_made_again(store, job):
    stage.run(job, store)
    (store.directory(job.nodes[1]) / "documents.parquet").write_bytes(b"damaged")
    assert stage.run(job, store) == 1


@pytest.mark.parametrize("role", ["model", "quantized"])
def test_what_diverged_is_recorded_without_files(store, parents, job, role, monkeypatch):
    (store.directory(parents[role]) / "manifest.json").unlink()
    (store.directory(parents[role]) / "record.json").unlink()
    store.ensure(parents[role], lambda out: {"outcome": "diverged", "diverged_step": 70})
    monkeypatch.setattr(stage, "load_model", lambda *_: pytest.fail("there are no weights to load"))
    nodes = [node for node in job.nodes if role in node.parents]
    assert stage.run(Job("evaluation", "scores", tuple(nodes)), store) == len(nodes)
    for node in nodes:
        manifest = read_manifest(store.directory(node))
        assert manifest.summary == {"outcome": "diverged", "diverged_step": 70}
        assert manifest.files == {}


def test_questions_that_cannot_be_had_are_said_before_any_work(store, parents, monkeypatch):
    monkeypatch.setattr(stage, "load_model", lambda *_: pytest.fail("too early"))
    shown = evaluation(parents, TASKS.model_copy(update={"shots": 1}), "model", "tokenizer", "corpus")
    nodes = (evaluation(parents, LOSS, "model", "shards"), shown)
    with pytest.raises(CoolbitsError, match="shots"):
        stage.run(Job("evaluation", "scores", nodes), store)
    assert not any(store.directory(node).exists() for node in nodes)


def test_a_context_too_short_for_answers_is_said_before_any_work(store, parents, tokenizer, tiny_model, monkeypatch):
    monkeypatch.setattr(stage, "load_model", lambda *_: pytest.fail("too early"))
    short = make_node("checkpoint", "short", {}, {})
    store.ensure(short, lambda out: save_model(tiny_model(context=1), tokenizer, out) or {})
    nodes = (
        evaluation(parents, LOSS, "model", "shards"),
        evaluation(parents, TASKS, "model", "tokenizer", "corpus"),
        evaluation(parents | {"model": short}, TASKS, "model", "tokenizer", "corpus"),
    )
    with pytest.raises(CoolbitsError, match=r"coolbits_cloze: a continuation has \d+ tokens, .* context is 1;"):
        stage.run(Job("evaluation", "scores", nodes), store)
    assert not any(store.directory(node).exists() for node in nodes)


def test_weights_are_not_compared_with_those_of_a_model_whose_head_is_untied(store, parents):
    recipe = Quantized(method=RTN(grid=Grid(bits=4)), head=True)
    untied = make_node("quantized", "untied", recipe.identity(), {"model": parents["model"].ref})
    store.ensure(untied, lambda out: {"untied": True})
    measure = Prediction(kind="prediction", windows=2, sequence_length=16)
    node = evaluation(parents | {"quantized": untied}, measure, "model", "quantized", "shards")
    sentence = why_incomparable("prediction", untied.name, recipe, untied=True)
    with pytest.raises(CoolbitsError, match=f"^{re.escape(f'{node.name}: {sentence}')}$"):
        stage.run(Job("evaluation", "scores", (node,)), store)


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (Quantized(method=AWQ(grid=Grid(bits=4))), "awq scales weights to and fro"),
        (Quantized(method=Int8()), "int8 rounds what layers read"),
        (Quantized(method=RTN(grid=Grid(bits=4)), activations=Activations()), "activations rounds what layers read"),
    ],
)
def test_weights_are_not_compared_where_they_do_not_tell_how_functions_differ(store, parents, quantizer, reason):
    beyond = make_node("quantized", "beyond", quantizer.identity(), {"model": parents["model"].ref})
    store.ensure(beyond, lambda out: {})
    measure = Prediction(kind="prediction", windows=2, sequence_length=16)
    node = evaluation(parents | {"quantized": beyond}, measure, "model", "quantized", "shards")
    with pytest.raises(CoolbitsError, match=rf"^{node.name}: prediction compares .* beyond-\w+: {reason}"):
        stage.run(Job("evaluation", "scores", (node,)), store)


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (Quantized(method=Int8()), "int8 rounds what layers read"),
        (Quantized(method=RTN(grid=Grid(bits=4)), activations=Activations()), "activations rounds what layers read"),
    ],
)
def test_curvature_is_not_measured_where_the_loss_goes_in_steps(store, parents, quantizer, reason):
    """Differentiated through the rounding, the largest eigenvalue of rtn-w8a8 was 1.1 where that of rtn-w8 is 2.8."""
    steps = make_node("quantized", "steps", quantizer.identity(), {"model": parents["model"].ref})
    store.ensure(steps, lambda out: {})
    measure = Curvature(windows=2, sequence_length=16, eigenvalues=2)
    node = evaluation(parents | {"quantized": steps}, measure, "model", "quantized", "shards")
    with pytest.raises(CoolbitsError, match=rf"^{node.name}: curvature is .* steps-\w+ has not: {reason}"):
        stage.run(Job("evaluation", "scores", (node,)), store)


def test_the_device_is_chosen_by_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert stage.choose_device("auto") == "cuda"
    assert stage.choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert stage.choose_device("auto") == "cpu"


@pytest.mark.parametrize(("precision", "made"), [("float32", False), ("bfloat16", True)])
@pytest.mark.parametrize("measure", [LOSS, TASKS], ids=lambda measure: measure.kind)
def test_where_the_processor_has_no_bfloat16_its_products_are_made_in_float32(
    store, parents, measure, precision, made, widened
):
    roles = ("model", "shards") if measure == LOSS else ("model", "tokenizer", "corpus")
    node = evaluation(parents, measure.model_copy(update={"precision": precision}), *roles)
    stage.run(Job("evaluation", "scores", (node,), {"device": "cpu"}), store)
    assert bool(widened) == made
