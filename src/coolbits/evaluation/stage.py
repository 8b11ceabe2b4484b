"""The evaluation stage: nodes that measure the same weights share one loaded model."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import Manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.data.shards import open_stream, read_index
from coolbits.evaluation.curvature import measure_curvature
from coolbits.evaluation.landscape import measure_landscape
from coolbits.evaluation.loss import document_losses, summarize
from coolbits.evaluation.objective import flat_weights, objective_of
from coolbits.evaluation.prediction import measure_prediction
from coolbits.models.devices import choose_device
from coolbits.models.files import load_config, load_model
from coolbits.models.forwards import fast_linears
from coolbits.models.quantized import apply_quantized
from coolbits.products import bfloat16_products
from coolbits.study.recipes.comparison import why_incomparable, why_no_curvature
from coolbits.study.recipes.evaluation import Comparison, Curvature, Evaluation, Landscape, Loss, Tasks
from coolbits.study.recipes.ptq import Quantized

if TYPE_CHECKING:
    from coolbits.evaluation.tasks import Suite

Summary = dict[str, Any]
Suites = dict[tuple[str, ...], "Suite"]


def run(job: Job, store: Store) -> int:
    """Make the evaluations of the job that are missing; return how many were made.

    Questions are prepared before the first model is loaded, so that a hub out of reach or a missing package is said
    at once. A model that diverged, or a quantized form of it, gives an evaluation that says so and has no files.

    Raises:
        CoolbitsError: for tasks that cannot be had, a validation split shorter than one window, a comparison with a
            quantized model whose head is no longer tied, or that differs by more than its weights say, or the curvature
            of one that rounds its inputs.
    """
    device = choose_device(job.execution.get("device", "auto"))
    suites = _prepare(job.nodes, store)
    made = 0
    with Progress(job.name, len(job.nodes), "evaluations") as progress:
        for _, group in groupby(sorted(job.nodes, key=_weights), key=_weights):
            nodes = list(group)
            # loaded if, and when, the first node needs it
            model = cache(partial(_load, nodes[0], store, device, _measured(nodes[0])))
            for node in nodes:
                made += store.ensure(node, partial(_build, node, store, device, model, suites))
                progress.advance(note=node.name)
    return made


def evaluate_loss(model: nn.Module, shards: Path, recipe: Loss, out: Path) -> Summary:
    """Score `model` on the validation tokens of `shards`; write documents.parquet into `out`, return the summary."""
    with fast_linears(model.modules()):
        losses = document_losses(model, open_stream(shards, "validation"), recipe)
    losses.to_parquet(out / "documents.parquet", index=False)
    return summarize(losses, read_index(shards)["bytes_per_token"]["validation"])


def evaluate_tasks(model: nn.Module, suite: "Suite", out: Path) -> Summary:
    """Ask `model` the questions of `suite`; write samples and results into `out`, return the summary."""
    from coolbits.evaluation.samples import write_results
    from coolbits.evaluation.tasks import score

    with fast_linears(model.modules()):
        scored = score(suite, model)
    return write_results(scored, suite.leaves, out)


def _build(node: Node, store: Store, device: str, model: Callable[[], nn.Module], suites: Suites, out: Path) -> Summary:
    if diverged := _diverged(node, store):
        return diverged
    with bfloat16_products(device, getattr(torch, _precision(node))):
        return _measure(node, store, device, model, suites, out)


def _measure(
    node: Node, store: Store, device: str, model: Callable[[], nn.Module], suites: Suites, out: Path
) -> Summary:
    measure = Evaluation.read(node.recipe).measure
    if isinstance(measure, Tasks):
        return evaluate_tasks(model(), suites[_questions(node)], out)
    shards = node.parent_directory(store.root, "shards")
    if isinstance(measure, Loss):
        return evaluate_loss(model(), shards, measure, out)
    if "quantized" in node.parents and (reason := _why_not(measure, store.manifest(node, "quantized"))):
        raise CoolbitsError(f"{node.name}: {reason}")
    objective = objective_of(model(), open_stream(shards, "validation"), measure)
    if isinstance(measure, Curvature):
        return measure_curvature(objective, measure, out)
    quantized = flat_weights(_load(node, store, device, ("model", "quantized")))
    if isinstance(measure, Landscape):
        previous = flat_weights(_load(node, store, device, ("previous",)))
        return measure_landscape(objective, previous, quantized, measure, out)
    return measure_prediction(objective, quantized, measure, out)


def _why_not(measure: Comparison | Curvature, quantized: Manifest) -> str | None:
    """Return why a measure tells nothing of a quantized model, or None."""
    recipe, untied = Quantized.read(quantized.recipe), quantized.summary.get("untied", False)
    if isinstance(measure, Curvature):
        return why_no_curvature(quantized.name, recipe)
    return why_incomparable(measure.kind, quantized.name, recipe, untied)


def _prepare(nodes: Iterable[Node], store: Store) -> Suites:
    """Return the questions of every node that has some to ask, each set of questions once, after a look at the models.

    Raises:
        CoolbitsError: if questions cannot be had, or a model's context is too short for their answers.
    """
    asking = [
        node
        for node in nodes
        if isinstance(Evaluation.read(node.recipe).measure, Tasks)
        and not store.is_current(node)
        and not _diverged(node, store)
    ]
    suites = {questions: _suite(node, store) for questions, node in {_questions(node): node for node in asking}.items()}
    for node in asking:
        _check_context(suites[_questions(node)], node.parent_directory(store.root, "model"))
    return suites


def _check_context(suite: "Suite", model: Path) -> None:
    from coolbits.evaluation.tasks import check_context

    check_context(suite, load_config(model))


def _suite(node: Node, store: Store) -> "Suite":
    from coolbits.evaluation.tasks import load_suite

    store.demand_parents(node)
    recipe = Tasks.read(node.recipe["measure"])
    corpus = node.parent_directory(store.root, "corpus") if "corpus" in node.parents else None
    return load_suite(recipe, corpus, node.parent_directory(store.root, "tokenizer"))


def _questions(node: Node) -> tuple[str, ...]:
    """Return what decides the questions a node asks: its recipe, the corpus, the tokenizer."""
    parents = (node.parents[role].name for role in ("corpus", "tokenizer") if role in node.parents)
    return (canonical_json(node.recipe), *parents)


def _weights(node: Node) -> tuple[str, ...]:
    """Return what decides the weights that a node measures: model, quantized form, precision."""
    return (*(f"{role}/{node.parents[role].name}" for role in _measured(node)), _precision(node))


def _measured(node: Node) -> tuple[str, ...]:
    """Return the roles of the parents whose weights are measured; a comparison starts from the model alone."""
    compares = isinstance(Evaluation.read(node.recipe).measure, Comparison)
    return ("model", "quantized") if "quantized" in node.parents and not compares else ("model",)


def _precision(node: Node) -> str:
    measure = Evaluation.read(node.recipe).measure
    return measure.precision if isinstance(measure, Loss | Tasks) else "float32"


def _load(node: Node, store: Store, device: str, roles: tuple[str, ...]) -> nn.Module:
    """Load the model of the first role, with the weights of the second, a quantized form of it, if there is one."""
    model = load_model(node.parent_directory(store.root, roles[0]), device, getattr(torch, _precision(node)))
    for role in roles[1:]:
        apply_quantized(model, node.parent_directory(store.root, role))
    return model


def _diverged(node: Node, store: Store) -> Summary | None:
    """Return the summary that a node inherits from a parent that diverged, or None."""
    for role in ("model", "quantized", "previous"):
        if role in node.parents and (manifest := store.manifest(node, role)).diverged:
            return {"outcome": "diverged", "diverged_step": manifest.summary["diverged_step"]}
    return None
